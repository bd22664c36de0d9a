"""What was asked and answered, and what turned out to be true: from a file, or from the log."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy
from sqlalchemy import func, select

from housing_lib import compute, storage
from housing_lib.data import CONTRACT, FEATURES, TARGET, DataError, check_rows, read_table, row_ids
from housing_lib.parts import load_part
from housing_lib.prediction_tables import actuals, predictions
from housing_lib.processes import cores
from housing_lib.settings import get_settings
from housing_lib.sources import find_files

NAMED = ("test", "log")
DATABASES = ("sqlite", "postgresql")
ROWS_A_READ = 50_000
WORTH_A_PROCESS = 50_000_000  # bytes, which take some seconds

Checked = tuple[pd.DataFrame, set[str]]


@dataclass(frozen=True)
class Traffic:
    """Districts with their answers and true prices, oldest first.

    `rows` has the eight features, the true price (missing until it arrives) and
    `predicted`, `low`, `high` (100,000 USD, missing where nobody answered),
    `model_version`, `answered_at` (UTC, missing for a file) and `fault`, why a
    row breaks the contract. `oddities` counts what a reader should know of.
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
    """
    begin, end = period(source, since=since, until=until)
    if source == "log":
        return _read_log(_batch_start(begin, batch_hours), end)
    return from_table(_test_rows(), source=source) if source == "test" else _read_files(source)


def _read_files(source: str) -> Traffic:
    _, names = find_files(source)
    if len(names) == 1:
        return from_table(_read_table(names[0]), source=source)
    found = dict(compute.each(_read_file, [(name,) for name in names], jobs=_jobs(names)))
    kept = [found[number] for number in range(len(names)) if found[number]]
    if not kept:
        raise DataError(f"{source}: no rows; expected at least one district. Nothing was logged.")
    return _gathered(kept, source)


def _jobs(names: list[str]) -> int:
    """No more processes than pay for their start."""
    size = sum(storage.size_of(name) for name in names)
    return min(cores(), 1 + size // WORTH_A_PROCESS)


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
    nobody |= {"model_version": 0, "answered_at": pd.NaT}
    rows = districts.assign(**nobody, fault=faults.mask(waiting, ""))
    ids = pd.Series(row_ids(districts))
    prices = districts[TARGET].groupby(ids).agg(["count", "nunique"])
    return Traffic(
        rows,
        source,
        {
            "rows that break the contract": int((rows["fault"] != "").sum()),
            "rows that wait for their price": int(waiting.sum()),
            "districts that stand there twice": int(ids.duplicated().sum()),
            "districts with conflicting prices": int((prices["nunique"] > 1).sum()),
            "columns that are not in the contract": len(set().union(*unknown)),
        },
    )


def period(source: str, *, since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """The beginning and end of the period that is looked at; None where it is open.

    Raises
    ------
    DataError
        If it ends before it begins, or the source's rows have no times.
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
    """
    begin, end = period(source, since=since, until=until)
    if source != "log":
        load(source)
        return
    with _connection() as connection:
        found = connection.execute(_within(select(predictions.c.prediction_id), begin, end))
        if found.first() is None:
            raise _empty(begin, end)


def _read_log(begin: datetime | None, end: datetime | None) -> Traffic:
    with _connection() as connection:
        rows = _predictions(connection, begin, end)
        by_features = _actuals_by_features(connection)
        orphans = _orphans(connection)
    if rows.empty:
        raise _empty(begin, end)
    oddities = _join(rows, by_features) | {"true prices of unknown predictions": orphans}
    del rows["received_at"]
    return Traffic(rows, "log", oddities)


@contextmanager
def _connection() -> Iterator[Any]:
    """A connection to the prediction log; whatever fails there is told as a `DataError`."""
    uri = get_settings().prediction_log_uri
    try:
        _refuse_missing(uri)
        engine = sqlalchemy.create_engine(uri)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"HOUSING_PREDICTION_LOG names no database that can be read: {reason}. Expected an "
            "address as sqlite:///predictions.db or postgresql+psycopg://user@host/name. "
            "Nothing was run."
        ) from error
    try:
        with engine.connect() as connection:
            yield connection
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _unreadable(uri, str(error).splitlines()[0]) from error
    finally:
        engine.dispose()


def _empty(begin: datetime | None, end: datetime | None) -> DataError:
    uri = get_settings().prediction_log_uri
    return DataError(
        f"found no predictions in {_shown(uri)} from {begin or 'the beginning'} to "
        f"{end or 'now'}; expected at least one. Nothing was run."
    )


def _refuse_missing(uri: str) -> None:
    # SQLite would create the file that it does not find.
    url = sqlalchemy.engine.make_url(uri)
    if url.drivername.startswith("sqlite") and not Path(url.database or "").is_file():
        raise _unreadable(uri, "there is no such file")


def _unreadable(uri: str, reason: str) -> DataError:
    return DataError(
        f"the prediction log {_shown(uri)} cannot be read: {reason}. Expected the database that "
        "`housing serve` writes; HOUSING_PREDICTION_LOG names another. Nothing was run."
    )


def _shown(uri: str) -> str:
    return sqlalchemy.engine.make_url(uri).render_as_string(hide_password=True)


def _predictions(connection: Any, begin: datetime | None, end: datetime | None) -> pd.DataFrame:
    asked, true = predictions.c, actuals.c
    query = (
        select(
            asked.answered_at,
            asked.model_version,
            *(asked[name] for name in FEATURES),
            asked.price.label("predicted"),
            asked.low,
            asked.high,
            true.price.label(TARGET),
            true.received_at,
        )
        .select_from(predictions.outerjoin(actuals, true.key == asked.prediction_id))
        .order_by(asked.answered_at, asked.prediction_id)
    )
    return pd.concat(list(_read(connection, _within(query, begin, end))), ignore_index=True)


def _within(query: Any, begin: datetime | None, end: datetime | None) -> Any:
    when = predictions.c.answered_at
    query = query.where(when >= begin.astimezone(UTC)) if begin else query
    return query.where(when < end.astimezone(UTC)) if end else query


def _read(connection: Any, query: Any) -> Iterator[pd.DataFrame]:
    """The rows of a query in pieces, as compact columns: a million of them as objects is 1.5 GB."""
    streamed = connection.execution_options(stream_results=True, max_row_buffer=ROWS_A_READ)
    with streamed.execute(query) as found:
        names = list(found.keys())
        yield _compact({name: [] for name in names})
        for rows in found.partitions(ROWS_A_READ):
            columns = zip(names, zip(*rows, strict=True), strict=True)
            yield _compact({name: list(column) for name, column in columns})


def _compact(columns: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: _compact_column(name, found) for name, found in columns.items()})


def _compact_column(name: str, values: list[Any]) -> Any:
    if name in ("answered_at", "received_at"):
        return pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
    return np.array(values, dtype="int64" if name == "model_version" else "float64")


def _actuals_by_features(connection: Any) -> pd.Series:
    """The true prices that came with the features of a district, by its id."""
    columns = [actuals.c[name] for name in (*FEATURES, "price")]
    query = select(*columns).where(actuals.c.prediction_id.is_(None))
    table = pd.concat(list(_read(connection, query)), ignore_index=True)
    return table["price"].set_axis(row_ids(table)).groupby(level=0).last()


def _orphans(connection: Any) -> int:
    known = actuals.outerjoin(predictions, actuals.c.prediction_id == predictions.c.prediction_id)
    lost = actuals.c.prediction_id.is_not(None) & predictions.c.prediction_id.is_(None)
    return int(connection.scalar(select(func.count()).select_from(known).where(lost)))


def _join(rows: pd.DataFrame, by_features: pd.Series) -> dict[str, int]:
    """Fill in the prices that came with features; what was odd about the rows, counted."""
    rows["fault"] = ""
    named = rows[TARGET]
    if len(by_features):
        found = by_features.reindex(row_ids(rows)).to_numpy()
        conflicts = int((named.notna() & np.isfinite(found) & (named != found)).sum())
        rows[TARGET] = named.fillna(pd.Series(found, index=rows.index))
    else:
        conflicts = 0
    now = pd.Timestamp.now(tz="UTC")
    return {
        "predictions that wait for their price": int(rows[TARGET].isna().sum()),
        "predictions with two true prices that differ (the one by id counts)": conflicts,
        "predictions of the future (a clock is wrong)": int((rows["answered_at"] > now).sum()),
        "true prices received before the prediction (a clock ran backwards)": int(
            (rows["received_at"] < rows["answered_at"]).sum()
        ),
    }
