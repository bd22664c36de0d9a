"""A session of monitoring: traffic cut into batches, judged by version, into one verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from xgboost import XGBClassifier

from housing_lib import quality
from housing_lib.accuracy import metrics
from housing_lib.batches import batch_table, cut
from housing_lib.causes import coverage_told, coverages, ranked_causes, shift_table
from housing_lib.data import FEATURES, TARGET, row_ids
from housing_lib.decision import ENOUGH_ROWS, FALSE_ALARMS
from housing_lib.series import Registered, Series, answered, by_version, fitted_rows, silent
from housing_lib.traffic import Traffic
from housing_lib.verdict import ALARM, NOT_ENOUGH, QUIET, Verdict, known_too_well
from housing_lib.watch import FEWEST_REFERENCE

MOST_SHARED = 0.05  # of the rows may be test districts, else a classifier knows them
SEEN = 0.005  # a smaller effect is written as none
MOST_TOLD = 2_000  # rows a side; more tell no more


@dataclass(frozen=True)
class Session:
    """What one look at some traffic found.

    `batches` has one row a batch: the realised metrics with the ends of their
    intervals (`batch_...`), the estimated ones, counts of rows, and how strange
    it is. `rows` are all districts in the order of the batches, with answers where there are any.
    """

    traffic: Traffic
    rows: pd.DataFrame
    batch: npt.NDArray[np.intp]
    batches: pd.DataFrame
    sliding: pd.DataFrame
    series: tuple[Series, ...]
    judged: Series
    verdict: Verdict

    @property
    def scored(self) -> pd.DataFrame:
        """The judged version's rows with a true price that its answer can be held against."""
        return self.judged.rows[quality.scored(self.judged.rows)]

    @property
    def placed(self) -> pd.DataFrame:
        """Those whose place is known: what a map can show."""
        return self.scored.dropna(subset=["Latitude", "Longitude"])

    @property
    def errors(self) -> pd.Series:
        """Prediction minus price of those rows (100,000 USD)."""
        errors: pd.Series = self.scored["predicted"] - self.scored[TARGET]
        return errors

    @property
    def own(self) -> pd.Series:
        """Which batches the judged version answered."""
        answered_by_it: pd.Series = self.batches["model_version"] == self.judged.version
        return answered_by_it

    @property
    def moved(self) -> bool:
        """Whether anything is known to have moved by as much as can be seen when it is drawn."""
        enough = self.judged.decision is not None and self.judged.decision.enough
        return enough and bool((self.shifts["effect"].abs() >= SEEN).any())

    @property
    def batch_rows(self) -> int:
        """How many rows with a true price a judged batch has, usually; all, while none is known."""
        batches = self.batches[self.own] if self.own.any() else self.batches
        counts = batches["num_valid_rows_in_batch"]
        if not counts.any():
            counts = batches["num_rows_in_batch"]
        return max(1, int(counts[counts > 0].median()))

    @cached_property
    def by_chance(self) -> pd.DataFrame:
        """Where a batch of the usual size lies by chance: `low` and `high` of each metric."""
        return quality.by_chance(self.judged.reference, size=self.batch_rows)

    @cached_property
    def shifts(self) -> pd.DataFrame:
        """How far each watched quantity moved over the judged version's rows, strongest first."""
        if self.judged.watch is None:
            return pd.DataFrame(columns=["kind", "name", "effect", "z"])
        sums = self.judged.watch.sums(self.judged.rows, np.array([0]))
        return shift_table(self.judged.watch, sums)


def observe(
    traffic: Traffic,
    registered: Registered,
    *,
    batch_rows: int = 10,
    batch_hours: float = 0,
    load_version: Callable[[int], Registered] | None = None,
) -> Session:
    """What a look at some traffic finds: metrics of each batch, and one verdict.

    There is no verdict while the version that is asked about has answered nothing.

    Parameters
    ----------
    registered
        Who answers what nobody answered yet, and whose batches the verdict is about.
    load_version
        Brings the other versions that have answered, to judge each by itself.

    Raises
    ------
    DataError
        If the batches cannot be cut, or the test districts cannot be read.
    ProcessDiedError
        If the processes that answer died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    traffic = answered(traffic, registered)
    batch = cut(traffic.rows, batch_rows=batch_rows, batch_hours=batch_hours)
    rows = traffic.rows
    if (np.diff(batch) < 0).any():  # a copy of a million rows is made only where it must be
        order = np.argsort(batch, kind="stable")
        rows, batch = rows.iloc[order].reset_index(drop=True), batch[order]
    series = by_version(rows, batch, registered, load_version=load_version)
    batches, sliding = batch_table(traffic, rows, batch, series, batch_hours=batch_hours)
    waits = silent(registered.version, rows)
    judged = next((one for one in series if one.version == registered.version), waits)
    fitted = fitted_rows(judged.rows, registered)
    verdict = _verdict(traffic, judged, batches, fitted)
    return Session(traffic, rows, batch, batches, sliding, series, judged, verdict)


def _verdict(traffic: Traffic, judged: Series, batches: pd.DataFrame, fitted: int) -> Verdict:
    own = batches.loc[np.unique(judged.batch)]
    looked = own if len(own) else batches
    alarmed = judged.alarmed
    strange = np.isin(judged.batch, alarmed)
    causes = ranked_causes(judged.watch, judged.rows, strange) if judged.watch else ()
    enough = judged.decision is not None and judged.decision.enough
    state = ALARM if alarmed else QUIET if enough else NOT_ENOUGH
    evidence = _evidence(judged, own) | {"fitted_rows": float(fitted)}
    if judged.watch and alarmed:
        evidence |= coverages(judged.watch, judged.rows[strange])
    more = coverage_told(evidence), known_too_well(evidence, len(judged.rows))
    told = [*(cause.sentence for cause in causes[:3]), *more]
    sentence = {
        ALARM: "; ".join(filter(None, told)),
        QUIET: "nothing that is watched has moved further than chance moves it",
        NOT_ENOUGH: _not_enough(judged),
    }[state]
    return Verdict(
        state=state,
        sentence=sentence,
        model_version=judged.version,
        source=traffic.source,
        first=str(looked["first"].iloc[0]),
        last=str(looked["last"].iloc[-1]),
        batches=len(own),
        rows=len(judged.rows),
        alarmed=alarmed,
        causes=causes,
        evidence=evidence,
    )


def _not_enough(judged: Series) -> str:
    if judged.rows.empty:
        return f"version {judged.version} has not answered yet"
    if judged.watch is None:
        return (
            f"found {len(judged.reference)} test districts to compare with; "
            f"{FEWEST_REFERENCE} are needed"
        )
    found = "1 row" if len(judged.rows) == 1 else f"{len(judged.rows)} rows"
    return f"found {found}; {ENOUGH_ROWS} are needed"


def _evidence(judged: Series, batches: pd.DataFrame) -> dict[str, float]:
    """The figures behind a verdict; those that nothing is known of are left out."""
    found = {
        "threshold": FALSE_ALARMS,
        "valid_rows": float(batches["num_valid_rows_in_batch"].sum()),
    }
    if judged.decision is not None and judged.decision.enough:
        found["p_value"] = judged.decision.p_value
        found["unusual_batches"] = float((batches["p_value"] <= FALSE_ALARMS).sum())
    known = batches[batches["estimated_rmse"].notna()]
    if len(known):
        squares, weights = known["estimated_rmse"] ** 2, known["num_rows_in_batch"]
        found["estimated_rmse"] = float(np.sqrt(np.average(squares, weights=weights)))
    found["rmse"] = quality.rmse(judged.rows)
    found["reference_rmse"] = quality.rmse(judged.reference)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def told_apart(session: Session, *, seed: int = 0) -> float | None:
    """How well a classifier tells the judged version's rows from the test districts: its AUC.

    0.5 is not at all, 1 always (the classifier two-sample test of Lopez-Paz and
    Oquab, 2017), by five-fold cross-validation. None if there are too few rows, or
    if many of them are test districts themselves.
    """
    known, rows = session.judged.reference, session.judged.rows
    if min(len(known), len(rows)) < ENOUGH_ROWS:
        return None
    if np.isin(row_ids(rows), row_ids(known)).mean() > MOST_SHARED:
        return None
    sides = [side.sample(min(len(side), MOST_TOLD), random_state=seed) for side in (known, rows)]
    both = pd.concat(sides)[list(FEATURES)].to_numpy()
    new = np.repeat([0, 1], [len(side) for side in sides])
    booster = XGBClassifier(n_estimators=60, max_depth=3, learning_rate=0.1, n_jobs=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    told = cross_val_predict(booster, both, new, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(new, told))


def overall(session: Session) -> dict[str, float]:
    """The judged version's metrics over its valid rows (100,000 USD), and its counts of rows.

    Of fewer than two rows only the counts: they say nothing.
    """
    rows, valid = session.judged.rows, session.scored
    counts = {"rows": float(len(rows)), "valid_rows": float(len(valid))}
    counts["faulty_rows"] = float((rows["fault"] != "").sum())
    if len(valid) < 2:
        return counts
    wide = valid[valid["low"].notna()]
    inside = wide[TARGET].between(wide["low"], wide["high"])
    more = {"bias": float(session.errors.mean())}
    more |= {"coverage": float(inside.mean())} if len(wide) else {}
    return metrics(valid[TARGET].to_numpy(), valid["predicted"].to_numpy()) | more | counts
