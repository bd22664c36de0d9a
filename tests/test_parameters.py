"""A notebook's parameters are typed, and what it does not take is refused before it starts."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from housing_lib import parameters

PARAMETERS = """\
n_trials: int = 5  # how many, as in "#5"
model_name: str = "a#b"  # which one
rate: float = 0.1
quick: bool = False
limit: int | None = None
"""


def code(source: str, *tags: str) -> Any:
    return v4.new_code_cell(source, metadata={"tags": list(tags)})


def write_notebook(path: Path, *cells: Any) -> Path:
    nbformat.write(v4.new_notebook(cells=list(cells)), path)
    return path


@pytest.fixture
def tuning(tmp_path):
    cells = [code(PARAMETERS, "parameters"), code("1")]
    return write_notebook(tmp_path / "03_tuning.ipynb", *cells)


def test_parameters_are_read_with_type_default_and_help(tuning):
    found = parameters.parameters_of(tuning)
    assert list(found) == ["n_trials", "model_name", "rate", "quick", "limit"]
    expected = parameters.Parameter("n_trials", "int", "5", 'how many, as in "#5"')
    assert found["n_trials"] == expected
    assert found["model_name"] == parameters.Parameter("model_name", "str", "'a#b'", "which one")
    assert found["rate"].help == ""


def test_a_notebook_without_a_parameters_cell_takes_no_parameters(tmp_path):
    notebook = write_notebook(tmp_path / "plain.ipynb", code("1"))
    assert parameters.parameters_of(notebook) == {}
    with pytest.raises(parameters.ParameterError, match="It takes: no parameters"):
        parameters.check_parameters(notebook, {"seed": 1})


def test_an_unknown_parameter_is_refused_with_the_nearest_name(tuning):
    with pytest.raises(parameters.ParameterError) as error:
        parameters.check_parameters(tuning, {"n_trails": 3})
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
    with pytest.raises(parameters.ParameterError, match=rf"'{name}' as .*\n?Nothing was run\."):
        parameters.check_parameters(tuning, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_trials", 5), ("rate", 1), ("rate", 0.5), ("quick", True), ("limit", None), ("limit", 3)],
)
def test_a_value_of_the_written_type_is_taken(tuning, name, value):
    parameters.check_parameters(tuning, {name: value})
