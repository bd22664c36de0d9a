"""The database of the prediction log: its one door, for what the server answered and for truths."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, delete, event
from sqlalchemy.dialects import postgresql, sqlite

from housing_lib.prediction_tables import make_tables, predictions
from serve.spool import Row

# When a PostgreSQL server counts as gone, in libpq's words.
AWAY = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5,
        "keepalives_count": 3, "tcp_user_timeout": 15_000}  # fmt: skip
ROWS_A_WRITE, KEYS_A_QUERY = 5_000, 500


class LogDatabase:
    """The tables of answers and true prices, which are made when they are first asked for.

    Parameters
    ----------
    uri
        The database, as SQLAlchemy names it: SQLite or PostgreSQL.
    """

    def __init__(self, uri: str) -> None:
        self.engine = _open(uri)
        self._ready = False

    def begin(self) -> AbstractContextManager[Connection]:
        """A connection whose changes are all kept at its end, or none of them."""
        if self._ready and self._is_gone:
            self.close()  # or SQLite would go on with the file that was taken away
            self._ready = False
        if not self._ready:
            make_tables(self.engine)
            self._ready = True
        return self.engine.begin()

    @property
    def _is_gone(self) -> bool:
        file = self.engine.url.database if self.engine.dialect.name == "sqlite" else None
        return bool(file) and not Path(str(file)).exists()

    def keep(self, rows: Sequence[Row]) -> None:
        """Keep these rows of `predictions`, those that are there already excepted."""
        if not rows:
            return
        with self.begin() as connection:
            statement, stored = self._statement
            moments = {when: stored(when) for when in {row[1] for row in rows}}
            for start in range(0, len(rows), ROWS_A_WRITE):
                chunk = rows[start : start + ROWS_A_WRITE]
                values = [(key, moments[when], *rest) for key, when, *rest in chunk]
                connection.exec_driver_sql(statement, values)

    @cached_property
    def _statement(self) -> tuple[str, Callable[[datetime], object]]:
        """What the driver is told to keep answers, and how it takes their time.

        SQLAlchemy's own way of many rows takes three times what the database takes for them.
        """
        dialect = self.engine.dialect
        kind = predictions.c.answered_at.type.dialect_impl(dialect)
        stored = kind.bind_processor(dialect) or (lambda when: when)
        return self.insert_new(predictions).compile(dialect=dialect).string, stored

    def take_out(self, ids: Sequence[str]) -> None:
        """Remove the rows of `predictions` with these ids."""
        with self.begin() as connection:
            for some in in_queries(ids):
                these = predictions.c.prediction_id.in_(some)
                connection.execute(delete(predictions).where(these))

    def insert_new(self, table: Table) -> Insert:
        """What keeps rows in a table, those whose key is there already excepted."""
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        statement: Insert = dialect.insert(table).on_conflict_do_nothing()
        return statement

    def close(self) -> None:
        """Leave it; a connection that is at work ends when its work does."""
        self.engine.dispose()


def in_queries(keys: Sequence[str]) -> list[Sequence[str]]:
    """The keys in as many pieces as it takes queries to ask for them."""
    return [keys[start : start + KEYS_A_QUERY] for start in range(0, len(keys), KEYS_A_QUERY)]


def _open(uri: str) -> Engine:
    local = uri.startswith("sqlite")
    # A connection that died with its database is replaced before it is used.
    engine = create_engine(
        uri,
        pool_pre_ping=not local,
        connect_args={} if local else AWAY,
        paramstyle="qmark" if local else "format",
    )
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, _: object) -> None:
    for setting in ("journal_mode=wal", "busy_timeout=2000", "synchronous=full"):
        connection.execute(f"pragma {setting}")
