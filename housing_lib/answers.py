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
    values = DistrictColumns().fit_transform(districts)
    matrix = model.model_.transform(districts)
    prices, low, high, errors = model.answer_matrix(matrix, coverage)
    table = {
        "price": prices,
        "low": low,
        "high": high,
        "expected_error": errors,
        "region": regions(values[:, 6], values[:, 7]),
        "flags": flag_texts(values, prices, model.model_.distance_km(matrix)),
    }
    return pd.DataFrame(table)
