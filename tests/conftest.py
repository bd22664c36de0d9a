"""What several test files share: a small, real MLflow store with a model in Production."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import housing_lib.quick_schemas  # noqa: F401  # isort: skip

import nbformat
import numpy as np
import pandas as pd
import pytest
from clusters import Cluster, running_cluster
from filelock import FileLock
from mlflow import MlflowClient
from nbformat import v4
from scored import identity_of
from serving import Server, register_another, running_server

from housing_lib import (
    accuracy,
    compiling,
    data,
    deployment,
    families,
    features,
    intervals,
    parts,
    pipeline,
    printing,
    promotion,
    registry,
    tracking,
)
from housing_lib.answering import Answering, CompiledModel
from housing_lib.files import read_json, write_json
from housing_lib.graph import Plan, Recorded, Step
from housing_lib.settings import get_settings

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
STORE_VARIABLES = ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI", "HOUSING_MODEL_NAME")
# The first makes the smoke run, for which "pipeline" and "browser" would have to wait.
LONGEST_FIRST = (
    *("cli", "notebooks", "runs", "team", "serve_following", "registry", "pipeline", "browser"),
    *("serve_stopping", "ledger", "monitoring", "tuning", "compiled", "studies", "reuse"),
    *("execution", "prediction_log", "page", "scoring_parts", "sessions", "tracking", "gate"),
    *("serve_limits", "serve_log", "openapi", "serve"),
)
LONGEST = "test_they_run_in_order_from_their_own_folder"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left with one of them at the end."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: (ranks.get(item.path.stem, len(ranks)), item.name != LONGEST))


@dataclass(frozen=True)
class Store:
    """A root with processed districts and an MLflow store, and what stands in Production there."""

    root: Path
    registered: registry.RegisteredModel
    test: pd.DataFrame


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


@dataclass(frozen=True)
class SmokeRun:
    """What `housing run --budget smoke` left behind in a root of its own."""

    root: Path
    exit_code: int
    printed: str
    record: dict[str, Any]
    folder: Path
    canary: str

    def housing(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the same root."""
        return run_housing(self.root, *arguments)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """One smoke run of everything for all workers; only to be read and added to."""
    root = _of_all_workers(tmp_path_factory) / "smoke"
    said = root.with_suffix(".json")
    with FileLock(root.with_suffix(".lock")):
        if not said.exists():
            write_json(said, _run_smoke(root))
    told = read_json(said)
    folder = Path(told.pop("folder"))
    return SmokeRun(root, **told, record=read_json(folder / "run.json"), folder=folder)


def _run_smoke(root: Path) -> dict[str, Any]:
    root.mkdir()
    canary = f"canary-{uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_TEST_TOKEN", canary)
        done = run_housing(root, "run", "--budget", "smoke")
    (record,) = {path.resolve() for path in root.glob("reports/*/run.json")}
    return {
        "folder": str(record.parent),
        "exit_code": done.returncode,
        "printed": done.stdout + done.stderr,
        "canary": canary,
    }


def run_housing(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed `housing` command with another root."""
    command = [str(Path(sys.executable).with_name("housing")), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment_of(root),
        cwd=root,
        check=False,
        timeout=600,
    )


def environment_of(root: Path) -> dict[str, str]:
    """The environment of these tests, for a command in another root."""
    kept = {key: value for key, value in os.environ.items() if key not in STORE_VARIABLES}
    return kept | {"HOUSING_ROOT": str(root), "COLUMNS": "200"}


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


@dataclass(frozen=True)
class TinySteps:
    """Steps of small notebooks, which leave a line in a file whenever they are executed."""

    folder: Path

    def make(
        self, name: str, *sources: str, words: str = "# Tiny", recorded: Any = None, **more: Any
    ) -> Step:
        """A step of a notebook that runs `sources` and records something."""
        record = recorded or {"x": 1}
        note = f"with open({str(self.folder / 'executed')!r}, 'a') as f: f.write('{name}\\n')"
        start = "from housing_lib import reports", note, *sources, f"reports.record(**{record})"
        given = v4.new_code_cell("seen: str = ''", metadata={"tags": ["parameters"]})
        cells = [v4.new_markdown_cell(words), given, *map(v4.new_code_cell, start)]
        for number, cell in enumerate(cells):
            cell["id"] = f"{name}-{number}"
        path = self.folder / f"00_{name}.ipynb"
        nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
        return Step(name, notebook=str(path), **more)

    def three(self, *, first: Any = (), second: Any = (), words: str = "# Tiny") -> list[Step]:
        """A step, one that is given what it recorded, and one beside them."""
        seen = {"seen": Recorded(["first"], "x")}
        return [
            self.make("first", *first),
            self.make("second", *second, words=words, after=["first"], parameters=seen),
            self.make("beside"),
        ]

    @property
    def executed(self) -> list[str]:
        """The names of the steps that were executed, in order; forgotten by asking."""
        path = self.folder / "executed"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names


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


def use_root(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Point this process's settings and MLflow client at another root."""
    for name in STORE_VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("HOUSING_ROOT", str(root))
    clear_caches()


def prove_on_few_more(patch: pytest.MonkeyPatch) -> None:
    """Let compiled models be proved on all known districts, and beside them on few others."""
    patch.setattr(deployment, "SYNTHETIC_ROWS", 200)


def clear_caches() -> None:
    """Let settings and client be read anew."""
    get_settings.cache_clear()
    tracking.client.cache_clear()


def build_store(model: Any = None) -> Store:
    """Processed districts, and a model in Production of the store that settings name.

    By default a small one, which is fitted first.
    """
    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))
    manifest = parts.write_parts(
        split,
        source="bundled",
        test_share=0.20,
        validation_share=0.16,
        feature_names=features.feature_names(),
    )
    model = model or _small_model(split["train"])
    with tracking.run("evaluation", "small", params={}, tags={"family": "xgboost"}) as run_id:
        uri = tracking.log_model(model, split["train"].districts)
        test = split["test"]
        predicted = model.predict(test.districts)
        tracking.log_metrics(accuracy.metrics(test.y, predicted, prefix="test_"))
    tags = {"family": "xgboost", "run_id": run_id, "data_digest": manifest.data_digest}
    version = registry.register(uri, tags=tags)
    assert promotion.promote(version).promoted
    return Store(get_settings().root, registry.load("production"), split["test"].districts)


def _small_model(train: parts.Part) -> intervals.CalibratedModel:
    params = {"n_estimators": 40, "max_depth": 5, "learning_rate": 0.1}
    small = families.make_model("xgboost", params, repeats=1)
    some = slice(None, None, 2)  # so that a better model is easily made
    return intervals.CalibratedModel(small).fit(train.districts[some], train.y[some])
