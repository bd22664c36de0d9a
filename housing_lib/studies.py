"""Where the trials of searches are kept: files of this machine, or a database that many share."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from housing_lib.errors import HousingError, OutageError
from housing_lib.settings import database_url, get_settings

HEARTBEAT_S, SILENT_S = 5, 30  # a machine that is not heard of for so long has lost its trial
AWAY_S = 120.0
POLL_S = 0.5
ATTEMPTS = 3
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
TOTAL = "total"
UNHEARD = """
    SELECT trials.number FROM trials JOIN studies USING (study_id)
    LEFT JOIN trial_heartbeats USING (trial_id)
    WHERE study_name = :name AND state = 'RUNNING' AND trial_heartbeat_id IS NULL
"""

Found = TypeVar("Found")


class StudyError(HousingError):
    """Trials that cannot be kept, or a study that is not there."""


class StudiesAwayError(StudyError, OutageError):
    """A database of trials that does not answer now."""


def is_shared() -> bool:
    """Whether trials lie in a database, where other machines can join a search."""
    return bool(get_settings().study_url)


def open_study(name: str, pruner: Any) -> optuna.Study:
    """The study of that name; a new one if there is none.

    Raises
    ------
    StudyError
        If the database cannot be used.
    """
    study = optuna.create_study(
        storage=_database() if is_shared() else _journal(name),
        study_name=name,
        pruner=pruner,
        load_if_exists=True,
    )
    if not is_shared():  # nobody else works on it (see `alone`), so what seems to run was killed
        for stale in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(stale.number, state=TrialState.FAIL)
    return study


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Be the only one on this machine at a study that others cannot join, when they are done.

    Raises
    ------
    StudyError
        If the folder of studies cannot be written.
    """
    if is_shared():
        yield
        return
    try:
        lock = FileLock(_folder() / f".{name}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
        if not lock.is_locked:
            print("Another process is at this very search; waiting for its end.", flush=True)
            lock.acquire()
    except OSError as error:
        raise StudyError(
            f"trials cannot be kept in {get_settings().studies}: {error.strerror}. "
            "HOUSING_ROOT names another place. Nothing was run."
        ) from error
    try:
        yield
    finally:
        lock.release()


def total_to_join(name: str) -> int:
    """The number of trials that whoever began a study asked for.

    Raises
    ------
    StudyError
        If there is no shared study of that name, or the database cannot be used.
    """
    if not is_shared():
        raise StudyError(
            "HOUSING_STUDY_URL names no database, so there is no search to join. Nothing was run."
        )
    try:
        return int(optuna.load_study(study_name=name, storage=_database()).user_attrs[TOTAL])
    except KeyError:
        raise StudyError(
            f"nobody began the search {name}: same family, data, seed and growth, same code, "
            "Python and packages. Begin it by `housing tune FAMILY --trials N`, or join with what "
            "the others have. Nothing was run."
        ) from None


def refuse_shared() -> None:
    """Raise where trials lie in a database, for a search whose trials must come in order.

    Raises
    ------
    StudyError
        If they do.
    """
    if is_shared():
        raise StudyError(
            "trials abreast are proposed in order by one machine, and HOUSING_STUDY_URL names a "
            "database where others may join: start `housing tune --join` there as often as you "
            "like, or unset it. Nothing was run."
        )


def patiently(work: Callable[[], Found]) -> Found:
    """What `work` returns, tried again for two minutes while the database is away.

    Raises
    ------
    StudyError
        If it stays away.
    """
    from sqlalchemy.exc import DBAPIError

    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            return work()
        except (StorageInternalError, DBAPIError) as error:
            if time.monotonic() > deadline:
                raise _cannot_use(error) from error
            time.sleep(POLL_S)


def _journal(name: str) -> BaseStorage:
    return _quietly(JournalStorage, JournalFileBackend(str(_folder() / f"{name}.log")))


def _folder() -> Path:
    folder = get_settings().studies
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _database() -> BaseStorage:
    url = database_url(get_settings().study_url)
    if url == database_url(get_settings().store_uri):
        raise StudyError(
            "HOUSING_STUDY_URL names the database of MLflow's store; Optuna and MLflow each need "
            "one of their own, for both keep the version of their tables in the same place. "
            "Create another in the same server. Nothing was run."
        )
    return _opened(url)


def _opened(url: str) -> BaseStorage:
    from sqlalchemy.pool import NullPool

    # A connection is opened anew each time, so that it outlives no server and no fork.
    for attempt in range(ATTEMPTS):
        try:
            return _quietly(
                RDBStorage,
                url,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=SILENT_S,
                engine_kwargs={"poolclass": NullPool},
            )
        except Exception as error:
            # Two that make the tables of an empty database at once get into each other's way.
            if attempt + 1 == ATTEMPTS or isinstance(error, ImportError):
                raise _cannot_use(error) from error
            time.sleep(POLL_S)
    raise AssertionError("the loop ends by returning or raising")


def run_one(study: optuna.Study, objective: Callable[[optuna.Trial], float], ends: type) -> None:
    """Run one trial with a heartbeat, so that others notice if this machine is lost.

    An error of the type `ends` fails the trial and nothing more.
    """
    try:
        _quietly(study.optimize, objective, n_trials=1, catch=(ends,))
    except UnboundLocalError as error:  # Optuna's own, where the database goes away as a trial ends
        raise error.__context__ or error from None


def fail_lost(study: optuna.Study) -> None:
    """Fail the trials of machines that are not heard of any more."""
    _quietly(optuna.storages.fail_stale_trials, study)


def fail_unheard(study: optuna.Study, since: dict[int, float]) -> None:
    """Fail running trials that were lost before their first heartbeat.

    Optuna itself would wait for them for ever.

    Parameters
    ----------
    since
        When each of them was first seen, which is kept here from call to call: the
        clocks of other machines may be wrong.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        database_url(get_settings().study_url), poolclass=sqlalchemy.pool.NullPool
    )
    with engine.connect() as connection:
        unheard = connection.scalars(sqlalchemy.text(UNHEARD), {"name": study.study_name}).all()
    for number in unheard:
        if time.monotonic() - since.setdefault(number, time.monotonic()) > SILENT_S:
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _quietly(work: Callable[..., Found], *arguments: Any, **options: Any) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return work(*arguments, **options)


def _cannot_use(error: Exception) -> StudyError:
    import sqlalchemy

    shown = get_settings().study_url.split("@")[-1]  # what stands before the @ is a password
    reason = str(error.__cause__ or error).splitlines()[0]
    is_wrong = isinstance(error, (ImportError, sqlalchemy.exc.ArgumentError))
    return (StudyError if is_wrong else StudiesAwayError)(
        f"the database of trials {shown} cannot be used: {reason}\n"
        "Expected a PostgreSQL database in HOUSING_STUDY_URL. `make setup` brings its driver, "
        "elsewhere pip install -e '.[postgres]' in Housing's folder. "
        "Trials that ended are kept."
    )
