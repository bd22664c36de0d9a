"""The figures of monitoring: batches beside what chance does, what moved, and months of it.

An error is the prediction minus the price: above zero, the model asks too much.
"""

import matplotlib.dates as dates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from housing_lib.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    SKY,
    WIDTH,
    focus,
    in_dollars,
    legend_above,
    new_axes,
)

PANELS = {
    "rmse": "RMSE (dollars)",
    "mae": "MAE (dollars)",
    "bias": "bias (dollars)",
    "r2_score": "R² (share explained)",
    "coverage": "in the 90 % interval",
}
MOST_SHIFTS = 14
CHANCE = "#ECECEC"


def quality_grid(batches: pd.DataFrame, sliding: pd.DataFrame, by_chance: pd.DataFrame) -> Figure:
    """Each metric that is known batch by batch, with sliding windows, over what chance alone does.

    Parameters
    ----------
    batches, sliding
        The metrics of batches (`batch_rmse` and so on, and `estimated_rmse`), and
        of sliding windows: with the ends of their intervals, and estimated.
    by_chance
        Between which values an unchanged batch lies: `low` and `high` by metric.
    """
    panels = {name: title for name, title in PANELS.items() if _is_known(name, batches)}
    size = (WIDTH, 2.1 * len(panels))
    figure, grid = plt.subplots(len(panels), 1, figsize=size, sharex=True, squeeze=False)
    column = grid[:, 0]
    for axes, (name, title) in zip(column, panels.items(), strict=True):
        _draw_metric(axes, name, batches, sliding, by_chance)
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    column[0].set_title("Is any batch worse than chance makes one?")
    column[-1].set_xlabel("batch")
    legend_above(column[0])
    return figure


def _is_known(name: str, batches: pd.DataFrame) -> bool:
    found = batches.filter([f"batch_{name}", f"estimated_{name}"])
    return name == "rmse" or bool(found.notna().any(axis=None))


def _draw_metric(
    axes: Axes, name: str, batches: pd.DataFrame, sliding: pd.DataFrame, by_chance: pd.DataFrame
) -> None:
    ends = by_chance.loc[name].to_numpy(dtype=float)
    values = batches[f"batch_{name}"]
    size = float(np.clip(800 / len(values), 5, 30))
    if np.isfinite(ends).all():
        axes.axhspan(*ends, color=CHANCE, linewidth=0, label="unchanged", zorder=0)
    axes.scatter(values.index, values, color=SKY, s=size, linewidths=0, label="one batch")
    if len(values) > 1:
        bounds = sliding[f"{name}_low"], sliding[f"{name}_high"]
        axes.fill_between(sliding.index, *bounds, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(sliding.index, sliding[name], color=BLUE, label="window")
    if sliding.filter([f"estimated_{name}"]).notna().any(axis=None):
        estimated = sliding[f"estimated_{name}"]
        marker = "" if len(values) > 1 else "D"
        axes.plot(estimated.index, estimated, color=ORANGE, marker=marker, label="estimated")
    if name in ("rmse", "mae", "bias"):
        in_dollars(axes.yaxis)
    if name == "coverage":
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    focus(axes, values, keep=ends[np.isfinite(ends)])


def strangeness(batches: pd.DataFrame, *, usual: float, alarming: float, alarmed: object) -> Axes:
    """The largest shift of each judged batch, in standard errors, and the alarm's level.

    Parameters
    ----------
    usual, alarming
        The shift that few unchanged batches exceed, and the one that raises the alarm.
    alarmed
        The numbers of the batches that raised it, alone or in a longer window.
    """
    axes = new_axes(height=3.4)
    shifts = batches["largest_shift"].dropna()
    raised = shifts.index.isin(np.asarray(alarmed))
    size = float(np.clip(1600 / max(1, len(shifts)), 8, 36))
    axes.scatter(shifts.index[~raised], shifts[~raised], color=BLUE, s=size, label="quiet")
    if raised.any():
        axes.scatter(shifts.index[raised], shifts[raised], color=RED, s=size, label="in the alarm")
    axes.axhline(usual, color=GREY, linestyle=":", label="few unchanged ones exceed this")
    axes.axhline(alarming, color=RED, linestyle="--", linewidth=1.2, label="alarm")
    axes.set_ylim(0, max(1.15 * float(np.nanmax([*shifts, alarming])), 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="batch", ylabel="largest shift (standard errors)")
    axes.set_title("What raised the alarm, and when" if raised.any() else "No batch stands out")
    legend_above(axes)
    return axes


def shift_bars(shifts: pd.DataFrame, *, level: float, alarm: bool) -> Axes:
    """The watched quantities that moved most, in standard errors, with their effect in words.

    Only the verdict raises an alarm, for it counts all quantities and all windows: without one no
    bar is red, however far one among many came.

    Parameters
    ----------
    shifts
        One row a quantity, strongest first: `kind`, `name`, `effect`, `z`.
    level
        The shift that raises the alarm in a single batch.
    alarm
        Whether the verdict is one.
    """
    shown = shifts.head(MOST_SHIFTS).iloc[::-1]
    axes = new_axes(height=1.2 + 0.28 * len(shown))
    colours = np.where(alarm & (shown["z"].abs() > level), RED, BLUE)
    names = [_named(kind, name) for kind, name in zip(shown["kind"], shown["name"], strict=True)]
    bars = axes.barh(names, shown["z"], color=colours, height=0.72)
    effects = zip(shown["kind"], shown["effect"], strict=True)
    axes.bar_label(bars, [_effect(*one) for one in effects], padding=3, fontsize=8)
    axes.axvspan(-level, level, color=CHANCE, linewidth=0, zorder=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    reach = 1.6 * max(level, float(shown["z"].abs().max()))
    axes.set_xlim(-reach, reach)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("shift (standard errors; grey: too little for an alarm in one batch)")
    axes.set_title(_shift_title(int((shifts["z"].abs() > level).sum()), len(shifts), alarm=alarm))
    return axes


def _shift_title(moved: int, watched: int, *, alarm: bool) -> str:
    if not alarm and not moved:
        return f"None of {watched} watched quantities moved far enough for an alarm"
    if not alarm:
        return f"Quiet: over all rows {moved} of {watched} moved far, as chance may let some"
    if not moved:
        return f"The alarm is of some batches: over all rows none of {watched} moved as far"
    return f"{moved} of {watched} watched quantities moved far enough for an alarm"


def _named(kind: str, name: str) -> str:
    return {
        "level": name,
        "spread": f"{name}, spread",
        "missing": f"{name}, missing",
        "place": f"share of {name}",
        "joint": "all columns together",
    }[kind]


def _effect(kind: str, effect: float) -> str:
    of_rows = kind in ("missing", "place")
    moved = f"{100 * effect:+.1f}" if of_rows else f"{effect:+.2f}"
    if not moved.strip("+-0."):
        moved = moved[1:]  # nothing has no side
    return f"{moved.replace('-', '−')} {'% of rows' if of_rows else 'SD of ranks'}"


def session_history(history: pd.DataFrame) -> Axes:
    """The RMSE of all sessions over time, as realised and as estimated, with the alarms.

    Parameters
    ----------
    history
        One row a session, as `sessions.history` gives it.
    """
    axes = new_axes(height=3.4)
    at = history["at"]
    axes.plot(at, history["rmse"].astype(float), "o-", color=BLUE, label="realised")
    estimated = history["estimated_rmse"].astype(float)
    axes.plot(at, estimated, "D--", color=ORANGE, markersize=4, label="estimated")
    alarms = history[history["state"] == "alarm"]
    level = alarms["rmse"].astype(float).fillna(alarms["estimated_rmse"].astype(float))
    axes.scatter(alarms["at"], level, s=130, facecolors="none", edgecolors=RED, label="alarm")
    in_dollars(axes.yaxis)
    if at.nunique() == 1:  # or the axis spans years around a single day
        axes.set_xlim(at.iloc[0] - pd.Timedelta(days=1), at.iloc[0] + pd.Timedelta(days=1))
    locator = dates.AutoDateLocator(minticks=2, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set(xlabel="end of the period", ylabel="RMSE (dollars)")
    axes.set_title(_history_title(len(history), len(alarms)))
    legend_above(axes)
    return axes


def _history_title(sessions: int, alarms: int) -> str:
    looked = "one session" if sessions == 1 else f"{sessions:,} sessions"
    return f"{alarms or 'No'} {'alarm' if alarms == 1 else 'alarms'} in {looked}"
