"""The README's own words: its commands are taken, and its examples answer."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import scoreboard
import typer

from housing_lib import cli
from housing_lib.settings import PROJECT

README = (PROJECT / "README.md").read_text()
COMMANDS = typer.main.get_command(cli.app).commands


def _blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def _lines():
    """Every `housing` command in a block, without its comment."""
    text = "\n".join(_blocks("")).replace("\\\n", "")
    lines = [re.split(r"\s[#>]", line)[0].rstrip("& ") for line in text.splitlines()]
    return [line for line in lines if line.startswith("housing ")]


@pytest.mark.parametrize("line", _lines())
def test_every_command_is_one_that_the_program_takes(line):
    _, name, *arguments = shlex.split(line)
    COMMANDS[name].make_context(name, arguments)


def test_the_scoreboard_is_what_was_measured():
    shown = README.split(scoreboard.MARKS[0])[1].split(scoreboard.MARKS[1])[0]
    assert shown.strip() == scoreboard.readme_table()


@pytest.fixture(scope="module")
def port(server):
    return str(server.client.base_url.port)


def test_the_examples_in_shell_python_and_javascript_get_the_same_answer(port, tmp_path):
    (curl,) = [block for block in _blocks("") if block.startswith("curl")]
    (python,), (javascript,) = _blocks("python"), _blocks("javascript")
    curl, python, javascript = (one.replace("8000", port) for one in (curl, python, javascript))
    script = tmp_path / "example.mjs"
    script.write_text(javascript)
    answer = json.loads(_printed("bash", words=curl))
    price = answer["predicted_median_house_value_usd"]
    assert float(_printed(sys.executable, words=python)) == price
    assert float(_printed(_node(), str(script))) == price


def _printed(*command, words=None):
    return subprocess.run(command, input=words, capture_output=True, text=True, check=True).stdout


def _node():
    """Node, on the PATH or as it comes with playwright."""
    import playwright

    carried = f"{playwright.__path__[0]}/driver/node"
    return shutil.which("node") or carried
