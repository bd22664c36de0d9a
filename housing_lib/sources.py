"""Tables of districts to score: a file, a folder or a glob, here or in S3, cut into parts."""

import codecs
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from glob import escape
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from housing_lib import unreadable
from housing_lib.contract import FEATURES
from housing_lib.data import DataError
from housing_lib.storage import BLOCK, absolute, files_below, kind_of, open_file

ENDINGS = (".csv", ".parquet")
MARKS = "*?["  # what makes a name a glob
PART_ROWS = 250_000
PART_BYTES = 16_000_000
MOST_HEADER = 1_000_000
NOTHING = "Nothing was written."
QUOTE = ord('"')
OPENING = np.isin(np.arange(256), list(b",\r\n"))  # bytes after which a field begins


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
    fixed, rest = split_glob(source)
    if not kind and not rest:
        raise DataError(f"{source}: there is no such file or folder. {NOTHING}")
    base = absolute(source if kind else fixed)
    pattern = "" if kind else f"{escape(base.rstrip('/'))}/{rest}"
    names = [name for name in files_below(base) if _counts(name, base, pattern)]
    if not names:
        raise DataError(f"{source}: found no .csv or .parquet file there. {NOTHING}")
    return base, names


def split_glob(source: str) -> tuple[str, str]:
    """The folder above the first part of a name that is a glob, and the rest from there on.

    The rest is empty for a name that is none. What is there under a name with
    brackets is meant itself.
    """
    pieces = source.split("/")
    for place, piece in enumerate(pieces):
        upper, whole = "/".join(pieces[:place]), "/".join(pieces[: place + 1])
        if any(mark in piece for mark in MARKS) and not Path(whole).expanduser().exists():
            return upper or ("/" if place else "."), "/".join(pieces[place:])
    return source, ""


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
    except unreadable.errors() as error:
        kind_of(name)  # an object store that is away is no fault of the file
        raise DataError(
            f"{name} cannot be read as {kind}: {unreadable.sentences(error, kind)}. {NOTHING}"
        ) from error
    _refuse_columns(found)
    return found


def _blocks(file: Any, digest: Any) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        digest.update(block)
        yield block


def _survey_csv(name: str, base: str) -> Source:
    digest, inside, last = hashlib.sha256(), False, ord("\n")
    with open_file(name) as file:
        header, columns, at = _read_header(file)
        file.seek(0)
        head = file.read(at)
        digest.update(head)
        lines = head.count(b"\n")
        cuts, before = [at], [lines]
        for block in _whole_runs(_blocks(file, digest)):
            breaks = np.flatnonzero(np.frombuffer(block, "u1") == ord("\n"))
            quoted, inside = _quoted(block, breaks, last, inside)
            for end in _ends(breaks[~quoted] + at + 1, cuts[-1]):
                cuts.append(end)
                before.append(lines + int(np.searchsorted(breaks + at, end)))
            lines, at, last = lines + len(breaks), at + len(block), block[-1]
    ends = [cut for cut in cuts if cut < at]
    whole_cuts = (*ends, at) if ends else (at,)
    return Source(name, _relative(name, base), digest.hexdigest(), at, columns, header,
                  whole_cuts, tuple(before[: max(1, len(ends))]))  # fmt: skip


def _whole_runs(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, cut so that quotes in a row are never parted."""
    held = b""
    for block in blocks:
        whole = held + block
        kept = whole.rstrip(b'"')
        held = whole[len(kept) :]
        if kept:
            yield kept
    if held:
        yield held


def _quoted(block: bytes, places: Any, last: int, inside: bool) -> tuple[Any, bool]:
    """Which places stand between quotes, and whether the end does, as `csv` reads them.

    Parameters
    ----------
    last
        The byte before the block.
    inside
        Whether the block begins between quotes.
    """
    values = np.frombuffer(block, "u1")
    marks = np.flatnonzero(values == QUOTE) if b'"' in block else np.array([], "i8")
    openers = marks[int(inside) :: 2]
    ahead = values[openers - 1]
    if len(openers) and not openers[0]:
        ahead[0] = last
    if not (OPENING[ahead] | (ahead == QUOTE)).all():
        return _quoted_oddly(values, marks, places, last, inside)
    quoted = (np.searchsorted(marks, places) + inside) % 2 == 1
    return quoted, (len(marks) + inside) % 2 == 1


def _quoted_oddly(
    values: Any, marks: Any, places: Any, last: int, inside: bool
) -> tuple[Any, bool]:
    """The same where quotes stand within values too, as in `5" pipe`.

    Two quotes in a row change nothing. One opens a field at its beginning, and closes
    one that is open; anywhere else it is a character like others.
    """
    firsts = np.flatnonzero(np.diff(marks, prepend=-2) > 1)
    runs, odd = marks[firsts], np.diff(firsts, append=len(marks)) % 2 == 1
    ahead = values[runs - 1]
    ahead[0] = ahead[0] if runs[0] else last
    turns = np.cumsum(odd & OPENING[ahead])
    closed = np.maximum.accumulate(np.where(odd & ~OPENING[ahead], turns, -int(inside)))
    after = np.concatenate([[inside], (turns - closed) % 2 == 1])
    return after[np.searchsorted(runs, places)], bool(after[-1])


def _ends(ends: Any, last: int) -> Iterator[int]:
    """The first end of a record after each `PART_BYTES`."""
    place = np.searchsorted(ends, last + PART_BYTES)
    while place < len(ends):
        yield int(ends[place])
        place = np.searchsorted(ends, int(ends[place]) + PART_BYTES)


def _read_header(file: Any) -> tuple[str, tuple[str, ...], int]:
    """The first record as it stands there, its columns, and the byte after it."""
    head = file.read(MOST_HEADER)
    unreadable.refuse_other_text(head)
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    start += len(head[start:]) - len(head[start:].lstrip())
    breaks = np.flatnonzero(np.frombuffer(head[start:], "u1") == ord("\n"))
    quoted, is_open = _quoted(head[start:], breaks, ord("\n"), False)
    if quoted.all() and (is_open or len(head) == MOST_HEADER):
        fault = (
            "holds a quote that is never closed" if is_open else f"exceeds {MOST_HEADER:,} bytes"
        )
        raise ValueError(f"its first line {fault}")
    stop = start + int(breaks[~quoted][0]) + 1 if not quoted.all() else len(head)
    text = head[start:stop].decode("utf-8")
    if not text:
        raise ValueError("it is empty")
    columns = tuple(next(csv.reader([text])))
    unreadable.refuse_other_separators(columns)
    return text, columns, stop


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
        raise DataError(
            f"{name}: expected numbers, and {', '.join(wrong)}. Write those columns as numbers. "
            f"{NOTHING}"
        )


def _relative(name: str, base: str) -> str:
    return name.removeprefix(base).strip("/") if base else PurePosixPath(name).name


def _refuse_columns(source: Source) -> None:
    columns = source.columns
    repeated = ", ".join(sorted(name for name, count in Counter(columns).items() if count > 1))
    if repeated:
        raise DataError(f"{source.name} has these columns twice: {repeated}. {NOTHING}")
    by_lower = {name.lower(): name for name in columns if name not in FEATURES}
    problems = []
    for name in FEATURES:
        if name not in columns:
            near = get_close_matches(name.lower(), by_lower, n=1)
            hint = f"; is it '{unreadable.shown(by_lower[near[0]])}'?" if near else ""
            problems.append(f"  {name:<11} missing column{hint}")
    if problems:
        raise DataError("\n".join([f"{source.name} breaks the contract:", *problems, NOTHING]))
