"""The server keeps to its OpenAPI document, as schemathesis reads it."""

import json
import re
from typing import get_type_hints

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from housing_lib.data import CONTRACT, FEATURES
from housing_lib.settings import PROJECT, get_settings
from serve import app, schemas
from serve.guard import SCOPES
from serve.keys import new_key

ROUTES = {
    "/predict": "POST",
    "/predict/batch": "POST",
    "/actuals": "POST",
    "/model": "GET",
    "/districts/nearest": "GET",
    "/health/live": "GET",
    "/health/ready": "GET",
}
CASES = [(route, GenerationMode.POSITIVE) for route in ROUTES]
CASES += [  # the others take nothing that could be wrong
    (route, GenerationMode.NEGATIVE)
    for route in ("/predict", "/predict/batch", "/actuals", "/districts/nearest")
]
EXAMPLES = 25
load_all_checks()
# What a schema allows is not always a district: not all eight may be null, a table is no bytes.
FINER_THAN_A_SCHEMA = CHECKS.get_by_names(["positive_data_acceptance"])


@pytest.fixture(scope="module")
def schema(server):
    """Its document."""
    return schemathesis.openapi.from_dict(server.get("/openapi.json").json())


def test_every_documented_route_is_tried(schema):
    assert set(schema) == set(ROUTES)


@pytest.mark.parametrize(("route", "mode"), CASES)
def test_a_route_answers_what_its_document_says(server, schema, route, mode):
    operation = schema[route][ROUTES[route]]

    @settings(max_examples=EXAMPLES, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps_to_it(case):
        case.call_and_validate(base_url=str(server.base_url), excluded_checks=FINER_THAN_A_SCHEMA)

    keeps_to_it()


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
    assert documented == {"200", "400", "401", "403", "408", "413", "422", "503"}


def test_every_route_says_that_it_answers_no_foreign_host_and_does_not(server):
    for path, item in server.get("/openapi.json").json()["paths"].items():
        (method,) = item
        assert item[method]["responses"]["400"]["description"].startswith("The Host header")
        refused = server.request(method, path, headers={"Host": "evil.example"})
        assert (refused.status_code, set(refused.json())) == (400, {"detail", "what_to_do"})


def test_routes_that_ask_for_a_key_say_where_it_goes_and_what_it_has_to_be_for(
    server, own_root, monkeypatch
):
    _, made = new_key("someone", ["predict"])
    monkeypatch.setenv("HOUSING_API_KEYS", made.entry)
    get_settings.cache_clear()
    guarded = app.create_app().openapi()
    schemes = guarded["components"]["securitySchemes"]
    assert (schemes["ApiKey"]["name"], schemes["Bearer"]["scheme"]) == ("X-API-Key", "bearer")
    asked = {
        path: operation.get("security")
        for path, item in guarded["paths"].items()
        for operation in item.values()
    }
    scopes = {path: SCOPES.get(path) for path in ROUTES}
    assert asked == {
        path: scope and [{"ApiKey": [scope]}, {"Bearer": [scope]}] for path, scope in scopes.items()
    }
    for path, item in server.get("/openapi.json").json()["paths"].items():  # it has no keys
        for operation in item.values():
            assert operation.get("security") == (asked[path] and [*asked[path], {}])
            assert ("401" in operation["responses"]) == bool(asked[path])


def test_the_refusal_of_an_address_speaks_of_the_address_and_looks_as_documented(server):
    document = server.get("/openapi.json").json()
    told = document["paths"]["/districts/nearest"]["get"]["responses"]["422"]
    assert "address" in told["description"]
    assert "body" not in told["description"]
    place = {"latitude": 99, "longitude": -120}
    refused = server.get("/districts/nearest", params=place)
    assert refused.json() == told["content"]["application/json"]["example"]


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


def test_at_cap_promises_nothing_of_models_that_learned_other_prices():
    hint = get_type_hints(schemas.Prediction, include_extras=True)["at_cap"]
    assert "of a model that learned its prices" in hint.__metadata__[0].description
    page = (PROJECT / "serve" / "page" / "page.js").read_text()
    assert "where the model learned its prices, the true one may be higher" in page
