"""Whoever asked to be told is told, and whoever is away fails nothing."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from housing_lib import notify, pipeline
from housing_lib.graph import Plan
from housing_lib.settings import get_settings


@pytest.fixture
def listener():
    """A server that keeps what it is told."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
        server.shutdown()
        thread.join()


def ask(monkeypatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"HOUSING_NOTIFY_{name}", value)
    get_settings.cache_clear()


def test_a_failed_run_is_told_to_an_address_and_to_a_command(tiny, listener, monkeypatch, tmp_path):
    address, heard = listener
    script = f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read())"
    ask(monkeypatch, URL=address, COMMAND=f'{sys.executable} -c "{script}"')
    done = pipeline.run_steps("bad-run", Plan((), 0), [tiny.make("bad", "1 / 0")])
    assert done.untold == []
    (news,) = heard
    assert (news["kind"], news["run"], news["state"]) == ("run", "bad-run", "failed")
    assert "ZeroDivisionError" in news["steps"]["bad"]
    assert json.loads((tmp_path / "told").read_text()) == news


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://127.0.0.1:port"])
def test_a_target_that_is_away_is_named_without_its_address(own_root, monkeypatch, address):
    ask(monkeypatch, URL=f"{address}/secret-path", COMMAND="/no/such/command")
    faults = notify.tell("alarm", what="drift")
    assert [fault.split(" could")[0] for fault in faults] == [
        "HOUSING_NOTIFY_URL",
        "HOUSING_NOTIFY_COMMAND",
    ]
    assert "secret-path" not in "".join(faults)


def test_nobody_is_told_where_nobody_asked(own_root):
    assert notify.tell("alarm", what="drift") == []


def test_secrets_are_not_told(own_root, listener, monkeypatch):
    address, heard = listener
    monkeypatch.setenv("SOME_TOKEN", "canary-1234")
    ask(monkeypatch, URL=address)
    notify.tell("alarm", what="it failed with canary-1234")
    assert "canary" not in json.dumps(heard)
