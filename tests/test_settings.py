"""Settings mean the same in every process and from every folder."""

import os
import subprocess
import sys

import pytest

from housing_lib.settings import get_settings

ASKED = """
from housing_lib.settings import get_settings
print(get_settings().processed, get_settings().store_uri)
"""


@pytest.fixture
def asked_in(tmp_path, monkeypatch):
    """Settings that were read in a folder, with some variables."""

    def ask(**variables):
        monkeypatch.chdir(tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return get_settings()

    before = dict(os.environ)
    yield ask
    get_settings.cache_clear()
    os.environ.clear()
    os.environ.update(before)


def test_a_relative_place_is_the_same_for_a_process_in_another_folder(asked_in, tmp_path):
    here = asked_in(HOUSING_ROOT="demo", HOUSING_TRACKING_URI="sqlite:///own.db")
    assert here.processed == tmp_path / "demo" / "data" / "processed"
    assert here.store_uri == f"sqlite:///{tmp_path / 'own.db'}"
    (tmp_path / "elsewhere").mkdir()
    there = subprocess.run(
        [sys.executable, "-c", ASKED], cwd="elsewhere", capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == [str(here.processed), here.store_uri]


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:5000",
        "postgresql://me@db/log",
        "sqlite:////abs/log.db",
        "sqlite:///:memory:",
    ],
)
def test_other_addresses_stay_as_they_are(asked_in, address):
    assert asked_in(HOUSING_TRACKING_URI=address).store_uri == address
    assert os.environ["HOUSING_TRACKING_URI"] == address


def test_passwords_are_not_among_what_is_shown_of_settings(asked_in):
    shown = repr(
        asked_in(
            HOUSING_TRACKING_URI="postgresql://me:hunter2@db/x",
            HOUSING_NOTIFY_URL="https://me:hunter2@hook",
            HOUSING_PREDICTION_LOG="postgresql://me:hunter2@db/log",
        )
    )
    assert "hunter2" not in shown
