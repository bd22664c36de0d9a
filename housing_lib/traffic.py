"""What was asked and answered, and what turned out to be true: from a file, or from the log."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from housing_lib import compute, storage
from housing_lib.answer_log import read_answers, refuse_empty
from housing_lib.data import CONTRACT, TARGET, DataError, check_rows, read_table, row_ids
from housing_lib.parts import load_part
from housing_lib.processes import worth_starting
from housing_lib.settings import get_settings
from housing_lib.sources import find_files

NAMED = ("test", "log")
DATABASES = ("sqlite", "postgresql")
WORTH_A_PROCESS = 50_000_000  # bytes, which take some seconds

Checked = tuple[pd.DataFrame, set[str]]


@dataclass(frozen=True)
class Traffic:
    """Districts with their answers and true prices, oldest first.

    `rows` has the eight features, the true price (missing until it arrives) and
    `predicted`, `low`, `high` (100,000 USD, missing where nobody answered),
    `model_version`, `answered_at` and the price's `observed_at` (UTC, missing for a file)
    and `fault`, why a row breaks the contract. `oddities` counts what a reader should know of.
    """

    rows: pd.DataFrame
    source: str
    oddities: dict[str, int] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether the rows have times."""
        return bool(self.rows["answered_at"].notna().all())


def resolve_source(source: str) -> str:
    """The source as it can be found from any folder: `test`, `log`, or files by a whole name.

    The address of a database becomes the setting `HOUSING_PREDICTION_LOG` of
    this process and those it starts, and `log`: it may hold a password, which
    must reach no notebook.

    Raises
    ------
    DataError
        If it is neither of them, and stands for no file.
    StorageError
        If its place cannot be reached.
    """
    if source in NAMED:
        return source
    if "://" in source and source.startswith(DATABASES):
        os.environ["HOUSING_PREDICTION_LOG"] = source
        get_settings.cache_clear()
        return "log"
    if not _stands_for_files(source):
        shown = source.split("@")[-1]
        raise DataError(
            f"source '{shown}': found no such file; expected test (the test districts), log (the "
            "server's prediction log), CSV or Parquet (a file, a folder, a glob, s3://bucket/...), "
            "or the address of an SQLite or PostgreSQL database. Nothing was run."
        )
    return storage.absolute(source)


def _stands_for_files(source: str) -> bool:
    if "://" in source and not storage.is_remote(source):
        return False
    try:
        return bool(find_files(source))
    except DataError:
        return False


def moment(text: str) -> datetime | None:
    """A point in time from an ISO date, or from how long ago it was; None if empty.

    Examples
    --------
    >>> moment("2026-03-01").isoformat()
    '2026-03-01T00:00:00+00:00'

    Raises
    ------
    DataError
        If it is neither.
    """
    days = {"h": 1 / 24, "d": 1, "w": 7}
    try:
        if text[-1:] in days:
            ago = float(text[:-1]) * days[text[-1]]
            return datetime.now(UTC) - timedelta(days=ago)
        found = datetime.fromisoformat(text) if text else None
    except (ValueError, OverflowError):
        raise DataError(
            f"'{text}' is no point in time; expected 2026-03-01, 2026-03-01T12:00, or how long ago "
            "it was: 36h, 30d, 8w. Nothing was run."
        ) from None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def load(source: str, *, since: str = "", until: str = "", batch_hours: float = 0) -> Traffic:
    """What to monitor.

    Parameters
    ----------
    source
        `test` for the test districts, `log` for the server's prediction log, or
        CSV or Parquet files with the eight columns: one, a folder or a glob of
        them, here or in S3. Prices may be missing, one or all: those rows wait
        for them. Files are read side by side, and follow each other by name.
    since, until
        A period of the log, as `moment` takes them; `until` is not in it.
    batch_hours
        The period begins where a batch of so many hours does, so that a later
        look finds the same batches.

    Raises
    ------
    DataError
        If the source cannot be read, lacks a column or has no rows, or the
        period ends before it begins. A bad value in one row does not stop the others.
    OutageError
        If a place or the cluster cannot be reached, or the processes that read files died.
    """
    begin, end = period(source, since=since, until=until)
    if source == "log":
        rows, oddities = read_answers(_batch_start(begin, batch_hours), end)
        return Traffic(rows, "log", oddities)
    return from_table(_test_rows(), source=source) if source == "test" else _read_files(source)


def _read_files(source: str) -> Traffic:
    _, names = find_files(source)
    if len(names) == 1:
        return from_table(_read_table(names[0]), source=source)
    jobs = worth_starting(sum(map(storage.size_of, names)), each=WORTH_A_PROCESS)
    found = dict(compute.each(_read_file, [(name,) for name in names], jobs=jobs))
    kept = [found[number] for number in range(len(names)) if found[number]]
    if not kept:
        raise DataError(f"{source}: no rows; expected at least one district. Nothing was logged.")
    return _gathered(kept, source)


def _read_table(name: str) -> pd.DataFrame:
    with storage.local_copy(name) as path:
        return read_table(path)


def _read_file(_: None, name: str) -> Checked | None:
    """What a file holds, held to the contract; None if it has no rows."""
    table = _read_table(name)
    return _checked(table, origin=name) if len(table) else None


def _batch_start(begin: datetime | None, batch_hours: float) -> datetime | None:
    if begin is None or not batch_hours:
        return begin
    hours = timedelta(hours=batch_hours)
    return begin - (begin - datetime(1970, 1, 1, tzinfo=UTC)) % hours


def _test_rows() -> pd.DataFrame:
    """The test districts in an order that means nothing: the census lists them by place."""
    part = load_part("test")
    return part.districts.iloc[np.argsort(part.ids, kind="stable")].reset_index(drop=True)


def from_table(table: pd.DataFrame, *, source: str) -> Traffic:
    """Districts of a table that nobody has answered yet; a column of prices may be missing.

    Raises
    ------
    DataError
        If one of the eight columns is missing, or there are no rows.
    """
    return _gathered([_checked(table, origin=source)], source)


def _checked(table: pd.DataFrame, *, origin: str) -> Checked:
    """Districts with the `fault` of each, and the columns that are not in the contract."""
    priced = table if TARGET in table.columns else table.assign(**{TARGET: np.nan})
    districts, faults = check_rows(priced, origin=origin)
    return districts.assign(fault=faults), set(table.columns) - set(districts)


def _gathered(checked: list[Checked], source: str) -> Traffic:
    tables, unknown = zip(*checked, strict=True)
    found = pd.concat(tables, ignore_index=True)
    districts, faults = found[list(CONTRACT)], found["fault"]
    waiting = districts[TARGET].isna() & (faults == f"{TARGET} missing")
    nobody: dict[str, Any] = dict.fromkeys(("predicted", "low", "high"), np.nan)
    nobody |= {"model_version": 0, "answered_at": pd.NaT, "observed_at": pd.NaT}
    rows = districts.assign(**nobody, fault=faults.mask(waiting, ""))
    ids = pd.Series(row_ids(districts))
    prices = districts[TARGET].groupby(ids).nunique()
    return Traffic(
        rows,
        source,
        {
            "rows that break the contract": int((rows["fault"] != "").sum()),
            "rows that wait for their price": int(waiting.sum()),
            "districts that stand there twice": int(ids.duplicated().sum()),
            "districts with conflicting prices": int((prices > 1).sum()),
            "columns that are not in the contract": len(set().union(*unknown)),
        },
    )


def period(source: str, *, since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """The beginning and end of the period that is looked at; None where it is open.

    Raises
    ------
    DataError
        If an end is no point in time, it ends before it begins, or the source's rows have no times.
    """
    begin, end = moment(since), moment(until)
    if source != "log" and (begin or end):
        raise DataError(
            f"a period was given for '{source}', whose rows have no times; expected it for "
            "log alone. Nothing was run."
        )
    if begin and end and end <= begin:
        raise DataError(
            f"the period ends at {end.isoformat()} and begins at {begin.isoformat()}; expected "
            "an end after the beginning. Nothing was run."
        )
    return begin, end


def refuse(source: str, *, since: str = "", until: str = "") -> None:
    """Raise a `DataError` if there is nothing to monitor, before anything is started.

    A file is read for it, and the log asked for one prediction.

    Raises
    ------
    DataError
        If the source cannot be read, lacks a column, or has no rows of the period.
    OutageError
        If a place or the cluster cannot be reached, or the processes that read files died.
    """
    begin, end = period(source, since=since, until=until)
    if source == "log":
        refuse_empty(begin, end)
    else:
        load(source)
