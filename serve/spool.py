"""Rows that wait on the disk for a database that is down.

Whoever adds to a file holds its lock, which the system takes from a process however
that ends: a file whose lock is free belongs to nobody any more.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from housing_lib.contract import FEATURES

log = logging.getLogger("uvicorn.error")

LARGEST_SPOOL = 256 * 1024 * 1024
# So much is read and written to the database at a time.
LARGEST_FILE = 4 * 1024 * 1024

Row = tuple[Any, ...]
_maybe: Any = float | None
_columns: Any = (str, datetime, int, *[_maybe] * len(FEATURES), float, _maybe, _maybe)
_line: Any = msgspec.json.Decoder(tuple[_columns])


class SpoolFile:
    """A file of rows that is ours as long as it is open.

    Parameters
    ----------
    opened
        The file, whose lock we hold.
    """

    def __init__(self, path: Path, opened: FileIO) -> None:
        self.rows = self._lost = 0
        self._is_torn = False
        self._path, self._opened = path, opened

    @property
    def size(self) -> int:
        """The bytes in it."""
        return os.fstat(self._opened.fileno()).st_size

    @property
    def takes_more(self) -> bool:
        """Whether it stands in its folder, is not full, and does not end with half a line."""
        return _stands(self._opened) and self.size <= LARGEST_FILE and not self._is_torn

    def append(self, rows: Sequence[Row]) -> None:
        """Put all of these rows on the disk, or none.

        Raises
        ------
        OSError
            If it was none.
        """
        content = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        before = self.size
        try:
            if self._opened.write(content) < len(content):
                raise OSError("the disk is full")
            os.fsync(self._opened.fileno())
        except OSError:
            self._is_torn = True
            self._opened.truncate(before)
            self._is_torn = False
            raise
        self.rows += len(rows)

    def read(self) -> list[Row]:
        """The rows in it; a line that a crash cut short is not among them."""
        self._opened.seek(0)
        lines = self._opened.readall().splitlines()
        rows = [row for row in map(_row, lines) if row is not None]
        self._lost = len(lines) - len(rows)
        return rows

    def remove(self) -> None:
        """Take it away; nobody else reads it before."""
        if self._lost:
            log.warning("%s: %d lines were no rows and are lost", self._path.name, self._lost)
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave it to others."""
        self._opened.close()


class Spool:
    """Files of rows, those of this process and those that others left behind.

    Parameters
    ----------
    folder
        Where the files lie; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: list[SpoolFile] = []
        self._open: SpoolFile | None = None
        self._lock, self._fault = threading.Lock(), ""

    @property
    def rows(self) -> int:
        """The rows of this process that lie here."""
        return sum(file.rows for file in self._files.copy())

    @property
    def is_empty(self) -> bool:
        """Whether no rows lie here, of this process or another."""
        return not self.rows and not any(map(_size, self._folder.glob("spool-*.jsonl")))

    def append(self, rows: Sequence[Row]) -> bool:
        """Whether these rows were put on the disk; if not, none of them was."""
        try:
            with self._lock:
                if sum(file.size for file in self._files) > LARGEST_SPOOL:
                    return False
                self._current().append(rows)
        except OSError as error:
            self._tell(str(error))
            return False
        self._tell("")
        return True

    def _tell(self, fault: str) -> None:
        if fault and not self._fault:
            log.warning("Nothing can be kept in %s: %s", self._folder, fault)
        self._fault = fault

    def _current(self) -> SpoolFile:
        if self._open is None or not self._open.takes_more:
            self._open = _new_file(self._folder)
            self._files.append(self._open)
        return self._open

    def finished(self) -> Generator[SpoolFile, None, None]:
        """The files that nobody adds to any more: ours, and then those of the dead.

        Of the latter each is ours until the next one is asked for.
        """
        # The current one is left only after those before it are away, or each attempt left one.
        yield from [file for file in self._files.copy() if file is not self._open]
        with self._lock:
            ours, self._open = self._files.copy(), None
        yield from ours
        for path in sorted(self._folder.glob("spool-*.jsonl")):
            if found := _orphan(path):
                with closing(found):
                    yield found

    def forget(self, file: SpoolFile) -> None:
        """Remove a file whose rows are in the database now."""
        with self._lock:
            if file in self._files:
                self._files.remove(file)
        file.remove()

    def close(self) -> None:
        """Leave all files to whoever comes next."""
        with self._lock:
            files, self._files, self._open = self._files, [], None
        for file in files:
            file.close()


def _new_file(folder: Path) -> SpoolFile:
    while True:  # somebody may take it for an orphan before its lock is ours
        path = folder / f"spool-{time.time_ns()}-{uuid4().hex}.jsonl"
        try:
            made = _owned(path, "ab+")
        except OSError:  # as where no file can be locked
            path.unlink(missing_ok=True)
            raise
        if made:
            return made


def _orphan(path: Path) -> SpoolFile | None:
    try:
        return _owned(path, "rb+")
    except OSError:  # gone meanwhile, or not for us to read
        return None


def _owned(path: Path, mode: str) -> SpoolFile | None:
    """The file with its lock; None if another has it, or has removed the file meanwhile."""
    with ExitStack() as stack:
        opened: Any = stack.enter_context(path.open(mode, buffering=0))
        with suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands(opened):
                stack.pop_all()
                return SpoolFile(path, opened)
    return None


def _stands(opened: FileIO) -> bool:
    return os.fstat(opened.fileno()).st_nlink > 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _row(line: bytes) -> Row | None:
    try:
        row: Row = _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return row
