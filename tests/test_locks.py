"""Who finds a lock that cannot be taken is told so, whichever lock it is."""

import os

import pytest
from filelock import FileLock

from housing_lib import data, growth, locks, retraining, runs
from housing_lib.errors import HousingError
from housing_lib.settings import get_settings


def take_run():
    with runs.holding_root(wait=False):
        pass


def take_retraining():
    with retraining.alone():
        pass


def take_growth():
    growth.grow(data.acquire().head(1).assign(fault=""))


@pytest.mark.parametrize(
    ("lock", "take"),
    [
        ("reports/.lock", take_run),
        ("data/grown/.retraining.lock", take_retraining),
        ("data/grown/.lock", take_growth),
    ],
)
def test_a_lock_that_cannot_be_written_is_named_with_its_owner(own_root, lock, take):
    (own_root / lock).mkdir(parents=True)  # which root cannot write either
    with pytest.raises(locks.LockError) as caught:
        take()
    assert f"{own_root / lock} cannot be taken: " in str(caught.value)
    assert f"belongs to {(own_root / lock).owner()}" in str(caught.value)
    assert "Nothing was run" in str(caught.value)


def test_a_lock_of_a_user_without_a_name_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "owner", lambda self: {}[os.getuid()])
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(locks.LockError, match=r"lock cannot be taken: Is a directory\. Expected"),
        locks.holding(tmp_path / "lock", timeout_s=0, taken=HousingError),
    ):
        pass


def test_a_lock_is_free_once_its_holder_is_done(tmp_path):
    path = tmp_path / "new" / "lock"
    with (
        locks.holding(path, timeout_s=0, taken=HousingError),
        pytest.raises(HousingError),
        locks.holding(path, timeout_s=0, taken=HousingError),
    ):
        pass
    with locks.holding(path, timeout_s=0, taken=HousingError):
        pass


def test_who_adds_districts_while_another_does_for_long_is_told(own_root, monkeypatch):
    monkeypatch.setattr(growth, "_LOCK_TIMEOUT_S", 0)
    get_settings().grown.mkdir(parents=True)
    with (
        FileLock(get_settings().grown / ".lock"),
        pytest.raises(data.DataError, match="held by another process"),
    ):
        take_growth()
