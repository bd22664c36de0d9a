"""How much lower one RMSE is than another on the same rows, and how sure that is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from housing_lib.contract import LEVEL
from housing_lib.data import Floats

RESAMPLES = 2_000
MOST_AT_ONCE = 10_000_000  # numbers drawn, so that any number of rows fits into memory
_CHUNK = 500
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Gain:
    """How much lower an RMSE is than another on the same rows, with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rival:
    """Predictions to be better than, on which rows, and how sure the interval of the gain is."""

    role: str
    predicted: Floats
    rows: Mask
    level: float = LEVEL


def gains(
    prices: Floats, predicted: Floats, rivals: Mapping[str, Rival], *, seed: int
) -> list[Gain]:
    """The fall of RMSE from each rival to `predicted`, on the rival's rows.

    Paired bootstrap (Efron & Tibshirani 1993): both predictions are resampled
    with the same rows, so that what is hard for both cancels out.
    """
    rows = np.column_stack([rival.rows for rival in rivals.values()]).astype(float)
    squares = np.column_stack([(rival.predicted - prices) ** 2 for rival in rivals.values()])
    lower = squares - ((predicted - prices) ** 2)[:, None]
    table = np.hstack([rows, rows * squares, rows * lower])
    once = _falls(np.ones((1, len(prices))), table)[0]
    drawn = np.concatenate([_falls(weights, table) for weights in draws(len(prices), seed)])
    return [
        Gain(float(value), *tails(column, rival.level))
        for value, column, rival in zip(once, drawn.T, rivals.values(), strict=True)
    ]


def tails(values: Floats, level: float) -> tuple[float, float]:
    """The ends between which a share `level` of the values lies, the rest evenly beyond."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _falls(weights: Floats, table: Floats) -> Floats:
    """The fall of RMSE against each rival (columns) under each weighting of the rows."""
    counts, squares, lower = np.split(weights @ table, 3, axis=1)
    counts = np.maximum(counts, 1)  # a resample may have no row of a slice
    before, fall = squares / counts, lower / counts
    both = np.sqrt(before) + np.sqrt(np.maximum(before - fall, 0))
    # The same as the difference of the roots, and exactly 0 where the predictions are equal.
    return fall / np.maximum(both, np.finfo(float).tiny)  # type: ignore[no-any-return]


def draws(rows: int, seed: int) -> Iterable[Floats]:
    """How often each row is drawn, `RESAMPLES` times, in pieces that fit into memory."""
    rng = np.random.default_rng(seed)
    for count in pieces(RESAMPLES, rows, most=_CHUNK):
        drawn = rng.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=count * rows)
        yield counts.reshape(count, rows).astype(float)


def pieces(total: int, rows: int, *, most: int = RESAMPLES) -> Iterable[int]:
    """The sizes of pieces in which `total` draws of some rows fit into memory."""
    size = max(1, min(most, MOST_AT_ONCE // max(rows, 1)))
    return [min(size, total - start) for start in range(0, total, size)]
