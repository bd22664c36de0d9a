"""Work that may never end: it is begun, and nobody waits for it longer than they want."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Value = TypeVar("Value")


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

    def wait_for(self, seconds: float, work: Callable[..., Value], *given: Any) -> Value:
        """What the work gives.

        Raises
        ------
        TimeoutError
            If it is not there in time; the work may still be done later.
        """
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError("no answer yet")
        answer: Future[Value] = Future()
        try:
            threading.Thread(target=self._do, args=(answer, work, *given), daemon=True).start()
        except BaseException:  # as where no thread can be started
            self._free.release()
            raise
        try:
            return answer.result(seconds)
        except TimeoutError:
            if answer.done():  # it came just now, or failed for a timeout of its own
                return answer.result()
            raise TimeoutError(f"no answer within {seconds:g} s") from None

    def _do(self, answer: "Future[Value]", work: Callable[..., Value], *given: Any) -> None:
        try:
            found = work(*given)
        except Exception as error:
            self._free.release()
            answer.set_exception(error)
        else:
            self._free.release()
            answer.set_result(found)
