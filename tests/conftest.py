"""The fixtures that several test files share, and the order of the files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import housing_lib.quick_schemas  # noqa: F401  # isort: skip

import numpy as np
import pandas as pd
import pytest
from clusters import Cluster, running_cluster
from commands import SmokeRun, environment_of, run_housing, run_smoke
from filelock import FileLock
from mlflow import MlflowClient
from monitored import observe
from scored import identity_of
from serving import Server, register_another, running_server
from stores import Store, build_store, clear_caches, prove_on_few_more, use_root
from tiny_steps import TinySteps
from xdist.scheduler import LoadFileScheduling

from housing_lib import (
    compiling,
    data,
    deployment,
    parts,
    pipeline,
    printing,
    registry,
)
from housing_lib.answering import Answering, CompiledModel
from housing_lib.files import read_json, write_json
from housing_lib.graph import Plan
from housing_lib.monitoring import Session
from housing_lib.settings import get_settings

# The first makes the smoke run, for which "pipeline" and "browser" would have to wait.
LONGEST_FIRST = (
    *("cli", "notebooks", "runs", "team", "serve_following", "registry", "pipeline", "browser"),
    *("serve_stopping", "ledger", "monitoring", "tuning", "compiled", "studies", "reuse"),
    *("execution", "prediction_log", "page", "scoring_parts", "sessions", "tracking", "gate"),
    *("serve_limits", "serve_log", "openapi", "serve"),
)
LONGEST = "test_they_run_in_order_from_their_own_folder"
ON_CLUSTER = ("monitoring", "tuning", "scoring_parts", "evaluation", "compute")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left with one of them at the end."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: (ranks.get(item.path.stem, len(ranks)), item.name != LONGEST))


class FilesTogether(LoadFileScheduling):
    """A file for each worker, and those that need a cluster for one, so that there is one."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
        return "cluster" if name in ON_CLUSTER else name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    """Who says which worker runs which tests."""
    return FilesTogether(config, log)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A copy of one small store, built from the bundled data for all workers; only to be read."""
    built = _of_all_workers(tmp_path_factory) / "store"
    root = tmp_path_factory.mktemp("store") / "own"
    with pytest.MonkeyPatch.context() as patch:
        with FileLock(built.with_suffix(".lock")):
            if not built.with_suffix(".done").exists():
                use_root(patch, built)
                prove_on_few_more(patch)
                build_store()
                built.with_suffix(".done").touch()
        shutil.copytree(built, root)  # the artifacts of its models stay where they are
        use_root(patch, root)
        yield Store(root, registry.load("production"), parts.load_part("test").districts)
    clear_caches()


@pytest.fixture(scope="session")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that store, and afterwards the proof that no request made it fail."""
    with running_server(store.root, tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running
    assert "Traceback" not in running.printed


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; without it tests of pages are skipped, but never in CI."""
    try:
        return printing.find_browser()
    except printing.PrintingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def own_store(
    store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, int, int]]:
    """A copy of that store with two versions, the first in Production, which may be moved."""
    root = tmp_path_factory.mktemp("following") / "root"
    shutil.copytree(store.root, root, ignore=shutil.ignore_patterns("serving"))
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, root)
        prove_on_few_more(patch)
        second = register_another(store)
        deployment.publish(second)
        yield root, store.registered.version, second
    clear_caches()


@pytest.fixture(scope="session")
def asked(store: Store) -> Answering:
    """The model of that store, compiled as it is for a server."""
    known = deployment.known_districts(store.registered.data_digest)
    compiled = compiling.compile_model(store.registered.model, known)
    return Answering(identity_of(store), CompiledModel(compiled))


@pytest.fixture(scope="module")
def registered(store: Store) -> registry.RegisteredModel:
    """The model in Production of that store."""
    return store.registered


@pytest.fixture(scope="module")
def shuffled(store: Store) -> pd.DataFrame:
    """Its test districts in an order that means nothing."""
    return store.test.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def quiet(shuffled: pd.DataFrame, registered: registry.RegisteredModel) -> Session:
    """A look at them in batches of ten."""
    return observe(shuffled, registered, batch_rows=10)


@pytest.fixture
def districts(store: Store) -> pd.DataFrame:
    """Fifty districts with an id, a note and a few missing values, in an order of their own."""
    table = store.test[list(reversed(data.FEATURES))].head(50).reset_index(drop=True)
    table.loc[3, "AveBedrms"] = np.nan
    table.insert(0, "id", [f"{number:05d}" for number in range(50)])
    table["note"] = ["NA", 'with "quotes", and a comma', "two\nlines", *[""] * 47]
    return table


def _of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of these tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """One smoke run of everything for all workers; only to be read and added to."""
    root = _of_all_workers(tmp_path_factory) / "smoke"
    said = root.with_suffix(".json")
    with FileLock(root.with_suffix(".lock")):
        if not said.exists():
            write_json(said, run_smoke(root))
    told = read_json(said)
    folder = Path(told.pop("folder"))
    return SmokeRun(root, **told, record=read_json(folder / "run.json"), folder=folder)


@pytest.fixture
def start_housing() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """The `housing` command, started and not waited for; it is killed at the end of the test."""
    started = []

    def start(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("housing")), *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, env=environment_of(root), cwd=root, **quiet))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def housing() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The installed `housing` command: `housing(root, *arguments)`."""
    return run_housing


@pytest.fixture
def smoke_store(smoke: SmokeRun) -> Iterator[SmokeRun]:
    """The smoke run, with this process looking at its store."""
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, smoke.root)
        yield smoke
    clear_caches()


@pytest.fixture
def own_root(tmp_path: Path) -> Iterator[Path]:
    """A root of its own for one test, empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, tmp_path)
        yield tmp_path
    clear_caches()


@pytest.fixture(scope="session")
def _tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables with nothing in them; to make them takes a second."""
    path = _of_all_workers(tmp_path_factory) / "tables.db"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def empty_store(own_root: Path, _tables: Path) -> Path:
    """A root of its own for one test, with an MLflow store that nobody used yet."""
    shutil.copy(_tables, own_root / "mlflow.db")
    return own_root


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Dask scheduler and two workers of one thread, in processes of their own."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def on_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The same cluster, named in the settings of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_CLUSTER", cluster.address)
        get_settings.cache_clear()
        yield cluster
    get_settings.cache_clear()


@pytest.fixture
def tiny(own_root: Path, tmp_path_factory: pytest.TempPathFactory) -> TinySteps:
    """Small steps, to be run in a root of their own."""
    return TinySteps(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def _three_done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TinySteps]:
    root, steps = tmp_path_factory.mktemp("root"), TinySteps(tmp_path_factory.mktemp("tiny"))
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, root)
        done = pipeline.run_steps("first-run", Plan((), 0, jobs=2), steps.three())
    clear_caches()
    assert done.state == "done"
    assert sorted(steps.executed) == ["beside", "first", "second"]
    return root, steps


@pytest.fixture
def tiny_done(_three_done: tuple[Path, TinySteps], own_root: Path) -> TinySteps:
    """The three small steps, in a root of its own where `first-run` finished them."""
    root, steps = _three_done
    shutil.copytree(root, own_root, dirs_exist_ok=True)
    (steps.folder / "executed").unlink(missing_ok=True)
    return steps
