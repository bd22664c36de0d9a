"""The server follows Production, and nothing that breaks around it breaks an answer."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import mlflow
import psutil
import pytest
from serving import QUICK, gauge, move_production, predict, running_server
from sklearn.linear_model import LinearRegression

from housing_lib import deployment, registry, tracking
from housing_lib.compiled import CompileError
from housing_lib.settings import get_settings
from serve import champion, guard, service
from serve.schemas import EXAMPLE_DISTRICT


@pytest.fixture(scope="module")
def server(own_store, tmp_path_factory):
    """A server of that store, which looks for news three times a second."""
    root, first, _ = own_store
    log_path = tmp_path_factory.mktemp("log") / "server.log"
    with running_server(root, log_path, **QUICK) as running:
        running.wait_for(lambda status: status == {"status": "ready", "model_version": first})
        yield running


@pytest.fixture
def versions(own_store, server):
    """The two versions; Production is the first again afterwards."""
    _, first, second = own_store
    yield first, second
    move_production(first)
    server.wait_for(lambda status: status == {"status": "ready", "model_version": first})


class Caller(threading.Thread):
    """About 50 requests a second over one connection, until it is told to stop."""

    def __init__(self, server):
        super().__init__()
        self.base, self.answers, self.ended = str(server.base_url), [], threading.Event()

    def run(self):
        with httpx2.Client(base_url=self.base, trust_env=False, timeout=10) as client:
            while not self.ended.wait(0.02):
                answer = client.post("/predict", json=EXAMPLE_DISTRICT)
                self.answers.append((answer.status_code, answer.json().get("model_version")))

    def stop(self):
        self.ended.set()
        self.join()


def test_a_new_production_takes_over_under_load_without_a_failed_request(server, versions):
    first, second = versions
    before = predict(server).json()["predicted_median_house_value"]
    caller = Caller(server)
    caller.start()
    started = time.monotonic()
    move_production(second)
    server.wait_for(lambda status: status["model_version"] == second, seconds=10)
    assert time.monotonic() - started < 10
    time.sleep(0.3)
    caller.stop()
    assert {status for status, _ in caller.answers} == {200}
    served = [version for _, version in caller.answers]
    assert served == sorted(served)  # never back to the old one
    assert set(served) == {first, second}
    assert predict(server).json()["predicted_median_house_value"] != before


def test_a_corrupt_artifact_keeps_the_old_model_and_says_why(server, versions, own_store):
    root, (first, second) = own_store[0], versions
    client, name = tracking.client(), get_settings().model_name
    tags = client.get_model_version(name, str(second)).tags
    artifact = next(Path(store_of(tags["run_id"])).rglob(f"{tags[deployment.TAG]}.npz"))
    content = artifact.read_bytes()
    (root / "data" / "serving" / artifact.name).unlink(missing_ok=True)
    artifact.write_bytes(content[: len(content) // 2])
    try:
        move_production(second)
        status = server.wait_for(lambda status: status["status"] == "degraded")
        assert status["model_version"] == first
        assert "is not the file that was compiled" in status["reason"]
        assert predict(server).json()["model_version"] == first
        assert gauge(server, "housing_degraded") == 1
        assert gauge(server, "housing_alias_lag_seconds") > 0
    finally:
        artifact.write_bytes(content)
    server.wait_for(lambda status: status == {"status": "ready", "model_version": second})


def store_of(run_id):
    """The folder of a run's artifacts."""
    return tracking.client().get_run(run_id).info.artifact_uri.removeprefix("file://")


def test_a_model_that_was_changed_after_registration_is_not_taken_over(server, versions):
    first, second = versions
    client, name = tracking.client(), get_settings().model_name
    kept = client.get_model_version(name, str(second)).tags[deployment.TAG]
    client.set_model_version_tag(name, str(second), deployment.TAG, "0" * 64)
    try:
        move_production(second)
        server.wait_for(lambda status: status["status"] == "degraded")
        assert predict(server).json()["model_version"] == first
    finally:
        client.set_model_version_tag(name, str(second), deployment.TAG, kept)


def register_of_other_columns(store):
    """The number of a version whose signature names two columns instead of eight."""
    columns, price = store.test[["MedInc", "HouseAge"]], store.test["MedHouseVal"]
    model = LinearRegression().fit(columns, price)
    with tracking.run("evaluation", "other", params={}, tags={"family": "other"}) as run_id:
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(columns, model.predict(columns)),
            pip_requirements=["scikit-learn"],
        )
    tags = {"family": "other", "run_id": run_id, "data_digest": store.registered.data_digest}
    return registry.register(logged.model_uri, tags=tags)


def test_a_model_with_the_wrong_signature_is_not_taken_over(server, versions, store):
    first, _ = versions
    move_production(register_of_other_columns(store))
    status = server.wait_for(lambda status: "LinearRegression" in status.get("reason", ""))
    assert (status["status"], status["model_version"]) == ("degraded", first)
    assert predict(server).json()["model_version"] == first


def test_a_registry_that_is_locked_keeps_the_model_and_is_followed_once_it_is_free(
    server, versions, own_store
):
    first, second = versions
    lock = sqlite3.connect(own_store[0] / "mlflow.db", isolation_level=None)
    lock.execute("begin exclusive")
    try:
        status = server.wait_for(lambda status: status["status"] == "degraded", seconds=60)
        assert status["model_version"] == predict(server).json()["model_version"] == first
    finally:
        lock.execute("rollback")
        lock.close()
    move_production(second)
    server.wait_for(lambda status: status == {"status": "ready", "model_version": second})


def test_a_registry_that_goes_away_changes_nothing_for_clients(server, versions, own_store):
    root, (first, _) = own_store[0], versions
    (root / "mlflow.db").rename(root / "away.db")
    try:
        status = server.wait_for(lambda status: status["status"] == "degraded")
        assert (status["model_version"], status["reason"]) == (first, "the MLflow store is gone")
        assert predict(server).status_code == 200
        assert not (root / "mlflow.db").exists()
    finally:
        (root / "away.db").rename(root / "mlflow.db")


def test_a_follower_that_is_killed_is_started_anew_and_follows(server, versions):
    _, second = versions
    (follower,) = psutil.Process(server.process.pid).children()
    follower.kill()
    move_production(second)
    server.wait_for(lambda status: status["model_version"] == second)


def test_a_restart_without_the_registry_serves_the_last_verified_model(own_store, server, tmp_path):
    root, first, _ = own_store
    away = {"HOUSING_TRACKING_URI": "sqlite:////nowhere/mlflow.db", **QUICK}
    alone = tmp_path / "root"
    shutil.copytree(root / "data" / "serving", alone / "data" / "serving")
    with running_server(alone, tmp_path / "server.log", answers=False, **away) as running:
        assert predict(running).json()["model_version"] == first
        status = running.wait_for(lambda status: "cannot be opened" in status.get("reason", ""))
        assert status["status"] == "degraded"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "no version of california-housing stands in Production"),
        ({"HOUSING_TRACKING_URI": "sqlite:////nowhere/mlflow.db"}, "cannot be opened"),
    ],
    ids=["no Production", "no store"],
)
def test_without_a_model_the_server_lives_and_says_the_way_out(tmp_path, variables, reason):
    log_path = tmp_path / "server.log"
    with running_server(tmp_path, log_path, answers=False, **variables) as server:
        server.wait_for(lambda status: reason in status["detail"])
        for answer in (server.get("/health/ready"), server.get("/model"), predict(server)):
            assert answer.status_code == 503
            assert reason in answer.json()["detail"]
            assert "`housing run`" in answer.json()["what_to_do"]
            assert answer.headers["retry-after"] == "5"


def test_a_worker_that_could_not_look_looks_again(own_root, monkeypatch):
    """As when it may open no more files for a while."""
    looked = []

    def keep():
        looked.append(len(looked))
        if len(looked) < 3:
            raise OSError(24, "Too many open files")

    async def follow():
        task = asyncio.create_task(one._follow())
        while len(looked) < 4 and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()

    monkeypatch.setattr(service, "AGAIN_AFTER_S", 0.01)
    one = service.Service()
    monkeypatch.setattr(one.follower, "keep", keep)
    asyncio.run(asyncio.wait_for(follow(), 30))
    assert len(looked) >= 4


def test_a_load_that_fails_in_passing_is_tried_again_and_one_of_a_bad_file_is_not(monkeypatch):
    release = champion.Release("name", 1, "Production", "ridge", "", "", "digest")
    monkeypatch.setattr(champion, "read_sighting", lambda: champion.Sighting(release))
    tried = []

    def load(wanted):
        tried.append(wanted)
        passing = OSError(24, "Too many open files") if len(tried) == 1 else ValueError("damaged")
        raise CompileError("cannot be read") from passing

    monkeypatch.setattr(champion, "load_champion", load)
    following = champion.Following()
    for _ in range(4):
        following.look()
    assert len(tried) == 2
    assert following.problem == "cannot be read"


def test_while_the_server_starts_nothing_is_to_be_mended():
    with pytest.raises(champion.StartingError, match="the server is starting") as starting:
        champion.Following().current()
    status, _, notice, headers = guard.failure(starting.value)
    assert (status, notice.what_to_do) == (503, "try again in a second")
    assert headers == {"retry-after": "1"}


def test_a_production_that_came_back_is_served_as_it_should_be(monkeypatch):
    first, second = (
        champion.Release("name", number, "Production", "ridge", "", "", "") for number in (1, 2)
    )
    seen = iter([first, second, second, first, second])
    monkeypatch.setattr(
        champion, "read_sighting", lambda: champion.Sighting(next(seen), at=time.time())
    )
    monkeypatch.setattr(champion, "load_champion", load_but_the_second)
    following = champion.Following()
    faults = []
    for _ in range(5):
        following.look()
        faults.append(following.problem)
    assert faults == ["", "damaged", "damaged", "", "damaged"]
    assert following.current().release == first


def load_but_the_second(wanted):
    """A champion of the first version; the second cannot be loaded."""
    if wanted.version == 2:
        raise ValueError("damaged")
    return champion.Champion(wanted, None, datetime.now(UTC))


def test_how_long_a_version_is_not_taken_over_grows_until_it_is(monkeypatch):
    releases = [champion.Release("name", number, "", "", "", "", "") for number in (1, 2)]
    monkeypatch.setattr(champion, "load_champion", load_but_the_second)
    following = champion.Following()
    for release in releases:
        seen = champion.Sighting(release, at=time.time())
        monkeypatch.setattr(champion, "read_sighting", lambda seen=seen: seen)
        following.look()
    monkeypatch.setattr(champion, "read_sighting", lambda: champion.Sighting(seen.release, at=now))
    now = time.time() + 100
    monkeypatch.setattr(champion.time, "time", lambda: now)
    following.look()
    assert following.lag_seconds >= 100
    monkeypatch.setattr(champion, "read_sighting", lambda: champion.Sighting(releases[0], at=now))
    following.look()
    assert following.lag_seconds == 0


def test_a_follower_that_hangs_ends_with_its_server(own_root):
    follower = champion.Follower()
    follower._process = subprocess.Popen(["sleep", "60"])
    follower._process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    follower.end()
    assert follower._process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 5
