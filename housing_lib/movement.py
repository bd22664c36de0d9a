"""Whether the world has moved from under a model: its errors lately beside those before."""

from dataclasses import dataclass

from housing_lib.data import USD_PER_UNIT, Floats

LEVEL = 0.95


@dataclass(frozen=True)
class Movement:
    """How a model's errors on recent rows differ from those on the others.

    `level` is what it asks more than before (100,000 USD), `error` how much larger
    its mean squared error is; `clear` if it is elsewhere, or worse, beyond chance.
    """

    rows: int
    level: float
    error: float
    clear: bool

    @property
    def figure(self) -> str:
        """What was found, in words."""
        more = "more" if self.level > 0 else "less"
        amount = f"${abs(self.level) * USD_PER_UNIT:,.0f} {more}"
        return f"asks {amount} than it did, beside true prices; {self.rows:,} districts"

    @property
    def meaning(self) -> str:
        """What follows from it."""
        return "recent districts decide" if self.clear else "within chance: locked districts decide"


def measure(now: Floats, then: Floats) -> Movement:
    """The movement between two samples of errors, prediction minus price in 100,000 USD.

    Two tests of Welch (1947), of the errors and of their squares, which together find
    something in fewer than one of twenty pairs of samples that do not differ.
    """
    level, moved = _difference(now, then)
    error, changed = _difference(now**2, then**2)
    return Movement(len(now), level, error, clear=moved or (changed and error > 0))


def _difference(now: Floats, then: Floats) -> tuple[float, bool]:
    from scipy.stats import ttest_ind

    found = ttest_ind(now, then, equal_var=False)
    return float(now.mean() - then.mean()), bool(found.pvalue < (1 - LEVEL) / 2)
