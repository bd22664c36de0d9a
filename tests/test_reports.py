"""Notebooks are executed, kept and read, and take only the parameters they declare."""

import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat import v4

from housing_lib import execution, reports

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
PARAMETERS = """\
n_trials: int = 5  # how many, as in "#5"
model_name: str = "a#b"  # which one
rate: float = 0.1
quick: bool = False
limit: int | None = None
"""
FIGURE = """\
import sys
from IPython.display import Image, display
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from housing_lib.reports import record
print("ON_" + "STDERR", file=sys.stderr)
figure, axes = plt.subplots(figsize=(2, 1))
display(figure, metadata={"image/png": {"alt": 'A "flat" line'}})
"""
RESULT = "record(rmse=np.float64(0.4), rows=np.int64(3), ok=np.bool_(True), trials=n_trials)"


def text(source: str) -> Any:
    return v4.new_markdown_cell(source)


def code(source: str, *tags: str) -> Any:
    return v4.new_code_cell(source, metadata={"tags": list(tags)})


def write_notebook(path: Path, *cells: Any) -> Path:
    nbformat.write(v4.new_notebook(cells=list(cells), metadata={"kernelspec": KERNEL}), path)
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A small notebook, executed once with `MPLBACKEND=Agg` around it, and what was heard."""
    folder = tmp_path_factory.mktemp("run {1}")
    notebook = write_notebook(
        folder / "02_small.ipynb",
        text("# What is `small`?\n\n> A test."),
        code(PARAMETERS, "parameters"),
        text("## The *data*"),
        code(FIGURE),
        code("plt.plot([1, 2]);"),
        code("pd.DataFrame({'price': [1.5]})"),
        text("## The end"),
        code("print('OUTPUT_' + 'HIDDEN')", "hide-output"),
        code("print('CELL_REMOVED')", "remove-cell"),
        code("", "empty"),
        code(RESULT),
    )
    ipynb, heard = folder / "out" / "02_small.ipynb", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        given = {"n_trials": 7}
        execution.execute(notebook, given, ipynb, on_cell=lambda *place: heard.append(place))
    return ipynb, heard


def test_recorded_values_come_back_as_plain_numbers(executed):
    assert reports.read_record(executed[0]) == {"rmse": 0.4, "rows": 3, "ok": True, "trials": 7}


def test_each_code_cell_that_starts_is_told_with_the_heading_above_it(executed):
    heard = executed[1]
    assert [place[:2] for place in heard] == [(k, 8) for k in range(1, 9)]
    assert heard[0][2] == "What is small?"
    assert heard[2][2] == "The data"
    assert heard[-1][2] == "The end"


def test_an_executed_notebook_names_no_path_and_leaves_nothing_beside_it(executed):
    metadata = json.loads(executed[0].read_text())["metadata"]["papermill"]
    assert metadata["input_path"] == metadata["output_path"] == "02_small.ipynb"
    folder = executed[0].parent
    assert {path.name for path in folder.iterdir()} == {"02_small.ipynb"}
    assert {path.name for path in folder.parent.iterdir()} == {"02_small.ipynb", "out"}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A notebook that fails in its second cell, and its error."""
    folder = tmp_path_factory.mktemp("failed")
    notebook = write_notebook(
        folder / "03_bad.ipynb",
        text("## Division"),
        code("import sys, tqdm.auto; print('ON_' + 'STDERR', file=sys.stderr)"),
        code("1 / 0"),
        code("print('NEVER')"),
    )
    ipynb = folder / "out" / "03_bad.ipynb"
    with pytest.raises(execution.StepFailedError) as error:
        execution.execute(notebook, {}, ipynb)
    return str(error.value), ipynb


def test_a_failure_names_the_cell_and_its_error_and_keeps_the_notebook(failed):
    message, ipynb = failed
    assert message == (
        "03_bad.ipynb stopped in code cell 2 of 3, under 'Division':\n"
        "ZeroDivisionError: division by zero\n"
        "What it did until then is kept in 03_bad.ipynb."
    )
    assert "ZeroDivisionError" in ipynb.read_text()


def test_a_notebook_that_recorded_nothing_says_what_to_do(failed):
    with pytest.raises(reports.ReportError, match=r"recorded nothing.*record\("):
        reports.read_record(failed[1])


@pytest.mark.parametrize("value", [float("nan"), object(), {1: np.float64("inf")}])
def test_a_value_without_a_place_in_json_is_not_recorded(value):
    with pytest.raises(reports.ReportError, match="Nothing was recorded"):
        reports.record(value=value)
