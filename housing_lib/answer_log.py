"""What the server's log holds of a period: what was answered, and the prices that arrived."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy
from sqlalchemy import func, select

from housing_lib.data import FEATURES, TARGET, DataError, row_ids
from housing_lib.errors import OutageError
from housing_lib.prediction_tables import actuals, predictions
from housing_lib.settings import get_settings

ROWS_A_READ = 50_000


class LogAwayError(DataError, OutageError):
    """A prediction log that does not answer now."""


def read_answers(
    begin: datetime | None, end: datetime | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of `traffic.Traffic`, oldest first, and what was odd about them, counted.

    Raises
    ------
    DataError
        If the log cannot be read, or holds nothing of the period.
    """
    with _connection() as connection:
        rows = _predictions(connection, begin, end)
        by_features = _actuals_by_features(connection)
        orphans = _orphans(connection)
    if rows.empty:
        raise _empty(begin, end)
    oddities = _join(rows, by_features) | {"true prices of unknown predictions": orphans}
    del rows["received_at"]
    return rows, oddities


def refuse_empty(begin: datetime | None, end: datetime | None) -> None:
    """Refuse a log that has nothing to tell.

    Raises
    ------
    DataError
        If the log cannot be read, or holds nothing of the period.
    """
    with _connection() as connection:
        found = connection.execute(_within(select(predictions.c.prediction_id), begin, end))
        if found.first() is None:
            raise _empty(begin, end)


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
        away = isinstance(error, sqlalchemy.exc.OperationalError) and "no such" not in str(error)
        kind = LogAwayError if away else DataError
        raise kind(_unreadable(uri, str(error).splitlines()[0])) from error
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
        raise DataError(_unreadable(uri, "there is no such file"))


def _unreadable(uri: str, reason: str) -> str:
    return (
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
            true.observed_at,
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
    if name in ("answered_at", "observed_at", "received_at"):
        return pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
    return np.array(values, dtype="int64" if name == "model_version" else "float64")


def _actuals_by_features(connection: Any) -> pd.DataFrame:
    """The true prices that came with the features of a district, and when, by its id."""
    columns = [actuals.c[name] for name in (*FEATURES, "price", "observed_at")]
    query = select(*columns).where(actuals.c.prediction_id.is_(None))
    table = pd.concat(list(_read(connection, query)), ignore_index=True)
    return table[["price", "observed_at"]].set_axis(row_ids(table)).groupby(level=0).last()


def _orphans(connection: Any) -> int:
    known = actuals.outerjoin(predictions, actuals.c.prediction_id == predictions.c.prediction_id)
    lost = actuals.c.prediction_id.is_not(None) & predictions.c.prediction_id.is_(None)
    return int(connection.scalar(select(func.count()).select_from(known).where(lost)))


def _join(rows: pd.DataFrame, by_features: pd.DataFrame) -> dict[str, int]:
    """Fill in the prices that came with features; what was odd about the rows, counted."""
    rows["fault"] = ""
    named = rows[TARGET]
    if len(by_features):
        found = by_features.reindex(row_ids(rows)).set_axis(rows.index)
        price = found["price"]
        conflicts = int((named.notna() & price.notna() & (named != price)).sum())
        rows[TARGET] = named.fillna(price)
        rows["observed_at"] = rows["observed_at"].fillna(found["observed_at"])
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
