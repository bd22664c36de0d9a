"""The notebooks: thin, clean, and running wherever they are started."""

import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from housing_lib import data, graph, parameters
from housing_lib.settings import PROJECT

PATHS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
NAMES = ["01_eda", "02_preprocessing", "03_tuning", "04_evaluation", "05_monitoring"]


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _words(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def test_there_are_the_five_notebooks():
    assert [path.stem for path in PATHS] == NAMES


def test_a_notebook_is_committed_without_outputs(notebook):
    for cell in _code(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert set(cell.metadata) <= {"tags", "nbmake"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata


def test_it_opens_with_a_question_and_what_it_decides_reads_and_writes(notebook):
    first = notebook.cells[0].source
    assert re.match(r"# .+\?\n\n> ", first)
    assert all(word in first for word in ("ecides", "eads", "rites"))
    assert sum(cell.source.startswith("# ") for cell in _words(notebook)) == 1


def test_it_has_one_parameters_cell_of_typed_and_explained_literals(notebook, request):
    (cell,) = [cell for cell in _code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert cell is _code(notebook)[0]
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)
    known = parameters.parameters_of(request.node.callspec.params["notebook"])
    assert len(known) == len(ast.parse(cell.source).body)
    assert all(parameter.help and parameter.type for parameter in known.values())


def test_its_cells_call_select_or_show(notebook):
    banned = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)
    for cell in _code(notebook):
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, banned) for node in ast.walk(tree)), cell.id
        assert len(tree.body) <= 6, cell.id


def test_its_prose_states_no_number_that_depends_on_data(notebook):
    allowed = r"\b(0|1|1990|100,000)\b"  # marks, the census, the unit
    for cell in _words(notebook):
        words = re.sub(r"`[^`]*`|^#+ .*$", "", cell.source, flags=re.MULTILINE)
        numbers = re.findall(r"\d[\d,.]*", re.sub(allowed, "", words))
        assert not numbers, (cell.id, numbers)


def test_every_figure_has_alt_text(notebook):
    for cell in _code(notebook):
        if "plots.show(" in cell.source:
            assert cell.source.count("alt=") == cell.source.count("plots.show("), cell.id


def test_the_last_cell_records_and_the_one_before_names_the_next_step(notebook):
    assert "reports.record(" in notebook.cells[-1].source
    assert "next" in notebook.cells[-2].source.lower()


def test_they_run_in_order_from_their_own_folder(tmp_path):
    """As JupyterLab runs them: nbmake, the notebooks' folder, a store of their own."""
    data.acquire().sample(5_000, random_state=0).to_parquet(tmp_path / "some.parquet")
    paths = [_with_smoke_budget(path, tmp_path) for path in PATHS]
    environment = os.environ | {"HOUSING_ROOT": str(tmp_path), "MPLBACKEND": ""}
    for name in ("MPLBACKEND", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        environment.pop(name, None)  # MLflow tells child processes which store this one uses
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=300", "-q", "-p"]
    command += ["no:cacheprovider", "-c", os.devnull, *map(str, paths)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"{len(paths)} passed" in done.stdout, done.stdout[-4000:]
    assert {path.suffix for path in paths[0].parent.iterdir()} == {".ipynb"}


def _with_smoke_budget(path, root):
    """A copy below `root`, quick as in a smoke run, of a quarter of the districts.

    All else is left to its defaults; a smoke run takes the same notebooks through all districts.
    """
    budget = graph.BUDGETS["smoke"]
    quick = {"n_trials": budget.trials, "growth": budget.growth}
    quick |= {"every_family": budget.every_family}
    known = parameters.parameters_of(path)
    if path.stem in ("01_eda", "02_preprocessing"):
        quick["source"] = str(root / "some.parquet")
    given = {name: value for name, value in quick.items() if name in known}
    copy = root / "notebooks" / path.name
    copy.parent.mkdir(exist_ok=True)
    nbformat.write(parameterize_notebook(load_notebook_node(str(path)), given), copy)
    return copy
