"""The door to the MLflow store: one client for the process, of a store that is prepared once."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from housing_lib.errors import HousingError, OutageError
from housing_lib.files import atomic_path
from housing_lib.runs import PastRun, past_runs
from housing_lib.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENTS = {
    "tuning": "housing-tuning",
    "evaluation": "housing-evaluation",
    "monitoring": "Monitoring_california-housing",
}
MODEL_FILE = "model.skops"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
TABLES = ("numpy", "pandas", "pyarrow", "scipy")
_ABSENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    RETRIES: "1",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)


Found = TypeVar("Found")


class TrackingError(HousingError):
    """A store that cannot be opened, or runs that are not in it."""


class StoreAwayError(TrackingError, OutageError):
    """A store that cannot be opened, read or written now; the same may succeed later."""


@contextmanager
def reaching() -> Iterator[None]:
    """Turns what MLflow raises where it cannot read or write into an error that says so.

    Raises
    ------
    StoreAwayError
        If the block raised MLflow's own error or an `OSError`.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise StoreAwayError(
            f"the registry cannot be read or written: {first_line(error)}. Production stands "
            "where it stood, unless `housing history` shows a new line on it."
        ) from error


def or_none(ask: Callable[[], Found]) -> Found | None:
    """What MLflow answers, or None where it knows no such thing, or there is no store yet.

    Raises
    ------
    TrackingError
        If it does not answer.
    """
    if is_absent():
        return None
    from mlflow.exceptions import MlflowException

    with reaching():
        try:
            return ask()
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without what SQLAlchemy puts before it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a")]
    return lines[0].rstrip(".") if lines else type(error).__name__


def import_slim() -> None:
    """Import MLflow as `mlflow-skinny` is, without pandas and the like, in two thirds of the time.

    For a process that reads and writes the registry and nothing else: models
    cannot be logged in it. One that has pandas already imports MLflow as ever.
    """
    absent = () if sys.modules.keys() & set(TABLES) else TABLES
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # which makes an import of it fail
    try:
        import mlflow  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]


@lru_cache(maxsize=1)
def client() -> "MlflowClient":
    """The client of the project's MLflow store, which exists with its experiments afterwards.

    Raises
    ------
    TrackingError
        If the store cannot be opened.
    """
    import mlflow

    # What it says with a long traceback, the errors here say in a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = get_settings().store_uri
    _refuse_broken_database(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        # Two processes that create the schema of a fresh database at once break each other.
        with FileLock(get_settings().root.resolve() / "mlflow.db.lock"):
            _make_database(uri)
            opened = mlflow.MlflowClient(uri)
            _create_experiments(opened)
    except Exception as error:
        raise _cannot_open(uri, error) from error
    return opened


def _make_database(uri: str) -> None:
    """Let a file that is not there yet hold all tables, or else nothing: whoever is killed."""
    import mlflow

    if is_absent():
        with atomic_path(_file_of(uri)) as temporary:
            mlflow.MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)


def is_absent() -> bool:
    """Whether the store is a file of SQLite that could be there, and is not, or holds nothing.

    Who only reads finds nothing in it then, and asks no client, which would make one.
    """
    uri = get_settings().store_uri
    if not uri.startswith("sqlite:///") or "?" in uri:
        return False
    try:
        return _holds_nothing(_file_of(uri))
    except OSError:  # as in a folder that is closed to us: who opens it says so
        return False


def _holds_nothing(path: Path) -> bool:
    if not path.exists():
        return path.parent.is_dir() or path.parent == get_settings().root.resolve()
    return path.is_file() and not path.stat().st_size


def refuse_lost() -> None:
    """Refuse to take a store that is lost for one that was never made, where reports tell of it.

    Raises
    ------
    StoreAwayError
        If the store is not there, and reports hold runs that registered versions in one.
    """
    told = [run for run in past_runs() if _champion(run).get("version")] if is_absent() else []
    if told:
        one, version = told[0], _champion(told[0])
        many = f"{len(told)} {'run' if len(told) == 1 else 'runs'} that registered a version"
        raise StoreAwayError(
            f"the MLflow store {get_settings().store_uri} is not there, but "
            f"{get_settings().reports} holds {many}, {one.id} the newest (version "
            f"{version['version']} {version.get('decision', 'registered')}). Bring the store's "
            "file back, or name the store in HOUSING_TRACKING_URI; `housing run` would begin a new "
            "one. Nothing was changed."
        )


def _champion(run: PastRun) -> dict[str, Any]:
    return run.content.get("champion") or {}


def _file_of(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def _refuse_broken_database(uri: str) -> None:
    # MLflow itself tries for minutes before it says that a database cannot be opened.
    import sqlalchemy

    if get_settings().store_is_server:
        return
    try:
        get_settings().root.mkdir(parents=True, exist_ok=True)
        if not is_absent():  # to look would make an empty file
            with sqlalchemy.create_engine(uri).connect() as connection:
                sqlalchemy.inspect(connection).get_table_names()
    except Exception as error:
        raise _cannot_open(uri, error) from error


def _cannot_open(uri: str, error: Exception) -> TrackingError:
    shown = uri.split("@")[-1]  # what stands before the @ is a password
    kind = StoreAwayError if _may_pass(error) else TrackingError
    return kind(
        f"the MLflow store {shown} cannot be opened: {first_line(error)}\n"
        "Expected an SQLite file that can be written, a PostgreSQL database or an MLflow server; "
        "HOUSING_TRACKING_URI names another. Nothing was logged."
    )


def _may_pass(error: Exception) -> bool:
    """Whether the store is away, rather than none."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    of_servers = (MlflowException,) if get_settings().store_is_server else ()
    return isinstance(error, (OperationalError, OSError, *of_servers))


def _create_experiments(opened: "MlflowClient") -> None:
    local = get_settings().store_uri.startswith("sqlite")
    for name in EXPERIMENTS.values():
        if opened.get_experiment_by_name(name) is None:
            place = (get_settings().artifacts / name).as_uri() if local else None
            opened.create_experiment(name, artifact_location=place)


def model_file(uri: str) -> Path:
    """The local file of a logged model, fetched if the artifacts lie elsewhere.

    Raises
    ------
    TrackingError
        If it is not there, or the store cannot be opened.
    """
    import mlflow

    client()
    try:
        path = Path(mlflow.artifacts.download_artifacts(uri)) / MODEL_FILE
        path.stat()
    except Exception as error:
        raise TrackingError(
            f"the artifact of {uri} cannot be read: {first_line(error)}. Nothing was loaded."
        ) from error
    return path
