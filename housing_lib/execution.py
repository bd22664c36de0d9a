"""The door to papermill: one notebook with parameters -> the executed one, whole or failed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from housing_lib.errors import HousingError
from housing_lib.files import atomic_path, read_json, write_json
from housing_lib.parameters import cells_of
from housing_lib.privacy import hide, secret_values

if TYPE_CHECKING:
    from housing_lib.processes import Channel
    from housing_lib.supervision import Supervisor

# Figures are kept whatever back end the environment names, and a missing progress
# widget is nobody's business in a report.
KERNEL_START = (
    "import os, warnings; "
    "os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'; "
    "warnings.filterwarnings('ignore', message='IProgress not found')"
)

MOST_LOGGED = 10_000_000  # characters
CUT = f"\n… what follows was cut: a log holds {MOST_LOGGED:,} characters.\n"

OnCell = Callable[[int, int, str], None]


class StepFailedError(HousingError):
    """A notebook that stopped before its end."""


@dataclass
class _Progress:
    """Where an execution is: the number of the code cell, and the heading above it."""

    total: int
    on_cell: OnCell | None
    log: "_Log"
    done: int = 0
    heading: str = ""

    def __call__(self, cell: Any, cell_index: int) -> None:
        """Take note of the cell that starts; nbclient calls this for text cells too."""
        if cell.cell_type == "markdown":
            self.heading = _last_heading(cell.source) or self.heading
        elif cell.cell_type == "code" and cell.source.strip():
            self.done += 1
            self.log.write(f"── {self.place}\n")
            if self.on_cell:
                self.on_cell(self.done, self.total, self.heading)

    @property
    def place(self) -> str:
        """The cell that an error message names."""
        under = f", under '{self.heading}'" if self.heading else ""
        return f"code cell {self.done} of {self.total}{under}"


class _Log:
    """A file that gets text as it comes, until there is too much of it; none without a path."""

    def __init__(self, path: Path | None) -> None:
        self.room = MOST_LOGGED
        self.path = path

    def __enter__(self) -> "_Log":
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)  # it may be another run's too, whose step was taken
            self.file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        if self.path:
            self.file.close()

    def write(self, text: str) -> None:
        """Append text, for all to see at once."""
        if not self.path or self.room <= 0:
            return
        self.file.write(text if len(text) < self.room else text[: self.room] + CUT)
        self.file.flush()
        self.room -= len(text)


def _last_heading(markdown: str) -> str:
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*\s*$", markdown, flags=re.MULTILINE)
    return re.sub(r"[`*]", "", headings[-1]) if headings else ""


def execute(
    notebook: Path,
    parameters: Mapping[str, Any],
    ipynb: Path,
    *,
    on_cell: OnCell | None = None,
    log: Path | None = None,
    limit_s: float | None = None,
    channel: "Channel | None" = None,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Run a notebook with `parameters` and keep it as `ipynb`, also when it failed.

    It runs in its own folder, as it would in JupyterLab. `on_cell` hears the
    number of each code cell that starts, how many there are, and the heading
    above it; `log` gets what it prints while it prints it. After `limit_s`
    seconds, or once `channel` says so, its kernel is killed with all that it
    started. Secrets of the environment are in neither file; `provenance` is in the
    notebook's metadata.

    Raises
    ------
    StepFailedError
        If a cell raised an error, or the notebook took too long, or the kernel died.
    NotebookError
        If the notebook cannot be read.
    """
    with (
        TemporaryDirectory(prefix="housing-") as sockets,
        atomic_path(ipynb) as temporary,
        _Log(log) as printed,
    ):
        progress = _Progress(len(_code_cells(notebook)) + bool(parameters), on_cell, printed)
        supervisor = _supervisor(printed, limit_s, channel)
        failure = _failure(
            supervisor=supervisor,
            input_path=_literally(notebook.resolve()),
            output_path=_literally(temporary.resolve()),
            parameters=dict(parameters),
            config=_kernel_config(Path(sockets)),
            resources={"metadata": {"path": str(notebook.resolve().parent)}},
            on_cell_start=progress,
        )
        _tidy(temporary, notebook.name, ipynb.name, failed=bool(failure), origin=provenance or {})
    if failure:
        raise StepFailedError(
            f"{notebook.name} stopped in {progress.place}:\n{failure}\n"
            f"What it did until then is kept in {ipynb.name}."
        )


def _code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    return [cell for cell in cells if "".join(cell["source"]).strip()]


def _supervisor(printed: "_Log", limit_s: float | None, channel: "Channel | None") -> "Supervisor":
    from housing_lib.supervision import Supervisor

    watching = Supervisor(on_output=printed.write, limit_s=limit_s)
    if channel:
        watching.stopped = channel.stopped
        watching.why_stopped = lambda: channel.reason
    return watching


def _failure(*, supervisor: "Supervisor", **arguments: Any) -> str:
    """What went wrong when papermill ran with `arguments`, in a line or two; empty if nothing did.

    The exceptions are the judge: after an early end the notebook's own metadata
    call every cell completed.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from housing_lib.supervision import ENGINE

    start = f"--IPKernelApp.exec_lines={KERNEL_START}"
    fixed = {"kernel_name": "python3", "progress_bar": False, "extra_arguments": [start]}
    try:
        papermill.execute_notebook(**arguments, **fixed, engine_name=ENGINE, supervisor=supervisor)
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except RuntimeError as error:
        lost = f"its process ended, for lack of memory perhaps, or never answered ({error})"
        return supervisor.reason or lost
    return ""


def renew_words(executed: Path, notebook: Path, ipynb: Path) -> None:
    """Keep an executed notebook as `ipynb`, with the text cells and tags of today's notebook.

    The code cells of both must be the same; their outputs stay.

    Raises
    ------
    NotebookError
        If the notebook cannot be read.
    """
    content = read_json(executed)
    ran = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    cells: list[dict[str, Any]] = []
    for cell in cells_of(notebook):
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        cells.append(ran.pop(0) | {"metadata": cell["metadata"]})
        if ran and "injected-parameters" in ran[0]["metadata"].get("tags", []):
            cells.append(ran.pop(0))
    write_json(ipynb, content | {"cells": cells})


def _kernel_config(sockets: Path) -> Any:
    """Talk to the kernel through files of our own, which no other process can hear or take."""
    from traitlets.config import Config

    return Config({"KernelManager": {"transport": "ipc", "ip": str(sockets / "kernel")}})


def _literally(path: Path) -> str:
    """A path in which papermill finds no placeholders of its own."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _tidy(
    executed: Path, notebook: str, ipynb: str, *, failed: bool, origin: Mapping[str, str]
) -> None:
    """Leave of an executed notebook only file names of paths, no secret, and the truth.

    papermill calls all cells of a notebook completed whose kernel was lost.
    """
    content = hide(read_json(executed), secret_values())
    content["metadata"]["papermill"] |= {"input_path": notebook, "output_path": ipynb}
    content["metadata"]["papermill"] |= {"exception": True} if failed else {}
    content["metadata"]["housing"] = dict(origin)
    write_json(executed, content)
