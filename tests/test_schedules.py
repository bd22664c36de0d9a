"""The schedules call what there is, as it is called."""

import ast
import re
import shlex

import pytest
import typer

from housing_lib import cli
from housing_lib.parameters import parameters_of
from housing_lib.settings import PROJECT

FOLDER = PROJECT / "serve" / "schedules"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_command_in_a_schedule_is_one_that_the_command_line_takes(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    called = re.findall(r"\.venv/bin/housing ([^>|\"\n]+)", "\n".join(lines))
    group = typer.main.get_command(cli.app)
    assert called or path.suffix == ".timer"
    for words in map(shlex.split, called):
        context = group.commands[words[0]].make_context(words[0], words[1:])  # or it raises
        assert context.info_name == words[0]


def test_the_dag_hands_the_notebook_parameters_that_it_takes():
    tree = ast.parse((FOLDER / "housing_dag.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    operator = next(one for one in calls if ast.unparse(one.func) == "PapermillOperator")
    given = next(word.value for word in operator.keywords if word.arg == "parameters")
    known = parameters_of(PROJECT / "notebooks" / "05_monitoring.ipynb")
    assert set(ast.literal_eval(given)) <= set(known)


def test_the_timer_has_its_service():
    assert (FOLDER / "housing-monitor.service").exists()
    assert "OnCalendar=" in (FOLDER / "housing-monitor.timer").read_text()
