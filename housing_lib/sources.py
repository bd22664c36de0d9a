"""Tables of districts to score: a file, a folder or a glob, here or in S3, cut into parts."""

import codecs
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from housing_lib.contract import FEATURES
from housing_lib.data import DataError
from housing_lib.storage import BLOCK, absolute, files_below, kind_of, open_file

ENDINGS = (".csv", ".parquet")
PART_ROWS = 250_000
PART_BYTES = 16_000_000
MOST_HEADER = 1_000_000
NOTHING = "Nothing was written."


@dataclass(frozen=True)
class Source:
    """One file of districts: what it holds, and where it is cut.

    `cuts` are row numbers of a Parquet file, and bytes of a CSV file; `lines` are
    the lines of a CSV file that end before each cut.
    """

    name: str
    relative: str
    sha256: str
    size: int
    columns: tuple[str, ...]
    header: str
    cuts: tuple[int, ...]
    lines: tuple[int, ...] = ()

    @property
    def is_csv(self) -> bool:
        """Whether it is text."""
        return ending(self.name) == ".csv"

    @property
    def parts(self) -> "list[Part]":
        """The pieces in which it is scored."""
        lines = self.lines or self.cuts
        return [
            Part(self, start, stop, before)
            for (start, stop), before in zip(pairwise(self.cuts), lines, strict=False)
        ]


@dataclass(frozen=True)
class Part:
    """A piece of a file: from `start` up to `stop`, after `before` lines or rows."""

    source: Source
    start: int
    stop: int
    before: int

    @property
    def share(self) -> float:
        """How much of all that its file holds, from 0 to 1."""
        whole = self.source.cuts[-1] - self.source.cuts[0]
        return (self.stop - self.start) / whole


def ending(name: str) -> str:
    """What a file's name ends in, in small letters."""
    return PurePosixPath(name).suffix.lower()


def find_files(source: str) -> tuple[str, list[str]]:
    """The folder that all names share, and the files that a name, folder or glob stands for.

    Files and folders whose names begin with `_` or `.` are left out, as everywhere
    with folders of Parquet files.

    Raises
    ------
    DataError
        If there is none.
    StorageError
        If the place cannot be reached.
    """
    kind = kind_of(source)
    if kind == "file":
        name = absolute(source)
        return name.rpartition("/")[0], [name]
    fixed = _fixed_part(source)
    if not kind and fixed == source:
        raise DataError(f"{source}: there is no such file or folder. {NOTHING}")
    base = absolute(source if kind else fixed)
    pattern = "" if kind else absolute(source)
    names = [name for name in files_below(base) if _counts(name, base, pattern)]
    if not names:
        raise DataError(f"{source}: found no .csv or .parquet file there. {NOTHING}")
    return base, names


def _fixed_part(source: str) -> str:
    fixed: list[str] = []
    for piece in source.split("/"):
        if any(mark in piece for mark in "*?["):
            return "/".join(fixed) or ("/" if source.startswith("/") else ".")
        fixed.append(piece)
    return source


def _counts(name: str, base: str, pattern: str) -> bool:
    below = name.removeprefix(base).strip("/").split("/")
    hidden = any(piece.startswith(("_", ".")) for piece in below)
    deep = "**" in pattern or name.count("/") == pattern.count("/")
    fits = not pattern or (deep and fnmatchcase(name, pattern))
    return ending(name) in ENDINGS and not hidden and fits


def survey(name: str, base: str) -> Source:
    """A file of districts, after reading it once for its digest and the places to cut it.

    Raises
    ------
    DataError
        If it is no table, lacks one of the eight columns, or has a name twice.
    StorageError
        If it is in an object store that cannot be reached.
    """
    if ending(name) not in ENDINGS:
        raise DataError(f"{name}: expected a .csv or .parquet file. {NOTHING}")
    kind = ending(name)[1:]
    try:
        found = (_survey_csv if kind == "csv" else _survey_parquet)(name, base)
    except (OSError, ValueError, csv.Error) as error:
        kind_of(name)  # an object store that is away is no fault of the file
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"{name} cannot be read as {kind}: {reason}. "
            f"It may be empty, cut off or another kind of file. {NOTHING}"
        ) from error
    _refuse_columns(found)
    return found


def _blocks(file: Any, digest: Any) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        digest.update(block)
        yield block


def _survey_csv(name: str, base: str) -> Source:
    digest, at, lines, inside = hashlib.sha256(), 0, 0, False
    cuts: list[int] = []
    before: list[int] = []
    with open_file(name) as file:
        header, columns, first = _read_header(file)
        file.seek(0)
        for block in _blocks(file, digest):
            quoted, inside = _quoted(block, inside)
            breaks = np.flatnonzero(np.frombuffer(block, "u1") == ord("\n"))
            whole = breaks if quoted is None else breaks[~quoted[breaks]]
            for end in _ends(whole + at + 1, first if not cuts else cuts[-1]):
                cuts.append(end)
                before.append(lines + int(np.searchsorted(breaks + at, end)))
            lines, at = lines + len(breaks), at + len(block)
    ends = [first, *(cut for cut in cuts if first < cut < at), at]
    numbers = [
        header.count("\n"),
        *(n for cut, n in zip(cuts, before, strict=True) if first < cut < at),
    ]
    whole_cuts = tuple(ends) if first < at else (first,)
    return Source(name, _relative(name, base), digest.hexdigest(), at, columns, header,
                  whole_cuts, tuple(numbers))  # fmt: skip


def _quoted(block: bytes, inside: bool) -> tuple[Any, bool]:
    """Which bytes stand between quotes (None where none does), and whether the last one does."""
    if b'"' not in block and not inside:
        return None, False
    marks = np.cumsum(np.frombuffer(block, "u1") == ord('"')) + inside
    quoted = marks % 2 == 1
    return quoted, bool(quoted[-1])


def _ends(ends: Any, last: int) -> Iterator[int]:
    """The first end of a record after each `PART_BYTES`."""
    place = np.searchsorted(ends, last + PART_BYTES)
    while place < len(ends):
        yield int(ends[place])
        place = np.searchsorted(ends, int(ends[place]) + PART_BYTES)


def _read_header(file: Any) -> tuple[str, tuple[str, ...], int]:
    """The first record as it stands there, its columns, and the byte after it."""
    head = file.read(MOST_HEADER)
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    start += len(head[start:]) - len(head[start:].lstrip())
    lines = io.BytesIO(head[start:])
    raw = lines.readline()
    while raw.count(b'"') % 2 and (line := lines.readline()):
        raw += line
    text = raw.decode("utf-8")
    if not text:
        raise ValueError("it is empty")
    return text, tuple(next(csv.reader([text]))), start + len(raw)


def _survey_parquet(name: str, base: str) -> Source:
    import pyarrow.parquet as pq

    digest = hashlib.sha256()
    with open_file(name) as file:
        schema, rows = pq.read_schema(file), pq.read_metadata(file).num_rows
        file.seek(0)
        size = sum(len(block) for block in _blocks(file, digest))
    _refuse_types(name, schema)
    cuts = (*range(0, rows, PART_ROWS), rows)
    return Source(
        name, _relative(name, base), digest.hexdigest(), size, tuple(schema.names), "", cuts
    )


def _refuse_types(name: str, schema: Any) -> None:
    import pyarrow as pa

    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null,
             pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)  # fmt: skip
    wrong = [
        f"{column} is {schema.field(column).type}"
        for column in FEATURES
        if schema.names.count(column) == 1
        and not any(is_one(schema.field(column).type) for is_one in kinds)
    ]
    if wrong:
        raise DataError(f"{name}: expected numbers, and {', '.join(wrong)}. {NOTHING}")


def _relative(name: str, base: str) -> str:
    return name.removeprefix(base).strip("/") if base else PurePosixPath(name).name


def _refuse_columns(source: Source) -> None:
    columns = source.columns
    repeated = ", ".join(sorted({name for name in columns if columns.count(name) > 1}))
    if repeated:
        raise DataError(f"{source.name} has these columns twice: {repeated}. {NOTHING}")
    by_lower = {name.lower(): name for name in columns if name not in FEATURES}
    problems = []
    for name in FEATURES:
        if name not in columns:
            near = get_close_matches(name.lower(), by_lower, n=1)
            hint = f"; is it '{by_lower[near[0]]}'?" if near else ""
            problems.append(f"  {name:<11} missing column{hint}")
    if problems:
        raise DataError("\n".join([f"{source.name} breaks the contract:", *problems, NOTHING]))
