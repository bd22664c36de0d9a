"""True prices, as they arrive after an answer: each is recorded once, and contradicts no other."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Column, Connection, select

from housing_lib.contract import FEATURES
from housing_lib.errors import HousingError
from housing_lib.prediction_tables import actuals, predictions
from serve.log_database import LogDatabase, in_queries

UNKNOWN, CONTRADICTS = "unknown prediction_id", "contradicts what is recorded"
PREDICTION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]+)?")


@dataclass(frozen=True)
class Truth:
    """What a district turned out to be worth: a row of `actuals` that has not been recorded yet."""

    prediction_id: str | None
    features: tuple[float | None, ...] | None
    price: float
    observed_at: datetime

    @cached_property
    def key(self) -> str:
        """What makes two true prices the same one."""
        if self.prediction_id is not None:
            return self.prediction_id
        return hashlib.sha256(np.array(self.features, dtype="float64").tobytes()).hexdigest()

    @property
    def row(self) -> dict[str, Any]:
        """Its row of `actuals`, received now."""
        features = self.features or (None,) * len(FEATURES)
        return {
            "key": self.key,
            "prediction_id": self.prediction_id,
            **dict(zip(FEATURES, features, strict=True)),
            "price": self.price,
            "observed_at": self.observed_at.astimezone(UTC),
            "received_at": datetime.now(UTC),
        }


class Conflict(NamedTuple):
    """A true price that cannot be recorded, by its row, and why."""

    row: int
    problem: str
    found: str
    expected: str


class ConflictError(HousingError):
    """True prices that contradict those already recorded, or are of unknown predictions."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__(f"{len(conflicts)} true prices cannot be recorded")
        self.conflicts = conflicts

    @property
    def may_pass(self) -> bool:
        """Whether all of them are of predictions that may not be in the database yet."""
        return all(
            one.problem == UNKNOWN and PREDICTION_ID.fullmatch(one.found) for one in self.conflicts
        )


def record_new(database: LogDatabase, truths: Sequence[Truth]) -> int:
    """The number of true prices that are new; all of them are in the database afterwards.

    Raises
    ------
    ConflictError
        If any contradicts what is recorded, or is of a prediction that is not there;
        nothing is recorded then.
    """
    with database.begin() as connection:
        new = _new_ones(connection, truths)
        if new:
            connection.execute(database.insert_new(actuals), [one.row for one in new])
            _new_ones(connection, truths)  # somebody may have been faster with others
        return len(new)


def _new_ones(connection: Connection, truths: Sequence[Truth]) -> list[Truth]:
    """Those that are not recorded, each once."""
    first: dict[str, Truth] = {}
    for one in truths:
        first.setdefault(one.key, one)
    known = _by_key(connection, actuals.c.key, actuals.c.price, list(first))
    named = [one.prediction_id for one in first.values() if one.prediction_id is not None]
    answered = _by_key(connection, predictions.c.prediction_id, predictions.c.price, named)
    prices = {key: one.price for key, one in first.items()} | known
    found = [_conflict(row, one, prices, answered) for row, one in enumerate(truths)]
    if conflicts := [one for one in found if one]:
        raise ConflictError(conflicts)
    return [one for key, one in first.items() if key not in known]


def _conflict(
    row: int, truth: Truth, prices: Mapping[str, float], answered: Mapping[str, float]
) -> Conflict | None:
    if truth.prediction_id is not None and truth.prediction_id not in answered:
        return Conflict(row, UNKNOWN, truth.prediction_id, "one of ours")
    recorded = prices[truth.key]
    if recorded != truth.price:
        return Conflict(row, CONTRADICTS, str(truth.price), str(recorded))
    return None


def _by_key(
    connection: Connection, key: Column[Any], value: Column[Any], keys: Sequence[str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for some in in_queries([one for one in keys if "\0" not in one]):  # PostgreSQL knows no NUL
        found |= connection.execute(select(key, value).where(key.in_(some))).all()
    return found
