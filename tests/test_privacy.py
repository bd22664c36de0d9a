"""What reads like a secret is known by its name, and its value is cut out of whatever is kept."""

import os

import pytest

from housing_lib import privacy, provenance
from housing_lib.settings import get_settings


@pytest.mark.parametrize(
    "name", ["api_key", "API_KEYS", "accessToken", "DB_PASSWORD", "client-secret", "HOUSING_TOKEN"]
)
def test_a_name_that_says_secret(name):
    assert privacy.is_secret_name(name)


@pytest.mark.parametrize("name", ["monkey", "keyboard", "model_name", "tokenizer", "n_trials", ""])
def test_a_name_that_does_not(name):
    assert not privacy.is_secret_name(name)


def test_secrets_are_cut_out_of_texts_lists_and_dictionaries():
    content = {"a": ["x abcdef y", {"b": "abcdefgh"}], "n": 3}
    hidden = privacy.hide(content, ["abcdefgh", "abcdef"])
    assert hidden == {"a": ["x [hidden] y", {"b": "[hidden]"}], "n": 3}


def test_passwords_in_addresses_and_secret_variables_are_secrets(monkeypatch):
    monkeypatch.setenv("STORE", "postgresql://me:pass-word@host:5432/db")
    monkeypatch.setenv("MY_TOKEN", "abcdefghi")
    monkeypatch.setenv("SHORT_KEY", "abc")
    found = privacy.secret_values()
    assert {"pass-word", "abcdefghi"} <= set(found)
    assert "abc" not in found


def test_the_form_of_a_notebook_survives_an_unlucky_password():
    output = {"output_type": "stream", "name": "stdout", "text": "a stream of words"}
    hidden = privacy.hide(output, ["stream"])
    assert hidden == output | {"text": "a [hidden] of words"}


def test_passwords_in_settings_and_in_the_command_are_secrets(monkeypatch):
    settings = get_settings().model_copy(update={"notify_url": "https://me:of-the-hook@hook/"})
    monkeypatch.setattr(privacy, "get_settings", lambda: settings)
    typed = ["/bin/housing", "monitor", "postgresql://me:of-the-log@db/log", "--act"]
    monkeypatch.setattr("sys.argv", typed)
    assert {"of-the-hook", "of-the-log"} <= set(privacy.secret_values())
    assert provenance.command() == "housing monitor postgresql://me:[hidden]@db/log --act"


def test_a_user_without_a_name_is_a_number(monkeypatch):
    def fail():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", fail)
    assert provenance.user() == str(os.getuid())
