"""The figures of the notebooks: values in, `Axes` or `Figure` out, in one house style.

Prices and errors come in units of 100,000 USD, as in the data set, and are
drawn in dollars. An error is the prediction minus the price: above zero, the
model asks too much.
"""

import io
import re
from collections.abc import Iterable, Mapping
from typing import cast

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.collections import Collection
from matplotlib.colors import LogNorm
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from housing_lib.data import CONTRACT, PARTS, PRICE_CAP, TARGET, USD_PER_UNIT, Floats
from housing_lib.exploration import city_name
from housing_lib.families import title as family_title
from housing_lib.geography import CITIES

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, ORANGE, GREEN, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00"
INK, GREY = "#222222", "#8A8A8A"
LOW_TO_HIGH, BELOW_TO_ABOVE = "flare", "vlag"

METRIC_NAMES = {
    "rmse": "RMSE (dollars)",
    "mae": "MAE (dollars)",
    "mse": "MSE (100,000 USD, squared)",
    "r2": "R² (share explained)",
}
PART_NAMES = {"train": "training", "val": "validation", "test": "test"}
PART_COLOURS = {"train": "#BFC5CA", "val": ORANGE, "test": BLUE}
PRICE = "median house value (dollars)"
WIDTH = 7.5
MOST_BARS = 20


def use_house_style() -> None:
    """Draw every figure from here on in the house style, sharp on any screen."""
    grid = {"grid.color": "#E6E6E6", "grid.linewidth": 0.8, "axes.grid": True}
    spines = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY}
    sizes = {"font.size": 10, "axes.titlesize": 11.5, "axes.labelsize": 10, "legend.fontsize": 9}
    titles = {"axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 10}
    ink = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    frame = {"figure.constrained_layout.use": True, "legend.frameon": False}
    frame |= {"text.parse_math": False}  # a dollar sign is a dollar sign
    resolution = {"figure.dpi": 96, "savefig.dpi": 192}
    small = {"xtick.labelsize": 9, "ytick.labelsize": 9, "font.family": "DejaVu Sans"}
    sns.set_theme(
        style="ticks",
        palette=[BLUE, ORANGE, GREEN, SKY, RED],
        rc=grid | spines | sizes | titles | ink | frame | resolution | small,
    )


def show(drawn: Axes | Figure, alt: str) -> None:
    """Display a figure once, with `alt` for those who cannot see it, and close it.

    The picture is made here rather than by the notebook's back end, so that it
    also appears where another back end was asked for.
    """
    figure = drawn.get_figure(root=True)
    assert figure is not None
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight")
    plt.close(figure)
    image = Image(picture.getvalue(), format="png", alt=alt, retina=True)  # type: ignore[no-untyped-call]
    display(image)  # type: ignore[no-untyped-call]


def dollars(value: float) -> str:
    """A price in 100,000 USD as a person writes it on an axis.

    >>> dollars(2.5)
    '$250k'
    """
    thousands = f"{abs(value) * USD_PER_UNIT / 1_000:,.4g}"
    return f"{'−' if value < 0 else ''}${thousands}k" if thousands != "0" else "$0"


def price_map(districts: pd.DataFrame) -> Axes:
    """The districts on the map, coloured by price."""
    axes = _map_axes(districts)
    points = axes.scatter(
        districts["Longitude"],
        districts["Latitude"],
        c=districts[TARGET],
        s=3,
        alpha=0.7,
        linewidths=0,
        cmap=LOW_TO_HIGH,
    )
    _colour_bar(points, axes, PRICE)
    _name_cities(axes)
    axes.set_title("Where are the dear districts?")
    return axes


def distributions(districts: pd.DataFrame) -> Figure:
    """One histogram a column; columns with a long tail have a logarithmic axis."""
    figure, panels = _panels(len(districts.columns), across=3, height=2.1)
    for axes, name in zip(panels, districts.columns, strict=True):
        values = districts[name].dropna()
        skewed = _is_skewed(values)
        colour = ORANGE if name == TARGET else BLUE
        sns.histplot(x=values, bins=40, log_scale=skewed, ax=axes, color=colour, linewidth=0)
        axes.set(xlabel=CONTRACT[name].unit + (", log scale" if skewed else ""), ylabel="")
        axes.set_title(name, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if skewed:
            _logarithmic(axes.xaxis)
        if name == TARGET:
            _in_dollars(axes.xaxis)
            axes.set_xlabel("dollars")
    figure.supylabel("districts", fontsize=10)
    return figure


def price_histogram(districts: pd.DataFrame) -> Axes:
    """How many districts there are at each price, with the cap marked."""
    prices = districts[TARGET]
    capped = prices >= PRICE_CAP
    axes = _new_axes(height=3.4)
    bins = np.linspace(0, max(PRICE_CAP, prices.max()), 52).tolist()
    axes.hist([prices[~capped], prices[capped]], bins=bins, stacked=True, color=[BLUE, RED])
    axes.axvline(PRICE_CAP, color=RED, linestyle="--", linewidth=1)
    _in_dollars(axes.xaxis)
    axes.set(xlabel=PRICE, ylabel="districts")
    axes.set_title(f"{capped.mean():.1%} of the prices stand at the cap of {dollars(PRICE_CAP)}")
    return axes


def correlations(districts: pd.DataFrame) -> Axes:
    """Spearman's rank correlation of each pair of columns."""
    ranks = districts.corr(method="spearman").round(2) + 0.0  # no minus before a zero
    lower = ranks.iloc[1:, :-1]
    axes = _new_axes(height=5)
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
    tenths = pd.qcut(districts[column], 10, labels=False, duplicates="drop")
    middle = districts[column].groupby(tenths).median()
    levels = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    shares = districts[TARGET].groupby(tenths).quantile(levels).unstack()
    axes = _new_axes(height=3.8)
    axes.fill_between(middle, shares[0.1], shares[0.9], color=SKY, alpha=0.3, label="10 to 90 %")
    inner = "25 to 75 % of the districts"
    axes.fill_between(middle, shares[0.25], shares[0.75], color=SKY, alpha=0.6, label=inner)
    axes.plot(middle, shares[0.5], color=BLUE, marker="o", markersize=4, label="median")
    if _is_skewed(districts[column]):
        _logarithmic(axes.xaxis)
    _in_dollars(axes.yaxis)
    axes.set(xlabel=_column_name(column), ylabel=PRICE, ylim=(0, None))
    ends = [dollars(price.round(2)) for price in (shares[0.5].iloc[0], shares[0.5].iloc[-1])]
    axes.set_title(f"Lowest to highest tenth of {column}: median price {' to '.join(ends)}")
    _legend_above(axes)
    return axes


def outliers(districts: pd.DataFrame) -> Figure:
    """Rooms and people a household against people in the district, by its households."""
    households = districts["Population"] / districts["AveOccup"]
    fewest, most = np.nanquantile(households, [0.001, 0.999])
    figure, panels = _panels(2, across=2, height=3.8)
    for axes, column in zip(panels, ("AveRooms", "AveOccup"), strict=True):
        points = axes.scatter(
            districts["Population"],
            districts[column],
            c=households,
            norm=LogNorm(float(fewest), float(most)),
            cmap=f"{LOW_TO_HIGH}_r",
            s=5,
            linewidths=0,
        )
        _logarithmic(axes.xaxis)
        _logarithmic(axes.yaxis)
        axes.set(xlabel="people in the district", ylabel=CONTRACT[column].meaning)
    panels[0].set_title("Are averages of few households believable?")
    bar = figure.colorbar(points, ax=panels, label="households in the district", shrink=0.8)
    bar.formatter = FuncFormatter(_plainly)
    return figure


def metric_bars(scores: pd.DataFrame, metric: str) -> Axes:
    """One metric of each family on each part, best on validation first.

    Parameters
    ----------
    scores
        One row a family and part, as `evaluation.score_models` gives it.
    """
    families = _best_first(scores, metric)
    axes = _new_axes(height=0.9 + 0.62 * len(families))
    _draw_metric(axes, scores, metric, families)
    value = scores[scores["family"] == families[0]].set_index("part")[metric].get("val")
    if value is None:
        axes.set_title(f"{family_title(families[0])} is in front")
    else:
        best = _metric_text(metric, value)
        axes.set_title(f"{family_title(families[0])} leads on validation with {best}")
    _legend_above(axes)
    return axes


def metric_grid(scores: pd.DataFrame) -> Figure:
    """The four metrics of each family and part, lowest validation RMSE first."""
    families = _best_first(scores, "rmse")
    size = (8.5, 2 * (0.8 + 0.48 * len(families)))
    figure, grid = plt.subplots(2, 2, figsize=size, sharey=True)
    for axes, metric in zip(grid.flat, METRIC_NAMES, strict=True):
        _draw_metric(axes, scores, metric, families)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    grid[0, 0].set_title("Do the four metrics rank the families alike?")
    _legend_above(grid[0, 0])
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
    axes = _new_axes(height=1 + 0.27 * len(shown))
    colours = np.where(shown < 0, RED, BLUE)
    bars = axes.barh(shown.index.astype(str), shown, color=colours, height=0.75)
    if unit == "dollars":
        _in_dollars(axes.xaxis)
    axes.bar_label(bars, fmt=_short_dollars if unit == "dollars" else "%.3g", padding=3, fontsize=8)
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


def error_map(districts: pd.DataFrame, errors: Floats) -> Axes:
    """The mean error of the districts in each cell of the map.

    Colours end where 98 % of the cells lie, so that a few extreme ones do not
    pale all others.
    """
    axes = _map_axes(districts)
    axes.set_facecolor("#F0F0F0")
    cells = axes.hexbin(
        districts["Longitude"],
        districts["Latitude"],
        C=errors,
        gridsize=42,
        cmap=BELOW_TO_ABOVE,
        linewidths=0.1,
    )
    limit = float(np.quantile(np.abs(np.asarray(cells.get_array())), 0.98)) or 1.0
    cells.set_clim(-limit, limit)
    _colour_bar(cells, axes, "mean error: prediction minus price (dollars)", extend="both")
    _name_cities(axes)
    axes.set_title("Where does the model ask too much (red) or too little (blue)?")
    return axes


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
    axes = _new_axes(height=3.8)
    axes.scatter(complete.index, complete, color=SKY, s=28, label="complete")
    if len(pruned):
        axes.scatter(pruned.index, pruned, color=GREY, marker="x", s=24, label="pruned")
    axes.step(best.index, best, where="post", color=BLUE, label="best so far")
    first = errors.iloc[:1]
    axes.scatter(first.index, first, color=ORANGE, marker="D", label="shipped defaults")
    _in_dollars(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="trial", ylabel="validation RMSE (dollars)")
    axes.set_title(_gain_text(errors.iloc[0] - complete.min()))
    _focus(axes, errors, keep=(errors.iloc[0],))
    _legend_above(axes)
    return axes


def search_slices(trials: pd.DataFrame, params: list[str]) -> Figure:
    """The validation RMSE of the trials along each hyperparameter in `params`."""
    figure, panels = _panels(len(params), across=3, height=2.6)
    complete = trials[trials["state"] == "complete"]
    pruned = trials[trials["state"] == "pruned"]
    for axes, name in zip(panels, params, strict=False):
        best = complete.loc[[complete["val_rmse"].idxmin()]]
        axes.scatter(_choices(pruned[name]), pruned["val_rmse"], color=GREY, marker="x", s=18)
        axes.scatter(_choices(complete[name]), complete["val_rmse"], color=SKY, s=22)
        axes.scatter(_choices(best[name]), best["val_rmse"], color=BLUE, s=50)
        if _spans_decades(trials[name]):
            _logarithmic(axes.xaxis)
        _in_dollars(axes.yaxis)
        axes.set(xlabel=name, ylabel="")
        axes.margins(x=0.1)
        _focus(axes, trials["val_rmse"], keep=best["val_rmse"])
    figure.supylabel("validation RMSE (dollars)", fontsize=10)
    figure.suptitle(
        "Where do good trials lie? (dark: the best; ×: pruned)",
        x=0.01,
        ha="left",
        fontsize=11.5,
        fontweight="bold",
    )
    return figure


def batch_series(batches: pd.DataFrame, metric: str, *, expected: float | None = None) -> Axes:
    """One metric batch by batch, its rolling median, and what the test set promised.

    Parameters
    ----------
    batches
        One row a batch in order of arrival; the index numbers them.
    """
    axes = _new_axes(height=3.4)
    _draw_series(axes, batches[metric], expected)
    axes.set_xlabel("batch")
    axes.set_title(f"Is the {_metric_name(metric)} still what the test set promised?")
    _legend_above(axes)
    return axes


def batch_grid(batches: pd.DataFrame, expected: Mapping[str, float]) -> Figure:
    """RMSE, mean absolute error and R² batch by batch, one above the other.

    Parameters
    ----------
    expected
        The promised values, named `rmse`, `test_rmse` or `batch_rmse` alike.
    """
    promised = {_metric_key(name): value for name, value in expected.items()}
    figure, column = plt.subplots(3, 1, figsize=(WIDTH, 7), sharex=True)
    for axes, metric in zip(column, ("batch_rmse", "batch_mae", "batch_r2_score"), strict=True):
        _draw_series(axes, batches[metric], promised.get(_metric_key(metric)))
    column[-1].set_xlabel("batch")
    column[0].set_title("Are the errors still those of the test set?")
    _legend_above(column[0])
    return figure


def _new_axes(*, height: float, width: float = WIDTH) -> Axes:
    axes: Axes = plt.subplots(figsize=(width, height))[1]
    return axes


def _panels(count: int, *, across: int, height: float) -> tuple[Figure, list[Axes]]:
    down = max(1, -(-count // across))
    figure, grid = plt.subplots(down, across, figsize=(8, height * down), squeeze=False)
    for surplus in grid.flat[count:]:
        surplus.set_visible(False)
    return figure, list(grid.flat[:count])


def _in_dollars(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: dollars(value)))


def _logarithmic(axis: XAxis | YAxis) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(_plainly))
    axis.set_minor_formatter(NullFormatter())


def _plainly(value: float, _: int | None) -> str:
    return f"{value:,.10g}"


def _short_dollars(value: float) -> str:
    return f"{'−' if value < 0 else ''}${abs(value) * USD_PER_UNIT / 1_000:,.1f}k"


def _column_name(column: str) -> str:
    return f"{column}: {CONTRACT[column].meaning} ({CONTRACT[column].unit})"


def _is_skewed(values: pd.Series) -> bool:
    return bool((values > 0).all() and cast(float, values.skew()) > 2)


def _map_axes(districts: pd.DataFrame) -> Axes:
    axes = _new_axes(width=7, height=6.2)
    axes.set_aspect(float(1 / np.cos(np.deg2rad(districts["Latitude"].mean()))))
    axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
    return axes


def _colour_bar(drawn: Collection, axes: Axes, label: str, *, extend: str = "neither") -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    written = FuncFormatter(lambda value, _: dollars(value))
    bar = figure.colorbar(drawn, ax=axes, label=label, shrink=0.7, format=written, extend=extend)
    if bar.solids is not None:
        bar.solids.set_alpha(1)


def _name_cities(axes: Axes) -> None:
    halo = [effects.withStroke(linewidth=2.5, foreground="white")]
    for city, (latitude, longitude) in CITIES.items():
        axes.annotate(
            city_name(city),
            (longitude, latitude),
            xytext=(-7, -3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            path_effects=halo,
        )
        axes.plot(longitude, latitude, "o", markersize=3.5, color=INK, markeredgecolor="white")


def _metric_key(name: str) -> str:
    found = re.search("rmse|mae|mse|r2", name)
    return found.group() if found else name


def _metric_name(name: str) -> str:
    key = _metric_key(name)
    return METRIC_NAMES.get(key, key).partition(" (")[0]


def _metric_text(metric: str, value: float) -> str:
    return _short_dollars(value) if metric in ("rmse", "mae") else f"{value:.3f}"


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
        _in_dollars(axes.xaxis)
    axes.set_yticks(range(len(families)), [family_title(family) for family in families])
    axes.set(xlabel=METRIC_NAMES[metric], ylabel="")
    axes.margins(x=0.22)
    axes.grid(visible=False, axis="y")


def _draw_agreement(axes: Axes, prices: Floats, predicted: Floats) -> None:
    axes.hexbin(prices, predicted, gridsize=45, bins="log", mincnt=1, cmap=LOW_TO_HIGH)
    ends = [0, max(PRICE_CAP, float(np.max(predicted)))]
    axes.plot(ends, ends, color=INK, linewidth=1, label="prediction = price")
    axes.axvline(PRICE_CAP, color=RED, linestyle="--", linewidth=1, label="cap of the prices")
    _in_dollars(axes.xaxis)
    _in_dollars(axes.yaxis)
    axes.set(xlabel=PRICE, ylabel="predicted (dollars)")
    half = _short_dollars(float(np.median(np.abs(predicted - prices))))
    axes.set_title(f"Half of the predictions are within {half}")
    axes.legend(loc="upper left")


def _draw_errors(axes: Axes, prices: Floats, predicted: Floats) -> None:
    errors = pd.Series(predicted - prices)
    tenths = pd.qcut(predicted, 20, labels=False, duplicates="drop")
    shares = errors.groupby(tenths).quantile(np.array([0.05, 0.5, 0.95])).unstack()
    middle = pd.Series(predicted).groupby(tenths).median()
    axes.scatter(predicted, errors, color=SKY, s=4, alpha=0.3, linewidths=0)
    axes.plot(middle, shares[0.5], color=BLUE, label="running median")
    axes.plot(middle, shares[[0.05, 0.95]], color=BLUE, linestyle=":", label=["5 and 95 %", None])
    axes.axhline(0, color=INK, linewidth=1)
    _in_dollars(axes.xaxis)
    _in_dollars(axes.yaxis)
    axes.set(xlabel="predicted (dollars)", ylabel="error: prediction minus price (dollars)")
    axes.set_title("Is the error the same at every prediction?")
    axes.legend(loc="upper left")


def _choices(values: pd.Series) -> pd.Series:
    return values if pd.api.types.is_numeric_dtype(values) else values.astype(str)


def _spans_decades(values: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(values):
        return False
    numbers = values.to_numpy(dtype="float64")
    return bool(0 < 30 * np.nanmin(numbers) < np.nanmax(numbers))


def _gain_text(gain: float) -> str:
    if gain > 0:
        return f"The search took {_short_dollars(gain)} off the error of the defaults"
    return "No trial was better than the defaults"


def _draw_series(axes: Axes, values: pd.Series, expected: float | None) -> None:
    window = max(3, len(values) // 20)
    medians = values.rolling(window, min_periods=max(1, window // 4)).median()
    size = float(np.clip(800 / len(values), 5, 30))
    axes.scatter(values.index, values, color=SKY, s=size, linewidths=0, label="one batch")
    axes.plot(values.index, medians, color=BLUE, label=f"median of the last {window}")
    if expected is not None:
        axes.axhline(expected, color=INK, linestyle="--", linewidth=1, label="test set")
    key = _metric_key(str(values.name))
    if key in ("rmse", "mae"):
        _in_dollars(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(METRIC_NAMES.get(key, key))
    _focus(axes, values, keep=() if expected is None else (expected,))


def _focus(axes: Axes, values: pd.Series, *, keep: Iterable[float] = ()) -> None:
    """Limit the y axis to the usual values, and say how many lie outside."""
    low, high = values.quantile([0.25, 0.75])
    reach = 3 * (high - low)
    usual = values[values.between(low - reach, high + reach)]
    shown = np.array([*usual, *keep])
    if not len(shown) or np.ptp(shown) == 0:
        return
    margin = 0.06 * np.ptp(shown)
    axes.set_ylim(shown.min() - margin, shown.max() + margin)
    outside = int((~values.dropna().between(*axes.get_ylim())).sum())
    if outside:
        text = f"{outside} beyond this picture"
        axes.text(1, 1.01, text, transform=axes.transAxes, ha="right", fontsize=8, color=GREY)


def _legend_above(axes: Axes) -> None:
    axes.set_title(axes.get_title(loc="left"), pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=4, borderaxespad=0.3)
