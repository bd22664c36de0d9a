"""Estimators that scikit-learn does not have in this form."""

from typing import Any, Self

import numpy as np
from scipy.stats import norm
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_selection import SelectPercentile, f_regression
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.tree import DecisionTreeRegressor

from housing_lib.networks import Layer, Networks, rank_all

LEVELS = 64
KNOTS = 33
EPOCHS = 21
BATCH = 256
STILL = 1e-7  # a change of so little has no slope in single precision
# The steps of all epochs but the last two: smaller ones settle what larger ones left unsteady.
RATES = (1e-3, 3e-4, 1e-4)


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


class RoundedTree(DecisionTreeRegressor):
    """A decision tree that learns from features rounded to the nearest of 64 quantiles.

    To find a split, scikit-learn sorts the values in a node, which is far quicker if many
    are equal. Splits lie halfway between levels, so the tree takes values as they are.
    """

    def fit(self, X: Any, y: Any, **how: Any) -> Self:
        """The tree fitted on rounded features."""
        super().fit(rounded(X), y, **how)
        return self


class RoundedForest(RandomForestRegressor):
    """A random forest that learns from features rounded as those of `RoundedTree`."""

    def fit(self, X: Any, y: Any, **how: Any) -> Self:
        """The forest fitted on rounded features."""
        super().fit(rounded(X), y, **how)
        return self


def rounded(X: Any, levels: int = LEVELS) -> Any:
    """Each feature's values, rounded to the nearest of so many of its quantiles."""
    steps = np.quantile(X, np.linspace(0, 1, levels), axis=0)
    halfway = (steps[1:] + steps[:-1]) / 2
    columns = zip(np.transpose(X), steps.T, halfway.T, strict=True)
    return np.column_stack([step[np.searchsorted(half, x)] for x, step, half in columns])


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


class RankNetwork(RegressorMixin, BaseEstimator):
    """A neural network that sees ranks instead of values.

    Each feature becomes the normal score of its rank among the known ones (van der
    Waerden 1952), so that none is ever far out. Where trees make steps, a network bends.
    All districts count alike, whatever their weight.

    Parameters
    ----------
    units
        Of the two hidden layers.
    alpha
        How strongly large weights are punished.
    epochs
        How often it hears all districts before its steps become smaller.
    """

    def __init__(
        self,
        *,
        units: tuple[int, int] = (128, 64),
        alpha: float = 0.4,
        epochs: int = EPOCHS,
        random_state: int = 0,
    ) -> None:
        self.units = units
        self.alpha = alpha
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """The fitted network, after `epochs` and two more of smaller steps."""
        shares = np.linspace(0, 1, KNOTS)
        ends = 0.5 / (KNOTS - 1)
        self.knots_ = np.quantile(X, shares, axis=0).T.astype("f4", order="C")
        self.scores_ = norm.ppf(np.clip(shares, ends, 1 - ends)).astype("f4")
        learner = self._learner(len(y))
        ranked, prices = self._ranked(X), np.asarray(y, dtype="f4")
        for rate in RATES:
            learner.set_params(learning_rate_init=rate).fit(ranked, prices)
        self.weights_, self.thresholds_ = learner.coefs_, learner.intercepts_
        self.n_features_in_ = np.shape(X)[1]
        return self

    def _learner(self, rows: int) -> MLPRegressor:
        # No epoch ever gains what the tolerance asks, so the first fit ends after `epochs`,
        # and those that go on with it after one.
        return MLPRegressor(
            hidden_layer_sizes=self.units,
            alpha=self.alpha,
            batch_size=min(BATCH, rows),
            random_state=self.random_state,
            warm_start=True,
            tol=1e9,
            n_iter_no_change=max(self.epochs - 2, 1),
            max_iter=10 * self.epochs,
        )

    def _ranked(self, X: Any) -> Any:
        return rank_all(self.knots_, self.scores_, np.ascontiguousarray(X, dtype="f4"))

    def predict(self, X: Any) -> Any:
        """The network's values, shape (rows,)."""
        return self.arrays.predict(X)

    @property
    def arrays(self) -> Networks:
        """The network as compiled code asks it."""
        alone = [array[np.newaxis] for array in (*self.weights_, *self.thresholds_)]
        return Networks(self.knots_, self.scores_, *map(Layer, alone[:3], alone[3:]))

    def contributions(self, X: Any) -> Any:
        """What each feature adds to the value of a usual district, and last that value.

        Shape (rows, features + 1); the columns add up to what `predict` says. Rescale
        rule of DeepLIFT (Shrikumar, Greenside and Kundaje 2017), beside a district
        whose features are all 0.
        """
        usual, given = self._ranked(np.zeros((1, self.n_features_in_))), self._ranked(X)
        *hidden, (out, end) = zip(self.weights_, self.thresholds_, strict=True)
        slopes, before, now = [], usual, given
        for weights, start in hidden:
            slopes.append(_slope(before @ weights + start, now @ weights + start))
            before, now = (np.maximum(one @ weights + start, 0) for one in (before, now))
        pull = out[:, 0]
        for slope, weights in zip(reversed(slopes), reversed(self.weights_[:-1]), strict=True):
            pull = (slope * pull) @ weights.T
        base = np.full(len(given), before[0] @ out[:, 0] + end[0])
        return np.column_stack([(given - usual) * pull, base]).astype("f8")


def _slope(before: Any, now: Any) -> Any:
    """What of a change of sums gets through units that let no negative sum pass."""
    change = now - before
    still = np.abs(change) < STILL
    passed = np.maximum(now, 0) - np.maximum(before, 0)
    return np.where(still, before > 0, passed / np.where(still, 1, change))


def _spread(values: Any, places: Any) -> Any:
    """Zeros everywhere, and `values` where `places` is true."""
    spread = np.zeros(len(places))
    spread[places] = values
    return spread
