"""The way of a registered model to a server: compiled, proved equal, stored beside the model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from housing_lib import compiled, registry
from housing_lib.connection import client, or_none, reaching
from housing_lib.contract import FEATURES, Floats
from housing_lib.errors import HousingError
from housing_lib.files import atomic_path, file_digest
from housing_lib.settings import get_settings

# A later format finds no tag of its own, and compiles the model anew.
TAG = f"compiled_{compiled.FORMAT}_sha256"
WAY_IN = {
    "production": "`housing run` promotes one; `housing history` ends what was interrupted.",
    "staging": "`housing run` makes one.",
    "previous": "The next promotion puts today's Production there.",
}
SYNTHETIC_ROWS = 10_000


@dataclass(frozen=True)
class Deployed:
    """A version of the registry and the SHA-256 of the file that it was compiled into."""

    name: str
    version: int
    family: str
    run_id: str
    data_digest: str
    digest: str


def standing_in(stage: str) -> Any:
    """The version that stands in a stage, as MLflow describes it.

    Raises
    ------
    RegistryError
        If there is none.
    TrackingError
        If the registry does not answer.
    """
    name = get_settings().model_name
    found = or_none(lambda: client().get_model_version_by_alias(name, stage))
    if found is None:
        raise registry.RegistryError(
            f"no version of {name} stands in {stage.title()}. {WAY_IN.get(stage, '')}".rstrip()
        )
    return found


def is_same(known: Any, found: Any) -> bool:
    """Whether a release is the version that MLflow describes, compiled as it is now."""
    registered = (found.name, int(found.version), found.tags.get("run_id"), found.tags.get(TAG))
    return (known.name, known.version, known.run_id, known.digest) == registered


def deploy(found: Any, folder: Path) -> Deployed:
    """A version with its compiled model, which lies in `folder` as `<digest>.npz` afterwards.

    A version that nobody compiled yet is compiled first.

    Raises
    ------
    HousingError
        If the model cannot be compiled or read, or is not what was registered.
    """
    digest = publish(int(found.version))
    path = folder / f"{digest}.npz"
    if not path.exists() or file_digest(path) != digest:
        _fetch(found, digest, path)
    path.touch()
    return Deployed(
        name=found.name,
        version=int(found.version),
        family=found.tags.get("family", ""),
        run_id=found.tags.get("run_id", ""),
        data_digest=found.tags.get("data_digest", ""),
        digest=digest,
    )


def _fetch(found: Any, digest: str, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = f"compiled/{digest}.npz"
        try:
            fetched = Path(client().download_artifacts(found.tags["run_id"], source, folder))
            compiled.load(fetched, digest=digest)
        except HousingError:
            raise
        except Exception as error:
            raise registry.RegistryError(
                f"version {found.version}: {source} cannot be read: {str(error).splitlines()[0]}"
            ) from error
        with atomic_path(path) as temporary:
            temporary.write_bytes(fetched.read_bytes())


@reaching()
def publish(version: int) -> str:
    """The SHA-256 of a version's compiled model, which is proved and stored if it was not before.

    Raises
    ------
    CompileError
        If the model cannot become arrays, or they do not give its numbers.
    RegistryError
        If there is no such version, or its artifact is not what was registered.
    TrackingError
        If the registry cannot be read or written.
    DataError
        If neither the districts that it was made from nor the bundled ones can be read.
    """
    return registry.tags_of(version).get(TAG) or _compile(version)


def _compile(version: int) -> str:
    from housing_lib import compiling  # it imports every kind of model, and followers need none

    registered = registry.load_version(version)
    known = known_districts(registered.data_digest)
    made = compiling.compile_model(registered.model, known)
    unseen = compiling.synthetic_districts(known, rows=SYNTHETIC_ROWS, seed=1)
    compiling.prove(made, registered.model, np.vstack([known, unseen]))
    with tempfile.TemporaryDirectory() as folder:
        digest = made.save(Path(folder) / "champion.npz")
        named = (Path(folder) / "champion.npz").rename(Path(folder) / f"{digest}.npz")
        client().log_artifact(registered.run_id, str(named), "compiled")
    client().set_model_version_tag(registered.name, str(version), TAG, digest)
    return digest


def known_districts(data_digest: str) -> Floats:
    """The districts that a model was made from, or else the bundled ones, shape (rows, 8).

    Raises
    ------
    DataError
        If neither can be read.
    """
    import pandas as pd

    from housing_lib import data, parts

    try:
        parts.load_manifest(expected=data_digest)
        table = pd.concat([part.districts for part in parts.load_parts().values()])
    except HousingError:  # the processed folder holds other data by now, or none
        table = data.acquire()
    return np.ascontiguousarray(table[list(FEATURES)].to_numpy("float64"))
