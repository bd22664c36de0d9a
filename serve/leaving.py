"""A stop that breaks no connection: each is closed with an answer, and not under a request."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

LONGEST_S = 2.0
# Whoever said nothing for so long is not about to ask.
QUIET_S = 0.2


class Leaver(Protocol):
    """What a server tells of itself, and is told."""

    answered: int
    leaving: bool


@contextmanager
def leaving_slowly(server: Leaver) -> Iterator[None]:
    """Let SIGTERM wait, within this block, until those who are calling have been sent away.

    uvicorn closes connections between two requests, also when the next one is on
    its way already. So answers say `Connection: close` first, until nobody asks
    any more or `LONGEST_S` are over.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    loop, tasks = asyncio.get_running_loop(), set()

    async def leave(*given: Any) -> None:
        await _until_quiet(server)
        before(*given)

    def begin(*given: Any) -> None:
        server.leaving = True
        loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(leave(*given))))

    signal.signal(signal.SIGTERM, begin)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def _until_quiet(server: Leaver) -> None:
    for _ in range(round(LONGEST_S / QUIET_S)):
        answered = server.answered
        await asyncio.sleep(QUIET_S)
        if server.answered == answered:
            return
