"""What the records of runs say to someone who decides: the verdict, and what changed."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from housing_lib.data import USD_PER_UNIT
from housing_lib.privacy import without_folders

# Lower is better for errors, higher for the share of the prices' variance that is explained.
ERRORS = {
    "test_mae": "average error (MAE)",
    "test_rmse": "RMSE",
    "block_rmse": "RMSE in regions left out of the training",
}
EXPLAINED = "test_r2"
# What the parameters of a run are called where somebody reads them, if not by their own names.
SPOKEN = {
    "models": "families",
    "trials": "trials of each family",
    "growth": "size of models",
    "every_family": "tried in regions left out",
    "jobs": "notebooks at once",
}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class KeyFigure:
    """One number that a page shows large: a price difference in 100,000 USD and what it means."""

    value: float
    meaning: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Change:
    """One thing that differs from the run before; `better` is None where no side is better."""

    name: str
    before: str
    after: str
    amount: str = ""
    arrow: str = ""
    better: bool | None = None


def dollars(value: float) -> str:
    """A price in 100,000 USD, written in dollars.

    >>> dollars(-0.0031)
    '−$310'
    """
    if not math.isfinite(value):
        return "no number"
    rounded = round(float(value) * USD_PER_UNIT)
    return f"{'−' if rounded < 0 else ''}${abs(rounded):,}"


def percent(share: float, decimals: int = 0) -> str:
    """A share, from 0 to 1, as a page writes it: in one piece."""
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def apart(price: float, other: float) -> float:
    """How far a price is above another as both are written: whole dollars, in 100,000 USD."""
    if not math.isfinite(price - other):
        return math.nan
    return (round(price * USD_PER_UNIT) - round(other * USD_PER_UNIT)) / USD_PER_UNIT


def record_of(run: Record, name: str) -> Record:
    """What a step of a run recorded; empty if it did not run or failed."""
    found = [step.get("record") for step in run["steps"] if step["name"] == name]
    return found[0] or {} if found else {}


def leaderboard(run: Record) -> list[dict[str, Any]]:
    """One row a family, best first; empty if the run compared none."""
    champion = run.get("champion") or {}
    return list(run.get("leaderboard") or champion.get("leaderboard") or [])


def key_figures(run: Record) -> list[KeyFigure]:
    """The numbers that decide: the champion's errors, and how far the others are behind."""
    champion = run.get("champion")
    if not champion:
        return []
    metrics = champion["metrics"]
    found = [
        _error(metrics, "test_mae", "average error (MAE) on unseen districts"),
        _error(metrics, "test_rmse", "RMSE on unseen districts, which counts large misses more"),
        _error(metrics, "block_rmse", "RMSE in regions left out of the training"),
        _ahead_of_runner_up(champion, leaderboard(run)),
        _ahead_of_linear(champion, leaderboard(run)),
        _ahead_of_incumbent(champion, "gain_usd", "RMSE on all test districts"),
        _ahead_of_incumbent(champion, "recent_gain_usd", _recently(champion)),
    ]
    return [figure for figure in found if figure]


def _error(metrics: Record, name: str, meaning: str) -> KeyFigure | None:
    if metrics.get(name) is None:
        return None
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return KeyFigure(metrics[name], meaning, low, high)


def _ahead_of_runner_up(champion: Record, board: list[dict[str, Any]]) -> KeyFigure | None:
    runner_up = champion.get("runner_up")
    if not runner_up:
        return None
    gain = runner_up["val_rmse_gain_usd"] / USD_PER_UNIT
    linear = _best_linear(board)
    both = " and best linear model" if linear and linear["title"] == runner_up["title"] else ""
    return _lead(gain, f"the runner-up{both}, {runner_up['title']} (validation RMSE)")


def _ahead_of_linear(champion: Record, board: list[dict[str, Any]]) -> KeyFigure | None:
    """How far the best linear model is behind, unless it is the champion or its runner-up."""
    best, runner_up = _best_linear(board), champion.get("runner_up") or {}
    linear = {row["family"] for row in board if row["linear"]}
    if best is None or champion["family"] in linear or best["title"] == runner_up.get("title"):
        return None
    gain = apart(best["val_rmse"], champion["metrics"]["val_rmse"])
    return _lead(gain, f"the best linear model, {best['title']} (validation RMSE)")


def _best_linear(board: list[dict[str, Any]]) -> dict[str, Any] | None:
    linear = [row for row in board if row["linear"]]
    return min(linear, key=lambda row: float(row["val_rmse"])) if linear else None


def _ahead_of_incumbent(champion: Record, name: str, where: str) -> KeyFigure | None:
    gain = champion.get(name)
    if gain is None:
        return None
    return _lead(gain / USD_PER_UNIT, f"the model in Production before ({where})")


def _recently(champion: Record) -> str:
    decided = ", which decided" if champion.get("prices_moved") else ""
    return f"RMSE on recent districts{decided}"


def _lead(gain: float, other: str) -> KeyFigure:
    return KeyFigure(abs(gain), f"{'behind' if gain < 0 else 'ahead of'} {other}")


def changes(run: Record, before: Record) -> list[Change]:
    """What differs between the champions of two runs, their data, code and parameters."""
    if not run.get("champion"):
        return []
    now, then = run["champion"]["metrics"], before["champion"]["metrics"]
    shared = [name for name in ERRORS if None not in (now.get(name), then.get(name))]
    errors = [_error_change(ERRORS[name], then[name], now[name]) for name in shared]
    return [*errors, _explained_change(then[EXPLAINED], now[EXPLAINED]), *_exchanged(run, before)]


def _error_change(name: str, then: float, now: float) -> Change:
    gain = apart(then, now)
    if not gain:
        return Change(name, dollars(then), dollars(now), "the same")
    amount = f"{dollars(abs(gain))} {'lower' if now < then else 'higher'}"
    return Change(name, dollars(then), dollars(now), amount, _arrow(now - then), now < then)


def _explained_change(then: float, now: float) -> Change:
    name, before, after = "variance of prices explained", percent(then, 1), percent(now, 1)
    points = f"{abs(round(100 * now, 1) - round(100 * then, 1)):.1f}"
    if points == "0.0":
        return Change(name, before, after, "the same")
    amount = f"{points} points {'more' if now > then else 'less'}"
    return Change(name, before, after, amount, _arrow(now - then), now > then)


def _arrow(difference: float) -> str:
    return "▲" if difference > 0 else "▼"


def _exchanged(run: Record, before: Record) -> Iterator[Change]:
    """The champion, data, code, packages and parameters that are not those of the run before."""
    then, now = _origins(before), _origins(run)
    for name in {**then, **now}:
        pair = then.get(name, "–"), now.get(name, "–")
        if pair[0] != pair[1]:
            yield Change(name, *pair)


def _origins(run: Record) -> dict[str, str]:
    champion = run["champion"]
    named = {
        "champion": champion.get("title"),
        "version": champion.get("version"),
        "data": run.get("data_digest"),
        "code": run.get("commit"),
    }
    packages = {
        name: number
        for name, _, number in (
            entry.partition("==") for entry in str(run.get("versions") or "").split()
        )
    }
    # How many notebooks ran at once, and why, changes no number.
    ignored = ("jobs", "reason")
    given = {k: v for k, v in (run.get("parameters") or {}).items() if k not in ignored}
    told = {**named, **spoken(given), **packages}
    return {name: in_words(value) for name, value in told.items() if value is not None}


def spoken(parameters: Record) -> dict[str, str]:
    r"""The parameters of a run, with names and values that a person reads.

    >>> spoken({"growth": 0.5, "every_family": False})
    {'size of models': '50\xa0%', 'tried in regions left out': 'the champion alone'}
    """
    return {
        SPOKEN.get(name, name.replace("_", " ")): _spoken_value(name, value)
        for name, value in parameters.items()
        if value is not None
    }


def _spoken_value(name: str, value: Any) -> str:
    if name == "growth" and isinstance(value, int | float):
        return percent(value)
    if name == "every_family":
        return "all families" if value else "the champion alone"
    words = in_words(value)
    return words.replace("_", " ") if name == "models" else words


def in_words(value: Any) -> str:
    """A value of a record as a person reads it."""
    if isinstance(value, Mapping):
        told = {key: in_words(inner) for key, inner in value.items()}
        return ", ".join(f"{key} {inner}" for key, inner in told.items() if inner)
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value))
    return without_folders(str(value))
