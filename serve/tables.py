"""Batches as CSV, Arrow or Parquet: a table of districts in, a table of predictions out."""

import io
import re
import struct
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from housing_lib.contract import CONTRACT, FEATURES, Floats
from serve.packing import is_packed
from serve.problems import number_problems, refuse, size_problem
from serve.schemas import MOST_ROWS, Prediction, Problem

CSV, ARROW = "text/csv", "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
TYPES = (CSV, ARROW, PARQUET)
# What unpacks to no more than some twenty times as much.
TAME = ("UNCOMPRESSED", "SNAPPY")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MOST_COLUMNS = 200  # among which a misspelt one is looked for
LOW = np.array([CONTRACT[name].low for name in FEATURES])
HIGH = np.array([CONTRACT[name].high for name in FEATURES])


def read_rows(body: bytes, kind: str) -> Floats:
    """The districts in a body of one of `TYPES`, shape (rows, 8).

    Raises
    ------
    RefusedError
        If it is no such table, or breaks the contract.
    """
    import pyarrow as pa

    readers = {CSV: _read_csv, ARROW: _read_arrow, PARQUET: _read_parquet}
    try:
        table = readers[kind](body)
        table.validate(full=True)
        problems = _column_problems(table.column_names) + _size_problems(table.num_rows)
        if problems:
            raise refuse(problems, what="table")
        return _numbers(table)
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        MemoryError,
        IndexError,
        OverflowError,
        struct.error,
    ) as error:
        fault = (str(error).splitlines() or [""])[0][:100].encode("ascii", "replace").decode()
        found = Problem("(body)", "cannot be read", fault, f"a table as {kind}")
        raise refuse([found], what="table") from error


def _read_csv(body: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    # A column in which one text is no number is one of texts, unknown values included.
    unknown = csv.ConvertOptions(strings_can_be_null=True)
    return csv.read_csv(pa.BufferReader(body), csv.ReadOptions(use_threads=False), None, unknown)


def _read_arrow(body: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import ipc

    if is_packed(body):
        raise refuse([_packed_problem("an Arrow stream that is compressed", "none")], what="table")
    with ipc.open_stream(pa.BufferReader(body)) as stream:
        _refuse_schema(stream.schema)
        batches: list[Any] = []
        for batch in stream:
            batches.append(batch)
            if sum(one.num_rows for one in batches) > MOST_ROWS:
                break
        return pa.Table.from_batches(batches, stream.schema)


def _read_parquet(body: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(body))
    # A few kilobytes can hold billions of rows, so what the file says of itself is read first.
    _refuse_schema(file.schema_arrow)
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    chunks = [group.column(k) for group in groups for k in range(group.num_columns)]
    values: Counter[str] = Counter()
    for one in chunks:
        values[one.path_in_schema] += one.num_values
    stated = [file.metadata.num_rows, sum(group.num_rows for group in groups)]
    rows = max(*stated, *(values[name] for name in FEATURES))
    codecs = {one.compression for one in chunks}
    problems = _size_problems(rows)
    if wild := codecs.difference(TAME):
        problems.append(_packed_problem(f"Parquet by {', '.join(sorted(wild))}", "none or snappy"))
    if problems:
        raise refuse(problems, what="table")
    return file.read(columns=list(FEATURES), use_threads=False)


def _packed_problem(found: str, expected: str) -> Problem:
    fault = "is compressed so that it could fill the memory"
    return Problem("(body)", fault, found, f"compression: {expected}")


def _size_problems(rows: int) -> list[Problem]:
    return [] if 1 <= rows <= MOST_ROWS else [size_problem(rows)]


def _refuse_schema(schema: Any) -> None:
    # Before a value is read: texts of a dictionary can be a thousand times as large as the body.
    problems = _column_problems(schema.names) or [
        Problem(name, "not a column of numbers", str(schema.field(name).type)[:60],
                "floats or whole numbers")
        for name in FEATURES
        if not _is_numeric(schema.field(name).type)
    ]  # fmt: skip
    if problems:
        raise refuse(problems, what="table")


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    return any(
        is_one(kind) for is_one in (pa.types.is_floating, pa.types.is_integer, pa.types.is_null)
    )


def _column_problems(names: list[str]) -> list[Problem]:
    expected = f"once each of {', '.join(FEATURES)}"
    counts = {name: names.count(name) for name in FEATURES}
    return [
        Problem(name, "column stands there twice", f"{count} of that name", expected)
        if count
        else Problem(name, "column is missing", _nearest(name, names), expected)
        for name, count in counts.items()
        if count != 1
    ]


def _nearest(name: str, names: list[str]) -> str:
    """The column that may be meant, among those at the beginning of a table."""
    others = {one.strip().lower(): one for one in names[:MOST_COLUMNS] if one not in FEATURES}
    near = get_close_matches(name.lower(), others, n=1)
    return f"a column {others[near[0]][:60]!r}" if near else "none of that name"


def _numbers(table: Any) -> Floats:
    columns = [table.column(name) for name in FEATURES]
    values = [column.to_pylist() for column in columns]
    if not all(_is_numeric(column.type) for column in columns):
        values = [list(map(_read, one)) for one in values]
        if problems := _value_problems(values):
            raise refuse(problems, what="table")
    rows = np.array(values, dtype="float64").T
    unknown = np.isnan(rows)
    if not ((rows >= LOW) & (rows <= HIGH) | unknown).all() or unknown.all(axis=1).any():
        raise refuse(_value_problems(values), what="table")
    return np.ascontiguousarray(rows)


def _read(value: Any) -> Any:
    """The number that a text holds, if it is one as tables have it."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return float(text) if isinstance(text, str) and NUMBER.fullmatch(text.strip()) else text


def _value_problems(columns: Sequence[Sequence[Any]]) -> list[Problem]:
    problems = []
    for number, row in enumerate(zip(*columns, strict=True)):
        given = {
            name: value
            for name, value in zip(FEATURES, row, strict=True)
            if value is not None and value == value  # NaN stands for unknown in tables
        }
        found = [one for name, value in given.items() for one in number_problems(name, value)]
        if not given:
            expected = "at least one number"
            found = [Problem("(row)", "all eight features are missing", "nothing", expected)]
        for problem in found:
            problem.row = number
        problems += found
    return problems


def write(predictions: Sequence[Prediction], kind: str) -> bytes:
    """The predictions as a table, in the order of the batch."""
    import pyarrow as pa
    from pyarrow import csv, ipc, parquet

    table = _with_types(pa.Table.from_pylist([_record(one) for one in predictions]))
    sink = io.BytesIO()
    if kind == CSV:
        csv.write_csv(table, sink)
    elif kind == PARQUET:
        parquet.write_table(table, sink)
    else:
        with ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return sink.getvalue()


def _with_types(table: Any) -> Any:
    """The table with one type for each column; what may be missing everywhere is a number."""
    import pyarrow as pa

    types = {
        one.name: pa.float64() if pa.types.is_null(one.type) else one.type for one in table.schema
    }
    return table.cast(pa.schema(types))


def _record(one: Prediction) -> dict[str, Any]:
    interval = one.interval
    return {
        "predicted_median_house_value": one.predicted_median_house_value,
        "predicted_median_house_value_usd": one.predicted_median_house_value_usd,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "imputed": "+".join(one.imputed),
        "at_cap": one.at_cap,
        "nearest_training_district_km": one.nearest_training_district_km,
        "far_from_training": one.far_from_training,
        "model_name": one.model_name,
        "model_version": one.model_version,
        "model_stage": one.model_stage,
        "request_timestamp": one.request_timestamp,
        "prediction_id": one.prediction_id,
    }
