"""A real server in a process of its own, for the tests that ask it over HTTP."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2
import pytest

from housing_lib import families, registry, tracking
from housing_lib.settings import PROJECT, get_settings
from serve.launch import PROTOCOL
from serve.schemas import EXAMPLE_DISTRICT

START_TIMEOUT_S = 90
JSON = {"Content-Type": "application/json"}
QUICK = {"HOUSING_POLL_SECONDS": "0.3"}


class Server:
    """A running server, its client, and what it printed."""

    def __init__(self, process, client, log_path):
        self.process, self.client, self.log_path = process, client, log_path

    def __getattr__(self, name):
        return getattr(self.client, name)

    @property
    def printed(self):
        """Everything that the server printed so far."""
        return self.log_path.read_text()

    def status(self):
        """What the server says of itself."""
        return self.client.get("/health/ready").json()

    def wait_for(self, condition, *, seconds=90):
        """Wait until the status fulfils a condition; the status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.status()
            if condition(status):
                return status
            time.sleep(0.1)
        pytest.fail(f"after {seconds} s the server says {status}:\n{self.printed[-3000:]}")


@contextmanager
def running_server(root, log_path, *arguments, answers=True, **variables):
    """A server of `root` on a free port, with a model that answers, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {key: value for key, value in os.environ.items() if "TRACKING_URI" not in key}
    command = [sys.executable, "-m", "uvicorn", "serve.app:app", "--http", PROTOCOL]
    command += ["--port", str(port), *arguments]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**inherited, "HOUSING_ROOT": str(root), **variables},
            stdout=log,
            stderr=log,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=address, trust_env=False, timeout=30) as client:
            server = Server(process, client, log_path)
            _wait_until_live(server)
            if answers:
                server.wait_for(lambda status: "model_version" in status, seconds=90)
            yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=40)


def _wait_until_live(server):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            assert server.get("/health/live").json() == {"status": "live"}
            return
        except httpx2.TransportError:
            time.sleep(0.05)
    pytest.fail(f"the server did not start:\n{server.printed}")


def district(**changes):
    """The body of one good district, changed."""
    return {**EXAMPLE_DISTRICT, **changes}


def problems(response):
    """The problems of a refusal by field, once it is proved that it is a documented one."""
    assert response.status_code == 422, response.text
    listed = response.json()["problems"]
    assert all(set(one) - {"row"} == {"field", "problem", "found", "expected"} for one in listed)
    return {one["field"]: one for one in listed}


def predict(server):
    """The answer to the example."""
    return server.post("/predict", json=EXAMPLE_DISTRICT)


def gauge(server, name):
    """The value of a metric."""
    lines = server.get("/metrics").text.splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def logged(root):
    """The ids of all answers in the log."""
    connection = sqlite3.connect(root / "data" / "serving" / "predictions.db")
    found = {row[0] for row in connection.execute("select prediction_id from predictions")}
    connection.close()
    return found


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
