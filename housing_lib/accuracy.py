"""How near predictions come to prices: metrics, their intervals, and the leaderboard."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from housing_lib.contract import LEVEL
from housing_lib.data import Floats
from housing_lib.gains import draws, tails
from housing_lib.parts import Part

METRICS = ("rmse", "mae", "mse", "r2")
FEW_ROWS = 20_000  # whose resamples are kept, in 320 MB at most


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


def metric_intervals(
    prices: Floats, predicted: Floats, *, seed: int, prefix: str = ""
) -> dict[str, float]:
    """The ends of each metric's 95 % interval, as `<metric>_low` and `<metric>_high`.

    Percentile bootstrap over districts (Efron 1979): how the metrics would
    differ on another sample of as many districts.
    """
    errors = predicted - prices
    mse, mae, mean, square = _resampled_means(
        errors**2, np.abs(errors), prices, prices**2, seed=seed
    )
    spread = np.maximum(square - mean**2, np.finfo(float).tiny)
    resampled = {"rmse": np.sqrt(mse), "mae": mae, "mse": mse, "r2": 1 - mse / spread}
    ends: dict[str, float] = {}
    for name, values in resampled.items():
        low, high = tails(values, LEVEL)
        ends |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    return ends


def rmse_difference(
    prices: Floats, predicted: Floats, other: Floats, *, seed: int
) -> dict[str, float]:
    """By how much the RMSE of `predicted` is above that of `other`, with its 95 % interval.

    Both are judged on the same resampled districts, which makes the interval of
    the difference far narrower than those of the two errors.
    """
    squares = [(one - prices) ** 2 for one in (predicted, other)]
    first, second = np.sqrt(_resampled_means(*squares, seed=seed))
    low, high = tails(first - second, LEVEL)
    value = float(np.sqrt(squares[0].mean()) - np.sqrt(squares[1].mean()))
    return {"difference": value, "low": low, "high": high}


def rmse_interval(errors: Floats, *, seed: int) -> tuple[float, float]:
    """The ends of the bootstrap interval of the RMSE of some errors."""
    return tails(np.sqrt(_resampled_means(errors**2, seed=seed)[0]), LEVEL)


def _resampled_means(*columns: Floats, seed: int) -> Floats:
    """The means of columns over resampled districts, shape (columns, resamples)."""
    table, rows = np.vstack(columns), len(columns[0])
    drawn = _kept_draws(rows, seed) if rows <= FEW_ROWS else draws(rows, seed)
    means: Floats = np.hstack([table @ counts.T for counts in drawn]) / rows
    return means


@lru_cache(maxsize=1)
def _kept_draws(rows: int, seed: int) -> list[Floats]:
    """How often each district is drawn in each resample, in pieces; all metrics share them."""
    return list(draws(rows, seed))


def score_models(
    models: Mapping[str, Any], parts: Mapping[str, Part], *, seed: int
) -> pd.DataFrame:
    """One row a model and part, with its metrics; those of the test with their intervals."""
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        for family, predicted in predictions(models, part).items():
            ends = metric_intervals(part.y, predicted, seed=seed) if name == "test" else {}
            found = metrics(part.y, predicted)
            rows.append({"family": family, "part": name, **found, **ends})
    return pd.DataFrame(rows)


def predictions(models: Mapping[str, Any], part: Part) -> dict[str, Floats]:
    """What models of the training districts predict for a part, by the model's name.

    They share their preprocessing, which made the part's matrix; in that of the
    training districts none sees its own price.
    """
    return {name: model.predict_matrix(part.X) for name, model in models.items()}


def score_both(model: Any, train: Part, val: Part) -> dict[str, float]:
    """The metrics of a model of the training districts on these and on the validation districts."""
    found = metrics(train.y, model.predict_matrix(train.X), prefix="train_")
    return found | metrics(val.y, model.predict_matrix(val.X), prefix="val_")


def leaderboard(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a family, one column a part and metric, best validation RMSE first."""
    measured = [name for name in scores if name not in ("family", "part")]
    wide = scores.pivot(index="family", columns="part", values=measured).dropna(axis=1)
    wide.columns = wide.columns.map(lambda names: f"{names[1]}_{names[0]}")
    return wide.sort_values("val_rmse")
