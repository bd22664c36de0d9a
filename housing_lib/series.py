"""The batches that one version answered, judged against what it does on its test districts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from housing_lib import compute
from housing_lib.compiling import own_answers
from housing_lib.data import FEATURES, Floats, row_ids
from housing_lib.decision import Chance, Decision, decide
from housing_lib.errors import HousingError
from housing_lib.parts import load_manifest, load_part
from housing_lib.traffic import Traffic, from_table
from housing_lib.watch import FEWEST_REFERENCE, Watch

ROWS_A_TASK = 50_000


class Registered(Protocol):
    """A version of a model, as the registry hands it out."""

    @property
    def model(self) -> Any:
        """What predicts."""

    @property
    def version(self) -> int:
        """Its number."""

    @property
    def data_digest(self) -> str:
        """The digest of the data that it learned from; empty if nobody noted it."""


@dataclass(frozen=True)
class Series:
    """The batches of one version: judged against what that version does on its test districts.

    `watch` is missing where there are too few test districts to compare with.
    """

    version: int
    reference: pd.DataFrame
    rows: pd.DataFrame
    batch: npt.NDArray[np.intp]
    watch: Watch | None
    decision: Decision | None

    @property
    def alarmed(self) -> tuple[int, ...]:
        """The numbers of the batches that raised the alarm."""
        if self.decision is None:
            return ()
        numbers = np.unique(self.batch)
        first, end = (self.decision.units[name].to_numpy() for name in ("first", "end"))
        found: set[int] = set()
        for begin, stop in self.decision.alarmed:
            found |= set(numbers[first[begin] : end[stop - 1]].tolist())
        return tuple(sorted(found))


def answered(traffic: Traffic, registered: Registered) -> Traffic:
    """The traffic, with answers by a model for valid rows that nobody has answered yet.

    Raises
    ------
    ProcessDiedError
        If the processes that answer died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    rows = traffic.rows
    asked = (rows["predicted"].isna() & (rows["fault"] == "")).to_numpy()
    if not asked.any():
        return traffic
    districts = rows.loc[asked, list(FEATURES)]
    rows = rows.assign(model_version=rows["model_version"].replace(0, registered.version))
    rows.loc[asked, ["predicted", "low", "high"]] = _answers(registered.model, districts)
    return Traffic(rows, traffic.source, traffic.oddities)


def _answers(model: Any, districts: pd.DataFrame) -> Floats:
    """Prices and the ends of their intervals; of many districts side by side, on the cluster too.

    Pieces are cut alike wherever they are answered, so that the numbers are the same.
    """
    pieces = [
        (districts.iloc[start : start + ROWS_A_TASK],)
        for start in range(0, len(districts), ROWS_A_TASK)
    ]
    if len(pieces) == 1:
        return _answer(model, districts)
    found = dict(compute.each(_answer, pieces, shared=model))
    return np.concatenate([found[number] for number in range(len(pieces))])


def _answer(model: Any, districts: pd.DataFrame) -> Floats:
    return own_answers(model, districts.to_numpy())


def reference(registered: Registered | None) -> pd.DataFrame:
    """The test districts with a model's answers, which it did not learn from; or with none.

    Raises
    ------
    DataError
        If they cannot be read.
    ProcessDiedError
        If the processes that answer died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    unseen = from_table(load_part("test").districts, source="test")
    return (answered(unseen, registered) if registered else unseen).rows


def fitted_rows(districts: pd.DataFrame, registered: Registered) -> int:
    """The number of districts that are among a model's training and validation ones.

    On those it looks better than it is. None are known where other data were
    preprocessed since.

    Raises
    ------
    DataError
        If the training or validation districts cannot be read.
    """
    if load_manifest().data_digest != registered.data_digest:
        return 0
    seen = np.concatenate([load_part("train").ids, load_part("val").ids])
    return int(np.isin(row_ids(districts), seen).sum())


def by_version(
    rows: pd.DataFrame,
    batch: npt.NDArray[np.intp],
    registered: Registered,
    *,
    load_version: Callable[[int], Registered] | None,
) -> tuple[Series, ...]:
    """The series of each version that answered, in the order of their numbers.

    Raises
    ------
    DataError
        If the test districts cannot be read.
    ProcessDiedError
        If the processes that answer died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    found = []
    for version in sorted(rows["model_version"].unique().tolist()):
        own = (rows["model_version"] == version).to_numpy()
        known = _version(version, registered, load_version)
        mine = (rows, batch) if own.all() else (rows[own], batch[own])
        found.append(_series(version, reference(known), *mine))
    return tuple(found)


def silent(version: int, rows: pd.DataFrame) -> Series:
    """The series of a version that answered none of some rows: nothing can be said of it."""
    none = rows.iloc[:0]
    return Series(version, none, none, np.empty(0, dtype=np.intp), None, None)


def _version(
    version: int, registered: Registered, load_version: Callable[[int], Registered] | None
) -> Registered | None:
    if version in (0, registered.version):
        return registered
    try:
        return load_version(version) if load_version else None
    except HousingError:
        return None  # its answers are still judged by what was asked


def _series(
    version: int, known: pd.DataFrame, rows: pd.DataFrame, batch: npt.NDArray[np.intp]
) -> Series:
    if len(known) < FEWEST_REFERENCE:
        return Series(version, known, rows, batch, None, None)
    watch = Watch(known)
    starts = np.flatnonzero(np.diff(batch, prepend=-1))
    decision = decide(Chance(watch), watch, watch.sums(rows, starts))
    return Series(version, known, rows, batch, watch, decision)
