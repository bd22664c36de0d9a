"""What happens when there is more of everything: districts, known districts, workers.

Batch prediction runs as `housing predict` in processes of its own, beside the bare call of the
compiled model on arrays in memory and beside `mlflow.pyfunc` (on some of the rows: it is slow).
The store and the files lie in a temporary folder, which is removed.
Run: python tests/benchmarks/scale.py --help
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import watched
from bars import Bar, show

if TYPE_CHECKING:
    from housing_lib.compiled import Compiled

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HOUSING = str(Path(sys.executable).with_name("housing"))
STORE_VARIABLES = ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI", "HOUSING_CLUSTER")
KNOWN = (16_000, 1_600_000)


def environment_of(root: Path) -> dict[str, str]:
    """An environment in which everything is written to `root`, and each process has one thread."""
    kept = {key: value for key, value in os.environ.items() if key not in STORE_VARIABLES}
    return kept | {"HOUSING_ROOT": str(root), "OMP_NUM_THREADS": "1"}


def make_champion(root: Path, family: str, size: int | None) -> None:
    """Fit, register, promote and compile a champion with intervals in a store of its own."""
    from housing_lib import data, families, features, intervals, parts, registry, tracking
    from housing_lib.answering import answering

    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))
    shares = {"test_share": 0.20, "validation_share": 0.16}
    manifest = parts.write_parts(
        split, source="bundled", feature_names=features.feature_names(), **shares
    )
    params = {"n_estimators": size} if size else None
    model = intervals.CalibratedModel(families.make_model(family, params))
    model.fit(split["train"].districts, split["train"].y)
    with tracking.run("evaluation", "scale", params={}, tags={"family": family}) as run_id:
        uri = tracking.log_model(model, split["train"].districts)
    tags = {"family": family, "run_id": run_id, "data_digest": manifest.data_digest}
    version = registry.register(uri, tags=tags)
    tracking.client().set_registered_model_alias(
        registry.get_settings().model_name, "staging", str(version)
    )
    answering("staging")


def write_districts(path: Path, rows: int) -> None:
    """A Parquet file of synthetic districts, written in pieces."""
    from housing_lib import compiling, data

    known = data.acquire()[list(data.FEATURES)].to_numpy()
    piece = 1_000_000
    schema = pa.schema([(name, pa.float64()) for name in data.FEATURES])
    with pq.ParquetWriter(path, schema) as file:
        for number, first in enumerate(range(0, rows, piece)):
            count = min(piece, rows - first)
            made = compiling.synthetic_districts(known, rows=count, seed=number)
            made[np.isnan(made).all(axis=1)] = known[0]
            file.write_table(pa.table(dict(zip(data.FEATURES, made.T, strict=True)), schema=schema))


def predict(root: Path, source: Path, jobs: int) -> tuple[float, float]:
    """The seconds of `housing predict`, and the most megabytes that one of its processes held."""
    target = root / "out" / f"{source.stem}-{jobs}.parquet"
    command = [HOUSING, "predict", str(source), str(target), "--stage", "staging"]
    done = watched.run([*command, "--jobs", str(jobs)], environment_of(root))
    assert done.exit_code == 0, done.printed
    target.unlink()
    return done.seconds, done.megabytes


def compiled_champion(root: Path) -> "Compiled":
    """The champion that `make_champion` left in its store, as arrays."""
    from housing_lib import compiled

    (path,) = (root / "data" / "serving").glob("*.npz")
    return compiled.load(path, digest=path.stem)


def bare_call(root: Path, rows: int) -> float:
    """The seconds of the compiled model on arrays that are in memory already."""
    from housing_lib.records import BATCH_ROWS

    model = compiled_champion(root)
    stored = pq.ParquetFile(root / f"{rows}.parquet")
    some = stored.read_row_group(0).to_pandas().to_numpy()
    model.answer(some[:BATCH_ROWS])
    started = time.perf_counter()
    for first in range(0, min(rows, len(some)), BATCH_ROWS):
        model.answer(np.ascontiguousarray(some[first : first + BATCH_ROWS]))
    return (time.perf_counter() - started) * rows / min(rows, len(some))


def pyfunc(root: Path, rows: int, some: int = 20_000) -> float:
    """The seconds that `mlflow.pyfunc` would take for prices alone, by some of the rows."""
    import mlflow

    from housing_lib import tracking
    from housing_lib.settings import get_settings

    tracking.client()
    name = get_settings().model_name
    version = tracking.client().get_model_version_by_alias(name, "staging")
    model = mlflow.pyfunc.load_model(f"models:/{name}/{version.version}")
    table = pq.ParquetFile(root / f"{rows}.parquet").read_row_group(0).to_pandas()[:some]
    started = time.perf_counter()
    model.predict(table)
    return (time.perf_counter() - started) * rows / len(table)


def measure_predict(root: Path, chosen: argparse.Namespace) -> Iterator[Bar]:
    """Batch prediction: memory, speed beside the bare call and pyfunc, growth, two processes."""
    rows = chosen.rows
    make_champion(root, chosen.family, chosen.trees)
    for count in (1, rows // 10, rows):
        write_districts(root / f"{count}.parquet", count)
    start, _ = predict(root, root / "1.parquet", 1)
    tenth, _ = predict(root, root / f"{rows // 10}.parquet", 1)
    one, memory = predict(root, root / f"{rows}.parquet", 1)
    two, memory_two = predict(root, root / f"{rows}.parquet", 2)
    bare, slow = bare_call(root, rows), pyfunc(root, rows)
    print(f"{rows:,} rows in one process: {one:.1f} s, {start:.1f} s of them to start")
    print(f"speed beside the bare call, with the start: {bare / one:.2f}")
    work, tell = one - start, f"{rows:,} districts from a file"
    both = {
        "ours": f"{rows / work:,.0f} rows/s",
        "peer": f"{rows / bare:,.0f} rows/s, the bare call",
    }
    yield Bar(f"{tell}, beside the bare call on arrays", bare / work, "≥", 0.8, **both)
    print(f"beside mlflow.pyfunc, which uses every core, in one process: {slow / one:.2f} times")
    both = {"ours": f"{two:.0f} s", "peer": f"{slow:.0f} s, mlflow.pyfunc (prices alone)"}
    yield Bar(f"{tell}, beside mlflow.pyfunc, both on 2 cores", slow / two, "≥", 5, **both)
    yield Bar("resident memory of a process", max(memory, memory_two), "≤", 600, "MB")
    both = {"ours": f"{two - start:.1f} s", "peer": f"{work:.1f} s in one process"}
    yield Bar(f"{tell}, in two processes", work / (two - start), "≥", 1.8, **both)
    both = {"ours": f"{work:.1f} s", "peer": f"{tenth - start:.1f} s for a tenth"}
    yield Bar(f"{tell}, beside a tenth of them", work / (tenth - start), "≤", 10.5, **both)


def measure_neighbours(root: Path, chosen: argparse.Namespace) -> Iterator[Bar]:
    """One prediction, with few and with very many known districts; the champion's trees stay."""
    from housing_lib import compiling, data
    from housing_lib.compiled_features import district_matrix
    from housing_lib.neighbours import NeighbourFeatures

    make_champion(root, chosen.family, chosen.trees)
    champion = compiled_champion(root)
    known = data.acquire()[list(data.FEATURES)].to_numpy()
    asked = complete_districts(known, rows=2_000, seed=9)
    seconds = []
    for count in KNOWN:
        made = complete_districts(known, rows=count, seed=5)
        prices = np.random.default_rng(0).random(count) * 5
        around = compiling._around(NeighbourFeatures().fit(made, prices))
        model = replace(champion, around=around, districts=made)
        features = one_by_one(partial(district_matrix, own=model.own, around=around), asked)
        seconds.append(one_by_one(model.answer, asked))
        print(f"{features * 1e6:,.0f} µs for the features alone, among {count:,}")
    few, many = (f"{one * 1e6:,.0f} µs" for one in seconds)
    both = {"ours": f"{many} among {KNOWN[1]:,}", "peer": f"{few} among {KNOWN[0]:,}"}
    yield Bar("a prediction among more known districts", seconds[1] / seconds[0], "≤", 2, **both)


def complete_districts(known: np.ndarray, *, rows: int, seed: int) -> np.ndarray:
    """Synthetic districts without missing values, shape (rows, 8)."""
    from housing_lib import compiling

    made = compiling.synthetic_districts(known, rows=rows, seed=seed)
    return np.where(np.isnan(made), np.nanmedian(known, axis=0), made)


def one_by_one(work: Callable[[np.ndarray], object], rows: np.ndarray) -> float:
    """The seconds of the thread, which others do not slow, for each row by itself: a median."""
    work(rows[:1])
    found = []
    for _ in range(5):
        started = time.process_time()
        for row in rows:
            work(row[None])
        found.append((time.process_time() - started) / len(rows))
    return float(np.median(found))


def measure_tuning(root: Path, chosen: argparse.Namespace) -> Iterator[Bar]:
    """A search two abreast: on a cluster of two one-thread workers, and in two local processes."""
    from clusters import running_cluster

    from housing_lib import data, features, tuning
    from housing_lib.settings import get_settings

    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))

    def search(trials: int) -> tuple[float, tuple[int, float]]:
        started = time.perf_counter()
        found = tuning.tune(
            chosen.family, split["train"], split["val"], n_trials=trials, seed=1,
            abreast=2, growth=0.3,
        )  # fmt: skip
        for log in get_settings().studies.glob("*.log"):
            log.unlink()
        best = found.best
        return time.perf_counter() - started, (best.number, best.metrics["val_rmse"])

    def warm_search() -> tuple[float, tuple[int, float]]:
        search(2)  # which imports everything, there as here
        return search(chosen.trials)

    local, here = warm_search()
    with running_cluster(root) as cluster:
        os.environ["HOUSING_CLUSTER"] = cluster.address
        get_settings.cache_clear()
        there_s, there = warm_search()
    del os.environ["HOUSING_CLUSTER"]
    get_settings.cache_clear()
    both = {"ours": f"{there_s:.1f} s", "peer": f"{local:.1f} s in two local processes"}
    yield Bar(f"{chosen.trials} trials on two Dask workers", there_s / local, "≤", 1.15, **both)
    yield Bar("the cluster finds the same best trial", float(here == there), "≥", 1)


def run_everything(root: Path, address: str = "", models: str = "ridge,xgboost") -> float:
    """The seconds of a small `housing run`, with a store of its own or the one at an address."""
    root.mkdir()
    environment = environment_of(root) | ({"HOUSING_TRACKING_URI": address} if address else {})
    command = [HOUSING, "run", "--budget", "smoke", "--models", models]
    started = time.perf_counter()
    subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True)
    return time.perf_counter() - started


def measure_store(root: Path, chosen: argparse.Namespace) -> Iterator[Bar]:
    """A run on PostgreSQL and S3 beside one on SQLite; two servers that follow what is decided."""
    from team_stores import running_team_store

    with running_team_store(root) as team:
        address = team.address
        run_everything(root / "warm", address, "ridge")  # which makes the tables, and version 1
        here = run_everything(root / "here")
        there = run_everything(root / "there", address)
        both = {"ours": f"{there:.1f} s", "peer": f"{here:.1f} s on SQLite and files"}
        yield Bar("a run on PostgreSQL and S3", there / here, "≤", 1.3, **both)
        follow(root / "there", address)


def follow(root: Path, address: str) -> None:
    """Print how long two servers take to follow promotion and rollback in a team's store."""
    from serving import running_server

    team = {"HOUSING_TRACKING_URI": address}

    def housing(*arguments: str) -> str:
        done = subprocess.run([HOUSING, *arguments], env=environment_of(root) | team, cwd=root,
                              capture_output=True, text=True, check=True)  # fmt: skip
        return done.stdout

    stood = [one for one in json.loads(housing("history", "--json")) if one["version"]]
    versions = [one["version"] for one in stood if one["decision"] == "promoted"]
    with (
        running_server(root / "one", root / "one.log", **team) as one,
        running_server(root / "two", root / "two.log", **team) as two,
    ):
        for version in dict.fromkeys([versions[0], versions[-1], versions[0]]):
            standing = one.status()["model_version"]
            if version != standing:
                housing("rollback", "--to", str(version))
            started = time.perf_counter()
            for server in (one, two):
                server.wait_for(lambda status, wanted=version: status["model_version"] == wanted)
            took = time.perf_counter() - started
            print(f"{took:.1f} s until both servers answer with version {version}")


MEASURES: dict[str, Callable[[Path, argparse.Namespace], Iterator[Bar]]] = {
    "predict": measure_predict,
    "neighbours": measure_neighbours,
    "tuning": measure_tuning,
    "store": measure_store,
}


def main() -> None:
    """Measure what was chosen, and print the table."""
    from housing_lib import families

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measures", nargs="*", help=f"some of {', '.join(MEASURES)}; default: all")
    parser.add_argument("--rows", type=int, default=200_000, help="districts to score")
    parser.add_argument("--trees", type=int, help="of each booster, instead of the champion's")
    parser.add_argument("--trials", type=int, default=8, help="of the search")
    parser.add_argument("--family", default=families.CHAMPION, choices=list(families.FAMILIES))
    chosen = parser.parse_args()
    found: list[Bar] = []
    for name in chosen.measures or MEASURES:
        with tempfile.TemporaryDirectory(prefix="housing-scale-") as folder:
            for variable in STORE_VARIABLES:
                os.environ.pop(variable, None)
            os.environ.update(environment_of(Path(folder)))
            from housing_lib import tracking
            from housing_lib.settings import get_settings

            get_settings.cache_clear()
            tracking.client.cache_clear()
            found += MEASURES[name](Path(folder), chosen)
    show(f"More of everything, on {os.cpu_count()} cores", found)


if __name__ == "__main__":
    main()
