"""The processed folder: training, validation and test districts, on disk and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from housing_lib.data import PARTS, DataError, Floats, Ids, data_digest, row_ids
from housing_lib.files import atomic_path, read_json, write_json
from housing_lib.settings import get_settings

ARRAYS = ("X", "y", "ids", "mean", "spread")


@dataclass(frozen=True)
class Part:
    """One part of the split: model matrix, prices in 100,000 USD, ids and raw districts.

    The columns of the matrix were centred on `mean` and divided by `spread`.
    """

    X: Floats
    y: Floats
    ids: Ids
    mean: Floats
    spread: Floats
    districts: pd.DataFrame


@dataclass(frozen=True)
class Manifest:
    """What the processed folder was made from."""

    source: str
    data_digest: str
    test_share: float
    validation_share: float
    rows: dict[str, int]
    features: list[str]


def write_parts(
    parts: Mapping[str, Part],
    *,
    source: str,
    test_share: float,
    validation_share: float,
    feature_names: list[str],
) -> Manifest:
    """The manifest of the processed folder, after writing all its files.

    The manifest goes last and is removed first: while it is missing, nobody can
    take a half-written folder for a whole one.
    """
    folder = get_settings().processed
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name, part in parts.items():
        with atomic_path(folder / f"{name}_data.npz") as path:
            np.savez(path, **{key: getattr(part, key) for key in ARRAYS})
    districts = pd.concat([part.districts.assign(part=name) for name, part in parts.items()])
    with atomic_path(folder / "districts.parquet") as path:
        districts.to_parquet(path, index=False)
    with atomic_path(folder / "feature_names.txt") as path:
        path.write_text("\n".join(feature_names) + "\n")
    manifest = Manifest(
        source=source,
        data_digest=data_digest(districts.drop(columns="part")),
        test_share=test_share,
        validation_share=validation_share,
        rows={name: len(part.y) for name, part in parts.items()},
        features=feature_names,
    )
    write_json(folder / "manifest.json", asdict(manifest))
    return manifest


def load_manifest(*, expected: str = "") -> Manifest:
    """What the processed folder was made from.

    Parameters
    ----------
    expected
        The digest of the data that it must hold; empty for any.

    Raises
    ------
    DataError
        If the folder was never written, or not completely, or holds other data.
    """
    manifest = _read_manifest()
    if expected not in ("", manifest.data_digest):
        raise DataError(
            f"{get_settings().processed} holds the data {manifest.data_digest}; expected "
            f"{expected}. Another run wrote it since. Nothing was changed; run this one again."
        )
    return manifest


def _read_manifest() -> Manifest:
    path = get_settings().processed / "manifest.json"
    try:
        return Manifest(**read_json(path))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: the districts were not preprocessed, or not completely. "
            "Run `02_preprocessing.ipynb` or `housing run` first."
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Run `02_preprocessing.ipynb` again; it writes it anew."
        ) from error


def load_parts() -> dict[str, Part]:
    """All three parts of the processed folder, by name.

    Raises
    ------
    DataError
        If a file is missing or damaged, or holds other districts than the manifest says.
    """
    return {name: load_part(name) for name in PARTS}


def load_part(name: str) -> Part:
    """One part of the processed folder, proved to belong to its manifest.

    Raises
    ------
    DataError
        If a file is missing or damaged, or holds other districts than the manifest says.
    """
    manifest = load_manifest()
    folder = get_settings().processed
    try:
        arrays = _read_arrays(folder / f"{name}_data.npz")
        districts = pd.read_parquet(folder / "districts.parquet")
    except Exception as error:
        raise DataError(
            f"{folder}: the {name} part cannot be read ({error}). "
            "Run `02_preprocessing.ipynb` again; it writes the folder anew."
        ) from error
    _refuse_mismatch(manifest, name, arrays, districts)
    own = districts[districts["part"] == name].drop(columns="part").reset_index(drop=True)
    return Part(**arrays, districts=own)


def _read_arrays(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {key: stored[key] for key in ARRAYS}


def _refuse_mismatch(
    manifest: Manifest, name: str, arrays: dict[str, Any], districts: pd.DataFrame
) -> None:
    digest = data_digest(districts.drop(columns="part"))
    own_ids = row_ids(districts[districts["part"] == name])
    shape = (manifest.rows[name], len(manifest.features))
    whole = digest == manifest.data_digest and arrays["X"].shape == shape
    if not (whole and np.array_equal(own_ids, arrays["ids"])):
        raise DataError(
            f"{get_settings().processed}: {name}_data.npz {arrays['X'].shape} and the districts "
            f"({digest}) do not belong to the manifest {shape} ({manifest.data_digest}). "
            "They come from different data. Nothing was changed; "
            "run `02_preprocessing.ipynb` again."
        )
