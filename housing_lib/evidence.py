"""What the gate looks at: a model's predictions on the locked rows, simple answers, and costs."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import psutil

from housing_lib.contract import COVERAGE
from housing_lib.data import FEATURES, TARGET, Floats
from housing_lib.gate import Interval
from housing_lib.movement import SQUARE_DEGREES, Groups
from housing_lib.parts import Part
from housing_lib.places import squares

_CALLS = 20


def prices_of(part: Part) -> Floats:
    """The prices of a part, from the table that the data digest covers."""
    return part.districts[TARGET].to_numpy()


def squares_of(part: Part) -> Groups:
    """The square of the map in which each district of a part lies: errors of one go together."""
    place = (part.districts[name].to_numpy("float64") for name in ("Latitude", "Longitude"))
    return squares(*place, degrees=SQUARE_DEGREES)


def predict(model: Any, part: Part) -> Floats:
    """The model's prices of a part's districts, given only what a caller would know."""
    predicted: Floats = np.asarray(model.predict(part.districts[list(FEATURES)]), dtype="float64")
    return predicted


def predict_interval(model: Any, part: Part) -> Interval | None:
    """The model's 90 % interval of each district, or None where it offers none."""
    if not hasattr(model, "predict_interval"):
        return None
    low, high = model.predict_interval(part.districts[list(FEATURES)], coverage=COVERAGE)
    return Interval(np.asarray(low), np.asarray(high), COVERAGE)


def baselines(train: Part, test: Part) -> Mapping[str, Floats]:
    """The answers that need no project: one price for all, and a line through the raw columns.

    They know the training districts alone.
    """
    from housing_lib.evaluation import raw_line

    columns, prices = list(FEATURES), prices_of(train)
    line = raw_line().fit(train.districts[columns], prices)
    return {
        "the median price": np.full(len(test.districts), np.median(prices)),
        "a linear regression": line.predict(test.districts[columns]),
    }


def latency_ms(model: Any, districts: pd.DataFrame) -> float:
    """The milliseconds of the fastest of some predictions of one district.

    The fastest, because all that disturbs a measurement makes it longer.
    """
    district = districts[list(FEATURES)].to_numpy()[:1]
    return 1000 * min(_seconds(model.predict, district) for _ in range(_CALLS))


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def memory_mb() -> float:
    """The memory that this process holds, in megabytes."""
    return float(psutil.Process().memory_info().rss / 1e6)
