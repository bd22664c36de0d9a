"""A model as plain arrays in one file, which gives the model's own numbers.

Loading it runs no code from the file, and needs neither scikit-learn, XGBoost
nor pandas.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from housing_lib.arrays import flatten, restore
from housing_lib.compiled_features import Around, Own, district_matrix, place_km
from housing_lib.contract import Floats
from housing_lib.errors import HousingError
from housing_lib.files import atomic_path, file_digest
from housing_lib.forests import Forest, Mean
from housing_lib.networks import Networks
from housing_lib.searching import nearest
from housing_lib.shallow import Shallow

FORMAT = 9
TOLERANCE = 1e-6


class CompileError(HousingError):
    """A model that cannot become arrays, or arrays that do not give the model's numbers."""


@dataclass(frozen=True)
class Answers:
    """What a model says of some districts, prices in 100,000 USD.

    The bounds are NaN where the model gives no interval; `nearest_km` is the distance
    to the nearest training district, NaN where nobody gave a place.
    """

    prices: Floats
    low: Floats
    high: Floats
    nearest_km: Floats

    def table(self) -> Floats:
        """Prices and bounds, shape (rows, 3)."""
        return np.column_stack([self.prices, self.low, self.high])


@dataclass(frozen=True)
class Linear:
    """A value that is a weighted sum of the features."""

    weights: Floats
    start: float

    def predict(self, matrix: Floats) -> Floats:
        """The value of each row of the model matrix."""
        # Not a product of matrices: that gives a row other last bits alone than among others.
        values: Floats = (matrix * self.weights).sum(axis=1) + self.start
        return values


Estimator = Shallow | Forest | Mean | Linear


@dataclass(frozen=True)
class Error:
    """The error to expect, and how many times it holds the true price in 90 % of districts."""

    booster: Shallow | Mean
    least: float
    factor: float

    def half_width(self, evidence: Floats) -> Floats:
        """Half the interval's width, in 100,000 USD."""
        expected: Floats = np.maximum(self.booster.predict(evidence).astype("float64"), self.least)
        return self.factor * expected


@dataclass(frozen=True)
class Member:
    """One model of a weighted mean: an estimator among known districts, and one far from them.

    The first one adds to `start`, if some of its parts start from a line, and counts
    what is left of the share of `networks`, if there are any.
    """

    weight: float
    start: Linear | None
    near: Estimator
    networks: Networks | None
    network_share: float
    far: Estimator
    trust: float
    reach_km: float
    sharpness: float

    def both(self, matrix: Floats, far_columns: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """What the two estimators say of the rows of the model matrix."""
        near = self.near.predict(matrix).astype("float64")
        if self.networks is not None:
            near *= 1 - self.network_share
            near += self.network_share * self.networks.predict(matrix)
        if self.start is not None:
            near += self.start.predict(matrix)
        return near, self.far.predict(matrix[:, far_columns]).astype("float64")

    def near_share(self, kilometres: Floats) -> Floats:
        """How much the first estimator counts, this far from known districts."""
        share: Floats = self.trust / (1 + (kilometres / self.reach_km) ** self.sharpness)
        return share


@dataclass(frozen=True)
class Compiled:
    """A champion as arrays: complete the district, compute its features, ask each member.

    Parameters
    ----------
    medians
        What stands in for each of the eight columns where it is missing.
    mean, scale
        What features are centred on and divided by.
    members
        The models whose weighted mean counts; mostly one.
    distance_column, far_columns
        The columns with the distance to known districts, and with what is not of neighbours.
    error
        What the intervals are made of, if the model has any.
    districts
        The training districts, shape (rows, 8).
    golden, expected
        Some districts, and the table of what the model itself said of them.
    """

    medians: Floats
    own: Own
    around: Around
    mean: Floats
    scale: Floats
    members: tuple[Member, ...]
    far_columns: npt.NDArray[np.int64]
    distance_column: int
    error: Error | None
    districts: Floats
    golden: Floats
    expected: Floats

    def answer(self, districts: Floats) -> Answers:
        """What the model says of districts of shape (rows, 8), whose missing values are NaN."""
        given = np.isfinite(districts)
        complete = np.ascontiguousarray(np.where(given, districts, self.medians))
        features, kilometres = district_matrix(complete, self.own, self.around)
        nearest_km = np.where(given[:, 6:8].all(axis=1), kilometres, np.nan)
        matrix = (features - self.mean) / self.scale
        prices, gaps = self._mean(matrix, np.exp(features[:, self.distance_column]))
        if self.error is None:
            unknown = np.full(len(prices), np.nan)
            return Answers(prices, unknown, unknown, nearest_km)
        half = self.error.half_width(np.column_stack([prices, gaps, matrix]))
        low, high = np.maximum(prices - half, 0), np.maximum(prices + half, 0)
        return Answers(prices, low, high, nearest_km)

    def _mean(self, matrix: Floats, kilometres: Floats) -> tuple[Floats, Floats]:
        """The members' mean price, and how far apart their two estimators are."""
        prices, gaps = np.zeros(len(matrix)), np.zeros(len(matrix))
        for member in self.members:
            near, far = member.both(matrix, self.far_columns)
            share = member.near_share(kilometres)
            prices += member.weight * (share * near + (1 - share) * far)
            gaps += member.weight * np.abs(near - far)
        return prices, gaps

    def nearest(self, latitude: float, longitude: float) -> tuple[int, float]:
        """The row of the training district nearest to a place, and its distance in km."""
        place, squares, rows = np.empty(3), np.empty(1, dtype="f4"), np.empty(1, dtype="i8")
        place_km(latitude, longitude, self.own.radius_km, place)
        nearest(self.around.spaces[0].search, place.astype("f4"), squares, rows)
        return int(rows[0]), float(np.sqrt(squares[0]))

    def save(self, path: Path) -> str:
        """The SHA-256 of the file, after writing the arrays to it."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, format=np.array(FORMAT), **flatten(self))
        return file_digest(path)


def load(path: Path, *, digest: str) -> Compiled:
    """The compiled model in a file, which is proved before it is read, and asked before it counts.

    Raises
    ------
    CompileError
        If it is not the file that was written, or does not give the answers stored in it.
    """
    try:
        _refuse_changed(path, file_digest(path), digest)
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise CompileError(f"{path} cannot be read: {error}. Nothing was loaded.") from error
    compiled = _from_arrays(path, arrays)
    refuse_difference(
        compiled.answer(compiled.golden).table(), compiled.expected, "its golden districts"
    )
    return compiled


def _from_arrays(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> Compiled:
    try:
        if int(arrays["format"]) != FORMAT:
            raise KeyError("format")
        compiled: Compiled = restore(Compiled, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CompileError(
            f"{path} was compiled by another version of Housing ({error}). Nothing was loaded."
        ) from error
    return compiled


def _refuse_changed(path: Path, found: str, digest: str) -> None:
    if found != digest:
        raise CompileError(
            f"{path} is not the file that was compiled.\n"
            f"  found    SHA-256 {found}\n  expected SHA-256 {digest}\nNothing was loaded."
        )


def refuse_difference(found: Floats, expected: Floats, where: str) -> None:
    """Raise if two tables of answers are not equal.

    Raises
    ------
    CompileError
        If an answer differs by more than `TOLERANCE`, or is missing on one side.
    """
    if np.allclose(found, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
        return
    difference = np.nanmax(np.abs(found - expected))
    raise CompileError(
        f"the compiled model is not the model: on {where} their answers differ by up to "
        f"{difference:.3g}; expected at most {TOLERANCE:g} (100,000 USD). Nothing was changed."
    )
