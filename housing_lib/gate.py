"""The gate's judgement: rules over predictions on the locked rows, apart from any registry."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from housing_lib.contract import LEVEL
from housing_lib.data import USD_PER_UNIT, Floats
from housing_lib.gains import Gain, Mask, Rival, gains
from housing_lib.guarded import LEAST_ROWS, answer_slices, price_slices
from housing_lib.movement import Groups, Movement, measure, post_stratify, strata
from housing_lib.places import REGIONS
from housing_lib.settings import get_settings
from housing_lib.summary import dollars


@dataclass(frozen=True)
class Limits:
    """The gate's bars, by default those of the settings."""

    margin_usd: float = field(default_factory=lambda: get_settings().gate_margin_usd)
    rmse_usd: float = field(default_factory=lambda: get_settings().gate_rmse_usd)
    coverage: float = field(default_factory=lambda: get_settings().gate_coverage)
    interval_required: bool = field(default_factory=lambda: get_settings().gate_interval_required)
    latency_ms: float = field(default_factory=lambda: get_settings().gate_latency_ms)
    size_mb: float = field(default_factory=lambda: get_settings().gate_size_mb)
    memory_mb: float = field(default_factory=lambda: get_settings().gate_memory_mb)
    past_loss: float = field(default_factory=lambda: get_settings().gate_past_loss)


@dataclass(frozen=True)
class Interval:
    """The bounds that a model gave, meant to hold the price of a share `level` of districts."""

    low: Floats
    high: Floats
    level: float


@dataclass(frozen=True)
class Incumbent:
    """The version in Production and its predictions on the same rows."""

    version: int
    predicted: Floats


@dataclass(frozen=True)
class Evidence:
    """All that the gate looks at; prices and predictions in 100,000 USD on the test rows.

    `recent` marks those among them that were labelled lately; the others are locked.
    `squares` numbers the square of the map in which each row lies.
    """

    prices: Floats
    predicted: Floats
    squares: Groups
    slices: Mapping[str, Mask]
    baselines: Mapping[str, Floats]
    recorded_rmse: float | None
    latency_ms: float
    size_mb: float
    memory_mb: float
    incumbent: Incumbent | None = None
    interval: Interval | None = None
    recent: Mask | None = None

    @property
    def lately(self) -> Mask:
        """The recent rows, if there are enough of them to tell anything."""
        recent = np.zeros(len(self.prices), dtype=bool) if self.recent is None else self.recent
        enough: Mask = recent & bool(recent.sum() >= LEAST_ROWS)
        return enough


@dataclass(frozen=True)
class Rule:
    """One row of the gate's table: what was found, what was asked, and whether it passed."""

    name: str
    figure: str
    bar: str
    passed: bool

    @property
    def verdict(self) -> str:
        """The last word of the row."""
        return "passed" if self.passed else "held"

    @property
    def reason(self) -> str:
        """The row as part of a sentence."""
        if not self.bar:
            return f"{self.name} {self.figure}"
        return f"the {self.name} is {self.figure} (asked: {self.bar})"


def judge(evidence: Evidence, limits: Limits, *, seed: int) -> list[Rule]:
    """The gate's table: every rule is asked, so that a hold comes with all its reasons.

    A rule that cannot be asked is held, with what went wrong as its figure.
    """
    groups: dict[str, Callable[[], Iterable[Rule]]] = {
        "districts with a price": lambda: _finite(evidence),
        "recorded test RMSE": lambda: _as_evaluated(evidence),
        "test RMSE": lambda: _absolute(evidence, limits),
        "gains": lambda: _gains(evidence, limits, seed),
        "prediction interval": lambda: _coverage(evidence, limits),
        "costs": lambda: _costs(evidence, limits),
    }
    return [rule for name, group in groups.items() for rule in _ask(name, group)]


def _ask(name: str, group: Callable[[], Iterable[Rule]]) -> list[Rule]:
    try:
        return list(group())
    except Exception as error:
        return [failure(name, error)]


def failure(name: str, error: BaseException) -> Rule:
    """The row of a rule that could not be asked."""
    lines = str(error).splitlines()
    said = lines[0].rstrip(".") if lines else type(error).__name__
    return Rule(name, f"cannot be asked: {said}", "", False)


def _finite(evidence: Evidence) -> list[Rule]:
    priced, count = int(np.isfinite(evidence.predicted).sum()), len(evidence.prices)
    figure = f"{priced:,} of {count:,}"
    return [Rule("number of districts with a price", figure, "all", priced == count)]


def _as_evaluated(evidence: Evidence) -> list[Rule]:
    found, recorded = _rmse(evidence.prices, evidence.predicted), evidence.recorded_rmse
    if recorded is None:
        return [Rule("recorded test RMSE", "missing", "the same as now", False)]
    same = abs(found - recorded) * USD_PER_UNIT < 1
    figure = f"{dollars(recorded)}, now {dollars(found)}"
    return [Rule("recorded test RMSE", figure, "the same as now", same)]


def _absolute(evidence: Evidence, limits: Limits) -> list[Rule]:
    found = _rmse(evidence.prices, evidence.predicted)
    passed = found * USD_PER_UNIT <= limits.rmse_usd
    return [Rule("test RMSE", dollars(found), f"at most ${limits.rmse_usd:,.0f}", passed)]


def _gains(evidence: Evidence, limits: Limits, seed: int) -> list[Rule]:
    moved = _movement(evidence)
    rivals = _rivals(evidence, moved=moved is not None and moved.clear)
    found = gains(evidence.prices, evidence.predicted, rivals, seed=seed)
    told = [Rule("model in Production, lately", moved.figure, moved.meaning, True)] if moved else []
    return told + [
        _BARS[rival.role](name, rival, gain, evidence.prices, limits)
        for (name, rival), gain in zip(rivals.items(), found, strict=True)
    ]


def _ends(gain: Gain) -> str:
    return f"{dollars(gain.low)} to {dollars(gain.high)}"


def _beats(name: str, rival: Rival, gain: Gain, prices: Floats, limits: Limits) -> Rule:
    bar_usd = limits.margin_usd if rival.role == "incumbent" else 0.0
    passed = gain.low * USD_PER_UNIT > bar_usd
    return Rule(f"gain over {name}", _ends(gain), f"lower end above ${bar_usd:,.0f}", passed)


def _guarded(name: str, rival: Rival, gain: Gain, prices: Floats, limits: Limits) -> Rule:
    return Rule(f"gain in {name}", _ends(gain), "upper end at least $0", gain.high >= 0)


def _bounded(name: str, rival: Rival, gain: Gain, prices: Floats, limits: Limits) -> Rule:
    """A loss on locked rows whose prices are no longer true: allowed up to a share of the error."""
    rows = rival.rows
    bar = -limits.past_loss * _rmse(prices[rows], rival.predicted[rows])
    end, reached = ("lower", gain.low) if rival.role == "past" else ("upper", gain.high)
    asked = f"{end} end at least {dollars(bar)}: prices have moved"
    return Rule(f"gain in {name}", _ends(gain), asked, reached >= bar)


_BARS = {
    "baseline": _beats,
    "incumbent": _beats,
    "slice": _guarded,
    "past": _bounded,
    "past slice": _bounded,
}


def _rivals(evidence: Evidence, *, moved: bool) -> dict[str, Rival]:
    """Whom to be better than, and where."""
    locked, incumbent = ~evidence.lately, evidence.incumbent
    rivals = {
        name: Rival("baseline", predicted, locked) for name, predicted in evidence.baselines.items()
    }
    if incumbent is None:
        return rivals
    decided = _once_moved if moved else _while_unmoved
    return rivals | decided(evidence, incumbent)


def _while_unmoved(evidence: Evidence, incumbent: Incumbent) -> dict[str, Rival]:
    """Locked rows decide, and recent ones are one more guarded slice."""
    lately = evidence.lately
    slices = {name: ("slice", mask & ~lately) for name, mask in evidence.slices.items()}
    if lately.any():
        slices["recent districts"] = ("slice", lately)
    decides = Rival("incumbent", incumbent.predicted, ~lately)
    return {f"version {incumbent.version}": decides} | _guards(incumbent, slices)


def _once_moved(evidence: Evidence, incumbent: Incumbent) -> dict[str, Rival]:
    """Recent rows decide, and their slices are guarded; the loss on locked ones is bounded.

    Bands of prices are then bands of what the incumbent answers: see `answer_slices`.
    """
    lately, cut = evidence.lately, _cut_by_answers(evidence, incumbent)
    slices = {name: ("past slice", mask & ~lately) for name, mask in cut.items()}
    slices |= {
        f"{name}, recent": ("slice", mask & lately)
        for name, mask in cut.items()
        if (mask & lately).sum() >= LEAST_ROWS
    }
    decides = Rival("incumbent", incumbent.predicted, lately)
    return {
        "the locked districts": Rival("past", incumbent.predicted, ~lately),
        f"version {incumbent.version} in recent districts": decides,
    } | _guards(incumbent, slices)


def _guards(incumbent: Incumbent, slices: Mapping[str, tuple[str, Mask]]) -> dict[str, Rival]:
    # One of many slices falls out by chance, so that all their intervals together hold at 95 %.
    level = 1 - (1 - LEVEL) / max(len(slices), 1)
    return {
        name: Rival(role, incumbent.predicted, rows, level) for name, (role, rows) in slices.items()
    }


def _cut_by_answers(evidence: Evidence, incumbent: Incumbent) -> dict[str, Mask]:
    by_price = price_slices(evidence.prices)
    kept = {name: mask for name, mask in evidence.slices.items() if name not in by_price}
    return kept | answer_slices(incumbent.predicted)


def _movement(evidence: Evidence) -> Movement | None:
    """Whether prices have moved from under the incumbent; None without enough recent rows."""
    recent, incumbent = evidence.lately, evidence.incumbent
    if incumbent is None:
        return None
    regions = [mask for name, mask in evidence.slices.items() if name in REGIONS]
    compared, weights = post_stratify(strata(incumbent.predicted, regions), recent)
    if compared.sum() < LEAST_ROWS:
        return None
    errors, squares = incumbent.predicted - evidence.prices, evidence.squares
    both = np.concatenate([squares[compared], squares[~recent]])
    return measure(errors[compared], errors[~recent], weights, both)


def _coverage(evidence: Evidence, limits: Limits) -> list[Rule]:
    interval = evidence.interval
    if interval is None:
        bar = "one that covers" if limits.interval_required else "none demanded"
        return [Rule("prediction interval", "no interval", bar, not limits.interval_required)]
    prices = evidence.prices
    covered = float(((interval.low <= prices) & (prices <= interval.high)).mean())
    name = f"coverage of the {interval.level * 100:.0f} % interval"
    bar = f"at least {limits.coverage * 100:.1f} %"
    return [Rule(name, f"{covered * 100:.1f} %", bar, covered >= limits.coverage)]


def _costs(evidence: Evidence, limits: Limits) -> list[Rule]:
    asked = (
        ("time of one prediction", "ms", evidence.latency_ms, limits.latency_ms),
        ("size of the file", "MB", evidence.size_mb, limits.size_mb),
        ("memory taken", "MB", evidence.memory_mb, limits.memory_mb),
    )
    return [
        Rule(name, f"{found:,.1f} {unit}", f"at most {bar:,.0f} {unit}", found <= bar)
        for name, unit, found, bar in asked
    ]


def _rmse(prices: Floats, predicted: Floats) -> float:
    return float(np.sqrt(np.mean((predicted - prices) ** 2)))


def figures(evidence: Evidence) -> dict[str, float]:
    """What the gate found as numbers, in 100,000 USD: the test metrics, and the gain if any."""
    from housing_lib.accuracy import metrics

    found = metrics(evidence.prices, evidence.predicted, prefix="test_")
    if evidence.incumbent is None:
        return found
    before = _rmse(evidence.prices, evidence.incumbent.predicted)
    found |= {"incumbent_test_rmse": before, "gain": before - found["test_rmse"]}
    recent, moved = evidence.lately, _movement(evidence)
    if not recent.any():
        return found
    prices = evidence.prices[recent]
    now, then = (
        _rmse(prices, predicted[recent])
        for predicted in (evidence.predicted, evidence.incumbent.predicted)
    )
    return found | {
        "recent_rows": float(recent.sum()),
        "recent_rmse": now,
        "recent_gain": then - now,
        **({"moved": float(moved.clear)} if moved else {}),
    }


def styled(rules: Iterable[Rule]) -> Any:
    """The gate's table for a page."""
    rows = [(rule.name, rule.figure, rule.bar, rule.verdict) for rule in rules]
    shown = pd.DataFrame(rows, columns=["rule", "found", "asked", "verdict"]).set_index("rule")
    style = shown.rename_axis(None).style.map(_bold, subset=["verdict"])
    return style.set_table_styles([{"selector": "th, td", "props": "text-align: left"}])


def _bold(verdict: Any) -> str:
    return "font-weight: bold" if verdict == "held" else ""
