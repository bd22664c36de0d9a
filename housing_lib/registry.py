"""The door to the MLflow registry: register, load, roll back."""

import hashlib
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

from housing_lib import ledger, unreadable
from housing_lib.connection import (
    MODEL_FILE,
    client,
    is_absent,
    model_file,
    or_none,
    reaching,
    refuse_lost,
)
from housing_lib.errors import HousingError
from housing_lib.ledger import Decision, history, stage_version
from housing_lib.settings import get_settings
from housing_lib.trust import unpack_model

__all__ = ["Decision", "history", "stage_version"]
MOST_SAID = 500  # characters of a reason, which is to be read in a table


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


def register(model_uri: str, *, tags: Mapping[str, str]) -> int:
    """The number of the new version, which stands in Staging afterwards.

    Parameters
    ----------
    tags
        At least `family`, `run_id` and `data_digest`.

    Raises
    ------
    TrackingError
        If the model's file is not there, or the store cannot be opened.
    LedgerError
        If the version is registered but does not stand in Staging yet.
    """
    import mlflow

    digest = _sha256(model_file(model_uri).read_bytes())
    client()
    noted = {**tags, "artifact_sha256": digest, "decision": "registered"}
    with redirect_stderr(StringIO()):  # where MLflow says that all is well
        created = mlflow.register_model(model_uri, get_settings().model_name, tags=noted)
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
    TrackingError
        If the registry does not answer, or the artifact is not there.
    """
    refuse_lost()
    version = stage_version(stage)
    if version is None:
        raise RegistryError(
            f"no version of {get_settings().model_name} stands in {stage.title()}. "
            "`housing run` makes and promotes one; `housing history` shows what there was, and "
            "ends what was interrupted. Nothing was changed."
        )
    return load_version(version, stage=stage)


def load_first(*stages: str) -> RegisteredModel:
    """The model in the first of the stages that holds one.

    Raises
    ------
    RegistryError
        If none does, or its artifact is not the one that was registered.
    TrackingError
        If the registry does not answer, or the artifact is not there.
    """
    filled = [stage for stage in stages if stage_version(stage) is not None]
    return load(filled[0] if filled else stages[0])


def load_version(version: int, *, stage: str = "") -> RegisteredModel:
    """One version of the registry; its artifact is checked before it is unpacked.

    Raises
    ------
    RegistryError
        If there is no such version, or its artifact's SHA-256 is not the registered one.
    TrackingError
        If the registry does not answer, or the artifact is not there.
    """
    tags = tags_of(version)
    name = get_settings().model_name
    return RegisteredModel(
        model=unpack_model(proved_bytes(version, tags)),
        name=name,
        version=version,
        stage=stage,
        family=tags.get("family", ""),
        run_id=tags.get("run_id", ""),
        data_digest=tags.get("data_digest", ""),
    )


def tags_of(version: int) -> dict[str, str]:
    """What was noted on a version when it was registered, and the last decision on it.

    Raises
    ------
    RegistryError
        If there is no such version.
    TrackingError
        If the registry does not answer.
    """
    name = get_settings().model_name
    found = or_none(lambda: client().get_model_version(name, str(version)))
    if found is None:
        raise RegistryError(
            f"{name} has no version {version}. `housing history` lists what there is. "
            "Nothing was changed."
        )
    return dict(found.tags)


@reaching()
def source_runs() -> set[str]:
    """The MLflow runs that the versions came from.

    Raises
    ------
    TrackingError
        If the store cannot be opened or read.
    """
    if is_absent():
        return set()
    versions = client().search_model_versions(f"name = '{get_settings().model_name}'")
    return {str(one.tags.get("run_id", "")) for one in versions} | {
        str(one.run_id) for one in versions
    }


def proved_bytes(version: int, tags: Mapping[str, str]) -> bytes:
    """The model file of a version, read once: what is checked is what is unpacked.

    Raises
    ------
    RegistryError
        If its SHA-256 is not the registered one.
    TrackingError
        If it is not there, or the store cannot be opened.
    """
    content = model_file(f"models:/{get_settings().model_name}/{version}").read_bytes()
    found, registered = _sha256(content), tags.get("artifact_sha256", "")
    if found != registered:
        raise RegistryError(
            f"version {version}: {MODEL_FILE} is not the one that was registered.\n"
            f"  found    SHA-256 {found}\n  expected SHA-256 {registered or '(none registered)'}\n"
            "Nothing was loaded. Register it again, or `housing rollback --to` another version."
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@reaching()
def rollback(to: int | None = None, *, why: str = "") -> Decision:
    """The decision that brings an earlier version (by default the previous one) back.

    Parameters
    ----------
    why
        What the person who asks says of it, for the ledger.

    Raises
    ------
    RegistryError
        If there is none to go back to, it never stood in Production, its
        artifact was changed, or what is said is too long.
    LedgerError
        If the decision is written but the stages could not be moved yet.
    TrackingError
        If the registry cannot be read or written.
    """
    reason = _asked_for(why)
    stages = ledger.settle()
    incumbent = stage_version("production")
    version = stage_version("previous") if to is None else to
    if version is None:
        raise RegistryError("no version stands before this one. Nothing was changed.")
    tags = tags_of(version)
    _refuse_no_way_back(version, incumbent, stages)
    proved_bytes(version, tags)
    what = {"artifact_sha256": tags["artifact_sha256"]}
    return ledger.append(
        Decision("rolled back", version, incumbent, [reason], what, follows=stages.line)
    )


def _asked_for(why: str) -> str:
    """The reason of a rollback, in one line."""
    said = unreadable.shown(" ".join(why.split()), len(why))
    if len(said) > MOST_SAID:
        raise RegistryError(
            f"the reason has {len(said):,} characters; expected at most {MOST_SAID}. "
            "Nothing was changed."
        )
    return f"asked for by a person: {said}" if said else "asked for by a person"


def _refuse_no_way_back(version: int, incumbent: int | None, stages: ledger.Stages) -> None:
    if version == incumbent == stages.production:
        raise RegistryError(f"version {version} stands in Production already. Nothing was changed.")
    stood = {line.version for line in history() if line.promoted and line.version}
    if version not in stood | {incumbent}:
        others = ", ".join(map(str, sorted(stood - {incumbent}))) or "none"
        raise RegistryError(
            f"version {version} never stood in Production, so there is no way back to it; `--to` "
            f"takes: {others}. `housing promote {version}` asks the gate. Nothing was changed."
        )
