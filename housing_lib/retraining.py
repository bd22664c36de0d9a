"""From an alarm to a decision: labelled districts join the data, and a challenger is judged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from housing_lib import alarms, growth, locks, notify, traffic
from housing_lib.errors import HousingError
from housing_lib.journal import Run
from housing_lib.settings import get_settings
from housing_lib.verdict import Verdict

BROKEN_SOURCE = "missing values"
UNDER_WAY = (
    "another retraining is under way; `housing status` shows how far it is. Nothing was run."
)


class RetrainError(HousingError):
    """A retraining that has nothing to learn from, or that another one stands in the way of."""


@contextmanager
def alone() -> Iterator[None]:
    """Be the only retraining of this root until the block ends.

    Raises
    ------
    RetrainError
        If another one is under way.
    LockError
        If the lock cannot be taken.
    """
    path = get_settings().grown / ".retraining.lock"
    with locks.holding(path, timeout_s=0, taken=lambda: RetrainError(UNDER_WAY)):
        yield


def collect(source: str, *, base: str, since: str = "", until: str = "") -> growth.Growth:
    """What came of adding the labelled districts of `source` to the training data.

    Parameters
    ----------
    source
        `log` for the prediction log with the true prices that arrived, or a file.
    base
        What the training data grow from.

    Raises
    ------
    RetrainError
        If the source is locked, or no labelled district ever joined: there is nothing new to learn.
    DataError
        If something cannot be read.
    OutageError
        If a place or the cluster cannot be reached, or the processes that read files died.
    """
    refuse_locked(source)
    rows = traffic.load(source, since=since, until=until).rows
    found = growth.grow(rows.assign(observed_at=_observed(rows)), source=base)
    if not found.labelled:
        raise RetrainError(
            f"{source} has no new labelled district: {found.sentence}. Expected districts with "
            "their true prices; they reach the log by POST /actuals. Nothing was run."
        )
    return found


def refuse_locked(source: str) -> None:
    """Refuse a source that nothing may learn from.

    Raises
    ------
    RetrainError
        If it is.
    """
    if source == "test":
        raise RetrainError(
            "the test districts stay locked, so that they can judge: nothing learns from them. "
            "Expected log, or a file of labelled districts. Nothing was run."
        )


def _observed(rows: pd.DataFrame) -> pd.Series:
    """When each price turned out: now, where a file does not say, or a clock is ahead of ours."""
    now = pd.Timestamp.now(tz="UTC").as_unit("us")
    told = pd.to_datetime(rows["observed_at"], utc=True).astype("datetime64[us, UTC]")
    return told.where(told < now, now)


def reason(found: growth.Growth, verdict: Verdict | None = None) -> str:
    """Why a retraining is run, as its report says it."""
    cause = f"Monitoring raised an alarm: {verdict.sentence}. " if verdict else ""
    total = f"{found.labelled:,} labelled districts are now beside the original data"
    return f"{cause}{found.sentence}. {total}."


def why_not(verdict: Verdict) -> str:
    """Why an alarm is not answered by a retraining; empty if it should be."""
    if verdict.causes and verdict.causes[0].what == BROKEN_SOURCE:
        return "a source that sends no values is to be mended: a model that is used to it hides it"
    days = get_settings().retrain_window_days
    earlier = alarms.answered_within(days)
    if earlier is None:
        return ""
    action = earlier["action"]
    return (
        f"run {action['run']} answered an alarm on {action['when'][:16].replace('T', ' ')} UTC "
        f"({action['decision']}), and one retraining in {days:g} days is enough; "
        "`housing retrain` does not wait"
    )


def decline(verdict: Verdict, why: str) -> list[str]:
    """What went wrong while noting beside an alarm why nothing was done about it."""
    return _written(lambda: alarms.note(alarms.id_of(verdict), declined=why))


def conclude(finished: Run) -> list[str]:
    """What went wrong while telling what a retraining came to; it is noted beside the alarms."""
    decided: dict[str, Any] = finished.record_of("promotion")
    answer = {
        "run": finished.id,
        "state": finished.state,
        "decision": decided.get("decision", ""),
        "version": decided.get("version"),
        "reason": decided.get("reason", ""),
        "report": str(finished.folder / "index.html"),
    }
    faults = _written(lambda: alarms.note_answer(**answer))
    if finished.exit_code:
        return faults  # the engine told of it
    return faults + notify.tell("retraining", **answer)


def _written(write: Callable[[], None]) -> list[str]:
    try:
        write()
    except OSError as error:
        return [f"{get_settings().alerts} cannot be written: {error}"]
    return []
