"""MLflow's runs: one store, prepared once, whatever comes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import skops.io
from mlflow.exceptions import MlflowException

from housing_lib import connection, registry, tracked_runs, tracking, trust
from housing_lib.settings import get_settings

SLIM = """
import sys
from housing_lib import connection, registry
connection.import_slim()
assert not {"pandas", "numpy", "scipy", "sklearn"} & set(sys.modules)
print(registry.stage_version("production"))
import pandas
"""
OPEN = "from housing_lib import tracking; print(len(tracking.client().search_experiments()))"


def test_processes_that_open_a_fresh_store_at_once_do_not_break_each_other(own_root):
    command = [sys.executable, "-W", "ignore", "-c", OPEN]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert answers == [str(len(tracking.EXPERIMENTS) + 1)] * 3  # and MLflow's own Default


def test_the_registry_is_asked_without_pandas_which_can_be_imported_afterwards(own_root):
    command = [sys.executable, "-W", "ignore", "-c", SLIM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_a_registry_that_fails_is_told_with_where_production_stands():
    told = pytest.raises(tracking.TrackingError, match=r"disk is full\. Production stands where it")
    with told, connection.reaching():
        raise OSError("disk is full")


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\x00 cut off"])
def test_a_store_that_cannot_be_opened_is_named_at_once(own_root, content):
    (own_root / "mlflow.db").write_bytes(content * 100)
    with pytest.raises(tracking.TrackingError, match="cannot be opened"):
        tracking.client()


def test_a_store_whose_name_no_system_takes_is_no_absent_one(own_root, monkeypatch):
    monkeypatch.setenv("HOUSING_TRACKING_URI", f"sqlite:///{own_root}/{'x' * 300}/mlflow.db")
    get_settings.cache_clear()
    with pytest.raises(tracking.TrackingError, match="cannot be opened"):
        registry.stage_version("production")


def test_a_password_in_the_address_is_not_shown(own_root, monkeypatch):
    monkeypatch.setenv("HOUSING_TRACKING_URI", "postgresql://me:canary@127.0.0.1:1/none")
    get_settings.cache_clear()
    with pytest.raises(tracking.TrackingError) as caught:
        tracking.client()
    assert "canary" not in str(caught.value)


def test_a_series_is_one_run_with_a_step_a_row(store):
    series = pd.DataFrame({"batch_rmse": [0.5, None, 0.7], "rows": [10, 0, 10]})
    with tracking.run("monitoring", "series", params={}, tags={}) as run_id:
        tracking.log_series(run_id, series)
    steps = tracking.client().get_metric_history(run_id, "batch_rmse")
    assert [(one.step, one.value) for one in steps] == [(0, 0.5), (2, 0.7)]


def test_a_run_that_fails_is_marked_failed(store):
    with (
        pytest.raises(ZeroDivisionError),
        tracking.run("tuning", "x", params={}, tags={}) as run_id,
    ):
        raise ZeroDivisionError
    assert tracking.client().get_run(run_id).info.status == "FAILED"


def test_a_model_of_unknown_types_is_not_logged(store):
    class Stranger:
        def predict(self, districts):
            return districts["MedInc"]

    rows = store.test.head(5)
    with (
        pytest.raises(trust.TrustError, match="TRUSTED_TYPES does not name"),
        tracking.run("tuning", "x", params={}, tags={}),
    ):
        tracking.log_model(Stranger(), rows)


@pytest.mark.parametrize("delay_s", [0.1, 0.4])
def test_a_store_whose_making_was_killed_can_be_opened(delay_s, tmp_path):
    environment = os.environ | {"HOUSING_ROOT": str(tmp_path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-W", "ignore", "-c", OPEN]
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and not list(tmp_path.rglob("mlflow.db")):
        time.sleep(0.01)
    time.sleep(delay_s)
    process.kill()
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_stored_model_of_unknown_types_is_not_unpacked():
    stored = skops.io.dumps({"one": Path("somewhere")})
    with pytest.raises(trust.TrustError, match=r"Nothing was loaded"):
        trust.unpack_model(stored)


def test_an_mlflow_server_that_goes_away_is_not_taken_for_one_without_the_runs(monkeypatch):
    class Away:
        def get_run(self, run_id):
            raise MlflowException("connection refused")

    monkeypatch.setattr(tracked_runs, "client", Away)
    with pytest.raises(tracking.TrackingError, match="connection refused"):
        tracked_runs.finished_runs(["a"])


def test_no_search_on_these_data_says_what_to_do(store):
    with pytest.raises(tracking.TrackingError, match="no family was tuned on the data 0000"):
        tracking.tuned_families(data_digest="0000")


def test_a_store_that_is_not_there_holds_nothing_and_is_not_made(own_root):
    assert tracked_runs.runs_of("a-run") == {}
    assert tracked_runs.finished_runs(["a"]) == set()
    assert tracked_runs.finished_runs(["a"]) == set()
    assert registry.source_runs() == set()
    assert not list(own_root.iterdir())
