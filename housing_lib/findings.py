"""What a session of monitoring found, as a reader sees it: sentences and tables in dollars."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown

from housing_lib import quality
from housing_lib.exploration import styled
from housing_lib.families import title
from housing_lib.geography import errors_by_region, regions
from housing_lib.monitoring import Session
from housing_lib.summary import percent
from housing_lib.tables import figure, usd
from housing_lib.verdict import ALARM, NOT_ENOUGH, QUIET, Verdict, known_too_well

ITSELF = (
    "These are the test districts themselves, which everything is compared with: nothing can have "
    "moved, and the estimate agrees by its making."
)
LEARNED = (
    "stood among those that the model learned from. It knows them better than others, which "
    "alone can make a session look changed: judge it by districts that are new to it."
)
WITHOUT_PRICES = "No true price is known yet of what it answered, so nobody can say."
TO_DO = {
    ALARM: (
        "What to do: look at the causes below. If a source sends wrong values, mend it; if the "
        "world has moved, `housing retrain` makes a challenger and lets the gate decide."
    ),
    QUIET: "Nobody has to do anything.",
    NOT_ENOUGH: "Look again once there are more.",
}
FIRST_BATCHES = 3
WORST = 10
FEWEST_ROWS = 30  # the interval of a batch of fewer is so wide that it says nothing
NEAR = 0.2  # batches whose sizes differ by as much lie in nearly the same band
INTERVAL = "about 95 % ($)"
NAMES = {
    "rmse": "RMSE ($)",
    "mae": "MAE ($)",
    "bias": "bias ($)",
    "r2_score": "R²",
    "coverage": "in the 90 % interval",
}


def bottom_line(session: Session, *, family: str, stage: str, promised: float | None) -> str:
    """The verdict in a few sentences, in Markdown.

    Parameters
    ----------
    promised
        The RMSE that the version reached in its test (100,000 USD).
    """
    verdict = session.verdict
    found = {
        ALARM: f"Alarm: {verdict.sentence}.",
        QUIET: f"Quiet: {verdict.sentence}.",
        NOT_ENOUGH: f"Not enough data, so no verdict: {verdict.sentence}.",
    }[verdict.state]
    version = f"version {verdict.model_version} ({title(family)}, in {stage.title()})"
    if verdict.rows:
        looked = f"This is about {_looked(verdict)}, answered by {version}."
        about = f"{looked} {_quality(session, promised)} {_chance(session)}"
    else:
        others = _many(len(session.rows), "district")
        about = f"The {others} of this session were not answered by {version}, but by others."
    if verdict.source == "test":
        about = f"{about} {ITSELF}"
    fitted = int(verdict.evidence.get("fitted_rows", 0))
    if fitted and not (verdict.alarming and known_too_well(verdict.evidence, verdict.rows)):
        about = f"{about} {_many(fitted, 'of these districts', 'of these districts')} {LEARNED}"
    return "\n\n".join([f"**{found}** {TO_DO[verdict.state]}", about])


def _looked(verdict: Verdict) -> str:
    batches = _many(verdict.batches, "batch", "batches")
    rows = _many(verdict.rows, "district")
    return f"{batches} with {rows} ({_when(verdict.first)} to {_when(verdict.last)})"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _when(text: str) -> str:
    """The end of a period as a reader writes it: rows as they are, times to the minute."""
    return f"{text[:10]} {text[11:16]}" if "T" in text else text


def _quality(session: Session, promised: float | None) -> str:
    found = session.verdict.evidence
    known, rows = int(found["valid_rows"]), session.verdict.rows
    parts = [f"{known:,} of {rows:,} have a true price to be held against."]
    figures = {
        "realised": found.get("rmse"),
        "estimated before prices arrive": found.get("estimated_rmse"),
        "in its test": promised,
    }
    said = [f"{usd(value)} {name}" for name, value in figures.items() if value is not None]
    return " ".join([*parts, f"Typical error (RMSE): {', '.join(said)}." if said else ""])


def _chance(session: Session) -> str:
    found = session.verdict.evidence
    if "p_value" not in found:
        return ""
    return (
        f"Where nothing changes, {_percent(found['p_value'])} of such sessions show something as "
        f"strange; an alarm needs {_percent(found['threshold'])} or less."
    )


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.3g} %"


def cause_table(session: Session) -> Any:
    """What moved, strongest first: one row a cause; a sentence where nothing did."""
    causes = session.verdict.causes
    if not causes:
        return Markdown("Nothing raised an alarm.")  # type: ignore[no-untyped-call]
    shown = pd.DataFrame(
        [
            {"what": one.what, "effect": _signed(one.size), "in words": one.sentence}
            for one in causes
        ],
        columns=["what", "effect", "in words"],
    )
    shown.index = pd.RangeIndex(1, len(shown) + 1)
    return shown.style.set_properties(subset=["in words"], **{"text-align": "left"})


def _signed(size: float) -> str:
    return f"{size:+.2f}".replace("-", "−")


def oddity_table(session: Session) -> Any:
    """What a reader should know of the rows, with how many there are; a sentence if nothing."""
    counts = pd.Series(session.traffic.oddities, dtype="int64")
    reasons = session.rows["fault"][session.rows["fault"] != ""].value_counts()
    found = pd.concat([counts[counts > 0], reasons])
    if found.empty:
        return Markdown("Nothing was odd.")  # type: ignore[no-untyped-call]
    return found.map("{:,}".format).to_frame("rows").rename_axis(None).style


def _of_true_prices(table: Callable[[Session], Any]) -> Callable[[Session], Any]:
    """That table, or a sentence where no true price is known."""

    @wraps(table)
    def told(session: Session) -> Any:
        if len(session.scored):
            return table(session)
        return Markdown(WITHOUT_PRICES)  # type: ignore[no-untyped-call]

    return told


@_of_true_prices
def first_batches(session: Session) -> Any:
    """The judged version's first batches, one column each, and where chance puts one as usual."""
    batches, chance = session.batches[session.own].head(FIRST_BATCHES), session.by_chance
    shown = pd.DataFrame(index=list(NAMES.values()))
    for number, row in batches.iterrows():
        shown[f"batch {number}"] = [figure(name, row[f"batch_{name}"]) for name in NAMES]
    shown["unchanged batches"] = [
        f"{figure(name, low)} to {figure(name, high)}"
        for name, low, high in zip(NAMES, chance["low"], chance["high"], strict=True)
    ]
    return shown.style


@_of_true_prices
def worst_batches(session: Session) -> Any:
    """The batches with the largest RMSE: about where it lies, counts, and the region of most rows.

    Where all of them are too small for an interval, there is no column of it.
    """
    rows = session.batches.nlargest(WORST, "batch_rmse")
    shown = pd.DataFrame(
        {
            "RMSE ($)": rows["batch_rmse"].map(lambda value: figure("rmse", value)),
            INTERVAL: _intervals(rows),
            "above the band": _above(session, rows),
            "estimated ($)": rows["estimated_rmse"].map(lambda value: figure("rmse", value)),
            "valid rows": rows["num_valid_rows_in_batch"],
            "mostly in": [_usual_region(session, int(str(number))) for number in rows.index],
        }
    )
    return (shown if any(shown[INTERVAL]) else shown.drop(columns=INTERVAL)).style


def interval_words(session: Session) -> str:
    """What the intervals of the worst batches mean, or why there are none."""
    if any(_intervals(session.batches.nlargest(WORST, "batch_rmse"))):
        return (
            "About nineteen in twenty of such intervals hold the error that an endless number of "
            f"such districts would give; batches of fewer than {FEWEST_ROWS} rows have none, nor "
            "have any while too few true prices are known to tell how heavy errors can be."
        )
    return (
        "No interval of these errors is told: the batches have too few rows, or too few true "
        "prices are known to tell how heavy errors can be."
    )


def _above(session: Session, batches: pd.DataFrame) -> list[str]:
    """Whether batches are above the band, which is the judged version's: for those of its size."""
    band = session.by_chance.loc["rmse", "high"]
    sizes = batches["num_valid_rows_in_batch"] / session.batch_rows
    alike = session.own[batches.index] & ((sizes - 1).abs() <= NEAR)
    above = np.where(batches["batch_rmse"] > band, "yes", "no")
    return list(np.where(alike, above, ""))


def _intervals(batches: pd.DataFrame) -> list[str]:
    """The interval of each batch's RMSE, empty where there are too few rows for one."""
    columns = ["num_valid_rows_in_batch", "batch_rmse_low", "batch_rmse_high"]
    return [
        f"{figure('rmse', low)} to {figure('rmse', high)}"
        if rows >= FEWEST_ROWS and np.isfinite(low)
        else ""
        for rows, low, high in batches[columns].to_numpy()
    ]


def _usual_region(session: Session, number: int) -> str:
    return str(regions(session.rows[session.batch == number]).mode().iloc[0])


@_of_true_prices
def region_table(session: Session) -> Any:
    """What the model asks in each region, the largest error first."""
    return styled(errors_by_region(session.scored, session.errors), precision=0)


def version_table(session: Session) -> Any:
    """One row a version of the model that answered: rows, RMSE, and whether it is in alarm."""
    shown = {}
    for one in session.series:
        shown[f"version {one.version}"] = {
            "rows": f"{len(one.rows):,}",
            "with a true price": f"{quality.scored(one.rows).sum():,}",
            "RMSE ($)": figure("rmse", quality.rmse(one.rows)),
            "batches in alarm": f"{len(one.alarmed):,}",
        }
    return pd.DataFrame(shown).T.style


def told_apart(auc: float | None) -> str:
    """How well a classifier tells the session's rows from the test districts, in words."""
    if auc is None:
        return (
            "No classifier was asked: there are too few rows, or many of them are the test "
            "districts themselves."
        )
    return (
        f"A boosted classifier that is given one district of each side tells which one is of this "
        f"session in {percent(auc)} of the cases; a coin does in half of them."
    )
