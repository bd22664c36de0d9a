"""What the server answered and what turned out to be true, in a database, off the request path."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from housing_lib.errors import HousingError
from housing_lib.settings import Settings
from serve.log_database import ROWS_A_WRITE, LogDatabase
from serve.patience import Patience
from serve.priority import give_way
from serve.spool import Row, Spool
from serve.truths import ConflictError, Truth, record_new

log = logging.getLogger("uvicorn.error")

FLUSH_EVERY_S = 0.5
# A database that takes longer is away: rows go to the spool, and who waits is refused.
PATIENCE_S = 0.5
PATIENCE_OF_CALLERS_S = 5.0
MOST_WAITING = 200_000
NICENESS = 5
NOT_GIVEN = "no answer was given, and none stays in the log"
OFF = "off"


class LogUnavailableError(HousingError):
    """The database cannot be written now."""


class LogOffError(LogUnavailableError):
    """There is no database to write to, and trying again does not help."""


class UnusableLogError(HousingError):
    """The name of the log is no address of a database."""


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


def refuse_unusable_log(settings: Settings) -> None:
    """Refuse a name of the log that is no address of a database.

    Raises
    ------
    UnusableLogError
        If the settings hold one. A database that is only away is none.
    """
    try:
        if settings.prediction_log_uri != OFF:
            create_engine(settings.prediction_log_uri).dispose()
    except (ArgumentError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UnusableLogError(
            f"HOUSING_PREDICTION_LOG names no database that can be written: {reason}. Expected an "
            "address as sqlite:///predictions.db or postgresql+psycopg://user@host/name, or off. "
            "Nothing was started."
        ) from error


class Promise(NamedTuple):
    """Rows of an answer that is not given before they are in the database."""

    rows: Sequence[Row]
    kept: Future[None]


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
        self._refused: deque[str] = deque(maxlen=MOST_WAITING)  # ids
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._spool = Spool(spool)
        if self.enabled:
            self._database = LogDatabase(uri)
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

        A refused answer is not in the log: rows that the database took nevertheless are
        taken out again. Rows whose future is cancelled before are not written.
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
            if error is None:
                self._take_out_refused()  # last: nobody's answer waits for it
            if error is None and not self._replaying.is_alive() and not self._spool.is_empty:
                self._replaying = threading.Thread(target=self._replay, daemon=True)
                self._replaying.start()
            return error

    def _keep_promises(self, promised: Sequence[Promise]) -> LogUnavailableError | None:
        wanted = [one for one in promised if one.kept.set_running_or_notify_cancel()]
        rows = [row for one in wanted for row in one.rows]
        try:
            if rows:
                self._ask(PATIENCE_OF_CALLERS_S, self._database.keep, rows)
        except Exception as error:  # whatever it is, nobody waits for ever
            self._note(error, "answers are refused")
            self._refused.extend(row[0] for row in rows)
            for one in wanted:
                one.kept.set_exception(LogUnavailableError(f"{self.problem}; {NOT_GIVEN}"))
            return LogUnavailableError(self.problem)
        for one in wanted:
            one.kept.set_result(None)
        return None

    def _take_out_refused(self) -> None:
        """Remove answers that were refused: the database may have taken them all the same."""
        some = list(islice(self._refused, ROWS_A_WRITE))
        if not some:
            return
        try:
            self._ask(PATIENCE_OF_CALLERS_S, self._database.take_out, some)
        except Exception as error:
            self._note(error, "answers that were refused may be in it until it can be")
        else:
            for _ in some:
                self._refused.popleft()

    def _write(self, rows: list[Row], patience: float) -> LogUnavailableError | None:
        try:
            self._ask(patience, self._database.keep, rows)
        except Exception as error:  # whatever it is, the rows are kept
            return self._put_aside(rows, error)
        return None

    def _ask(self, patience: float, work: Callable[[list[Any]], None], given: list[Any]) -> None:
        if self._rows_written.is_tried:
            raise TimeoutError("no answer yet")
        self._rows_written.wait_for(patience, work, given)
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
                    rows = file.read()
                    self._database.keep(rows)
                    self._spool.forget(file)
                    self.problem = "" if rows else self.problem
        except Exception as error:
            self._note(error, "answers wait beside it")

    def _run(self) -> None:
        give_way(NICENESS)
        due = time.monotonic() + FLUSH_EVERY_S
        while not self._stop.is_set():
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            due = time.monotonic() + FLUSH_EVERY_S  # however long this one takes
            try:
                self.flush()
            except Exception:  # or nothing would ever be written again
                log.exception("The prediction log was not written")
        self.flush(PATIENCE_OF_CALLERS_S)
        if self._rows:
            log.error("%d answers are lost: neither database nor disk takes them", len(self._rows))
        if self._replaying.is_alive():
            self._replaying.join(PATIENCE_OF_CALLERS_S)
        self._database.close()

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
            return self._prices_written.wait_for(
                PATIENCE_OF_CALLERS_S, record_new, self._database, truths
            )
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
