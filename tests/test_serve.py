"""A real server, asked over HTTP, answers with the model's own numbers and refuses the rest."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx2
import numpy as np
import pandas as pd
import pytest

from housing_lib.data import CONTRACT, FEATURES, PRICE_CAP
from housing_lib.scoring import predict_file
from housing_lib.settings import PROJECT
from serve.schemas import EXAMPLE_DISTRICT, LARGEST_BODY

START_TIMEOUT_S = 60


@contextmanager
def running_server(root, log_path, **variables):
    """A uvicorn process on a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {key: value for key, value in os.environ.items() if "TRACKING_URI" not in key}
    command = [sys.executable, "-m", "uvicorn", "serve.app:app", "--port", str(port)]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**inherited, "HOUSING_ROOT": str(root), **variables},
            stdout=log,
            stderr=log,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_until_live(client, process, log_path)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_live(client, process, log_path):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            assert client.get("/health/live").json() == {"status": "live"}
            return
        except httpx2.TransportError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log_path.read_text()}")


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    """The server of the session's store, and afterwards the proof that no request made it fail."""
    log_path = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(store.root, log_path) as client:
        yield client
    assert "Traceback" not in log_path.read_text()


def district(**changes):
    """The body of one good district, changed."""
    return {**EXAMPLE_DISTRICT, **changes}


def send(server, body):
    """The answer to a body of raw bytes that calls itself JSON."""
    return server.post("/predict", content=body, headers={"Content-Type": "application/json"})


def problems(response):
    """The problems of a refusal by field, once it is proved that it is a documented one."""
    assert response.status_code == 422, response.text
    listed = response.json()["problems"]
    assert all(set(one) == {"field", "problem", "found", "expected"} for one in listed)
    return {one["field"]: one for one in listed}


def test_http_file_and_model_give_the_same_price_to_a_millionth(server, store, tmp_path):
    rows = store.test[list(FEATURES)].head(40)
    rows.to_parquet(tmp_path / "in.parquet")
    scored = predict_file(
        tmp_path / "in.parquet", tmp_path / "out.csv", registered=store.registered
    )
    answers = [server.post("/predict", json=row).json() for row in rows.to_dict("records")]
    over_http = [answer["predicted_median_house_value"] for answer in answers]
    from_file = pd.read_csv(scored.path)["predicted_median_house_value"]
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
    answer = server.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "model_version": store.registered.version}


def test_the_documentation_states_bounds_units_examples_and_refusals(server):
    document = server.get("/openapi.json").json()
    assert {"/predict", "/model", "/health/live", "/health/ready"} == set(document["paths"])
    schemas = document["components"]["schemas"]
    number = schemas["District"]["properties"]["MedInc"]["anyOf"][0]
    assert (number["minimum"], number["maximum"]) == (
        CONTRACT["MedInc"].low,
        CONTRACT["MedInc"].high,
    )
    assert schemas["District"]["properties"]["MedInc"]["unit"] == CONTRACT["MedInc"].unit
    assert schemas["District"]["required"] == list(FEATURES)
    assert schemas["Prediction"]["examples"]
    assert {"200", "413", "422", "503"} == set(document["paths"]["/predict"]["post"]["responses"])


def test_the_example_of_an_answer_has_the_fields_of_an_answer(server):
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    answer = server.post("/predict", json=schemas["District"]["examples"][0]).json()
    assert set(schemas["Prediction"]["examples"][0]) == set(answer)


def test_the_root_leads_to_the_documentation(server):
    assert server.get("/").headers["location"] == "/docs"
    assert server.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "no version of california-housing stands in Production"),
        ({"HOUSING_TRACKING_URI": "sqlite:////nowhere/mlflow.db"}, "cannot be opened"),
    ],
    ids=["no Production", "no store"],
)
def test_without_a_model_the_server_lives_and_says_the_way_out(tmp_path, variables, reason):
    with running_server(tmp_path, tmp_path / "server.log", **variables) as client:
        for answer in (
            client.get("/health/ready"),
            client.get("/model"),
            client.post("/predict", json=district()),
        ):
            assert answer.status_code == 503
            assert reason in answer.json()["detail"]
            assert "`housing run`" in answer.json()["what_to_do"]
        assert client.get("/health/live").status_code == 200
    assert "`housing run`" in (tmp_path / "server.log").read_text()
