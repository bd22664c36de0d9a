"""Versions, stages, promotion and the way back, on a real MLflow store."""

import shutil

import numpy as np
import pytest

from housing_lib import data, families, parts, registry, tracking


@pytest.fixture
def own(store, own_root):
    """A copy of the store that a test may change; its artifacts stay where they are."""
    shutil.copy(store.root / "mlflow.db", own_root / "mlflow.db")
    shutil.copytree(store.root / "data", own_root / "data")
    return own_root


def _register(rows: int, *, family: str = "ridge") -> int:
    train = parts.load_part("train")
    model = families.make_model(family).fit(train.districts.head(rows), train.y[:rows])
    with tracking.run("evaluation", family, params={}, tags={"family": family}) as run_id:
        uri = tracking.log_model(model, train.districts)
    digest = parts.load_manifest().data_digest
    tags = {"family": family, "run_id": run_id, "data_digest": digest}
    return registry.register(uri, tags=tags)


def test_a_new_version_stands_in_staging_with_its_tags(own):
    version = _register(500)
    assert registry.stage_version("staging") == version
    tags = tracking.client().get_model_version("california-housing", str(version)).tags
    assert {"family", "run_id", "data_digest", "artifact_sha256", "decision"} <= set(tags)


def test_a_worse_model_is_held_and_production_stays(own):
    before = registry.stage_version("production")
    decision = registry.promote(_register(500))
    assert decision.decision == "held"
    assert "above that of version" in decision.reasons[0]
    assert registry.stage_version("production") == before


def test_a_better_model_goes_to_production_and_rollback_brings_the_old_one_back(own):
    test = parts.load_part("test").districts
    old = registry.load()
    before = old.model.predict(test)
    decision = registry.promote(_register(13_000, family="xgboost"))
    assert decision.promoted
    assert registry.stage_version("production") == decision.version
    assert registry.stage_version("previous") == old.version
    assert registry.rollback().version == old.version
    np.testing.assert_array_equal(registry.load().model.predict(test), before)


def test_every_decision_is_in_the_history(own):
    registry.promote(_register(500))
    decisions = registry.history()
    assert [one.decision for one in decisions] == ["promoted", "held"]
    assert all(one.who and one.when and one.reasons[0] for one in decisions)


def test_a_changed_artifact_is_refused_before_it_is_unpacked(own):
    version = _register(500)
    path = tracking.model_file(f"models:/california-housing/{version}")
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(registry.RegistryError, match=f"version {version}: model.skops is not"):
        registry.load_version(version)
    assert registry.promote(version).decision == "held"


def test_what_goes_wrong_in_the_gate_holds(own):
    version = _register(13_000, family="xgboost")
    before = registry.stage_version("production")
    (own / "data" / "processed" / "manifest.json").unlink()
    decision = registry.promote(version)
    assert decision.decision == "held"
    assert "the gate could not judge" in decision.reasons[0]
    assert registry.stage_version("production") == before


def test_an_empty_registry_says_what_to_do(own_root):
    with pytest.raises(registry.RegistryError, match="stands in Production"):
        registry.load()
    with pytest.raises(registry.RegistryError, match="no version stands in Staging"):
        registry.promote()
    with pytest.raises(registry.RegistryError, match="no version stands before"):
        registry.rollback()
    with pytest.raises(registry.RegistryError, match="has no version 9"):
        registry.load_version(9)
    with pytest.raises(registry.RegistryError, match="has no version 7"):
        registry.promote(7)
    with pytest.raises(registry.RegistryError, match="has no version 0"):
        registry.rollback(0)
    assert registry.history() == []


def test_the_model_comes_back_as_it_was_logged(store):
    train = parts.load_part("train")
    model = families.make_model("ridge").fit(train.districts, train.y)
    with tracking.run("evaluation", "again", params={}, tags={}):
        loaded = tracking.load_model(tracking.log_model(model, train.districts))
    rows = data.acquire().head(50)
    np.testing.assert_array_equal(loaded.predict(rows), model.predict(rows))
