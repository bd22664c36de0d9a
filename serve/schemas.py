"""What the server takes and answers, and how it says what is wrong with a body."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Self
from uuid import UUID, uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model, model_validator

from housing_lib.data import CONTRACT, FEATURES, PRICE_CAP, USD_PER_UNIT, Floats
from serve.champion import Champion

LARGEST_BODY = 8 * 1024 * 1024
LONGEST_SHOWN = 60
MOST_PROBLEMS = 20
WAY_OUT = (
    "Mend what `detail` says (`housing run` trains and promotes a model), "
    "then start the server again."
)
EXAMPLE_DISTRICT: dict[str, JsonValue] = {
    "MedInc": 8.3252,
    "HouseAge": 41,
    "AveRooms": 6.98,
    "AveBedrms": 1.02,
    "Population": 322,
    "AveOccup": 2.56,
    "Latitude": 37.88,
    "Longitude": -122.23,
}


def _feature(name: str) -> tuple[Any, Any]:
    column = CONTRACT[name]
    bounds = Field(
        description=f"{column.meaning[0].upper()}{column.meaning[1:]}; null if unknown.",
        json_schema_extra={"unit": column.unit},
        strict=True,
        allow_inf_nan=False,
        ge=column.low,
        le=column.high,
    )
    return float | None, bounds


_fields: dict[str, Any] = {name: _feature(name) for name in FEATURES}


class District(create_model("Features", **_fields)):  # type: ignore[misc]  # mypy wants literal bases
    """One district: all eight features, each a number within its range or null if unknown."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_DISTRICT]})

    @model_validator(mode="after")
    def _refuse_all_missing(self) -> Self:
        if len(self.imputed) == len(FEATURES):
            raise ValueError("all eight features are null")
        return self

    @property
    def imputed(self) -> list[str]:
        """The features that are unknown, for which the model puts in a typical value."""
        return [name for name in FEATURES if getattr(self, name) is None]

    def row(self) -> Floats:
        """The district as the model takes it: shape (1, 8), in the contract's order."""
        return np.array([[getattr(self, name) for name in FEATURES]], dtype="float64")


class Prediction(BaseModel):
    """The price of one district, and which model said so when."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "predicted_median_house_value": 4.2613,
                    "predicted_median_house_value_usd": 426130.0,
                    "imputed": [],
                    "at_cap": False,
                    "model_name": "california-housing",
                    "model_version": 7,
                    "model_stage": "Production",
                    "request_timestamp": "2026-11-23T12:00:00.123456Z",
                    "prediction_id": "4f8e2f6e-6a0c-4d5e-9d0a-0d8f5a1c2b3d",
                }
            ]
        }
    )

    predicted_median_house_value: float = Field(description="In 100,000 USD.")
    predicted_median_house_value_usd: float = Field(description="In US dollars.")
    imputed: list[str] = Field(description="Features that were null and got a typical value.")
    at_cap: bool = Field(
        description=f"Whether it reaches {PRICE_CAP}, above which the census gave no prices."
    )
    model_name: str
    model_version: int
    model_stage: str
    request_timestamp: datetime = Field(description="When the request was answered, in UTC.")
    prediction_id: UUID = Field(description="A new id for each answer.")

    @classmethod
    def of(cls, district: District, champion: Champion) -> Self:
        """The champion's answer for a district."""
        price = champion.price(district.row())
        return cls(
            predicted_median_house_value=price,
            predicted_median_house_value_usd=round(price * USD_PER_UNIT, 2),
            imputed=district.imputed,
            at_cap=price >= PRICE_CAP,
            model_name=champion.registered.name,
            model_version=champion.registered.version,
            model_stage=champion.registered.stage.title(),
            request_timestamp=datetime.now(UTC),
            prediction_id=uuid4(),
        )


class Feature(BaseModel):
    """One feature of a district and the range in which it is taken."""

    name: str
    meaning: str
    unit: str
    low: float
    high: float


class ModelCard(BaseModel):
    """The model that answers, and where it comes from."""

    name: str
    version: int
    stage: str
    family: str
    run_id: str = Field(description="The MLflow run that made it.")
    data_digest: str = Field(description="The digest of the districts it was made from.")
    loaded_at: datetime
    features: list[Feature]

    @classmethod
    def of(cls, champion: Champion) -> Self:
        """The card of a champion."""
        registered = champion.registered
        return cls(
            name=registered.name,
            version=registered.version,
            stage=registered.stage.title(),
            family=registered.family,
            run_id=registered.run_id,
            data_digest=registered.data_digest,
            loaded_at=champion.loaded_at,
            features=[_describe(name) for name in FEATURES],
        )


def _describe(name: str) -> Feature:
    column = CONTRACT[name]
    return Feature(
        name=name, meaning=column.meaning, unit=column.unit, low=column.low, high=column.high
    )


class Health(BaseModel):
    """That the server runs, and which version answers if one does."""

    status: str = Field(examples=["ready"])
    model_version: int | None = Field(default=None, examples=[7])


class Unavailable(BaseModel):
    """Why no model answers, and what to do."""

    detail: str = Field(examples=["no version of california-housing stands in Production."])
    what_to_do: str = Field(default=WAY_OUT)


class Problem(BaseModel):
    """One thing that is wrong with a body."""

    field: str = Field(examples=["MedInc"])
    problem: str = Field(examples=["above 20"])
    found: str = Field(examples=["83252"])
    expected: str = Field(examples=["a number from 0 to 20 (10,000 USD), or null"])


class Refusal(BaseModel):
    """All that is wrong with a body, of which nothing was predicted."""

    detail: str = Field(examples=["1 problem in the body; nothing was predicted."])
    problems: list[Problem]


UNREADABLE = Problem(
    field="(body)",
    problem="cannot be read",
    found="text that is not UTF-8, or is nested too deeply, or holds endless digits",
    expected="one JSON object in UTF-8",
)


def refusal(problems: Sequence[Problem], *, count: int | None = None) -> Refusal:
    """The answer to a body with these problems; `count` if there are more than these."""
    count = count or len(problems)
    noun = "problem" if count == 1 else "problems"
    return Refusal(
        detail=f"{count} {noun} in the body; nothing was predicted.", problems=list(problems)
    )


def explain(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """What pydantic and FastAPI found wrong with a body, in the words of the contract.

    Nothing from the body is repeated but names and single values, cut short and
    in ASCII, so that no body can make the answer itself fail.
    """
    problems = [_problem(error) for error in errors[:MOST_PROBLEMS]]
    return refusal(problems, count=len(errors))


def _problem(error: Mapping[str, Any]) -> Problem:
    if error["type"] == "json_invalid" or len(error["loc"]) == 1:
        return Problem(
            field="(body)",
            problem=_body_fault(error),
            found=_body_found(error),
            expected=f"a JSON object with {', '.join(FEATURES)}",
        )
    name = str(error["loc"][1])
    if name in FEATURES:
        return _wrong_value(name, error)
    return _unknown_field(name, error["input"])


def _wrong_value(name: str, error: Mapping[str, Any]) -> Problem:
    column = CONTRACT[name]
    faults = {
        "missing": "missing",
        "finite_number": "not a finite number",
        "greater_than_equal": f"below {_plain(column.low)}",
        "less_than_equal": f"above {_plain(column.high)}",
    }
    return Problem(
        field=name,
        problem=faults.get(error["type"], "not a number"),
        found="nothing" if error["type"] == "missing" else _shown(error["input"]),
        expected=f"a number from {_plain(column.low)} to {_plain(column.high)} "
        f"({column.unit}), or null",
    )


def _unknown_field(name: str, value: Any) -> Problem:
    by_lower = {feature.lower(): feature for feature in FEATURES}
    near = get_close_matches(name[:LONGEST_SHOWN].lower(), by_lower, n=1)
    hint = f"; did you mean '{by_lower[near[0]]}'?" if near else ""
    return Problem(
        field=_shown(name).strip('"'),
        problem=f"not a feature of a district{hint}",
        found=_shown(value),
        expected=f"no other names than {', '.join(FEATURES)}",
    )


def _body_fault(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {error['ctx']['error']} at character {error['loc'][1]}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return "not a JSON object"


def _body_found(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return "text that ends too early or is not JSON"
    return "nothing" if error["input"] is None else _shown(error["input"])


def _plain(bound: float) -> str:
    return f"{bound:,.10g}"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return "a body without `Content-Type: application/json`"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
