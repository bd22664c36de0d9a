"""What Evidently's drift and regression presets say of batches that `monitoring.py` has drawn.

`monitoring.py` starts this in an environment of its own, for Evidently wants another pandas.
Each batch is judged as its report does it: half of the columns drifted (the preset's own
decision), any column drifted, or any of the report's tests failed.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Regression, Report
from evidently.presets import DataDriftPreset, RegressionPreset

HALF, DRIFT = "lt", "drift"  # what Evidently calls the tests of the two decisions


def main(folder: Path) -> None:
    """Write what was decided of each batch, how long it took, and how large a report is."""
    reference = pd.read_parquet(folder / "reference.parquet")
    batches = pd.read_parquet(folder / "batches.parquet")
    found = [
        {"case": case, **judge(batch, reference, folder)}
        for (case, _), batch in batches.groupby(["case", "draw"], sort=False)
    ]
    pd.DataFrame(found).to_parquet(folder / "peer.parquet")


def judge(batch: pd.DataFrame, reference: pd.DataFrame, folder: Path) -> dict[str, float]:
    """The three decisions on one batch against the rows that were not drawn."""
    columns = list(reference.columns)
    known = reference.drop(index=batch["row"])
    definition = DataDefinition(
        numerical_columns=columns,
        regression=[Regression(target="MedHouseVal", prediction="predicted")],
    )
    sides = (batch[columns].reset_index(drop=True), known)
    current, past = (Dataset.from_pandas(side, data_definition=definition) for side in sides)
    started = time.perf_counter()
    report = Report([DataDriftPreset(), RegressionPreset()], include_tests=True)
    done = report.run(current, past)
    failed = [test["id"] for test in json.loads(done.json())["tests"] if test["status"] == "FAIL"]
    seconds = time.perf_counter() - started
    page = folder / "peer.html"
    if not page.exists():
        done.save_html(str(page))
    return {
        "half of the columns": HALF in failed,
        "any column": DRIFT in failed,
        "any test": bool(failed),
        "seconds": seconds,
        "megabytes": page.stat().st_size / 1e6,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
