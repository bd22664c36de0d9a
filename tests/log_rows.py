"""Rows of the prediction log, databases that hold or refuse them, and patience with both."""

import sqlite3
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy

from housing_lib.data import FEATURES
from housing_lib.prediction_tables import predictions
from serve.schemas import EXAMPLE_DISTRICT
from serve.truths import Truth


def rows(*ids):
    """Rows of the log."""
    return [(one, datetime.now(UTC), 1, *[1.0] * len(FEATURES), 2.0, 1.5, None) for one in ids]


def kept(database, ids):
    """Those of these ids that are in the database."""
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        query = sqlalchemy.select(predictions.c.prediction_id)
        found = {row[0] for row in connection.execute(query)}
    engine.dispose()
    return set(ids) & found


@contextmanager
def locked(path):
    """A block in which an SQLite database takes nothing."""
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("begin exclusive")
    try:
        yield
    finally:
        lock.execute("rollback")
        lock.close()


def waited_for(what, seconds=30):
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def fail(*given):
    raise ValueError("unexpected")


def truth_of(price, **changes):
    """A true price of the example, changed."""
    features = tuple(float((EXAMPLE_DISTRICT | changes)[name]) for name in FEATURES)
    return Truth(None, features, float(price), datetime.now(UTC))
