"""What a notebook takes: the typed parameters of its first cell, checked before it starts."""

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any

from housing_lib.files import read_json
from housing_lib.settings import HousingError

TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "None": NoneType,
}


class NotebookError(HousingError):
    """A file that is not a notebook, or cannot be read."""


class ParameterError(HousingError):
    """A parameter that a notebook does not take, or a value of another type."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook; its type and default as they are written there."""

    name: str
    type: str
    default: str
    help: str


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook's file, as it holds them.

    Raises
    ------
    NotebookError
        If it is not a notebook that can be read.
    """
    try:
        return list(read_json(notebook)["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotebookError(
            f"{notebook} is not a notebook that can be read ({error}). Nothing was run."
        ) from error


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, as the cell tagged `parameters` declares them.

    The cell is read here rather than by papermill, whose import alone takes
    seconds: a wrong parameter is refused at once.
    """
    tagged = [c for c in cells_of(notebook) if "parameters" in c["metadata"].get("tags", [])]
    source = "".join(tagged[0]["source"]) if tagged else ""
    comments = _comments(source)
    found = (_parameter(node, comments) for node in ast.parse(source).body)
    return {parameter.name: parameter for parameter in found if parameter}


def _comments(source: str) -> dict[int | None, str]:
    """The comment of each line that has one."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _parameter(node: ast.stmt, comments: Mapping[int | None, str]) -> Parameter | None:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.expr() as value):
            written_type = ast.unparse(kind)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            written_type = ""
        case _:
            return None
    return Parameter(name, written_type, ast.unparse(value), comments.get(value.end_lineno, ""))


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> None:
    """Refuse parameters that a notebook does not take, and values of another type.

    papermill itself would only log an unknown name, and run with the default.

    Raises
    ------
    ParameterError
        With the nearest known name, or the expected type.
    """
    known = parameters_of(notebook)
    unknown = [name for name in given if name not in known]
    if unknown:
        questions = "\n".join(_unknown_name(notebook, name, known) for name in unknown)
        takes = ", ".join(known) or "no parameters"
        raise ParameterError(f"{questions}\nIt takes: {takes}. Nothing was run.")
    wrong = [name for name, value in given.items() if not _fits(value, known[name].type)]
    if wrong:
        lines = "\n".join(_wrong_type(notebook, known[name], given[name]) for name in wrong)
        raise ParameterError(f"{lines}\nNothing was run.")


def _unknown_name(notebook: Path, name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{notebook.name} has no parameter '{name}'.{hint}"


def _wrong_type(notebook: Path, parameter: Parameter, value: Any) -> str:
    found = f"{value!r}, which is {type(value).__name__}"
    return f"{notebook.name} takes '{parameter.name}' as {parameter.type}; found {found}."


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is of the type written in the notebook; a type we do not know fits all."""
    names = [name.strip() for name in annotation.split("|")]
    if not set(names) <= set(TYPES):
        return True
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, TYPES[name]) for name in names)
