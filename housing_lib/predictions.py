"""One part of a table: its predictions and its quarantine, each a file that is whole or absent."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, takewhile
from pathlib import Path
from typing import Any, TextIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from housing_lib import records, storage, unreadable
from housing_lib.answering import Answered, Answering
from housing_lib.contract import USD_PER_UNIT, Floats
from housing_lib.data import DataError
from housing_lib.files import file_digest
from housing_lib.records import Batch, Mask
from housing_lib.sources import Part, Source, ending

Write = Callable[[Batch, Any, Answered, Answering], None]

ADDED = (
    "predicted_median_house_value",
    "predicted_median_house_value_usd",
    "interval_low_usd",
    "interval_high_usd",
    "expected_error_usd",
    "flags",
    "model_version",
)
QUARANTINED = ("quarantined_from", "quarantined_at", "quarantined_because")
FIELD = r'(?>"(?:[^"]|"")*+"[^,]*+|[^,]*+),'  # of a CSV record that has more of them


class Receipt(msgspec.Struct, frozen=True):
    """What became of the rows of a part; once it is written, the part is done."""

    rows: int
    scored: int
    reasons: dict[str, int]
    sha256: str

    @property
    def quarantined(self) -> int:
        """The number of rows that were not scored."""
        return self.rows - self.scored


@dataclass(frozen=True)
class Places:
    """Where the files of one part go; CSV files without their first line."""

    output: str
    quarantine: str
    receipt: str


def read_receipt(places: Places) -> Receipt:
    """The receipt of a part that is finished.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    return msgspec.json.decode(storage.read_bytes(places.receipt), type=Receipt)


def score(asked: Answering, part: Part, places: Places) -> Receipt:
    """The receipt of a part, after writing its predictions, its quarantine, and the receipt.

    Raises
    ------
    DataError
        If the file is damaged where this part lies.
    StorageError
        If a place cannot be read or written.
    """
    as_csv = ending(places.output) == ".csv"
    with (
        storage.writing(places.output) as output,
        storage.writing(places.quarantine) as refused,
    ):
        with open_text(refused) as quarantine, _writer(output, part, as_csv) as write:
            counted = _write(asked, _batches(part, as_csv), write, quarantine, part)
        receipt = Receipt(*counted, sha256=file_digest(output))
    storage.write_bytes(places.receipt, msgspec.json.encode(receipt))
    return receipt


def _batches(part: Part, as_csv: bool) -> Iterator[Batch]:
    name = part.source.name
    faults: tuple[type[Exception], ...] = (storage.StorageError, *unreadable.errors())
    try:
        with storage.reaching(name):
            yield from records.read(part, as_table=not as_csv)
    except faults as error:
        fault = error.__cause__ or error
        if isinstance(error, storage.StorageError) and (
            storage.is_remote(name) or getattr(fault, "errno", None)
        ):
            raise
        kind = ending(name)[1:]
        raise DataError(
            f"{name} cannot be read as {kind}: {unreadable.sentences(fault, kind)}. "
            "What is finished of other files is kept."
        ) from fault


def open_text(path: Path) -> TextIO:
    """A file to write text to, in which bytes that are no UTF-8 stay as they were."""
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def _write(
    asked: Answering, batches: Iterator[Batch], write: Write, quarantine: TextIO, part: Part
) -> tuple[int, int, dict[str, int]]:
    """The numbers of rows, of scored rows, and of each reason why others were not."""
    reasons: Counter[str] = Counter()
    rows = scored = 0
    for batch in batches:
        good = batch.good
        write(batch, good, asked.model.answer(np.ascontiguousarray(batch.values[good])), asked)
        rows, scored = rows + len(good), scored + int(good.sum())
        reasons.update(reason for found in batch.faults.values() for reason in found)
        quarantine.writelines(_quarantined(part, batch))
    return rows, scored, dict(sorted(reasons.items()))


def _quarantined(part: Part, batch: Batch) -> Iterator[str]:
    """The rows with which something is wrong, in order, each after where it stood and why."""
    if not batch.faults:
        return
    texts, unit = records.as_texts(batch), "line" if part.source.is_csv else "row"
    told_before = reasons_before(part.source)
    for row, reasons in sorted(batch.faults.items()):
        told: list[str] = []
        where = f"{unit} {batch.places[row]}"
        records.write_records(told, [(part.source.relative, where, "; ".join(reasons))])
        yield f"{told[0]},{_after(told_before, texts[row])}\n"


def reasons_before(source: Source) -> int:
    """How many first columns of a file say why its rows were in quarantine before."""
    return sum(1 for _ in takewhile(QUARANTINED.__contains__, source.columns))


def _after(fields: int, text: str) -> str:
    """A CSV record as it stands there, without its first fields."""
    return re.sub(rf"\A(?:{FIELD}){{{fields}}}", "", text) if fields else text


@contextmanager
def _writer(output: Path, part: Part, as_csv: bool) -> Iterator[Write]:
    if not as_csv:
        with pq.ParquetWriter(output, _schema(part)) as file:
            yield lambda *answered: file.write_table(_table(*answered).cast(file.schema))
        return
    with open_text(output) as text:
        yield lambda *answered: text.writelines(_lines(*answered))


def join(source: Source, parts: Sequence[Places], target: str) -> str:
    """The SHA-256 of the file of predictions of a whole source, after writing it.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with storage.writing(target) as joined:
        if ending(target) == ".csv":
            _join_texts(joined, [_heading(source), *ADDED], [one.output for one in parts])
        else:
            _join_tables(joined, parts)
        return file_digest(joined)


def join_quarantine(source: Source, parts: Sequence[Places], target: str) -> str:
    """The SHA-256 of the file of a source's rows that were not scored, after writing it.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with storage.writing(target) as joined:
        own = _after(reasons_before(source), _heading(source))
        _join_texts(joined, [*QUARANTINED, own], [one.quarantine for one in parts])
        return file_digest(joined)


def _heading(source: Source) -> str:
    """The names of a file's columns, as they stand in its first line."""
    told: list[str] = []
    records.write_records(told, [source.columns])
    return source.header.rstrip("\r\n") or told[0]


def _join_texts(joined: Path, heading: list[str], names: list[str]) -> None:
    with joined.open("wb") as file:
        file.write(f"{','.join(heading)}\n".encode())
        for name in names:
            file.writelines(storage.blocks(name))


def _join_tables(joined: Path, parts: Sequence[Places]) -> None:
    """Write the tables of all parts, one row group after the other."""
    first = parts[0].output
    with storage.reaching(first), storage.open_file(first) as opened:
        schema = pq.read_schema(opened)
    with pq.ParquetWriter(joined, schema) as file:
        for one in parts:
            for table in _row_groups(one.output):
                file.write_table(table)


def _row_groups(name: str) -> Iterator[pa.Table]:
    with storage.reaching(name), storage.open_file(name) as opened:
        stored = pq.ParquetFile(opened)
        for group in range(stored.num_row_groups):
            yield stored.read_row_group(group)


def _schema(part: Part) -> pa.Schema:
    kinds = [pa.float64()] * (len(ADDED) - 2) + [pa.string(), pa.int64()]
    added = [pa.field(*column) for column in zip(ADDED, kinds, strict=True)]
    return pa.schema([*records.schema(part), *added])


def _numbers(answered: Answered) -> list[Floats]:
    """The first columns that `ADDED` names; NaN where the model says nothing."""
    dollars = [answered.prices, answered.low, answered.high, answered.errors]
    return [answered.prices, *(np.round(one * USD_PER_UNIT, 2) for one in dollars)]


def _table(batch: Batch, good: Mask, answered: Answered, asked: Answering) -> pa.Table:
    table = batch.table if good.all() else batch.table.filter(pa.array(good))
    version = np.full(len(table), asked.identity.model_version)
    columns = [*_numbers(answered), answered.flags, version]
    for name, values in zip(ADDED, columns, strict=True):
        table = table.append_column(name, pa.array(values, from_pandas=True))
    return table


def _lines(batch: Batch, good: Mask, answered: Answered, asked: Answering) -> Iterator[str]:
    version = asked.identity.model_version
    numbers = (one.tolist() for one in _numbers(answered))
    texts = compress(records.as_texts(batch), good.tolist())
    for text, flagged, *values in zip(texts, answered.flags, *numbers, strict=True):
        told = ",".join("" if one != one else repr(one) for one in values)
        yield f"{text},{told},{flagged},{version}\n"
