"""Tables are read by a process of their own, which a malicious one may end without harm.

`python -m serve.apart N`; `TableReader` starts it. What reads Arrow and Parquet is a
large program in C++, and bytes that it did not expect can abort it. It ends when the
other end of its connection, file descriptor N, does.
"""

import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer
from time import monotonic

import msgspec
import numpy as np

from housing_lib.contract import FEATURES, Floats
from serve import tables
from serve.problems import RefusedError, refuse
from serve.schemas import Problem, Refusal

log = logging.getLogger("uvicorn.error")

LONGEST_S = 10.0
LONGEST_START_S = 60.0
MOST_MEMORY = 512 * 1024 * 1024  # for one table; a good one takes a tenth of it
FATAL = Problem(
    field="(body)",
    problem="cannot be read",
    found="bytes that end or hold up what reads them",
    expected="a table as pandas, Polars or Arrow write it",
)


class TableReader:
    """Reads one table after the other, in a process that is started by the first.

    Parameters
    ----------
    longest
        The seconds after which a table that is not read is refused.
    """

    def __init__(self, longest: float = LONGEST_S) -> None:
        self.longest = longest
        self.process: subprocess.Popen[bytes] | None = None
        self._has_started = False

    def read(self, body: bytes, kind: str, *, again: bool = True) -> Floats:
        """The districts in a body of one of `tables.TYPES`, shape (rows, 8).

        With `again`, a process that somebody killed meanwhile is no fault of the table,
        unless it happens twice.

        Raises
        ------
        RefusedError
            If it is no such table, or breaks the contract, or the process.
        """
        began = monotonic()
        try:
            found = self._ask(body, kind)
        except (EOFError, OSError) as error:
            status = self._wait()
            if again and status == -signal.SIGKILL and monotonic() < began + self.longest:
                return self.read(body, kind, again=False)
            self._blame(status, error)
            raise refuse([FATAL], what="table") from error
        if isinstance(found, Refusal):
            raise RefusedError(422, found)
        return np.frombuffer(found).reshape(-1, len(FEATURES)).copy()

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        self._has_started = False
        self._link, theirs = Pipe()
        number = theirs.fileno()
        command = [sys.executable, "-m", "serve.apart", str(number)]
        try:
            # In a group of its own: Ctrl-C is for the server, which ends this one.
            self.process = subprocess.Popen(command, pass_fds=[number], process_group=0)
        except OSError as error:
            raise RuntimeError("what reads tables cannot be started") from error
        theirs.close()
        with _killed_after(LONGEST_START_S, self.process):
            self._link.recv_bytes()
        self._has_started = True
        return self.process

    def _ask(self, body: bytes, kind: str) -> bytes | Refusal:
        with _killed_after(self.longest, self._running()):
            self._link.send_bytes(kind.encode())
            self._link.send_bytes(body)
            found = self._link.recv_bytes()
        return msgspec.msgpack.decode(found, type=bytes | Refusal)

    def _wait(self) -> int:
        assert self.process is not None
        with _killed_after(self.longest, self.process):
            return self.process.wait()

    def _blame(self, status: int, error: Exception) -> None:
        if status >= 0 or not self._has_started:  # its own fault, and not that of the table
            raise RuntimeError(f"the process that reads tables ended with {status}") from error
        log.warning("A table was refused: what reads it ended with %d (%s)", status, error)

    def end(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def _killed_after(seconds: float, process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """A block that a process which neither takes nor gives cannot hold up for longer."""
    limit = Timer(seconds, process.kill)
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


def main() -> None:
    """Read what comes, until nobody is there to send it."""
    link = Connection(int(sys.argv[1]))
    for name in ("csv", "ipc", "parquet"):
        import_module(f"pyarrow.{name}")
    _limit_memory()
    with suppress(EOFError, ConnectionError):
        link.send_bytes(b"ready")
        while True:
            kind, body = link.recv_bytes().decode(), link.recv_bytes()
            link.send_bytes(msgspec.msgpack.encode(_read(body, kind)))


def _limit_memory() -> None:
    """Let a table have so much beside what is here, where the system can tell and hold it."""
    used = Path("/proc/self/statm")
    if used.exists():
        most = int(used.read_text().split()[0]) * resource.getpagesize() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(body: bytes, kind: str) -> bytes | Refusal:
    signal.alarm(int(3 * LONGEST_S))  # ends this process, should nobody be there to do it
    try:
        return tables.read_rows(body, kind).tobytes()
    except RefusedError as error:
        return error.refusal
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
