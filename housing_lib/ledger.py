"""The ledger: every decision on the model in the order it was taken, and the stages that follow.

MLflow numbers the versions of a registered model one after another, whoever
adds them from wherever; nothing else in it brings two writers into an order.
So the ledger is a registered model of its own, and each of its versions a line.
A line is written in one transaction before anything moves, and the aliases
are made to agree with the lines afterwards: whoever is stopped in between,
the next one who looks finishes it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import accumulate
from typing import Any

from filelock import FileLock

from housing_lib import provenance
from housing_lib.connection import client, first_line, is_absent, or_none, reaching
from housing_lib.errors import OutageError
from housing_lib.settings import get_settings

STAGES = ("staging", "production", "previous")
PROMOTIONS = ("promoted", "rolled back")
MOVES = dict.fromkeys(PROMOTIONS, ("previous", "production")) | {"registered": ("staging",)}
_LOCK_TIMEOUT_S = 60
_PAGE = 1_000


class LedgerError(OutageError):
    """Stages that could not be made to agree with the ledger yet."""


@dataclass(frozen=True)
class Decision:
    """One line of the ledger: what was asked, what was decided, and why.

    `follows` is the line that had moved Production last when this was decided.
    """

    decision: str
    version: int | None
    incumbent: int | None
    reasons: list[str]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    follows: int = 0
    line: int = 0
    when: str = ""
    who: str = ""
    command: str = ""
    evidence_sha256: str = ""
    settled: bool = False

    @property
    def promoted(self) -> bool:
        """Whether Production changed."""
        return self.decision in PROMOTIONS

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that the decision rests on, prices in 100,000 USD."""
        return dict(self.evidence.get("metrics", {}))

    @property
    def rules(self) -> list[dict[str, Any]]:
        """The gate's table: name, figure, bar and whether it passed."""
        return list(self.evidence.get("rules", []))


@dataclass(frozen=True)
class Stages:
    """Which version stands where by the ledger, and the line that moved Production last."""

    staging: int | None = None
    production: int | None = None
    previous: int | None = None
    line: int = 0


def replay(lines: Iterable[Decision]) -> Stages:
    """The stages that a ledger leads to, from its lines alone."""
    return reduce(_after, lines, Stages())


def _after(stages: Stages, line: Decision) -> Stages:
    if line.decision == "registered":
        return replace(stages, staging=line.version)
    if line.promoted and line.follows == stages.line:
        return Stages(stages.staging, line.version, _before(line, stages), line.line)
    return stages


def _before(move: Decision, stages: Stages) -> int | None:
    # A person may say that what was put into Production past the ledger shall stand there.
    past_the_ledger = move.incumbent == move.version
    return stages.production if past_the_ledger else move.incumbent or stages.previous


@reaching()
def history() -> list[Decision]:
    """Every line, oldest first; a move that another one came before is `overtaken`.

    Raises
    ------
    TrackingError
        If the store cannot be opened, read or written.
    """
    return _as_they_counted(_read())


def _as_they_counted(lines: Sequence[Decision]) -> list[Decision]:
    befores = accumulate(lines, _after, initial=Stages())
    return [
        _overtaken(one, before) if one.promoted and one.follows != before.line else one
        for one, before in zip(lines, befores, strict=False)
    ]


def _overtaken(decision: Decision, stages: Stages) -> Decision:
    reason = f"line {stages.line} of the ledger moved Production to version {stages.production}"
    return replace(
        decision,
        decision="overtaken",
        incumbent=stages.production,
        reasons=[f"{reason} meanwhile"],
    )


@reaching()
def append(decision: Decision) -> Decision:
    """The line that now holds `decision`, after the stages were moved accordingly.

    A move that was decided before another one was written is `overtaken`, and
    changes nothing.

    Raises
    ------
    LedgerError
        If the line is written but the stages could not be moved.
    TrackingError
        If the store cannot be opened, read or written.
    """
    with _lock():
        stages = replay(_read())
        if decision.promoted and decision.follows != stages.line:
            decision = _overtaken(decision, stages)
        line = _write(decision)
        try:
            return next(one for one in _as_they_counted(_settle()) if one.line == line)
        except Exception as error:
            raise LedgerError(
                f"line {line} of the ledger says that version {decision.version} is "
                f"{decision.decision}, but the stages could not be moved: "
                f"{first_line(error)}. `housing history` finishes it once the store answers."
            ) from error


@reaching()
def settle() -> Stages:
    """The stages by the ledger, after finishing what somebody was stopped in.

    Raises
    ------
    LedgerError
        If an alias does not read back as it was set.
    TrackingError
        If the registry cannot be read or written.
    """
    if is_absent():  # whose lock would be the first file of it
        return Stages()
    with _lock():
        return replay(_settle())


def _settle() -> list[Decision]:
    """The lines, after those that were not settled moved the stages."""
    lines = _read()
    stages = replay(lines)
    unsettled = [one for one in _as_they_counted(lines) if not one.settled]
    if not unsettled:
        return lines
    moved = [stage for one in unsettled for stage in MOVES.get(one.decision, ())]
    _move_all(list(dict.fromkeys(moved)), stages)
    for one in unsettled:
        _mark(one)
    return _settle()  # another machine may have written meanwhile, which no lock here can prevent


def _move_all(names: Sequence[str], stages: Stages) -> None:
    """Move these stages, and again if a line was written meanwhile by a machine that was faster."""
    for name in names:
        _move(name, getattr(stages, name))
    now = replay(_read())
    if now != stages:
        _move_all(names, now)


def _mark(line: Decision) -> None:
    name, version = get_settings().model_name, str(line.version)
    client().set_model_version_tag(name, version, "decision", line.decision)
    client().set_model_version_tag(_name(), str(line.line), "settled", "true")


def _move(stage: str, version: int | None) -> None:
    if version is None or stage_version(stage) == version:
        return
    client().set_registered_model_alias(get_settings().model_name, stage, str(version))
    if stage_version(stage) != version:
        raise LedgerError(f"{stage} does not read back as version {version}. Try again.")


def stage_version(stage: str) -> int | None:
    """The version that stands in a stage, or None.

    Raises
    ------
    TrackingError
        If the registry does not answer.
    """
    name = get_settings().model_name
    found = or_none(lambda: client().get_model_version_by_alias(name, stage))
    return int(found.version) if found else None


@reaching()
def damage() -> list[str]:
    """What shows that the ledger was altered, since a person last rolled back.

    A rollback is a person's word on what stands in Production; what happened to
    the lines before it no longer counts.

    Raises
    ------
    TrackingError
        If the registry does not answer.
    """
    lines = _read()
    start = max((one.line for one in lines if one.decision == "rolled back"), default=1)
    known = {one.line: one for one in lines if one.line >= start}
    found = [f"line {k} is missing" for k in range(start, max(known, default=0)) if k not in known]
    for line, one in known.items():
        if one.evidence_sha256 != _digest(one.evidence):
            found.append(f"line {line} does not hold the evidence that was written")
    stands, by_ledger = stage_version("production"), replay(lines).production
    if stands != by_ledger:
        found.append(f"Production is at version {stands or 'none'}, not {by_ledger or 'none'}")
    return found


def _lock() -> FileLock:
    return FileLock(get_settings().root.resolve() / "mlflow.db.ledger.lock", _LOCK_TIMEOUT_S)


def _name() -> str:
    return f"{get_settings().model_name}-ledger"


def _write(decision: Decision) -> int:
    name = get_settings().model_name
    _create()
    tags = {
        "decision": decision.decision,
        "version": str(decision.version),
        "incumbent": str(decision.incumbent or ""),
        "follows": str(decision.follows),
        "reasons": json.dumps(decision.reasons),
        "evidence": json.dumps(decision.evidence),
        "evidence_sha256": _digest(decision.evidence),
        "who": provenance.user(),
        "command": provenance.command(),
        "settled": "false",
    }
    written = client().create_model_version(
        _name(),
        source=f"models:/{name}/{decision.version}",
        tags=tags,
        description=f"version {decision.version} {decision.decision}: "
        f"{'; '.join(decision.reasons)}"[:5000],
    )
    return int(written.version)


def _create() -> None:
    from mlflow.exceptions import MlflowException

    said = f"Every decision on {get_settings().model_name}; `housing history` shows it as a table."
    try:
        client().create_registered_model(_name(), description=said)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _read() -> list[Decision]:
    if is_absent():
        return []
    wanted = f"name = '{_name()}'"
    page = client().search_model_versions(wanted, max_results=_PAGE)
    found = list(page)
    while page.token:
        page = client().search_model_versions(wanted, max_results=_PAGE, page_token=page.token)
        found += page
    return sorted(map(_from_version, found), key=lambda one: one.line)


def _from_version(found: Any) -> Decision:
    tags = found.tags
    when = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    return Decision(
        decision=tags["decision"],
        version=int(tags["version"]),
        incumbent=int(tags["incumbent"]) if tags["incumbent"] else None,
        reasons=json.loads(tags["reasons"]),
        evidence=json.loads(tags["evidence"]),
        follows=int(tags["follows"]),
        line=int(found.version),
        when=when.isoformat(timespec="seconds"),
        who=tags["who"],
        command=tags["command"],
        evidence_sha256=tags["evidence_sha256"],
        settled=tags["settled"] == "true",
    )


def _digest(evidence: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).hexdigest()
