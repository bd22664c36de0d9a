"""Estimators that scikit-learn does not have in this form."""

from typing import Any, Self

import numpy as np
from sklearn.feature_selection import SelectPercentile, f_regression
from sklearn.linear_model import LinearRegression


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


def _spread(values: Any, places: Any) -> Any:
    """Zeros everywhere, and `values` where `places` is true."""
    spread = np.zeros(len(places))
    spread[places] = values
    return spread
