"""What is told about one prediction: the price, its interval, and what to be careful about."""

from typing import Any

import numpy as np
import pandas as pd

from housing_lib.data import FEATURES, Floats
from housing_lib.features import DistrictColumns
from housing_lib.geography import in_california, regions

COVERAGE = 0.9
NEAR_CAP = 4.75  # in 100,000 USD; half of the districts priced above stand at the census's limit
FAR_KM = 25.0
OUTSIDE_KM = 15.0  # the outline is coarse; districts at the coast lie outside of it by less
FLAGS = {
    "at_limit": "at least 500,000 USD: the census recorded nothing higher",
    "outside_california": "the place is not in California, where all known districts are",
    "far_from_known": f"no known district within {FAR_KM:.0f} km; the model never saw such a place",
}


def answers(model: Any, districts: pd.DataFrame | Floats, *, coverage: float = COVERAGE) -> Any:
    """One row a district: price, interval and expected error (100,000 USD), region, and flags.

    Flags are the keys of `FLAGS`, and `imputed_<column>` for each value that was
    missing; several are separated by blanks.
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
    """The flags of each district, separated by blanks."""
    values = DistrictColumns().fit_transform(districts)
    missing = np.isnan(values)
    inner = model.model_
    distance = inner.distance_km(inner.transform(districts))
    outside = ~in_california(np.nan_to_num(values[:, 6]), np.nan_to_num(values[:, 7]))
    known_place = ~missing[:, 6] & ~missing[:, 7]
    masks = {
        "at_limit": prices >= NEAR_CAP,
        "outside_california": known_place & outside & (distance > OUTSIDE_KM),
        "far_from_known": known_place & (distance > FAR_KM),
    }
    masks |= {f"imputed_{name}": missing[:, place] for place, name in enumerate(FEATURES)}
    return [
        " ".join(name for name, mask in masks.items() if mask[row]) for row in range(len(values))
    ]
