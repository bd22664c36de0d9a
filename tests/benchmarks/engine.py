"""What notebooks, MLflow and reports cost: the engine beside two ways to do without it.

The peers are a plain serial papermill loop over the same notebooks, and a bare script with the
same fits and nothing around them. All do the same search with the same seed and must find the same
best model; they take turns. Then the waiting times: a second run, a refused parameter, `--help`.
Run: python tests/benchmarks/engine.py --help
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bars import Bar, show

RATIOS = {"serial papermill loop": 0.65, "bare script": 1.25}
WAITS = {"a second run": 5.0, "a refused parameter": 1.0, "housing --help": 0.5}
SEED = 42  # the engine's own
HOUSING = str(Path(sys.executable).with_name("housing"))
STORE_VARIABLES = ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI")


def environment_of(root: Path) -> dict[str, str]:
    """An environment in which everything is written to `root`."""
    kept = {key: value for key, value in os.environ.items() if key not in STORE_VARIABLES}
    return kept | {"HOUSING_ROOT": str(root)}


def run_engine(root: Path, chosen: argparse.Namespace) -> float:
    """The best family's validation RMSE, after the whole run: notebooks, MLflow and reports."""
    command = [HOUSING, "run", "--trials", str(chosen.trials), "--jobs", str(chosen.jobs)]
    command += ["--models", chosen.models]
    subprocess.run(command, env=environment_of(root), check=True, capture_output=True)
    newest = max(path.resolve() for path in root.glob("reports/2*/run.json"))
    steps = json.loads(newest.read_text())["steps"]
    return min(step["record"]["val_rmse"] for step in steps if step["name"] == "tuning")


def run_script(what: str, root: Path, chosen: argparse.Namespace) -> float:
    """What this file prints when it is started as one of the peers."""
    command = [sys.executable, __file__, "--peer", what, "--trials", str(chosen.trials)]
    command += ["--jobs", str(chosen.jobs), "--models", chosen.models]
    done = subprocess.run(
        command, env=environment_of(root), check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def papermill_loop(chosen: argparse.Namespace) -> float:
    """The best validation RMSE of the same notebooks, one after another as papermill runs them."""
    import papermill

    from housing_lib.reports import read_record
    from housing_lib.settings import get_settings

    folder = get_settings().root / "executed"
    folder.mkdir()

    def execute(stem: str, out: str = "", **parameters: object) -> Path:
        path = folder / f"{out or stem}.ipynb"
        notebook = get_settings().notebooks / f"{stem}.ipynb"
        papermill.execute_notebook(notebook, path, parameters, progress_bar=False)
        return path

    execute("01_eda")
    execute("02_preprocessing")
    names = chosen.models.split(",")
    made = [execute("03_tuning", name, model_name=name, n_trials=chosen.trials) for name in names]
    execute("04_evaluation")
    execute("05_monitoring")
    return min(read_record(path)["val_rmse"] for path in made)


def bare_script(chosen: argparse.Namespace) -> float:
    """The best validation RMSE: split, preprocess, tune each family, judge the best on the test."""
    from housing_lib import accuracy, blend, data, evaluation, features, intervals

    districts = data.acquire()
    parts = features.preprocess(districts, data.split(districts))
    found = search_all(parts, chosen)
    models = {name: model for name, (_, model) in found.items()}
    params = {name: best for name, (best, _) in found.items()}
    choice = blend.choose(models, parts["val"], seed=SEED)
    unfitted = choice.unfitted(params, seed=SEED)
    in_blocks = choice.for_blocks(params, seed=SEED, families=True)
    known = parts["train"], parts["val"]
    champion = intervals.fit_champion(unfitted, choice.model, *known, seed=SEED)
    evaluation.judge(champion, in_blocks, parts, seed=SEED)
    return min(accuracy.score_both(model, *known)["val_rmse"] for model in models.values())


def search_all(parts, chosen: argparse.Namespace) -> dict[str, tuple]:
    """The best parameters of each family and the model made of them, several families at once."""
    alone = {"mp_context": get_context("fork"), "initializer": one_thread}
    with ProcessPoolExecutor(chosen.jobs, **(alone if chosen.jobs > 1 else {})) as pool:
        names = sorted(chosen.models.split(","), key=is_quick)
        tasks = {name: pool.submit(search, name, parts, chosen.trials) for name in names}
        return {name: task.result() for name, task in tasks.items()}


def one_thread() -> None:
    """Let this process compute on one core, as the engine's do."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def is_quick(family: str) -> int:
    """Slow families first, as the engine starts them."""
    from housing_lib.graph import SLOWEST_FIRST

    return SLOWEST_FIRST.index(family) if family in SLOWEST_FIRST else len(SLOWEST_FIRST)


def search(name, parts, trials):
    """The best parameters of one family, and the model that was fitted with them."""
    from housing_lib import tuning

    found = tuning.tune(name, parts["train"], parts["val"], n_trials=trials, seed=SEED)
    return found.best.params, found.best_model(parts["train"])


PEERS = {"serial papermill loop": papermill_loop, "bare script": bare_script}


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """The seconds that some work takes, and what it returns."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def compare(chosen: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The seconds of the engine and its peers, taking turns; and those of the waits."""
    times: dict[str, list[float]] = {"engine": [], **{name: [] for name in chosen.peers}}
    waits: dict[str, list[float]] = {name: [] for name in WAITS}
    for _ in range(chosen.rounds):
        found = {}
        for name, seconds in times.items():
            with tempfile.TemporaryDirectory() as root:
                work = run_engine if name == "engine" else run_peer(name)
                took, found[name] = timed(lambda work=work, root=root: work(Path(root), chosen))
                seconds.append(took)
                if name == "engine":
                    wait(waits, Path(root), chosen)
        assert len(set(found.values())) == 1, f"they found different models: {found}"
    return times, waits


def run_peer(name: str) -> Callable[[Path, argparse.Namespace], float]:
    """A function that starts a peer in a root."""
    return lambda root, chosen: run_script(name, root, chosen)


def wait(waits: dict[str, list[float]], root: Path, chosen: argparse.Namespace) -> None:
    """Measure what a person waits for, in a root where everything was run once."""
    refused = [HOUSING, "notebook", "03_tuning", "-p", "n_trails", "3"]
    work = {
        "a second run": lambda: run_engine(root, chosen),
        "a refused parameter": lambda: subprocess.run(refused, capture_output=True, check=False),
        "housing --help": lambda: subprocess.run([HOUSING, "--help"], capture_output=True),
    }
    for name, seconds in waits.items():
        seconds.append(timed(work[name])[0])


def bars(times: dict[str, list[float]], waits: dict[str, list[float]]) -> Iterator[Bar]:
    """The engine's medians, beside those of its peers."""
    engine = statistics.median(times["engine"])
    ours = f"{engine:.1f} s"
    for name, target in RATIOS.items():
        if name in times:
            peer = statistics.median(times[name])
            told = f"{peer:.1f} s, a {name}"
            yield Bar(f"a run beside a {name}", engine / peer, "≤", target, ours=ours, peer=told)
    for name, seconds in waits.items():
        yield Bar(name, statistics.median(seconds), "≤", WAITS[name], "s")


def main() -> None:
    """Run all in turn and print the medians."""
    from housing_lib.families import FAMILIES
    from housing_lib.graph import BUDGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--trials", type=int, default=BUDGETS["standard"].trials, help="trials a family"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is run")
    parser.add_argument("--models", default=",".join(FAMILIES), help="families, by commas")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--peer", choices=list(PEERS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peer:
        print(PEERS[chosen.peer](chosen))
        return
    title = f"{chosen.trials} trials a family, {chosen.jobs} jobs, rounds: {chosen.rounds}"
    show(f"The engine: {title}", bars(*compare(chosen)))


if __name__ == "__main__":
    main()
