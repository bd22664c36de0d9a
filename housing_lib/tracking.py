"""The door to MLflow's runs: one store, prepared once; runs, trials, figures and models."""

import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from housing_lib import provenance
from housing_lib.connection import EXPERIMENTS as EXPERIMENTS
from housing_lib.connection import RETRIES, model_file
from housing_lib.connection import TrackingError as TrackingError
from housing_lib.connection import client as client
from housing_lib.data import FEATURES
from housing_lib.parts import Part
from housing_lib.trust import trusted_types, unpack_model

if TYPE_CHECKING:
    from housing_lib.evaluation import Judgement
    from housing_lib.trials import Search, Trial


def experiment_id(kind: str) -> str:
    """The id of an experiment, of a kind in `EXPERIMENTS`.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    found = client().get_experiment_by_name(EXPERIMENTS[kind])
    assert found is not None, "client() creates them all"
    return str(found.experiment_id)


@contextmanager
def run(
    kind: str, name: str, *, params: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[str]:
    """The id of a new active run, of a kind in `EXPERIMENTS`; FAILED if the block fails.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    import mlflow

    with waiting_for_server():
        client()
        mlflow.set_experiment(EXPERIMENTS[kind])
        with mlflow.start_run(run_name=name, tags={**provenance.describe(), **tags}) as active:
            mlflow.log_params(dict(params))
            yield active.info.run_id


@contextmanager
def waiting_for_server() -> Iterator[None]:
    """Lets an MLflow server be away for a minute, or its database, while the block logs.

    Elsewhere one that is away is told at once, so that nobody waits to hear it.
    """
    before = os.environ[RETRIES]
    os.environ[RETRIES] = "5"  # the first at once, then after 4, 8, 16 and 32 seconds
    try:
        yield
    finally:
        os.environ[RETRIES] = before


def log_trial(parent: str, trial: "Trial", *, family: str) -> None:
    """Log one trial as a finished run below its family's run.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    from mlflow.entities import Metric, Param

    opened = client()
    experiment = opened.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent, "family": family, "trial_state": trial.state}
    name = f"{family}-{trial.number:03d}"
    child = opened.create_run(experiment, run_name=name, tags=tags).info.run_id
    opened.log_batch(
        child,
        metrics=[Metric(key, value, 0, 0) for key, value in trial.metrics.items()],
        params=[Param(key, str(value)) for key, value in trial.params.items()],
    )
    opened.set_terminated(child, "FINISHED" if trial.state == "complete" else "KILLED")


def trial_logger(parent: str, family: str) -> "Callable[[Trial], None]":
    """A function that logs each trial of a search while it finishes, and prints a line on it."""

    def log(trial: "Trial") -> None:
        log_trial(parent, trial, family=family)
        error = trial.metrics["val_rmse"]
        print(f"trial {trial.number:3d}  {trial.state:<8}  {error:.4f}  {trial.seconds:5.1f} s")

    return log


def log_search(
    search: "Search",
    model: Any,
    scores: Mapping[str, float],
    importances: Mapping[str, pd.Series],
    train: Part,
) -> str:
    """The address of a family's best model, after logging it and its search to the active run.

    Raises
    ------
    TrustError
        If the model holds a type that is not among `trust.TRUSTED_TYPES`.
    """
    import mlflow

    from housing_lib import plots

    log_metrics(scores)
    mlflow.log_params({f"best_{name}": value for name, value in search.best.params.items()})
    log_table(search.table, "trials")
    for name, values in importances.items():
        axes = plots.importance_bars(values, title=f"{search.family}: {name}", unit=name)
        log_figure(axes.figure, f"importance_{name}")
    uri = log_model(model, train.districts)
    best = json.dumps(search.best.params)
    mlflow.set_tags({"role": "search", "model_uri": uri, "best_params": best})
    return uri


def log_evaluation(champion: Any, scores: pd.DataFrame, found: "Judgement", test: Part) -> str:
    """The address of the champion, after logging it, all scores and figures to the active run.

    Raises
    ------
    TrustError
        If the model holds a type that is not among `trust.TRUSTED_TYPES`.
    """
    from housing_lib import plots
    from housing_lib.accuracy import METRICS

    log_metrics(found.metrics)
    for row in scores.itertuples():
        values = {f"{row.part}_{name}": getattr(row, name) for name in METRICS}
        log_metrics({f"{row.family}.{name}": value for name, value in values.items()})
    log_metrics({f"{name}.block_rmse": value for name, value in found.in_blocks.items()})
    log_table(scores, "scores")
    log_table(found.slices, "slices")
    log_figure(plots.metric_grid(scores), "scores")
    log_figure(plots.residuals(test.y, found.predicted), "residuals")
    log_figure(plots.error_map(test.districts, found.predicted - test.y).figure, "error_map")
    return log_model(champion, test.districts)


def log_card(run_id: str, card: str) -> None:
    """Log a model card to a run.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    client().log_text(run_id, card, "model_card.md")


def log_metrics(values: Mapping[str, float]) -> None:
    """Log metrics to the active run."""
    import mlflow

    mlflow.log_metrics(dict(values))


def log_series(run_id: str, series: pd.DataFrame, times: "pd.Series | None" = None) -> None:
    """Log a table to a run: a metric a column, a step a row, missing values left out.

    Parameters
    ----------
    times
        When each row was, in milliseconds since 1970.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    from mlflow.entities import Metric

    when = dict.fromkeys(series.index, 0) if times is None else times.to_dict()
    # The last step first: MLflow then writes the latest value of a metric once, not once a step.
    values = [
        Metric(str(name), float(value), int(when[step]), int(str(step)))
        for name, column in series.iloc[::-1].items()
        for step, value in column.dropna().items()
    ]
    with _without_garbage_collection():
        for start in range(0, len(values), 1000):  # MLflow takes 1,000 metrics a call
            client().log_batch(run_id, metrics=values[start : start + 1000])


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Leave garbage alone for a while: MLflow makes a million objects, none of them garbage yet."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def log_figure(figure: Any, name: str) -> None:
    """Log a figure to the active run, and close it."""
    import matplotlib.pyplot as plt
    import mlflow

    mlflow.log_figure(figure, f"figures/{name}.png")
    plt.close(figure)


def log_table(table: pd.DataFrame, name: str) -> None:
    """Log a table to the active run as CSV."""
    import mlflow

    mlflow.log_text(table.to_csv(), f"tables/{name}.csv")


def log_report(run_id: str, page: Path) -> bool:
    """Whether the page of a notebook is attached to the run that it made: not if that is gone.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    from mlflow.exceptions import MlflowException

    try:
        with waiting_for_server():
            client().log_artifact(run_id, str(page), "report")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def log_model(model: Any, districts: pd.DataFrame) -> str:
    """The address of `model` in MLflow, after logging it to the active run.

    It is stored in skops's format, which runs no code on loading, with its
    signature, an input example and a copy in joblib's format for those who
    want the plain object.

    Raises
    ------
    TrustError
        If the model holds a type that is not among `trust.TRUSTED_TYPES`.
    """
    import joblib
    import mlflow

    example = districts[list(FEATURES)].head(5)
    logged = mlflow.sklearn.log_model(
        model,
        name="model",
        signature=mlflow.models.infer_signature(example, model.predict(example)),
        input_example=example,
        skops_trusted_types=trusted_types(model),
        pip_requirements=provenance.requirements(),
    )
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(model, Path(folder) / "model.joblib")
        mlflow.log_artifact(str(Path(folder) / "model.joblib"))
    return str(logged.model_uri)


def load_model(uri: str) -> Any:
    """The model at an MLflow address, unpacked by our own list of trusted types.

    Raises
    ------
    TrackingError
        If its file is not there, or the store cannot be opened.
    """
    return unpack_model(model_file(uri).read_bytes())


def test_metrics(run_id: str) -> dict[str, float]:
    """What the model of an evaluation run reached on its test districts; empty if unknown.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    found = client().get_run(run_id).data.metrics if run_id else {}
    return {name: value for name, value in found.items() if name.startswith("test_")}


def load_models(searches: pd.DataFrame) -> dict[str, Any]:
    """The best model of each family, by name, in the order of `tuned_families`.

    Raises
    ------
    TrackingError
        If the file of one is not there, or the store cannot be opened.
    """
    return {str(family): load_model(uri) for family, uri in searches["model_uri"].items()}


def tuned_families(*, data_digest: str, runs: str = "") -> pd.DataFrame:
    """The newest finished search of each family on these data, best validation RMSE first.

    Parameters
    ----------
    runs
        Only these MLflow runs, by commas; empty for any.

    Raises
    ------
    TrackingError
        If there is none, or the store cannot be opened.
    """
    wanted = f"tags.data_digest = '{data_digest}' and tags.role = 'search'"
    found = client().search_runs(
        [experiment_id("tuning")],
        filter_string=f"attributes.status = 'FINISHED' and {wanted}",
        order_by=["attributes.start_time DESC"],
        max_results=1000,
    )
    wanted_runs = [one for one in runs.split(",") if one]
    own = [one for one in found if one.info.run_id in wanted_runs or not wanted_runs]
    if not own:
        among = f" in the runs {runs}" if runs else ""
        raise TrackingError(
            f"no family was tuned on the data {data_digest}{among}. "
            "Run `03_tuning.ipynb` for at least one family first."
        )
    rows = [{"run_id": one.info.run_id, **one.data.tags, **one.data.metrics} for one in own]
    newest = pd.DataFrame(rows).drop_duplicates("family").set_index("family")
    newest["best_params"] = newest["best_params"].map(json.loads)
    return newest.sort_values("val_rmse")
