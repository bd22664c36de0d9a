"""The OpenAPI document: the schemas of `serve.schemas`, with an example of everything."""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from housing_lib.contract import CONTRACT
from serve import schemas, tables
from serve.guard import SCOPES
from serve.problems import explain_query

REF = "#/components/schemas/{name}"
EXAMPLE_PREDICTION = {
    "predicted_median_house_value": 4.2613,
    "predicted_median_house_value_usd": 426130.0,
    "interval": {
        "coverage": 0.9,
        "low": 3.4312,
        "high": 5.0914,
        "low_usd": 343120.0,
        "high_usd": 509140.0,
    },
    "imputed": [],
    "at_cap": False,
    "nearest_training_district_km": 0.412,
    "far_from_training": False,
    "model_name": "california-housing",
    "model_version": 7,
    "model_stage": "Production",
    "request_timestamp": "2026-11-23T12:00:00.123456Z",
    "prediction_id": schemas.EXAMPLE_ID,
}
EXAMPLE_CSV = "\n".join(
    ",".join(map(str, line))
    for line in (schemas.EXAMPLE_DISTRICT, schemas.EXAMPLE_DISTRICT.values())
)
EXAMPLES: dict[str, Any] = {
    "District": schemas.EXAMPLE_DISTRICT,
    "Batch": {"districts": [schemas.EXAMPLE_DISTRICT]},
    "Prediction": EXAMPLE_PREDICTION,
    "Predictions": {"predictions": [EXAMPLE_PREDICTION]},
    "Actuals": {
        "actuals": [
            {
                "prediction_id": schemas.EXAMPLE_ID,
                "median_house_value": 4.526,
                "observed_at": "2026-12-01T00:00:00Z",
            }
        ]
    },
    "Recorded": {"recorded": 1, "already_known": 0},
    "ModelCard": {
        "name": "california-housing",
        "version": 7,
        "stage": "Production",
        "family": "xgboost",
        "run_id": "0b7f5a3c9d1e4f6a8b2c4d6e8f0a1b3c",
        "data_digest": "5e0c9a1f7b3d",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "loaded_at": "2026-11-23T11:58:00Z",
        "features": [msgspec.to_builtins(schemas.describe("MedInc"))],
    },
    "Nearest": {
        "features": schemas.EXAMPLE_DISTRICT,
        "median_house_value": 4.526,
        "distance_km": 0.412,
    },
    "Health": {"status": "ready", "model_version": 7},
    "Notice": {
        "detail": "no version of california-housing stands in Production.",
        "what_to_do": "`housing run` trains and promotes a model.",
    },
    "Refusal": {
        "detail": "1 problem in the body; nothing was done.",
        "problems": [
            {
                "field": "MedInc",
                "problem": "above 20",
                "found": "83252",
                "expected": "a number from 0 to 20 (10,000 USD), or null",
            }
        ],
    },
}
REFUSALS = {
    400: ("Notice", "The Host header names no host of this server."),
    401: ("Notice", "No valid API key, where keys are set."),
    403: ("Notice", "The key is not for this, or no keys are set and another machine asks."),
    408: ("Refusal", "The body did not arrive in time."),
    409: ("Refusal", "It contradicts what is recorded, or is of a prediction that never was."),
    413: ("Refusal", "The body is too large."),
    415: ("Refusal", "The body is of a kind that is not read."),
    422: ("Refusal", "The body breaks the contract; all problems are named."),
    503: ("Notice", "No model, no log, or too many requests; Retry-After says when, if it passes."),
}
EVERYWHERE, WITH_KEYS = (400, 403), (401,)
# What is true of some routes instead.
ADDRESS = {422: "The query in the address breaks the contract; all problems are named."}
BODY_OR_ADDRESS = {
    422: "The body, or the query in the address, breaks the contract; all problems are named."
}
OPEN = {403: "No API keys are set, and another machine asks.", 503: "No model."}
SECURITY_SCHEMES = {
    "ApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A key that `housing key` made, as the server's HOUSING_API_KEYS names it.",
    },
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The same key as `Authorization: Bearer`, which Prometheus sends.",
    },
}


def answers(
    name: str,
    *refusals: int,
    table: bool = False,
    key: bool = True,
    words: Mapping[int, str] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """What a route may answer: the schema of that name or tables, or one of these refusals.

    Parameters
    ----------
    key
        Whether it asks for a key, where keys are set.
    words
        What the description of a refusal is instead, for this route.
    """
    found: dict[int | str, dict[str, Any]] = {200: _json(name, "As asked.")}
    found[200]["content"] |= _tables() if table else {}
    for status in sorted({*EVERYWHERE, *refusals, *(WITH_KEYS if key else ())}):
        schema, description = REFUSALS[status]
        found[status] = _json(schema, (words or {}).get(status, description))
    return found


def _json(name: str, description: str) -> dict[str, Any]:
    schema = {"schema": {"$ref": REF.format(name=name)}}
    return {"description": description, "content": {"application/json": schema}}


def takes(name: str, *, table: bool = False) -> dict[str, Any]:
    """What a route takes: the schema of that name in JSON, and perhaps tables."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": REF.format(name=name)}}}
    if table:
        content |= _tables()
        content[tables.CSV]["example"] = EXAMPLE_CSV
    return {"requestBody": {"required": True, "content": content}}


def _tables() -> dict[str, Any]:
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in tables.TYPES}


def document(app: FastAPI, *, with_keys: bool) -> dict[str, Any]:
    """The OpenAPI document of the application, made once.

    Parameters
    ----------
    with_keys
        Whether keys are set, so that who asks has to show one.
    """
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        made["components"] = {"schemas": _components(), "securitySchemes": SECURITY_SCHEMES}
        _secure(made["paths"], with_keys=with_keys)
        _show_an_address(made["paths"]["/districts/nearest"]["get"])
        app.openapi_schema = made
    return app.openapi_schema


def _secure(paths: dict[str, Any], *, with_keys: bool) -> None:
    """Say of each route for what its key has to be; without keys it may be left out."""
    for path, scope in SCOPES.items():
        ways: list[dict[str, list[str]]] = [{name: [scope]} for name in SECURITY_SCHEMES]
        for operation in paths.get(path, {}).values():
            operation["security"] = ways if with_keys else [*ways, {}]


def _show_an_address(operation: dict[str, Any]) -> None:
    """Give the refusal of an address an example of its own, as the route words it."""
    high = CONTRACT["Latitude"].high
    error = {"loc": ("query", "latitude"), "type": "less_than_equal", "ctx": {"le": high}}
    refusal = explain_query([error | {"input": "99", "msg": ""}]).refusal
    content = operation["responses"]["422"]["content"]["application/json"]
    content["example"] = msgspec.to_builtins(refusal)


def _components() -> dict[str, Any]:
    types = [getattr(schemas, name) for name in EXAMPLES]
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    for name, example in EXAMPLES.items():
        components[name]["examples"] = [example]
    return components
