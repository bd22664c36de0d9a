"""A model that knows how wrong it may be: expected errors, and prediction intervals that hold."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import parallel_config
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.utils.validation import check_is_fitted
from xgboost import XGBRegressor

from housing_lib.contract import COVERAGE, FEWEST_HELD_OUT
from housing_lib.data import DataError, Floats
from housing_lib.evaluation import unite
from housing_lib.parts import Part

COVERAGES = np.linspace(0.01, 0.99, 99)
SMALLEST_ERROR = 0.02  # in 100,000 USD: no district's price is known better


class CalibratedModel(RegressorMixin, BaseEstimator):
    """A model with the error to expect of each answer, and intervals of any coverage.

    Intervals are split-conformal (Papadopoulos et al. 2002): the quantile of
    the errors on districts that the model was not fitted on, here in units of
    the expected absolute error, which a second model has learned. So they are
    narrow where prices are easy to tell, and wide where they are not.
    """

    def __init__(self, model: Any, *, held_out: float = 0.2, seed: int = 0) -> None:
        self.model = model
        self.held_out = held_out
        self.seed = seed

    def fit(
        self,
        X: pd.DataFrame,
        y: Floats,
        *,
        held_out: npt.NDArray[np.bool_] | None = None,
        first: Any | None = None,
    ) -> Self:
        """The model fitted on all districts, calibrated on a part that was held out first.

        Parameters
        ----------
        held_out
            Which districts calibrate; by default a random share.
        first
            The same model, if it was fitted on the other districts already.

        Raises
        ------
        DataError
            If fewer than 50 districts are held out, or a price is missing.
        """
        prices = np.asarray(y, dtype="float64")
        if held_out is None:
            held_out = np.zeros(len(prices), dtype=bool)
            held_out[self._draw(len(prices))] = True
        if held_out.sum() < FEWEST_HELD_OUT:
            raise DataError(
                f"found {held_out.sum()} districts to calibrate intervals on; expected at least "
                f"{FEWEST_HELD_OUT}. Bring more districts. Nothing was fitted."
            )
        if first is None:
            first = clone(self.model).fit(X[~held_out], prices[~held_out])
        with ThreadPoolExecutor() as aside:
            calibrated = aside.submit(self._calibrate, first, X[held_out], prices[held_out])
            self.model_ = clone(self.model).fit(X, prices)
        calibrated.result()
        return self

    def predict(self, X: pd.DataFrame | Floats) -> Floats:
        """Prices in 100,000 USD, shape (rows,).

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        check_is_fitted(self, "model_")
        prices: Floats = self.model_.predict(X)
        return prices

    def expected_error(self, X: pd.DataFrame | Floats) -> Floats:
        """The absolute error to expect of each price, in 100,000 USD.

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        check_is_fitted(self, "model_")
        return self._expected(_evidence(self.model_, self.model_.transform(X)))

    def predict_interval(
        self, X: pd.DataFrame | Floats, coverage: float = COVERAGE
    ) -> tuple[Floats, Floats]:
        """The lower and upper ends that hold the true price in a share `coverage` of districts.

        Raises
        ------
        DataError
            If the coverage is not from 0.01 to 0.99, or columns are missing.
        """
        _, low, high = self.predict_both(X, coverage)
        return low, high

    def predict_both(
        self, X: pd.DataFrame | Floats, coverage: float = COVERAGE
    ) -> tuple[Floats, Floats, Floats]:
        """Prices and the ends of their intervals, for the features' cost of one of the two.

        Raises
        ------
        DataError
            If the coverage is not from 0.01 to 0.99, or columns are missing.
        """
        prices, low, high, _ = self.answer_matrix(self.model_.transform(X), coverage)
        return prices, low, high

    def answer_matrix(
        self, matrix: Floats, coverage: float
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Prices, the ends of their intervals, and the errors to expect, of a model matrix.

        Raises
        ------
        DataError
            If the coverage is not from 0.01 to 0.99.
        """
        if not COVERAGES[0] <= coverage <= COVERAGES[-1]:
            raise DataError(
                f"coverage {coverage}: expected from {COVERAGES[0]} to {COVERAGES[-1]}. "
                "Nothing was predicted."
            )
        evidence = _evidence(self.model_, matrix)
        prices, errors = evidence[:, 0], self._expected(evidence)
        half = np.interp(coverage, COVERAGES, self.quantiles_) * errors
        return prices, np.maximum(prices - half, 0), np.maximum(prices + half, 0), errors

    def _draw(self, rows: int) -> npt.NDArray[np.intp]:
        _, held = train_test_split(np.arange(rows), test_size=self.held_out, random_state=self.seed)
        return np.asarray(held)

    def _calibrate(self, first: Any, X: pd.DataFrame, prices: Floats) -> None:
        evidence = _evidence(first, first.transform(X))
        errors = np.abs(evidence[:, 0] - prices)
        booster = _error_booster(self.seed)
        with parallel_config(backend="threading"):  # boosters let go of Python while they fit
            expected = cross_val_predict(booster, evidence, errors, cv=5, n_jobs=-1)
        scores = errors / np.maximum(expected, SMALLEST_ERROR)
        ranks = np.minimum(COVERAGES * (1 + 1 / len(scores)), 1)
        self.quantiles_ = np.quantile(scores, ranks, method="higher")
        self.error_ = booster.fit(evidence, errors)

    def _expected(self, evidence: Floats) -> Floats:
        expected: Floats = np.asarray(self.error_.predict(evidence), dtype="float64")
        bounded: Floats = np.maximum(expected, SMALLEST_ERROR)
        return bounded


def fit_champion(model: Any, first: Any, train: Part, val: Part, *, seed: int) -> CalibratedModel:
    """A model fitted on training and validation districts, calibrated on the latter.

    Parameters
    ----------
    first
        The same model, or one that is hardly worse, fitted on the training districts alone.

    Raises
    ------
    DataError
        If there are fewer than 50 validation districts.
    """
    districts, prices = unite(train, val)
    held_out = np.arange(len(prices)) >= len(train.y)
    return CalibratedModel(model, seed=seed).fit(districts, prices, held_out=held_out, first=first)


def _error_booster(seed: int) -> XGBRegressor:
    return XGBRegressor(
        n_estimators=200,
        learning_rate=0.04,
        max_depth=4,
        min_child_weight=20,
        subsample=0.7,
        colsample_bytree=0.2,
        max_bin=64,
        random_state=seed,
        n_jobs=1,
    )


def _evidence(model: Any, matrix: Floats) -> Floats:
    """What tells an error: the price itself, how far the two estimators differ, and the matrix."""
    price, gap = model.predict_matrix(matrix), model.disagreement(matrix)
    return np.column_stack([price, gap, matrix])
