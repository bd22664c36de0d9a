"""A small, real MLflow store with a model in Production, and processes that look at one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from housing_lib import (
    accuracy,
    data,
    deployment,
    families,
    features,
    intervals,
    parts,
    promotion,
    registry,
    tracking,
)
from housing_lib.settings import get_settings

STORE_VARIABLES = ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI", "HOUSING_MODEL_NAME")


@dataclass(frozen=True)
class Store:
    """A root with processed districts and an MLflow store, and what stands in Production there."""

    root: Path
    registered: registry.RegisteredModel
    test: pd.DataFrame


def use_root(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Point this process's settings and MLflow client at another root."""
    for name in STORE_VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("HOUSING_ROOT", str(root))
    clear_caches()


def prove_on_few_more(patch: pytest.MonkeyPatch) -> None:
    """Let compiled models be proved on all known districts, and beside them on few others."""
    patch.setattr(deployment, "SYNTHETIC_ROWS", 200)


def clear_caches() -> None:
    """Let settings and client be read anew."""
    get_settings.cache_clear()
    tracking.client.cache_clear()


def build_store(model: Any = None) -> Store:
    """Processed districts, and a model in Production of the store that settings name.

    By default a small one, which is fitted first.
    """
    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))
    manifest = parts.write_parts(
        split,
        source="bundled",
        test_share=0.20,
        validation_share=0.16,
        feature_names=features.feature_names(),
    )
    model = model or _small_model(split["train"])
    with tracking.run("evaluation", "small", params={}, tags={"family": "xgboost"}) as run_id:
        uri = tracking.log_model(model, split["train"].districts)
        test = split["test"]
        predicted = model.predict(test.districts)
        tracking.log_metrics(accuracy.metrics(test.y, predicted, prefix="test_"))
    tags = {"family": "xgboost", "run_id": run_id, "data_digest": manifest.data_digest}
    version = registry.register(uri, tags=tags)
    assert promotion.promote(version).promoted
    return Store(get_settings().root, registry.load("production"), split["test"].districts)


def _small_model(train: parts.Part) -> intervals.CalibratedModel:
    params = {"n_estimators": 40, "max_depth": 5, "learning_rate": 0.1}
    small = families.make_model("xgboost", params, repeats=1)
    some = slice(None, None, 2)  # so that a better model is easily made
    return intervals.CalibratedModel(small).fit(train.districts[some], train.y[some])
