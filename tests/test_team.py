"""A team's store, MLflow's server on PostgreSQL with artifacts in an object store, as on SQLite."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy
from object_stores import BUCKET
from serving import running_server
from stores import build_store, clear_caches, prove_on_few_more, use_root
from team_stores import running_team_store

from housing_lib import (
    accuracy,
    families,
    intervals,
    parts,
    promotion,
    registry,
    storage,
    studies,
    tracking,
)
from housing_lib.settings import get_settings
from serve.schemas import EXAMPLE_DISTRICT

AWAY_S = 10


@pytest.fixture(scope="module")
def team(store, tmp_path_factory):
    """A team's store with a model in Production; this process's settings name it."""
    root = tmp_path_factory.mktemp("team")
    with running_team_store(root) as running, pytest.MonkeyPatch.context() as patch:
        use_root(patch, root)
        patch.setenv("HOUSING_TRACKING_URI", running.address)
        patch.setenv("HOUSING_STUDY_URL", running.postgres.create("studies"))
        patch.setenv("HOUSING_PREDICTION_LOG", running.postgres.create("predictions"))
        clear_caches()
        prove_on_few_more(patch)
        build_store(store.registered.model)
        yield running
    clear_caches()


def housing(*arguments):
    """Run `housing` with the settings of this process."""
    command = [str(Path(sys.executable).with_name("housing")), *arguments]
    root = get_settings().root
    return subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)


@pytest.fixture(scope="module")
def servers(team, tmp_path_factory):
    """Two servers that share nothing but the store, each in a folder of its own."""
    named = {"HOUSING_TRACKING_URI": team.address, "HOUSING_POLL_SECONDS": "0.5"}
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    with (
        running_server(one, one / "server.log", **named) as first,
        running_server(two, two / "server.log", **named) as second,
    ):
        yield first, second


@pytest.mark.usefixtures("team")
def test_the_ledger_is_in_postgres_and_the_model_in_the_object_store():
    assert registry.load().version == 1
    assert [one.decision for one in registry.history()] == ["registered", "promoted"]
    kept = storage.files_below(f"s3://{BUCKET}/mlflow")
    for name in ("model.skops", "compiled/"):
        assert any(name in one for one in kept), name
    assert not (get_settings().root / "mlflow.db").exists()
    assert not get_settings().artifacts.exists()


@pytest.fixture(scope="module")
def better(team):
    """A model that is better than the one in Production at first."""
    train = parts.load_part("train")
    params = {"n_estimators": 60, "max_depth": 5, "learning_rate": 0.1}
    small = families.make_model("xgboost", params, repeats=1)
    return intervals.CalibratedModel(small).fit(train.districts, train.y)


def register(model):
    """The number of a new version."""
    train, test = parts.load_part("train"), parts.load_part("test")
    with tracking.run("evaluation", "better", params={}, tags={}) as run_id:
        uri = tracking.log_model(model, train.districts)
        found = model.predict(test.districts)
        tracking.log_metrics(accuracy.metrics(test.y, found, prefix="test_"))
    digest = parts.load_manifest().data_digest
    return registry.register(uri, tags={"family": "xgboost", "run_id": run_id,
                                        "data_digest": digest})  # fmt: skip


def test_two_servers_follow_what_the_gate_and_a_rollback_decide(servers, better):
    asked, lines = EXAMPLE_DISTRICT, len(registry.history())
    before = answers(servers, asked, version=1)
    decision = promotion.promote(register(better))
    assert decision.promoted, decision.reasons
    assert answers(servers, asked, version=decision.version) != before
    assert registry.rollback().version == 1
    assert answers(servers, asked, version=1) == before
    told = [(one.decision, one.version) for one in registry.history()[lines:]]
    new = decision.version
    assert told == [("registered", new), ("promoted", new), ("rolled back", 1)]


def answers(servers, asked, *, version):
    """What the servers say of a district, once they answer with a version; they say the same."""
    found = set()
    for server in servers:
        server.wait_for(lambda status: status.get("model_version") == version, seconds=90)
        found.add(server.post("/predict", json=asked).json()["predicted_median_house_value"])
    assert len(found) == 1
    return found


def test_ten_seconds_without_postgres_cost_no_trial_no_metric_and_no_answer(team, servers):
    name = study_name()
    with ThreadPoolExecutor() as pool:
        tuning = pool.submit(housing, "tune", "ridge", "--trials", "60")
        wait_for(lambda: trials_of(name) > 3)
        with tracking.run("tuning", "patient", params={"a": 1}, tags={}) as run_id:
            with away(team.postgres):
                logging = pool.submit(tracking.client().log_metric, run_id, "there", 1.0)
                told = [ask(server) for server in servers for _ in range(5)]
                time.sleep(AWAY_S)
            logging.result(timeout=90)
        joining = pool.submit(housing, "tune", "ridge", "--join")
        for done in (tuning.result(), joining.result()):
            assert done.returncode == 0, done.stderr
    assert tracking.client().get_run(run_id).data.metrics == {"there": 1.0}
    assert tracking.client().get_run(run_id).info.status == "FINISHED"
    assert trials_of(name) == 60
    for server in servers:
        server.wait_for(lambda status: status["status"] == "ready", seconds=90)
    wait_for(lambda: set(told) <= logged_answers())


def test_without_the_object_store_the_gate_holds_and_servers_answer(team, servers, better):
    version, standing = register(better), registry.stage_version("production")
    with away(team.objects):
        decision = promotion.promote(version)
        assert all(ask(server) for server in servers)
    assert decision.decision == "held"
    assert registry.stage_version("production") == standing
    assert registry.load().version == standing


def study_name():
    """The name of the search that `housing tune ridge` makes here."""
    from housing_lib import tuning

    train, val = parts.load_part("train"), parts.load_part("val")
    return tuning.study_name("ridge", train, val, seed=get_settings().seed)


def trials_of(name):
    """How many trials of a search have ended."""
    study = studies.open_study(name, None)
    return len(study.get_trials(deepcopy=False, states=studies.ENDED))


@contextmanager
def away(part):
    part.stop()
    yield
    part.start()


def ask(server):
    """The id of an answer."""
    answered = server.post("/predict", json=EXAMPLE_DISTRICT)
    assert answered.status_code == 200, answered.text
    return answered.json()["prediction_id"]


def logged_answers():
    """The ids of all answers in the database."""
    engine = sqlalchemy.create_engine(get_settings().prediction_log_uri)
    try:
        with engine.connect() as connection:
            query = sqlalchemy.text("SELECT prediction_id FROM predictions")
            return set(pd.read_sql(query, connection)["prediction_id"])
    finally:
        engine.dispose()


def wait_for(condition):
    """Wait until a condition holds; on a busy machine a command takes long to start."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
