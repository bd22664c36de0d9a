"""What monitoring decides: one verdict over everything that is watched, with its causes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALARM, QUIET, NOT_ENOUGH = "alarm", "quiet", "not enough data"


@dataclass(frozen=True)
class Cause:
    """One thing that changed, as a reader says it."""

    what: str  # a feature, "prediction", "errors", "missing values", a region, "all columns"
    size: float  # how far it moved: standard deviations of ranks, or a share of the rows
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """One calibrated decision over all batches of the judged version.

    `first` and `last` are ISO times, or as 'row 0' where rows have no times;
    `alarmed` are the batches that raised the alarm; `causes` are ranked,
    strongest first; `evidence` holds the figures behind the decision.
    """

    state: str
    sentence: str
    model_version: int
    source: str
    first: str
    last: str
    batches: int
    rows: int
    alarmed: tuple[int, ...]
    causes: tuple[Cause, ...]
    evidence: dict[str, float]

    @property
    def alarming(self) -> bool:
        """Whether somebody should look."""
        return self.state == ALARM


def known_too_well(evidence: Mapping[str, float], rows: int) -> str:
    """Why an alarm may be no news, if most of its rows are ones that the model was fitted on."""
    fitted = evidence.get("fitted_rows", 0)
    if fitted <= rows / 2:
        return ""
    return (
        f"but the model was fitted on {fitted:,.0f} of these {rows:,} districts, and knows them "
        "better than others, which alone can raise an alarm"
    )


def from_record(values: Mapping[str, Any]) -> Verdict:
    """A verdict again, from the plain values that a run keeps of it."""
    causes = tuple(Cause(**cause) for cause in values["causes"])
    return Verdict(**{**values, "alarmed": tuple(values["alarmed"]), "causes": causes})
