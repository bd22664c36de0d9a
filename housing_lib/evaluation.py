"""How good a model is: metrics, baselines, and where it goes wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.inspection import permutation_importance
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from housing_lib.data import FEATURES, USD_PER_UNIT
from housing_lib.parts import Part

Floats = npt.NDArray[np.float64]
METRICS = ("rmse", "mae", "mse", "r2")


def metrics(prices: Floats, predicted: Floats, *, prefix: str = "") -> dict[str, float]:
    """RMSE, MAE, MSE (in 100,000 USD and its square) and R² of `predicted`."""
    mse = mean_squared_error(prices, predicted)
    values = {
        "rmse": np.sqrt(mse),
        "mae": mean_absolute_error(prices, predicted),
        "mse": mse,
        "r2": r2_score(prices, predicted),
    }
    return {f"{prefix}{name}": float(value) for name, value in values.items()}


def score_models(models: Mapping[str, Any], parts: Mapping[str, Part]) -> pd.DataFrame:
    """One row a model and part, with its metrics, in the order given."""
    rows = [
        {"family": family, "part": name} | metrics(part.y, model.predict(part.districts))
        for family, model in models.items()
        for name, part in parts.items()
    ]
    return pd.DataFrame(rows)


def leaderboard(scores: pd.DataFrame, *, by: str = "val") -> pd.DataFrame:
    """One row a family, one column a part and metric, best validation RMSE first."""
    wide = scores.pivot(index="family", columns="part", values=list(METRICS))
    wide.columns = [f"{part}_{metric}" for metric, part in wide.columns]
    return wide.sort_values(f"{by}_rmse")


def baselines(train: Part, test: Part) -> dict[str, float]:
    """The test RMSE of answers that need no model, in 100,000 USD."""
    constant = {"mean price": train.y.mean(), "median price": np.median(train.y)}
    return {
        name: metrics(test.y, np.full_like(test.y, value))["rmse"]
        for name, value in constant.items()
    }


def importances(model: Any, part: Part, *, seed: int, repeats: int = 5) -> pd.Series:
    """The rise of RMSE (100,000 USD) when a column of the district is shuffled.

    Permutation importance (Breiman 2001) over the eight columns that a person
    can supply; it means the same for every family.
    """
    columns = list(FEATURES)
    found = permutation_importance(
        model,
        part.districts[columns],
        part.y,
        scoring="neg_root_mean_squared_error",
        n_repeats=repeats,
        random_state=seed,
    )
    return pd.Series(found.importances_mean, index=columns).sort_values(ascending=False)


def own_importances(model: Any, feature_names: list[str]) -> pd.Series | None:
    """What the estimator itself says: impurity, gain or coefficients; None if it says nothing."""
    estimator = model.named_steps["estimator"]
    values = getattr(estimator, "coef_", None)
    if values is None:
        values = getattr(estimator, "feature_importances_", None)
    if values is None:
        return None
    series = pd.Series(np.ravel(values), index=feature_names)
    return series.sort_values(key=np.abs, ascending=False)


def usd(value: float) -> str:
    """A price difference in 100,000 USD, written in dollars."""
    return f"{value * USD_PER_UNIT:,.0f} dollars"
