"""How good answers were: metrics of batches from sums, their intervals, and what chance does.

A batch is kept as sums of powers of its errors and prices. Sums add up: those of
a window are the sums of its batches, so all windows of a million rows cost what
the batches cost.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.isotonic import IsotonicRegression

from housing_lib.contract import LEVEL
from housing_lib.data import TARGET
from housing_lib.gains import pieces

METRICS = ("rmse", "mae", "bias", "r2_score", "coverage")
NORMAL = float(norm.ppf(0.5 + LEVEL / 2))
FEWEST_TOLD = 200  # rows; fewer tell too little of how heavy the heaviest errors are
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


def metrics_of(
    sums: pd.DataFrame, *, prefix: str = "", variances: pd.Series | None = None
) -> pd.DataFrame:
    """RMSE, MAE, bias (100,000 USD), R² and coverage, each with the ends of its 95 % interval.

    About 95 % of them hold what an endless number of such rows would give. RMSE, MAE
    and the unexplained share are taken on the scale of logarithms, where their
    distributions are nearly normal: a few heavy errors decide them, of which a
    small batch has none or too many, so `variances` tells how far they swing. The
    interval of bias is Student's, that of coverage Wilson's (1927).
    A metric that nothing is known of is missing: all without rows, intervals and
    R² below two rows or with equal prices.

    Parameters
    ----------
    variances
        As `variances_of` gives them; by default those of all these rows together.
    """
    n = sums["n"].where(sums["n"] > 0)
    mean = sums.div(n, axis=0)
    values = _values(mean)
    told = variances_of(sums) if variances is None else variances
    ends = {
        name: _by_logarithm(values[name], told[name], n) for name in ("mse", "mae", "unexplained")
    }
    found = {
        "rmse": [one**0.5 for one in (values["mse"], *ends["mse"])],
        "mae": [values["mae"], *ends["mae"]],
        "bias": [mean["e"], *_student(mean, n)],
        "r2_score": [1 - one for one in (values["unexplained"], *reversed(ends["unexplained"]))],
        "coverage": [mean["in"], *_wilson(mean["in"], n)],
    }
    columns = [f"{prefix}{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
    series = [one for name in METRICS for one in found[name]]
    return pd.DataFrame(dict(zip(columns, series, strict=True)))


def variances_of(*tables: pd.DataFrame) -> pd.Series:
    """The variance of what a row adds to `mse`, `mae` and `unexplained`, as a share of it squared.

    Of the table of sums whose rows together swing most; missing where none has
    200 rows, for few heavy errors show nothing of the heaviest.
    """
    groups = pd.DataFrame([table.sum() for table in tables])
    mean = groups[groups["n"] >= FEWEST_TOLD].div(groups["n"], axis=0)
    return _variances(mean).max().clip(lower=0)


def _values(mean: pd.DataFrame) -> dict[str, pd.Series]:
    """MSE, MAE, and the share of the prices' variance that is unexplained: all above 0."""
    unexplained = mean["e2"] / _variance(mean)
    return {"mse": mean["e2"], "mae": mean["size"], "unexplained": unexplained}


def _variances(mean: pd.DataFrame) -> pd.DataFrame:
    """The relative variances of `variances_of`, by the infinitesimal jackknife (Efron 1982)."""
    variance, m, mse = _variance(mean), mean["y"], mean["e2"].where(mean["e2"] > 0)
    cross = mean["e2y2"] - 2 * m * mean["e2y"] + m**2 * mse
    fourth = mean["y4"] - 4 * m * mean["y3"] + 6 * m**2 * mean["y2"] - 3 * m**4
    heavy = mean["e4"] / mse**2
    unexplained = heavy - 2 * cross / (mse * variance) + fourth / variance**2
    return pd.DataFrame(
        {"mse": heavy - 1, "mae": mse / mean["size"] ** 2 - 1, "unexplained": unexplained}
    )


def _by_logarithm(value: pd.Series, variance: float, n: pd.Series) -> list[pd.Series]:
    """The lower and the upper end of an interval that is even on the scale of logarithms."""
    reach = np.exp(NORMAL * (variance / n.where(n > 1)) ** 0.5)
    return [value / reach, value * reach]


def _student(mean: pd.DataFrame, n: pd.Series) -> list[pd.Series]:
    """The lower and the upper end of Student's interval of the mean error."""
    free = (n - 1).where(n > 1)
    spread = (mean["e2"] - mean["e"] ** 2).clip(lower=0)
    half = student.ppf(0.5 + LEVEL / 2, free) * (spread / free) ** 0.5
    return [mean["e"] - half, mean["e"] + half]


def _wilson(share: pd.Series, n: pd.Series) -> list[pd.Series]:
    """The lower and the upper end of Wilson's interval, which has width even at none or all."""
    weight = NORMAL**2 / n.where(n > 1)
    middle = (share + weight / 2) / (1 + weight)
    half = (weight * (share * (1 - share) + weight / 4)) ** 0.5 / (1 + weight)
    return [(middle - half).clip(0, share), (middle + half).clip(share, 1)]


def _variance(mean: pd.DataFrame) -> pd.Series:
    variance = mean["y2"] - mean["y"] ** 2
    return variance.where(variance > 1e-12)


def sliding(sums: pd.DataFrame, *, width: int, variances: pd.Series | None = None) -> pd.DataFrame:
    """The metrics over each batch and the `width` - 1 before it; missing before half of those."""
    windows = sums.rolling(width, min_periods=(width + 1) // 2).sum()
    unknown = sums.isna().rolling(width, min_periods=1).max() > 0
    told = variances_of(sums) if variances is None else variances
    return metrics_of(windows.mask(unknown), variances=told)


def sliding_estimates(estimates: pd.DataFrame, rows: pd.Series, *, width: int) -> pd.DataFrame:
    """The estimated RMSE and MAE over the same windows, of as many as are known in each."""
    known = estimates.notna().mul(rows, axis=0)
    sums = estimates.assign(estimated_rmse=estimates["estimated_rmse"] ** 2).mul(rows, axis=0)
    totals, counts = (one.rolling(width, min_periods=1).sum() for one in (sums, known))
    means = totals / counts.where(counts > 0)
    return means.assign(estimated_rmse=means["estimated_rmse"] ** 0.5)


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
    tail = (1 - LEVEL) / 2
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
