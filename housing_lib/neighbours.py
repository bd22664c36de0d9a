"""What the training districts around a district tell of its price, as a transformer."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree
from sklearn.base import BaseEstimator, TransformerMixin

from housing_lib.data import FEATURES, DataError, Floats, row_ids
from housing_lib.nearness import Indices, grow, nearest
from housing_lib.places import places_km

COUNTS = np.array([1, 2, 3, 5, 10, 20, 40])
WIDE = COUNTS[3:]  # the spread of fewer prices says nothing
FEW, MANY = 5, 20
CONSTANT = 1e-9  # a spread below is the rounding of a trait that is the same everywhere
TRAITS = ("LogIncome", "HouseAge", "LogRooms", "LogBedrooms", "LogOccupants")
# Near in the first space means near by place. In the others it means near by place and kind
# together, where so many kilometres weigh as much as one spread of a trait.
SPACES = {"Place": np.inf, "Kind1.5": 1.5, "Kind5": 5.0, "Kind20": 20.0}
# Coordinates are rounded to hundredths of a degree: nothing nearer than this can be told apart.
SOFTENING = {"Place": 0.3, "Kind1.5": 0.1, "Kind5": 0.1, "Kind20": 0.1}
PENALTIES = {"Place": (0.3, 3.0, 30.0), "Kind1.5": (), "Kind5": (3.0,), "Kind20": ()}


class NeighbourFeatures(TransformerMixin, BaseEstimator):
    """Prices and traits of the training districts that are nearest, by place and by kind.

    `fit_transform` leaves each training district out of its own neighbourhood, so
    that no price ever tells of itself: therefore `fit(X, y).transform(X)` does
    not equal `fit_transform(X, y)`, as with scikit-learn's `TargetEncoder`. Rows
    that repeat are one district, of their mean price.
    """

    def fit(self, X: Floats, y: Floats) -> Self:
        """Remember the training districts: complete columns, shape (rows, 8), and their prices.

        Raises
        ------
        DataError
            If there are fewer than two districts.
        """
        owners = owners_of(X)
        _, first = np.unique(owners, return_index=True)
        if len(first) < 2:
            raise DataError(
                f"found {len(first)} training district; expected at least 2 that differ, because "
                "each learns from its neighbours. Nothing was fitted."
            )
        X = X[first]
        traits = _traits(X)
        self.n_features_in_ = np.shape(X)[1]
        spread = traits.std(axis=0)
        self.mean_, self.spread_ = traits.mean(axis=0), np.where(spread < CONSTANT, 1, spread)
        self.kinds_, self.places_ = self._kinds(X), places_km(X[:, 6], X[:, 7])
        self.incomes_ = _incomes(X)
        self.prices_ = np.bincount(owners, weights=y) / np.bincount(owners)
        self._trees = self._grow()
        return self

    def fit_transform(self, X: Floats, y: Any = None, **_: Any) -> Floats:
        """The features of the training districts, each left out of its own neighbourhood.

        Raises
        ------
        DataError
            If there are fewer than two districts.
        """
        return self.fit(X, y)._features(X, owners_of(X))

    def transform(self, X: Floats) -> Floats:
        """The features of other districts, shape (rows, features)."""
        return self._features(X)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """The name of each feature."""
        names: list[str] = []
        for space in SPACES:
            of_counts = ("Price", "WeightedPrice", "PriceByIncome", "LogDistance")
            names += [f"{space}{what}{count}" for what in of_counts for count in COUNTS]
            names += [f"{space}Spread{count}" for count in WIDE]
            extremes = ("Lowest", "Highest")
            names += [f"{space}{what}{count}" for what in extremes for count in (FEW, MANY)]
            names += [f"{space}LocalPrice{penalty:g}" for penalty in PENALTIES[space]]
        names += [f"Around{trait}{count}" for count in (FEW, MANY) for trait in TRAITS]
        return np.asarray(names, dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        """The transformer without its search trees, which grow again from the districts."""
        return {key: value for key, value in super().__getstate__().items() if key != "_trees"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a stored state and grow the search trees again."""
        super().__setstate__(state)
        if "places_" in state:
            self._trees = self._grow()

    def _grow(self) -> dict[str, KDTree]:
        return {space: grow(points) for space, points in _points(self.places_, self.kinds_).items()}

    def _kinds(self, X: Floats) -> Floats:
        kinds: Floats = (_traits(X) - self.mean_) / self.spread_
        return kinds

    def _features(self, X: Floats, owners: Indices | None = None) -> Floats:
        kinds, incomes = self._kinds(X), _incomes(X)
        blocks: list[Floats] = []
        for space, points in _points(places_km(X[:, 6], X[:, 7]), kinds).items():
            distances, found = _nearest(self._trees[space], points, owners)
            softened = distances + SOFTENING[space]
            blocks += self._prices_around(softened, found, incomes)
            blocks += self._local_prices(softened, found, kinds, PENALTIES[space])
            if space == "Place":
                around = self.kinds_[found]
        return np.hstack([*blocks, around[:, :FEW].mean(axis=1), around[:, :MANY].mean(axis=1)])

    def _prices_around(self, distances: Floats, found: Indices, incomes: Floats) -> list[Floats]:
        prices, weights = self.prices_[found], 1 / distances
        by_income = prices / self.incomes_[found]
        mean = _running(prices) / COUNTS
        spread = np.sqrt(np.maximum(_running(prices**2) / COUNTS - mean**2, 0))
        ends = np.array([FEW, MANY]) - 1
        return [
            mean,
            _running(weights * prices) / _running(weights),
            _running(weights * by_income) / _running(weights) * incomes[:, None],
            np.log(distances[:, COUNTS - 1]),
            spread[:, -len(WIDE) :],
            np.minimum.accumulate(prices, axis=1)[:, ends],
            np.maximum.accumulate(prices, axis=1)[:, ends],
        ]

    def _local_prices(
        self, distances: Floats, found: Indices, kinds: Floats, penalties: tuple[float, ...]
    ) -> list[Floats]:
        """Prices by ridge regression on traits over the neighbours, the near ones weighing more.

        Geographically weighted regression (Brunsdon, Fotheringham and Charlton
        1996) with a bisquare kernel that ends at the farthest neighbour; one for
        each penalty of the traits.
        """
        if not penalties:
            return []
        traits = self.kinds_[found] - kinds[:, None, :]  # so that the constant is the price here
        design = np.concatenate([np.ones((*found.shape, 1)), traits], axis=2)
        weights = np.maximum(1 - (distances / distances[:, -1:]) ** 2, 0.05) ** 2
        weighted = design * weights[..., None]
        gram = weighted.transpose(0, 2, 1) @ design
        moment = weighted.transpose(0, 2, 1) @ self.prices_[found][..., None]
        ridges = [np.diag([1e-9] + [penalty] * traits.shape[2]) for penalty in penalties]
        return [np.linalg.solve(gram + ridge, moment)[:, :1, 0] for ridge in ridges]


def owners_of(X: Floats) -> Indices:
    """The number of the district that each row is, in the order in which they first appear.

    Equal rows are one, as in the split: districts of other parts have no such twin
    among those that are known, so none of these may see its own price through one.
    """
    numbers, _ = pd.factorize(row_ids(pd.DataFrame(X, columns=list(FEATURES))))
    return numbers


def _incomes(X: Floats) -> Floats:
    return np.maximum(X[:, 0], 0.1)


def _traits(X: Floats) -> Floats:
    logarithms = np.log1p(np.maximum(X[:, [2, 3, 5]], 0))
    return np.column_stack([np.log(_incomes(X)), X[:, 1], logarithms])


def _points(places: Floats, kinds: Floats) -> dict[str, Floats]:
    """The districts in each space."""
    return {
        space: places if np.isinf(km) else np.hstack([places / km, kinds])
        for space, km in SPACES.items()
    }


def _nearest(tree: KDTree, points: Floats, owners: Indices | None = None) -> tuple[Floats, Indices]:
    """Distances and indices of the nearest districts, shape (rows, 40), the nearest first.

    With `owners`, the points are the tree's own of these numbers, and each is left out. Where
    there are too few districts, the farthest stands for those that are not there.
    """
    most = int(COUNTS[-1])
    count = min(most + (owners is not None), tree.n)
    distances, found = nearest(tree, points, count)
    if owners is not None:
        # Others may lie at the same place, so the own one may stand anywhere or not at all.
        own = found == owners[:, None]
        others = np.argsort(own, axis=1, kind="stable")[:, : count - 1]
        distances = np.take_along_axis(distances, others, axis=1)
        found = np.take_along_axis(found, others, axis=1)
    places = np.minimum(np.arange(most), found.shape[1] - 1)
    return distances[:, places], found[:, places]


def _running(values: Floats) -> Floats:
    """The sums over the first 1, 2, 3, 5 ... columns."""
    sums: Floats = np.cumsum(values, axis=1)[:, COUNTS - 1]
    return sums
