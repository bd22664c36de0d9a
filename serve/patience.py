"""Work that may never end: it is begun, and nobody waits for it longer than they want."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Value = TypeVar("Value")
Work = Callable[..., Value]
Undo = Callable[..., object] | None


class Patience:
    """Does one piece of work after the other, in threads that may be left behind.

    A database that froze, or that a broken network hides, never answers. What
    asks it then is left to itself, and nobody else asks until it came back.
    """

    def __init__(self) -> None:
        self._free = threading.Lock()

    @property
    def is_tried(self) -> bool:
        """Whether something that was begun has not ended."""
        return self._free.locked()

    def wait_for(self, seconds: float, work: Work[Value], *given: Any, undo: Undo = None) -> Value:
        """What the work gives.

        Parameters
        ----------
        undo
            What undoes the work, of the same things, where it is done although nobody
            waits any more; nothing else is begun before.

        Raises
        ------
        TimeoutError
            If it is not there in time; the work may still be done later.
        """
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError("no answer yet")
        answer: Future[Value] = Future()
        try:
            threading.Thread(target=self._do, args=(answer, work, given, undo), daemon=True).start()
        except BaseException:  # as where no thread can be started
            self._free.release()
            raise
        try:
            return answer.result(seconds)
        except TimeoutError:
            if answer.cancel():
                raise TimeoutError(f"no answer within {seconds:g} s") from None
            return answer.result()  # it came just now, or failed for a timeout of its own

    def _do(
        self, answer: "Future[Value]", work: Work[Value], given: tuple[Any, ...], undo: Undo
    ) -> None:
        tell: Callable[[], None] | None = None
        try:
            tell = _done(answer, work, given, undo)
        finally:
            self._free.release()
        if tell:
            tell()


def _done(
    answer: "Future[Value]", work: Work[Value], given: tuple[Any, ...], undo: Undo
) -> Callable[[], None] | None:
    """What tells those who wait how the work ended; None if nobody does."""
    try:
        found = work(*given)
    except Exception as error:
        fault = error  # which has no name after this block
        return (lambda: answer.set_exception(fault)) if _is_awaited(answer) else None
    if _is_awaited(answer):
        return lambda: answer.set_result(found)
    if undo:
        undo(*given)
    return None


def _is_awaited(answer: "Future[Any]") -> bool:
    return answer.set_running_or_notify_cancel()
