"""Results as a reader sees them: sentences and tables in dollars, and records for the run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from housing_lib.accuracy import METRICS, metric_intervals, metrics, rmse_difference
from housing_lib.blend import Choice
from housing_lib.data import TARGET, USD_PER_UNIT, Floats, capped
from housing_lib.evaluation import CHAMPION_NAME, Judgement, slice_name
from housing_lib.exploration import households
from housing_lib.families import BLEND, title
from housing_lib.summary import apart, percent

FEW_HOUSEHOLDS = 50
MONEY = ("rmse", "mae", "bias")
NAMES = {"rmse": "RMSE ($)", "mae": "MAE ($)", "mse": "MSE", "r2": "R²"}


def verdict(choice: Choice, scores: Mapping[str, float], version: int) -> str:
    """The result of an evaluation in a few sentences, in Markdown."""
    ends = f"{usd(scores['test_mae_low'])} to {usd(scores['test_mae_high'])}"
    return (
        f"**{title(choice.name)} is chosen, and now version {version}. On districts that it never "
        f"saw it is off by {usd(scores['test_mae'])} on average** (MAE; 95 % interval {ends}); "
        f"its RMSE, which weighs large errors more, is {usd(scores['test_rmse'])}. It explains "
        f"{percent(scores['test_r2'], 1)} of the differences in price. In a region that nobody "
        f"sampled, expect an RMSE of {usd(scores['block_rmse'])}. Its 90 % intervals hold "
        f"{percent(scores['test_coverage'], 1)} of the true prices."
    )


def blend_verdict(choice: Choice) -> str:
    """What the blend gained, what it costs, and whether it was taken, in Markdown."""
    if len(choice.weights) == 1:
        return f"There is no blend: with the best weights {title(choice.name)} answers alone."
    shares = ", ".join(
        f"{title(name)} {percent(weight)}" for name, weight in choice.weights.items()
    )
    gain = choice.gain
    ends = f"{usd(gain['low'])} to {usd(gain['high'])}"
    side = "below" if gain["difference"] >= 0 else "above"
    luck = "may be luck" if gain["low"] <= 0 else "is not worth the time"
    taken = "It is taken." if choice.name == BLEND else f"The gain {luck}; it is not taken."
    return (
        f"Blend: {shares}. Its validation RMSE is {usd(abs(gain['difference']))} {side} the best "
        f"family's (95 % interval of its gain: {ends}), and a prediction takes "
        f"{max(choice.slowness, 1):.1f} times as long. {taken}"
    )


def styled_leaderboard(board: pd.DataFrame) -> Any:
    """The leaderboard for a reader: a row a family and part, errors in dollars."""
    parts = {"train": "training", "val": "validation", "test": "test"}
    rows = {
        (title(str(family)), words): [row[f"{part}_{metric}"] for metric in METRICS]
        for family, row in board.iterrows()
        for part, words in parts.items()
    }
    shown = pd.DataFrame.from_dict(rows, orient="index", columns=list(NAMES.values()))
    shown.index = pd.MultiIndex.from_tuples(rows, names=["family", "districts"])
    money: Any = ["RMSE ($)", "MAE ($)"]
    shown[money] = shown[money] * USD_PER_UNIT
    formats: Any = {"MSE": "{:.3f}", "R²": "{:.3f}"}
    return shown.style.format(formats | dict.fromkeys(money, "{:,.0f}"))


def comparison_table(
    prices: Floats, answers: Mapping[str, Floats], champion: Floats, *, seed: int
) -> Any:
    """One row an answer: test RMSE and MAE in dollars, and how far its RMSE is from the champion's.

    `answers` are predictions of the same districts by others, by name.
    """
    rows = {}
    for name, predicted in {CHAMPION_NAME: champion, **answers}.items():
        found = metrics(prices, predicted) | metric_intervals(prices, predicted, seed=seed)
        row = {
            "RMSE ($)": _dollars(found["rmse"]),
            "95 %": _ends(found["rmse_low"], found["rmse_high"]),
            "MAE ($)": _dollars(found["mae"]),
            "R²": f"{round(found['r2'], 3) + 0.0:.3f}",  # no minus before a zero
            "above ($)": "",
            "95 % of that": "",
        }
        if name != CHAMPION_NAME:
            apart = rmse_difference(prices, predicted, champion, seed=seed)
            row["above ($)"] = _dollars(apart["difference"])
            row["95 % of that"] = _ends(apart["low"], apart["high"])
        rows[title(name)] = row
    return pd.DataFrame(rows).T.style


def slice_table(found: pd.DataFrame) -> Any:
    """The slices for a reader: errors in dollars, coverage in per cent."""
    shown = pd.DataFrame(
        {
            "districts": found["districts"].map("{:,.0f}".format),
            "RMSE ($)": found["rmse"].map(_dollars),
            "95 % interval": [
                _ends(low, high)
                for low, high in zip(found["rmse_low"], found["rmse_high"], strict=True)
            ],
            "mean error ($)": found["bias"].map(_dollars),
            "in 90 % interval": found["coverage"].map(percent),
        }
    )
    shown.index = pd.Index([slice_name(by, name) for by, name in found.index], name="districts of")
    return shown.style


def worst_table(found: pd.DataFrame) -> Any:
    """The worst districts for a reader, prices in dollars."""
    money = {"MedHouseVal": "true price ($)", "predicted": "predicted ($)", "error": "error ($)"}
    kept = ["MedInc", "AveRooms", "Population", "AveOccup", "Latitude", "Longitude"]
    shown = found.rename(columns=money)[[*money.values(), *kept]].reset_index(drop=True)
    shown.index += 1
    formats: Any = dict.fromkeys(money.values(), _dollars) | {"Population": "{:,.0f}"}
    formats |= {name: _to_hundredths for name in kept if name != "Population"}
    return shown.style.format(formats)


def worst_words(found: pd.DataFrame) -> str:
    """Why the worst districts are so hard, in Markdown: the limit, and too few households."""
    few = int((households(found) < FEW_HOUSEHOLDS).sum())
    small = f"on fewer than {FEW_HOUSEHOLDS} households, whose averages say little."
    at_limit = int(capped(found[TARGET]).sum())
    if not at_limit:
        return f"{few} of these {len(found)} rest {small}"
    return (
        f"{at_limit} of these {len(found)} stand at the census's limit, where a "
        f"price of two million dollars was recorded as half a million; {few} rest {small}"
    )


def random_and_blocks(found: Judgement, searched: Mapping[str, Floats], prices: Floats) -> Any:
    """One row a model: RMSE in dollars among known districts, and with blocks held out.

    `searched` are the families' predictions of the test districts, by name.
    """
    among = {CHAMPION_NAME: found.predicted, **found.baselines, **searched}
    shown = pd.DataFrame(
        {
            "among known districts ($)": {
                title(name): metrics(prices, among[name])["rmse"] for name in found.in_blocks
            },
            "blocks held out ($)": {title(name): rmse for name, rmse in found.in_blocks.items()},
        }
    )
    ordered = shown.sort_values("blocks held out ($)")
    return (ordered * USD_PER_UNIT).style.format("{:,.0f}")


def answer_table(answers: pd.DataFrame) -> Any:
    """Answers for a reader: prices, intervals and expected errors in dollars."""
    shown = pd.DataFrame(
        {
            "price ($)": answers["price"].map(_dollars),
            "90 % interval ($)": [
                _ends(low, high) for low, high in zip(answers["low"], answers["high"], strict=True)
            ],
            "expected error ($)": answers["expected_error"].map(_dollars),
            "region": answers["region"],
            "flags": answers["flags"],
        }
    )
    shown.index = pd.RangeIndex(1, len(shown) + 1)
    return shown.style


def champion_record(
    choice: Choice, board: pd.DataFrame, scores: Mapping[str, float], version: int, run_id: str
) -> dict[str, Any]:
    """What a run keeps of its champion."""
    others = board[board.index != choice.name]
    own = board["val_rmse"].iloc[0]
    if choice.name == BLEND:
        own -= choice.gain["difference"]
    runner_up = None
    if len(others):
        gain = apart(others["val_rmse"].iloc[0], own) * USD_PER_UNIT
        runner_up = {"title": title(str(others.index[0])), "val_rmse_gain_usd": gain}
    return {
        "family": choice.name,
        "title": title(choice.name),
        "version": version,
        "run_id": run_id,
        "metrics": {**scores, "val_rmse": own},
        "runner_up": runner_up,
    }


def leaderboard_records(board: pd.DataFrame, *, linear: Sequence[str]) -> list[dict[str, Any]]:
    """The leaderboard as plain records, best first, with the `linear` families marked."""
    named = board.assign(title=board.index.map(title), linear=board.index.isin(list(linear)))
    records: Any = named.reset_index().to_dict("records")
    return list(records)


def usd(value: float) -> str:
    """A price difference in 100,000 USD, written in dollars."""
    return f"{_dollars(value)} dollars"


def describe_fit(scores: Mapping[str, float]) -> Any:
    """One row a metric of a fit: on the training districts, on the validation districts."""
    parts = {"train": "training", "val": "validation"}
    rows = {
        NAMES[metric]: {
            words: figure(metric, scores[f"{part}_{metric}"]) for part, words in parts.items()
        }
        for metric in METRICS
    }
    return pd.DataFrame(rows).T.style


def figure(metric: str, value: float) -> str:
    """A metric as tables have it: errors in dollars, coverage in per cent.

    >>> figure("rmse", 0.42), figure("r2", 0.81234)
    ('42,000', '0.812')
    """
    if not np.isfinite(value):
        return "unknown"
    if metric in MONEY:
        return _dollars(value)
    return percent(value) if metric == "coverage" else f"{value:.3f}"


def _dollars(value: float) -> str:
    return f"{value * USD_PER_UNIT:z,.0f}".replace("-", "−")


def _to_hundredths(value: float) -> str:
    return f"{value:z.2f}".replace("-", "−")


def _ends(low: float, high: float) -> str:
    """Both ends in one line, which a narrow column does not break."""
    if np.isnan(low):
        return ""
    return f"{_dollars(low)} to {_dollars(high)}".replace(" ", "\N{NO-BREAK SPACE}")
