"""Who may call a server, and how much at a time."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import running_server

from housing_lib.settings import PROJECT, get_settings
from serve import guard, launch
from serve.schemas import EXAMPLE_DISTRICT


def new_key(scopes):
    """A key, and its entry in the settings, from the command line."""
    command = [Path(sys.executable).with_name("housing"), "key", "someone", "--scopes", scopes]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    secret, entry = (line.split()[-1] for line in printed.splitlines())
    return secret, entry


@pytest.fixture(scope="module")
def guarded(store, tmp_path_factory):
    """A server with keys and room for one request, and the keys."""
    (caller, first), (operator, second) = new_key("predict"), new_key("metrics,actuals")
    variables = {
        "HOUSING_API_KEYS": f"{first}, {second}",
        "HOUSING_CONCURRENCY": "1",
    }
    log_path = tmp_path_factory.mktemp("guarded") / "server.log"
    with running_server(store.root, log_path, **variables) as running:
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


def test_the_way_in_which_a_key_is_sent_may_be_written_in_any_case(guarded):
    server, caller, _ = guarded
    for kind in ("Bearer", "bearer", "BEARER "):
        headers = {"Authorization": f"{kind} {caller}"}
        assert server.get("/model", headers=headers).status_code == 200
    assert server.get("/model", headers={"Authorization": f"Basic {caller}"}).status_code == 401


def test_the_prefix_of_a_proxy_opens_no_route(store, tmp_path):
    caller, entry = new_key("predict")
    more = ("--root-path", "/prices")
    with running_server(store.root, tmp_path / "log", *more, HOUSING_API_KEYS=entry) as server:
        for path in ("/model", "/metrics"):
            assert server.get(path).status_code == 401
        assert server.get("/model", headers={"X-API-Key": caller}).status_code == 200


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


def test_a_body_that_nobody_asked_for_is_not_waited_for(guarded):
    server, *_ = guarded
    with socket.create_connection(("127.0.0.1", server.base_url.port)) as half:
        half.sendall(b"POST /nothing HTTP/1.1\r\nHost: LocalHost\r\nContent-Length: 99\r\n\r\n{")
        half.settimeout(5)
        assert half.recv(200).startswith(b"HTTP/1.1 404")


def test_names_of_hosts_are_the_same_in_any_case_and_addresses_stand_in_brackets(monkeypatch):
    monkeypatch.setenv("HOUSING_HOSTS", "Prices.Example.org")
    monkeypatch.setenv("HOUSING_HOST", "fd00::5")
    get_settings.cache_clear()
    names = guard.allowed_hosts(get_settings())
    get_settings.cache_clear()
    assert {b"prices.example.org", b"[fd00::5]"} <= names


def test_an_open_door_without_keys_is_refused_unless_said_twice():
    command = [Path(sys.executable).with_name("housing"), "serve", "--host", "0.0.0.0"]
    for more in ([], ["--without-keys"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "HOUSING_WITHOUT_KEYS" in done.stderr
        assert "Nothing was started" in done.stderr


def test_a_server_of_one_process_answers_to_its_own_address(monkeypatch):
    monkeypatch.setenv("HOUSING_HOST", "127.0.0.1")
    monkeypatch.setattr(launch.uvicorn, "run", lambda *_, **__: None)
    assert b"127.0.0.7" not in guard.allowed_hosts(get_settings())
    launch.launch("127.0.0.7", None, 1, without_keys=False)
    assert b"127.0.0.7" in guard.allowed_hosts(get_settings())
    get_settings.cache_clear()


def test_keys_that_cannot_be_read_start_no_server_however_it_is_started(monkeypatch):
    monkeypatch.setenv("HOUSING_API_KEYS", "bad")
    assert_starts_no_server("entry 1 is not name:scopes:sha256")


def test_answers_that_would_wait_for_a_log_that_is_off_start_no_server(monkeypatch):
    monkeypatch.setenv("HOUSING_STRICT_LOG", "true")
    monkeypatch.setenv("HOUSING_PREDICTION_LOG", "off")
    assert_starts_no_server("HOUSING_STRICT_LOG is true and HOUSING_PREDICTION_LOG is off")


@pytest.mark.parametrize("name", ["foo", "no-such-database://host/name"])
def test_a_log_whose_name_is_no_address_starts_no_server(monkeypatch, name):
    monkeypatch.setenv("HOUSING_PREDICTION_LOG", name)
    assert_starts_no_server("HOUSING_PREDICTION_LOG names no database that can be written")


def assert_starts_no_server(reason):
    """Assert that both ways to start a server end at once, and say why."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    housing = [str(Path(sys.executable).with_name("housing")), "serve"]
    uvicorn = [sys.executable, "-m", "uvicorn", "serve.app:app"]
    for command, code in ((housing, 2), (uvicorn, 1)):
        done = subprocess.run(
            [*command, "--port", port], capture_output=True, text=True, timeout=60, cwd=PROJECT
        )
        assert done.returncode == code
        assert reason in done.stderr
