"""The way from a source to districts that are checked against the contract, and split."""

import hashlib
import subprocess
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from housing_lib import unreadable
from housing_lib.contract import CONTRACT as CONTRACT
from housing_lib.contract import FEATURES as FEATURES
from housing_lib.contract import PRICE_CAP as PRICE_CAP
from housing_lib.contract import TARGET as TARGET
from housing_lib.contract import USD_PER_UNIT as USD_PER_UNIT
from housing_lib.contract import Column as Column
from housing_lib.contract import Floats as Floats
from housing_lib.errors import HousingError
from housing_lib.files import file_digest
from housing_lib.settings import get_settings

BUNDLED_SHA256 = "6c920b8ea6eae64f9e0a29ec8cc9c82ccd01d977bd1dcad4a8c15ab1fe30978a"
PARTS = ("train", "val", "test")
TEST_SHARE, VALIDATION_SHARE = 0.20, 0.16
SOURCES = ("bundled", "sklearn")
CAP_TOLERANCE = 1e-6  # in 100,000 USD: what single precision leaves of a price
UNNAMED = "(unnamed)"
HEAD = 10_000  # bytes, which hold a first line


class DataError(HousingError):
    """Districts that break the contract, or files that do not hold what they should."""


Ids = npt.NDArray[np.uint64]


def acquire(source: str = "bundled") -> pd.DataFrame:
    """Checked districts with their prices from `source`.

    Parameters
    ----------
    source
        `bundled` (the committed file), `sklearn` (the official download), or
        the path of a CSV or Parquet file with the same columns.

    Raises
    ------
    DataError
        If the source cannot be read or breaks the contract.
    """
    if source == "bundled":
        verify_bundled()
        return check(read_table(get_settings().raw_csv), origin="the bundled data")
    if source == "sklearn":
        return check(_fetch_official(), origin="scikit-learn's download")
    return check(read_table(Path(source)), origin=source)


def verify_bundled() -> Path:
    """The bundled file, proved to be the one that was committed.

    Raises
    ------
    DataError
        If the file is missing or its SHA-256 is not the pinned one.
    """
    path = get_settings().raw_csv
    found = file_digest(path) if path.exists() else "no file"
    if found != BUNDLED_SHA256:
        raise DataError(
            f"{path} is not the bundled data set.\n"
            f"  found    {found}\n  expected SHA-256 {BUNDLED_SHA256}\n"
            f"Nothing was written. `housing data --restore` brings it back; "
            f"for data of your own use `--source PATH`."
        )
    return path


def resolve_source(source: str) -> str:
    """The source as it can be found from any folder: a known name, or an absolute path.

    Raises
    ------
    DataError
        If it is neither a known name nor a file.
    """
    if source in SOURCES:
        return source
    path = Path(source).expanduser().resolve()
    if not path.is_file():
        raise DataError(
            f"source '{source}': found no such file; expected {', '.join(SOURCES)}, "
            "or the path of a CSV or Parquet file. Nothing was run."
        )
    return str(path)


def restore_bundled() -> None:
    """Bring the bundled file back as it was committed.

    Raises
    ------
    DataError
        If git cannot do it.
    """
    path = get_settings().raw_csv
    command = ["git", "-C", str(path.parent), "checkout", "--", path.name]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        raise DataError(
            f"{path} cannot be restored: {reason}. Nothing was changed. "
            "data/README.md says how to rebuild it."
        ) from error


def read_table(path: Path) -> pd.DataFrame:
    """The table in a CSV or Parquet file, as it stands there.

    Raises
    ------
    DataError
        If there is no such file, its ending is unknown, or it cannot be read.
    """
    readers: dict[str, Any] = {".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: expected a .csv or .parquet file, or one of {', '.join(SOURCES)}. "
            "Nothing was written."
        )
    try:
        table: pd.DataFrame = reader(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. Nothing was written.") from None
    except unreadable.errors() as error:
        kind = path.suffix[1:].lower()
        raise DataError(
            f"{path} cannot be read as {kind}: {unreadable.sentences(error, kind)}. "
            "Nothing was written."
        ) from error
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if path.is_dir():
        found = pq.read_table(path)
    else:
        with pq.ParquetFile(path) as file:  # the other way refuses columns of the same name
            found = file.read()
    found.validate(full=True)  # texts that are none would be found by whoever asks for them
    try:
        table: pd.DataFrame = found.to_pandas()
    except KeyError as error:
        raise ValueError("what pandas noted in it is damaged") from error
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open("rb") as file:
        unreadable.refuse_other_text(file.read(HEAD))
    # By itself pandas renames a repeated column, and takes the first column of rows that
    # are longer than the header for an index.
    header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].fillna(UNNAMED)
    unreadable.refuse_other_separators(list(header))
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            rows = pd.read_csv(path, index_col=False)
        except pd.errors.ParserWarning as error:
            raise ValueError("rows are longer than the header") from error
    return rows.set_axis(list(header), axis="columns")


def _fetch_official() -> pd.DataFrame:
    from sklearn.datasets import fetch_california_housing

    try:
        table: pd.DataFrame = fetch_california_housing(as_frame=True).frame
    except OSError as error:
        raise DataError(
            f"scikit-learn's download failed ({error}). Nothing was written. "
            "`--source bundled` needs no network."
        ) from error
    return table


def check(
    table: pd.DataFrame,
    *,
    origin: str = "the table",
    target: bool = True,
    extra_columns: bool = False,
) -> pd.DataFrame:
    """The districts in `table` as float64, in the contract's order of columns.

    Missing values are allowed in the features, where a model imputes them, and
    not in the price. With `extra_columns`, other columns are ignored instead of
    refused.

    Raises
    ------
    DataError
        If anything breaks the contract; all problems are named at once.
    """
    wanted = [name for name in CONTRACT if target or name != TARGET]
    problems = _column_problems(table, wanted, extra_columns)
    present = [name for name in wanted if list(table.columns).count(name) == 1]
    numbers = table[present].apply(_as_floats)
    for name in present:
        problems += _value_problems(name, table[name], numbers[name])
    problems += _constant_problems(numbers)
    if table.empty:
        problems.append("(all)       no rows; expected at least one district")
    if problems:
        raise DataError(_contract_text(origin, problems, len(table)))
    return numbers.reset_index(drop=True)


def check_rows(table: pd.DataFrame, *, origin: str) -> tuple[pd.DataFrame, pd.Series]:
    """The districts in `table` as float64, and why each row breaks the contract.

    For what arrives day by day, where one bad row must not stop the others. A
    value that is no number becomes a missing one, and other columns are left out.

    Raises
    ------
    DataError
        If a column is missing, or there are no rows.
    """
    problems = _column_problems(table, list(CONTRACT), extra_columns=True)
    if table.empty:
        problems.append("(all)       no rows; expected at least one district")
    if problems:
        raise DataError(_contract_text(origin, problems, len(table)))
    given = table[list(CONTRACT)].reset_index(drop=True)
    numbers = given.apply(_as_floats)
    return numbers, _row_faults(given, numbers)


def _as_floats(values: pd.Series) -> pd.Series:
    if values.dtype.kind in "mM":  # times, which pandas would take for whole numbers
        return pd.Series(np.nan, index=values.index)
    try:
        return pd.to_numeric(values, errors="coerce").astype("float64")
    except OverflowError:  # a whole number of hundreds of digits
        return pd.to_numeric(values.map(_within_floats), errors="coerce").astype("float64")


def _within_floats(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return np.inf if value > 0 else -np.inf
    return value


def _column_problems(table: pd.DataFrame, wanted: list[str], extra_columns: bool) -> list[str]:
    unknown = [unreadable.shown(name) for name in table.columns if name not in CONTRACT]
    by_lower = {name.lower(): name for name in unknown}
    problems = []
    for name in wanted:
        if name not in table.columns:
            near = get_close_matches(name.lower(), by_lower, n=1)
            hint = f"; is it '{by_lower[near[0]]}'?" if near else ""
            problems.append(f"{name:<11} missing column{hint}")
    if not extra_columns:
        index = "; was the table written with its index?"
        problems += [
            f"{name:<11} column not in the contract{index if name == UNNAMED else ''}"
            for name in unknown
        ]
    repeated = [name for name in wanted if list(table.columns).count(name) > 1]
    return problems + [f"{name:<11} column stands there twice" for name in repeated]


def _value_faults(name: str, given: pd.Series, numbers: pd.Series) -> dict[str, pd.Series]:
    column = CONTRACT[name]
    faults = {
        "not a number": given.notna() & numbers.isna(),
        f"below {column.low:,.10g}": numbers < column.low,
        f"above {column.high:,.10g}": numbers > column.high,
    }
    if name == TARGET:
        faults["missing"] = given.isna()
    return {fault: mask for fault, mask in faults.items() if mask.any()}


def _value_problems(name: str, given: pd.Series, numbers: pd.Series) -> list[str]:
    expected = f"expected {CONTRACT[name].expected}"
    problems = []
    for fault, mask in _value_faults(name, given, numbers).items():
        first = int(mask.to_numpy().argmax())
        problems.append(
            f"{name:<11} {mask.sum():,} {_values(mask.sum())} {fault}, "
            f"first in row {first} ({unreadable.shown(given.iloc[first], 40)}); {expected}"
        )
    return problems


def _constant_problems(numbers: pd.DataFrame) -> list[str]:
    """That all prices are one, which nothing can be learned from; a single one proves nothing."""
    prices = numbers[TARGET].dropna() if TARGET in numbers else pd.Series(dtype=float)
    if len(prices) < 2 or prices.nunique() > 1:
        return []
    price = f"{prices.iloc[0]:,.10g}"
    return [f"{TARGET:<11} {len(prices):,} values are all {price}; expected prices that differ"]


def _row_faults(given: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series:
    reasons = pd.Series("", index=given.index)
    for name in given.columns:
        for fault, mask in _value_faults(name, given[name], numbers[name]).items():
            reasons[mask] += f"{name} {fault}; "
    return reasons.str.removesuffix("; ")


def _values(count: float) -> str:
    return "value" if count == 1 else "values"


def _contract_text(origin: str, problems: list[str], rows: int) -> str:
    count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    lines = [f"{origin} breaks the contract ({count} in {rows:,} rows):"]
    lines += [f"  {problem}" for problem in problems]
    if any(", first in row " in problem for problem in problems):
        lines.append("Rows are counted from 0, which is the first below the header.")
    return "\n".join([*lines, "Nothing was written. data/README.md describes each column."])


def summarise(districts: pd.DataFrame) -> pd.DataFrame:
    """What a reader should know of each column: range, missing values, distinct values."""
    return pd.DataFrame(
        {
            "unit": [CONTRACT[name].unit for name in districts.columns],
            "lowest": districts.min(),
            "median": districts.median(),
            "highest": districts.max(),
            "missing": districts.isna().sum(),
            "distinct": districts.nunique(),
        },
        index=districts.columns,
    )


def duplicates(districts: pd.DataFrame) -> int:
    """The number of districts whose features repeat those of an earlier row."""
    return int(districts.duplicated(list(FEATURES)).sum())


def capped(prices: pd.Series | Floats) -> npt.NDArray[np.bool_]:
    """Which prices stand at the census's upper limit, so that the true one is unknown.

    Higher prices, which a source of somebody's own may have, are what they say.
    """
    return np.isclose(prices, PRICE_CAP, rtol=0, atol=CAP_TOLERANCE)


def row_ids(districts: pd.DataFrame) -> Ids:
    """One id a district, made from its eight features alone.

    The price is left out, so that a district whose price is revised later stays
    in its part; the index is left out, so that order means nothing.
    """
    hashed = pd.util.hash_pandas_object(districts[list(FEATURES)], index=False)
    ids: Ids = hashed.to_numpy().astype(np.uint64)
    return ids


def split(
    districts: pd.DataFrame,
    *,
    test_share: float = TEST_SHARE,
    validation_share: float = VALIDATION_SHARE,
) -> npt.NDArray[np.str_]:
    """The part (`train`, `val` or `test`) of each district, chosen by what it holds.

    A district's place depends on its own features alone, so shuffling the table or
    appending to it moves no district from one part to another.

    Raises
    ------
    DataError
        If a share is not between 0 and 1, or leaves a part empty.
    """
    if not (0 < test_share < 1 and 0 < validation_share < 1 - test_share):
        raise DataError(
            f"test_share {test_share} and validation_share {validation_share}: each must be "
            "above 0, and their sum below 1. Nothing was written."
        )
    parts = place_in_parts(districts, test_share, validation_share)
    empty = sorted(set(PARTS) - set(parts))
    if empty:
        raise DataError(
            f"{len(districts):,} districts leave nothing for {', '.join(empty)}. "
            "Bring more districts or larger shares. Nothing was written."
        )
    return parts


def place_in_parts(
    districts: pd.DataFrame,
    test_share: float = TEST_SHARE,
    validation_share: float = VALIDATION_SHARE,
) -> npt.NDArray[np.str_]:
    """The part of each district, also where that leaves a part empty."""
    place = row_ids(districts) / 2**64
    return np.select(
        [place < test_share, place < test_share + validation_share], ["test", "val"], "train"
    )


def data_digest(districts: pd.DataFrame) -> str:
    """The SHA-256 of the districts' values and column names, 16 hexadecimal digits."""
    digest = hashlib.sha256(",".join(districts.columns).encode())
    digest.update(np.ascontiguousarray(districts.to_numpy(dtype="float64")).tobytes())
    return digest.hexdigest()[:16]
