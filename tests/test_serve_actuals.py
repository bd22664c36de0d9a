"""Every answer is in the log, and the true price of one is recorded once."""

import json
import sqlite3
import time
from contextlib import closing, suppress

import pytest
from serving import JSON, district, problems

from serve.schemas import EXAMPLE_DISTRICT


def logged(root, prediction_id):
    """The row of the prediction log with that id, once it and its table are there."""
    path, deadline = root / "data" / "serving" / "predictions.db", time.monotonic() + 5
    query = "select * from predictions where prediction_id = ?"
    while time.monotonic() < deadline:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            if row := connection.execute(query, [prediction_id]).fetchone():
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
        (truth(3.5, prediction_id="x", observed_at="0001-01-01T00:00:00+14:00"), "observed_at"),
        (truth(3.5, prediction_id="x", observed_at="9999-12-31T23:59:59-12:00"), "observed_at"),
        (truth(3.5, prediction_id="x", observed_at="1899-12-31T23:59:59Z"), "observed_at"),
        (truth(3.5, prediction_id="x", observed_at="20261123T120000Z"), "observed_at"),
        (truth(3.5, prediction_id="x", observed_at="2026-11-23T12:00Z"), "observed_at"),
        (truth(3.5, prediction_id='x"'), "prediction_id"),
        (truth(3.5, features=dict.fromkeys(EXAMPLE_DISTRICT)), "(body)"),
        (truth(3.5, prediction_id="x", features=EXAMPLE_DISTRICT), "(row)"),
        (truth(3.5, features=EXAMPLE_DISTRICT | {"MedInc": 99}), "MedInc"),
        (truth(3.5, prediction_id="x", prise=3), "prise"),
        ({"actuals": []}, "actuals"),
        ([], "(body)"),
    ],
)
def test_what_is_no_true_price_is_refused(server, body, field):
    assert field in problems(server.post("/actuals", json=body))


@pytest.mark.parametrize("name", ["prediction_id", "median_house_value", "observed_at"])
def test_a_name_that_stands_twice_in_a_true_price_is_refused(server, name):
    body = json.dumps(truth(3.5, prediction_id="x"))
    first = json.dumps(truth(2.5, prediction_id="y")["actuals"][0][name])
    twice = body.replace(f'"{name}"', f'"{name}": {first}, "{name}"')
    refused = server.post("/actuals", content=twice, headers=JSON)
    assert problems(refused)[name]["problem"] == "given more than once"
