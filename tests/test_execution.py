"""Notebooks that hang, die or are none: each is a failure with a name, and what ran is kept."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from housing_lib import execution, parameters


def code(source: str) -> Any:
    return v4.new_code_cell(source)


def write_notebook(path: Path, *cells: Any) -> Path:
    nbformat.write(v4.new_notebook(cells=list(cells)), path)
    return path


def test_a_cell_that_takes_too_long_is_a_failure_and_its_notebook_is_kept(tmp_path):
    notebook = write_notebook(tmp_path / "slow.ipynb", code("import time; time.sleep(60)"))
    with pytest.raises(execution.StepFailedError, match="longer than 1 seconds"):
        execution.execute(notebook, {}, tmp_path / "out" / "slow.ipynb", timeout_s=1)
    assert (tmp_path / "out" / "slow.ipynb").exists()


def test_a_process_that_ends_is_a_failure(tmp_path):
    notebook = write_notebook(tmp_path / "dead.ipynb", code("import os; os._exit(1)"))
    with pytest.raises(execution.StepFailedError, match=r"its process ended.*Kernel died"):
        execution.execute(notebook, {}, tmp_path / "out" / "dead.ipynb")


def test_what_is_no_notebook_is_refused_by_name(tmp_path):
    (tmp_path / "empty.ipynb").write_text("")
    for name in ("empty.ipynb", "missing.ipynb"):
        with pytest.raises(parameters.NotebookError, match=rf"{name} is not a notebook"):
            execution.execute(tmp_path / name, {}, tmp_path / "out.ipynb")
