"""Old runs and their removal; the ones that something still rests on are never among them."""

import shutil
from collections.abc import Iterable
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


def remove(old: Iterable[PastRun]) -> None:
    """Remove the folders of runs, and write the page of all runs anew."""
    from housing_lib import pages

    for run in old:
        shutil.rmtree(run.folder)
    pages.write_overview(get_settings().reports)
