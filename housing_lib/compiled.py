"""A model as plain arrays in one file, proved to give the model's own numbers.

Loading it runs no code from the file, and needs neither scikit-learn, XGBoost
nor pandas.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from housing_lib.contract import CONTRACT, FEATURES, Floats
from housing_lib.files import atomic_path, file_digest
from housing_lib.forests import Forest, from_histogram_boosting, from_trees, from_xgboost
from housing_lib.settings import HousingError

FORMAT = 2
TOLERANCE = 1e-6
GOLDEN_ROWS = 64
EARTH_RADIUS_KM = 6371.0088


class CompileError(HousingError):
    """A model that cannot become arrays, or arrays that do not give the model's numbers."""


@dataclass(frozen=True)
class Answers:
    """What a model says of some districts, prices in 100,000 USD; NaN where it says nothing."""

    prices: Floats
    low: Floats
    high: Floats
    nearest_km: Floats


@dataclass(frozen=True)
class Linear:
    """A price that is a weighted sum of the features."""

    weights: Floats
    start: float

    def predict(self, matrix: Floats) -> Floats:
        """The value of each row of the model matrix."""
        values: Floats = matrix @ self.weights + self.start
        return values


@dataclass(frozen=True)
class Compiled:
    """A model as arrays: complete the district, compute its features, add up.

    Parameters
    ----------
    medians
        What stands in for each of the eight columns where it is missing.
    cities, angles
        The places to which distances are features, and the rotations in radians.
    mean, spread
        What features are centred and divided by.
    districts, prices
        The training districts, shape (rows, 8), and their prices.
    golden, expected
        Some districts, and what the model itself said of them.
    """

    medians: Floats
    cities: Floats
    angles: Floats
    mean: Floats
    spread: Floats
    districts: Floats
    prices: Floats
    golden: Floats
    expected: Floats
    estimator: Forest | Linear

    def matrix(self, districts: Floats) -> Floats:
        """The model matrix of districts of shape (rows, 8), whose missing values are NaN."""
        complete = np.where(np.isfinite(districts), districts, self.medians)
        features = district_features(complete, self.cities, self.angles)
        matrix: Floats = (features - self.mean) / self.spread
        return matrix

    def predict(self, districts: Floats) -> Floats:
        """The price of each district in 100,000 USD."""
        return self.estimator.predict(self.matrix(districts))

    def answer(self, districts: Floats) -> Answers:
        """The price of each district, its interval, and how near the training districts are."""
        unknown = np.full(len(districts), np.nan)
        complete = np.where(np.isfinite(districts), districts, self.medians)
        nearest = nearest_km(self.districts, complete)[1]
        return Answers(self.predict(districts), unknown, unknown, nearest)

    def save(self, path: Path) -> str:
        """The SHA-256 of the file, after writing the arrays to it."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, format=np.array(FORMAT), **_flat(self))
        return file_digest(path)


def load(path: Path, *, digest: str) -> Compiled:
    """The compiled model in a file, which is proved before it is read, and asked before it counts.

    Raises
    ------
    CompileError
        If it is not the file that was written, or does not give the answers stored in it.
    """
    try:
        found = file_digest(path)
        _refuse_changed(path, found, digest)
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, EOFError) as error:
        raise CompileError(f"{path} cannot be read: {error}. Nothing was loaded.") from error
    compiled = _from_arrays(path, arrays)
    _refuse_difference(compiled.predict(compiled.golden), compiled.expected, "its golden districts")
    return compiled


def _refuse_changed(path: Path, found: str, digest: str) -> None:
    if found != digest:
        raise CompileError(
            f"{path} is not the file that was compiled.\n"
            f"  found    SHA-256 {found}\n  expected SHA-256 {digest}\nNothing was loaded."
        )


def _flat(parts: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(parts):
        value = getattr(parts, field.name)
        nested = hasattr(value, "__dataclass_fields__")
        name = f"{prefix}{field.name}"
        flat |= _flat(value, f"{name}.") if nested else {name: np.asarray(value)}
    return flat


def _from_arrays(path: Path, arrays: dict[str, Any]) -> Compiled:
    if int(arrays.pop("format", 0)) != FORMAT:
        raise CompileError(
            f"{path} was compiled by another version of Housing. Promote the model again. "
            "Nothing was loaded."
        )
    plain = {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
    nested = {name: value for name, value in plain.items() if "." in name}
    parts = {name.partition(".")[2]: value for name, value in nested.items()}
    estimator = Forest(**parts) if "nodes" in parts else Linear(**parts)
    flat = {name: value for name, value in plain.items() if "." not in name}
    return Compiled(**flat, estimator=estimator)


def compile_model(model: Any, districts: Floats, prices: Floats) -> Compiled:
    """A fitted model as arrays; `prove` says whether they are the model.

    Parameters
    ----------
    districts, prices
        The training districts, shape (rows, 8), and what they were worth.

    Raises
    ------
    CompileError
        If the model is of a kind that cannot become arrays.
    """
    golden = synthetic_districts(districts, rows=GOLDEN_ROWS, seed=0)
    compiled = Compiled(
        **_preprocessing(model.named_steps["preprocessing"]),
        districts=districts,
        prices=prices,
        golden=golden,
        expected=np.asarray(model.predict(golden), dtype="float64"),
        estimator=_estimator(model.named_steps["estimator"]),
    )
    return compiled


def prove(compiled: Compiled, model: Any, districts: Floats) -> None:
    """Prove that both give the same numbers for these districts.

    Raises
    ------
    CompileError
        If a price differs by more than `TOLERANCE`.
    """
    expected = np.asarray(model.predict(districts), dtype="float64")
    _refuse_difference(compiled.predict(districts), expected, f"{len(districts):,} districts")
    few = districts[:: max(1, len(districts) // 100)]
    alone = np.concatenate([compiled.predict(row[None]) for row in few])
    _refuse_difference(alone, np.asarray(model.predict(few)), f"{len(few):,} districts one by one")


def _refuse_difference(found: Floats, expected: Floats, where: str) -> None:
    difference = np.abs(found - expected).max()
    if not difference <= TOLERANCE:
        raise CompileError(
            f"the compiled model is not the model: on {where} their prices differ by up to "
            f"{difference:.3g}; expected at most {TOLERANCE:g} (100,000 USD). Nothing was changed."
        )


def synthetic_districts(districts: Floats, *, rows: int, seed: int) -> Floats:
    """Districts as nobody saw them: mixtures of real ones, any place in range, missing values."""
    random = np.random.default_rng(seed)
    first, second = districts[random.integers(0, len(districts), (2, rows))]
    share = random.random((rows, 1))
    mixed = share * first + (1 - share) * second
    columns = [CONTRACT[name] for name in FEATURES]
    low, high = np.array([[one.low, one.high] for one in columns]).T
    anywhere = low + (high - low) * random.random((rows, 8))
    made = np.where(random.random((rows, 8)) < 0.1, anywhere, mixed)
    return np.where(random.random((rows, 8)) < 0.05, np.nan, made)


def _preprocessing(steps: Any) -> dict[str, Floats]:
    from housing_lib.features import CITIES, ROTATIONS_DEGREES

    found = [type(step).__name__ for step in steps.named_steps.values()]
    known = ["DistrictColumns", "SimpleImputer", "DistrictFeatures", "StandardScaler"]
    if found != known:
        raise CompileError(f"preprocessing is {', '.join(found)}; expected {', '.join(known)}.")
    return {
        "medians": steps.named_steps["impute"].statistics_,
        "cities": np.array(list(CITIES.values())),
        "angles": np.deg2rad(ROTATIONS_DEGREES),
        "mean": steps.named_steps["scale"].mean_,
        "spread": steps.named_steps["scale"].scale_,
    }


def _estimator(estimator: Any) -> Forest | Linear:
    kind = type(estimator).__name__
    if kind == "XGBRegressor":
        return from_xgboost(estimator)
    if kind == "HistGradientBoostingRegressor":
        return from_histogram_boosting(estimator)
    if kind in ("RandomForestRegressor", "ExtraTreesRegressor"):
        return from_trees(estimator.estimators_)
    if kind == "DecisionTreeRegressor":
        return from_trees([estimator])
    if hasattr(estimator, "coef_"):
        return Linear(np.asarray(estimator.coef_, dtype="f8"), float(estimator.intercept_))
    raise CompileError(f"a {kind} cannot become arrays. Nothing was changed.")


@njit(cache=True, nogil=True)
def district_features(districts, cities, angles):  # type: ignore[no-untyped-def]
    """What `features.DistrictFeatures` computes of complete districts, number by number."""
    made = np.empty((len(districts), 13 + len(angles) + len(cities)))
    for row in range(len(districts)):
        income, age, rooms, bedrooms, people, occupants, latitude, longitude = districts[row]
        out = made[row]
        out[0], out[1] = income, age
        out[2], out[3] = log_of(rooms), log_of(bedrooms)
        out[4], out[5] = log_of(people), log_of(occupants)
        out[6] = bedrooms / max(rooms, 0.1)
        out[7] = log_of(occupants / max(rooms, 0.1))
        out[8] = income / max(rooms, 0.1)
        out[9] = math.log1p(people / max(occupants, 0.1))
        out[10], out[11] = latitude, longitude
        for k in range(len(angles)):
            out[12 + k] = math.cos(angles[k]) * longitude + math.sin(angles[k]) * latitude
        nearest = np.inf
        for k in range(len(cities)):
            km = haversine_km(latitude, longitude, cities[k, 0], cities[k, 1])
            out[12 + len(angles) + k] = math.log1p(km)
            nearest = min(nearest, km)
        out[12 + len(angles) + len(cities)] = math.log1p(nearest)
    return made


@njit(cache=True)
def log_of(value):  # type: ignore[no-untyped-def]
    """The logarithm of one more than a value."""
    return math.log1p(max(value, 0.0))


@njit(cache=True)
def haversine_km(latitude, longitude, to_latitude, to_longitude):  # type: ignore[no-untyped-def]
    """The great-circle distance in kilometres, as `features.distance_km` computes it."""
    phi, to_phi = math.radians(latitude), math.radians(to_latitude)
    rise = math.sin((to_phi - phi) / 2) ** 2
    turn = math.sin(math.radians(to_longitude - longitude) / 2) ** 2
    chord = rise + math.cos(phi) * math.cos(to_phi) * turn
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(chord))


@njit(cache=True, nogil=True, fastmath=True)
def nearest_km(places, points):  # type: ignore[no-untyped-def]
    """The row of the nearest place to each point, and its distance; both have eight columns."""
    rows, found = np.zeros(len(points), np.int64), np.empty(len(points))
    for point in range(len(points)):
        latitude, longitude = points[point, 6], points[point, 7]
        # Flat between near places, which is where it matters.
        shrunk = math.cos(math.radians(latitude))
        least = np.inf
        for row in range(len(places)):
            north = places[row, 6] - latitude
            east = (places[row, 7] - longitude) * shrunk
            distance = north * north + east * east
            if distance < least:
                least, rows[point] = distance, row
        found[point] = math.radians(math.sqrt(least)) * EARTH_RADIUS_KM
    return rows, found
