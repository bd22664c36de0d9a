"""The two tables of the prediction log: what the server answered, and what turned out true."""

import time

from sqlalchemy import Column, DateTime, Engine, Float, Integer, MetaData, String, Table
from sqlalchemy.exc import DatabaseError

from housing_lib.contract import FEATURES

ATTEMPTS = 10
PAUSE_S = 0.05
metadata = MetaData()
predictions = Table(
    "predictions",
    metadata,
    Column("prediction_id", String(64), primary_key=True),
    Column("answered_at", DateTime(timezone=True), nullable=False, index=True),
    Column("model_version", Integer, nullable=False),
    *(Column(name, Float) for name in FEATURES),
    Column("price", Float, nullable=False),
    Column("low", Float),
    Column("high", Float),
)
actuals = Table(
    "actuals",
    metadata,
    Column("key", String(64), primary_key=True),  # a prediction's id, or a digest of the features
    Column("prediction_id", String(64)),
    *(Column(name, Float) for name in FEATURES),
    Column("price", Float, nullable=False),
    Column("observed_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False, index=True),
)


def make_tables(engine: Engine) -> None:
    """Make the tables that are not there yet, while others may be making them too."""
    for left in reversed(range(ATTEMPTS)):
        try:
            metadata.create_all(engine)
        except DatabaseError as error:
            if not left or "already exists" not in str(error):
                raise
            time.sleep(PAUSE_S)  # another one was between our look and our making
        else:
            return
