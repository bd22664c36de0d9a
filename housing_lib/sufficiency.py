"""How many districts a run needs, by what its split leaves to calibrate intervals on."""

import math

import pandas as pd

from housing_lib.contract import FEWEST_HELD_OUT
from housing_lib.data import VALIDATION_SHARE, DataError, place_in_parts

SURELY = 3.0  # standard deviations: one source in a thousand of that size is too small


def rows_for_a_run() -> int:
    """So many rows that chance nearly never leaves too few of them to calibrate on.

    Places in the split are as if drawn: of n rows, a share p falls to the validation
    part, give or take sqrt(n p (1 - p)). This is the n whose lower end is just enough.

    >>> rows_for_a_run() > FEWEST_HELD_OUT / VALIDATION_SHARE
    True
    """
    spread = SURELY * math.sqrt(1 - VALIDATION_SHARE)
    root = (spread + math.sqrt(spread**2 + 4 * FEWEST_HELD_OUT)) / 2
    return math.ceil(root**2 / VALIDATION_SHARE)


def what_is_lacking(districts: pd.DataFrame) -> str:
    """What a run would find and need of these districts; empty if they are enough."""
    found = int((place_in_parts(districts) == "val").sum())
    if found >= FEWEST_HELD_OUT:
        return ""
    return (
        f"found {len(districts):,} rows, of which {found} fall to the validation part; expected at "
        f"least {FEWEST_HELD_OUT} there, to calibrate intervals on, and so about "
        f"{rows_for_a_run():,} rows that differ"
    )


def refuse_too_few(districts: pd.DataFrame, *, origin: str) -> None:
    """Refuse districts with which a run would fail after minutes.

    Raises
    ------
    DataError
        If their split leaves too few to calibrate intervals on.
    """
    if lacking := what_is_lacking(districts):
        raise DataError(f"{origin}: {lacking}. Bring more districts. Nothing was run.")
