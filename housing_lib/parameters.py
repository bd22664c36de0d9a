"""What a notebook takes: the typed parameters of its first cell, checked before it starts."""

import ast
import io
import re
import threading
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any

from housing_lib.errors import HousingError
from housing_lib.files import read_json
from housing_lib.privacy import is_secret_name
from housing_lib.settings import get_settings

TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "None": NoneType,
}
_parsing = threading.Lock()


class NotebookError(HousingError):
    """A file that is not a notebook, or cannot be read."""


class ParameterError(HousingError):
    """A parameter that a notebook does not take, or a value that does not fit."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook; type, default and help as they are written there.

    The help may end in limits: `[1 to 1000]`, `[one of a, b]`, `[one of module.TABLE]`,
    `[file or a, b]`, `[files or a, b]` (a folder, a glob, or in S3).
    """

    name: str
    type: str
    default: str
    help: str

    @property
    def types(self) -> list[str]:
        """The names of the types that a value may have."""
        return [name.strip() for name in self.type.split("|")]

    @property
    def limits(self) -> str:
        """What stands in brackets at the end of the help; empty if nothing does."""
        found = re.search(r"\[(\S+ to \S+|one of .+|files? or .+)\]$", self.help)
        return found[1] if found else ""

    @property
    def meaning(self) -> str:
        """The help without its limits."""
        return self.help.removesuffix(f"[{self.limits}]").rstrip()

    @property
    def allowed(self) -> str:
        """The limits in full, with the entries of a table that they name; empty if it has none."""
        choices = ", ".join(_choices(self))
        return f"a file, or {choices}" if self.limits.startswith("file") else choices or self.limits


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

    Raises
    ------
    NotebookError
        If it cannot be read.
    """
    tagged = [c for c in cells_of(notebook) if "parameters" in c["metadata"].get("tags", [])]
    source = "".join(tagged[0]["source"]) if tagged else ""
    try:
        comments, statements = _comments(source), syntax_tree(source).body
    except (SyntaxError, tokenize.TokenError) as error:
        raise NotebookError(
            f"{notebook}: the cell of its parameters is no Python ({error}). Nothing was run."
        ) from error
    found = (_parameter(node, comments) for node in statements)
    return {parameter.name: parameter for parameter in found if parameter}


def syntax_tree(source: str) -> ast.Module:
    """The syntax tree of some Python; two threads wait for each other.

    In Python 3.11 trees that are made in two threads at once fail now and then, with
    "AST constructor recursion depth mismatch" (cpython issue 106905).

    Raises
    ------
    SyntaxError
        If it is no Python.
    """
    with _parsing:
        return ast.parse(source)


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


def find_notebook(name: str) -> Path:
    """The notebook of a name: its file's, without the ending, its number or its noun.

    Raises
    ------
    NotebookError
        If there is none; the nearest right name is given.
    """
    known = {path.stem: path for path in sorted(get_settings().notebooks.glob("*.ipynb"))}
    wanted = name.removesuffix(".ipynb")
    for stem, path in known.items():
        if wanted in (stem, *stem.split("_", 1)):
            return path
    near = get_close_matches(wanted, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise NotebookError(
        f"there is no notebook '{name}'; expected one of {', '.join(known)}.{hint} Nothing was run."
    )


def read_values(notebook: Path, texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The parameters that a command line gives, each of the type that the notebook declares.

    Raises
    ------
    ParameterError
        As `check_parameters` does.
    NotebookError
        If the notebook cannot be read.
    """
    known = parameters_of(notebook)
    given = {name: _typed(text, known[name]) if name in known else text for name, text in texts}
    check_parameters(notebook, given)
    return {name: _resolved(value, known[name]) for name, value in given.items()}


def _typed(text: str, parameter: Parameter) -> Any:
    """A text as a value of the declared type; the text itself if it is none."""
    for kind in parameter.types:
        if kind == "str":
            return text
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "None" and text.lower() in ("none", "null"):
            return None
        if kind in ("int", "float"):
            with suppress(ValueError):
                return int(text) if kind == "int" else float(text)
    return text


def _resolved(value: Any, parameter: Parameter) -> Any:
    is_file = parameter.limits.startswith("file") and value not in _choices(parameter)
    return str(Path(value).expanduser().resolve()) if is_file and "://" not in value else value


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> None:
    """Refuse parameters that a notebook does not take, and values that do not fit.

    papermill itself would only log an unknown name, and run with the default.

    Raises
    ------
    ParameterError
        With all problems: the nearest known name, the expected type, range or choices.
    NotebookError
        If the notebook cannot be read.
    """
    known = parameters_of(notebook)
    problems = [
        problem
        for name, value in given.items()
        if (problem := _problem(notebook, name, value, known))
    ]
    unknown = [name for name in given if name not in known]
    if unknown:
        problems.append(f"It takes: {', '.join(known) or 'no parameters'}.")
    if problems:
        end = " Nothing was run." if unknown else "\nNothing was run."
        raise ParameterError("\n".join(problems) + end)


def _problem(notebook: Path, name: str, value: Any, known: Mapping[str, Parameter]) -> str:
    if is_secret_name(name):
        return (
            f"'{name}' reads like a secret, and parameters are kept in reports. Set an environment "
            f"variable, as {name.upper()}, and let the notebook read it."
        )
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"{notebook.name} has no parameter '{name}'.{hint}"
    parameter = known[name]
    if not _fits(value, parameter.types):
        found = f"{value!r}, which is {type(value).__name__}"
        return f"{notebook.name} takes '{name}' as {parameter.type}; found {found}."
    fault = _limit_fault(value, parameter)
    return f"{notebook.name}: '{name}' is {value!r}; {fault}" if fault else ""


def _fits(value: Any, names: Sequence[str]) -> bool:
    """Whether a value is of one of the types; a type we do not know fits all."""
    if not set(names) <= set(TYPES):
        return True
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, TYPES[name]) for name in names)


def _limit_fault(value: Any, parameter: Parameter) -> str:
    """What a value should have been, by the limits that stand in brackets; empty if it is."""
    if bounds := re.fullmatch(r"(\S+) to (\S+)", parameter.limits):
        low, high = (float(bound) for bound in bounds.groups())
        return "" if low <= value <= high else f"expected {parameter.limits}."
    choices = _choices(parameter)
    if value in choices or not choices:
        return ""
    if parameter.limits.startswith("file"):
        expected = f"found no such file; expected {', '.join(choices)}, or a file."
        return "" if _is_there(value, parameter) else expected
    near = get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"expected one of {', '.join(choices)}.{hint}"


def _is_there(value: str, parameter: Parameter) -> bool:
    path = Path(value).expanduser().absolute()
    if parameter.limits.startswith("files"):  # a folder, a glob, or one in an object store
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        return "://" in value or path.exists() or any(found)
    return path.is_file()


def _choices(parameter: Parameter) -> list[str]:
    """The values that `one of ...` or `file or ...` name; `module.NAME` stands for its entries."""
    _, _, listed = parameter.limits.partition(" of " if " of " in parameter.limits else " or ")
    module, dot, table = listed.partition(".")
    if dot:
        return list(getattr(import_module(f"housing_lib.{module}"), table))
    return [one.strip() for one in listed.split(",") if one.strip()]
