"""The ledger and the stages agree, whoever is killed or comes at the same time."""

import json
import os
import shutil
import subprocess
import sys
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
    for one in rounds:
        assert sorted(one["said"]) == ["overtaken", "promoted"], one
        winner = one["challengers"][one["said"].index("promoted")]
        assert one["after"]["found"]["production"] == winner
        assert one["after"]["found"]["previous"] == one["before"]["settled"]["production"]
        assert one["after"]["found"] == one["after"]["replayed"]
    assert {one["before"]["settled"]["production"] for one in rounds} > {2}


def test_a_kill_at_any_moment_leaves_one_production_version_and_a_ledger_that_says_it(three):
    rounds = collide(three, "kill", 20)
    for one in rounds:
        after = one["after"]
        moved = after["line"] > one["before"]["line"]
        expected = one["before"]["settled"]["production"]
        assert after["found"]["production"] is not None
        assert after["found"]["production"] == expected or moved
        assert after["settled"] == after["replayed"]
        assert (after["settled"]["production"] != expected) == moved
        assert after["damage"] == []
    outcomes = [one["after"]["line"] > one["before"]["line"] for one in rounds]
    assert {True, False} == set(outcomes)
