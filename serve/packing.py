"""Whether an Arrow stream is packed: a few kilobytes can unpack to more than a machine holds."""

import struct
from collections.abc import Iterator
from typing import Any

RECORD_BATCH, DICTIONARY = 3, 2  # kinds of message, and where their fields stand, in Arrow's format
VERSION, KIND, CONTENT, NOTES, DICTIONARY_DATA, COMPRESSION = 0, 1, 2, 4, 1, 3
FORMAT_5 = 4  # as a number; in the format before it a part could be compressed by a note


def is_packed(body: bytes) -> bool:
    """Whether any part of an Arrow stream says that it is compressed.

    pyarrow unpacks a part as soon as it is read and does not tell before, so the
    headers are read here: FlatBuffers, as Arrow's columnar format 1.5 lays them out.

    Raises
    ------
    ArrowException, struct.error
        If it is no stream.
    """
    return any(_says_compressed(header) for header in _headers(body))


def _headers(body: bytes) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import ipc

    for message in ipc.MessageReader.open_stream(pa.BufferReader(body)):
        yield message.metadata.to_pybytes()


def _says_compressed(header: bytes) -> bool:
    message = struct.unpack_from("<I", header)[0]
    kind_at, content = _field(header, message, KIND), _table(header, message, CONTENT)
    kind = header[kind_at] if kind_at else 0
    if kind == DICTIONARY and content:
        content = _table(header, content, DICTIONARY_DATA)
    elif kind != RECORD_BATCH:
        return False
    version_at = _field(header, message, VERSION)
    version = struct.unpack_from("<h", header, version_at)[0] if version_at else 0
    if version < FORMAT_5 and _field(header, message, NOTES) is not None:
        return True
    return content is not None and _field(header, content, COMPRESSION) is not None


def _field(header: bytes, table: int, number: int) -> int | None:
    """Where a field of a table stands, if it is there."""
    names = table - struct.unpack_from("<i", header, table)[0]
    size = struct.unpack_from("<H", header, names)[0]
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", header, names + entry)[0] if entry < size else 0
    return table + offset if offset else None


def _table(header: bytes, table: int, number: int) -> int | None:
    """Where the table stands to which a field points, if it is there."""
    at: Any = _field(header, table, number)
    return None if at is None else at + struct.unpack_from("<I", header, at)[0]
