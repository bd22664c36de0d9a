"""What to be careful about in an answer, in words that programs can count."""

import numpy as np

from housing_lib.contract import FAR_KM, FEATURES, USD_PER_UNIT, Floats
from housing_lib.places import in_california

NEAR_CAP = 4.75  # in 100,000 USD; most of the census's districts above stand at its limit
OUTSIDE_KM = 15.0  # the outline is coarse: nearer to a known district nothing counts as outside
FLAGS = {
    "at_limit": f"{NEAR_CAP * USD_PER_UNIT:,.0f} USD or more, near the most that the census "
    "recorded: where prices are the census's, the true one may be higher",
    "outside_california": "the place is not in California, where all known districts are",
    "far_from_known": f"no known district within {FAR_KM:.0f} km; the model never saw such a place",
}


def flag_texts(values: Floats, prices: Floats, distance_km: Floats) -> list[str]:
    """The flags of each district, separated by blanks.

    Parameters
    ----------
    values
        The districts, shape (rows, 8), NaN where a value is missing.
    prices
        What a model says of them, in 100,000 USD.
    distance_km
        How far the nearest district is that the model knows.
    """
    missing = np.isnan(values)
    distance_km = np.where(missing[:, 6] | missing[:, 7], 0, distance_km)
    masks = {
        "at_limit": prices >= NEAR_CAP,
        "outside_california": _outside(values, distance_km > OUTSIDE_KM),
        "far_from_known": distance_km > FAR_KM,
    }
    masks |= {f"imputed_{name}": missing[:, place] for place, name in enumerate(FEATURES)}
    codes = np.stack(list(masks.values()), axis=1) @ (1 << np.arange(len(masks)))
    texts = {int(code): _text(int(code), list(masks)) for code in np.unique(codes)}
    return [texts[code] for code in codes.tolist()]


def _outside(values: Floats, away: np.ndarray) -> np.ndarray:
    outside = np.zeros(len(values), dtype=bool)
    outside[away] = ~in_california(values[away, 6], values[away, 7])
    return outside


def _text(code: int, names: list[str]) -> str:
    return " ".join(name for place, name in enumerate(names) if code >> place & 1)
