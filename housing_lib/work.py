"""What a step's process does: execute a notebook and write its page, or mend what was left."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from housing_lib import execution, privacy, provenance, rendering, reports
from housing_lib.errors import HousingError
from housing_lib.files import read_json
from housing_lib.processes import Channel


def run_notebook(
    notebook: Path,
    parameters: Mapping[str, Any],
    ipynb: Path,
    limit_s: float | None,
    channel: Channel,
) -> dict[str, Any]:
    """What a notebook recorded, after executing it and writing its page, whole or FAILED.

    Raises
    ------
    StepFailedError
        If it stopped before its end.
    ReportError
        If it recorded nothing.
    NotebookError
        If it cannot be read.
    TrackingError
        If its page cannot be attached, because the store cannot be opened.
    """
    from housing_lib import kernels, tracking

    kernels.use_forked_kernels()
    started = time.time()
    origin = _origin(notebook, parameters)
    failed = None
    try:
        execution.execute(
            notebook,
            parameters,
            ipynb,
            on_cell=channel,
            log=ipynb.with_suffix(".log"),
            limit_s=limit_s,
            channel=channel,
            provenance=origin,
        )
        found = reports.read_record(ipynb)
    except HousingError as error:
        failed = privacy.hide(str(error), privacy.secret_values())
        raise type(error)(failed) from None
    finally:
        if ipynb.exists():
            shown = origin | {"seconds": f"{time.time() - started:.0f}"}
            rendering.render(ipynb, ipynb.with_suffix(".html"), provenance=shown, failed=failed)
    if "mlflow_run" in found:
        tracking.log_report(found["mlflow_run"], ipynb.with_suffix(".html"))
    return found


def _origin(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    given = {name: str(value) for name, value in parameters.items()}
    return {"notebook": notebook.name, **given, **provenance.describe()}


def renew_page(notebook: Path, executed: Path, ipynb: Path, channel: Channel) -> None:
    """Write an executed notebook and its page with the words of today's notebook.

    Raises
    ------
    NotebookError
        If today's notebook cannot be read.
    """
    execution.renew_words(executed, notebook, ipynb)
    origin = read_json(ipynb)["metadata"].get("housing", {})
    rendering.render(ipynb, ipynb.with_suffix(".html"), provenance=origin)


def close_open_runs(run_id: str, channel: Channel) -> int:
    """How many MLflow runs a run had left open; they are closed as killed now.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    from housing_lib import tracked_runs

    return tracked_runs.close_open_runs(run_id)
