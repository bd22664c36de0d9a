"""How good the shipped champion is on fresh splits, and on places without neighbours.

Everything goes through the functions that the notebooks use, from the raw data.
Run: python tests/benchmarks/accuracy.py --help
"""

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from bars import Bar
from bars import show as show_bars
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, train_test_split
from xgboost import XGBRegressor

from housing_lib import compute, data, evaluation, families
from housing_lib.settings import use_cluster

RMSE_TARGET, RATIO_TARGET, BLOCK_TARGET, FIT_TARGET_S = 0.375, 0.870, 0.58, 30
# Mean test RMSE over seeds on random 64/16/20 % splits, in 100,000 USD, from the result files of
# Gorishniy et al., "TabR" (ICLR 2024, github.com/yandex-research/tabular-dl-tabr).
PUBLISHED = {
    "MLP-PLR, tuned": 0.4678,
    "LightGBM, tuned": 0.4352,
    "XGBoost, tuned": 0.4327,
    "CatBoost, tuned": 0.4294,
    "TabR, tuned": 0.3998,
    "five TabR together": 0.3914,
}

Split = tuple[np.ndarray, np.ndarray]


def random_splits(rows: int, seeds: list[int]) -> Iterator[Split]:
    """Per seed, 80 % (training and validation together) to fit on and 20 % to test on."""
    for seed in seeds:
        fit, test = train_test_split(np.arange(rows), test_size=0.2, random_state=seed)
        yield fit, test


def block_splits(districts: pd.DataFrame, folds: int = 5) -> Iterator[Split]:
    """Folds that hold out whole blocks of half a degree."""
    yield from GroupKFold(folds).split(districts, groups=evaluation.blocks(districts))


def raw_booster(jobs: int) -> XGBRegressor:
    """The peer: tuned XGBoost on the raw eight columns."""
    return XGBRegressor(**evaluation.RAW_BOOSTER, n_jobs=jobs, random_state=0)


def score_all(
    models: dict[str, Any], kinds: dict[str, list[Split]], districts: pd.DataFrame
) -> dict[str, dict[str, dict]]:
    """What `summary` tells of each kind of splits and model; the cluster fits if one is named."""
    tasks = [
        (kind, name, number)
        for kind, splits in kinds.items()
        for name in models
        for number in range(len(splits))
    ]
    work = compute.each(fit_and_test, tasks, shared=(models, kinds, districts), jobs=1)
    told = track(work, description=f"on {compute.where(1)}", total=len(tasks))
    found = {tasks[task]: result for task, result in told}
    return {
        kind: {
            name: summary([found[kind, name, number] for number in range(len(splits))])
            for name in models
        }
        for kind, splits in kinds.items()
    }


def fit_and_test(
    shared: tuple[dict[str, Any], dict[str, list[Split]], pd.DataFrame],
    kind: str,
    name: str,
    number: int,
) -> tuple[np.ndarray, float]:
    """A model's errors on the test rows of one split, and the seconds of its fit."""
    models, kinds, districts = shared
    fit, test = kinds[kind][number]
    features, prices = districts[list(data.FEATURES)], districts[data.TARGET].to_numpy()
    started = time.perf_counter()
    model = clone(models[name]).fit(features.iloc[fit], prices[fit])
    seconds = time.perf_counter() - started
    return model.predict(features.iloc[test]) - prices[test], seconds


def summary(found: list[tuple[np.ndarray, float]]) -> dict:
    """The mean RMSE over splits, the RMSE over all held-out rows, and seconds a fit."""
    errors, seconds = zip(*found, strict=True)
    each = [float(np.sqrt(np.mean(error**2))) for error in errors]
    pooled = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    return {"each": each, "mean": float(np.mean(each)), "pooled": pooled, "fit": np.median(seconds)}


def main() -> None:
    """Score the champion and its peer on the same splits, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--family", default=families.CHAMPION, choices=list(families.FAMILIES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="threads a fit")
    parser.add_argument("--no-blocks", action="store_true", help="random splits only")
    parser.add_argument("--cluster", default="", help="a Dask scheduler, as tcp://scheduler:8786")
    chosen = parser.parse_args()
    use_cluster(chosen.cluster)
    districts = data.acquire()
    models = {
        f"{families.title(chosen.family)}, shipped": families.make_model(
            chosen.family, n_jobs=chosen.jobs
        ),
        "XGBoost on the raw columns": raw_booster(chosen.jobs),
    }
    kinds = {"random": list(random_splits(len(districts), chosen.seeds))}
    if not chosen.no_blocks:
        kinds["blocks"] = list(block_splits(districts))
    show(score_all(models, kinds, districts), chosen.seeds)


def show(found: dict[str, dict[str, dict]], seeds: list[int]) -> None:
    """Print what was found, beside the published figures and the targets."""
    ours, raw = found["random"].values()
    table = Table(title=f"RMSE in 100,000 USD; random splits with seeds {seeds}")
    for name in ("model", "mean", "each split", "0.5° blocks held out", "fit, s"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, result in found["random"].items():
        blocks = f"{found['blocks'][name]['pooled']:.3f}" if "blocks" in found else "–"
        each = " ".join(f"{value:.3f}" for value in result["each"])
        table.add_row(name, f"{result['mean']:.4f}", each, blocks, f"{result['fit']:.1f}")
    for name, value in PUBLISHED.items():
        table.add_row(f"{name} (published)", f"{value:.4f}", "", "", "")
    Console(width=100).print(table)
    show_bars("Accuracy", _bars(ours, raw, next(iter(found.get("blocks", {}).values()), None)))


def _bars(ours: dict, raw: dict, blocks: dict | None) -> Iterator[Bar]:
    mean, peer = ours["mean"], raw["mean"]
    best = min(PUBLISHED, key=lambda name: PUBLISHED[name])
    yield Bar("test RMSE, in 100,000 USD", mean, "≤", RMSE_TARGET)
    sides = {"ours": f"{mean:.4f}", "peer": f"{peer:.4f} XGBoost on the raw columns"}
    yield Bar("test RMSE beside raw XGBoost", mean / peer, "≤", RATIO_TARGET, **sides)
    sides["peer"] = f"{PUBLISHED[best]:.4f} {best} (published)"
    yield Bar("test RMSE beside the best published", mean / PUBLISHED[best], "≤", 1, **sides)
    if blocks:
        yield Bar("RMSE where 0.5° blocks are held out", blocks["pooled"], "≤", BLOCK_TARGET)
    yield Bar("fit on 80 % of the districts", float(ours["fit"]), "≤", FIT_TARGET_S, "s")


if __name__ == "__main__":
    main()
