"""The README's own words: its commands are taken, and its examples answer."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import scoreboard
import typer

from housing_lib import cli, flags
from housing_lib.contract import FAR_KM, USD_PER_UNIT
from housing_lib.settings import PROJECT, Settings

README = (PROJECT / "README.md").read_text()
COMMANDS = typer.main.get_command(cli.app).commands


CONTRIBUTING = (PROJECT / "CONTRIBUTING.md").read_text()
# What the table of settings says of a default in words.
IN_WORDS = {
    "this folder": str(PROJECT),
    "SQLite under the root": "",
    "files in `data/studies/`": "",
}
IN_WORDS |= {"SQLite in `data/serving/`": "", **dict.fromkeys(("none", "nobody", "all"), "")}


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


def _told_defaults():
    """The default of each setting as the table tells it."""
    rows = re.findall(r"^\| (`HOUSING_\w+`.*?) \| (.*?) \| ", README, flags=re.MULTILINE)
    for names, told in rows:
        known = re.findall(r"HOUSING_(\w+)", names)
        defaults = told.split(", ")
        yield from zip(known, defaults * (len(known) // len(defaults)), strict=True)


def _written(default):
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, int | float) else str(default)


def test_the_defaults_of_settings_are_those_that_hold():
    told = {name.lower(): IN_WORDS.get(default, default) for name, default in _told_defaults()}
    assert told.pop("key") == ""  # of `housing simulate` alone
    fields = Settings.model_fields
    assert told == {name: _written(field.default) for name, field in fields.items()}


def test_every_flag_of_an_answer_is_explained():
    for flag in flags.FLAGS:
        assert f"| `{flag}` |" in README
    assert f"{flags.NEAR_CAP * USD_PER_UNIT:,.0f} USD or more" in README
    assert f"within {FAR_KM:.0f} km" in README


NAME = r"[` ]([a-z_]+\.(?!toml|lock|joblib)\w+)[`\]]"


@pytest.mark.parametrize("name", sorted(set(re.findall(NAME, CONTRIBUTING))))
def test_what_contributing_names_is_there(name):
    module, attribute = name.split(".")
    assert hasattr(importlib.import_module(f"housing_lib.{module}"), attribute)


PATH = r"(?<![\w/.-])(?:tests|serve|housing_lib|\.github|\.ci)/[\w./-]*\w"


@pytest.mark.parametrize("path", sorted(set(re.findall(PATH, README + CONTRIBUTING))))
def test_every_file_that_is_named_is_there(path):
    assert (PROJECT / path).exists()


@pytest.fixture(scope="module")
def port(server):
    return str(server.client.base_url.port)


def test_the_examples_in_shell_python_and_javascript_get_the_same_answer(port, tmp_path):
    curl, _, _ = _curls()
    (python,), (javascript,) = _blocks("python"), _blocks("javascript")
    curl, python, javascript = (one.replace("8000", port) for one in (curl, python, javascript))
    script = tmp_path / "example.mjs"
    script.write_text(javascript)
    answer = json.loads(_printed("bash", words=curl))
    price = answer["predicted_median_house_value_usd"]
    assert float(_printed(sys.executable, words=python)) == price
    assert float(_printed(_node(), str(script))) == price


def test_the_examples_of_a_batch_and_of_a_true_price_are_taken(port):
    one, batch, truth = (json.loads(_printed("bash", words=curl)) for curl in _curls(port))
    (same,) = batch["predictions"]
    assert same["predicted_median_house_value"] == one["predicted_median_house_value"]
    assert truth["recorded"] == 1


def _curls(port="8000"):
    """The calls of the server in a shell, each of which is a block of its own."""
    blocks = [block for block in _blocks("") if block.startswith("curl")]
    return [block.replace("8000", port) for block in blocks]


def _printed(*command, words=None):
    return subprocess.run(command, input=words, capture_output=True, text=True, check=True).stdout


def _node():
    """Node, on the PATH or as it comes with playwright."""
    import playwright

    carried = f"{playwright.__path__[0]}/driver/node"
    return shutil.which("node") or carried
