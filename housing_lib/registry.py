"""The door to the MLflow registry: register, promote, roll back, history, load."""

import getpass
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from housing_lib.evaluation import metrics
from housing_lib.files import file_digest
from housing_lib.parts import load_manifest, load_part
from housing_lib.settings import HousingError, get_settings
from housing_lib.tables import usd
from housing_lib.tracking import MODEL_FILE, client, experiment_id, load_model, model_file

STAGES = ("staging", "production", "previous")
ALIAS_MISSING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


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
class Decision:
    """One line of the ledger: what was asked, what was decided, and why."""

    decision: str
    version: int
    incumbent: int | None
    reasons: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    when: str = ""
    who: str = ""
    command: str = ""

    @property
    def promoted(self) -> bool:
        """Whether Production changed."""
        return self.decision in ("promoted", "rolled back")


def register(model_uri: str, *, tags: Mapping[str, str]) -> int:
    """The number of the new version, which stands in Staging afterwards.

    Parameters
    ----------
    tags
        At least `family`, `run_id` and `data_digest`.
    """
    import mlflow

    name = get_settings().model_name
    digest = file_digest(model_file(model_uri))
    client()
    created = mlflow.register_model(
        model_uri, name, tags={**tags, "artifact_sha256": digest, "decision": "registered"}
    )
    client().set_registered_model_alias(name, "staging", created.version)
    return int(created.version)


def stage_version(stage: str) -> int | None:
    """The version that stands in a stage, or None."""
    from mlflow.exceptions import MlflowException

    try:
        found = client().get_model_version_by_alias(get_settings().model_name, stage)
    except MlflowException as error:
        if error.error_code in ALIAS_MISSING:
            return None
        raise
    return int(found.version)


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
    uri = f"models:/{name}/{version}"
    _refuse_changed(version, model_file(uri), tags.get("artifact_sha256", ""))
    return RegisteredModel(
        model=load_model(uri),
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
        raise RegistryError(
            f"{name} has no version {version}. `housing history` lists what there is. "
            "Nothing was changed."
        ) from error


def _refuse_changed(version: int, path: Path, registered: str) -> None:
    found = file_digest(path)
    if found != registered:
        raise RegistryError(
            f"version {version}: {MODEL_FILE} is not the one that was registered.\n"
            f"  found    SHA-256 {found}\n  expected SHA-256 {registered or '(none registered)'}\n"
            "Nothing was loaded. Register the model again, or `housing rollback`."
        )


def promote(version: int | None = None) -> Decision:
    """The decision on a version (by default the one in Staging), written to the ledger.

    Production changes only if the challenger's test RMSE is below the
    incumbent's on the same rows. Whatever goes wrong, Production stays as it is
    and the decision is `held`.

    Raises
    ------
    RegistryError
        If there is no such version; or none is given and none stands in Staging.
    """
    version = stage_version("staging") if version is None else version
    if version is None:
        raise RegistryError(
            "no version stands in Staging. `housing run` makes one. Nothing was changed."
        )
    _tags(version)
    incumbent = stage_version("production")
    try:
        decision = _judge(version, incumbent)
    except Exception as error:
        reason = f"the gate could not judge: {str(error).splitlines()[0]}"
        decision = Decision("held", version, incumbent, [reason])
    if decision.promoted:
        _move_production(version, incumbent)
    return _write(decision)


def _judge(version: int, incumbent: int | None) -> Decision:
    if version == incumbent:
        return Decision("held", version, incumbent, ["it stands in Production already"])
    test = load_part("test")
    found = metrics(test.y, load_version(version).model.predict(test.districts), prefix="test_")
    if incumbent is None:
        reason = f"the first version; test RMSE {usd(found['test_rmse'])} on {len(test.y):,} rows"
        return Decision("promoted", version, None, [reason], found)
    before = metrics(test.y, load_version(incumbent).model.predict(test.districts))["rmse"]
    gain = before - found["test_rmse"]
    found |= {"incumbent_test_rmse": before, "gain": gain}
    comparison = f"{usd(abs(gain))} {'below' if gain > 0 else 'above'} that of version {incumbent}"
    reason = f"its test RMSE of {usd(found['test_rmse'])} is {comparison} on {len(test.y):,} rows"
    return Decision("promoted" if gain > 0 else "held", version, incumbent, [reason], found)


def rollback(to: int | None = None) -> Decision:
    """The decision that brings an earlier version (by default the previous one) back.

    Raises
    ------
    RegistryError
        If there is none to go back to, or its artifact was changed.
    """
    incumbent = stage_version("production")
    version = stage_version("previous") if to is None else to
    if version is None:
        raise RegistryError("no version stands before this one. Nothing was changed.")
    load_version(version)
    _move_production(version, incumbent)
    reason = "asked for by a person"
    return _write(Decision("rolled back", version, incumbent, [reason]))


def _move_production(version: int, incumbent: int | None) -> None:
    name = get_settings().model_name
    if incumbent is not None and incumbent != version:
        client().set_registered_model_alias(name, "previous", str(incumbent))
    client().set_registered_model_alias(name, "production", str(version))
    if stage_version("production") != version:
        raise RegistryError(f"Production does not read back as version {version}. Try again.")


def _write(decision: Decision) -> Decision:
    name = get_settings().model_name
    client().set_model_version_tag(name, str(decision.version), "decision", decision.decision)
    tags = {
        "decision": decision.decision,
        "version": str(decision.version),
        "incumbent": str(decision.incumbent or ""),
        "reasons": "\n".join(decision.reasons),
        "who": getpass.getuser(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500],
        "data_digest": _digest(),
    }
    run = client().create_run(
        experiment_id("registry"), run_name=f"{decision.decision} {decision.version}", tags=tags
    )
    for key, value in decision.metrics.items():
        client().log_metric(run.info.run_id, key, value)
    client().set_terminated(run.info.run_id)
    return _from_run(client().get_run(run.info.run_id))


def _digest() -> str:
    try:
        return load_manifest().data_digest
    except HousingError:
        return ""


def history() -> list[Decision]:
    """Every decision on Production, oldest first."""
    found = client().search_runs(
        [experiment_id("registry")], order_by=["attributes.start_time ASC"]
    )
    return [_from_run(run) for run in found]


def _from_run(run: Any) -> Decision:
    tags = run.data.tags
    when = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return Decision(
        decision=tags["decision"],
        version=int(tags["version"]),
        incumbent=int(tags["incumbent"]) if tags["incumbent"] else None,
        reasons=tags["reasons"].split("\n"),
        metrics=dict(run.data.metrics),
        when=when.isoformat(timespec="seconds"),
        who=tags["who"],
        command=tags["command"],
    )
