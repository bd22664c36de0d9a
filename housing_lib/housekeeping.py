"""Old runs and their removal; the ones that something still rests on are never among them."""

import shutil
from collections.abc import Collection
from pathlib import Path

from housing_lib import store
from housing_lib.runs import PastRun, past_runs
from housing_lib.settings import get_settings


def removable(*, keep: int) -> dict[PastRun, int]:
    """The runs beyond the newest `keep` that nothing rests on, with their sizes in bytes.

    Needed are the run that Production came from, the one that `latest` leads
    to, and those that are at work.

    Raises
    ------
    StoreError
        If the store cannot say what stands in Production.
    TrackingError
        If the MLflow server does not answer.
    """
    version = store.version_in("production")
    old = past_runs()[keep:]
    return {run: _size(run.folder) for run in old if not _is_needed(run, version)}


def _is_needed(run: PastRun, production: int | None) -> bool:
    champion = run.content.get("champion") or {}
    is_latest = (get_settings().reports / "latest").resolve() == run.folder.resolve()
    judged = [step for step in run.steps if step["id"] == "evaluation"]
    is_origin = any(step.get("origin", run.id) == run.id for step in judged)
    made_it = is_origin and production is not None and champion.get("version") == production
    return is_latest or made_it or run.is_alive


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def removable_mlflow_runs(old: Collection[PastRun]) -> list[str]:
    """The MLflow runs, trials included, that go with old runs.

    Those stay that a kept run took a result from, or that a version of the
    registry came from: there has to be a way back to it.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    from housing_lib import registry, tracked_runs

    kept = [run for run in past_runs() if run.id not in {one.id for one in old}]
    needed = {step.get("record", {}).get("mlflow_run") for run in kept for step in run.steps}
    needed |= registry.source_runs()
    made = {own: trials for run in old for own, trials in tracked_runs.runs_of(run.id).items()}
    return [one for own, trials in made.items() if own not in needed for one in (*trials, own)]


def remove(old: Collection[PastRun], mlflow_runs: Collection[str] = ()) -> None:
    """Remove runs of MLflow and the folders of runs, and write the page of all runs anew.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    from housing_lib import pages, tracked_runs

    if mlflow_runs:
        tracked_runs.delete_runs(mlflow_runs)
    for run in old:
        shutil.rmtree(run.folder)
    pages.write_overview(get_settings().reports)
