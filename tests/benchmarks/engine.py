"""What notebooks, MLflow and reports cost on top of the same fits in a bare script.

Both do the same search with the same seed on the same number of processes, in
turn, and must find the same best model. Run: python tests/benchmarks/engine.py --help
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

TARGET = 1.25


def run_engine(root: Path, trials: int, jobs: int, models: str) -> float:
    """The champion's validation RMSE, after the whole run with notebooks, MLflow and reports."""
    command = [Path(sys.executable).with_name("housing"), "run", "--trials", str(trials)]
    command += ["--jobs", str(jobs), "--models", models]
    environment = os.environ | {"HOUSING_ROOT": str(root)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (record,) = {path.resolve() for path in root.glob("reports/*/run.json")}
    return json.loads(record.read_text())["champion"]["metrics"]["val_rmse"]


def run_bare(trials: int, jobs: int, models: str) -> float:
    """The best validation RMSE, after the same fits in a script without anything around them."""
    command = [sys.executable, __file__, "--bare", "--trials", str(trials), "--jobs", str(jobs)]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})
    done = subprocess.run(
        [*command, "--models", models], env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def bare(trials: int, jobs: int, models: str) -> float:
    """The script itself: split, preprocess, tune each family, fit the best on more, predict."""
    from housing_lib import data, evaluation, families, features

    districts = data.acquire()
    parts = features.preprocess(districts, data.split(districts))
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        tasks = [
            pool.submit(search, name, parts["train"], parts["val"], trials)
            for name in sorted(models.split(","), key=is_quick)
        ]
        best, family, params = min(task.result() for task in tasks)
    model = families.make_model(family, params).fit(*evaluation.unite(parts["train"], parts["val"]))
    evaluation.metrics(parts["test"].y, model.predict(parts["test"].districts))
    return best


def is_quick(family: str) -> int:
    """Slow families first, as the engine starts them."""
    from housing_lib.pipeline import SLOWEST_FIRST

    return SLOWEST_FIRST.index(family) if family in SLOWEST_FIRST else len(SLOWEST_FIRST)


def search(name, train, val, trials):
    """The best validation RMSE of one family, its name and its parameters."""
    from housing_lib import tuning

    best = tuning.tune(name, train, val, n_trials=trials, seed=42).best
    return best.metrics["val_rmse"], name, best.params


def main() -> None:
    """Run both in turn and print the medians and their ratio."""
    from housing_lib.families import FAMILIES
    from housing_lib.pipeline import BUDGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=BUDGETS["standard"], help="trials a family")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is run")
    parser.add_argument("--models", default=",".join(FAMILIES), help="families, by commas")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.bare:
        print(bare(chosen.trials, chosen.jobs, chosen.models))
        return
    times: dict[str, list[float]] = {"engine": [], "bare script": []}
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as root:
            started = time.perf_counter()
            found = run_engine(Path(root), chosen.trials, chosen.jobs, chosen.models)
            times["engine"].append(time.perf_counter() - started)
        started = time.perf_counter()
        expected = run_bare(chosen.trials, chosen.jobs, chosen.models)
        times["bare script"].append(time.perf_counter() - started)
        assert found == expected, f"the engine found {found}, the script {expected}"
    show(times, chosen)


def show(times: dict[str, list[float]], chosen: argparse.Namespace) -> None:
    """Print the table."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["engine"] / medians["bare script"]
    shown = Table(title=f"{chosen.trials} trials a family, {chosen.jobs} processes")
    for name in ("what", "median s", "rounds"):
        shown.add_column(name, justify="left" if name == "what" else "right")
    for name, median in medians.items():
        shown.add_row(name, f"{median:.1f}", str(chosen.rounds))
    Console().print(shown)
    met = "met" if ratio <= TARGET else "missed"
    print(f"engine / bare script: {ratio:.2f} (target {TARGET}: {met})")


if __name__ == "__main__":
    main()
