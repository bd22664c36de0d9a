"""How good a model is: metrics, baselines, and where it goes wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from housing_lib.data import FEATURES, USD_PER_UNIT, Floats, capped
from housing_lib.families import title
from housing_lib.parts import Part

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
    wide.columns = wide.columns.map(lambda names: f"{names[1]}_{names[0]}")
    return wide.sort_values(f"{by}_rmse")


def importances(model: Any, part: Part, *, seed: int, repeats: int = 3) -> pd.Series:
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


def importance_views(
    model: Any, part: Part, feature_names: list[str], *, seed: int
) -> dict[str, pd.Series]:
    """What matters to a model: by permutation, and by the model's own measure if it has one."""
    views = {"permutation": importances(model, part, seed=seed)}
    own = own_importances(model, feature_names)
    return views if own is None else {**views, "own": own}


def unite(*parts: Part) -> tuple[pd.DataFrame, Floats]:
    """The raw districts of several parts with their prices in 100,000 USD."""
    districts = pd.concat([part.districts for part in parts], ignore_index=True)
    return districts, np.concatenate([part.y for part in parts])


def verdict(board: pd.DataFrame, test_scores: Mapping[str, float], version: int) -> str:
    """The result of an evaluation in three sentences, in Markdown."""
    chosen = board.index[0]
    text = (
        f"**{title(chosen)} is chosen, and now version {version}. On districts that it never saw "
        f"it is off by {usd(test_scores['test_mae'])} on average** (MAE); its RMSE, which weighs "
        f"large errors more, is {usd(test_scores['test_rmse'])}. It explains "
        f"{test_scores['test_r2']:.1%} of the differences in price."
    )
    if len(board) > 1:
        lead = board["val_rmse"].iloc[1] - board["val_rmse"].iloc[0]
        text += (
            f" On validation its RMSE is {usd(lead)} below that of the "
            f"next best, {title(board.index[1])}."
        )
    return text


def styled_leaderboard(board: pd.DataFrame) -> Any:
    """The leaderboard for a reader: a row a family and part, errors in dollars."""
    parts = {"val": "validation", "test": "test", "train": "training"}
    rows = {
        (title(str(family)), words): [row[f"{part}_{metric}"] for metric in METRICS]
        for family, row in board.iterrows()
        for part, words in parts.items()
    }
    shown = pd.DataFrame.from_dict(
        rows, orient="index", columns=["RMSE ($)", "MAE ($)", "MSE", "R²"]
    )
    shown.index = pd.MultiIndex.from_tuples(rows, names=["family", "districts"])
    money: Any = ["RMSE ($)", "MAE ($)"]
    shown[money] = shown[money] * USD_PER_UNIT
    formats: Any = {"MSE": "{:.3f}", "R²": "{:.3f}"}
    return shown.style.format(formats | dict.fromkeys(money, "{:,.0f}"))


def baseline_table(
    parts: Mapping[str, Part], scores: pd.DataFrame, test_scores: Mapping[str, float]
) -> Any:
    """Test RMSE and MAE in dollars of simple answers beside the champion's."""
    train, test = parts["train"], parts["test"]
    constants = {"the mean price": train.y.mean(), "the median price": np.median(train.y)}
    rows: dict[str, Any] = {
        name: metrics(test.y, np.full_like(test.y, value)) for name, value in constants.items()
    }
    linear = scores[(scores["family"] == "linear_regression") & (scores["part"] == "test")]
    if len(linear):
        rows["linear regression"] = linear.iloc[0][list(METRICS)].to_dict()
    rows["the champion"] = {name: test_scores[f"test_{name}"] for name in METRICS}
    shown = pd.DataFrame(rows).T.loc[:, ["rmse", "mae"]].astype(float) * USD_PER_UNIT
    shown.columns = ["RMSE ($)", "MAE ($)"]
    return shown.rename_axis("answer").style.format("{:,.0f}")


def capped_table(prices: Floats, predicted: Floats) -> Any:
    """Districts below and at the census's limit: how many, RMSE and mean error in dollars."""
    at_cap = capped(prices)
    rows = {}
    for name, mask in {"below the limit": ~at_cap, "at the limit": at_cap}.items():
        errors = predicted[mask] - prices[mask]
        rows[name] = {
            "districts": mask.sum(),
            "RMSE ($)": np.sqrt(np.mean(errors**2)) * USD_PER_UNIT,
            "mean error ($)": errors.mean() * USD_PER_UNIT,
        }
    return pd.DataFrame(rows).T.rename_axis("price").style.format("{:,.0f}")


def champion_record(
    board: pd.DataFrame, test_scores: Mapping[str, float], version: int, run_id: str
) -> dict[str, Any]:
    """What a run keeps of its champion."""
    first = board.iloc[0]
    runner_up = None
    if len(board) > 1:
        gain = (board["val_rmse"].iloc[1] - first["val_rmse"]) * USD_PER_UNIT
        runner_up = {"title": title(board.index[1]), "val_rmse_gain_usd": gain}
    return {
        "family": board.index[0],
        "title": title(board.index[0]),
        "version": version,
        "run_id": run_id,
        "metrics": {**test_scores, "val_rmse": first["val_rmse"]},
        "runner_up": runner_up,
    }


def leaderboard_records(board: pd.DataFrame, *, linear: Sequence[str]) -> list[dict[str, Any]]:
    """The leaderboard as plain records, best first, with the `linear` families marked."""
    named = board.assign(title=board.index.map(title), linear=board.index.isin(list(linear)))
    records: Any = named.reset_index().to_dict("records")
    return list(records)


def usd(value: float) -> str:
    """A price difference in 100,000 USD, written in dollars."""
    return f"{value * USD_PER_UNIT:,.0f} dollars"
