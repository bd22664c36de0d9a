"""One piece of work in a process of its own, so that nothing it does can harm the others."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from housing_lib.errors import HousingError, OutageError
from housing_lib.settings import get_settings

_living: dict[BaseProcess, Connection] = {}


class ProcessDiedError(OutageError):
    """A process that ended without an answer."""


class Channel:
    """The way from a called function back to its caller, who may say that it has to stop."""

    def __init__(self, connection: Connection) -> None:
        self.stopped = threading.Event()
        self.reason = ""
        self._connection = connection
        self._sending = threading.Lock()

    def __call__(self, *content: Any) -> None:
        """Send something to `on_message` of the caller."""
        self.send("message", content)

    def send(self, kind: str, content: Any) -> None:
        """Send a message, an answer or an error."""
        with self._sending:
            self._connection.send((kind, content))

    def listen(self) -> None:
        """Wait for the word to stop, and end with the caller, however that one ended."""
        parent = multiprocessing.parent_process()
        ends: list[Any] = [self._connection, *([parent.sentinel] if parent else [])]
        while True:
            for end in wait(ends):
                if end is not self._connection or not self._heard():
                    kill_tree(os.getpid())  # nothing may go on working behind the caller's back

    def _heard(self) -> bool:
        try:
            self.reason = self._connection.recv()
        except (EOFError, OSError):
            return False
        self.stopped.set()
        return True


def call_in_process(
    function: Callable[..., Any],
    *arguments: Any,
    on_message: Callable[..., None],
    stopping: Callable[[], str] = lambda: "",
) -> Any:
    """What `function(*arguments, channel)` returns, called in a process of its own.

    Whatever the function sends through the `Channel` reaches `on_message`, and
    what it raises is raised here, as a `HousingError` if it was none.

    Parameters
    ----------
    stopping
        Why everything is being stopped, if it is: `stop_all` may have come too early to
        find this process.

    Raises
    ------
    ProcessDiedError
        If the process ended without an answer, killed for lack of memory for example; or
        if it was stopped before it began.
    HousingError
        If the function failed.
    """
    ours, theirs = multiprocessing.Pipe()
    process = _context().Process(  # type: ignore[attr-defined]
        target=_serve, args=(theirs, dict(os.environ), function, arguments)
    )
    process.start()
    _living[process] = ours
    theirs.close()
    try:
        if reason := stopping():
            kill_tree(process.pid)
            raise ProcessDiedError(reason)
        return _receive(ours, process, on_message)
    finally:
        process.join(timeout=10)
        if process.is_alive():
            kill_tree(process.pid)
        _living.pop(process, None)


def stop_all(reason: str, *, grace_s: float) -> None:
    """End every process that `call_in_process` waits for, and all that they started.

    They are told why, and have some seconds to keep what they have.
    """
    for connection in list(_living.values()):
        with suppress(OSError):
            connection.send(reason)
    deadline = time.monotonic() + grace_s
    try:
        while _living and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in list(_living):
            kill_tree(process.pid)


def kill_tree(pid: int | None) -> None:
    """Kill a process and all that descend from it, also those that left its group."""
    import psutil

    if pid is None:
        return
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
        sessions = {_session(one.pid) for one in family if one.pid == _session(one.pid)}
        strays = [one for one in psutil.process_iter() if _session(one.pid) in sessions]
        for one in dict.fromkeys([*strays, *family]):  # itself last: it may be this very process
            with suppress(psutil.NoSuchProcess):
                one.kill()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (AttributeError, OSError):
        return -1


def share_cores(*, jobs: int) -> None:
    """Let each of several jobs use its share of the cores, and no more.

    Two OpenMP fits at once on the same cores take many times as long.
    """
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // jobs))


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worth_starting(size: int, *, each: int) -> int:
    """The number of processes that pay for their start: one `each` so many bytes, or one a core."""
    return min(cores(), 1 + size // each)


def one_blas_thread() -> Any:
    """Lets BLAS use one thread from now on; as a context manager, until its block ends.

    More threads add in another order, which shows in the last bit, and places have
    different numbers of them.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def _receive(connection: Connection, process: BaseProcess, on_message: Callable[..., None]) -> Any:
    while True:
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            process.join()
            code = process.exitcode
            raise ProcessDiedError(f"the process ended without an answer ({code}).") from None
        if kind == "message":
            on_message(*content)
        elif kind == "error":
            raise content
        else:
            return content


def _serve(
    connection: Connection,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for the first process, which ends this one
    use_environment(environment)
    channel = Channel(connection)
    threading.Thread(target=channel.listen, daemon=True).start()
    try:
        channel.send("answer", function(*arguments, channel))
    except HousingError as error:
        channel.send("error", error)
    except BaseException as error:
        channel.send("error", HousingError(f"{type(error).__name__}: {error}"))


def use_environment(environment: dict[str, str]) -> None:
    """Let this process see that environment: a fork server has the one of an earlier moment."""
    for name in set(os.environ) - set(environment):
        if name.startswith(("HOUSING_", "MLFLOW_TRACKING")):
            del os.environ[name]
    os.environ.update(environment)
    get_settings.cache_clear()


@lru_cache(maxsize=1)
def _context() -> BaseContext:
    # A fork server forks from a clean process that has the slow imports done already.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["housing_lib.preload"])
    return context
