"""The door to the MLflow registry: register, judge, promote, roll back, load."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from housing_lib import evidence, gate, ledger
from housing_lib.ledger import STAGES, Decision, history, stage_version
from housing_lib.parts import Part, load_manifest, load_part
from housing_lib.settings import HousingError, get_settings
from housing_lib.tracking import (
    MODEL_FILE,
    TrackingError,
    client,
    model_file,
    test_metrics,
    unpack_model,
)

__all__ = ["STAGES", "Decision", "history", "stage_version"]
ABSENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


class RegistryError(HousingError):
    """A version or a stage that is not there, or whose artifact is not what was registered."""


@dataclass(frozen=True)
class RegisteredModel:
    """A version of the registry with its model, ready to predict."""

    model: Any
    name: str
    version: int
    stage: str
    family: str
    run_id: str
    data_digest: str


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
    rmse = f"test RMSE {gate.dollars(metrics['test_rmse'])}"
    if incumbent is None:
        return f"the first version; {rmse}, and every bar is cleared"
    gain = f"{gate.dollars(metrics['gain'])} below version {incumbent}"
    return f"{rmse}, {gain}, and no guarded slice is worse beyond its noise"


def register(model_uri: str, *, tags: Mapping[str, str]) -> int:
    """The number of the new version, which stands in Staging afterwards.

    Parameters
    ----------
    tags
        At least `family`, `run_id` and `data_digest`.
    """
    import mlflow

    digest = _sha256(model_file(model_uri).read_bytes())
    client()
    created = mlflow.register_model(
        model_uri,
        get_settings().model_name,
        tags={**tags, "artifact_sha256": digest, "decision": "registered"},
    )
    version = int(created.version)
    what = {"artifact_sha256": digest, "data_digest": tags.get("data_digest", "")}
    reason = f"{tags.get('family', 'a model')} stands in Staging"
    ledger.append(Decision("registered", version, None, [reason], what))
    return version


def load(stage: str = "production") -> RegisteredModel:
    """The model that stands in a stage.

    Raises
    ------
    RegistryError
        If none does, or its artifact is not the one that was registered.
    """
    version = stage_version(stage)
    if version is None:
        raise RegistryError(
            f"no version of {get_settings().model_name} stands in {stage.title()}. "
            "`housing run` makes and promotes one; `housing history` shows what there was. "
            "Nothing was changed."
        )
    return load_version(version, stage=stage)


def load_first(*stages: str) -> RegisteredModel:
    """The model in the first of the stages that holds one.

    Raises
    ------
    RegistryError
        If none does, or its artifact is not the one that was registered.
    """
    filled = [stage for stage in stages if stage_version(stage) is not None]
    return load(filled[0] if filled else stages[0])


def load_version(version: int, *, stage: str = "") -> RegisteredModel:
    """One version of the registry; its artifact is checked before it is unpacked.

    Raises
    ------
    RegistryError
        If there is no such version, or its artifact's SHA-256 is not the registered one.
    """
    tags = _tags(version)
    name = get_settings().model_name
    return RegisteredModel(
        model=unpack_model(_proved_bytes(version, tags)),
        name=name,
        version=version,
        stage=stage,
        family=tags.get("family", ""),
        run_id=tags.get("run_id", ""),
        data_digest=tags.get("data_digest", ""),
    )


def _tags(version: int) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    name = get_settings().model_name
    try:
        return dict(client().get_model_version(name, str(version)).tags)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise TrackingError(
                f"the registry does not answer: {ledger.first_line(error)}. Nothing was changed."
            ) from error
        raise RegistryError(
            f"{name} has no version {version}. `housing history` lists what there is. "
            "Nothing was changed."
        ) from error


def _proved_bytes(version: int, tags: Mapping[str, str]) -> bytes:
    """The model file of a version, read once: what is checked is what is unpacked."""
    content = model_file(f"models:/{get_settings().model_name}/{version}").read_bytes()
    found, registered = _sha256(content), tags.get("artifact_sha256", "")
    if found != registered:
        raise RegistryError(
            f"version {version}: {MODEL_FILE} is not the one that was registered.\n"
            f"  found    SHA-256 {found}\n  expected SHA-256 {registered or '(none registered)'}\n"
            "Nothing was loaded. Register the model again, or `housing rollback`."
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assess(version: int | None = None) -> Assessment:
    """What the gate says of a version (by default the one in Staging); nothing is decided.

    Whatever goes wrong is a rule that holds.

    Raises
    ------
    RegistryError
        If there is no such version; or none is given and none stands in Staging.
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
    _tags(version)
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
    tags = _tags(version)
    load_manifest(expected=tags["data_digest"])
    train, test = load_part("train"), load_part("test")
    before = evidence.memory_mb()
    content = _proved_bytes(version, tags)
    model = unpack_model(content)
    predicted = evidence.predict(model, test)
    grown = evidence.memory_mb() - before
    prices = evidence.prices_of(test)
    return gate.Evidence(
        prices=prices,
        predicted=predicted,
        slices=gate.slices_of(test.districts, prices),
        baselines=evidence.baselines(train, test),
        recorded_rmse=test_metrics(tags["run_id"]).get("test_rmse"),
        latency_ms=evidence.latency_ms(model, test.districts),
        size_mb=len(content) / 1e6,
        memory_mb=grown,
        incumbent=_incumbent(incumbent, test),
        interval=evidence.predict_interval(model, test),
    )


def _incumbent(version: int | None, test: Part) -> gate.Incumbent | None:
    if version is None:
        return None
    return gate.Incumbent(version, evidence.predict(load_version(version).model, test))


def promote(version: int | None = None) -> Decision:
    """The gate's decision on a version (by default the one in Staging), written to the ledger.

    Production changes only if every rule of the gate passes. Whatever goes
    wrong, Production stays as it is and the decision is `held`.

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
        reason = f"the registry cannot be asked or written: {ledger.first_line(error)}"
        unknown = "`housing history` tells whether the ledger has a line on this"
        return Decision("held", version, None, [reason, unknown])


def _decide(version: int, *, follows: int) -> Decision:
    if version == stage_version("production"):
        return Decision("held", version, version, ["it stands in Production already"])
    found = assess(version)
    return Decision(
        "promoted" if found.passed else "held",
        version,
        found.incumbent,
        found.reasons,
        evidence={
            "rules": [asdict(rule) for rule in found.rules],
            "metrics": dict(found.metrics),
            "data_digest": found.data_digest,
            "artifact_sha256": _tags(version).get("artifact_sha256", ""),
        },
        follows=follows,
    )


def rollback(to: int | None = None) -> Decision:
    """The decision that brings an earlier version (by default the previous one) back.

    Raises
    ------
    RegistryError
        If there is none to go back to, it never stood in Production, or its
        artifact was changed.
    LedgerError
        If the decision is written but the stages could not be moved yet.
    """
    stages = ledger.settle()
    incumbent = stage_version("production")
    version = stage_version("previous") if to is None else to
    if version is None:
        raise RegistryError("no version stands before this one. Nothing was changed.")
    tags = _tags(version)
    _refuse_no_way_back(version, incumbent, stages)
    _proved_bytes(version, tags)
    reason = "asked for by a person"
    what = {"artifact_sha256": tags["artifact_sha256"]}
    return ledger.append(
        Decision("rolled back", version, incumbent, [reason], what, follows=stages.line)
    )


def _refuse_no_way_back(version: int, incumbent: int | None, stages: ledger.Stages) -> None:
    if version == incumbent == stages.production:
        raise RegistryError(f"version {version} stands in Production already. Nothing was changed.")
    if version not in {line.version for line in history() if line.promoted} | {incumbent}:
        raise RegistryError(
            f"version {version} never stood in Production, so there is no way back to it. "
            f"`housing promote {version}` asks the gate. Nothing was changed."
        )
