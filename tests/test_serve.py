"""A real server, asked over HTTP, answers with the model's own numbers and refuses the rest."""

import asyncio
import io
import json
import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from serving import running_server

from housing_lib.data import CONTRACT, FEATURES, PRICE_CAP
from serve.guard import LARGEST_BODY, Guard
from serve.schemas import EXAMPLE_DISTRICT, MOST_ROWS
from serve.service import Service


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    """The server of the session's store, and afterwards the proof that no request made it fail."""
    with running_server(store.root, tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running
    assert "Traceback" not in running.printed


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
    assert all(set(one) - {"row"} == {"field", "problem", "found", "expected"} for one in listed)
    return {one["field"]: one for one in listed}


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
    expected = {"status": "ready", "model_version": store.registered.version}
    server.wait_for(lambda status: status == expected)
    assert server.get("/health/ready").status_code == 200


def test_the_documentation_states_bounds_units_examples_and_refusals(server):
    document = server.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/predict",
        "/predict/batch",
        "/actuals",
        "/model",
        "/districts/nearest",
        "/health/live",
        "/health/ready",
    }
    schemas = document["components"]["schemas"]
    number = schemas["District"]["properties"]["MedInc"]["anyOf"][0]
    assert (number["minimum"], number["maximum"]) == (
        CONTRACT["MedInc"].low,
        CONTRACT["MedInc"].high,
    )
    assert schemas["District"]["properties"]["MedInc"]["unit"] == CONTRACT["MedInc"].unit
    assert schemas["District"]["required"] == list(FEATURES)
    assert schemas["Prediction"]["examples"]
    documented = set(document["paths"]["/predict"]["post"]["responses"])
    assert documented == {"200", "401", "403", "408", "413", "422", "503"}


def test_everything_that_is_taken_or_answered_has_an_example(server):
    document = server.get("/openapi.json").json()
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document["paths"])))
    schemas = document["components"]["schemas"]
    assert [name for name in named if not schemas[name].get("examples")] == []
    tables = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
    answer = server.post(
        "/predict/batch",
        content=tables["text/csv"]["example"],
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 200


def test_a_parameter_that_a_route_does_not_take_is_refused_as_documented(server):
    found = problems(server.get("/districts/nearest", params={"latitude": 99}))
    assert found["latitude"]["found"] == '"99"'
    assert found["longitude"]["problem"] == "missing"
    answer = server.post("/predict", params={"explain": "perhaps"}, json=district())
    assert set(problems(answer)) == {"explain"}


def test_the_example_of_an_answer_has_the_fields_of_an_answer(server):
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    answer = server.post("/predict", json=schemas["District"]["examples"][0]).json()
    assert set(schemas["Prediction"]["examples"][0]) == set(answer)


def test_the_documentation_loads_nothing_from_elsewhere(server):
    page = server.get("/docs")
    assert page.status_code == 200
    for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert source.startswith("/docs/static/")
        assert server.get(source).status_code == 200


def batch(rows):
    """The body of a batch of real districts."""
    return {"districts": rows[list(FEATURES)].to_dict("records")}


def test_a_batch_is_answered_in_its_order_with_the_models_prices(server, store):
    rows = store.test.head(2_500)
    found = server.post("/predict/batch", json=batch(rows)).json()["predictions"]
    prices = [one["predicted_median_house_value"] for one in found]
    expected = store.registered.model.predict(rows[list(FEATURES)])
    np.testing.assert_allclose(prices, expected, rtol=0, atol=1e-6)
    assert len({one["prediction_id"] for one in found}) == len(rows)


def as_csv(table):
    return table.to_csv(index=False).encode()


def as_parquet(table):
    return table.to_parquet(index=False)


def as_arrow(table):
    import pyarrow as pa

    sink = io.BytesIO()
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    with pa.ipc.new_stream(sink, arrow.schema) as stream:
        stream.write_table(arrow)
    return sink.getvalue()


def from_arrow(content):
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all().to_pandas()


KINDS = {
    "text/csv": (as_csv, lambda content: pd.read_csv(io.BytesIO(content))),
    "application/vnd.apache.parquet": (
        as_parquet,
        lambda content: pd.read_parquet(io.BytesIO(content)),
    ),
    "application/vnd.apache.arrow.stream": (as_arrow, from_arrow),
}


def send_table(server, kind, table):
    """The answer to a table as a body of that kind."""
    body = KINDS[kind][0](table)
    return server.post("/predict/batch", content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_answered_with_a_table_of_the_same_kind(server, store, kind):
    rows = store.test[list(FEATURES)].head(50).assign(name="left out")
    answer = send_table(server, kind, rows)
    assert answer.headers["content-type"].startswith(kind)
    found = KINDS[kind][1](answer.content)
    expected = store.registered.model.predict(rows[list(FEATURES)])
    np.testing.assert_allclose(found["predicted_median_house_value"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_table_is_refused_with_row_and_column(server, store, kind):
    rows = store.test[list(FEATURES)].head(5).copy()
    rows.loc[3, "MedInc"] = 99
    (found,) = send_table(server, kind, rows).json()["problems"]
    assert (found["row"], found["field"], found["problem"]) == (3, "MedInc", "above 20")
    refused = send_table(server, kind, rows.drop(columns="Latitude"))
    assert problems(refused)["Latitude"]["problem"] == "column is missing"
    headers = {"Content-Type": kind}
    assert problems(server.post("/predict/batch", content=b"\x00PK", headers=headers))


@pytest.mark.parametrize("value", [b"3.5x", b"2026-11-23", b"12:00", b"true", b"\xff\xfe"])
def test_what_is_no_number_in_a_table_is_not_taken_for_one(server, value):
    names, given = ",".join(FEATURES).encode(), b",".join([value, *[b"1"] * 5, b"37", b"-122"])
    headers = {"Content-Type": "text/csv"}
    answer = server.post("/predict/batch", content=names + b"\n" + given, headers=headers)
    assert problems(answer)["MedInc"]["problem"] == "not a number"


def test_every_bad_row_of_a_batch_is_named_and_nothing_is_predicted(server):
    rows = [district(), district(MedInc=-1), district(Latitude="x"), dict.fromkeys(FEATURES)]
    answer = server.post("/predict/batch", json={"districts": rows})
    found = [(one["row"], one["field"], one["found"]) for one in answer.json()["problems"]]
    assert found == [(1, "MedInc", "-1"), (2, "Latitude", '"x"'), (3, "(body)", "null")]
    assert "predictions" not in answer.json()


@pytest.mark.parametrize("count", [0, MOST_ROWS + 1])
def test_a_batch_of_no_or_too_many_districts_is_refused(server, count):
    found = problems(server.post("/predict/batch", json={"districts": [district()] * count}))
    assert found["districts"]["found"] == f"{count:,}"


def test_a_name_that_stands_twice_is_refused(server):
    twice = GOOD.replace(b'"HouseAge"', b'"MedInc": 3, "HouseAge"')
    assert problems(send(server, twice))["MedInc"]["problem"] == "given more than once"
    body = b'{"districts": [' + twice + b"]}"
    headers = {"Content-Type": "application/json"}
    answer = server.post("/predict/batch", content=body, headers=headers)
    assert problems(answer)["MedInc"]["problem"] == "given more than once"


def test_a_kind_of_body_that_is_not_read_is_refused(server):
    headers = {"Content-Type": "application/xml"}
    answer = server.post("/predict/batch", content=b"<x/>", headers=headers)
    assert answer.status_code == 415
    assert "text/csv" in answer.json()["problems"][0]["expected"]


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


def logged(root, prediction_id):
    """The row of the prediction log with that id, once it is there."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with sqlite3.connect(root / "data" / "serving" / "predictions.db") as connection:
            connection.row_factory = sqlite3.Row
            query = "select * from predictions where prediction_id = ?"
            row = connection.execute(query, [prediction_id]).fetchone()
        connection.close()
        if row:
            return row
        time.sleep(0.1)
    return None


def test_every_answer_is_in_the_log_with_its_features(server, store):
    answer = server.post("/predict", json=district(Population=None)).json()
    row = logged(store.root, answer["prediction_id"])
    assert row["price"] == answer["predicted_median_house_value"]
    assert row["MedInc"] == EXAMPLE_DISTRICT["MedInc"]
    assert row["Population"] is None
    assert row["model_version"] == answer["model_version"]


def truth(price, **of):
    """The body of one true price."""
    one = {"median_house_value": price, "observed_at": "2026-11-23T12:00:00Z", **of}
    return {"actuals": [one]}


def test_a_true_price_is_recorded_once_and_never_contradicted(server):
    named = server.post("/predict", json=district()).json()["prediction_id"]
    for of in ({"prediction_id": named}, {"features": district(HouseAge=17)}):
        first = server.post("/actuals", json=truth(3.5, **of))
        again = server.post("/actuals", json=truth(3.5, **of))
        other = server.post("/actuals", json=truth(3.6, **of))
        assert first.json() == {"recorded": 1, "already_known": 0}
        assert again.json() == {"recorded": 0, "already_known": 1}
        assert other.status_code == 409
        (found,) = other.json()["problems"]
        assert (found["found"], found["expected"]) == ("3.6", "3.5")


def test_a_true_price_of_an_unknown_prediction_is_refused_and_the_others_too(server):
    features = district(HouseAge=18)
    both = truth(2.0, features=features)["actuals"] + truth(3.5, prediction_id="no")["actuals"]
    assert server.post("/actuals", json={"actuals": both}).status_code == 409
    alone = server.post("/actuals", json=truth(2.0, features=features))
    assert alone.json() == {"recorded": 1, "already_known": 0}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (truth(99, prediction_id="x"), "median_house_value"),
        (truth(3.5), "(row)"),
        (truth(3.5, prediction_id="x", observed_at="yesterday"), "observed_at"),
        (truth(3.5, prediction_id="x", observed_at="2026-11-23"), "observed_at"),
        (truth(3.5, prediction_id="x", features=EXAMPLE_DISTRICT), "(row)"),
        (truth(3.5, features=EXAMPLE_DISTRICT | {"MedInc": 99}), "MedInc"),
        (truth(3.5, prediction_id="x", prise=3), "prise"),
        ({"actuals": []}, "actuals"),
        ([], "(body)"),
    ],
)
def test_what_is_no_true_price_is_refused(server, body, field):
    assert field in problems(server.post("/actuals", json=body))


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
