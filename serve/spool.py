"""Rows that wait on the disk for a database that is down."""

import os
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

LARGEST_SPOOL = 256 * 1024 * 1024
# So much is read and written to the database at a time.
LARGEST_FILE = 4 * 1024 * 1024

Row = tuple[Any, ...]


class Spool:
    """Files of rows, those of this process and those that others left behind.

    Parameters
    ----------
    folder
        Where the files lie; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._file = folder, _new_file(folder)
        self._counts: dict[Path, int] = {}

    @property
    def rows(self) -> int:
        """The rows of this process that lie here."""
        return sum(self._counts.copy().values())

    @property
    def is_empty(self) -> bool:
        """Whether no rows lie here, of this process or another."""
        return not any(_size(file) for file in self._folder.glob("spool-*.jsonl"))

    def append(self, rows: Sequence[Row]) -> bool:
        """Whether these rows were put on the disk; if not, none of them was."""
        try:
            if _size(self._file) > LARGEST_FILE:
                self._file = _new_file(self._folder)
            if sum(_size(file) for file in self._counts.copy()) > LARGEST_SPOOL:
                return False
            _append(self._file, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        except OSError:
            return False
        self._counts[self._file] = self._counts.get(self._file, 0) + len(rows)
        return True

    def files(self) -> list[Path]:
        """The files on the disk that nobody adds to any more: ours, and those of the dead."""
        if self._file in self._counts:
            self._file = _new_file(self._folder)
        found = sorted(self._folder.glob("spool-*.jsonl"))
        return [file for file in found if file != self._file and not _others(file)]

    def read(self, file: Path) -> list[Row]:
        """The rows of one file; a line that a crash cut short is not among them."""
        try:
            lines = file.read_bytes().splitlines()
        except FileNotFoundError:  # another worker was faster
            return []
        return [row for row in map(_row, lines) if row is not None]

    def forget(self, file: Path) -> None:
        """Remove a file whose rows are in the database now."""
        file.unlink(missing_ok=True)
        self._counts.pop(file, None)


def _new_file(folder: Path) -> Path:
    return folder / f"spool-{os.getpid()}-{time.time_ns()}.jsonl"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _append(file: Path, content: bytes) -> None:
    before = _size(file)
    try:
        with file.open("ab", buffering=0) as written:
            if written.write(content) < len(content):
                raise OSError("the disk is full")
            os.fsync(written.fileno())
    except OSError:
        if file.exists():
            os.truncate(file, before)
        raise


def _others(file: Path) -> bool:
    """Whether a process other than this one is still adding to a file.

    In a container a process often has the number of the one before it, so files
    with our own number are ours.
    """
    process = int(file.name.split("-")[1])
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _row(line: bytes) -> Row | None:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return (row[0], datetime.fromisoformat(row[1]), *row[2:])
