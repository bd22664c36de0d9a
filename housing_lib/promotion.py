"""The gate over the registry: what speaks for a version, and whether it goes to Production."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from housing_lib import evidence, gate, growth, guarded, ledger
from housing_lib.connection import StoreAwayError, first_line
from housing_lib.ledger import Decision, stage_version
from housing_lib.parts import Part, load_manifest, load_part
from housing_lib.registry import RegistryError, load_version, proved_bytes, tags_of
from housing_lib.settings import get_settings
from housing_lib.summary import dollars
from housing_lib.tracking import test_metrics
from housing_lib.trust import unpack_model


@dataclass(frozen=True)
class Assessment:
    """What the gate says of a version: its table, and the numbers and files it rests on."""

    version: int
    incumbent: int | None
    rules: list[gate.Rule]
    metrics: Mapping[str, float]
    data_digest: str = ""

    @property
    def passed(self) -> bool:
        """Whether no rule holds it."""
        return all(rule.passed for rule in self.rules)

    @property
    def reasons(self) -> list[str]:
        """Why it is held, or else what speaks for it."""
        held = [rule.reason for rule in self.rules if not rule.passed]
        return held or [_recommendation(self.incumbent, self.metrics)]

    @property
    def sentence(self) -> str:
        """The table in one sentence."""
        verdict = "would be promoted" if self.passed else "would be held"
        return f"Version {self.version} {verdict}: {'; '.join(self.reasons)}."

    @property
    def table(self) -> Any:
        """The table for a page."""
        return gate.styled(self.rules)


def _recommendation(incumbent: int | None, metrics: Mapping[str, float]) -> str:
    rmse = f"test RMSE {dollars(metrics['test_rmse'])}"
    if incumbent is None:
        return f"the first version; {rmse}, and every bar is cleared"
    if metrics.get("moved"):
        gain = f"{dollars(metrics['recent_gain'])} below version {incumbent}"
        recent = f"RMSE {dollars(metrics['recent_rmse'])} in recent districts, {gain}"
        return f"prices have moved; {recent}, and what is lost on locked ones is within bounds"
    gain = f"{dollars(metrics['gain'])} below version {incumbent}"
    return f"{rmse}, {gain}, and no guarded slice is worse beyond its noise"


def assess(version: int | None = None) -> Assessment:
    """What the gate says of a version (by default the one in Staging); nothing is decided.

    Whatever goes wrong once both versions are known is a rule that holds.

    Raises
    ------
    RegistryError
        If there is no such version; or none is given and none stands in Staging.
    TrackingError
        If the registry does not answer.
    """
    version = _challenger(version)
    incumbent = stage_version("production")
    try:
        return _assess(version, incumbent)
    except Exception as error:
        return Assessment(version, incumbent, [gate.failure("the gate", error)], {})


def _challenger(version: int | None) -> int:
    version = stage_version("staging") if version is None else version
    if version is None:
        raise RegistryError(
            "no version stands in Staging. `housing run` makes one. Nothing was changed."
        )
    tags_of(version)
    return version


def _assess(version: int, incumbent: int | None) -> Assessment:
    found = _gather(version, incumbent)
    rules = gate.judge(found, gate.Limits(), seed=get_settings().seed)
    digest = load_manifest().data_digest
    return Assessment(version, incumbent, [_ledger_rule(), *rules], gate.figures(found), digest)


def _ledger_rule() -> gate.Rule:
    found = "; ".join(ledger.damage())
    figure = f"not whole: {found}" if found else "whole"
    return gate.Rule("ledger", figure, "whole, and followed", not found)


def _gather(version: int, incumbent: int | None) -> gate.Evidence:
    tags = tags_of(version)
    load_manifest(expected=tags["data_digest"])
    train, test = load_part("train"), load_part("test")
    before = evidence.memory_mb()
    content = proved_bytes(version, tags)
    model = unpack_model(content)
    predicted = evidence.predict(model, test)
    grown = evidence.memory_mb() - before
    prices = evidence.prices_of(test)
    return gate.Evidence(
        prices=prices,
        predicted=predicted,
        squares=evidence.squares_of(test),
        slices=guarded.slices_of(test.districts, prices),
        baselines=evidence.baselines(train, test),
        recorded_rmse=test_metrics(tags["run_id"]).get("test_rmse"),
        latency_ms=evidence.latency_ms(model, test.districts),
        size_mb=len(content) / 1e6,
        memory_mb=grown,
        incumbent=_incumbent(incumbent, test),
        interval=evidence.predict_interval(model, test),
        recent=np.isin(test.ids, growth.recent_ids()),
    )


def _incumbent(version: int | None, test: Part) -> gate.Incumbent | None:
    if version is None:
        return None
    return gate.Incumbent(version, evidence.predict(load_version(version).model, test))


def promote(version: int | None = None) -> Decision:
    """The gate's decision on a version (by default the one in Staging), written to the ledger.

    Production changes only if every rule of the gate passes and the model has been
    compiled for the server and proved equal, so that a server finds the file there.
    Whatever goes wrong, Production stays as it is and the decision is `held`, without a line in
    the ledger where the registry cannot be asked or written.

    Raises
    ------
    RegistryError
        If there is no such version; or none is given and none stands in Staging.
    LedgerError
        If the decision is written but the stages could not be moved yet.
    """
    try:
        line = ledger.settle().line
        version = _challenger(version)
        return ledger.append(_decide(version, follows=line))
    except (RegistryError, ledger.LedgerError):
        raise
    except Exception as error:
        said = error.__cause__ if isinstance(error, StoreAwayError) else error
        reason = f"the registry cannot be asked or written: {first_line(said or error)}"
        unknown = "`housing history` tells whether the ledger has a line on this"
        return Decision("held", version, None, [reason, unknown])


def _decide(version: int, *, follows: int) -> Decision:
    if version == stage_version("production"):
        return Decision("held", version, version, ["it stands in Production already"])
    found = assess(version)
    if found.passed:
        found = replace(found, rules=[*found.rules, _compiled_rule(version)])
    return Decision(
        "promoted" if found.passed else "held",
        version,
        found.incumbent,
        found.reasons,
        evidence={
            "rules": [asdict(rule) for rule in found.rules],
            "metrics": dict(found.metrics),
            "data_digest": found.data_digest,
            "artifact_sha256": tags_of(version).get("artifact_sha256", ""),
        },
        follows=follows,
    )


def _compiled_rule(version: int) -> gate.Rule:
    from housing_lib import deployment  # whose compiler takes a second to import

    try:
        digest = deployment.publish(version)
    except Exception as error:
        said = first_line(error).removesuffix("Nothing was changed.").strip(" .")
        return gate.Rule("compiling it for the server", f"failed: {said}", "", False)
    return gate.Rule("compiled model", f"proved equal, SHA-256 {digest[:12]}", "proved equal", True)
