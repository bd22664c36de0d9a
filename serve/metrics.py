"""What Prometheus reads of the server."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serve.champion import Following
from serve.prediction_log import PredictionLog

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
latency = Histogram(
    "housing_request_seconds",
    "Time to answer, by route and model version.",
    ["route", "version"],
    buckets=SECONDS,
)
answers = Counter(
    "housing_requests_total", "Requests answered, by route and status.", ["route", "status"]
)
refused = Counter("housing_errors_total", "Requests not answered as asked, by kind.", ["kind"])
in_flight = Gauge("housing_in_flight", "Requests at work.", multiprocess_mode="livesum")
rows = Counter("housing_predictions_total", "Districts predicted, by model version.", ["version"])
model_version = Gauge(
    "housing_model_version", "The version that answers.", multiprocess_mode="livemin"
)
model_age = Gauge(
    "housing_model_age_seconds", "Since when that version answers.", multiprocess_mode="livemax"
)
alias_lag = Gauge(
    "housing_alias_lag_seconds",
    "For how long Production has been another version than the one that answers.",
    multiprocess_mode="livemax",
)
degraded = Gauge(
    "housing_degraded", "1 while the server cannot follow Production.", multiprocess_mode="livemax"
)
log_waiting = Gauge(
    "housing_log_waiting", "Predictions not in the database yet.", multiprocess_mode="livesum"
)
log_dropped = Gauge(
    "housing_log_dropped", "Predictions that could not be kept.", multiprocess_mode="livesum"
)
log_spooled = Gauge(
    "housing_log_spooled", "Predictions that went through the spool.", multiprocess_mode="livesum"
)


ROUTES = frozenset(
    [
        *("/", "/predict", "/predict/batch", "/actuals", "/model", "/districts"),
        *("/districts/nearest", "/metrics", "/docs", "/openapi.json"),
        *("/health/live", "/health/ready"),
    ]
)
_children: dict[tuple[str, int, int], tuple[Any, Any]] = {}


def note(path: str, status: int, version: int, seconds: float) -> None:
    """Count one request that has been answered."""
    route = path if path in ROUTES else "other"
    found = _children.get((route, status, version))
    if found is None:
        found = (latency.labels(route, version), answers.labels(route, status))
        _children[route, status, version] = found
    found[0].observe(seconds)
    found[1].inc()


def observe(following: Following, log: PredictionLog, *, at_work: int) -> None:
    """Set what changes without a request."""
    champion = following.champion
    in_flight.set(at_work)
    model_version.set(champion.release.version if champion else 0)
    model_age.set(time.time() - champion.loaded_at.timestamp() if champion else 0)
    alias_lag.set(following.lag_seconds)
    degraded.set(bool(following.problem))
    log_waiting.set(log.waiting)
    log_dropped.set(log.dropped)
    log_spooled.set(log.spooled)


def page(folder: str | None) -> tuple[bytes, str]:
    """All metrics as text and its content type; of all workers, if `folder` is theirs."""
    registry: Any = REGISTRY
    if folder:
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _forget_the_dead(folder: Path) -> None:
    """Leave what workers that are no more had last shown out of what is shown now."""
    workers = {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}
    for worker in workers:
        try:
            os.kill(worker, 0)
        except (ProcessLookupError, PermissionError):  # nobody, or somebody else by now
            with contextlib.suppress(FileNotFoundError):  # another worker does the same
                mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


_counted: dict[int, Any] = {}


def count(version: int, districts: int) -> None:
    """Count districts that a version has predicted."""
    found = _counted.get(version)
    if found is None:
        found = _counted[version] = rows.labels(version)
    found.inc(districts)
