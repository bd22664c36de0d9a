"""The ledger and the stages agree, whoever is killed or comes at the same time."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from housing_lib import ledger, parts, promotion, registry, tracking
from housing_lib.settings import get_settings


@pytest.fixture
def three(store, own_root):
    """A store of three versions, the first two of which stood in Production."""
    shutil.copy(store.root / "mlflow.db", own_root / "mlflow.db")
    shutil.copytree(store.root / "data", own_root / "data")
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


@pytest.fixture
def server(three, monkeypatch):
    """An MLflow server process over the store of three versions, to which this process turns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{three / 'mlflow.db'}", "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (three / "server.log").open("w")
    process = subprocess.Popen(command, env=environment, cwd=three, stdout=log, stderr=log)
    monkeypatch.setenv("HOUSING_TRACKING_URI", f"http://127.0.0.1:{port}")
    try:
        _wait_for(port, process)
        forget_store()
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def _wait_for(port, process, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    pytest.fail("the MLflow server did not start")


def forget_store():
    """Let the next call open the store anew."""
    get_settings.cache_clear()
    tracking.client.cache_clear()


def test_a_server_process_keeps_the_same_promises_and_its_end_holds(server, three):
    before = registry.load_version(2).model.predict(parts.load_part("test").districts)
    move(3)
    assert promotion.promote(1).decision == "held"  # the real gate, which misses a metric
    assert registry.rollback().version == 2
    found = registry.load()
    assert found.version == 2
    np.testing.assert_array_equal(found.model.predict(parts.load_part("test").districts), before)
    server.terminate()
    server.wait(timeout=20)
    decision = promotion.promote(1)
    assert decision.decision == "held"
    assert "the registry cannot be asked or written" in decision.reasons[0]


def test_whoever_moves_a_stage_late_leaves_it_where_the_ledger_has_it(three, monkeypatch):
    moves, move_stage = [], ledger._move

    def roll_back_meanwhile(stage, version):
        if not moves:
            moves.append(stage)
            line = ledger.replay(ledger._read()).line
            ledger._write(ledger.Decision("rolled back", 2, 3, ["a test"], follows=line))
            ledger._settle()
        move_stage(stage, version)

    monkeypatch.setattr(ledger, "_move", roll_back_meanwhile)
    move(3)
    assert registry.stage_version("production") == ledger.settle().production == 2
    assert ledger.damage() == []
