"""The ledger and the stages agree, whoever is killed or comes at the same time."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from housing_lib import ledger, registry, tracking


@pytest.fixture
def three(store, own_root):
    """A store of three versions, the first two of which stood in Production."""
    shutil.copy(store.root / "mlflow.db", own_root / "mlflow.db")
    uri = tracking.client().get_model_version("california-housing", "1").source
    tags = {"family": "xgboost", "run_id": "", "data_digest": ""}
    for version in (2, 3):
        assert registry.register(uri, tags=tags) == version
    move(2)
    return own_root


def move(version):
    """A promotion that no gate was asked about."""
    line = ledger.replay(ledger.history()).line
    before = registry.stage_version("production")
    return ledger.append(ledger.Decision("promoted", version, before, ["a test"], follows=line))


def collide(root, kind, rounds, seed=0):
    """What came of promoters that collide or are killed."""
    script = Path(__file__).with_name("promoters.py")
    command = [sys.executable, "-W", "ignore", str(script), kind, str(rounds), str(seed)]
    environment = os.environ | {"HOUSING_ROOT": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_of_two_promoters_exactly_one_wins_and_the_other_is_told(three):
    rounds = collide(three, "race", 10)
    for one, then in pairwise(rounds):
        assert sorted(said["decision"] for said in one["said"]) == ["overtaken", "promoted"], one
        (winner,) = (said["version"] for said in one["said"] if said["decision"] == "promoted")
        after = then["before"]
        assert after["found"]["production"] == winner
        assert after["found"]["previous"] == one["before"]["settled"]["production"]
        assert after["found"] == after["replayed"]
        assert after["damage"] == []


def test_a_kill_at_any_moment_leaves_one_production_version_and_a_ledger_that_says_it(three):
    rounds = [one["before"] for one in collide(three, "kill", 20)]
    moved = [after["lines"] > before["lines"] for before, after in pairwise(rounds)]
    for before, after, written in zip(rounds, rounds[1:], moved, strict=False):
        expected = before["settled"]["production"]
        assert after["found"]["production"] == expected or written
        assert after["found"]["production"] is not None
        assert after["settled"] == after["replayed"]
        assert (after["settled"]["production"] != expected) == written
        assert after["damage"] == []
    assert {True, False} == set(moved)
