"""Requests that wait in the same turn of the event loop, answered by one call."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from housing_lib.contract import Floats

# So many at once, or else the first ones wait for the last.
MOST = 64


class Together:
    """What computes answers for many rows, asked row by row.

    Under load the fixed cost of a call is shared by all who came meanwhile, and
    nobody ever waits for others to come.

    Parameters
    ----------
    compute
        From rows to one answer each, and something that they all share.
    """

    def __init__(self, compute: Callable[[Floats], tuple[list[Any], Any]]) -> None:
        self._compute = compute
        self._waiting: list[tuple[Floats, asyncio.Future[tuple[Any, Any]]]] = []

    def answer(self, row: Floats) -> "asyncio.Future[tuple[Any, Any]]":
        """The answer to a row of shape (1, columns), and what it shares with others."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Any, Any]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._answer_all)
        self._waiting.append((row, answer))
        return answer

    def _answer_all(self) -> None:
        taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_all)
        try:
            found, shared = self._compute(np.concatenate([row for row, _ in taken]))
        except Exception as error:
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), one in zip(taken, found, strict=True):
            if not answer.done():  # its client has gone
                answer.set_result((one, shared))
