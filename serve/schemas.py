"""What the server takes and answers: one definition to decode, encode and document."""

from datetime import UTC, datetime
from math import isnan
from typing import Annotated, Any, Self
from uuid import uuid4

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from housing_lib.compiled import Answers
from housing_lib.contract import (
    CONTRACT,
    COVERAGE,
    FAR_KM,
    FEATURES,
    PRICE_CAP,
    TARGET,
    USD_PER_UNIT,
    Floats,
)
from serve.champion import Champion

MOST_ROWS = 10_000
EXAMPLE_DISTRICT: dict[str, Any] = {
    "MedInc": 8.3252,
    "HouseAge": 41,
    "AveRooms": 6.98,
    "AveBedrms": 1.02,
    "Population": 322,
    "AveOccup": 2.56,
    "Latitude": 37.88,
    "Longitude": -122.23,
}
Moment = Annotated[datetime, Meta(tz=True)]
EXAMPLE_ID = "4f8e2f6e-6a0c-4d5e-9d0a-0d8f5a1c2b3d"


def _feature(name: str) -> Any:
    column = CONTRACT[name]
    meaning = f"{column.meaning[0].upper()}{column.meaning[1:]}; null if unknown."
    number = Meta(ge=column.low, le=column.high)
    about = Meta(description=meaning, extra_json_schema={"unit": column.unit})
    return Annotated[Annotated[float, number] | None, about]


District: Any = defstruct(
    "District",
    [(name, _feature(name)) for name in FEATURES],
    namespace={"__doc__": "One district: all eight features, each a number or null if unknown."},
    forbid_unknown_fields=True,
    gc=False,
)


class Batch(Struct, forbid_unknown_fields=True):
    """Many districts, answered in their order."""

    districts: Annotated[list[District], Meta(min_length=1, max_length=MOST_ROWS)]


class Interval(Struct, gc=False):
    """Bounds between which the true price lies in a known share of cases."""

    coverage: Annotated[float, Meta(description="The share of true prices inside.")]
    low: Annotated[float, Meta(description="In 100,000 USD.")]
    high: Annotated[float, Meta(description="In 100,000 USD.")]
    low_usd: float
    high_usd: float


class Contribution(Struct, gc=False):
    """What one thing about a district adds to its price."""

    feature: str
    value_usd: Annotated[float, Meta(description="In US dollars; negative if it lowers the price.")]


class Explanation(Struct, gc=False):
    """Why the price is what it is: `typical_usd` and all contributions add up to it."""

    typical_usd: Annotated[float, Meta(description="The price of a district with typical values.")]
    contributions: Annotated[list[Contribution], Meta(description="The strongest first.")]
    method: str = "Shapley values against a district of typical values; place counts as one"


class Prediction(Struct, omit_defaults=True):
    """The price of one district, how sure it is, and which model said so when."""

    predicted_median_house_value: Annotated[float, Meta(description="In 100,000 USD.")]
    predicted_median_house_value_usd: Annotated[float, Meta(description="In US dollars.")]
    interval: Annotated[
        Interval | None, Meta(description="The 90 % interval; null if the model gives none.")
    ]
    imputed: Annotated[
        list[str], Meta(description="Features that were null and got a typical value.")
    ]
    at_cap: Annotated[
        bool,
        Meta(
            description=f"Whether it reaches {PRICE_CAP}, where the census stopped: of a model "
            "that learned its prices, the true one may be higher."
        ),
    ]
    nearest_training_district_km: Annotated[
        float | None, Meta(description="Null where latitude or longitude was null.")
    ]
    far_from_training: Annotated[
        bool, Meta(description=f"Whether that is beyond {FAR_KM:g} km: the price is a guess.")
    ]
    model_name: str
    model_version: int
    model_stage: str
    request_timestamp: Annotated[datetime, Meta(description="When it was answered, in UTC.")]
    prediction_id: Annotated[str, Meta(description="A new id for each answer.")]
    explanation: Explanation | UnsetType = UNSET


class Predictions(Struct):
    """The answers to a batch, in its order."""

    predictions: list[Prediction]


class Actual(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a district turned out to be worth, for a prediction or for its features."""

    median_house_value: Annotated[
        float,
        Meta(
            ge=CONTRACT[TARGET].low,
            le=CONTRACT[TARGET].high,
            description="The true price in 100,000 USD.",
        ),
    ]
    observed_at: Annotated[Moment, Meta(description="When it was true.")]
    prediction_id: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    features: District | UnsetType = UNSET


class Actuals(Struct, forbid_unknown_fields=True):
    """True prices, to compare with what was predicted."""

    actuals: Annotated[list[Actual], Meta(min_length=1, max_length=MOST_ROWS)]


class Recorded(Struct):
    """What became of the true prices, all of which are on the disk now."""

    recorded: int
    already_known: int


class Feature(Struct):
    """One feature of a district and the range in which it is taken."""

    name: str
    meaning: str
    unit: str
    low: float
    high: float


class Nearest(Struct):
    """The training district that is nearest to a place, and what it was worth."""

    features: dict[str, float | None]
    median_house_value: Annotated[float, Meta(description="In 100,000 USD.")]
    distance_km: float


class ModelCard(Struct):
    """The model that answers, and where it comes from."""

    name: str
    version: int
    stage: str
    family: str
    run_id: Annotated[str, Meta(description="The MLflow run that made it.")]
    data_digest: Annotated[str, Meta(description="The digest of the districts it was made from.")]
    digest: Annotated[str, Meta(description="The SHA-256 of the compiled model that answers.")]
    loaded_at: datetime
    features: list[Feature]

    @classmethod
    def of(cls, champion: Champion) -> Self:
        """The card of a champion."""
        release = champion.release
        return cls(
            name=release.name,
            version=release.version,
            stage=release.stage,
            family=release.family,
            run_id=release.run_id,
            data_digest=release.data_digest,
            digest=release.digest,
            loaded_at=champion.loaded_at,
            features=[describe(name) for name in FEATURES],
        )


def describe(name: str) -> Feature:
    """A feature as the contract has it."""
    column = CONTRACT[name]
    return Feature(name, column.meaning, column.unit, column.low, column.high)


class Health(Struct, omit_defaults=True):
    """Whether the server runs and answers; `degraded` answers, but not as it should."""

    status: str
    model_version: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Notice(Struct):
    """Why a request was not answered, and what to do."""

    detail: str
    what_to_do: str


class Problem(Struct, omit_defaults=True):
    """One thing that is wrong with a request."""

    field: str
    problem: str
    found: str
    expected: str
    row: Annotated[int, Meta(description="Counted from 0, in batches.")] | UnsetType = UNSET


class Refusal(Struct):
    """All that is wrong with a request, of which nothing was done."""

    detail: str
    problems: list[Problem]


def features_of(district: Any) -> tuple[float | None, ...]:
    """The eight values of a district, in the contract's order."""
    return msgspec.structs.astuple(district)


def rows_of(districts: list[Any]) -> Floats:
    """The districts as the model takes them: shape (rows, 8), NaN where unknown."""
    return np.array([features_of(one) for one in districts], dtype="float64").reshape(-1, 8)


def predictions(champion: Champion, rows: Floats, answers: Answers) -> list[Prediction]:
    """The champion's answers for these rows, each with an id of its own."""
    now, batch = datetime.now(UTC), str(uuid4())
    release, alone = champion.release, len(rows) == 1
    columns = (answers.prices, answers.low, answers.high, answers.nearest_km)
    lists = (column.tolist() for column in columns)
    gaps = _gaps(rows)
    return [
        Prediction(
            price,
            round(price * USD_PER_UNIT, 2),
            _interval(low, high),
            gaps.get(row, []),
            price >= PRICE_CAP,
            None if isnan(km) else round(km, 3),
            km > FAR_KM,
            release.name,
            release.version,
            release.stage,
            now,
            batch if alone else f"{batch}-{row}",
        )
        for row, (price, low, high, km) in enumerate(zip(*lists, strict=True))
    ]


def _gaps(rows: Floats) -> dict[int, list[str]]:
    """The names of what is unknown, for each row where something is."""
    gaps: dict[int, list[str]] = {}
    unknown = np.isnan(rows)
    if unknown.any():
        for row, column in np.argwhere(unknown).tolist():
            gaps.setdefault(row, []).append(FEATURES[column])
    return gaps


def _interval(low: float, high: float) -> Interval | None:
    if low != low:  # NaN: the model gives no interval
        return None
    usd = (round(low * USD_PER_UNIT, 2), round(high * USD_PER_UNIT, 2))
    return Interval(COVERAGE, low, high, *usd)
