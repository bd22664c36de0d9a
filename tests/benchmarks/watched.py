"""A command that is watched while it runs: its seconds, and the memory of its processes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

import psutil

MB = 1e6


@dataclass(frozen=True)
class Watched:
    """How a command ended, how long it took, and the most megabytes that one process held."""

    exit_code: int
    printed: str
    seconds: float
    megabytes: float


def run(command: Sequence[str], environment: Mapping[str, str]) -> Watched:
    """Run a command to its end.

    What the kernel keeps as a child's largest size would not do: it counts that of the
    process that started it.
    """
    most = 0.0
    with TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = psutil.Popen(command, env=environment, stdout=printed, stderr=printed)
        while process.poll() is None:
            most = max(most, *(_resident(one) for one in [process, *_children(process)]))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        printed.seek(0)
        return Watched(process.returncode, printed.read(), seconds, most)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / MB
    except psutil.NoSuchProcess:
        return 0.0
