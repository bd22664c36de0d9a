"""Estimators that scikit-learn does not have in this form."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.feature_selection import SelectPercentile, f_regression
from sklearn.linear_model import LinearRegression, Ridge


class PercentileRegression(LinearRegression):
    """Ordinary least squares on the features that correlate most with the price.

    Least squares itself has nothing to tune; how many features it may use is
    the one choice that a practitioner makes.
    """

    def __init__(self, *, percentile: int = 100) -> None:
        super().__init__()
        self.percentile = percentile

    def fit(self, X: Any, y: Any) -> Self:
        """The regression fitted on the chosen features; the others get coefficient 0."""
        chosen = SelectPercentile(f_regression, percentile=self.percentile).fit(X, y).get_support()
        super().fit(X[:, chosen], y)
        self.coef_: Any = _spread(self.coef_, chosen)
        self.n_features_in_ = len(chosen)
        return self


class LinearStart(RegressorMixin, BaseEstimator):
    """An estimator that learns what a ridge regression of strength `alpha` leaves.

    A line follows a slope that trees cut into steps, and goes on where they end.
    """

    def __init__(self, estimator: Any, *, alpha: float = 1.0) -> None:
        self.estimator = estimator
        self.alpha = alpha

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """The line, and the estimator fitted on what is left."""
        self.line_ = Ridge(alpha=self.alpha).fit(X, y, sample_weight=sample_weight)
        left = np.asarray(y) - self.line_.predict(X)
        self.estimator_ = clone(self.estimator).fit(X, left, sample_weight=sample_weight)
        self.n_features_in_ = np.shape(X)[1]
        return self

    def predict(self, X: Any) -> Any:
        """The line's values and what the estimator adds, shape (rows,)."""
        return self.line_.predict(X) + self.estimator_.predict(X)


def _spread(values: Any, places: Any) -> Any:
    """Zeros everywhere, and `values` where `places` is true."""
    spread = np.zeros(len(places))
    spread[places] = values
    return spread
