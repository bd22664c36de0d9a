"""Rows of a part as they stand in its file, their eight numbers, and what is wrong with some."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from housing_lib import unreadable
from housing_lib.contract import CONTRACT, FEATURES, TARGET, Floats
from housing_lib.data import DataError
from housing_lib.sources import Part
from housing_lib.storage import open_file, reaching

BATCH_ROWS = 8_192
NUMBERS = (*FEATURES, TARGET)
# What pandas reads as a missing value, too.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-nan", "-NaN", "NULL", "null",
           "None", "<NA>")  # fmt: skip
NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf(inity)?))$"
OPENED = re.compile(r'(?:\A|,)"')  # a quote at the beginning of a field
LOW = np.array([CONTRACT[name].low for name in FEATURES])
HIGH = np.array([CONTRACT[name].high for name in FEATURES])

Mask = npt.NDArray[np.bool_]
Faults = dict[int, list[str]]


@dataclass
class Batch:
    """Some rows of a file.

    Parameters
    ----------
    values
        The eight features, shape (rows, 8), NaN where missing.
    faults
        What is wrong with a row, for each row with which something is.
    table
        The rows as an Arrow table; the texts of a CSV file stay texts, but for its numbers.
    texts
        The rows as records of a CSV file, without line ends; made when asked for.
    places
        The line or the row of the file in which each stands.
    origin
        The file.
    """

    values: Floats
    faults: Faults
    places: Sequence[int]
    table: Any
    origin: str
    texts: list[str] = field(default_factory=list)

    @property
    def good(self) -> Mask:
        """The rows with which nothing is wrong, as a mask."""
        mask = np.ones(len(self.values), dtype=bool)
        mask[list(self.faults)] = False
        return mask


def read(part: Part, *, as_table: bool) -> Iterator[Batch]:
    """The rows of a part, `BATCH_ROWS` at a time, so that its size does not matter.

    Parameters
    ----------
    as_table
        Whether the table of CSV rows is wanted, which costs time.
    """
    batches = _csv_batches(part, as_table) if part.source.is_csv else _parquet_batches(part)
    for batch in batches:
        _hold_to_contract(batch)
        yield batch


def schema(part: Part) -> Any:
    """The Arrow schema of a part's tables, without notes of the program that wrote the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if part.source.is_csv:
        return pa.schema(
            [(name, pa.float64() if name in NUMBERS else pa.string())
             for name in part.source.columns]
        )  # fmt: skip
    with reaching(part.source.name), open_file(part.source.name) as file:
        return pq.read_schema(file).remove_metadata()


def _hold_to_contract(batch: Batch) -> None:
    values = batch.values
    below: Mask = np.less(values, LOW)
    above: Mask = np.greater(values, HIGH)
    unknown = np.asarray(np.isnan(values).all(axis=1))
    wrong = below.any(axis=1) | above.any(axis=1) | unknown
    for row in np.flatnonzero(wrong).tolist():
        reasons = batch.faults.setdefault(row, [])
        for place, name in enumerate(FEATURES):
            if below[row, place] or above[row, place]:
                side, limit = ("below", LOW) if below[row, place] else ("above", HIGH)
                reasons.append(f"{name} {side} {limit[place]:,.10g}")
        if unknown[row] and not reasons:
            reasons.append("all eight features missing")


def _parquet_batches(part: Part) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    with open_file(part.source.name) as file:
        stored = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        groups, at = _groups(stored.metadata, part)
        for read_rows in stored.iter_batches(BATCH_ROWS, row_groups=groups, use_threads=False):
            first = min(max(part.start - at, 0), read_rows.num_rows)
            rows = read_rows.slice(first, max(0, part.stop - at - first))
            if rows.num_rows:
                yield _parquet_batch(rows, at + first, part.source.name)
            at += read_rows.num_rows
            if at >= part.stop:
                return


def _groups(metadata: Any, part: Part) -> tuple[list[int], int]:
    """The row groups that hold a part's rows, and the number of the first row in them."""
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    starts = ends - sizes
    wanted = np.flatnonzero((ends > part.start) & (starts < part.stop))
    return wanted.tolist(), int(starts[wanted[0]])


def _parquet_batch(rows: Any, first: int, origin: str) -> Batch:
    import pyarrow as pa

    table = pa.Table.from_batches([rows]).replace_schema_metadata(None)
    faults: Faults = {}
    columns = [_column(table.column(name), name, faults) for name in FEATURES]
    places = range(first, first + len(table))
    return Batch(np.column_stack(columns), faults, places, table, origin)


def _column(column: Any, name: str, faults: Faults) -> Floats:
    import pyarrow as pa

    column = column.combine_chunks()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _numbers(column, name, faults)
    values: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _numbers(texts: Any, name: str, faults: Faults) -> Floats:
    """The numbers in texts, NaN where there is none; what is neither missing nor one is a fault."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(texts)
    known = pc.if_else(pc.is_in(texts, pa.array(MISSING, texts.type)), None, texts)
    try:
        numbers = known.cast(pa.float64())
        usual = not pc.any(pc.is_nan(numbers)).as_py()  # Arrow takes Nan and nan(1) for numbers
    except pa.ArrowInvalid:
        usual = False
    values: Floats = (numbers if usual else _usual(known, name, faults)).to_numpy(
        zero_copy_only=False
    )
    return values


def _usual(known: Any, name: str, faults: Faults) -> Any:
    """The numbers in texts of which some are none, which are faults."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.match_substring_regex(known, NUMBER)
    for row in np.flatnonzero(pc.invert(fits).fill_null(False)).tolist():
        faults.setdefault(row, []).append(f"{name} not a number")
    return pc.utf8_ltrim(pc.if_else(fits, known, None), "+").cast(pa.float64())


def _csv_batches(part: Part, as_table: bool) -> Iterator[Batch]:
    records = _records(part)
    while taken := list(islice(records, BATCH_ROWS)):
        yield _csv_batch(part, taken, as_table)


@dataclass(frozen=True)
class _Record:
    text: str
    values: list[str]
    line: int
    fault: str = ""


def _records(part: Part) -> Iterator[_Record]:
    """The records of a part as they stand there, blank lines left out."""
    width, held, line = len(part.source.columns), [], part.before
    lines = _lines(part)

    def following() -> Iterator[str]:
        for one in lines:
            held.append(one)
            yield one

    reader = csv.reader(following())
    while True:
        try:
            values, fault = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            values, fault = [""], unreadable.why(error)
        text, first = "".join(held), line + 1
        line += len(held)
        held.clear()
        if values:
            yield _Record(text.rstrip("\r\n"), values, first, fault or _shape(values, width, text))


def _shape(values: list[str], width: int, text: str) -> str:
    if len(values) != width:
        if OPENED.search(text) and text.count('"') % 2:
            return "a quote is never closed"
        return f"found {len(values)} values, expected {width}"
    if not text.isascii() and any("\udc80" <= one <= "\udcff" for one in text):
        return "not UTF-8"
    return ""


def _lines(part: Part) -> Iterator[str]:
    """The lines of a part of a CSV file; bytes that are no UTF-8 come back as they were."""
    with open_file(part.source.name) as file:
        file.seek(part.start)
        rest = io.BufferedReader(_Stretch(file, part.stop - part.start), 1 << 20)
        yield from io.TextIOWrapper(rest, "utf-8", errors="surrogateescape", newline="")


class _Stretch(io.RawIOBase):
    """So many bytes of a file, from where it is."""

    def __init__(self, file: Any, size: int) -> None:
        self.file = file
        self.left = size

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The number of bytes that were read into `buffer`."""
        content = self.file.read(min(len(buffer), self.left))
        buffer[: len(content)] = content
        self.left -= len(content)
        return len(content)


def _csv_batch(part: Part, records: list[_Record], as_table: bool) -> Batch:
    import pyarrow as pa

    columns = part.source.columns
    faults: Faults = {row: [one.fault] for row, one in enumerate(records) if one.fault}
    nothing = [""] * len(columns)
    rows = [nothing if one.fault else one.values for one in records]
    numbers = {
        name: _numbers(pa.array([row[at] for row in rows], pa.string()), name, faults)
        for at, name in enumerate(columns)
        if name in NUMBERS
    }
    made = _csv_table(columns, rows, numbers) if as_table else None
    return Batch(
        np.column_stack([numbers[name] for name in FEATURES]),
        faults,
        [one.line for one in records],
        made,
        part.source.name,
        [one.text for one in records],
    )


def _csv_table(columns: tuple[str, ...], rows: list[list[str]], numbers: dict[str, Floats]) -> Any:
    import pyarrow as pa

    arrays = [
        pa.array(numbers[name], from_pandas=True)
        if name in numbers
        else pa.array([row[at] for row in rows], pa.string())
        for at, name in enumerate(columns)
    ]
    return pa.table(arrays, names=list(columns))


def as_texts(batch: Batch) -> list[str]:
    """The rows as records of a CSV file: as they stood there, or as Python writes their values.

    Raises
    ------
    DataError
        If Python cannot hold a value, as a date of the year 20,000.
    """
    if batch.texts or not len(batch.values):
        return batch.texts
    texts: list[str] = []
    columns = [_values(batch, name) for name in batch.table.column_names]
    write_records(texts, zip(*columns, strict=True))
    return texts


def _values(batch: Batch, name: str) -> list[Any]:
    column = batch.table.column(name)
    try:
        found: list[Any] = column.to_pylist()
    except unreadable.errors() as error:
        raise DataError(
            f"{batch.origin}: column {unreadable.shown(name)} ({column.type}) cannot be written "
            f"as text: {unreadable.why(error)}. Leave it out, or mend it. What is finished of "
            "other files is kept."
        ) from error
    return found


def write_records(texts: list[str], rows: Any) -> None:
    """Append the text of each row, without a line end."""
    ended: list[str] = []  # without an end of lines, Python would not quote line breaks in values
    csv.writer(SimpleNamespace(write=ended.append)).writerows(rows)
    texts += [text.removesuffix("\r\n") for text in ended]
