"""The floors of the house: who may import whom, and which door leads outside."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import typer
import yaml

from housing_lib import cli
from housing_lib.settings import PROJECT, Settings

# Imports point down only: a module may import those of the floors below its own.
FLOORS = [
    {"errors"},
    {
        "settings",
        "files",
        "locks",
        "unreadable",
        "contract",
        "arrays",
        "jit",
        "quick_schemas",
        "verdict",
    },
    {"privacy"},
    {
        "provenance",
        "data",
        "parameters",
        "terminal",
        "graph",
        "notify",
        "shallow",
        "networks",
        "searching",
        "prediction_tables",
        "storage",
        "processes",
        "studies",
    },
    {
        "keys",
        "runs",
        "alarms",
        "sources",
        "compiled_features",
        "forests",
        "estimators",
        "compute",
        "answer_log",
        "nearness",
    },
    {"records", "journal"},
    {"parts", "sufficiency", "places", "summary", "compiled", "growth", "movement"},
    {"neighbours", "geography", "charts", "flags", "traffic", "simulation", "gains"},
    {"features", "exploration", "watch", "accuracy", "guarded", "quality"},
    {"model", "decision"},
    {"families"},
    {"evaluation", "explanations", "answers", "causes", "makeup"},
    {"blend", "intervals", "growing"},
    {"compiling"},
    {"series"},
    {"batches"},
    {"monitoring"},
    {"card", "tables", "plots", "gate", "trials"},
    {"tuning", "evidence", "trust"},
    {"connection", "reports", "kernels", "search_findings"},
    {"tracking"},
    {"ledger", "rendering", "printing", "supervision", "sessions", "findings", "tracked_runs"},
    {"registry", "pages"},
    {"store", "execution"},
    {"reuse", "housekeeping", "comparison", "work", "deployment"},
    {"promotion", "answering"},
    {"predictions"},
    {"targets"},
    {"scoring"},
    {"steps"},
    {"pipeline", "preload", "retraining"},
    {"console"},
    {"run_commands", "past_commands"},
    {"action_commands"},
    {"monitor_command"},
    {"cli"},
]
SIBLINGS: set[tuple[str, str]] = set()
DOORS = {
    "mlflow": {
        "connection",
        "tracking",
        "tracked_runs",
        "sessions",
        "ledger",
        "registry",
        "preload",
        "deployment",
    },
    "numba": {"jit"},
    "papermill": {"execution", "supervision", "preload"},
    "nbconvert": {"rendering", "preload"},
    "optuna": {"tuning", "trials", "studies", "growing"},
    "distributed": {"compute"},
    "skops": {"trust", "preload"},
    "matplotlib": {"plots", "tracking"},
    "seaborn": {"plots"},
}
LIBRARY = PROJECT / "housing_lib"
MODULES = {
    path.stem: sorted(path.rglob("*.py")) if path.is_dir() else [path]
    for path in LIBRARY.iterdir()
    if (path / "__init__.py").exists() or (path.suffix == ".py" and path.stem != "__init__")
}


def _imports(paths) -> set[str]:
    found = set()
    for node in chain.from_iterable(ast.walk(ast.parse(path.read_text())) for path in paths):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _own(name: str) -> set[str]:
    parts = [
        entry.split(".") for entry in _imports(MODULES[name]) if entry.startswith("housing_lib")
    ]
    return {entry[1] for entry in parts if len(entry) > 1 and entry[1] in MODULES} - {name}


def test_every_module_stands_on_one_floor():
    assert sorted(name for floor in FLOORS for name in floor) == sorted(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
    level = {module: number for number, floor in enumerate(FLOORS) for module in floor}
    for imported in _own(name):
        allowed = level[imported] < level[name] or (name, imported) in SIBLINGS
        assert allowed, f"{name} imports {imported}"


@pytest.mark.parametrize(("library", "doors"), DOORS.items())
def test_each_outside_system_has_its_door(library, doors):
    users = {
        name
        for name, paths in MODULES.items()
        if any(entry.split(".")[0] == library for entry in _imports(paths))
    }
    assert users <= doors


def test_the_server_imports_neither_pandas_nor_scikit_learn_nor_mlflow():
    code = "import sys, serve.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "sklearn", "mlflow", "xgboost", "pickle5"} & set(done.stdout.split())


def test_help_and_refusals_do_not_wait_for_what_commands_need():
    code = "import sys, housing_lib.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "numpy", "pandas", "mlflow"} & set(done.stdout.split())


def test_every_module_begins_with_what_it_knows():
    for path in [*LIBRARY.rglob("*.py"), *(PROJECT / "serve").glob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_conda_users_get_the_same_packages_as_everybody():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    python, pip, listed = environment["dependencies"]
    assert listed["pip"] == ["-r requirements.lock", "--editable ."]
    assert pip == "pip"
    assert project["requires-python"] == f">={python.removeprefix('python=')}.5"


def test_the_examples_of_docstrings_say_what_they_give():
    shown = [path for path in LIBRARY.rglob("*.py") if ">>> " in path.read_text()]
    for path in shown:
        named = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        tried = doctest.testmod(importlib.import_module(named.removesuffix(".__init__")))
        assert tried.attempted > 0 == tried.failed, named


def test_a_pull_request_is_held_to_the_same_as_a_landing():
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_hooks_before_a_commit_run_tools_of_the_environment():
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    (local,) = hooks["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        tool = Path(hook["entry"].split()[0])
        assert tool.parent == Path(".venv/bin")
        assert Path(sys.executable).with_name(tool.name).exists(), hook["id"]


def test_the_lock_holds_every_dependency_and_no_address_and_nothing_for_gpus():
    lock = (PROJECT / "requirements.lock").read_text().lower()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in wanted:
        name = re.split(r"[><=\[ ;]", requirement)[0].lower()
        assert re.search(rf"^{re.escape(name)}(\[.*\])?==", lock, flags=re.MULTILINE), name
    assert "://" not in lock
    assert "nvidia" not in lock
    assert re.search(r"^xgboost==.*sys_platform != 'linux'", lock, flags=re.MULTILINE)


def test_the_readme_names_every_command_and_setting_and_what_is_on_the_disk():
    readme = (PROJECT / "README.md").read_text()
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"^([a-z]+):.*## ", makefile, flags=re.MULTILINE):
        assert f"make {target}" in readme or target == "help", target
    for command in typer.main.get_command(cli.app).commands:
        assert f"housing {command}" in readme, command
    for name in Settings.model_fields:
        assert f"HOUSING_{name.upper()}" in readme, name
    for folder in ("notebooks", "housing_lib", "data", "reports", "serve", "tests"):
        assert f"{folder}/" in readme
    tree = readme.split("## Where things are")[1].split("## Settings")[0]
    kept = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    for name in {path.split("/")[0] for path in kept.stdout.splitlines()} - {".gitignore"}:
        assert name in tree, name
