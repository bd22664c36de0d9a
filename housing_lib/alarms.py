"""Alarms: kept in `alerts.json`, told to whoever asked, and what was done about each."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock

from housing_lib import notify
from housing_lib.files import read_json, write_json
from housing_lib.settings import get_settings
from housing_lib.verdict import Verdict

_LOCK_TIMEOUT_S = 30

Alert = dict[str, Any]


def raise_alarm(verdict: Verdict, report: Path) -> list[str]:
    """What went wrong while keeping and telling an alarm, in a line each; empty if all went well.

    The same verdict on the same rows is one alarm, and is kept once. Whoever looks
    every night finds what goes on every night: it is told once in the window of days
    in which alarms are answered by one retraining, and again until it could be told.
    Nothing that goes wrong here fails anything.

    Parameters
    ----------
    report
        The page that shows it.
    """
    alert = _alert(verdict, report)
    try:
        is_news, faults = _keep(alert)
    except OSError as error:
        return [f"{get_settings().alerts} cannot be written: {error}", *_tell(alert)]
    if not is_news:
        return faults
    untold = _tell(alert)
    with suppress(OSError):  # at worst it is told twice
        _change(lambda one: one["id"] == alert["id"], told=not untold)
    return faults + untold


def _alert(verdict: Verdict, report: Path) -> Alert:
    return {
        "id": id_of(verdict),
        "raised_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(verdict),
        "report": str(report),
        "action": {},
    }


def id_of(verdict: Verdict) -> str:
    """What tells an alarm from others: the digest of all that the verdict says."""
    text = json.dumps(asdict(verdict), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _tell(alert: Alert) -> list[str]:
    told = ("id", "sentence", "model_version", "source", "first", "last", "rows", "report")
    causes = [cause["sentence"] for cause in alert["causes"]]
    return notify.tell("alarm", **{name: alert[name] for name in told}, causes=causes)


def read() -> list[Alert]:
    """All alarms that were kept, oldest first; none if the file is damaged."""
    try:
        found = read_json(get_settings().alerts)
    except (OSError, ValueError):
        return []
    return [one for one in found if _is_whole(one)] if isinstance(found, list) else []


def _is_whole(alert: Any) -> bool:
    if not isinstance(alert, dict) or not {"id", "raised_at", "sentence", "action"} <= set(alert):
        return False
    action = alert["action"]
    return isinstance(action, dict) and ("decision" not in action or _is_time(action.get("when")))


def _is_time(text: Any) -> bool:
    with suppress(TypeError, ValueError):
        return datetime.fromisoformat(text).tzinfo is not None
    return False


def _keep(alert: Alert) -> tuple[bool, list[str]]:
    """Whether the alarm is news, after keeping it; and what was wrong with the file."""
    with _lock():
        faults = _put_damaged_aside()
        known = read()
        if alert["id"] not in {one["id"] for one in known}:
            write_json(get_settings().alerts, [*known, alert | {"told": False}])
        return not any(_goes_on(one, alert) for one in known), faults


def _goes_on(earlier: Alert, alert: Alert) -> bool:
    """Whether an alarm says of the same version and source what was told in the window."""
    since = datetime.now(UTC) - timedelta(days=get_settings().retrain_window_days)
    is_recent = str(earlier["raised_at"]) >= since.isoformat(timespec="seconds")
    return earlier.get("told", True) and is_recent and _subject(earlier) == _subject(alert)


def _subject(alert: Alert) -> tuple[Any, ...]:
    """Who is in alarm, and about what in the first place."""
    causes = alert.get("causes") or [{}]
    return alert.get("model_version"), alert.get("source"), causes[0].get("what")


def _put_damaged_aside() -> list[str]:
    path = get_settings().alerts
    try:
        found = read_json(path)
        whole = isinstance(found, list) and all(map(_is_whole, found))
        fault = "" if whole else "no list of alarms"
    except FileNotFoundError:
        return []
    except ValueError as error:
        fault = str(error)
    if not fault:
        return []
    aside = path.with_name(f"alerts-damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}.json")
    aside.write_bytes(path.read_bytes())
    return [f"{path} was damaged ({fault}); a copy is kept as {aside.name}"]


@contextmanager
def _lock() -> Iterator[None]:
    get_settings().reports.mkdir(parents=True, exist_ok=True)
    with FileLock(get_settings().alerts.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S):
        yield


def note(alert_id: str, **action: Any) -> None:
    """Write beside an alarm what was done about it, unless it was answered."""
    _note(lambda one: one["id"] == alert_id, action)


def note_answer(**answer: Any) -> None:
    """Write beside every alarm that waits for one what a retraining came to."""
    _note(lambda one: True, answer)


def _note(concerns: Callable[[Alert], bool], action: Mapping[str, Any]) -> None:
    """Write an action beside the alarms that it concerns and that wait for an answer."""
    stamped = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **action}
    _change(lambda one: _waits(one) and concerns(one), action=stamped)


def _change(concerns: Callable[[Alert], bool], **values: Any) -> None:
    with _lock():
        _put_damaged_aside()
        known = read()
        changed = [one | values if concerns(one) else one for one in known]
        if changed != known:
            write_json(get_settings().alerts, changed)


def _waits(alert: Alert) -> bool:
    return not alert["action"].get("decision")


def answered_within(days: float) -> Alert | None:
    """The newest alarm that a finished retraining answered in the last days, or None."""
    since = datetime.now(UTC) - timedelta(days=days)
    done = [one for one in read() if _is_answer(one["action"], since)]
    return max(done, key=lambda one: str(one["action"]["when"]), default=None)


def _is_answer(action: Mapping[str, Any], since: datetime) -> bool:
    decided = action.get("decision") in ("promoted", "held")
    return decided and datetime.fromisoformat(action["when"]) >= since
