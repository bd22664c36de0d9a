"""A store of its own with a champion in Production, for benchmarks that would disturb another."""

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path

from housing_lib import (
    accuracy,
    data,
    deployment,
    evaluation,
    families,
    features,
    intervals,
    ledger,
    parts,
    promotion,
    registry,
    tracking,
)
from housing_lib.settings import get_settings

SHARED = ("data/processed", "data/raw")


def use_own_store():
    """Let this process and its children use a copy of this root's store, or a new one.

    The copy has two versions of one model, both compiled.
    """
    before = get_settings()
    there = before.store_uri.startswith("sqlite") and registry.stage_version("production")
    root = Path(tempfile.mkdtemp(prefix="housing-benchmark-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    if there:
        shutil.copy(before.store_uri.partition(":///")[2], root / "mlflow.db")
        for name in SHARED:
            if (before.root / name).exists():
                shutil.copytree(before.root / name, root / name)
    for name in ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    os.environ["HOUSING_ROOT"] = str(root)
    get_settings.cache_clear()
    tracking.client.cache_clear()
    if not there:
        _promote_shipped()
    _add_twin()


def _promote_shipped():
    print("No model stands in Production here: the shipped champion is fitted, some minutes ...")
    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))
    names = features.feature_names()
    manifest = parts.write_parts(
        split, source="bundled", test_share=0.20, validation_share=0.16, feature_names=names
    )
    train, val, test = (parts.load_part(name) for name in ("train", "val", "test"))
    known, prices = evaluation.unite(train, val)
    family = families.CHAMPION
    model = intervals.CalibratedModel(families.make_model(family)).fit(known, prices)
    tags = {"family": family}
    with tracking.run("evaluation", "benchmark", params={}, tags=tags) as run_id:
        uri = tracking.log_model(model, known)
        tracking.log_metrics(
            accuracy.metrics(test.y, model.predict(test.districts), prefix="test_")
        )
    tags |= {"run_id": run_id, "data_digest": manifest.data_digest}
    assert promotion.promote(registry.register(uri, tags=tags)).promoted


def _add_twin():
    """A second version of the same model, that Production can go to and back."""
    client, name = tracking.client(), get_settings().model_name
    deployment.publish(registry.stage_version("production"))
    first = client.get_model_version_by_alias(name, "production")
    twin = client.create_model_version(name, first.source, first.run_id)
    for key, value in first.tags.items():
        client.set_model_version_tag(name, twin.version, key, value)


def move_until(ended, every_s):
    """How often Production was moved, at this interval, until a condition holds."""
    client, name = tracking.client(), get_settings().model_name
    numbers = [one.version for one in client.search_model_versions(f"name = '{name}'")]
    first, twin = ledger.stage_version("production"), max(map(int, numbers))
    moved = 0
    while not ended():
        moved += 1
        client.set_registered_model_alias(name, "production", str((first, twin)[moved % 2]))
        time.sleep(every_s)
    client.set_registered_model_alias(name, "production", str(first))
    return moved
