"""Whether the world has moved from under a model: its errors lately beside those before."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from housing_lib.contract import LEVEL
from housing_lib.data import USD_PER_UNIT, Floats

BANDS = 8  # of answers: in wider ones, recent answers may still be dearer than the others
FEWEST = 10  # others that stand for the recent rows of a stratum

Mask = npt.NDArray[np.bool_]
Strata = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Movement:
    """How a model's errors on recent rows differ from those on others of the same kind.

    `level` is what it asks more than before, `error` by how much its RMSE is larger
    (100,000 USD); `shifted` and `worse` say which of them is beyond chance.
    """

    rows: int
    level: float
    error: float
    shifted: bool
    worse: bool

    @property
    def clear(self) -> bool:
        """Whether anything is beyond chance."""
        return self.shifted or self.worse

    @property
    def figure(self) -> str:
        """What was found, in words."""
        more = "more" if self.level > 0 else "less"
        asks = f"asks ${abs(self.level) * USD_PER_UNIT:,.0f} {more} than it did"
        errs = f"its RMSE is ${self.error * USD_PER_UNIT:,.0f} larger than it was"
        told = [asks] if self.shifted or not self.worse else []
        told += [errs] if self.worse else []
        return f"{' and '.join(told)}, beside true prices; {self.rows:,} districts"

    @property
    def meaning(self) -> str:
        """What follows from it."""
        return "recent districts decide" if self.clear else "within chance: locked districts decide"


def strata(answers: Floats, groups: Iterable[Mask]) -> Strata:
    """The stratum of each row, a number: the band of its answer, and the groups that it is in."""
    edges = np.quantile(answers, np.linspace(0, 1, BANDS + 1)[1:-1])
    kinds = np.column_stack([np.searchsorted(edges, answers), *groups])
    found: Strata = np.unique(kinds, axis=0, return_inverse=True)[1].ravel()
    return found


def post_stratify(kinds: Strata, recent: Mask) -> tuple[Mask, Floats]:
    """The recent rows whose stratum has others, and how many of them each of the others stands for.

    Post-stratification (Holt & Smith 1979): weighted so, the others are of the
    same mix as the recent rows, and what differs is no longer where these lie.
    """
    now, then = (np.bincount(kinds[rows], minlength=kinds.max() + 1) for rows in (recent, ~recent))
    comparable = then >= FEWEST
    weights = np.where(comparable, now / np.maximum(then, 1), 0.0)
    return recent & comparable[kinds], weights[kinds[~recent]]


def measure(now: Floats, then: Floats, weights: Floats | None = None) -> Movement:
    """The movement between two samples of errors, prediction minus price in 100,000 USD.

    Two tests of Welch (1947), of the errors and of their squares, which together find
    something in about one of twenty pairs of samples that do not differ.

    Parameters
    ----------
    weights
        Those of `then`, by default all alike; they count as Kish's (1965) effective sample.
    """
    weights = np.ones(len(then)) if weights is None else weights
    level, shifted = _difference(now, then, weights)
    _, changed = _difference(now**2, then**2, weights)
    before = np.sqrt(np.average(then**2, weights=weights))
    error = float(np.sqrt(np.mean(now**2)) - before)
    return Movement(len(now), level, error, shifted, worse=changed and error > 0)


def _difference(now: Floats, then: Floats, weights: Floats) -> tuple[float, bool]:
    from scipy.stats import ttest_ind_from_stats

    mean, spread = np.average(then, weights=weights), np.sqrt(np.cov(then, aweights=weights))
    effective = weights.sum() ** 2 / (weights**2).sum()
    samples = (now.mean(), now.std(ddof=1), len(now), mean, spread, effective)
    found = ttest_ind_from_stats(*samples, equal_var=False)
    return float(now.mean() - mean), bool(found.pvalue < (1 - LEVEL) / 2)
