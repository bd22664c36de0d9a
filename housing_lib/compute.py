"""Where work is done: in a process of its own, so that nothing it does can harm the others."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from housing_lib.settings import HousingError

_living: set[BaseProcess] = set()


class ProcessDiedError(HousingError):
    """A process that ended without an answer."""


def call_in_process(
    function: Callable[..., Any], *arguments: Any, on_message: Callable[..., None]
) -> Any:
    """What `function(*arguments, send)` returns, called in a process of its own.

    Whatever the function sends reaches `on_message`, and what it raises is
    raised here.

    Raises
    ------
    ProcessDiedError
        If the process ended without an answer, killed for lack of memory for example.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=_serve, args=(theirs, function, arguments))  # type: ignore[attr-defined]
    process.start()
    _living.add(process)
    theirs.close()
    try:
        return _receive(ours, on_message)
    except EOFError:
        process.join()
        raise ProcessDiedError(
            f"the process ended without an answer ({process.exitcode})."
        ) from None
    finally:
        process.join(timeout=10)
        process.kill()
        _living.discard(process)


def stop_all() -> None:
    """Kill every process that `call_in_process` waits for; their kernels end with them."""
    for process in list(_living):
        process.kill()


def warm_up(*, jobs: int) -> None:
    """Let the process that others are forked from do its slow imports, in the background.

    With several jobs each fit gets one thread: two OpenMP fits at once on the
    same cores take many times as long.
    """
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"
    context = _context()
    if context.get_start_method() == "forkserver":
        forkserver.ensure_running()


def _receive(connection: Connection, on_message: Callable[..., None]) -> Any:
    while True:
        kind, content = connection.recv()
        if kind == "message":
            on_message(*content)
        elif kind == "error":
            raise content
        else:
            return content


def _serve(
    connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for the first process, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = function(*arguments, lambda *content: connection.send(("message", content)))
        connection.send(("answer", answer))
    except HousingError as error:
        connection.send(("error", error))
    except BaseException as error:
        connection.send(("error", HousingError(f"{type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    # Even when the first process is killed, nothing may go on working behind its back.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(maxsize=1)
def _context() -> BaseContext:
    # A fork server forks from a clean process that has the slow imports done already.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["housing_lib.preload"])
    return context
