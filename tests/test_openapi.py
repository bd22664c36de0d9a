"""The server keeps to its OpenAPI document, as schemathesis reads it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from serving import running_server

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
def server(store, tmp_path_factory):
    """The server of the session's store, and afterwards the proof that nothing made it fail."""
    with running_server(store.root, tmp_path_factory.mktemp("openapi") / "server.log") as running:
        yield running
    assert "Traceback" not in running.printed


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
