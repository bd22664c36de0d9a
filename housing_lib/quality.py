"""How good answers were: metrics of batches from sums, their intervals, and what chance does.

A batch is kept as sums of powers of its errors and prices. Sums add up: those of
a window are the sums of its batches, so all windows of a million rows cost what
the batches cost.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student
from sklearn.isotonic import IsotonicRegression

from housing_lib.data import TARGET
from housing_lib.gains import pieces

METRICS = ("rmse", "mae", "bias", "r2_score", "coverage")
CONFIDENCE = 0.95
CHANCES = 1_000
SUMS = ("n", "e", "size", "e2", "e4", "in", "y", "y2", "y3", "y4", "e2y", "e2y2")
Codes = npt.NDArray[np.intp]


def scored(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows can be judged: answered, with a true price, and not against the contract."""
    known = rows[["predicted", TARGET]].notna().all(axis=1) & (rows["fault"] == "")
    return known.to_numpy()


def has_width(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows can be judged and came with an interval: some models give none."""
    return scored(rows) & rows["high"].notna().to_numpy()


def rmse(rows: pd.DataFrame) -> float:
    """The RMSE of those rows that can be judged (100,000 USD); NaN if there are none."""
    kept = rows.loc[scored(rows), ["predicted", TARGET]]
    errors = (kept["predicted"] - kept[TARGET]).to_numpy()
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")


def sums_of(rows: pd.DataFrame, batch: Codes, *, count: int, centre: float) -> pd.DataFrame:
    """The sums of each of `count` batches, one column for each of `SUMS`.

    Parameters
    ----------
    batch
        The number of each row's batch.
    centre
        A price near the mean; powers are taken of what prices differ from it.
    """
    kept = scored(rows)
    judged = rows.loc[kept, ["predicted", TARGET, "low", "high"]]
    e = (judged["predicted"] - judged[TARGET]).to_numpy()
    y = judged[TARGET].to_numpy() - centre
    inside = judged[TARGET].between(judged["low"], judged["high"]).to_numpy(dtype=float)
    inside[judged["low"].isna()] = np.nan  # nobody said between what
    e2, y2 = e**2, y**2
    terms = (np.ones_like(e), e, np.abs(e), e2, e2**2, inside, y, y2, y2 * y, y2**2)
    columns = dict(zip(SUMS, (*terms, e2 * y, e2 * y2), strict=True))
    return pd.DataFrame(
        {
            name: np.bincount(batch[kept], weights=column, minlength=count)
            for name, column in columns.items()
        }
    )


def metrics_of(sums: pd.DataFrame, *, prefix: str = "") -> pd.DataFrame:
    """RMSE, MAE, bias (100,000 USD), R² and coverage, each with the ends of its 95 % interval.

    The intervals are Student's, of the mean of what each row adds to a metric
    (the infinitesimal jackknife, Efron 1982): where another sample of as many
    rows would have put it. A metric that nothing is known of is missing: all
    without rows, intervals and R² below two rows or with equal prices.
    """
    n = sums["n"].where(sums["n"] > 0)
    mean = sums.div(n, axis=0)
    values, spreads = _values(mean), _spreads(mean)
    free = (n - 1).where(n > 1)
    reach = student.ppf(0.5 + CONFIDENCE / 2, free) / np.sqrt(free)
    found: dict[str, pd.Series] = {}
    for name in METRICS:
        half = reach * spreads[name]
        found |= {name: values[name], f"{name}_low": values[name] - half}
        found |= {f"{name}_high": values[name] + half}
    table = pd.DataFrame(found)
    for end in ("rmse", "rmse_low", "rmse_high"):  # until here its square
        table[end] = np.sqrt(table[end].clip(lower=0))
    table["mae_low"] = table["mae_low"].clip(lower=0)
    table["r2_score_high"] = table["r2_score_high"].clip(upper=1)
    ends = ["coverage_low", "coverage_high"]
    table[ends] = table[ends].clip(0, 1)
    return table.add_prefix(prefix)


def _values(mean: pd.DataFrame) -> dict[str, pd.Series]:
    variance = _variance(mean)
    return {
        "rmse": mean["e2"],
        "mae": mean["size"],
        "bias": mean["e"],
        "r2_score": 1 - mean["e2"] / variance,
        "coverage": mean["in"],
    }


def _spreads(mean: pd.DataFrame) -> dict[str, pd.Series]:
    """The standard deviation of what a row adds to each metric."""
    variance, m, mse = _variance(mean), mean["y"], mean["e2"]
    cross = mean["e2y2"] - 2 * m * mean["e2y"] + m**2 * mse
    fourth = mean["y4"] - 4 * m * mean["y3"] + 6 * m**2 * mean["y2"] - 3 * m**4
    r2 = mean["e4"] / variance**2 - 2 * mse * cross / variance**3 + mse**2 * fourth / variance**4
    squares = {
        "rmse": mean["e4"] - mse**2,
        "mae": mse - mean["size"] ** 2,
        "bias": mse - mean["e"] ** 2,
        "r2_score": r2,
        "coverage": mean["in"] * (1 - mean["in"]),
    }
    return {name: square.clip(lower=0) ** 0.5 for name, square in squares.items()}


def _variance(mean: pd.DataFrame) -> pd.Series:
    variance = mean["y2"] - mean["y"] ** 2
    return variance.where(variance > 1e-12)


def sliding(sums: pd.DataFrame, *, width: int) -> pd.DataFrame:
    """The metrics over each batch and the `width` - 1 before it; missing before half of those."""
    windows = sums.rolling(width, min_periods=(width + 1) // 2).sum()
    unknown = sums.isna().rolling(width, min_periods=1).max() > 0
    return metrics_of(windows.mask(unknown))


def by_chance(reference: pd.DataFrame, *, size: int, seed: int = 0) -> pd.DataFrame:
    """Where a batch of `size` rows lies by chance alone, one row a metric: `low`, `high`.

    The middle 95 % of what batches drawn from the reference rows reach; missing
    if none of those was answered.
    """
    rng = np.random.default_rng(seed)
    judged = reference[scored(reference)]
    if judged.empty:
        return pd.DataFrame(np.nan, index=list(METRICS), columns=["low", "high"])
    each = sums_of(judged, np.arange(len(judged)), count=len(judged), centre=0.0)
    even = np.full(len(judged), 1 / len(judged))
    table = each.to_numpy()
    counts = pieces(CHANCES, len(judged))
    drawn = np.concatenate([rng.multinomial(size, even, size=one) @ table for one in counts])
    tail = (1 - CONFIDENCE) / 2
    reached = metrics_of(pd.DataFrame(drawn, columns=list(SUMS)))[list(METRICS)]
    return reached.quantile([tail, 1 - tail]).T.set_axis(["low", "high"], axis="columns")


@dataclass(frozen=True)
class Estimator:
    """How wrong answers probably are, told from the width of their intervals alone."""

    square: IsotonicRegression
    size: IsotonicRegression

    @classmethod
    def fit(cls, reference: pd.DataFrame) -> "Estimator":
        """The estimator of the reference rows with intervals: what errors went with what widths.

        The upper half of an interval is the model's expected error, times a
        constant; the errors that really came with it calibrate it.
        """
        judged = reference[has_width(reference)]
        width = (judged["high"] - judged["predicted"]).to_numpy()
        errors = (judged["predicted"] - judged[TARGET]).to_numpy()
        fitted = [
            IsotonicRegression(out_of_bounds="clip").fit(width, target)
            for target in (errors**2, np.abs(errors))
        ]
        return cls(*fitted)

    def estimate(self, rows: pd.DataFrame, batch: Codes, *, count: int) -> pd.DataFrame:
        """The RMSE and MAE to expect of each batch, prices known or not (100,000 USD)."""
        width = (rows["high"] - rows["predicted"]).to_numpy()
        kept = np.isfinite(width) & (rows["fault"] == "").to_numpy()
        rows_in = np.bincount(batch[kept], minlength=count).astype(float)
        rows_in[rows_in == 0] = np.nan
        square, size = (
            np.bincount(batch[kept], weights=one.predict(width[kept]), minlength=count) / rows_in
            for one in (self.square, self.size)
        )
        return pd.DataFrame({"estimated_rmse": np.sqrt(square), "estimated_mae": size})
