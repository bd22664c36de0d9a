"""How good a model is: metrics with intervals, baselines, slices, blocks, and what it looks at."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from xgboost import DMatrix, XGBRegressor

from housing_lib import compute
from housing_lib.data import FEATURES, TARGET, Floats, capped
from housing_lib.estimators import LinearStart
from housing_lib.features import Prepared, make_columns, prepare
from housing_lib.model import FAR_COLUMNS, DistrictModel
from housing_lib.parts import Part
from housing_lib.places import regions

METRICS = ("rmse", "mae", "mse", "r2")
RESAMPLES = 2000
CONFIDENCE = 0.95
SHUFFLED = 600  # districts are enough to rank eight columns
EXPLAINED = 200  # districts are enough to rank the features by their contributions
BLOCK_FOLDS = 5
CHAMPION = "the champion"
RAW_NAME = "XGBoost on the eight columns"
# The peer that others publish: XGBoost on the eight columns alone, tuned on random splits.
RAW_BOOSTER = {
    "n_estimators": 1200,
    "learning_rate": 0.03,
    "max_depth": 8,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.7,
}


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
        low, high = _interval(values)
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
    low, high = _interval(first - second)
    value = float(np.sqrt(squares[0].mean()) - np.sqrt(squares[1].mean()))
    return {"difference": value, "low": low, "high": high}


def _interval(resampled: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(*columns: Floats, seed: int) -> Floats:
    """The means of columns over resampled districts, shape (columns, resamples)."""
    means: Floats = np.vstack(columns) @ _draws(len(columns[0]), seed)
    return means


@lru_cache(maxsize=1)
def _draws(rows: int, seed: int) -> Floats:
    """How often each district is drawn in each resample, as a share, shape (rows, resamples)."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(rows, size=(RESAMPLES, rows))
    return np.stack([np.bincount(one, minlength=rows) for one in drawn], axis=1) / rows


def raw_model() -> Pipeline:
    """Tuned XGBoost on the eight columns as they are: the peer that others publish."""
    return make_pipeline(make_columns(), XGBRegressor(**RAW_BOOSTER, random_state=0))


def baselines(train: Part, val: Part, test: Part) -> dict[str, Floats]:
    """The prices that simple answers give the test districts, by name.

    Like the champion they know the training and validation districts: their mean
    price, that of the ten nearest, and models on the eight columns as they are.
    """
    districts, prices = unite(train, val)
    places = ["Latitude", "Longitude"]
    nearest = make_pipeline(SimpleImputer(), KNeighborsRegressor(10))
    nearest.fit(districts[places], prices)
    models = {
        "linear regression on the eight columns": make_pipeline(make_columns(), LinearRegression()),
        RAW_NAME: raw_model(),
    }
    simple = {
        "the mean price": np.full(len(test.y), prices.mean()),
        "the ten nearest districts": nearest.predict(test.districts[places]),
    }
    for name, model in models.items():
        simple[name] = model.fit(districts, prices).predict(test.districts).astype("float64")
    return simple


def block_predictions(
    models: Mapping[str, Any], districts: pd.DataFrame, prices: Floats
) -> dict[str, Floats]:
    """The price of each district by models that saw none of its block of half a degree.

    Group cross-validation in five folds: what to expect in a region that nobody
    sampled (Roberts et al. 2017). Every core fits one model at a time.
    """
    folds = list(GroupKFold(BLOCK_FOLDS).split(districts, groups=blocks(districts)))
    known = (districts, prices, folds)
    numbers = [(number,) for number in range(BLOCK_FOLDS)]
    prepared = dict(compute.each(_prepare_fold, numbers, shared=known, threads=True))
    tasks = [(models[name], number) for name in models for number in range(BLOCK_FOLDS)]
    owners = [name for name in models for _ in range(BLOCK_FOLDS)]
    found = {name: np.empty(len(prices)) for name in models}
    shared = (*known, prepared)
    for task, predicted in compute.each(_fit_and_predict, tasks, shared=shared, threads=True):
        found[owners[task]][folds[tasks[task][1]][1]] = predicted
    return found


def _prepare_fold(known: tuple[pd.DataFrame, Floats, Any], number: int) -> Prepared:
    districts, prices, folds = known
    fitting, _ = folds[number]
    return prepare(districts.iloc[fitting], prices[fitting])


def _fit_and_predict(
    known: tuple[pd.DataFrame, Floats, Any, Mapping[int, Prepared]], model: Any, number: int
) -> Floats:
    districts, prices, folds, prepared = known
    fitting, held = folds[number]
    alone = {name: 1 for name in model.get_params() if name.endswith("n_jobs")}
    shared = {"prepared": prepared[number]} if isinstance(model, DistrictModel) else {}
    fitted = clone(model).set_params(**alone)
    fitted.fit(districts.iloc[fitting], prices[fitting], **shared)
    return np.asarray(fitted.predict(districts.iloc[held]), dtype="float64")


def blocks(districts: pd.DataFrame, degrees: float = 0.5) -> npt.NDArray[np.int64]:
    """One number a block of the map, for each district the number of its own."""
    rows = np.floor(districts["Latitude"] / degrees).astype(int)
    columns = np.floor(districts["Longitude"] / degrees).astype(int)
    numbers: npt.NDArray[np.int64] = (rows * 10_000 + columns).to_numpy()
    return numbers


def score_models(
    models: Mapping[str, Any], parts: Mapping[str, Part], *, seed: int
) -> pd.DataFrame:
    """One row a model and part, with its metrics; those of the test with their intervals."""
    rows = []
    for name, part in parts.items():
        for family, predicted in predictions(models, part).items():
            ends = metric_intervals(part.y, predicted, seed=seed) if name == "test" else {}
            row: dict[str, Any] = {"family": family, "part": name}
            rows.append(row | metrics(part.y, predicted) | ends)
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


def leaderboard(scores: pd.DataFrame, *, by: str = "val") -> pd.DataFrame:
    """One row a family, one column a part and metric, best validation RMSE first."""
    measured = [name for name in scores if name not in ("family", "part")]
    wide = scores.pivot(index="family", columns="part", values=measured).dropna(axis=1)
    wide.columns = wide.columns.map(lambda names: f"{names[1]}_{names[0]}")
    return wide.sort_values(f"{by}_rmse")


def importances(model: Any, part: Part, *, seed: int, repeats: int = 2) -> pd.Series:
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
        max_samples=min(SHUFFLED, len(part.y)),
        random_state=seed,
    )
    return pd.Series(found.importances_mean, index=columns).sort_values(ascending=False)


def own_importances(model: Any, feature_names: list[str]) -> pd.Series | None:
    """What the estimator among known districts says itself: impurity, gain or coefficients.

    None if it says nothing.
    """
    values = getattr(model.near_, "coef_", None)
    if values is None:
        values = getattr(model.near_, "feature_importances_", None)
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


@dataclass(frozen=True)
class Judgement:
    """What the test districts say of a champion, beside simple answers; 100,000 USD.

    `metrics` are what MLflow keeps: those of the test with the ends of their
    intervals, those in unseen blocks, the coverage, and the best baseline's RMSE.
    """

    predicted: Floats
    interval: tuple[Floats, Floats]
    baselines: dict[str, Floats]
    in_blocks: dict[str, float]
    slices: pd.DataFrame
    metrics: dict[str, float]


def judge(
    champion: Any, in_blocks: Mapping[str, Any], parts: Mapping[str, Part], *, seed: int
) -> Judgement:
    """The judgement on a calibrated champion that was fitted on training and validation districts.

    The test districts are used once. In unseen blocks it is other models that are
    judged, fitted five times on what was not held out.

    Parameters
    ----------
    in_blocks
        The models to be judged there; one of them is `CHAMPION`, what was chosen
        with one seed.
    """
    test, (districts, prices) = parts["test"], unite(parts["train"], parts["val"])
    predicted = champion.predict(test.districts)
    interval = champion.predict_interval(test.districts)
    with ThreadPoolExecutor() as aside:
        simple_ones = aside.submit(baselines, parts["train"], parts["val"], test)
        held_out = block_predictions(in_blocks, districts, prices)
    simple = simple_ones.result()
    block_rmse = {name: metrics(prices, one)["rmse"] for name, one in held_out.items()}
    inside = (test.y >= interval[0]) & (test.y <= interval[1])
    found = metrics(test.y, predicted, prefix="test_")
    found |= metric_intervals(test.y, predicted, seed=seed, prefix="test_")
    found |= {
        "test_coverage": float(inside.mean()),
        "block_rmse": block_rmse[CHAMPION],
        "baseline_rmse": metrics(test.y, simple[RAW_NAME])["rmse"],
        "rows_fit": float(len(prices)),
        "rows_test": float(len(test.y)),
        "capped_share": float(capped(test.y).mean()),
    }
    by_slice = slices(test.districts, test.y, predicted, interval, seed=seed)
    return Judgement(predicted, interval, simple, block_rmse, by_slice, found)


def slice_masks(districts: pd.DataFrame, prices: Floats) -> dict[tuple[str, str], Any]:
    """Which districts belong to each slice: by price, income, region, age, and at the limit."""
    masks: dict[tuple[str, str], Any] = {}
    for by, values, edges in (
        ("price", prices, [0, 1, 2, 3, 4, np.inf]),
        ("income", districts["MedInc"].to_numpy(), [0, 2, 3, 4, 6, np.inf]),
        ("age", districts["HouseAge"].to_numpy(), [0, 15, 30, 45, np.inf]),
    ):
        for low, high in pairwise(edges):
            masks[by, _band(by, low, high)] = (values >= low) & (values < high)
    found = regions(districts["Latitude"].to_numpy(), districts["Longitude"].to_numpy())
    masks |= {("region", name): found == name for name in np.unique(found)}
    masks["limit", "below the limit"] = ~capped(prices)
    masks["limit", "at the limit"] = capped(prices)
    return {key: np.asarray(mask) for key, mask in masks.items() if np.any(mask)}


def _band(by: str, low: float, high: float) -> str:
    scale, unit = {"price": (100, "thousand $"), "income": (10, "thousand $")}.get(by, (1, "years"))
    if np.isinf(high):
        return f"{low * scale:g} {unit} and more"
    return f"{low * scale:g} to {high * scale:g} {unit}"


def slices(
    districts: pd.DataFrame,
    prices: Floats,
    predicted: Floats,
    interval: tuple[Floats, Floats],
    *,
    seed: int,
) -> pd.DataFrame:
    """One row a slice: districts, RMSE with its 95 % interval, mean error, and coverage."""
    rows = {}
    inside = (prices >= interval[0]) & (prices <= interval[1])
    for key, mask in slice_masks(districts, prices).items():
        errors = predicted[mask] - prices[mask]
        ends = {"rmse_low": np.nan, "rmse_high": np.nan}
        if mask.sum() > 1:
            low, high = _interval(np.sqrt(_resampled_means(errors**2, seed=seed)[0]))
            ends = {"rmse_low": low, "rmse_high": high}
        rows[key] = {
            "districts": int(mask.sum()),
            "rmse": float(np.sqrt(np.mean(errors**2))),
            **ends,
            "bias": float(errors.mean()),
            "coverage": float(inside[mask].mean()),
        }
    return pd.DataFrame(rows).T.rename_axis(["by", "slice"])


def worst(districts: pd.DataFrame, predicted: Floats, *, count: int = 20) -> pd.DataFrame:
    """The districts with the largest errors, worst first, with what was predicted."""
    shown = districts.assign(predicted=predicted, error=predicted - districts[TARGET])
    return shown.sort_values("error", key=np.abs, ascending=False).head(count)


def contributions(model: Any, districts: pd.DataFrame, names: list[str]) -> pd.DataFrame | None:
    """What each feature adds to each price (100,000 USD); the columns add up to the prediction.

    Exact SHAP values of the trees (Lundberg et al. 2020), computed by XGBoost
    itself, and of the lines that some start from; the last column, `base`,
    is where every price starts. None if the champion is not made of XGBoost's trees.
    """
    inner = model.model_
    near = getattr(inner, "near_estimators", [None])
    if not all(isinstance(getattr(one, "estimator_", one), XGBRegressor) for one in near):
        return None
    matrix = inner.transform(districts)
    share = inner.near_share(matrix)[:, None]
    total = np.mean([_shap(one, matrix) for one in near], axis=0) * share
    total[:, [*FAR_COLUMNS, -1]] += _shap(inner.far_, matrix[:, FAR_COLUMNS]) * (1 - share)
    return pd.DataFrame(total, columns=[*names, "base"])


def mean_contributions(model: Any, part: Part, names: list[str], *, seed: int) -> pd.Series | None:
    """The mean size of each feature's contribution (100,000 USD), largest first.

    Over a random sample of the districts: exact values of all take minutes.
    """
    some = part.districts.sample(min(EXPLAINED, len(part.y)), random_state=seed)
    found = contributions(model, some, names)
    if found is None:
        return None
    return found.drop(columns="base").abs().mean().sort_values(ascending=False)


def _shap(estimator: XGBRegressor | LinearStart, matrix: Floats) -> Floats:
    if isinstance(estimator, LinearStart):
        line = estimator.line_
        # Columns of the matrix have mean 0, so the intercept is where every price starts.
        linear = np.column_stack([matrix * line.coef_, np.full(len(matrix), line.intercept_)])
        return linear + _shap(estimator.estimator_, matrix)
    found: Floats = estimator.get_booster().predict(DMatrix(matrix), pred_contribs=True)
    return found.astype("float64")
