"""A notebook's parameters are typed, and what it does not take is refused before it starts."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from housing_lib import parameters
from housing_lib.settings import PROJECT

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


LIMITED = """\
n_trials: int = 5  # how many [1 to 100]
mode: str = "fast"  # how [one of fast, slow]
family: str = "ridge"  # which [one of families.FAMILIES]
source: str = "bundled"  # where from [file or bundled, test]
"""


@pytest.fixture
def limited(tmp_path):
    return write_notebook(tmp_path / "03_limited.ipynb", code(LIMITED, "parameters"))


def test_values_beyond_their_limits_are_all_refused_at_once(limited):
    wrong = {"n_trials": 0, "mode": "slwo", "family": "rigde", "source": "none.csv"}
    with pytest.raises(parameters.ParameterError) as error:
        parameters.check_parameters(limited, wrong)
    said = str(error.value)
    assert "'n_trials' is 0; expected 1 to 100" in said
    assert "expected one of fast, slow. Did you mean 'slow'?" in said
    assert "Did you mean 'ridge'?" in said
    assert "found no such file; expected bundled, test, or a file" in said


def test_texts_become_values_of_the_declared_types(tuning):
    texts = [("n_trials", "7"), ("rate", "0.5"), ("quick", "true"), ("limit", "none")]
    found = parameters.read_values(tuning, [*texts, ("model_name", "8")])
    assert found == {
        "n_trials": 7,
        "rate": 0.5,
        "quick": True,
        "limit": None,
        "model_name": "8",
    }


@pytest.mark.parametrize(("name", "text"), [("n_trials", "x"), ("quick", "1"), ("rate", "fast")])
def test_a_text_that_is_no_such_value_is_refused(tuning, name, text):
    with pytest.raises(parameters.ParameterError, match=f"takes '{name}' as .* found '{text}'"):
        parameters.read_values(tuning, [(name, text)])


def test_a_file_is_found_from_any_folder(limited, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    found = parameters.read_values(limited, [("source", "a.csv")])
    assert found == {"source": str(tmp_path / "a.csv")}
    assert parameters.read_values(limited, [("source", "test")]) == {"source": "test"}


def test_files_may_be_a_folder_a_glob_or_in_an_object_store(tmp_path, monkeypatch):
    source = 'source: str = "log"  # what [files or log]\n'
    notebook = write_notebook(tmp_path / "05_files.ipynb", code(source, "parameters"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "months").mkdir()
    (tmp_path / "months" / "a.csv").touch()
    for given, whole in {"months": tmp_path / "months", "months/*.csv": tmp_path / "months/*.csv",
                         "s3://bucket/months": "s3://bucket/months"}.items():  # fmt: skip
        found = parameters.read_values(notebook, [("source", given)])
        assert found == {"source": str(whole)}
        parameters.check_parameters(notebook, found)
    with pytest.raises(parameters.ParameterError, match="found no such file"):
        parameters.check_parameters(notebook, {"source": str(tmp_path / "years" / "*.csv")})


@pytest.mark.parametrize("name", ["api_key", "password", "AWS_SECRET", "accessToken", "db_passwd"])
def test_a_secret_is_refused_and_its_variable_named(tuning, name):
    with pytest.raises(parameters.ParameterError, match="environment variable") as error:
        parameters.check_parameters(tuning, {name: "x1y2z3"})
    assert "x1y2z3" not in str(error.value)


@pytest.mark.parametrize("name", ["03_tuning", "03", "tuning", "03_tuning.ipynb"])
def test_a_notebook_is_found_by_its_name_number_or_noun(name):
    assert parameters.find_notebook(name).name == "03_tuning.ipynb"


def test_a_notebook_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(parameters.NotebookError, match="Did you mean '03_tuning'"):
        parameters.find_notebook("03_tunning")


def test_the_limits_of_the_real_notebooks_hold_for_their_own_defaults():
    for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
        known = parameters.parameters_of(path)
        defaults = {name: ast.literal_eval(one.default) for name, one in known.items()}
        parameters.check_parameters(path, defaults)


@pytest.mark.parametrize("source", ["n: int =", "n: int = '''3"])
def test_parameters_that_are_no_python_are_named(tmp_path, source):
    cell = v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    nbformat.write(v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    with pytest.raises(parameters.NotebookError, match="no Python"):
        parameters.parameters_of(tmp_path / "x.ipynb")
