"""Batch prediction over files: districts in, the same table with predicted prices out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from housing_lib.answers import answers
from housing_lib.data import CONTRACT, USD_PER_UNIT, DataError, check, read_table
from housing_lib.files import atomic_path
from housing_lib.registry import RegisteredModel
from housing_lib.settings import get_settings

ADDED = (
    "predicted_median_house_value",
    "predicted_median_house_value_usd",
    "interval_low_usd",
    "interval_high_usd",
    "flags",
    "model_version",
)
ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class Scored:
    """A file of predictions that was written: how many rows, by which version, how long it took."""

    rows: int
    path: Path
    model_version: int
    seconds: float


def default_target(source: Path) -> Path:
    """The file that predictions for `source` go to if no other is named."""
    return get_settings().predictions / f"{source.stem}_predictions{source.suffix}"


def predict_file(source: Path, target: Path, *, registered: RegisteredModel) -> Scored:
    """The file of predictions for the districts in `source`, after writing it to `target`.

    The input's columns come first and unchanged, whatever they hold beside the
    eight features; then the price in 100,000 USD and in dollars, the ends of
    its 90 % interval, flags (`answers.FLAGS`), and the model's version. Missing
    features are imputed by the model, and flagged.

    Parameters
    ----------
    source, target
        CSV or Parquet, by their endings; not the same file.

    Raises
    ------
    DataError
        If a file is not what it should be or the districts break the contract;
        nothing is written then.
    """
    started = time.perf_counter()
    _refuse_target(source, target)
    parsed = read_table(source)
    table = _as_written(source)
    _refuse_columns(source, table)
    districts = check(parsed, origin=str(source), target=False, extra_columns=True)
    if _is_csv(source) and not _is_csv(target):
        table = _with_numbers(table, parsed)
    answered = answers(registered.model, districts.to_numpy())
    _write(_with_predictions(table, answered, registered.version), target)
    return Scored(len(table), target, registered.version, time.perf_counter() - started)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _refuse_target(source: Path, target: Path) -> None:
    if target.suffix.lower() not in ENDINGS:
        raise DataError(
            f"{target}: predictions go to a {' or '.join(ENDINGS)} file. Nothing was written."
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise DataError(
            f"{target} is the input itself, which is never overwritten. "
            "Name another file for the predictions. Nothing was written."
        )


def _refuse_columns(source: Path, table: pd.DataFrame) -> None:
    repeated = ", ".join(sorted(set(table.columns[table.columns.duplicated()])))
    if repeated:
        raise DataError(f"{source} has these columns twice: {repeated}. Nothing was written.")
    taken = ", ".join(name for name in ADDED if name in table.columns)
    if taken:
        raise DataError(
            f"{source} already has columns that the predictions would take: {taken}. "
            "Rename or remove them. Nothing was written."
        )


def _as_written(source: Path) -> pd.DataFrame:
    if _is_csv(source):
        return _csv_as_text(source)
    # Arrow's types keep whole numbers whole beside missing ones, and an index a column.
    table: pd.DataFrame = pq.read_table(source).to_pandas(
        types_mapper=pd.ArrowDtype, ignore_metadata=True
    )
    return table


def _csv_as_text(source: Path) -> pd.DataFrame:
    # Text, so that an id such as 007 comes out as it went in. The header is read as a row,
    # because pandas would rename repeated names, and shift rows that are longer than it.
    try:
        rows = pd.read_csv(source, header=None, dtype=str, na_filter=False)
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{source} cannot be read as csv: {reason}. Nothing was written."
        ) from error
    return rows.iloc[1:].set_axis(list(rows.iloc[0]), axis="columns").reset_index(drop=True)


def _with_numbers(table: pd.DataFrame, parsed: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{name: parsed[name] for name in CONTRACT if name in parsed})


def _with_predictions(table: pd.DataFrame, answered: pd.DataFrame, version: int) -> pd.DataFrame:
    dollars = (answered[["price", "low", "high"]] * USD_PER_UNIT).round(2)
    values: tuple[Any, ...] = (
        answered["price"].to_numpy(),
        *dollars.to_numpy().T,
        answered["flags"].to_numpy(),
        version,
    )
    return table.assign(**dict(zip(ADDED, values, strict=True)))


def _write(table: pd.DataFrame, target: Path) -> None:
    try:
        with atomic_path(target) as temporary:
            if _is_csv(target):
                table.to_csv(temporary, index=False)
            else:
                # Without pandas' own notes in it, which would ask every reader for Arrow's types.
                plain = pa.Table.from_pandas(table, preserve_index=False)
                pq.write_table(plain.replace_schema_metadata(None), temporary)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error}. Nothing was written.") from error
