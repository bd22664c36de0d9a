"""The server follows Production, and nothing that breaks around it breaks an answer."""

import http.client
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import mlflow
import psutil
import pytest
from serving import running_server
from sklearn.linear_model import LinearRegression

from housing_lib import deployment, families, registry, tracking
from housing_lib.data import FEATURES
from housing_lib.settings import get_settings
from serve.schemas import EXAMPLE_DISTRICT

JSON = {"Content-Type": "application/json"}
QUICK = {"HOUSING_POLL_SECONDS": "0.3"}


def move_production(version):
    """Let Production be another version, as any MLflow client can."""
    tracking.client().set_registered_model_alias(get_settings().model_name, "production", version)


def register_another(store):
    """The number of a second version."""
    train = store.test
    model = families.make_model("decision_tree", {"max_depth": 5}).fit(train, train["MedHouseVal"])
    tags = {"family": "decision_tree"}
    with tracking.run("evaluation", "second", params={}, tags=tags) as run_id:
        uri = tracking.log_model(model, train)
    tags |= {"run_id": run_id, "data_digest": store.registered.data_digest}
    return registry.register(uri, tags=tags)


@pytest.fixture(scope="module")
def own_store(store, tmp_path_factory):
    """A copy of the session's store with a second version, whose Production may be moved."""
    root = tmp_path_factory.mktemp("following") / "root"
    shutil.copytree(store.root, root, ignore=shutil.ignore_patterns("serving"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for its children
        patch.setenv("HOUSING_ROOT", str(root))
        get_settings.cache_clear()
        tracking.client.cache_clear()
        second = register_another(store)
        deployment.publish(second)
        yield root, store.registered.version, second
    get_settings.cache_clear()
    tracking.client.cache_clear()


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


def predict(server):
    """The answer to the example."""
    return server.post("/predict", json=EXAMPLE_DISTRICT)


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


def gauge(server, name):
    """The value of a metric."""
    lines = server.get("/metrics").text.splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)


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


def test_a_log_that_is_locked_fails_no_prediction_and_gets_its_rows_later(server, own_store):
    path = own_store[0] / "data" / "serving" / "predictions.db"
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


def test_a_full_disk_fails_no_prediction_and_gets_its_rows_later(server, own_store):
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
    assert set(ids) <= logged(own_store[0])


def logged(root):
    """The ids of all answers in the log."""
    connection = sqlite3.connect(root / "data" / "serving" / "predictions.db")
    found = {row[0] for row in connection.execute("select prediction_id from predictions")}
    connection.close()
    return found


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


def new_key(scopes):
    """A key, and its entry in the settings, from the command line."""
    command = [Path(sys.executable).with_name("housing"), "key", "someone", "--scopes", scopes]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    secret, entry = (line.split()[-1] for line in printed.splitlines())
    return secret, entry


@pytest.fixture(scope="module")
def guarded(own_store, tmp_path_factory):
    """A server with keys, a strict log and room for one request, and the keys."""
    (caller, first), (operator, second) = new_key("predict"), new_key("metrics,actuals")
    variables = {
        "HOUSING_API_KEYS": f"{first}, {second}",
        "HOUSING_STRICT_LOG": "true",
        "HOUSING_CONCURRENCY": "1",
        **QUICK,
    }
    log_path = tmp_path_factory.mktemp("guarded") / "server.log"
    with running_server(own_store[0], log_path, **variables) as running:
        yield running, caller, operator
    assert caller not in running.printed


def test_each_key_opens_its_own_routes_and_no_others(guarded):
    server, caller, operator = guarded
    opened = {
        key: [
            server.post("/predict", json=EXAMPLE_DISTRICT, headers={"X-API-Key": key}).status_code,
            server.get("/metrics", headers={"Authorization": f"Bearer {key}".strip()}).status_code,
            server.post("/actuals", json={}, headers={"X-API-Key": key}).status_code,
        ]
        for key in (caller, operator, "wrong", "")
    }
    assert opened == {
        caller: [200, 403, 403],
        operator: [403, 200, 422],
        "wrong": [401, 401, 401],
        "": [401, 401, 401],
    }
    assert server.get("/").status_code == server.get("/health/ready").status_code == 200


def test_a_strict_answer_is_in_the_database_when_it_is_given(guarded, own_store):
    server, caller, _ = guarded
    answer = server.post("/predict", json=EXAMPLE_DISTRICT, headers={"X-API-Key": caller})
    connection = sqlite3.connect(own_store[0] / "data" / "serving" / "predictions.db")
    query = "select price from predictions where prediction_id = ?"
    (price,) = connection.execute(query, [answer.json()["prediction_id"]]).fetchone()
    connection.close()
    assert price == answer.json()["predicted_median_house_value"]


def test_half_a_body_is_given_up_and_meanwhile_others_are_told_to_wait(guarded):
    server, caller, _ = guarded
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {caller}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.base_url.port)) as half:
        half.sendall(f"{head}{{".encode())
        time.sleep(0.3)
        busy = server.post("/predict", json=EXAMPLE_DISTRICT, headers={"X-API-Key": caller})
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        assert server.get("/health/live").status_code == 200
        half.settimeout(20)
        assert half.recv(200).startswith(b"HTTP/1.1 408")


def test_an_open_door_without_keys_is_refused_unless_said_twice(own_store):
    command = [Path(sys.executable).with_name("housing"), "serve", "--host", "0.0.0.0"]
    for more in ([], ["--without-keys"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "HOUSING_WITHOUT_KEYS" in done.stderr
        assert "Nothing was started" in done.stderr


def test_a_stop_finishes_the_batch_that_is_in_flight(own_store, store, tmp_path):
    rows = store.test[list(FEATURES)].to_dict("records")
    body = json.dumps({"districts": rows}).encode()
    with running_server(own_store[0], tmp_path / "server.log", **QUICK) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.base_url.port, timeout=60)
        connection.request("POST", "/predict/batch", headers=JSON | {"Content-Length": len(body)})
        connection.send(body[:1000])
        server.wait_for(lambda _: gauge(server, "housing_in_flight") == 2)  # with this question
        server.process.send_signal(signal.SIGTERM)
        connection.send(body[1000:])
        answer = connection.getresponse()
        found = {one["prediction_id"] for one in json.load(answer)["predictions"]}
        connection.close()
        server.process.wait(timeout=40)
    assert len(found) == len(rows)
    assert found <= logged(own_store[0])


class Pressing(threading.Thread):
    """Requests over one connection, by default as fast as they are answered, until it is closed."""

    pause_s = 0.0

    def __init__(self, server):
        super().__init__()
        self.port, self.answered, self.lost = server.base_url.port, [], None
        self.ended = threading.Event()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            while not self.ended.wait(self.pause_s):
                connection.request("POST", "/predict", json.dumps(EXAMPLE_DISTRICT), JSON)
                answer = connection.getresponse()
                named = json.loads(answer.read())["prediction_id"]
                self.answered.append((named, time.monotonic()))
                if answer.headers["connection"] == "close":
                    self.ended.set()
        except (http.client.HTTPException, OSError) as error:
            self.lost = error
        finally:
            connection.close()


def press(server, connections=8):
    """So many connections under load, which all have been answered already."""
    pressing = [Pressing(server) for _ in range(connections)]
    for one in pressing:
        one.start()
    server.wait_for(lambda _: all(one.answered for one in pressing))
    return pressing


def test_a_stop_under_load_loses_no_request_and_no_row(own_store, tmp_path):
    with running_server(own_store[0], tmp_path / "server.log", **QUICK) as server:
        pressing = press(server)
        server.process.send_signal(signal.SIGTERM)
        for one in pressing:
            one.join()
        server.process.wait(timeout=40)
    assert [one.lost for one in pressing] == [None] * len(pressing)
    assert {named for one in pressing for named, _ in one.answered} <= logged(own_store[0])


def workers_of(server):
    """The worker processes of a server."""
    return [
        one
        for one in psutil.Process(server.process.pid).children()
        if "multiprocessing.spawn" in " ".join(one.cmdline())
    ]


def test_a_worker_that_is_killed_under_load_is_replaced_and_the_others_answer(
    own_store, versions, tmp_path
):
    _, second = versions
    root, log_path = tmp_path / "root", tmp_path / "server.log"  # its follower is its own
    variables = {"HOUSING_TRACKING_URI": f"sqlite:///{own_store[0] / 'mlflow.db'}", **QUICK}
    with running_server(root, log_path, "--workers", "2", **variables) as server:
        assert_others_answer(server)  # so that both have a model
        pressing = press(server)
        time.sleep(2)
        keeper = next(one for one in workers_of(server) if one.children())
        keeper.kill()
        killed = time.monotonic()
        move_production(second)
        assert_others_answer(server)
        for one in pressing:
            one.pause_s = 0.02  # still hundreds a second, and a core for the worker that starts
        server.wait_for(lambda status: status == {"status": "ready", "model_version": second})
        assert len(workers_of(server)) == 2
        for one in pressing:
            one.ended.set()
            one.join()
        assert not all(one.lost for one in pressing)
        old = {named for one in pressing for named, at in one.answered if at < killed - 1}
        assert old <= logged(root)


def assert_others_answer(server):
    """Assert that twenty new connections in a row are answered, soon."""
    deadline, answered = time.monotonic() + 20, 0
    while answered < 20 and time.monotonic() < deadline:
        try:  # a new connection each, so that both workers are asked
            answer = httpx2.post(f"{server.base_url}/predict", json=EXAMPLE_DISTRICT, timeout=5)
            answered = answered + 1 if answer.status_code == 200 else 0
        except httpx2.TransportError:
            answered = 0
    assert answered == 20
