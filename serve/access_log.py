"""One line of JSON a request, written in batches so that no request waits for the disk."""

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

WRITE_EVERY_S = 0.25
MOST_WAITING = 100_000


class AccessLog:
    """Lines to standard output: who asked what, and what came of it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, ...]] = []

    def add(self, call: Any, scope: Any, seconds: float) -> None:
        """Note a request that has been answered."""
        if len(self._waiting) < MOST_WAITING:
            client = scope.get("client") or ("",)
            self._waiting.append((time.time(), call, client[0], seconds))

    def write(self) -> None:
        """Write what waits."""
        waiting = self._waiting.copy()
        del self._waiting[: len(waiting)]  # and not the list: somebody may be adding to it
        if waiting:
            lines = b"\n".join(msgspec.json.encode(_line(*entry)) for entry in waiting)
            with contextlib.suppress(OSError, ValueError):  # nobody reads the other end any more
                sys.stdout.write(lines.decode() + "\n")
                sys.stdout.flush()

    async def keep_on(self) -> None:
        """Write what waits, again and again."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await asyncio.to_thread(self.write)


def _line(when: float, call: Any, client: str, seconds: float) -> dict[str, Any]:
    return {
        "time": datetime.fromtimestamp(when, UTC),
        "request_id": call.request_id.decode(),
        "client": client,
        "key": call.key,
        "method": call.method,
        "path": call.path[:200],
        "status": call.status,
        "ms": round(seconds * 1000, 3),
        "model_version": call.version,
    }
