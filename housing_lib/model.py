"""The model of a district's price: one estimator among known districts, one far from them."""

from typing import Any, Self

import numpy as np
import pandas as pd
from joblib import parallel_config
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import VotingRegressor
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from housing_lib.data import DataError, Floats
from housing_lib.features import Prepared, feature_names, own_names, prepare, thinned_matrix
from housing_lib.neighbours import SOFTENING

NAMES = feature_names()
# Coordinates themselves tell a place that was seen from one that was not, and nothing else.
FAR_COLUMNS = [NAMES.index(name) for name in own_names() if name not in ("Latitude", "Longitude")]
FEWEST_TO_THIN = 4  # so that each half knows two districts
DISTANCE_COLUMN = NAMES.index("PlaceLogDistance1")


class DistrictModel(RegressorMixin, BaseEstimator):
    """Prices in 100,000 USD from raw districts, whatever the estimator.

    Preprocessing is inside, so a model can never be served with that of another.
    Neighbours' prices tell most of a price where there are neighbours, and
    mislead where there are none; so a second estimator, of the same kind by
    default, sees only what a district says of itself. The answer is a mean of
    both: among neighbours the first one counts `trust`, and half of that where
    the nearest training district is `reach_km` away.

    With `thinned`, the near estimator also learns, with that weight, from each
    district as it looks when only a random half of its neighbours is known.
    """

    def __init__(
        self,
        near: Any,
        far: Any = None,
        *,
        thinned: float = 0.0,
        trust: float = 1.0,
        reach_km: float = 12.0,
        sharpness: float = 2.0,
    ) -> None:
        self.near = near
        self.far = far
        self.thinned = thinned
        self.trust = trust
        self.reach_km = reach_km
        self.sharpness = sharpness

    def fit(
        self,
        X: pd.DataFrame | Floats,
        y: Floats,
        *,
        near_fitted: Any = None,
        prepared: Prepared | None = None,
    ) -> Self:
        """The fitted model.

        Parameters
        ----------
        near_fitted
            The estimator among known districts, if it was fitted on these already.
        prepared
            What `features.prepare` gives for these districts, if it was asked already.

        Raises
        ------
        DataError
            If there are fewer than two districts, or a price is missing.
        """
        prices = np.asarray(y, dtype="float64")
        if not np.isfinite(prices).all():
            raise DataError(
                f"found {(~np.isfinite(prices)).sum():,} prices that are missing or infinite; "
                "expected none to learn from. Nothing was fitted."
            )
        prepared = prepared or prepare(X, prices)
        self.preprocessing_ = prepared.preprocessing
        self.near_ = near_fitted or self._fit_near(X, prepared.matrix, prices)
        far = clone(self.near if self.far is None else self.far)
        self.far_ = far.fit(prepared.matrix[:, FAR_COLUMNS], prices)
        return self

    def _fit_near(self, X: pd.DataFrame | Floats, matrix: Floats, prices: Floats) -> Any:
        near = clone(self.near)
        if not self.thinned or len(prices) < FEWEST_TO_THIN:
            return near.fit(matrix, prices)
        again = thinned_matrix(self.preprocessing_, X, prices)
        weights = np.repeat([1.0, self.thinned], len(prices))
        # Fits let go of Python; networks would depend on how many threads multiply matrices.
        with parallel_config(backend="threading"), threadpool_limits(1, user_api="blas"):
            return near.fit(np.vstack([matrix, again]), np.tile(prices, 2), sample_weight=weights)

    def transform(self, X: pd.DataFrame | Floats) -> Floats:
        """The model matrix of raw districts, shape (rows, features).

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        check_is_fitted(self, "preprocessing_")
        matrix: Floats = self.preprocessing_.transform(X)
        return matrix

    def predict(self, X: pd.DataFrame | Floats) -> Floats:
        """Prices in 100,000 USD, shape (rows,).

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        return self.predict_matrix(self.transform(X))

    def predict_matrix(self, matrix: Floats) -> Floats:
        """Prices in 100,000 USD of a model matrix."""
        share = self.near_share(matrix)
        near, far = self._both(matrix)
        prices: Floats = share * near + (1 - share) * far
        return prices

    def disagreement(self, matrix: Floats) -> Floats:
        """How far apart the two estimators are, in 100,000 USD."""
        near, far = self._both(matrix)
        return np.abs(near - far)

    def _both(self, matrix: Floats) -> tuple[Floats, Floats]:
        near = np.asarray(self.near_.predict(matrix), dtype="float64")
        far = np.asarray(self.far_.predict(matrix[:, FAR_COLUMNS]), dtype="float64")
        return near, far

    @property
    def near_estimators(self) -> list[Any]:
        """The estimators whose weighted mean answers among neighbours: one, or several."""
        several = isinstance(self.near_, VotingRegressor)
        return list(self.near_.estimators_) if several else [self.near_]

    @property
    def near_weights(self) -> list[float]:
        """How much each of them counts; together 1."""
        several = isinstance(self.near_, VotingRegressor)
        weights = (several and self.near_.weights) or [1.0] * len(self.near_estimators)
        return [weight / sum(weights) for weight in weights]

    def near_share(self, matrix: Floats) -> Floats:
        """How much the estimator among known districts counts, from 0 to 1."""
        away = (self._softened_km(matrix) / self.reach_km) ** self.sharpness
        share: Floats = self.trust / (1 + away)
        return share

    def distance_km(self, matrix: Floats) -> Floats:
        """The kilometres to the nearest training district."""
        kilometres: Floats = np.maximum(self._softened_km(matrix) - SOFTENING["Place"], 0)
        return kilometres

    def _softened_km(self, matrix: Floats) -> Floats:
        scale = self.preprocessing_.named_steps["scale"]
        column = matrix[:, DISTANCE_COLUMN]
        kilometres: Floats = np.exp(
            column * scale.scale_[DISTANCE_COLUMN] + scale.mean_[DISTANCE_COLUMN]
        )
        return kilometres
