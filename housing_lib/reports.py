"""What a notebook records, and how it is read back."""

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from housing_lib.errors import HousingError
from housing_lib.parameters import cells_of

RECORD = "application/vnd.housing.result+json"
ERROR_MARKER = "papermill-error-cell-tag"


class ReportError(HousingError):
    """A result that cannot be kept, or was not."""


def record(**values: Any) -> None:
    """Show `values` as the result of this notebook, where a run and the tests read them.

    Raises
    ------
    ReportError
        If a value has no place in JSON: an object, or a number that is not finite.
    """
    from IPython.display import display

    try:
        plain = json.loads(json.dumps(values, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ReportError(
            f"record() takes text, finite numbers, lists and dictionaries of them: {error}. "
            "Nothing was recorded."
        ) from error
    text = "\n".join(shorten(f"{name}: {value}", 100) for name, value in plain.items())
    display({RECORD: plain, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]


def _plain(value: Any) -> Any:
    """The Python number, list or dictionary that a value of numpy or a dataclass stands for."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if not hasattr(value, "tolist"):
        raise TypeError(f"found a value of type {type(value).__name__}")
    return value.tolist()


def read_record(path: Path) -> dict[str, Any]:
    """The values that an executed notebook recorded, by its last `record()`.

    Raises
    ------
    ReportError
        If it recorded nothing.
    NotebookError
        If it cannot be read.
    """
    outputs = [output for cell in cells_of(path) for output in cell.get("outputs", [])]
    records = [output["data"][RECORD] for output in outputs if RECORD in output.get("data", {})]
    if not records:
        raise ReportError(
            f"{path.name} recorded nothing. Its last cell should call `record(...)` "
            "from `housing_lib.reports`, and should have run."
        )
    return dict(records[-1])
