"""A version of the registry as batches ask it: compiled where it can be, or else the model."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from housing_lib.compiled import Compiled, CompileError, load
from housing_lib.contract import Floats
from housing_lib.flags import flag_texts
from housing_lib.settings import get_settings


@dataclass(frozen=True)
class Identity:
    """Which model answers: with the same one, the same districts get the same bytes."""

    model_name: str
    model_version: int
    family: str
    run_id: str
    data_digest: str
    artifact_sha256: str
    compiled_sha256: str


@dataclass(frozen=True)
class Answered:
    """What is said of some districts: values in 100,000 USD, NaN where the model gives none."""

    prices: Floats
    low: Floats
    high: Floats
    errors: Floats
    flags: list[str]


@dataclass(frozen=True)
class CompiledModel:
    """A model as arrays, which answers at the speed of arrays."""

    arrays: Compiled

    def answer(self, districts: Floats) -> Answered:
        """What the model says of districts of shape (rows, 8)."""
        found = self.arrays.answer(districts)
        error = self.arrays.error
        errors = (found.high - found.prices) / (error.factor if error else 1.0)
        told = flag_texts(districts, found.prices, found.nearest_km)
        return Answered(found.prices, found.low, found.high, errors, told)


@dataclass(frozen=True)
class PlainModel:
    """A model that cannot become arrays, as it was registered."""

    model: Any

    def answer(self, districts: Floats) -> Answered:
        """What the model says of districts of shape (rows, 8)."""
        from housing_lib.answers import answers

        if not len(districts):  # scikit-learn refuses what has no rows
            none = np.empty(0)
            return Answered(none, none, none, none, [])
        told = answers(self.model, districts)
        prices, low, high, errors = told[["price", "low", "high", "expected_error"]].to_numpy().T
        return Answered(prices, low, high, errors, told["flags"].tolist())


@dataclass(frozen=True)
class Answering:
    """A model and which one it is."""

    identity: Identity
    model: CompiledModel | PlainModel = field(repr=False)

    def described(self) -> dict[str, Any]:
        """Its identity, for a manifest."""
        return asdict(self.identity)


def answering(stage: str = "production") -> Answering:
    """The version that stands in a stage, ready to answer batches.

    It is compiled where it can be: the same numbers, many times faster. A version
    that nobody compiled yet is compiled and proved first.

    Raises
    ------
    RegistryError
        If no version stands there, or its artifact is not the one that was registered.
    CompileError
        If its compiled file is not the one that was stored.
    TrackingError
        If the registry does not answer.
    DataError
        If nobody compiled it yet, and no districts for it can be read.
    """
    # Processes that only answer need none of these, which are slow to import and large.
    from housing_lib import connection, deployment, registry

    connection.refuse_lost()
    found = deployment.standing_in(stage)
    try:
        deployment.publish(int(found.version))
    except CompileError:
        plain = registry.load_version(int(found.version)).model
        return Answering(_identity(found, ""), PlainModel(plain))
    folder = get_settings().serving
    folder.mkdir(parents=True, exist_ok=True)
    deployed = deployment.deploy(found, folder)
    arrays = load(folder / f"{deployed.digest}.npz", digest=deployed.digest)
    return Answering(_identity(found, deployed.digest), CompiledModel(arrays))


def _identity(found: Any, compiled_sha256: str) -> Identity:
    return Identity(
        model_name=found.name,
        model_version=int(found.version),
        family=found.tags.get("family", ""),
        run_id=found.tags.get("run_id", ""),
        data_digest=found.tags.get("data_digest", ""),
        artifact_sha256=found.tags.get("artifact_sha256", ""),
        compiled_sha256=compiled_sha256,
    )
