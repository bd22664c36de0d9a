"""The history of monitoring in MLflow: a run a session, a step a batch, nothing logged twice."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from housing_lib import tracking
from housing_lib.monitoring import Session, overall

if TYPE_CHECKING:
    from mlflow.entities import Run

DIGESTS = "batches.json"
MOST_RUNS = 10_000  # a session an hour for a year
LOGGED = (
    *(f"batch_{name}" for name in ("rmse", "mae", "bias", "r2_score", "coverage")),
    "batch_rmse_low",
    "batch_rmse_high",
    "estimated_rmse",
    "estimated_mae",
    "num_rows_in_batch",
    "num_valid_rows_in_batch",
    "largest_shift",
    "p_value",
)


@dataclass(frozen=True)
class Logged:
    """Where a session stands in MLflow.

    `fresh` batches were logged now: those that no session had logged, and those
    that got more true prices since. Without any, `run_id` is the session that
    logged them.
    """

    run_id: str
    fresh: int
    completed: int
    known: int


def log(session: Session, *, params: dict[str, Any], tags: dict[str, str]) -> Logged:
    """Log those batches of a session that are not in MLflow as they are now.

    A batch is known by a digest of its rows and true prices, so monitoring a
    period again logs what is new in it and no more.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    past = _digests(session)
    batches = session.batches
    before = batches["key"].map({key: digest for key, (digest, _) in past.items()})
    fresh = batches[before != batches["digest"]]
    completed = int((before.notna() & (before != batches["digest"])).sum())
    if fresh.empty:
        run_id = past[batches["key"].iloc[-1]][1]
    else:
        run_id = _log_run(session, fresh, params=params, tags=tags)
    return Logged(run_id, len(fresh), completed, len(batches) - len(fresh))


def _log_run(
    session: Session, fresh: pd.DataFrame, *, params: dict[str, Any], tags: dict[str, str]
) -> str:
    verdict = session.verdict
    described = {
        "source": verdict.source,
        "model_version": str(verdict.model_version),
        "period_first": verdict.first,
        "period_last": verdict.last,
        "batches_last": str(session.batches["last"].max()),
        "state": verdict.state,
    }
    name = f"version-{verdict.model_version}"
    with tracking.run("monitoring", name, params=params, tags=described | tags) as run_id:
        series = fresh[list(LOGGED)].astype(float).rename(columns=_of_a_batch)
        tracking.log_series(run_id, series, _times(session, fresh))
        tracking.log_metrics(overall(session))
        tracking.log_metrics(verdict.evidence)
        tracking.log_table(session.shifts, "shifts")
        client = tracking.client()
        client.log_text(run_id, json.dumps(asdict(verdict)), "verdict.json")
        digests = dict(zip(fresh["key"], fresh["digest"], strict=True))
        client.log_text(run_id, json.dumps(digests), DIGESTS)
    return run_id


def _of_a_batch(name: str) -> str:
    """A name that no figure of the whole session has."""
    return name if "batch" in name else f"batch_{name}"


def _times(session: Session, batches: pd.DataFrame) -> pd.Series | None:
    if not session.traffic.timed:
        return None
    since = pd.to_datetime(batches["last"]) - pd.Timestamp(0, tz="UTC")
    return (since / pd.Timedelta(milliseconds=1)).astype("int64")


def _digests(session: Session) -> dict[str, tuple[str, str]]:
    """The digest of each batch that was logged, and the run that logged it, by the batch's key.

    Of the same source, and of sessions that did not end before this one begins.
    """
    found: dict[str, tuple[str, str]] = {}
    begins = str(session.batches["first"].min())  # of all versions, as what is logged
    for run in reversed(_runs()):
        tags = run.data.tags
        ended = max(tags.get("period_last", ""), tags.get("batches_last", ""))
        reaches = not session.traffic.timed or ended >= begins
        if tags.get("source") == session.verdict.source and reaches:
            logged = _read_digests(run.info.run_id)
            found |= {key: (digest, run.info.run_id) for key, digest in logged.items()}
    return found


def _read_digests(run_id: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    try:
        return dict(json.loads(Path(client.download_artifacts(run_id, DIGESTS)).read_text()))
    except (MlflowException, OSError, ValueError):
        return {}  # a session that was cut short, or older than this file


def _runs() -> "list[Run]":
    """The finished sessions, newest first."""
    return list(
        tracking.client().search_runs(
            [tracking.experiment_id("monitoring")],
            filter_string="attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=MOST_RUNS,
        )
    )


def history() -> pd.DataFrame:
    """All sessions, oldest first: when, of which version and period, how good, which state.

    `at` is the end of the period where its rows have times, else when the
    session was; RMSE, as realised and as estimated, in 100,000 USD.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    rows = [_row(run) for run in reversed(_runs())]
    columns = ["run_id", "at", "model_version", "source", "state", "rmse", "estimated_rmse"]
    return pd.DataFrame(rows, columns=[*columns, "rows"])


def _row(run: "Run") -> dict[str, Any]:
    tags, metrics = run.data.tags, run.data.metrics
    started = pd.Timestamp(run.info.start_time, unit="ms", tz="UTC")
    ended = pd.to_datetime(tags.get("period_last", ""), utc=True, errors="coerce")
    return {
        "run_id": run.info.run_id,
        "at": started if pd.isna(ended) else ended,
        "model_version": tags.get("model_version", ""),
        "source": tags.get("source", ""),
        "state": tags.get("state", ""),
        "rmse": metrics.get("rmse"),
        "estimated_rmse": metrics.get("estimated_rmse"),
        "rows": metrics.get("rows"),
    }
