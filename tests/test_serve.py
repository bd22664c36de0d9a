"""A real server, asked over HTTP, answers with the model's own numbers and refuses the rest."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from serving import district, problems

from housing_lib.data import CONTRACT, FEATURES, PRICE_CAP
from serve import metrics
from serve.access_log import AccessLog
from serve.guard import LARGEST_BODY, Guard
from serve.schemas import EXAMPLE_DISTRICT
from serve.service import Service


def send(server, body):
    """The answer to a body of raw bytes that calls itself JSON."""
    return server.post("/predict", content=body, headers={"Content-Type": "application/json"})


def test_http_file_and_model_give_the_same_price_to_a_millionth(server, store, housing, tmp_path):
    rows = store.test[list(FEATURES)].head(40)
    rows.to_parquet(tmp_path / "in.parquet")
    paths = [str(tmp_path / name) for name in ("in.parquet", "out.csv")]
    assert housing(store.root, "predict", *paths).returncode == 0
    answers = [server.post("/predict", json=row).json() for row in rows.to_dict("records")]
    over_http = [answer["predicted_median_house_value"] for answer in answers]
    from_file = pd.read_csv(paths[1])["predicted_median_house_value"]
    np.testing.assert_allclose(over_http, store.registered.model.predict(rows), rtol=0, atol=1e-6)
    np.testing.assert_allclose(over_http, from_file, rtol=0, atol=1e-6)


def test_an_answer_says_which_model_said_what_and_when(server, store):
    before = datetime.now(UTC) - timedelta(seconds=1)
    answer = server.post("/predict", json=district()).json()
    assert answer["model_name"] == "california-housing"
    assert answer["model_version"] == store.registered.version
    assert answer["model_stage"] == "Production"
    when = datetime.fromisoformat(answer["request_timestamp"])
    assert before < when < datetime.now(UTC) + timedelta(seconds=1)
    price = answer["predicted_median_house_value"]
    assert answer["predicted_median_house_value_usd"] == pytest.approx(price * 1e5, abs=0.01)
    assert answer["at_cap"] == (price >= PRICE_CAP)
    assert UUID(answer["prediction_id"]).version == 4


@contextmanager
def asked_in_pieces(server, *pieces):
    """A connection on which a request was sent piece by piece."""
    with socket.create_connection(("127.0.0.1", server.base_url.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            time.sleep(0.1)
            connection.sendall(piece)
        yield connection


def test_an_answer_comes_in_one_piece_however_the_question_came(server):
    body = json.dumps(EXAMPLE_DISTRICT).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    at = whole.index(body)
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:50], body[50:])]
    chunked = [head + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]
    halves = [whole[:at], whole[at:]], [whole[: at + 9], whole[at + 9 : at + 30], whole[at + 30 :]]
    for pieces in [[whole]] * 10 + [*halves, chunked]:
        with asked_in_pieces(server, *pieces) as connection:
            found, _, answer = connection.recv(100_000).partition(b"\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 200")
        assert json.loads(answer)["predicted_median_house_value"] > 0


def test_what_has_no_body_is_sent_and_a_connection_closed_when_asked(server):
    head = b"GET %s HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: %s\r\nConnection: close\r\n\r\n"
    tag = server.get("/districts").headers["etag"].encode()
    with asked_in_pieces(server, head % (b"/districts", tag)) as connection:
        assert connection.recv(100_000).startswith(b"HTTP/1.1 304")
        assert connection.recv(1) == b""
    assert server.head("/page/page.css").status_code == 200


def test_every_answer_has_an_id_of_its_own(server):
    ids = {server.post("/predict", json=district()).json()["prediction_id"] for _ in range(5)}
    assert len(ids) == 5


def test_an_unknown_feature_is_imputed_and_named(server, store):
    unknown = {"AveBedrms": None, "Population": None}
    answer = server.post("/predict", json=district(**unknown)).json()
    assert answer["imputed"] == ["AveBedrms", "Population"]
    expected = store.registered.model.predict(pd.DataFrame([district(**unknown)]).astype("float64"))
    assert answer["predicted_median_house_value"] == pytest.approx(expected[0], abs=1e-6)


def test_whole_numbers_and_the_bounds_themselves_are_taken(server):
    for bound in ("low", "high"):
        body = {name: int(getattr(CONTRACT[name], bound)) for name in FEATURES}
        assert server.post("/predict", json=body).status_code == 200


@pytest.mark.parametrize("name", FEATURES)
def test_a_value_outside_its_bounds_is_refused_with_field_and_bound(server, name):
    column = CONTRACT[name]
    for value, word, bound in (
        (column.low - 0.5, "below", column.low),
        (column.high + 0.5, "above", column.high),
    ):
        found = problems(server.post("/predict", json=district(**{name: value})))
        assert found[name]["problem"] == f"{word} {bound:,.10g}"
        assert found[name]["found"] == str(value)
        assert column.unit in found[name]["expected"]


@pytest.mark.parametrize("value", [False, True, "3", "", [], [1], {}, {"a": 1}])
def test_what_is_not_a_number_is_refused_and_not_converted(server, value):
    found = problems(server.post("/predict", json=district(MedInc=value)))
    assert found["MedInc"]["problem"] == "not a number"


def test_a_misnamed_feature_is_refused_with_the_right_name(server):
    body = district(medincome=3)
    del body["MedInc"]
    found = problems(server.post("/predict", json=body))
    assert found["MedInc"]["problem"] == "missing"
    assert "did you mean 'MedInc'?" in found["medincome"]["problem"]


def test_all_problems_of_a_body_are_named_at_once(server):
    found = problems(server.post("/predict", json=district(MedInc=99, Latitude="x", Price=1)))
    assert set(found) == {"MedInc", "Latitude", "Price"}


def test_a_district_of_which_nothing_is_known_is_refused(server):
    found = problems(server.post("/predict", json=dict.fromkeys(FEATURES)))
    assert found["(body)"]["problem"] == "all eight features are null"


GOOD = json.dumps(EXAMPLE_DISTRICT).encode()


MALFORMED = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"3",
    "text": b'"x"',
    "truncated": GOOD[:-20],
    "two objects": GOOD + GOOD,
    "not UTF-8": b"\xff\xfe" + GOOD,
    "zero bytes": b"\x00" * 100,
    "NaN": GOOD.replace(b"8.3252", b"NaN"),
    "Infinity": GOOD.replace(b"8.3252", b"-Infinity"),
    "1e400": GOOD.replace(b"8.3252", b"1e400"),
    "400 digits": GOOD.replace(b"8.3252", b"9" * 400),
    "5,000 digits": GOOD.replace(b"8.3252", b"9" * 5000),
    "deep nesting": b"[" * 100_000,
    "deep nesting in a field": GOOD.replace(b"8.3252", b"[" * 900 + b"]" * 900),
    "half a character": GOOD.replace(b"8.3252", b'"\\ud800"'),
    "half a character as a name": GOOD.replace(b"MedInc", b"\\ud800"),
    "many unknown names": json.dumps({f"x{n}": n for n in range(5000)}).encode(),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_body_is_refused_and_never_breaks_the_server(server, body):
    answer = send(server, body)
    assert problems(answer)
    assert len(answer.content) < 10_000
    assert server.post("/predict", json=district()).status_code == 200


def test_a_name_that_stands_twice_is_refused(server):
    twice = GOOD.replace(b'"HouseAge"', b'"MedInc": 3, "HouseAge"')
    assert problems(send(server, twice))["MedInc"]["problem"] == "given more than once"
    body = b'{"districts": [' + twice + b"]}"
    headers = {"Content-Type": "application/json"}
    answer = server.post("/predict/batch", content=body, headers=headers)
    assert problems(answer)["MedInc"]["problem"] == "given more than once"


def test_a_body_without_its_content_type_is_refused_with_the_header_to_send(server):
    found = problems(server.post("/predict", content=GOOD, headers={"Content-Type": "text/plain"}))
    assert "Content-Type: application/json" in found["(body)"]["found"]


def test_a_body_beyond_the_limit_is_refused(server):
    assert send(server, b" " * (LARGEST_BODY + 1)).status_code == 413


def test_the_model_says_where_it_comes_from_and_what_it_takes(server, store):
    card = server.get("/model").json()
    registered = store.registered
    for key in ("name", "version", "family", "run_id", "data_digest"):
        assert card[key] == getattr(registered, key)
    assert card["stage"] == "Production"
    assert [feature["name"] for feature in card["features"]] == list(FEATURES)
    assert card["features"][0]["unit"] == CONTRACT["MedInc"].unit
    assert datetime.fromisoformat(card["loaded_at"]) < datetime.now(UTC)


def test_a_server_with_a_model_is_ready(server, store):
    expected = {"status": "ready", "model_version": store.registered.version}
    server.wait_for(lambda status: status == expected)
    assert server.get("/health/ready").status_code == 200


def test_a_parameter_that_a_route_does_not_take_is_refused_as_documented(server):
    found = problems(server.get("/districts/nearest", params={"latitude": 99}))
    assert found["latitude"]["found"] == '"99"'
    assert found["latitude"]["problem"] == "above 42.5"
    assert (found["longitude"]["problem"], found["longitude"]["found"]) == ("missing", "nothing")
    assert found["longitude"]["expected"] == "a number from -125 to -114 (degrees)"
    for value, fault in (("1", "below 32"), ("nan", "not a finite number"), ("x", "not a number")):
        place = {"latitude": value, "longitude": -120}
        assert (
            problems(server.get("/districts/nearest", params=place))["latitude"]["problem"] == fault
        )
    answer = server.post("/predict", params={"explain": "perhaps"}, json=district())
    (found,) = problems(answer).values()
    assert (found["field"], found["problem"]) == ("explain", "neither true nor false")


def test_a_batch_is_not_explained_and_says_so(server):
    for body in ({"json": {"districts": [district()]}}, {"content": "MedInc\n1"}):
        answer = server.post("/predict/batch", params={"explain": True}, **body)
        assert problems(answer)["explain"]["expected"].endswith("/predict?explain=true")
    answer = server.post("/predict/batch", params={"explain": 0}, json={"districts": [district()]})
    assert len(answer.json()["predictions"]) == 1


def test_contributions_add_up_to_the_price(server):
    answer = server.post("/predict", params={"explain": True}, json=district()).json()
    explanation = answer["explanation"]
    parts = [one["value_usd"] for one in explanation["contributions"]]
    total = explanation["typical_usd"] + sum(parts)
    assert total == pytest.approx(answer["predicted_median_house_value_usd"], abs=0.05)
    assert len(parts) == 6  # the five strongest, and the others
    assert sorted(parts[:5], key=abs, reverse=True) == parts[:5]
    plain = server.post("/predict", json=district()).json()
    assert plain["predicted_median_house_value"] == answer["predicted_median_house_value"]
    assert "explanation" not in plain


def test_a_place_without_known_districts_is_marked(server):
    desert = server.post("/predict", json=district(Latitude=41.5, Longitude=-114.5)).json()
    assert desert["far_from_training"]
    assert desert["nearest_training_district_km"] > 10
    found = server.get("/districts/nearest", params={"latitude": 41.5, "longitude": -114.5}).json()
    assert found["distance_km"] == pytest.approx(desert["nearest_training_district_km"], abs=0.001)


def test_a_missing_place_is_near_or_far_from_nothing(server):
    nowhere = server.post("/predict", json=district(Latitude=None, Longitude=-124.9)).json()
    assert nowhere["imputed"] == ["Latitude"]
    assert nowhere["nearest_training_district_km"] is None
    assert nowhere["far_from_training"] is False


def test_prometheus_reads_latency_errors_model_and_log(server):
    server.post("/predict", json=district())
    server.post("/predict", json={})
    server.post("/predict/batch", json={"districts": [district()]})
    text = server.get("/metrics").text
    version = server.status()["model_version"]
    for route in ("/predict", "/predict/batch"):
        count = f'housing_request_seconds_count{{route="{route}",version="{version}"}}'
        assert count in text
    for name in ("in_flight", "model_age_seconds", "alias_lag_seconds", "log_waiting", "degraded"):
        assert f"\nhousing_{name}" in text
    assert 'housing_errors_total{kind="refused"}' in text


def test_answers_carry_their_id_and_security_headers(server):
    answer = server.get("/health/live", headers={"X-Request-ID": "a-b.c"})
    assert answer.headers["x-request-id"] == "a-b.c"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    odd = server.get("/health/live", headers={"X-Request-ID": "a b<c>"})
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["x-request-id"])


def test_the_access_log_has_a_line_of_json_a_request(server):
    server.get("/model", headers={"X-Request-ID": "find-me"})
    time.sleep(0.6)
    (line,) = [json.loads(one) for one in server.printed.splitlines() if '"find-me"' in one]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/model", 200)


def test_a_call_by_another_host_name_is_refused(server):
    answer = server.get("/model", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "HOUSING_HOSTS" in answer.json()["what_to_do"]


def test_a_failure_tells_the_caller_neither_what_failed_nor_what_was_sent(own_root):
    async def failing(scope, receive, send):
        raise ValueError("a secret of the server")

    async def receive():
        return {"type": "http.request", "body": b"a secret of the caller", "more_body": False}

    async def send(message):
        sent.append(message)

    sent, scope = [], {"type": "http", "method": "POST", "path": "/actuals", "query_string": b""}
    scope |= {"headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
    asyncio.run(Guard(failing, service=Service())(scope, receive, send))
    assert sent[0]["status"] == 500
    expected = {"detail": "the server failed", "what_to_do": "its log says why"}
    assert json.loads(sent[1]["body"]) == expected


def test_of_workers_those_that_live_are_told_of(tmp_path):
    tell = "from serve import metrics; metrics.log_waiting.set(7); print(flush=True); input()"
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    worker = subprocess.Popen([sys.executable, "-c", tell], env=environment, **pipes)
    worker.stdout.readline()
    assert b"housing_log_waiting 7.0" in metrics.page(str(tmp_path))[0]
    worker.communicate(b"\n")
    assert b"housing_log_waiting 7.0" not in metrics.page(str(tmp_path))[0]


def test_two_workers_forget_the_dead_at_once(tmp_path, monkeypatch):
    def somebody_was_faster(worker, folder):
        (tmp_path / "gauge_livesum_999999999.db").unlink()
        raise FileNotFoundError

    (tmp_path / "gauge_livesum_999999999.db").touch()
    monkeypatch.setattr(metrics, "mark_process_dead", somebody_was_faster)
    content, _ = metrics.page(str(tmp_path))
    assert content == b""


def test_a_request_that_is_noted_while_lines_are_written_has_its_line(capsys):
    lines = AccessLog()
    noted_in = lines._waiting  # as who adds to it may have it in hand while lines are written
    lines.write()
    call = SimpleNamespace(
        request_id=b"late", key="", method="GET", path="/", status=200, version=1
    )
    noted_in.append((time.time(), call, "127.0.0.1", 0.001))
    lines.write()
    assert json.loads(capsys.readouterr().out)["request_id"] == "late"
