"""What the test says of a champion: beside baselines, in slices, and where blocks were held out."""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from xgboost import XGBRegressor

from housing_lib import compute
from housing_lib.accuracy import metric_intervals, metrics, rmse_interval
from housing_lib.data import TARGET, Floats, capped
from housing_lib.families import title
from housing_lib.features import Prepared, make_columns, prepare
from housing_lib.model import DistrictModel
from housing_lib.parts import Part
from housing_lib.places import regions, squares

OnFit = Callable[[str], None]
BLOCK_FOLDS = 5
BLOCK_DEGREES = 0.5
CHAMPION_NAME = "the champion"
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


def raw_model() -> Pipeline:
    """Tuned XGBoost on the eight columns as they are: the peer that others publish."""
    return make_pipeline(make_columns(), XGBRegressor(**RAW_BOOSTER, random_state=0))


def raw_line() -> Pipeline:
    """A linear regression on the eight columns as they are, not yet fitted."""
    return make_pipeline(make_columns(), LinearRegression())


def baselines(train: Part, val: Part, test: Part) -> dict[str, Floats]:
    """The prices that simple answers give the test districts, by name.

    Like the champion they know the training and validation districts: their mean
    price, that of the ten nearest, and models on the eight columns as they are.
    """
    districts, prices = unite(train, val)
    places = ["Latitude", "Longitude"]
    nearest = make_pipeline(SimpleImputer(keep_empty_features=True), KNeighborsRegressor(10))
    nearest.fit(districts[places], prices)
    models = {
        "linear regression on the eight columns": raw_line(),
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
    models: Mapping[str, Any],
    districts: pd.DataFrame,
    prices: Floats,
    *,
    on_fit: OnFit | None = None,
) -> dict[str, Floats]:
    """The price of each district by models that saw none of its block of half a degree.

    Group cross-validation in five folds: what to expect in a region that nobody
    sampled (Roberts et al. 2017). Fewer blocks are as many folds, and where all lie in
    one, random districts are held out. Every core fits one model at a time, and
    `on_fit` hears of each model that is done.

    Raises
    ------
    ProcessDiedError
        If workers of the cluster died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    folds = _folds(districts)
    known = (districts, prices, folds)
    numbers = [(number,) for number in range(len(folds))]
    prepared = dict(compute.each(_prepare_fold, numbers, shared=known, threads=True))
    tasks = [(models[name], number) for name in models for number in range(len(folds))]
    owners = [name for name in models for _ in folds]
    found = {name: np.empty(len(prices)) for name in models}
    shared = (*known, prepared)
    fitted = compute.each(_fit_and_predict, tasks, shared=shared, threads=True)
    left = Counter(owners)
    for task, predicted in fitted:
        name = owners[task]
        found[name][folds[tasks[task][1]][1]] = predicted
        left[name] -= 1
        if on_fit and not left[name]:
            done = sum(not count for count in left.values())
            on_fit(f"{done} of {len(left)} models judged where blocks are held out: {title(name)}")
    return found


def _folds(districts: pd.DataFrame) -> list[Any]:
    numbers = blocks(districts)
    count = min(BLOCK_FOLDS, len(np.unique(numbers)))
    if count == 1:
        return list(KFold(BLOCK_FOLDS, shuffle=True, random_state=0).split(districts))
    return list(GroupKFold(count).split(districts, groups=numbers))


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


def blocks(districts: pd.DataFrame) -> npt.NDArray[np.int64]:
    """One number a block of half a degree, for each district the number of its own.

    Districts without a place are one block more.
    """
    place = (districts[name].to_numpy("float64") for name in ("Latitude", "Longitude"))
    return squares(*place, degrees=BLOCK_DEGREES)


def unite(*parts: Part) -> tuple[pd.DataFrame, Floats]:
    """The raw districts of several parts with their prices in 100,000 USD."""
    districts = pd.concat([part.districts for part in parts], ignore_index=True)
    return districts, np.concatenate([part.y for part in parts])


@dataclass(frozen=True)
class Judgement:
    """What the test districts say of a champion, beside simple answers; 100,000 USD.

    `metrics` are what MLflow keeps: those of the test with the ends of their
    intervals, the RMSE in unseen blocks, the coverage, XGBoost's RMSE on the raw
    columns, and counts.
    """

    predicted: Floats
    interval: tuple[Floats, Floats]
    baselines: dict[str, Floats]
    in_blocks: dict[str, float]
    slices: pd.DataFrame
    metrics: dict[str, float]


def judge(
    champion: Any,
    in_blocks: Mapping[str, Any],
    parts: Mapping[str, Part],
    *,
    seed: int,
    on_fit: OnFit | None = None,
) -> Judgement:
    """The judgement on a calibrated champion that was fitted on training and validation districts.

    The champion answers for the test districts once. In unseen blocks it is other
    models that are judged, fitted five times on what was not held out.

    Parameters
    ----------
    in_blocks
        The models to be judged there; one of them is `CHAMPION_NAME`, what was chosen
        with one seed; a blend stays as its searches made it.
    on_fit
        Hears of each of them, when it is judged.

    Raises
    ------
    ProcessDiedError
        If workers of the cluster died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    test, (districts, prices) = parts["test"], unite(parts["train"], parts["val"])
    predicted = champion.predict(test.districts)
    interval = champion.predict_interval(test.districts)
    with ThreadPoolExecutor() as aside:
        simple_ones = aside.submit(baselines, parts["train"], parts["val"], test)
        held_out = block_predictions(in_blocks, districts, prices, on_fit=on_fit)
    simple = simple_ones.result()
    block_rmse = {name: metrics(prices, one)["rmse"] for name, one in held_out.items()}
    found = _test_metrics(test.y, predicted, interval, seed=seed) | {
        "block_rmse": block_rmse[CHAMPION_NAME],
        "baseline_rmse": metrics(test.y, simple[RAW_NAME])["rmse"],
        "rows_fit": float(len(prices)),
    }
    by_slice = slices(test.districts, test.y, predicted, interval, seed=seed)
    return Judgement(predicted, interval, simple, block_rmse, by_slice, found)


def _test_metrics(
    prices: Floats, predicted: Floats, interval: tuple[Floats, Floats], *, seed: int
) -> dict[str, float]:
    inside = (prices >= interval[0]) & (prices <= interval[1])
    found = metrics(prices, predicted, prefix="test_")
    return (
        found
        | metric_intervals(prices, predicted, seed=seed, prefix="test_")
        | {
            "test_coverage": float(inside.mean()),
            "rows_test": float(len(prices)),
            "capped_share": float(capped(prices).mean()),
        }
    )


def slice_masks(districts: pd.DataFrame, prices: Floats) -> dict[tuple[str, str], Any]:
    """Which districts belong to each slice: by price, income, region and age.

    And where prices stand at the census's limit, those and the others.
    """
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
    if capped(prices).any():
        masks["limit", "not at the limit"] = ~capped(prices)
        masks["limit", "at the limit"] = capped(prices)
    return {key: np.asarray(mask) for key, mask in masks.items() if np.any(mask)}


def _band(by: str, low: float, high: float) -> str:
    scale, unit = {"price": (100, "thousand $"), "income": (10, "thousand $")}.get(by, (1, "years"))
    if np.isinf(high):
        return f"{low * scale:g} {unit} and more"
    return f"{low * scale:g} to {high * scale:g} {unit}"


def slice_name(by: str, name: str) -> str:
    """A slice as a person reads it.

    >>> slice_name("age", "0 to 15 years"), slice_name("region", "San Diego")
    ('age 0 to 15 years', 'San Diego')
    """
    return name if by in ("region", "limit") else f"{by} {name}"


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
            low, high = rmse_interval(errors, seed=seed)
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
