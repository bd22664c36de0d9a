"""What is told about one prediction: the price, its interval, and what to be careful about."""

from typing import Any

import pandas as pd

from housing_lib.contract import COVERAGE
from housing_lib.data import Floats
from housing_lib.features import DistrictColumns
from housing_lib.flags import flag_texts
from housing_lib.places import regions


def answers(model: Any, districts: pd.DataFrame | Floats, *, coverage: float = COVERAGE) -> Any:
    """One row a district: price, interval and expected error (100,000 USD), region, and flags.

    Flags are the keys of `flags.FLAGS`, and `imputed_<column>` for each value that was
    missing; several are separated by blanks.

    Raises
    ------
    DataError
        If the coverage is not from 0.01 to 0.99, or columns are missing.
    """
    low, high = model.predict_interval(districts, coverage)
    values = DistrictColumns().fit_transform(districts)
    table = {
        "price": model.predict(districts),
        "low": low,
        "high": high,
        "expected_error": model.expected_error(districts),
        "region": regions(values[:, 6], values[:, 7]),
    }
    return pd.DataFrame(table).assign(flags=flags(model, districts, table["price"]))


def flags(model: Any, districts: pd.DataFrame | Floats, prices: Floats) -> list[str]:
    """The flags of each district, separated by blanks.

    Raises
    ------
    DataError
        If columns are missing from a table, or an array has not eight.
    """
    values = DistrictColumns().fit_transform(districts)
    inner = model.model_
    return flag_texts(values, prices, inner.distance_km(inner.transform(districts)))
