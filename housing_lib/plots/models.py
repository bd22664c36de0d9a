"""The figures of models: their scores, importances, errors and searches.

An error is the prediction minus the price: above zero, the model asks too much.
"""

from collections.abc import Mapping
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from housing_lib.data import PARTS, PRICE_CAP, Floats, capped
from housing_lib.families import Range
from housing_lib.families import title as family_title
from housing_lib.plots.style import (
    BLUE,
    GREY,
    INK,
    LOW_TO_HIGH,
    ORANGE,
    PRICE,
    RED,
    SKY,
    focus,
    in_dollars,
    legend_above,
    logarithmic,
    new_axes,
    new_panels,
    short_dollars,
    whole_dollars,
)

METRIC_NAMES = {
    "rmse": "RMSE (dollars)",
    "mae": "MAE (dollars)",
    "mse": "MSE (100,000 USD, squared)",
    "r2": "R² (share explained)",
}
PART_NAMES = {"train": "training", "val": "validation", "test": "test"}
PART_COLOURS = {"train": "#BFC5CA", "val": ORANGE, "test": BLUE}
MOST_BARS = 20


def metric_grid(scores: pd.DataFrame) -> Figure:
    """The four metrics of each family and part, lowest validation RMSE first."""
    families = _best_first(scores, "rmse")
    size = (8.5, 2 * (0.8 + 0.48 * len(families)))
    figure, grid = plt.subplots(2, 2, figsize=size, sharey=True)
    for axes, metric in zip(grid.flat, METRIC_NAMES, strict=True):
        _draw_metric(axes, scores, metric, families)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    grid[0, 0].set_title("Do the four metrics rank the families alike?")
    legend_above(grid[0, 0])
    return figure


def importance_bars(importances: pd.Series, *, title: str, unit: str) -> Axes:
    """The largest importances or coefficients, largest first, negative ones in red.

    Parameters
    ----------
    unit
        What the axis counts; `dollars` writes values in 100,000 USD as dollars.
    """
    ordered = importances.sort_values(key=np.abs, ascending=False)
    shown = ordered.head(MOST_BARS)[::-1]
    axes = new_axes(height=1 + 0.27 * len(shown))
    colours = np.where(shown < 0, RED, BLUE)
    bars = axes.barh(shown.index.astype(str), shown, color=colours, height=0.75)
    if unit == "dollars":
        in_dollars(axes.xaxis)
    axes.bar_label(bars, fmt=short_dollars if unit == "dollars" else "%.3g", padding=3, fontsize=8)
    left_out = len(ordered) - len(shown)
    axes.set_xlabel(f"{unit}\n({left_out} smaller ones are left out)" if left_out else unit)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.margins(x=0.12, y=0.01)
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
    return axes


def residuals(prices: Floats, predicted: Floats) -> Figure:
    """Predictions against prices, and their errors along the prediction."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2))
    _draw_agreement(left, prices, predicted)
    _draw_errors(right, prices, predicted)
    return figure


def search_history(trials: pd.DataFrame) -> Axes:
    """The validation RMSE of each trial, and the best so far.

    Parameters
    ----------
    trials
        One row a trial, as `tuning.Search.table` gives it; the first one tried
        the shipped defaults.
    """
    errors = trials["val_rmse"]
    complete, pruned = (errors[trials["state"] == state] for state in ("complete", "pruned"))
    best = complete.cummin().reindex(errors.index).ffill()
    axes = new_axes(height=3.8)
    axes.scatter(complete.index, complete, color=SKY, s=28, label="complete")
    if len(pruned):
        axes.scatter(pruned.index, pruned, color=GREY, marker="x", s=24, label="pruned")
    axes.step(best.index, best, where="post", color=BLUE, label="best so far")
    first = errors.iloc[:1]
    axes.scatter(first.index, first, color=ORANGE, marker="D", label="shipped defaults")
    in_dollars(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="trial", ylabel="validation RMSE (dollars)")
    axes.set_title(_gain_text(errors.iloc[0] - complete.min()))
    focus(axes, errors, keep=(errors.iloc[0],))
    legend_above(axes)
    return axes


def search_slices(trials: pd.DataFrame, space: Mapping[str, Range]) -> Figure:
    """The validation RMSE of the trials along each hyperparameter of `space`."""
    params = list(space)
    figure, panels = new_panels(len(params), across=3, height=2.6)
    complete = trials[trials["state"] == "complete"]
    pruned = trials[trials["state"] == "pruned"]
    for axes, name in zip(panels, params, strict=False):
        best = complete.loc[[complete["val_rmse"].idxmin()]]
        axes.scatter(_choices(pruned[name]), pruned["val_rmse"], color=GREY, marker="x", s=18)
        axes.scatter(_choices(complete[name]), complete["val_rmse"], color=SKY, s=22)
        axes.scatter(_choices(best[name]), best["val_rmse"], color=BLUE, s=50)
        if space[name].log and trials[name].max() > 5 * trials[name].min():
            logarithmic(axes.xaxis)
        elif pd.api.types.is_integer_dtype(trials[name]):
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        in_dollars(axes.yaxis)
        axes.set(xlabel=name, ylabel="")
        axes.margins(x=0.1)
        focus(axes, trials["val_rmse"], keep=best["val_rmse"])
    figure.supylabel("validation RMSE (dollars)", fontsize=10)
    figure.suptitle(
        "Where do good trials lie? (dark: the best; ×: pruned)",
        x=0.01,
        ha="left",
        fontsize=11.5,
        fontweight="bold",
    )
    return figure


def _metric_text(metric: str, value: float) -> str:
    return short_dollars(value) if metric in ("rmse", "mae") else f"{value:.3f}"


def _best_first(scores: pd.DataFrame, metric: str) -> list[str]:
    part = "val" if "val" in set(scores["part"]) else scores["part"].iloc[-1]
    judged = scores[scores["part"] == part].sort_values(metric, ascending=metric != "r2")
    return list(judged["family"])


def _draw_metric(axes: Axes, scores: pd.DataFrame, metric: str, families: list[str]) -> None:
    parts = [part for part in PARTS if part in set(scores["part"])]
    sns.barplot(
        scores,
        y="family",
        x=metric,
        hue="part",
        order=families,
        hue_order=parts,
        palette=PART_COLOURS,
        saturation=1,
        errorbar=None,
        legend=False,
        ax=axes,
    )
    for part, bars in zip(parts, cast(list[BarContainer], axes.containers), strict=True):
        bars.set_label(PART_NAMES[part])
        axes.bar_label(bars, fmt=lambda value: _metric_text(metric, value), padding=2, fontsize=7)
    if metric in ("rmse", "mae"):
        in_dollars(axes.xaxis)
    axes.set_yticks(range(len(families)), [family_title(family) for family in families])
    axes.set(xlabel=METRIC_NAMES[metric], ylabel="")
    axes.margins(x=0.22)
    axes.grid(visible=False, axis="y")


def _draw_agreement(axes: Axes, prices: Floats, predicted: Floats) -> None:
    axes.hexbin(prices, predicted, gridsize=45, bins="log", mincnt=1, cmap=LOW_TO_HIGH)
    ends = [0, max(PRICE_CAP, float(np.max(predicted)))]
    axes.plot(ends, ends, color=INK, linewidth=1, label="prediction = price")
    if capped(prices).any():
        axes.axvline(PRICE_CAP, color=RED, linestyle="--", linewidth=1, label="cap of the prices")
    in_dollars(axes.xaxis)
    in_dollars(axes.yaxis)
    axes.set(xlabel=PRICE, ylabel="predicted (dollars)")
    half = short_dollars(float(np.median(np.abs(predicted - prices))))
    axes.set_title(f"Half of the predictions are within {half}")
    axes.legend(loc="upper left")


def _draw_errors(axes: Axes, prices: Floats, predicted: Floats) -> None:
    errors = pd.Series(predicted - prices)
    twentieths = pd.qcut(predicted, 20, labels=False, duplicates="drop")
    shares = errors.groupby(twentieths).quantile(np.array([0.05, 0.5, 0.95])).unstack()
    middle = pd.Series(predicted).groupby(twentieths).median()
    axes.scatter(predicted, errors, color=SKY, s=4, alpha=0.3, linewidths=0)
    axes.plot(middle, shares[0.5], color=BLUE, label="running median")
    axes.plot(middle, shares[[0.05, 0.95]], color=BLUE, linestyle=":", label=["5 and 95 %", None])
    axes.axhline(0, color=INK, linewidth=1)
    in_dollars(axes.xaxis)
    in_dollars(axes.yaxis)
    axes.set(xlabel="predicted (dollars)", ylabel="error: prediction minus price (dollars)")
    axes.set_title("Is the error the same at every prediction?")
    axes.legend(loc="upper left")


def _choices(values: pd.Series) -> pd.Series:
    return values if pd.api.types.is_numeric_dtype(values) else values.astype(str)


def _gain_text(gain: float) -> str:
    if gain > 0:
        return f"The search took {whole_dollars(gain)} off the error of the defaults"
    return "No trial was better than the defaults"
