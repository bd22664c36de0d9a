"""What the server answered and what turned out to be true, in a database, off the request path."""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Engine, Table, create_engine, delete, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from housing_lib.contract import FEATURES
from housing_lib.errors import HousingError
from housing_lib.prediction_tables import actuals, make_tables, predictions
from housing_lib.settings import Settings
from serve.patience import Patience, Undo
from serve.priority import give_way
from serve.spool import Row, Spool

log = logging.getLogger("uvicorn.error")

FLUSH_EVERY_S = 0.5
# A database that takes longer is away: rows go to the spool, and who waits is refused.
PATIENCE_S = 0.5
PATIENCE_OF_CALLERS_S = 5.0
# When a PostgreSQL server counts as gone, in libpq's words.
AWAY = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5,
        "keepalives_count": 3, "tcp_user_timeout": 15_000}  # fmt: skip
MOST_WAITING = 200_000
ROWS_A_WRITE, KEYS_A_QUERY = 5_000, 500
NICENESS = 5
NOT_GIVEN = "no answer was given, and none is logged"
OFF = "off"
UNKNOWN, CONTRADICTS = "unknown prediction_id", "contradicts what is recorded"
PREDICTION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]+)?")


class LogUnavailableError(HousingError):
    """The database cannot be written now."""


class LogOffError(LogUnavailableError):
    """There is no database to write to, and trying again does not help."""


def refuse_strictness_without_log(settings: Settings) -> None:
    """Refuse to let answers wait for a log that is off.

    Raises
    ------
    LogOffError
        If the settings ask for that.
    """
    if settings.strict_log and settings.prediction_log_uri == OFF:
        raise LogOffError(
            "HOUSING_STRICT_LOG is true and HOUSING_PREDICTION_LOG is off: no answer could ever be "
            "given. Name a database, or set HOUSING_STRICT_LOG=false. Nothing was started."
        )


class Conflict(NamedTuple):
    """A true price that cannot be recorded, by its row, and why."""

    row: int
    problem: str
    found: str
    expected: str


class ConflictError(HousingError):
    """True prices that contradict those already recorded, or are of unknown predictions."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__(f"{len(conflicts)} true prices cannot be recorded")
        self.conflicts = conflicts

    @property
    def may_pass(self) -> bool:
        """Whether all of them are of predictions that may not be in the database yet."""
        return all(
            one.problem == UNKNOWN and PREDICTION_ID.fullmatch(one.found) for one in self.conflicts
        )


class Promise(NamedTuple):
    """Rows of an answer that is not given before they are in the database."""

    rows: Sequence[Row]
    kept: Future[None]


@dataclass(frozen=True)
class Truth:
    """What a district turned out to be worth: a row of `actuals` that has not been recorded yet."""

    prediction_id: str | None
    features: tuple[float | None, ...] | None
    price: float
    observed_at: datetime

    @property
    def key(self) -> str:
        """What makes two true prices the same one."""
        if self.prediction_id is not None:
            return self.prediction_id
        return hashlib.sha256(np.array(self.features, dtype="float64").tobytes()).hexdigest()


class PredictionLog:
    """A table that is written in batches, off the request path.

    A row waits for half a second at most, and the database has half a second to
    take it. If it is down, locked or silent, rows go to a spool beside the server,
    and from there to the database later. What the spool cannot take waits in
    memory; beyond `MOST_WAITING` it is dropped and counted.

    Parameters
    ----------
    uri
        The database, as SQLAlchemy names it; `off` keeps nothing.
    spool
        The folder of the spool's files.
    """

    def __init__(self, uri: str, *, spool: Path) -> None:
        self.enabled = uri != OFF
        self.dropped = self.spooled = 0
        self.problem = ""
        self._rows: list[Row] = []
        self._under_way = 0
        self._promised: list[Promise] = []
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._spool = Spool(spool)
        self._engine = _open(uri) if self.enabled else None
        self._ready = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._rows_written, self._prices_written = Patience(), Patience()
        self._replaying = threading.Thread()

    def start(self) -> None:
        """Begin to write."""
        if self.enabled:
            self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        if self.enabled and self._thread.is_alive():
            self._stop.set()
            self._wake.set()
            self._thread.join(timeout=10)
        self._spool.close()

    @property
    def waiting(self) -> int:
        """The rows that are not in the database yet."""
        promised = sum(len(one.rows) for one in self._promised.copy())
        return len(self._rows) + promised + self._under_way + self._spool.rows

    def add(self, rows: Sequence[Row]) -> None:
        """Keep these rows of `predictions`; this never fails and never waits."""
        if not self.enabled:
            return
        with self._lock:
            room = max(0, MOST_WAITING - len(self._rows))
            self._rows.extend(rows[:room])
            self.dropped += len(rows[room:])

    def add_now(self, rows: Sequence[Row]) -> "Future[None]":
        """Keep these rows in the database, or nowhere; the future says which.

        A refused answer is not in the log: rows that the database takes after they were
        given up are taken out again. Rows whose future is cancelled before are not written.
        """
        promise = Promise(rows, Future())
        with self._lock:
            self._promised.append(promise)
        self._wake.set()
        return promise.kept

    def flush(self, patience: float = PATIENCE_S) -> LogUnavailableError | None:
        """Write what waits: to the database, or else to the spool; why it is not in the former."""
        with self._flushing:
            with self._lock:
                rows, self._rows = self._rows, []
                promised, self._promised = self._promised, []
                self._under_way = len(rows) + sum(len(one.rows) for one in promised)
            refused = self._keep_promises(promised)
            error = (self._write(rows, patience) if rows else None) or refused
            self._under_way = 0
            if error is None and not self._replaying.is_alive() and not self._spool.is_empty:
                self._replaying = threading.Thread(target=self._replay, daemon=True)
                self._replaying.start()
            return error

    def _keep_promises(self, promised: Sequence[Promise]) -> LogUnavailableError | None:
        wanted = [one for one in promised if one.kept.set_running_or_notify_cancel()]
        try:
            if wanted:
                self._ask(PATIENCE_OF_CALLERS_S, [row for one in wanted for row in one.rows],
                          undo=self._take_out)  # fmt: skip
        except Exception as error:  # whatever it is, nobody waits for ever
            self._note(error, "answers are refused")
            for one in wanted:
                one.kept.set_exception(LogUnavailableError(f"{self.problem}; {NOT_GIVEN}"))
            return LogUnavailableError(self.problem)
        for one in wanted:
            one.kept.set_result(None)
        return None

    def _take_out(self, rows: Sequence[Row]) -> None:
        """Remove rows of answers that were refused before the database had taken them."""
        keys = [row[0] for row in rows]
        try:
            with self._connect() as connection:
                for start in range(0, len(keys), KEYS_A_QUERY):
                    some = predictions.c.prediction_id.in_(keys[start : start + KEYS_A_QUERY])
                    connection.execute(delete(predictions).where(some))
        except Exception:
            log.exception("%d answers are in the prediction log and were refused", len(keys))

    def _write(self, rows: list[Row], patience: float) -> LogUnavailableError | None:
        try:
            self._ask(patience, rows)
        except Exception as error:  # whatever it is, the rows are kept
            return self._put_aside(rows, error)
        return None

    def _ask(self, patience: float, rows: list[Row], undo: Undo = None) -> None:
        if self._rows_written.is_tried:
            raise TimeoutError("no answer yet")
        self._rows_written.wait_for(patience, self._insert, rows, undo=undo)
        self.problem = ""

    def _put_aside(self, rows: list[Row], error: Exception) -> LogUnavailableError:
        self._note(error, "answers wait beside it")
        if self._spool.append(rows):
            self.spooled += len(rows)
        else:
            self._take_back(rows)
        return LogUnavailableError(self.problem)

    def _take_back(self, rows: list[Row]) -> None:
        with self._lock:
            kept = [*rows, *self._rows]
            self._rows = kept[:MOST_WAITING]
            self.dropped += len(kept[MOST_WAITING:])

    def _note(self, error: Exception, effect: str) -> None:
        reason = _first_line(error)
        if not self.problem:
            log.warning("The prediction log cannot be written, %s: %s", effect, reason)
        self.problem = f"the prediction log cannot be written: {reason}"

    def _replay(self) -> None:
        """Write what lies in the spool, as long as the database takes it."""
        try:
            with closing(self._spool.finished()) as files:
                for file in files:
                    self._insert(file.read())
                    self._spool.forget(file)
        except Exception as error:
            self._note(error, "answers wait beside it")
        else:
            self.problem = ""

    def _insert(self, rows: list[Row]) -> None:
        if not rows:
            return
        with self._connect() as connection:
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
        assert self._engine is not None
        dialect = self._engine.dialect
        kind = predictions.c.answered_at.type.dialect_impl(dialect)
        stored = kind.bind_processor(dialect) or (lambda when: when)
        return self._insert_new(predictions).compile(dialect=dialect).string, stored

    def _connect(self) -> Any:
        assert self._engine is not None
        if self._ready and self._is_gone(self._engine):
            self._engine.dispose()  # or SQLite would go on with the file that was taken away
            self._ready = False
        if not self._ready:
            make_tables(self._engine)
            self._ready = True
        return self._engine.begin()

    @staticmethod
    def _is_gone(engine: Engine) -> bool:
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        return bool(file) and not Path(str(file)).exists()

    def _insert_new(self, table: Table) -> Any:
        assert self._engine is not None
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(table).on_conflict_do_nothing()

    def _run(self) -> None:
        give_way(NICENESS)
        while not self._stop.is_set():
            self._wake.wait(FLUSH_EVERY_S)
            self._wake.clear()
            try:
                self.flush()
            except Exception:  # or nothing would ever be written again
                log.exception("The prediction log was not written")
        self.flush(PATIENCE_OF_CALLERS_S)
        if self._rows:
            log.error("%d answers are lost: neither database nor disk takes them", len(self._rows))
        if self._replaying.is_alive():
            self._replaying.join(PATIENCE_OF_CALLERS_S)
        if self._engine is not None:
            self._engine.dispose()

    def record(self, truths: Sequence[Truth]) -> int:
        """The number of true prices that are new; all of them are on the disk afterwards.

        Recording the same again changes nothing.

        Raises
        ------
        ConflictError
            If any contradicts what is recorded, or is of a prediction that never was;
            nothing is recorded then.
        LogOffError
            If the log is switched off.
        LogUnavailableError
            If the database cannot be written, or does not hold all answers yet.
        """
        if not self.enabled:
            raise LogOffError("the prediction log is off (HOUSING_PREDICTION_LOG)")
        kept_back = self.flush()
        try:
            return self._prices_written.wait_for(PATIENCE_OF_CALLERS_S, self._record, truths)
        except ConflictError as error:
            if error.may_pass and (kept_back or not self._spool.is_empty):
                raise LogUnavailableError("not all answers are in the database yet") from error
            raise
        except TimeoutError as error:
            doubt = "they may be written yet, and to send them again changes nothing then"
            raise LogUnavailableError(f"true prices wait for the database: {doubt}") from error
        except (SQLAlchemyError, OSError) as error:
            reason = _first_line(error)
            raise LogUnavailableError(f"true prices cannot be written: {reason}") from error

    def _record(self, truths: Sequence[Truth]) -> int:
        with self._connect() as connection:
            new = self._new_ones(connection, truths)
            if new:
                values = [_actual_row(one) for one in new]
                connection.execute(self._insert_new(actuals), values)
                self._new_ones(connection, truths)  # somebody may have been faster with others
            return len(new)

    def _new_ones(self, connection: Any, truths: Sequence[Truth]) -> list[Truth]:
        keys = list({one.key for one in truths})
        known = _by_key(connection, actuals.c.key, actuals.c.price, keys)
        named = [one.prediction_id for one in truths if one.prediction_id is not None]
        answered = _by_key(connection, predictions.c.prediction_id, predictions.c.price, named)
        conflicts: list[Conflict] = []
        new: dict[str, Truth] = {}
        for row, one in enumerate(truths):
            recorded = known.get(one.key, new[one.key].price if one.key in new else None)
            if one.prediction_id is not None and one.prediction_id not in answered:
                conflicts.append(Conflict(row, UNKNOWN, one.prediction_id, "one of ours"))
            elif recorded is None:
                new[one.key] = one
            elif recorded != one.price:
                conflicts.append(Conflict(row, CONTRADICTS, str(one.price), str(recorded)))
        if conflicts:
            raise ConflictError(conflicts)
        return list(new.values())


def _by_key(connection: Any, key: Any, value: Any, keys: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    keys = [key for key in keys if "\0" not in key]  # which PostgreSQL would not even look for
    for start in range(0, len(keys), KEYS_A_QUERY):
        query = select(key, value).where(key.in_(keys[start : start + KEYS_A_QUERY]))
        found |= {row[0]: row[1] for row in connection.execute(query)}
    return found


def _actual_row(truth: Truth) -> dict[str, Any]:
    features = truth.features or (None,) * len(FEATURES)
    return {
        "key": truth.key,
        "prediction_id": truth.prediction_id,
        **dict(zip(FEATURES, features, strict=True)),
        "price": truth.price,
        "observed_at": truth.observed_at.astimezone(UTC),
        "received_at": datetime.now(UTC),
    }


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

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, record: Any) -> None:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma busy_timeout=2000")
            connection.execute("pragma synchronous=full")

    return engine


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
