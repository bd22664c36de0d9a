"""A model over new districts, batch by batch: how far its predictions were from true prices."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from housing_lib.data import TARGET, USD_PER_UNIT, DataError, check_rows, read_table, row_ids
from housing_lib.evaluation import metrics
from housing_lib.parts import load_part

BATCH_METRICS = ("batch_rmse", "batch_mae", "batch_r2_score")


def resolve_source(source: str) -> str:
    """The source as it can be found from any folder: `test`, or an absolute path.

    Raises
    ------
    DataError
        If it is neither `test` nor a file.
    """
    path = Path(source).expanduser().resolve()
    if source != "test" and not path.is_file():
        raise DataError(
            f"source '{source}': found no such file; expected test (the test districts), or the "
            "path of a CSV or Parquet file. Nothing was run."
        )
    return source if source == "test" else str(path)


def load_source(source: str) -> tuple[pd.DataFrame, pd.Series]:
    """Districts to monitor, and why each row breaks the contract (empty where it does not).

    Parameters
    ----------
    source
        `test` for the test districts, or the path of a CSV or Parquet file
        with the eight columns and the true price.

    Raises
    ------
    DataError
        If the source cannot be read or lacks a column. A bad value in one row
        does not stop the others.
    """
    table = load_part("test").districts if source == "test" else read_table(Path(source))
    return check_rows(table, origin=source)


def fitted_rows(districts: pd.DataFrame) -> int:
    """The number of districts that are among the training and validation ones.

    On those a model looks better than it is.
    """
    seen = np.concatenate([load_part("train").ids, load_part("val").ids])
    return int(np.isin(row_ids(districts), seen).sum())


def score_batches(
    districts: pd.DataFrame, faults: pd.Series, model: Any, *, batch_rows: int
) -> pd.DataFrame:
    """One row a batch: RMSE and MAE (100,000 USD), R², rows, and valid rows.

    Rows that break the contract are counted and left out of the metrics. R² is
    missing where fewer than two valid rows, or equal prices, leave nothing to
    explain.

    Raises
    ------
    DataError
        If `batch_rows` is below 1 or no row is valid.
    """
    valid = faults.to_numpy() == ""
    if batch_rows < 1 or not valid.any():
        raise DataError(
            f"found {len(districts):,} rows, {valid.sum():,} of them valid, and batches of "
            f"{batch_rows}; expected at least one of each. Nothing was logged."
        )
    batch = np.arange(len(districts)) // batch_rows
    prices = districts[TARGET].to_numpy()[valid]
    errors = model.predict(districts[valid]) - prices
    rows = pd.DataFrame(
        {"batch": batch[valid], "square": errors**2, "size": np.abs(errors), "price": prices}
    )
    return _per_batch(rows).join(_counts(batch, valid), how="right")


def _per_batch(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows.groupby("batch")
    spread = groups["price"].var(ddof=0)
    mse = groups["square"].mean()
    return pd.DataFrame(
        {
            "batch_rmse": np.sqrt(mse),
            "batch_mae": groups["size"].mean(),
            "batch_r2_score": (1 - mse / spread).where(spread > 0),
        }
    )


def _counts(batch: Any, valid: Any) -> pd.DataFrame:
    groups = pd.Series(valid).groupby(batch)
    counts = {"num_rows_in_batch": groups.size(), "num_valid_rows_in_batch": groups.sum()}
    return pd.DataFrame(counts).rename_axis("batch")


def overall(districts: pd.DataFrame, faults: pd.Series, model: Any) -> dict[str, float]:
    """The metrics over all valid rows (prices in 100,000 USD), and the counts of rows."""
    valid = districts[faults.to_numpy() == ""]
    counts = {"rows": float(len(districts)), "valid_rows": float(len(valid))}
    return metrics(valid[TARGET].to_numpy(), model.predict(valid)) | counts


def styled(batches: pd.DataFrame) -> Any:
    """Batches for a reader: errors in dollars, short names of columns."""
    names = {
        "batch_rmse": "RMSE ($)",
        "batch_mae": "MAE ($)",
        "batch_r2_score": "R²",
        "num_rows_in_batch": "rows",
        "num_valid_rows_in_batch": "valid rows",
    }
    shown = batches.rename(columns=names)
    money: Any = ["RMSE ($)", "MAE ($)"]
    shown[money] = shown[money] * USD_PER_UNIT
    formats: Any = {"R²": "{:.3f}", "rows": "{:.0f}", "valid rows": "{:.0f}"}
    return shown.style.format(formats | dict.fromkeys(money, "{:,.0f}"))
