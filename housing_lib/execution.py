"""The door to papermill: one notebook with parameters -> the executed one, whole or failed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from housing_lib.files import atomic_path, read_json, write_json
from housing_lib.parameters import cells_of
from housing_lib.settings import HousingError

# Figures are kept whatever back end the environment names, and a missing progress
# widget is nobody's business in a report.
KERNEL_START = (
    "import os, warnings; "
    "os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'; "
    "warnings.filterwarnings('ignore', message='IProgress not found')"
)

OnCell = Callable[[int, int, str], None]


class StepFailedError(HousingError):
    """A notebook that stopped before its end."""


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
        c for c in cells_of(notebook) if c["cell_type"] == "code" and "".join(c["source"]).strip()
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
