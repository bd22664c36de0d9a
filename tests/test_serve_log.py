"""Whatever becomes of the log, predictions are answered, and the log gets them later."""

import asyncio
import shutil
import sqlite3
import time

import psutil
import pytest
from serving import QUICK, gauge, logged, predict, running_server

from serve import service, tables
from serve.schemas import EXAMPLE_DISTRICT


@pytest.fixture(scope="module")
def root(store, tmp_path_factory):
    """A copy of the session's store with a log of its own."""
    own = tmp_path_factory.mktemp("logged") / "root"
    shutil.copytree(store.root, own, ignore=shutil.ignore_patterns("serving"))
    return own


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    """A server of that store."""
    with running_server(root, tmp_path_factory.mktemp("log") / "server.log", **QUICK) as running:
        yield running


def test_a_log_that_is_locked_fails_no_prediction_and_gets_its_rows_later(server, root):
    path = root / "data" / "serving" / "predictions.db"
    predict(server)
    server.wait_for(lambda _: path.exists() and gauge(server, "housing_log_waiting") == 0)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("begin exclusive")
    try:
        named = predict(server).json()["prediction_id"]
        server.wait_for(lambda _: gauge(server, "housing_log_spooled") > 0)
        assert predict(server).status_code == 200
        truth = {"median_house_value": 3.5, "observed_at": "2026-11-23T12:00:00Z"}
        truths = {"actuals": [truth | {"features": EXAMPLE_DISTRICT}]}
        assert server.post("/actuals", json=truths).status_code == 503
    finally:
        lock.execute("rollback")
    server.wait_for(lambda _: gauge(server, "housing_log_waiting") == 0)
    query = "select count(*) from predictions where prediction_id = ?"
    assert lock.execute(query, [named]).fetchone() == (1,)
    lock.close()


def test_a_full_disk_fails_no_prediction_and_gets_its_rows_later(server, root):
    process = psutil.Process(server.process.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))  # no file takes another byte
    try:
        ids = [predict(server).json()["prediction_id"] for _ in range(20)]
        time.sleep(1)
        ids += [predict(server).json()["prediction_id"] for _ in range(20)]
        assert gauge(server, "housing_log_waiting") >= len(ids)
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)
    server.wait_for(lambda _: gauge(server, "housing_log_waiting") == 0)
    assert gauge(server, "housing_log_dropped") == 0
    assert set(ids) <= logged(root)


def test_true_prices_are_refused_for_good_where_the_log_is_off(root, tmp_path):
    with running_server(root, tmp_path / "server.log", HOUSING_PREDICTION_LOG="off") as server:
        truth = {"median_house_value": 3.5, "observed_at": "2026-11-23T12:00:00Z"}
        truths = {"actuals": [truth | {"features": EXAMPLE_DISTRICT}]}
        refused = server.post("/actuals", json=truths)
    assert refused.status_code == 503
    assert "retry-after" not in refused.headers
    assert "is off" in refused.json()["detail"]
    assert "switched the log on" in refused.json()["what_to_do"]


def test_a_strict_answer_is_in_the_database_when_it_is_given(root, tmp_path):
    with running_server(root, tmp_path / "server.log", HOUSING_STRICT_LOG="true") as strict:
        answer = predict(strict).json()
        connection = sqlite3.connect(root / "data" / "serving" / "predictions.db")
        query = "select price from predictions where prediction_id = ?"
        (price,) = connection.execute(query, [answer["prediction_id"]]).fetchone()
        connection.close()
    assert price == answer["predicted_median_house_value"]


def test_a_strict_answer_that_cannot_be_kept_is_refused_and_never_logged(root, tmp_path):
    path = root / "data" / "serving" / "predictions.db"
    with running_server(root, tmp_path / "server.log", HOUSING_STRICT_LOG="true") as strict:
        before = logged(root) | {predict(strict).json()["prediction_id"]}
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("begin exclusive")
        try:
            refused = predict(strict)
        finally:
            lock.execute("rollback")
            lock.close()
        assert refused.status_code == 503
        assert "none stays in the log" in refused.json()["detail"]
        after = []
        strict.wait_for(lambda _: after.append(predict(strict)) or after[-1].status_code == 200)
    assert logged(root) == before | {after[-1].json()["prediction_id"]}
    assert "answers are refused" in strict.printed


def test_a_batch_that_cannot_be_answered_is_not_logged(own_root, monkeypatch):
    def fail(*given):
        raise ValueError("cannot be written")

    one, logged = service.Service(), []
    monkeypatch.setattr(one.following, "current", lambda: None)
    monkeypatch.setattr(one, "_keep", lambda *given: logged.append(given))
    monkeypatch.setattr(one, "_log_rows", lambda *given: ["row"])
    monkeypatch.setattr(service.bodies, "read_batch", lambda *given: ["district"])
    monkeypatch.setattr(service, "_predict", lambda *given: ["prediction"])
    monkeypatch.setattr(service, "_written", fail)
    with pytest.raises(ValueError, match="cannot be written"):
        asyncio.run(one.predict_batch(b"", tables.CSV))
    assert logged == []
