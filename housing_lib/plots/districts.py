"""The figures of the districts themselves, before any model."""

from typing import cast

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from housing_lib.data import CONTRACT, PRICE_CAP, TARGET, capped
from housing_lib.exploration import households, tenths
from housing_lib.geography import reach_km
from housing_lib.plots.style import (
    BELOW_TO_ABOVE,
    BLUE,
    GREEN,
    INK,
    LOW_TO_HIGH,
    ORANGE,
    PRICE,
    RED,
    SKY,
    dollars,
    in_dollars,
    legend_above,
    logarithmic,
    new_axes,
    new_panels,
    plainly,
)
from housing_lib.summary import percent


def distributions(districts: pd.DataFrame) -> Figure:
    """One histogram a column; columns with a long tail have a logarithmic axis."""
    figure, panels = new_panels(len(districts.columns), across=3, height=2.1)
    for axes, name in zip(panels, districts.columns, strict=True):
        values = districts[name].dropna()
        skewed = _is_skewed(values)
        colour = ORANGE if name == TARGET else BLUE
        sns.histplot(x=values, bins=40, log_scale=skewed, ax=axes, color=colour, linewidth=0)
        axes.set(xlabel=CONTRACT[name].unit + (", log scale" if skewed else ""), ylabel="")
        axes.set_title(name, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if skewed:
            logarithmic(axes.xaxis)
        if name == TARGET:
            in_dollars(axes.xaxis)
            axes.set_xlabel("dollars")
    figure.supylabel("districts", fontsize=10)
    return figure


def price_histogram(districts: pd.DataFrame) -> Axes:
    """How many districts there are at each price, with the cap marked if any stands at it."""
    prices = districts[TARGET]
    at_cap = capped(prices)
    axes = new_axes(height=3.4)
    bins = np.linspace(0, max(PRICE_CAP, prices.max()), 52).tolist()
    axes.hist([prices[~at_cap], prices[at_cap]], bins=bins, stacked=True, color=[BLUE, RED])
    in_dollars(axes.xaxis)
    axes.set(xlabel=PRICE, ylabel="districts")
    if at_cap.any():
        axes.axvline(PRICE_CAP, color=RED, linestyle="--", linewidth=1)
        share = percent(at_cap.mean(), 1)
        axes.set_title(f"{share} of the prices stand at the census's cap of {dollars(PRICE_CAP)}")
    return axes


def correlations(districts: pd.DataFrame) -> Axes:
    """Spearman's rank correlation of each pair of columns."""
    ranks = districts.corr(method="spearman").round(2) + 0.0  # no minus before a zero
    lower = ranks.iloc[1:, :-1]
    axes = new_axes(height=5)
    sns.heatmap(
        lower,
        mask=np.triu(np.ones(lower.shape, dtype=bool), k=1),
        annot=True,
        fmt=".2f",
        annot_kws={"fontsize": 9},
        cmap=BELOW_TO_ABOVE,
        vmin=-1,
        vmax=1,
        linewidths=1,
        cbar_kws={"label": "Spearman's rank correlation", "shrink": 0.8},
        ax=axes,
    )
    axes.grid(visible=False)
    axes.tick_params(axis="x", rotation=45)
    closest = ranks[TARGET].drop(TARGET).abs().idxmax()
    axes.set_title(f"{closest} goes with the price most closely")
    return axes


def binned_price(districts: pd.DataFrame, column: str) -> Axes:
    """How the prices spread in each tenth of the districts, ordered by `column`."""
    groups = tenths(districts[column])
    middle = districts[column].groupby(groups).median()
    levels = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    shares = districts[TARGET].groupby(groups).quantile(levels).unstack()
    axes = new_axes(height=3.8)
    axes.fill_between(middle, shares[0.1], shares[0.9], color=SKY, alpha=0.3, label="10 to 90 %")
    inner = "25 to 75 % of the districts"
    axes.fill_between(middle, shares[0.25], shares[0.75], color=SKY, alpha=0.6, label=inner)
    axes.plot(middle, shares[0.5], color=BLUE, marker="o", markersize=4, label="median")
    if _is_skewed(districts[column]):
        logarithmic(axes.xaxis)
    in_dollars(axes.yaxis)
    axes.set(xlabel=_column_name(column), ylabel=PRICE, ylim=(0, None))
    ends = [dollars(price.round(2)) for price in (shares[0.5].iloc[0], shares[0.5].iloc[-1])]
    axes.set_title(f"Lowest to highest tenth of {column}: median price {' to '.join(ends)}")
    legend_above(axes)
    return axes


def outliers(districts: pd.DataFrame) -> Figure:
    """Rooms and people a household against people in the district, by its households."""
    counts = households(districts)
    fewest, most = counts.quantile([0.001, 0.999]).fillna(1)
    figure, panels = new_panels(2, across=2, height=3.8)
    for axes, column in zip(panels, ("AveRooms", "AveOccup"), strict=True):
        points = axes.scatter(
            districts["Population"],
            districts[column],
            c=counts.fillna(fewest),
            norm=LogNorm(float(fewest), float(most)),
            cmap=f"{LOW_TO_HIGH}_r",
            s=5,
            linewidths=0,
        )
        logarithmic(axes.xaxis)
        if (districts[column] > 0).any():
            logarithmic(axes.yaxis)
        axes.set(xlabel="people in the district", ylabel=CONTRACT[column].meaning)
    panels[0].set_title("Are averages of few households believable?")
    bar = figure.colorbar(points, ax=panels, label="households in the district", shrink=0.8)
    bar.formatter = FuncFormatter(plainly)
    return figure


def variogram(shares: pd.DataFrame) -> Axes:
    """How much districts differ by how far they are apart, a line a column.

    Parameters
    ----------
    shares
        As `geography.variogram` gives it.
    """
    axes = new_axes(height=3.6)
    for name, colour in zip(shares.columns, (BLUE, ORANGE, GREEN), strict=False):
        axes.plot(shares.index, shares[name], color=colour, marker="o", markersize=4, label=name)
    axes.axhline(1, color=INK, linestyle="--", linewidth=1, label="two strangers")
    logarithmic(axes.xaxis)
    axes.set(xlabel="up to this far apart (km)", ylabel="difference (share of the variance)")
    axes.set_ylim(0, None)
    reach = reach_km(shares.iloc[:, -1])
    where = f"from {reach:.0f} km on" if reach else "at no distance on this map"
    axes.set_title(f"Two districts are nearly strangers {where}")
    legend_above(axes)
    return axes


def transfer(errors: pd.DataFrame) -> Axes:
    """The mean error of the rule of one region (row) in another (column).

    Parameters
    ----------
    errors
        As `geography.transfer` gives it.
    """
    limit = float(errors.abs().to_numpy().max()) or 1.0
    words = errors.round(2).map(lambda error: dollars(error + 0.0))
    axes = new_axes(height=4.2)
    sns.heatmap(
        errors,
        annot=words,
        fmt="",
        annot_kws={"fontsize": 9},
        cmap=BELOW_TO_ABOVE,
        vmin=-limit,
        vmax=limit,
        linewidths=1,
        cbar=False,
        ax=axes,
    )
    axes.grid(visible=False)
    axes.tick_params(axis="x", rotation=30)
    axes.set(xlabel="is used in", ylabel="the rule of")
    axes.set_title("What does a rule cost in another region? (prediction minus price)")
    return axes


def _column_name(column: str) -> str:
    return f"{column}: {CONTRACT[column].meaning} ({CONTRACT[column].unit})"


def _is_skewed(values: pd.Series) -> bool:
    return bool((values > 0).all() and cast(float, values.skew()) > 2)
