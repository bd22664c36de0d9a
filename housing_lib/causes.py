"""Why an alarm was raised: what moved most, by how much, and where, in words."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from housing_lib.contract import CONTRACT, COVERAGE, TARGET, USD_PER_UNIT
from housing_lib.geography import regions
from housing_lib.quality import has_width
from housing_lib.summary import percent
from housing_lib.verdict import Cause
from housing_lib.watch import FEWEST_KNOWN, WATCHED, Quantity, Shift, Sums, Watch

MOST_CAUSES = 6
MOST_ROWS = 100_000  # tell what moved as well as all do
CLEAR = 3.5  # standard errors: what moved less is not named beside something that did
BRIEFLY = {"expected error": "the expected error", "prediction": "the predicted price"}


def shift_table(watch: Watch, sums: Sums) -> pd.DataFrame:
    """One row a watched quantity, strongest first: `kind`, `name`, `effect`, `z`.

    Parameters
    ----------
    sums
        Of the one group of rows that is compared with the reference.
    """
    found: Shift = watch.shift(sums)
    table = pd.DataFrame([vars(one) for one in WATCHED])
    table = table.assign(effect=found.effect[0], z=found.z[0])
    return table.sort_values("z", key=np.abs, ascending=False).reset_index(drop=True)


def ranked_causes(
    watch: Watch, rows: pd.DataFrame, strange: npt.NDArray[np.bool_]
) -> tuple[Cause, ...]:
    """What moved in the `strange` ones of some rows, strongest first; nothing if there are none.

    How the columns go together comes last. The strongest is among them whatever its size.
    """
    if not strange.any():
        return ()
    found = np.flatnonzero(strange)
    rng = np.random.default_rng(0)
    rows = rows.iloc[rng.choice(found, min(len(found), MOST_ROWS), replace=False)]
    table = shift_table(watch, watch.sums(rows, np.array([0])))
    named = table[table["z"].abs() >= CLEAR]
    named = (named if len(named) else table.head(1)).drop_duplicates("name").head(MOST_CAUSES)
    named = named.sort_values("kind", key=lambda kind: kind == "joint", kind="stable")
    where = _Places(watch, rows)
    return tuple(
        _cause(Quantity(kind, name), float(effect), rows, watch, where)
        for kind, name, effect in zip(named["kind"], named["name"], named["effect"], strict=True)
    )


def coverages(watch: Watch, rows: pd.DataFrame) -> dict[str, float]:
    """How many true prices intervals hold and held in the test; nothing where that is chance.

    It is no cause, for it is not watched: what moved it is told by the errors.
    """
    (now, count), (then, known) = _held(rows), _held(watch.reference)
    if min(count, known) < FEWEST_KNOWN:
        return {}
    if abs(now - then) <= CLEAR * np.sqrt(then * (1 - then) * (1 / count + 1 / known)):
        return {}
    return {"alarmed_coverage": now, "reference_coverage": then}


def coverage_told(evidence: Mapping[str, float]) -> str:
    """What `coverages` found, as a sentence; empty if it found nothing."""
    if "alarmed_coverage" not in evidence:
        return ""
    now, then = evidence["alarmed_coverage"], evidence["reference_coverage"]
    told = f"the {percent(COVERAGE)} intervals hold {percent(now)} of the true prices"
    return f"{told}, and held {percent(then)} in the test"


def _held(rows: pd.DataFrame) -> tuple[float, int]:
    """The share of true prices inside their intervals, and of how many."""
    valid = rows[has_width(rows)]
    return float(valid[TARGET].between(valid["low"], valid["high"]).mean()), len(valid)


class _Places:
    """In which region a value moved most."""

    def __init__(self, watch: Watch, rows: pd.DataFrame) -> None:
        self._rows, self._reference = watch.ranks(rows), watch.ranks(watch.reference)
        self._region, self._usual = regions(rows), regions(watch.reference)

    def most(self, name: str, sign: float) -> str:
        """The region, as the end of a sentence; empty where fewer than two can be compared."""
        now = self._rows[name].groupby(self._region).agg(["mean", "count"])
        then = self._reference[name].groupby(self._usual).mean()
        moved = (now["mean"] - then).where(now["count"] >= FEWEST_KNOWN).dropna() * np.sign(sign)
        return f", most in {moved.idxmax()}" if len(moved) > 1 else ""


def _cause(
    quantity: Quantity, effect: float, rows: pd.DataFrame, watch: Watch, where: _Places
) -> Cause:
    write: Callable[..., str] = _WRITERS[quantity.kind]
    sentence = write(quantity.name, effect, rows, watch, where)
    what = "missing values" if quantity.kind == "missing" else quantity.name
    return Cause({"error": "errors", "size of errors": "errors"}.get(what, what), effect, sentence)


def _level(name: str, effect: float, rows: pd.DataFrame, watch: Watch, where: _Places) -> str:
    if name in ("error", "size of errors"):
        return _errors(name, rows, watch) + where.most(name, effect)
    moved = "higher" if effect > 0 else "lower"
    shown = BRIEFLY.get(name, name)
    ranked = f"{shown} ranks {abs(effect):.2f} standard deviations {moved}"
    return f"{ranked}{where.most(name, effect)}"


def _errors(name: str, rows: pd.DataFrame, watch: Watch) -> str:
    now, then = (
        (table["predicted"] - table["MedHouseVal"])[table["fault"] == ""]
        for table in (rows, watch.reference)
    )
    if name == "size of errors":
        return _sizes(now.abs().mean() * USD_PER_UNIT, then.abs().mean() * USD_PER_UNIT)
    moved = (now.mean() - then.mean()) * USD_PER_UNIT
    asked = "more" if moved > 0 else "less"
    return f"against true prices the model asks {abs(moved):,.0f} dollars {asked} than it did"


def _sizes(now: float, then: float) -> str:
    """An error that became smaller is no trouble, and yet these are not the districts of before."""
    if now < then:
        better = f"errors are smaller: {now:,.0f} dollars on average where they were {then:,.0f}"
        return f"{better}, a change to the better, yet a change"
    return f"errors are {now:,.0f} dollars on average and were {then:,.0f}"


def _spread(name: str, effect: float, rows: pd.DataFrame, *_: object) -> str:
    shown = BRIEFLY.get(name, name)
    return f"{shown} {'varies more' if effect > 0 else 'varies less'} than it did"


def _missing(name: str, effect: float, rows: pd.DataFrame, watch: Watch, *_: object) -> str:
    column = CONTRACT[name]
    now, then = (
        1 - table[name].between(column.low, column.high).mean() for table in (rows, watch.reference)
    )
    told = f"{name} is missing or impossible in {percent(now, 1)} of the rows"
    return f"{told}, where it was in {percent(then, 1)}"


def _place(name: str, effect: float, rows: pd.DataFrame, watch: Watch, *_: object) -> str:
    now, then = ((regions(table) == name).mean() for table in (rows, watch.reference))
    return f"{percent(now, 1)} of the districts lie in {name}, where {percent(then, 1)} did"


def _joint(name: str, effect: float, *_: object) -> str:
    apart = f"their ranks are {effect:.2f} standard deviations apart"
    return f"the columns go together in another way ({apart})"


_WRITERS: dict[str, Callable[..., str]] = {
    "level": _level,
    "spread": _spread,
    "missing": _missing,
    "place": _place,
    "joint": _joint,
}
