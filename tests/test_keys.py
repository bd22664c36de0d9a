"""A step's key changes when its result could, and only then."""

import ast
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from housing_lib import graph, keys, parameters, reuse
from housing_lib.graph import Plan
from housing_lib.settings import PROJECT, Settings

FAMILIES = ["ridge", "lasso", "xgboost"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the package and the notebooks, to be changed; keys are made from it."""
    for folder in ("housing_lib", "notebooks"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    monkeypatch.setattr(keys, "PACKAGE", tmp_path / "housing_lib")
    monkeypatch.setattr(Settings, "notebooks", tmp_path / "notebooks")
    monkeypatch.setattr(reuse, "read_digest", lambda name, parameters: name)
    return tmp_path


def keys_of_all(plan: Plan | None = None) -> dict[str, tuple[str, str]]:
    """The key and the digest of the words of each step."""
    steps = {step.id: step for step in graph.make_steps(plan or Plan(FAMILIES, 2), "run")}
    for step in steps.values():
        reuse.identify(steps, step)
    return {name: (step.key, step.words) for name, step in steps.items()}


def changed(before, after) -> set[str]:
    return {name for name in before if before[name][0] != after[name][0]}


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_keys_of_the_same_things_are_the_same(project):
    assert keys_of_all() == keys_of_all()


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        ("exploration", {"eda"}),
        ("monitoring", {"monitoring"}),
        ("registry", {"evaluation", "promotion", "monitoring"}),
        ("pages", set()),
    ],
)
def test_a_changed_function_reruns_the_steps_whose_modules_reach_it(project, module, steps):
    before = keys_of_all()
    with (project / "housing_lib" / f"{module}.py").open("a") as file:
        file.write("\n\ndef added():\n    return 1\n")
    found = changed(before, keys_of_all())
    reached = {name for name in before if module in _modules(name)}
    assert found == reached
    assert steps <= found


def _modules(step_id: str) -> set[str]:
    step = {step.id: step for step in graph.make_steps(Plan(FAMILIES, 2), "run")}[step_id]
    notebook = PROJECT / "notebooks" / step.notebook
    return keys.modules_reached(keys.code_of(notebook) if step.notebook else "", step.modules)


def test_imports_are_followed_through_modules(project):
    reached = _modules("tuning-ridge")
    assert {"tuning", "families", "features", "data", "settings"} <= reached
    assert not {"monitoring", "pipeline", "pages", "cli"} & reached


def test_comments_docstrings_and_layout_change_no_key(project):
    before = keys_of_all()
    path = project / "housing_lib" / "data.py"
    replace(path, '"""The way from a source', '# a comment\n"""Another way from a source')
    replace(path, "PARTS = (", "\n\n# why\nPARTS = (")
    assert not changed(before, keys_of_all())


def test_the_search_space_of_one_family_is_that_family_s_alone(project):
    before = keys_of_all()
    path = project / "housing_lib" / "families.py"
    replace(path, '"alpha": Range(1e-3, 1e4, log=True)', '"alpha": Range(1e-2, 1e4, log=True)')
    found = changed(before, keys_of_all())
    assert "tuning-ridge" in found
    assert not {"tuning-lasso", "tuning-xgboost", "eda", "preprocessing"} & found


@pytest.mark.parametrize("plan", [Plan(FAMILIES, 3), Plan(FAMILIES, 2, seed=7)])
def test_a_changed_parameter_changes_the_steps_that_take_it(project, plan):
    found = changed(keys_of_all(), keys_of_all(plan))
    assert {f"tuning-{name}" for name in FAMILIES} <= found
    assert not {"eda", "preprocessing"} & found


def test_the_id_of_the_run_is_no_part_of_a_key(project):
    steps = [{step.id: step for step in graph.make_steps(Plan(FAMILIES, 2), run)} for run in "ab"]
    for each in steps:
        reuse.identify(each, each["tuning-ridge"])
    assert steps[0]["tuning-ridge"].key == steps[1]["tuning-ridge"].key


def test_words_of_a_notebook_are_apart_from_its_key(project):
    before = keys_of_all()
    path = project / "notebooks" / "01_eda.ipynb"
    content = json.loads(path.read_text())
    content["cells"][0]["source"] = ["# Another title?"]
    path.write_text(json.dumps(content))
    after = keys_of_all()
    assert after["eda"][0] == before["eda"][0]
    assert after["eda"][1] != before["eda"][1]


def test_a_code_cell_of_a_notebook_is_its_own_step_s(project):
    before = keys_of_all()
    path = project / "notebooks" / "01_eda.ipynb"
    content = json.loads(path.read_text())
    content["cells"][2]["source"] = ["1 + 1"]
    path.write_text(json.dumps(content))
    assert changed(before, keys_of_all()) == {"eda"}


def test_the_lock_file_is_part_of_every_key(project, monkeypatch):
    before = keys_of_all()
    monkeypatch.setattr(keys, "lock_digest", lambda: "another")
    assert changed(before, keys_of_all()) == set(before)


def test_magics_are_no_reason_to_fail():
    assert keys.modules_reached("%matplotlib inline\n!ls\nfrom housing_lib import files") == {
        "files"
    }


def test_syntax_trees_are_made_one_after_the_other(monkeypatch):
    at_once, most = [], []

    def parse(source):
        at_once.append(source)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.remove(source)
        return ast.Module([], [])

    monkeypatch.setattr(parameters.ast, "parse", parse)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(keys.syntax_tree, map(str, range(8))))
    assert (len(most), max(most)) == (8, 1)


def test_how_results_are_shown_is_no_part_of_a_search():
    """So that other words throw no kept trial away."""
    shown = {"summary", "tables", "plots", "charts", "rendering", "pages", "card", "terminal"}
    assert not keys.modules_reached("", ["tuning"]) & shown
