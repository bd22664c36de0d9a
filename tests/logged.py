"""A prediction log as the server leaves it, written row by row for tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import create_engine

from housing_lib.data import FEATURES, TARGET
from housing_lib.prediction_tables import actuals, metadata, predictions
from housing_lib.settings import get_settings

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class Log:
    """A database of predictions and true prices."""

    def __init__(self, uri: str) -> None:
        self.engine = create_engine(uri)
        metadata.create_all(self.engine)

    def answer(self, rows: pd.DataFrame, *, every: timedelta, start: datetime = BEGIN) -> list[str]:
        """The ids of predictions, after logging answered rows one `every` so often."""
        answer = rows[[*FEATURES, "predicted", "low", "high", "model_version"]]
        values = [
            {
                "prediction_id": f"{start:%m%d%H%M}-{number:06d}",
                "answered_at": start + number * every,
                **row,
                "price": row["predicted"],
            }
            for number, row in enumerate(answer.to_dict("records"))
        ]
        for one in values:
            del one["predicted"]
        with self.engine.begin() as connection:
            connection.execute(predictions.insert(), values)
        return [one["prediction_id"] for one in values]

    def turn_out(self, ids: list[str], prices: pd.Series, *, at: datetime = BEGIN) -> None:
        """Log the true prices of some predictions."""
        self._record(
            {"key": key, "prediction_id": key, "price": float(price), **_times(at)}
            for key, price in zip(ids, prices, strict=True)
        )

    def turn_out_by_features(self, rows: pd.DataFrame, *, at: datetime = BEGIN) -> None:
        """Log the true prices of some districts."""
        self._record(
            {**row, "key": f"district-{number}", "price": row.pop(TARGET), **_times(at)}
            for number, row in enumerate(rows[[*FEATURES, TARGET]].to_dict("records"))
        )

    def _record(self, values) -> None:
        with self.engine.begin() as connection:
            for one in values:
                connection.execute(actuals.insert(), one)


def _times(at: datetime) -> dict[str, datetime]:
    return {"observed_at": at, "received_at": at}


def use_log(patch: pytest.MonkeyPatch, folder: Path) -> Log:
    """A new log in a folder, which this process's settings name."""
    uri = f"sqlite:///{folder / 'predictions.db'}"
    patch.setenv("HOUSING_PREDICTION_LOG", uri)
    get_settings.cache_clear()
    return Log(uri)
