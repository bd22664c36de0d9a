"""The door to papermill: one notebook and its parameters -> an executed `.ipynb` and its record."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from types import NoneType
from typing import Any

from housing_lib.files import atomic_path, read_json, write_json
from housing_lib.settings import HousingError

RECORD = "application/vnd.housing.result+json"
ERROR_MARKER = "papermill-error-cell-tag"
TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "None": NoneType,
}
# Figures are kept whatever back end the environment names, and a missing progress
# widget is nobody's business in a report.
KERNEL_START = (
    "import os, warnings; "
    "os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'; "
    "warnings.filterwarnings('ignore', message='IProgress not found')"
)

OnCell = Callable[[int, int, str], None]


class ReportError(HousingError):
    """A notebook that cannot be read, or a result that cannot be kept."""


class ParameterError(HousingError):
    """A parameter that a notebook does not take, or a value of another type."""


class StepFailedError(HousingError):
    """A notebook that stopped before its end."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook; its type and default as they are written there."""

    name: str
    type: str
    default: str
    help: str


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
    """The Python number or list that a numpy or pandas value stands for."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"found a value of type {type(value).__name__}")
    return value.tolist()


def read_record(path: Path) -> dict[str, Any]:
    """The values that an executed notebook recorded, by its last `record()`.

    Raises
    ------
    ReportError
        If it recorded nothing, or cannot be read.
    """
    outputs = [output for cell in _cells(path) for output in cell.get("outputs", [])]
    records = [output["data"][RECORD] for output in outputs if RECORD in output.get("data", {})]
    if not records:
        raise ReportError(
            f"{path.name} recorded nothing. Its last cell should call `record(...)` "
            "from `housing_lib.reports`, and should have run."
        )
    return dict(records[-1])


def _cells(notebook: Path) -> list[dict[str, Any]]:
    try:
        return list(read_json(notebook)["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{notebook} is not a notebook that can be read ({error}). Nothing was run."
        ) from error


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, as the cell tagged `parameters` declares them.

    The cell is read here rather than by papermill, whose import alone takes
    seconds: a wrong parameter is refused at once.
    """
    tagged = [c for c in _cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
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


@dataclass
class _Progress:
    """Where an execution is: the number of the code cell, and the heading above it."""

    total: int
    on_cell: OnCell | None
    done: int = 0
    heading: str = ""

    def __call__(self, cell: Any, cell_index: int) -> None:
        """Take note of the cell that starts; nbclient calls this for text cells too."""
        if cell.cell_type == "markdown":
            self.heading = _last_heading(cell.source) or self.heading
        elif cell.cell_type == "code" and cell.source.strip():
            self.done += 1
            if self.on_cell:
                self.on_cell(self.done, self.total, self.heading)

    @property
    def place(self) -> str:
        """The cell that an error message names."""
        under = f", under '{self.heading}'" if self.heading else ""
        return f"code cell {self.done} of {self.total}{under}"


def _last_heading(markdown: str) -> str:
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*\s*$", markdown, flags=re.MULTILINE)
    return re.sub(r"[`*]", "", headings[-1]) if headings else ""


def execute(
    notebook: Path,
    parameters: Mapping[str, Any],
    ipynb: Path,
    *,
    on_cell: OnCell | None = None,
    timeout_s: int | None = None,
) -> None:
    """Run a notebook with `parameters` and keep it as `ipynb`, also when it failed.

    It runs in its own folder, as it would in JupyterLab. `on_cell` hears the
    number of each code cell that starts, how many there are, and the heading
    above it; `timeout_s` bounds each cell.

    Raises
    ------
    StepFailedError
        If a cell raised an error, took too long, or the kernel died.
    """
    code = [
        c for c in _cells(notebook) if c["cell_type"] == "code" and "".join(c["source"]).strip()
    ]
    progress = _Progress(len(code) + bool(parameters), on_cell)
    with TemporaryDirectory(prefix="housing-") as sockets, atomic_path(ipynb) as temporary:
        failure = _failure(
            input_path=_literally(notebook.resolve()),
            output_path=_literally(temporary.resolve()),
            parameters=dict(parameters),
            execution_timeout=timeout_s,
            config=_kernel_config(Path(sockets)),
            resources={"metadata": {"path": str(notebook.resolve().parent)}},
            on_cell_start=progress,
        )
        _forget_paths(temporary, notebook.name, ipynb.name)
    if failure:
        raise StepFailedError(
            f"{notebook.name} stopped in {progress.place}:\n{failure}\n"
            f"What it did until then is kept in {ipynb.name}."
        )


def _failure(**arguments: Any) -> str:
    """What went wrong when papermill ran with `arguments`, in a line or two; empty if nothing did.

    The exceptions are the judge: after a timeout the notebook's own metadata
    call every cell completed.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    start = f"--IPKernelApp.exec_lines={KERNEL_START}"
    fixed = {"kernel_name": "python3", "progress_bar": False, "extra_arguments": [start]}
    try:
        papermill.execute_notebook(**arguments, **fixed)
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"it took longer than {arguments['execution_timeout']} seconds"
    except RuntimeError as error:
        return f"its process ended, for lack of memory perhaps, or never answered ({error})"
    return ""


def _kernel_config(sockets: Path) -> Any:
    """Talk to the kernel through files of our own, which no other process can hear or take."""
    from traitlets.config import Config

    return Config({"KernelManager": {"transport": "ipc", "ip": str(sockets / "kernel")}})


def _literally(path: Path) -> str:
    """A path in which papermill finds no placeholders of its own."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _forget_paths(executed: Path, notebook: str, ipynb: str) -> None:
    """Leave only file names of the paths that papermill noted in an executed notebook."""
    content = read_json(executed)
    content["metadata"]["papermill"] |= {"input_path": notebook, "output_path": ipynb}
    write_json(executed, content)
