"""What the MLflow store holds, asked in milliseconds: MLflow alone takes seconds to import."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from housing_lib.errors import HousingError, OutageError
from housing_lib.settings import get_settings

_FINISHED = (
    "SELECT run_uuid FROM runs WHERE run_uuid IN :ids "
    "AND status = 'FINISHED' AND lifecycle_stage = 'active'"
)
_OPEN = (
    "SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
    "WHERE runs.status = 'RUNNING' AND tags.key = 'pipeline_run' AND tags.value = :run"
)
_VERSION = "SELECT version FROM registered_model_aliases WHERE name = :name AND alias = :alias"


class StoreError(OutageError):
    """A store that does not answer."""


class StoreAddressError(HousingError):
    """An address that no store can have."""


def finished_runs(wanted: Iterable[str]) -> set[str]:
    """Those of the MLflow runs that are finished and not deleted; none without a store.

    Raises
    ------
    StoreError
        If the store does not answer.
    TrackingError
        If the MLflow server cannot be opened.
    """
    ids = list(wanted)
    if get_settings().store_is_server:
        from housing_lib import tracked_runs

        return tracked_runs.finished_runs(ids)
    return {row[0] for row in _rows(_FINISHED, ids=ids)}


def has_open_runs(pipeline_run: str) -> bool:
    """Whether a pipeline run left MLflow runs open; true as well where nobody can tell quickly.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    return get_settings().store_is_server or bool(_rows(_OPEN, run=pipeline_run))


def version_in(stage: str) -> int | None:
    """The version of the registered model that stands in a stage, or None.

    Raises
    ------
    StoreError
        If the store does not answer.
    TrackingError
        If the MLflow server does not answer.
    """
    if get_settings().store_is_server:
        from housing_lib import registry

        return registry.stage_version(stage)
    rows = _rows(_VERSION, name=get_settings().model_name, alias=stage)
    return int(rows[0][0]) if rows else None


def _rows(query: str, **values: Any) -> list[Any]:
    import sqlalchemy
    from sqlalchemy import bindparam, text

    uri = get_settings().store_uri
    several: list[Any] = [bindparam(name, expanding=True) for name in values if name == "ids"]
    try:
        if uri.startswith("sqlite") and not Path(sqlalchemy.make_url(uri).database or "").exists():
            return []  # and asking would make an empty one
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(text(query).bindparams(*several), values).all())
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        if "no such table" in str(error) or "does not exist" in str(error):
            return []
        is_wrong = isinstance(error, (sqlalchemy.exc.ArgumentError, ImportError))
        raise (StoreAddressError if is_wrong else StoreError)(
            f"the MLflow store does not answer: {str(error).splitlines()[0]}\n"
            "Expected an SQLite file, a PostgreSQL database or an MLflow server; "
            "HOUSING_TRACKING_URI names another. Nothing was run."
        ) from None
