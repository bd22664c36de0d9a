"""Whether the world has moved from under a model: its errors lately beside those before."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from housing_lib.contract import LEVEL
from housing_lib.data import USD_PER_UNIT, Floats

BANDS = 8  # of answers: in wider ones, recent answers may still be dearer than the others
FEWEST = 10  # others that stand for the recent rows of a stratum
SQUARE_DEGREES = 0.25  # errors beyond hardly go together; of wider squares there are too few
FEWEST_PLACES = 5  # with fewer than four degrees of freedom no test keeps its level (Tipton 2015)

Mask = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.intp]  # the number of each row's group


@dataclass(frozen=True)
class Movement:
    """How a model's errors on recent rows differ from those on others of the same kind.

    `level` is what it asks more than before, `error` by how much its RMSE is larger
    (100,000 USD); `shifted` and `worse` say which of them is beyond chance. Nothing is
    where rows lie in too few `places`, an effective number of squares of the map.
    """

    rows: int
    places: float
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
        if self.clear:
            return "recent districts decide"
        told = self.places >= FEWEST_PLACES
        why = "within chance" if told else "cannot be told from so few places"
        return f"{why}: locked districts decide"


def strata(answers: Floats, groups: Iterable[Mask]) -> Groups:
    """The stratum of each row, a number: the band of its answer, and the groups that it is in."""
    edges = np.quantile(answers, np.linspace(0, 1, BANDS + 1)[1:-1])
    kinds = np.column_stack([np.searchsorted(edges, answers), *groups])
    found: Groups = np.unique(kinds, axis=0, return_inverse=True)[1].ravel()
    return found


def post_stratify(kinds: Groups, recent: Mask) -> tuple[Mask, Floats]:
    """The recent rows whose stratum has others, and how many of them each of the others stands for.

    Post-stratification (Holt & Smith 1979): weighted so, the others are of the
    same mix as the recent rows, and what differs is no longer where these lie.
    """
    now, then = (np.bincount(kinds[rows], minlength=kinds.max() + 1) for rows in (recent, ~recent))
    comparable = then >= FEWEST
    weights = np.where(comparable, now / np.maximum(then, 1), 0.0)
    return recent & comparable[kinds], weights[kinds[~recent]]


def measure(
    now: Floats, then: Floats, weights: Floats | None = None, squares: Groups | None = None
) -> Movement:
    """The movement between two samples of errors, prediction minus price in 100,000 USD.

    Two tests, of the errors and of their squares, which together find something in at
    most about one of twenty pairs of samples that do not differ, and in some more where
    errors are few and much skewed. Errors of neighbours go together, so that squares of
    the map count and not rows: standard errors are robust to clusters (Liang & Zeger
    1986), and their effective number less one is the degrees of freedom. Where it is too
    small, nothing is claimed.

    Parameters
    ----------
    weights
        Those of `then`, by default all alike.
    squares
        Where the rows of `now` and then those of `then` lie, by default each by itself.
    """
    weights = np.ones(len(then)) if weights is None else weights
    samples = _samples(len(now), weights, squares)
    level, shifted = _difference(now, then, samples)
    _, changed = _difference(now**2, then**2, samples)
    before = np.sqrt(np.average(then**2, weights=weights))
    error = float(np.sqrt(np.mean(now**2)) - before)
    places = min(sample.places for sample in samples)
    return Movement(len(now), places, level, error, shifted, worse=changed and error > 0)


@dataclass(frozen=True)
class _Sample:
    """The share of each row in a mean, and the number of the square that it lies in."""

    shares: Floats
    squares: Groups
    count: int

    @cached_property
    def held(self) -> Floats:
        """The share of each square."""
        return np.bincount(self.squares, self.shares, self.count).astype(float)

    @property
    def places(self) -> float:
        """The effective number of squares (Kish 1965)."""
        return float(1 / (self.held**2).sum())

    def moves(self, values: Floats) -> Floats:
        """By how much each square moves the mean, its share considered (Bell & McCaffrey 2002)."""
        beside = self.shares * (values - self.shares @ values)
        left = np.maximum(1 - self.held, np.finfo(float).eps)
        moved: Floats = np.bincount(self.squares, beside, self.count) / np.sqrt(left)
        return moved


def _samples(recent: int, weights: Floats, squares: Groups | None) -> tuple[_Sample, _Sample]:
    rows = np.arange(recent + len(weights)) if squares is None else squares
    names, numbers = np.unique(rows, return_inverse=True)
    return (
        _Sample(np.full(recent, 1 / recent), numbers[:recent], len(names)),
        _Sample(weights / weights.sum(), numbers[recent:], len(names)),
    )


def _difference(now: Floats, then: Floats, samples: tuple[_Sample, _Sample]) -> tuple[float, bool]:
    """By how much the mean is larger now, and whether that is beyond chance."""
    from scipy.stats import t

    lately, before = samples
    larger = float(lately.shares @ now - before.shares @ then)
    # What a square has of its own is in both means, and cancels out where both have a share in it.
    spread = np.sqrt(((lately.moves(now) - before.moves(then)) ** 2).sum())
    places = min(lately.places, before.places)
    chance = spread * t.isf((1 - LEVEL) / 4, max(places, FEWEST_PLACES) - 1)
    return larger, bool(places >= FEWEST_PLACES and abs(larger) > chance)
