"""A server that is stopped, or loses a worker, loses no answer that it gave."""

import http.client
import json
import signal
import threading
import time

import httpx2
import psutil
from serving import JSON, QUICK, gauge, logged, move_production, running_server

from housing_lib.data import FEATURES
from serve.schemas import EXAMPLE_DISTRICT


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
    return [one for one in psutil.Process(server.process.pid).children() if is_worker(one)]


def is_worker(process):
    """Whether a process answers requests; one that ended meanwhile does not."""
    try:
        return "multiprocessing.spawn" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_a_worker_that_is_killed_under_load_is_replaced_and_the_others_answer(own_store, tmp_path):
    second = own_store[2]
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
        moved = {"status": "ready", "model_version": second}
        server.wait_for(lambda status: status == moved and len(workers_of(server)) == 2)
        for one in pressing:
            one.ended.set()
            one.join()
        assert not all(one.lost for one in pressing)
        old = {named for one in pressing for named, at in one.answered if at < killed - 1}
        assert old <= logged(root)


def test_workers_end_with_whoever_started_them_however_that_ended(own_store, tmp_path):
    with running_server(own_store[0], tmp_path / "log", "--workers", "2") as server:
        assert_others_answer(server)
        below = psutil.Process(server.process.pid).children(recursive=True)
        assert sum(map(is_worker, below)) == 2
        server.process.kill()
        _, alive = psutil.wait_procs(below, timeout=30)
        assert not any(map(is_worker, alive))


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
