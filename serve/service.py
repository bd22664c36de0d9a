"""What the routes share: the champion, the logs, and how a body becomes an answer."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import parent_process
from typing import Any, TypeVar

import msgspec

from housing_lib.contract import Floats
from housing_lib.settings import get_settings
from serve import bodies, metrics, tables
from serve.access_log import AccessLog
from serve.apart import TableReader
from serve.champion import Champion, Follower, Following, sighting_file
from serve.explaining import explain
from serve.leaving import leaving_slowly
from serve.prediction_log import (
    FLUSH_EVERY_S,
    PATIENCE_S,
    PredictionLog,
    refuse_strictness_without_log,
    refuse_unusable_log,
)
from serve.priority import give_way
from serve.problems import refuse
from serve.schemas import Prediction, Predictions, Problem, Recorded, predictions
from serve.spool import Row
from serve.together import Together
from serve.truths import ConflictError, Truth

log = logging.getLogger("uvicorn.error")

LOOK_EVERY_S = 0.2
AGAIN_AFTER_S = 5.0
# What is longer may take long to refuse, and is read aside, so that nobody waits for that.
LONG_BODY = 16_384
# Rows that are computed at a time, so that single requests get in between.
CHUNK = 1024
BATCH_NICENESS = 10
# A thread that holds Python's lock gives it up after this time to one that answers.
SWITCH_EVERY_S = 0.0005

Headers = Mapping[bytes, bytes]
Kept = asyncio.Future[None] | None
Value = TypeVar("Value")

encode = msgspec.json.Encoder().encode


class Service:
    """One worker's champion, logs and threads.

    Raises
    ------
    LogOffError
        If answers are to wait for a log that is off.
    """

    def __init__(self) -> None:
        settings = get_settings()
        refuse_unusable_log(settings)
        refuse_strictness_without_log(settings)
        self.strict, self.at_work, self.answered = settings.strict_log, 0, 0
        self.leaving = False
        self.following, self.follower = Following(), Follower()
        self.access_log = AccessLog()
        self.log = PredictionLog(settings.prediction_log_uri, spool=settings.serving)
        self._together = Together(self._answer)
        self._tables = TableReader()
        self._threads = ThreadPoolExecutor(1, "batch", give_way, (BATCH_NICENESS,))
        # A database that keeps true prices waiting keeps nobody else waiting.
        self._recording = ThreadPoolExecutor(2, "actuals")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow Production and write the logs, until the block ends."""
        self.log.start()
        self.following.look()
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_EVERY_S)
        tasks = [asyncio.create_task(one) for one in (self._follow(), self.access_log.keep_on())]
        with leaving_slowly(self):
            yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.log.stop)  # first: its rows are on no disk yet
        self.access_log.write()
        await asyncio.to_thread(self.follower.end)
        await asyncio.to_thread(self._tables.end)

    async def _follow(self) -> None:
        seen = 0
        while True:
            try:
                seen = await self._look(seen)
                await asyncio.sleep(LOOK_EVERY_S)
            except Exception:  # as when this process may open no more files
                log.exception("Production cannot be followed; trying again")
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _look(self, seen: int) -> int:
        """The time of the follower's last news, after taking over what is not `seen` yet."""
        parent = parent_process()
        if parent and not parent.is_alive() and not self.leaving:
            signal.raise_signal(signal.SIGTERM)  # whoever started the workers was killed
        await asyncio.to_thread(self.follower.keep)
        metrics.observe(self.following, self.log, at_work=self.at_work)
        with contextlib.suppress(FileNotFoundError):
            changed = sighting_file().stat().st_mtime_ns
            if changed != seen:
                await self._aside(self.following.look)
            return changed
        return seen

    async def predict(self, body: bytes, headers: Headers) -> tuple[bytes, int]:
        """The answer to one district as JSON, and the version that gave it.

        Raises
        ------
        RefusedError
            If the body is no district, or does not call itself JSON.
        NoChampionError
            If no model stands ready to answer.
        LogUnavailableError
            If the log is strict and cannot be written.
        """
        bodies.require_json(headers)
        district = await self._read(bodies.read_district, body)
        one, kept = await self._together.answer(district)
        if kept:
            await asyncio.shield(kept)
        return encode(one), one.model_version

    def _answer(self, rows: Floats) -> tuple[list[Prediction], Kept]:
        champion = self.following.current()
        found = predictions(champion, rows, champion.answer(rows))
        return found, self._keep(self._log_rows(rows, found), found)

    async def predict_explained(self, body: bytes, headers: Headers) -> tuple[bytes, int]:
        """The answer to one district as JSON, with what led to it, and the version.

        Raises
        ------
        RefusedError
            If the body is no district, or does not call itself JSON.
        NoChampionError
            If no model stands ready to answer.
        LogUnavailableError
            If the log is strict and cannot be written.
        """
        champion = self.following.current()
        bodies.require_json(headers)
        rows = await self._read(bodies.read_district, body)
        found = predictions(champion, rows, champion.answer(rows))
        found[0].explanation = await self._aside(explain, champion, rows[0])
        await self._kept(self._log_rows(rows, found), found)
        return encode(found[0]), champion.release.version

    async def predict_batch(self, body: bytes, kind: str) -> tuple[bytes, int]:
        """The answers to a batch in its order, in the same kind of body, and the version.

        Raises
        ------
        RefusedError
            If the body is no batch of that kind.
        NoChampionError
            If no model stands ready to answer.
        LogUnavailableError
            If the log is strict and cannot be written.
        """
        champion = self.following.current()
        rows = await self._aside(bodies.read_batch, body, kind, self._tables.read)
        found: list[Prediction] = []
        for start in range(0, len(rows), CHUNK):
            found += await self._aside(_predict, champion, rows[start : start + CHUNK])
        answer = await self._aside(_written, found, kind)
        await self._kept(await self._aside(self._log_rows, rows, found), found)
        return answer, champion.release.version

    async def _read(self, reader: Callable[[bytes], Value], body: bytes) -> Value:
        return await self._aside(reader, body) if len(body) > LONG_BODY else reader(body)

    async def _aside(self, work: Callable[..., Value], *given: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def _log_rows(self, rows: Floats, found: Sequence[Prediction]) -> list[Row]:
        if not self.log.enabled:
            return []
        return [_log_row(row, one) for row, one in zip(rows.tolist(), found, strict=True)]

    async def _kept(self, rows: Sequence[Row], found: Sequence[Prediction]) -> None:
        kept = self._keep(rows, found)
        if kept:
            await kept  # nobody else does: an answer that comes too late is not logged

    def _keep(self, rows: Sequence[Row], found: Sequence[Prediction]) -> Kept:
        """What to wait for before answering, if the log is strict."""
        metrics.count(found[0].model_version, len(found))
        if self.strict and self.log.enabled:
            return asyncio.wrap_future(self.log.add_now(rows))
        self.log.add(rows)
        return None

    async def record(self, body: bytes, headers: Headers) -> Recorded:
        """What became of true prices, which are on the disk when this returns.

        Raises
        ------
        RefusedError
            If the body holds anything else, or contradicts what is recorded.
        LogUnavailableError
            If the log cannot be written, or does not hold all answers yet.
        """
        bodies.require_json(headers)
        truths = await self._read(bodies.read_actuals, body)
        try:
            new = await self._recorded(truths)
        except ConflictError as error:
            found = [
                Problem("actuals", fault, given, expected, row)
                for row, fault, given, expected in error.conflicts
            ]
            raise refuse(found, status=409) from error
        return Recorded(new, len(truths) - new)

    async def _recorded(self, truths: Sequence[Truth]) -> int:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._recording, self.log.record, truths)
        except ConflictError as error:
            if not error.may_pass:
                raise
        # Another worker may have answered just now.
        await asyncio.sleep(FLUSH_EVERY_S + PATIENCE_S)
        return await loop.run_in_executor(self._recording, self.log.record, truths)


def _predict(champion: Champion, rows: Floats) -> list[Prediction]:
    return predictions(champion, rows, champion.answer(rows))


def _written(found: list[Prediction], kind: str) -> bytes:
    return tables.write(found, kind) if kind in tables.TYPES else encode(Predictions(found))


def _log_row(row: Sequence[float], one: Prediction) -> Row:
    interval = one.interval
    bounds = (interval.low, interval.high) if interval else (None, None)
    features = (None if value != value else value for value in row)  # NaN is null in a database
    price = one.predicted_median_house_value
    return (one.prediction_id, one.request_timestamp, one.model_version, *features, price, *bounds)
