"""Eight notebooks at once that open a fresh MLflow store and log to it, over and over."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import v4

from housing_lib import pipeline
from housing_lib.graph import Plan, Step
from housing_lib.settings import get_settings

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
SOURCE = """\
from housing_lib import reports, tracking
with tracking.run("tuning", "race", params={"a": 1}, tags={"role": "race"}) as run_id:
    tracking.log_metrics({"x": 1.0})
reports.record(mlflow_run=run_id)
"""


def race(root: str) -> list[str]:
    """Why each step failed that did, of eight at once on a fresh store."""
    os.environ["HOUSING_ROOT"] = root
    get_settings.cache_clear()
    notebook = Path(root) / "race.ipynb"
    book = v4.new_notebook(cells=[v4.new_code_cell(SOURCE)], metadata={"kernelspec": KERNEL})
    nbformat.write(book, notebook)
    steps = [
        Step("race", notebook=str(notebook), variant=str(number), forced=True)
        for number in range(8)
    ]
    pipeline.run_steps("races", Plan((), 0, jobs=8), steps)
    assert len({step.record.get("mlflow_run") for step in steps if step.finished}) == 8
    return [step.reason for step in steps if not step.finished]


if __name__ == "__main__":
    rounds, faults = int(sys.argv[1]), []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            faults += race(folder)
    print(f"{len(faults)} of {8 * rounds} notebooks failed, in {rounds} rounds of eight at once")
    print(*faults, sep="\n")
    sys.exit(bool(faults))
