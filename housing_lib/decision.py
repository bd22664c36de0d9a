"""One decision over everything watched, at every length of time, with a false-alarm rate kept.

The largest shift of a window, over all quantities, is compared with what it is
by chance: windows of as many rows drawn from the reference itself, against a
reference drawn anew (the two-sample bootstrap of a maximum). Windows of 1, 2, 4,
... batches share one budget of false alarms, so slow change is caught when
enough rows say so, and no blip is believed twice.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from housing_lib.data import Floats
from housing_lib.gains import pieces
from housing_lib.watch import Sums, Watch

ENOUGH_ROWS = 100
FALSE_ALARMS = 0.03  # a decision, so less than one in a month of daily ones
AT_ONCE = 2 / 3  # of the budget goes to the shortest windows, the rest to longer ones
DRAWS = 2_000
TAIL = 0.1  # of the draws, from where on the tail's form is used
SIZES = (100, 200, 400)  # rows; from there on the distribution changes no more


class Chance:
    """What the largest shift of a window comes to by chance, by the window's rows."""

    def __init__(self, watch: Watch, *, seed: int = 0) -> None:
        self._watch, self._seed = watch, seed
        self._drawn: dict[int, Floats] = {}

    def p_values(self, largest: Floats, rows: Floats) -> Floats:
        """How often chance alone moves that many rows as far, for each window.

        Beyond the largest tenth of the draws the squares are taken to fall off
        exponentially, as those of normal deviates do.
        """
        sizes = _sizes(rows)
        found = np.ones(len(largest))
        for size in np.unique(sizes):
            own = sizes == size
            found[own] = _exceeded(self._largest(int(size)), largest[own])
        return found

    def level(self, p_value: float, rows: float) -> float:
        """The shift that chance alone exceeds that often, for one window of some rows."""
        drawn = self._largest(int(_sizes(np.array([rows]))[0]))
        if p_value >= TAIL:
            return float(np.quantile(drawn, 1 - p_value))
        bound, excess = _tail(drawn)
        return float(np.sqrt(bound**2 + excess * np.log(TAIL / p_value)))

    def _largest(self, rows: int) -> Floats:
        if rows not in self._drawn:
            rng = np.random.default_rng([self._seed, rows])
            drawn = Sums(*_drawn(rng, rows, self._watch.scores), np.full(DRAWS, float(rows)))
            anew, known = _drawn(rng, len(self._watch.reference), self._watch.scores)
            means = anew / np.maximum(known, 1)
            self._drawn[rows] = np.sort(self._watch.shift(drawn, of=means).largest)
        return self._drawn[rows]


def _drawn(
    rng: np.random.Generator, rows: int, scores: npt.NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """The sums of scores over `rows` drawn from them, and how many were known, a row a draw."""
    is_known = np.isfinite(scores)
    filled = np.where(is_known, scores, np.float32(0))
    every = None if is_known.all() else is_known.astype(np.float32)
    sums, known = [], []
    for draws in pieces(DRAWS, max(rows, len(scores))):
        counts = _counts(rng, draws, rows, len(scores))
        sums.append((counts @ filled).astype(float))
        known.append(_known(counts, every, filled))
    return np.concatenate(sums), np.concatenate(known)


def _counts(rng: np.random.Generator, draws: int, rows: int, total: int) -> npt.NDArray[np.float32]:
    """How often each of `total` rows is drawn into each of the draws of `rows`."""
    drawn = rng.integers(total, size=(draws, rows), dtype=np.int32)
    counts = [np.bincount(one, minlength=total) for one in drawn]
    return np.asarray(counts, dtype=np.float32)


def _known(
    drawn: npt.NDArray[np.float32], every: npt.NDArray[np.float32] | None, filled: Floats
) -> Floats:
    if every is None:
        return np.repeat(drawn.sum(axis=1, dtype=float)[:, None], filled.shape[1], axis=1)
    known: Floats = (drawn @ every).astype(float)
    return known


def _exceeded(drawn: Floats, largest: Floats) -> Floats:
    often = (1 + len(drawn) - np.searchsorted(drawn, largest, side="left")) / (1 + len(drawn))
    bound, excess = _tail(drawn)
    rare = TAIL * np.exp(-np.clip(largest**2 - bound**2, 0, None) / excess)
    return np.where(largest > bound, rare, often)


def _tail(drawn: Floats) -> tuple[float, float]:
    """From where on the draws are the tail, and the mean excess of their squares there."""
    bound = float(np.quantile(drawn, 1 - TAIL))
    return bound, float(np.mean(drawn[drawn > bound] ** 2 - bound**2))


def _sizes(rows: Floats) -> npt.NDArray[np.int_]:
    """The largest of `SIZES` that each window reaches."""
    return np.array(SIZES)[np.clip(np.searchsorted(SIZES, rows, "right") - 1, 0, None)]


@dataclass(frozen=True)
class Decision:
    """What the windows of one series of batches say.

    `units` are the shortest windows that are judged: batches, or as many
    adjacent ones as make 100 rows. `windows` has a row for each window: `start`
    and `end` among the units, `rows`, `largest` shift, `p_value` by itself and
    `adjusted` for how many there are.
    """

    units: pd.DataFrame
    windows: pd.DataFrame
    usual: float = float("nan")
    alarming: float = float("nan")

    @property
    def enough(self) -> bool:
        """Whether there were rows enough to decide."""
        return not self.units.empty

    @cached_property
    def alarmed(self) -> list[tuple[int, int]]:
        """The windows that raise the alarm, as `start` and `end` among the units.

        A longer window that holds one that alarms by itself is not among them.
        """
        found: list[tuple[int, int]] = []
        raised = self.windows[self.windows["adjusted"] <= FALSE_ALARMS]
        for start, end in raised[["start", "end"]].itertuples(index=False):
            if not any(start <= first and last <= end for first, last in found):
                found.append((int(start), int(end)))
        return found

    @property
    def p_value(self) -> float:
        """How often chance alone would bring anything as strange, in as many windows."""
        return float(min(self.windows["adjusted"].min(), 1)) if self.enough else float("nan")


def decide(chance: Chance, watch: Watch, sums: Sums) -> Decision:
    """The decision over a series of batches, given by the sums of each."""
    units = _units(sums.rows)
    if units.empty:
        return Decision(units, pd.DataFrame(columns=["start", "end", "adjusted"], dtype=float))
    windows = _windows(len(units))
    first, last = (units[name].to_numpy() for name in ("first", "end"))
    pooled = sums.window(first[windows["start"]], last[windows["end"] - 1])
    windows["rows"], windows["largest"] = pooled.rows, watch.shift(pooled).largest
    windows["p_value"] = chance.p_values(windows["largest"].to_numpy(), pooled.rows)
    windows["adjusted"] = windows["p_value"] * windows["tries"]
    judged = units.join(windows[["largest", "p_value"]])
    each = float(np.median(pooled.rows[: len(units)]))
    usual = chance.level(FALSE_ALARMS, each)
    alarming = chance.level(FALSE_ALARMS / windows["tries"].iloc[0], each)
    return Decision(judged, windows, usual, alarming)


def _units(rows: Floats) -> pd.DataFrame:
    """Adjacent batches with 100 rows or more: the `first`, and the `end` behind the last.

    Batches at the end that are too few for a window of their own join the last one.
    """
    firsts, held, first = [], 0.0, 0
    for batch, own in enumerate(rows):
        held += own
        if held >= ENOUGH_ROWS:
            firsts.append(first)
            first, held = batch + 1, 0.0
    ends = [*firsts[1:], len(rows)] if firsts else []
    return pd.DataFrame({"first": firsts, "end": ends}, dtype=int)


def _windows(units: int) -> pd.DataFrame:
    """Windows of 1, 2, 4, ... units, longer ones half over each other, with their `tries`.

    `tries` is how many times the budget is divided for such a window.
    """
    lengths = [2**power for power in range(units.bit_length()) if 2**power <= units]
    share = {1: AT_ONCE if len(lengths) > 1 else 1.0}
    share |= {length: (1 - AT_ONCE) / (len(lengths) - 1) for length in lengths[1:]}
    tables = []
    for length in lengths:
        starts = sorted({*range(0, units - length + 1, max(1, length // 2)), units - length})
        table = pd.DataFrame({"start": starts})
        tables.append(table.assign(end=table["start"] + length, tries=len(starts) / share[length]))
    return pd.concat(tables, ignore_index=True)


def by_batch(units: pd.DataFrame, column: str, *, batches: int) -> Floats:
    """A column of the units for each batch, at the last batch of the unit."""
    found = np.full(batches, np.nan)
    found[units["end"].to_numpy() - 1] = units[column]
    return found
