"""Why a file cannot be read as a table, in words for whoever sent it."""

import codecs
import re
from collections.abc import Sequence
from typing import Any

EXPECTED = {
    "csv": "Expected text in UTF-8 whose values are separated by commas",
    "parquet": "Expected a whole Parquet file that needs no key",
}
# What readers say, and what that means.
REASONS = {
    "ecrypt": "it is encrypted",
    r"No columns to parse|file size is 0 bytes": "it is empty",
    r"[Mm]agic bytes|file size is": "it was cut off, or is another kind of file",
    r"codec can't decode|Invalid UTF-?8|^Unknown error: Wrapping": "its text is no UTF-8",
    r"EOF inside string starting at row (\d+)": "a quote is never closed, which opens in row {} "
    "with the header for row 0",
    "thrift|base64|orrupt|nexpected end": "it is damaged",
    "([Dd]ate|[Yy]ear|[Tt]imestamp).*out of range|must have magnitude": "a date lies beyond the "
    "years that Python knows",
    "int too large": "a number or a date is too large",
    "zoneinfo": "nobody knows its time zone",
    "new-line character seen": "a carriage return stands alone, without a line feed",
    r"field larger than field limit \((\d+)\)": "a value has more than {} characters",
}
MARKS = {
    codecs.BOM_UTF16_LE: "it is text in UTF-16 or UTF-32",
    codecs.BOM_UTF16_BE: "it is text in UTF-16",
    b"\x1f\x8b": "it is compressed by gzip",
    b"PAR1": "it is a Parquet file",
}
SEPARATORS = {";": "semicolons", "\t": "tabs"}


def errors() -> tuple[type[Exception], ...]:
    """What readers raise over a file that is not what it should be."""
    import csv

    import pyarrow as pa

    return OSError, ValueError, OverflowError, NotImplementedError, csv.Error, pa.ArrowException


def sentences(error: BaseException, kind: str) -> str:
    """What an error of a reader means, and what was expected if it is the file's fault."""
    return why(error) if _is_of_system(error) else f"{why(error)}. {EXPECTED[kind]}"


def _is_of_system(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(getattr(error, "errno", None))


def why(error: BaseException) -> str:
    """What an error of a reader means; what nobody knows of is told as it was said."""
    said = ((getattr(error, "strerror", None) or str(error)).splitlines() or [""])[0].rstrip(". ")
    for pattern, reason in REASONS.items():
        if found := re.search(pattern, said):
            return reason.format(*found.groups())
    return shown(said) or type(error).__name__


def refuse_other_text(head: bytes) -> None:
    """Refuse the beginning of a file that no text in UTF-8 has.

    Raises
    ------
    ValueError
        If it is such a one.
    """
    for mark, reason in MARKS.items():
        if head.startswith(mark):
            raise ValueError(reason)
    if b"\0" in head.partition(b"\n")[0]:
        raise ValueError("its first line holds NUL bytes, as text in UTF-16 does")


def refuse_other_separators(header: Sequence[str]) -> None:
    """Refuse a header that is one column, because something else than commas separates them.

    Raises
    ------
    ValueError
        If it is such a one.
    """
    for mark, name in SEPARATORS.items():
        if len(header) == 1 and mark in header[0]:
            raise ValueError(f"found columns separated by {name}; expected commas")


def shown(value: Any, most: int = 200) -> str:
    r"""A value or a name as a line can show it, without line ends and control characters.

    >>> shown("Med\nInc")
    'Med\\nInc'
    """
    text = str(value)[:most]
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
