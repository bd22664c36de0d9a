"""What several test files share: a small, real MLflow store with a model in Production."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from housing_lib import data, families, features, parts, registry, tracking
from housing_lib.settings import get_settings

STORE_VARIABLES = ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI", "HOUSING_MODEL_NAME")


@dataclass(frozen=True)
class Store:
    """A root with processed districts and an MLflow store, and what stands in Production there."""

    root: Path
    registered: registry.RegisteredModel
    test: pd.DataFrame


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for the whole session, built from the bundled data in seconds; only to be read."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, root)
        yield _build(root)
    clear_caches()


@pytest.fixture
def own_root(tmp_path: Path) -> Iterator[Path]:
    """A root of its own for one test, empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, tmp_path)
        yield tmp_path
    clear_caches()


def use_root(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Point this process's settings and MLflow client at another root."""
    for name in STORE_VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("HOUSING_ROOT", str(root))
    clear_caches()


def clear_caches() -> None:
    """Let settings and client be read anew."""
    get_settings.cache_clear()
    tracking.client.cache_clear()


def _build(root: Path) -> Store:
    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))
    manifest = parts.write_parts(
        split,
        source="bundled",
        test_share=0.20,
        validation_share=0.16,
        feature_names=features.feature_names(),
    )
    train = split["train"]
    model = families.make_model("xgboost", {"n_estimators": 40, "max_depth": 5})
    model.fit(train.districts, train.y)
    with tracking.run("evaluation", "small", params={}, tags={"family": "xgboost"}) as run_id:
        uri = tracking.log_model(model, train.districts)
    tags = {"family": "xgboost", "run_id": run_id, "data_digest": manifest.data_digest}
    version = registry.register(uri, tags=tags)
    assert registry.promote(version).promoted
    return Store(root, registry.load("production"), split["test"].districts)
