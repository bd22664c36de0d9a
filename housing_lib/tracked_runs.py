"""What pipeline runs left in MLflow: which runs are finished or still open, and their removal."""

from collections.abc import Collection, Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

from housing_lib.connection import EXPERIMENTS, client, is_absent, or_none, reaching
from housing_lib.settings import get_settings
from housing_lib.tracking import experiment_id


def finished_runs(ids: Iterable[str]) -> set[str]:
    """Those of the runs that are finished and not deleted.

    Raises
    ------
    TrackingError
        If the store cannot be opened, or does not answer.
    """
    known = {one: or_none(partial(_run, one)) for one in ids}
    wanted = ("FINISHED", "active")
    return {
        one
        for one, run in known.items()
        if run and (run.info.status, run.info.lifecycle_stage) == wanted
    }


def _run(one: str) -> Any:
    return client().get_run(one)


def close_open_runs(pipeline_run: str) -> int:
    """How many runs a pipeline run had left open; they are KILLED now, with their trials.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    experiments = [experiment_id(kind) for kind in EXPERIMENTS]
    still_open = client().search_runs(
        experiments, filter_string="attributes.status = 'RUNNING'", max_results=1000
    )
    own = [run for run in still_open if run.data.tags.get("pipeline_run") == pipeline_run]
    parents = {run.info.run_id for run in own}
    trials = [run for run in still_open if run.data.tags.get("mlflow.parentRunId") in parents]
    for run in [*trials, *own]:
        client().set_terminated(run.info.run_id, "KILLED")
    return len(own) + len(trials)


@reaching()
def runs_of(pipeline_run: str) -> dict[str, list[str]]:
    """The MLflow runs that a pipeline run made, each with its trials, by their ids.

    Raises
    ------
    TrackingError
        If the store cannot be opened, read or written.
    """
    own = _ids(f"tags.pipeline_run = '{pipeline_run}'")
    return {one: _ids(f"tags.mlflow.parentRunId = '{one}'") for one in own}


def _ids(wanted: str) -> list[str]:
    if is_absent():
        return []
    experiments = [experiment_id(kind) for kind in EXPERIMENTS]
    found = client().search_runs(experiments, filter_string=wanted, max_results=50_000)
    return [one.info.run_id for one in found]


@reaching()
def delete_runs(ids: Collection[str]) -> None:
    """Delete runs with the models that they logged; on a database, their files as well.

    An MLflow server keeps what was deleted until its own `mlflow gc`.

    Raises
    ------
    TrackingError
        If the store cannot be opened, read or written.
    """
    opened = client()
    models = [one for one in _logged_models() if one.source_run_id in ids]
    for model in models:
        opened.delete_logged_model(model.model_id)
    for one in ids:
        opened.delete_run(one)
    settings = get_settings()
    if ids and not settings.store_is_server:
        _collect_garbage(settings.store_uri, list(ids), [model.model_id for model in models])


def _logged_models() -> list[Any]:
    experiments = [experiment_id(kind) for kind in EXPERIMENTS]
    page = client().search_logged_models(experiments)
    found = list(page)
    while page.token:
        page = client().search_logged_models(experiments, page_token=page.token)
        found += page
    return found


def _collect_garbage(uri: str, runs: list[str], models: list[str]) -> None:
    # In this process, because a command line would show the store's password to everyone.
    from mlflow.cli import gc

    arguments = ["--backend-store-uri", uri, "--tracking-uri", uri, "--run-ids", ",".join(runs)]
    # Without ids it would take all models that anybody ever deleted.
    arguments += ["--logged-model-ids", ",".join(models)] if models else []
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        gc.main(arguments, standalone_mode=False)
