"""Notebooks are executed, kept and read, and take only the parameters they declare."""

import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat import v4

from housing_lib import reports

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
        reports.execute(notebook, given, ipynb, on_cell=lambda *place: heard.append(place))
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
    with pytest.raises(reports.StepFailedError) as error:
        reports.execute(notebook, {}, ipynb)
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


def test_a_cell_that_takes_too_long_is_a_failure_and_its_notebook_is_kept(tmp_path):
    notebook = write_notebook(tmp_path / "slow.ipynb", code("import time; time.sleep(60)"))
    with pytest.raises(reports.StepFailedError, match="longer than 1 seconds"):
        reports.execute(notebook, {}, tmp_path / "out" / "slow.ipynb", timeout_s=1)
    assert (tmp_path / "out" / "slow.ipynb").exists()


def test_a_process_that_ends_is_a_failure(tmp_path):
    notebook = write_notebook(tmp_path / "dead.ipynb", code("import os; os._exit(1)"))
    with pytest.raises(reports.StepFailedError, match=r"its process ended.*Kernel died"):
        reports.execute(notebook, {}, tmp_path / "out" / "dead.ipynb")


def test_what_is_no_notebook_is_refused_by_name(tmp_path):
    (tmp_path / "empty.ipynb").write_text("")
    for name in ("empty.ipynb", "missing.ipynb"):
        with pytest.raises(reports.ReportError, match=rf"{name} is not a notebook"):
            reports.execute(tmp_path / name, {}, tmp_path / "out.ipynb")


@pytest.mark.parametrize("value", [float("nan"), object(), {1: np.float64("inf")}])
def test_a_value_without_a_place_in_json_is_not_recorded(value):
    with pytest.raises(reports.ReportError, match="Nothing was recorded"):
        reports.record(value=value)


@pytest.fixture
def tuning(tmp_path):
    cells = [code(PARAMETERS, "parameters"), code("1")]
    return write_notebook(tmp_path / "03_tuning.ipynb", *cells)


def test_parameters_are_read_with_type_default_and_help(tuning):
    found = reports.parameters_of(tuning)
    assert list(found) == ["n_trials", "model_name", "rate", "quick", "limit"]
    expected = reports.Parameter("n_trials", "int", "5", 'how many, as in "#5"')
    assert found["n_trials"] == expected
    assert found["model_name"] == reports.Parameter("model_name", "str", "'a#b'", "which one")
    assert found["rate"].help == ""


def test_a_notebook_without_a_parameters_cell_takes_no_parameters(tmp_path):
    notebook = write_notebook(tmp_path / "plain.ipynb", code("1"))
    assert reports.parameters_of(notebook) == {}
    with pytest.raises(reports.ParameterError, match="It takes: no parameters"):
        reports.check_parameters(notebook, {"seed": 1})


def test_an_unknown_parameter_is_refused_with_the_nearest_name(tuning):
    with pytest.raises(reports.ParameterError) as error:
        reports.check_parameters(tuning, {"n_trails": 3})
    assert str(error.value) == (
        "03_tuning.ipynb has no parameter 'n_trails'. Did you mean 'n_trials'?\n"
        "It takes: n_trials, model_name, rate, quick, limit. Nothing was run."
    )


WRONG = {
    "n_trials": ("5", 5.0, True),
    "model_name": (3,),
    "rate": ("0.1", False),
    "quick": ("false", 0),
    "limit": ("none",),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_value_of_another_type_is_refused(tuning, name, value):
    with pytest.raises(reports.ParameterError, match=rf"'{name}' as .*\n?Nothing was run\."):
        reports.check_parameters(tuning, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_trials", 5), ("rate", 1), ("rate", 0.5), ("quick", True), ("limit", None), ("limit", 3)],
)
def test_a_value_of_the_written_type_is_taken(tuning, name, value):
    reports.check_parameters(tuning, {name: value})
