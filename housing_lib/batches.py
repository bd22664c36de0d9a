"""Traffic in batches: where one ends, and all that is known of each, one row a batch."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from housing_lib import quality
from housing_lib.data import FEATURES, TARGET, DataError
from housing_lib.decision import by_batch
from housing_lib.series import Series
from housing_lib.traffic import Traffic

WINDOWS = 20  # about as many sliding windows lie side by side in the batches of a version
CENTRE = 2.0  # 100,000 USD, near the mean price


def cut(rows: pd.DataFrame, *, batch_rows: int, batch_hours: float = 0) -> npt.NDArray[np.intp]:
    """The number of each row's batch: so many rows, or all rows of so many hours.

    A batch holds the rows of one version only; batches are numbered by their first row.

    Raises
    ------
    DataError
        If `batch_rows` is below 1, no row is valid, or hours are asked of rows
        without times.
    """
    if batch_hours and rows["answered_at"].isna().any():
        raise DataError(
            f"batches of {batch_hours:g} hours were asked for, and the rows have no times; "
            "expected batches by rows, or the prediction log. Nothing was logged."
        )
    valid = (rows["fault"] == "").sum()
    if batch_rows < 1 or batch_hours < 0 or not valid:
        raise DataError(
            f"found {len(rows):,} rows, {valid:,} of them valid, and batches of {batch_rows}; "
            "expected at least one of each. Nothing was logged."
        )
    if batch_hours:
        since = rows["answered_at"] - pd.Timestamp(0, tz="UTC")
        part = (since / pd.Timedelta(hours=batch_hours)).astype("int64")
    else:
        part = rows.groupby("model_version").cumcount() // batch_rows
    numbers = pd.MultiIndex.from_arrays([rows["model_version"], part])
    return np.asarray(pd.factorize(numbers)[0], dtype=np.intp)


def batch_table(
    traffic: Traffic,
    rows: pd.DataFrame,
    batch: npt.NDArray[np.intp],
    series: tuple[Series, ...],
    *,
    batch_hours: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a batch; and the metrics over sliding windows, each of one version's batches."""
    count = int(batch[-1]) + 1
    sums = quality.sums_of(rows, batch, count=count, centre=CENTRE)
    found = _estimates(series, count)
    found["num_rows_in_batch"] = np.bincount(batch, minlength=count)
    found["num_valid_rows_in_batch"] = sums["n"].astype(int)
    metrics, windows = zip(*(_of_version(one, sums, found) for one in series), strict=True)
    table = pd.concat(metrics).sort_index().join(found)
    starts = np.flatnonzero(np.diff(batch, prepend=-1))
    table["model_version"] = rows["model_version"].to_numpy()[starts]
    table = table.join(_periods(traffic, rows, starts)).join(_digests(rows, starts, batch_hours))
    table = table.join(_strangeness(series, count))
    return table.rename_axis("batch"), pd.concat(windows).sort_index().rename_axis("batch")


def _of_version(
    one: Series, sums: pd.DataFrame, found: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The metrics of one version's batches, and of the windows that slide over them."""
    numbers = np.unique(one.batch)
    own, width = sums.loc[numbers], sliding_width(len(numbers))
    at_once = np.zeros(len(one.reference), dtype=np.intp)
    known = quality.sums_of(one.reference, at_once, count=1, centre=CENTRE)
    variances = quality.variances_of(own, known)
    estimates = found.loc[numbers, ["estimated_rmse", "estimated_mae"]]
    rows = found.loc[numbers, "num_rows_in_batch"]
    windows = quality.sliding(own, width=width, variances=variances)
    estimated = quality.sliding_estimates(estimates, rows, width=width)
    return quality.metrics_of(own, prefix="batch_", variances=variances), windows.join(estimated)


def sliding_width(batches: int) -> int:
    """How many batches a sliding window holds."""
    return max(3, batches // WINDOWS)


def _estimates(series: tuple[Series, ...], count: int) -> pd.DataFrame:
    found = pd.DataFrame(np.nan, range(count), ["estimated_rmse", "estimated_mae"])
    for one in series:
        if quality.has_width(one.reference).any() and one.rows["high"].notna().any():
            estimator = quality.Estimator.fit(one.reference)
            found = found.fillna(estimator.estimate(one.rows, one.batch, count=count))
    return found


def _periods(traffic: Traffic, rows: pd.DataFrame, starts: npt.NDArray[np.intp]) -> pd.DataFrame:
    ends = np.append(starts[1:], len(rows)) - 1
    if not traffic.timed:
        return pd.DataFrame(
            {"first": [f"row {n}" for n in starts], "last": [f"row {n}" for n in ends]}
        )
    times = rows["answered_at"]
    return pd.DataFrame(
        {
            name: times.iloc[places].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_numpy()
            for name, places in {"first": starts, "last": ends}.items()
        }
    )


def _digests(rows: pd.DataFrame, starts: npt.NDArray[np.intp], batch_hours: float) -> pd.DataFrame:
    """What tells a batch again: its `key`, and the `digest` of all that is known of it.

    The key of a batch by time is its version and time, so that the day that
    is not over is the same batch tomorrow; of others it is what was asked.
    """
    asked = rows[[*FEATURES, "model_version", "answered_at"]]
    known = asked.assign(price=rows[TARGET], fault=rows["fault"] == "")
    found = pd.DataFrame({"key": _hashed(asked, starts), "digest": _hashed(known, starts)})
    if batch_hours:
        first = rows.iloc[starts]
        bucket = first["answered_at"].dt.floor(pd.Timedelta(hours=batch_hours))
        # Whole minutes stand as they always did, so that what was logged is known again.
        when = bucket.dt.strftime("%Y-%m-%dT%H:%M:%S.%f").str.removesuffix(".000000")
        when = when.str.removesuffix(":00") + f"+{batch_hours:g}h"
        found["key"] = (first["model_version"].astype(str) + "@" + when).to_numpy()
    return found


def _hashed(table: pd.DataFrame, starts: npt.NDArray[np.intp]) -> list[str]:
    hashed = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return [f"{value:016x}" for value in np.add.reduceat(hashed, starts)]


def _strangeness(series: tuple[Series, ...], count: int) -> pd.DataFrame:
    found = pd.DataFrame(np.nan, range(count), ["largest_shift", "p_value"])
    for one in series:
        if one.decision is not None and one.decision.enough:
            numbers = np.unique(one.batch)
            for name, column in (("largest_shift", "largest"), ("p_value", "p_value")):
                values = by_batch(one.decision.units, column, batches=len(numbers))
                found.loc[numbers, name] = values
    return found
