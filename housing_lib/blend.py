"""A weighted mean of several families' models, as one more candidate."""

import os
import timeit
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import KFold

from housing_lib.accuracy import metrics, predictions, rmse_difference
from housing_lib.data import Floats
from housing_lib.evaluation import CHAMPION_NAME, RAW_NAME, raw_model
from housing_lib.families import BLEND, make_model
from housing_lib.parts import Part

SMALLEST_WEIGHT = 0.05
# How far the RMSE must fall, in 100,000 USD, for each time that a prediction takes longer again.
WORTH_ITS_TIME = 0.001


class BlendedModel(RegressorMixin, BaseEstimator):
    """The weighted mean of models that share their preprocessing, because they share their data."""

    def __init__(self, models: list[Any], weights: list[float]) -> None:
        self.models = models
        self.weights = weights

    def fit(self, X: pd.DataFrame | Floats, y: Floats) -> Self:
        """Every model fitted on the same districts.

        Raises
        ------
        DataError
            If there are fewer than two districts, or a price is missing.
        """
        self.models_ = [clone(model).fit(X, y) for model in self.models]
        return self

    @classmethod
    def of_fitted(cls, models: list[Any], weights: list[float]) -> Self:
        """The blend of models that are fitted already, all on the same districts."""
        blend = cls([clone(model) for model in models], weights)
        blend.models_ = models
        return blend

    def transform(self, X: pd.DataFrame | Floats) -> Floats:
        """The model matrix of raw districts, the same for every model.

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        matrix: Floats = self.models_[0].transform(X)
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
        return self._mean([model.predict_matrix(matrix) for model in self.models_])

    def disagreement(self, matrix: Floats) -> Floats:
        """How far apart the estimators near and far are, in 100,000 USD."""
        return self._mean([model.disagreement(matrix) for model in self.models_])

    def distance_km(self, matrix: Floats) -> Floats:
        """The kilometres to the nearest training district."""
        distance: Floats = self.models_[0].distance_km(matrix)
        return distance

    def _mean(self, values: list[Floats]) -> Floats:
        mean: Floats = np.asarray(self.weights) @ np.vstack(values)
        return mean


def weigh(predicted: Mapping[str, Floats], prices: Floats) -> dict[str, float]:
    """The weights, none negative, with which the predictions together come closest to the prices.

    Least squares (Breiman 1996, "Stacked regressions"); weights that hardly
    count are dropped, and the others sum to 1.
    """
    found, _ = nnls(np.column_stack(list(predicted.values())), prices)
    kept = {
        name: weight
        for name, weight in zip(predicted, found, strict=True)
        if weight >= SMALLEST_WEIGHT
    }
    total = sum(kept.values())
    return {name: float(weight / total) for name, weight in kept.items()}


def cross_weighed(predicted: Mapping[str, Floats], prices: Floats, *, seed: int) -> Floats:
    """What a blend predicts for districts that had no part in its weights."""
    blended = np.empty(len(prices))
    for fitting, held in KFold(5, shuffle=True, random_state=seed).split(prices):
        weights = weigh({name: one[fitting] for name, one in predicted.items()}, prices[fitting])
        blended[held] = sum(weight * predicted[name][held] for name, weight in weights.items())
    return blended


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen on the validation districts, and how the blend fared.

    `model` is fitted on the training districts; `gain` is by how much the
    blend's RMSE is below the best family's (100,000 USD, with the ends of its
    95 % interval), and `slowness` how many times as long it takes.
    """

    name: str
    model: Any
    weights: dict[str, float]
    gain: dict[str, float]
    slowness: float

    def unfitted(self, best_params: Mapping[str, Any], *, seed: int, **size: Any) -> Any:
        """The chosen model, to be fitted on other districts, on every core.

        `size` is `repeats` and `growth` as for `families.make_model`; a blend stays as its
        searches made it.

        Raises
        ------
        FamilyError
            If there is no such family, or it does not take its parameters.
        """
        if self.name == BLEND:
            return clone(self.model)
        cores = os.cpu_count() or 1
        params = best_params[self.name]
        return make_model(self.name, params, seed=seed, n_jobs=cores, **size)

    def for_blocks(
        self, best_params: Mapping[str, Any], *, seed: int, families: bool, growth: float = 1.0
    ) -> dict[str, Any]:
        """The chosen model with one seed, to be fitted with blocks held out, as `CHAMPION_NAME`.

        A blend stays as its searches made it. With `families`, the others stand beside
        it by name, and the peer that others publish. `growth` as for `families.make_model`.

        Raises
        ------
        FamilyError
            If there is no such family, or one does not take its parameters.
        """
        size: Any = {"seed": seed, "repeats": 1, "growth": growth}
        chosen = {CHAMPION_NAME: self.unfitted(best_params, **size)}
        if not families:
            return chosen
        others = [name for name in best_params if name != self.name]
        made = {name: make_model(name, best_params[name], **size) for name in others}
        return {**chosen, **made, RAW_NAME: raw_model()}

    def parameters(self, best_params: Mapping[str, Any]) -> dict[str, Any]:
        """What makes the chosen model again: hyperparameters of the family, or the weights."""
        if self.name in best_params:
            return dict(best_params[self.name])
        return {f"weight_{name}": weight for name, weight in self.weights.items()}


def choose(models: Mapping[str, Any], val: Part, *, seed: int) -> Choice:
    """The best family on the validation districts, or the blend if it earns its time.

    The blend is judged on predictions that had no part in its weights, and has
    to gain more than chance: the lower end of the interval counts.
    """
    predicted = predictions(models, val)
    errors = {name: metrics(val.y, one)["rmse"] for name, one in predicted.items()}
    best = min(errors, key=lambda name: errors[name])
    weights = weigh(predicted, val.y)
    blended = cross_weighed(predicted, val.y, seed=seed)
    gain = rmse_difference(val.y, predicted[best], blended, seed=seed)
    blend = BlendedModel.of_fitted([models[name] for name in weights], list(weights.values()))
    slowness = _seconds(blend, val) / _seconds(models[best], val)
    if gain["low"] > WORTH_ITS_TIME * max(slowness - 1, 0):
        return Choice(BLEND, blend, weights, gain, slowness)
    return Choice(best, models[best], weights, gain, slowness)


def _seconds(model: Any, part: Part) -> float:
    """The time of predicting a few hundred districts."""
    some = part.districts.head(200)
    return min(timeit.repeat(lambda: model.predict(some), number=1, repeat=5))
