"""What is watched for change: each row as scores whose means tell how far rows have moved.

Everything watched is a mean of scores over rows: where a value ranks among those
of the reference, whether it is missing, in which region it lies. So a batch is a
row of sums, any window of batches a sum of those, and comparing a million rows
costs one pass over them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from housing_lib import places
from housing_lib.data import CONTRACT, FEATURES, TARGET, Floats

REGIONS = (*places.REGIONS, places.UNKNOWN)
FEWEST_REFERENCE = 200
FEWEST_KNOWN = 30  # values of a quantity; the mean of fewer is not judged
TOLERATED_SHARE = 0.005  # of missing values, or of a region: rarer ones in the reference are noise
RIDGE = 0.05  # of the joint covariance, so that no direction weighs more than rows can say
ROWS_A_PASS = 50_000


@dataclass(frozen=True)
class Quantity:
    """One thing that is watched: `kind` of the column, region or answer `name`.

    Kinds: `level` and `spread` of a value, `missing` values, `place` (the share
    of a region), and `joint` (how the columns go together).
    """

    kind: str
    name: str


VALUES = (*FEATURES, "prediction", "expected error", "error", "size of errors")
SPREADS = (*FEATURES, "prediction")
QUANTITIES = (
    *(Quantity("level", name) for name in VALUES),
    *(Quantity("spread", name) for name in SPREADS),
    *(Quantity("missing", name) for name in FEATURES),
    *(Quantity("place", name) for name in REGIONS),
)
JOINT = Quantity("joint", "all columns")
WATCHED = (*QUANTITIES, JOINT)
_FIRST, _SECOND = np.triu_indices(len(FEATURES), k=1)
_SHARES = np.array([one.kind in ("missing", "place") for one in QUANTITIES])
_MISSING = np.array([one.kind == "missing" for one in QUANTITIES])


@dataclass(frozen=True)
class Sums:
    """Sums of scores: shape (groups, scores), how many values each is of, and rows a group."""

    totals: Floats
    counts: Floats
    rows: Floats

    def window(self, starts: Any, ends: Any) -> "Sums":
        """The sums over the groups from each start up to each end."""
        return Sums(*(_between(one, starts, ends) for one in (self.totals, self.counts, self.rows)))


def _between(values: Floats, starts: Any, ends: Any) -> Floats:
    running = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(axis=0)])
    found: Floats = running[ends] - running[starts]
    return found


@dataclass(frozen=True)
class Shift:
    """How far groups of rows have moved, shape (groups, len(WATCHED)).

    `z` is in standard errors, 0 where too little is known; `effect` in standard
    deviations of the reference's scores, which are of ranks and not of values, or
    a share of the rows.
    """

    z: Floats
    effect: Floats

    @property
    def largest(self) -> Floats:
        """The largest shift of each group, in standard errors."""
        largest: Floats = np.abs(self.z).max(axis=1)
        return largest


@dataclass
class Watch:
    """The reference that rows are compared with: the model's unseen test districts.

    Raises
    ------
    ValueError
        If there are fewer than 200 rows to compare with.
    """

    reference: pd.DataFrame
    scores: npt.NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.reference) < FEWEST_REFERENCE:
            raise ValueError(
                f"found {len(self.reference)} reference rows; expected {FEWEST_REFERENCE} or more"
            )
        values = _values(self.reference)
        self._sorted = [np.sort(column[np.isfinite(column)]) for column in values.T]
        self._table = [_normal_scores(len(column)) for column in self._sorted]
        self.scores = self._scores(self.reference)
        known = np.isfinite(self.scores)
        self.counts = np.maximum(known.sum(axis=0), 1).astype(float)
        filled = np.where(known, self.scores, 0)
        self.means = filled.sum(axis=0) / self.counts
        self.deviations = self._deviations(filled)
        covariance = np.cov(filled[:, len(QUANTITIES) :], rowvar=False)
        ridge = RIDGE * np.eye(len(covariance)) * np.trace(covariance) / len(covariance)
        self._precision = np.linalg.inv(covariance + ridge)
        self._joint_moments = _moments(self._precision @ covariance)

    def _deviations(self, filled: Floats) -> Floats:
        squares = (filled[:, : len(QUANTITIES)] ** 2).sum(axis=0) / self.counts[: len(QUANTITIES)]
        means = self.means[: len(QUANTITIES)]
        shares = np.clip(means, TOLERATED_SHARE, 1 - TOLERATED_SHARE)
        variances = np.where(_SHARES, shares * (1 - shares), squares - means**2)
        deviations: Floats = np.sqrt(np.maximum(variances, 1e-6))
        return deviations

    def sums(self, rows: pd.DataFrame, starts: npt.NDArray[np.intp]) -> Sums:
        """The sums of groups of adjacent rows, the first of each at `starts`."""
        groups = np.searchsorted(starts, np.arange(len(rows)), side="right") - 1
        shape = (len(starts), len(self.means))
        totals, counts = np.zeros(shape), np.zeros(shape)
        for piece in _pieces(len(rows)):
            scores = self._scores(rows.iloc[piece])
            known = np.isfinite(scores)
            own, first = np.unique(groups[piece], return_index=True)
            totals[own] += np.add.reduceat(np.where(known, scores, 0), first, dtype=float)
            counts[own] += np.add.reduceat(known, first, dtype=float)
        return Sums(totals, counts, np.bincount(groups, minlength=len(starts)).astype(float))

    def shift(self, sums: Sums, *, of: Floats | None = None) -> Shift:
        """How far the rows behind some sums have moved from the reference.

        Parameters
        ----------
        of
            The means to compare with, if they are not the reference's own.
        """
        counts = np.maximum(sums.counts, 1)
        moved = sums.totals / counts - (self.means if of is None else of)
        single, count = moved[:, : len(QUANTITIES)], counts[:, : len(QUANTITIES)]
        error = self.deviations * np.sqrt(1 / count + 1 / self.counts[: len(QUANTITIES)])
        z = np.where(sums.counts[:, : len(QUANTITIES)] < FEWEST_KNOWN, 0, single / error)
        z = np.where(_MISSING, np.maximum(z, 0), z)  # fewer missing values alarm nobody
        effect = np.where(_SHARES, single, single / self.deviations)
        joint, distance = self._joint(moved[:, len(QUANTITIES) :], sums.rows)
        return Shift(np.column_stack([z, joint]), np.column_stack([effect, distance]))

    def _joint(self, moved: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """What a linear two-sample classifier sees, as a normal deviate, and its distance.

        Hotelling's statistic (1931) over ranks and their products, brought to
        the normal scale by Wilson and Hilferty's cube root (1931).
        """
        square = np.einsum("gi,ij,gj->g", moved, self._precision, moved)
        scale, free = self._joint_moments
        statistic = square / (1 / np.maximum(rows, 1) + 1 / len(self.reference)) / scale
        z = (np.cbrt(statistic / free) - 1 + 2 / (9 * free)) / np.sqrt(2 / (9 * free))
        return np.where(rows < FEWEST_KNOWN, 0, np.maximum(z, 0)), np.sqrt(square)

    def _scores(self, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
        values = _values(rows)
        ranks = np.column_stack(
            [
                _ranked(column, ordered, table)
                for column, ordered, table in zip(values.T, self._sorted, self._table, strict=True)
            ]
        )
        spreads = ranks[:, : len(SPREADS)] ** 2
        gaps = np.isnan(values[:, : len(FEATURES)])
        region = places.regions(rows["Latitude"].to_numpy(), rows["Longitude"].to_numpy())
        where = region[:, None] == np.array(REGIONS)
        together = np.nan_to_num(ranks[:, : len(FEATURES)])
        pairs = together[:, _FIRST] * together[:, _SECOND]
        return np.column_stack([ranks, spreads, gaps, where, together, pairs]).astype(np.float32)

    def ranks(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Each value as the normal score of its rank among the reference's."""
        return pd.DataFrame(
            self._scores(rows)[:, : len(VALUES)], columns=list(VALUES), index=rows.index
        )


def _moments(matrix: Floats) -> tuple[float, float]:
    """The scale and degrees of freedom of the chi-square that a quadratic form resembles.

    Satterthwaite's (1946), by the eigenvalues of precision times covariance.
    """
    first, second = float(np.trace(matrix)), float(np.trace(matrix @ matrix))
    return second / first, first**2 / second


def _values(rows: pd.DataFrame) -> Floats:
    """What is watched of each row, shape (rows, len(VALUES)); impossible values are missing."""
    features = rows[list(FEATURES)].to_numpy(dtype=float)
    low = np.array([CONTRACT[name].low for name in FEATURES])
    high = np.array([CONTRACT[name].high for name in FEATURES])
    features = np.where((features >= low) & (features <= high), features, np.nan)
    predicted, price = rows["predicted"].to_numpy(), rows[TARGET].to_numpy()
    width = rows["high"].to_numpy() - predicted
    error = np.where((rows["fault"] == "").to_numpy(), predicted - price, np.nan)
    return np.column_stack([features, predicted, width, error, np.abs(error)])


def _normal_scores(count: int) -> Floats:
    """The normal score of each place among `count` sorted values, also between two of them."""
    places_ = np.arange(2 * count + 1) / 2
    scores: Floats = ndtri((places_ + 0.5) / (count + 1))
    return scores


def _ranked(column: Floats, ordered: Floats, table: Floats) -> Floats:
    left = np.searchsorted(ordered, column, side="left")
    right = np.searchsorted(ordered, column, side="right")
    return np.where(np.isnan(column), np.nan, table[left + right])


def _pieces(rows: int) -> Iterator[slice]:
    for start in range(0, rows, ROWS_A_PASS):
        yield slice(start, min(start + ROWS_A_PASS, rows))
