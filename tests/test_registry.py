"""Versions, promotion through the gate, and the way back, on a real MLflow store."""

import copy
import shutil
import sqlite3
import time

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from sklearn.ensemble import VotingRegressor
from stores import clear_caches, prove_on_few_more, use_root
from typer.testing import CliRunner

from housing_lib import (
    accuracy,
    cli,
    compiling,
    data,
    deployment,
    families,
    features,
    gate,
    ledger,
    parts,
    promotion,
    registry,
    tracking,
)
from housing_lib.settings import get_settings


@pytest.fixture
def own(store, own_root, monkeypatch):
    """A copy of the store that a test may change; its artifacts stay where they are."""
    prove_on_few_more(monkeypatch)
    copy_store(store.root, own_root)
    return own_root


def copy_store(root, to):
    shutil.copy(root / "mlflow.db", to / "mlflow.db")
    shutil.copytree(root / "data", to / "data", dirs_exist_ok=True)


@pytest.fixture(scope="module")
def better(store):
    """A model that is clearly better than the one in Production."""
    train = parts.load_part("train")
    params = {"n_estimators": 100, "max_depth": 5, "learning_rate": 0.1}
    return families.make_model("xgboost", params, repeats=1).fit(train.districts, train.y)


@pytest.fixture(scope="module")
def poor(store):
    """A model that is clearly worse."""
    train = parts.load_part("train")
    return families.make_model("ridge").fit(train.districts.head(500), train.y[:500])


@pytest.fixture(scope="module")
def _with_better(store, better, tmp_path_factory):
    root = tmp_path_factory.mktemp("better")
    copy_store(store.root, root)
    with pytest.MonkeyPatch.context() as patch:
        use_root(patch, root)
        version = _register(better)
    clear_caches()
    return root, version


@pytest.fixture
def challenger(_with_better, own):
    """The number of a version in that copy that is clearly better; its artifact is shared."""
    root, version = _with_better
    copy_store(root, own)
    return version


def _register(model, *, measured: bool = True) -> int:
    test = parts.load_part("test")
    with tracking.run("evaluation", "a test", params={}, tags={}) as run_id:
        uri = tracking.log_model(model, test.districts)
        if measured:
            predicted = model.predict(test.districts)
            tracking.log_metrics(accuracy.metrics(test.y, predicted, prefix="test_"))
    digest = parts.load_manifest().data_digest
    return registry.register(uri, tags={"family": "test", "run_id": run_id, "data_digest": digest})


def _forget_store(monkeypatch, uri=""):
    if uri:
        monkeypatch.setenv("HOUSING_TRACKING_URI", uri)
    get_settings.cache_clear()
    tracking.client.cache_clear()


def test_a_new_version_stands_in_staging_with_its_tags(own, poor):
    version = _register(poor)
    assert registry.stage_version("staging") == version
    tags = tracking.client().get_model_version("california-housing", str(version)).tags
    assert {"family", "run_id", "data_digest", "artifact_sha256", "decision"} <= set(tags)


def test_a_worse_model_is_held_for_every_reason_and_production_stays(own, poor):
    before = registry.stage_version("production")
    decision = promotion.promote(_register(poor))
    assert decision.decision == "held"
    assert any(f"gain over version {before} is −$" in reason for reason in decision.reasons)
    assert any("gain in Los Angeles" in reason for reason in decision.reasons)
    assert registry.stage_version("production") == before


def test_a_better_model_goes_to_production_and_rollback_brings_the_old_one_back(own, better):
    test = parts.load_part("test").districts
    old = registry.load()
    before = old.model.predict(test)
    decision = promotion.promote(_register(better))
    assert decision.promoted
    _is_compiled(decision)
    assert registry.stage_version("production") == decision.version
    assert registry.stage_version("previous") == old.version
    started = time.process_time()  # other tests beside this one take none of it
    assert registry.rollback().version == old.version
    assert time.process_time() - started < 2
    np.testing.assert_array_equal(registry.load().model.predict(test), before)
    assert registry.rollback().version == decision.version


def _is_compiled(decision):
    """Whether the file of servers lies beside the model, as the ledger says."""
    tags = registry.tags_of(decision.version)
    digest = tags[deployment.TAG]
    assert decision.evidence["rules"][-1]["figure"] == f"proved equal, SHA-256 {digest[:12]}"
    stored = tracking.client().list_artifacts(tags["run_id"], "compiled")
    assert [one.path for one in stored] == [f"compiled/{digest}.npz"]


def test_a_model_that_the_server_could_not_hold_is_held_and_the_reason_named(own, better):
    mean = VotingRegressor([("only", better.near_)])
    mean.estimators_ = [better.near_]
    of_means = VotingRegressor([("only", mean)])  # no compiled form knows it
    of_means.estimators_ = [mean]
    unknown = copy.deepcopy(better)
    unknown.near_ = of_means
    _is_held(_register(unknown), "compiling it for the server failed: a mean of other than")


def test_arrays_that_are_not_the_model_are_held(challenger, monkeypatch):
    monkeypatch.setattr(compiling, "ROTATIONS_DEGREES", (1, 2, 3, 4, 5))
    _is_held(challenger, "compiling it for the server failed: the compiled model is not")


def test_the_same_model_again_is_held(own, better):
    assert promotion.promote(_register(better)).promoted
    again = promotion.promote(_register(better))
    assert again.reasons == ["the gain over version 2 is $0 to $0 (asked: lower end above $200)"]


def test_the_gate_shows_its_table_without_deciding(challenger):
    lines = len(registry.history())
    found = promotion.assess(challenger)
    assert found.passed
    assert {"ledger", "test RMSE", "gain over version 1", "gain in capped districts"} <= {
        rule.name for rule in found.rules
    }
    assert len(registry.history()) == lines
    assert registry.stage_version("production") == 1


def test_the_gate_takes_under_twenty_seconds(challenger):
    started = time.perf_counter()
    promotion.assess(challenger)
    assert time.perf_counter() - started < 20


def test_every_decision_is_in_the_ledger_with_its_evidence(own, poor):
    promotion.promote(_register(poor))
    lines = registry.history()
    assert [one.decision for one in lines] == ["registered", "promoted", "registered", "held"]
    assert [one.line for one in lines] == [1, 2, 3, 4]
    assert all(one.who and one.when and one.reasons[0] and one.command for one in lines)
    assert {"test_rmse", "incumbent_test_rmse", "gain"} <= set(lines[-1].metrics)
    assert lines[-1].evidence["data_digest"] == parts.load_manifest().data_digest
    held = {rule["name"] for rule in lines[-1].rules if not rule["passed"]}
    assert "gain over version 1" in held


def test_a_changed_artifact_is_refused_before_it_is_unpacked(own, better):
    version = _register(better)
    path = tracking.model_file(f"models:/california-housing/{version}")
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(registry.RegistryError, match=f"version {version}: model.skops is not"):
        registry.load_version(version)
    _is_held(version, "model.skops is not the one that was registered")
    path.unlink()
    _is_held(version, "No such file")


def _is_held(version, why):
    decision = promotion.promote(version)
    assert decision.decision == "held"
    assert why in decision.reasons[0]
    assert registry.stage_version("production") == 1
    assert registry.history()[-1].reasons == decision.reasons


def test_a_metric_that_was_never_recorded_holds(own, better):
    _is_held(_register(better, measured=False), "the recorded test RMSE is missing")


def test_an_exception_in_a_rule_holds(challenger, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(gate, "gains", broken)
    _is_held(challenger, "gains cannot be asked: no such thing")


def test_rows_that_changed_hold(own, challenger):
    districts = parts.load_part("test").districts
    whole = data.acquire()
    changed = whole.assign(MedHouseVal=whole["MedHouseVal"] + 1)
    split = features.preprocess(changed, data.split(changed))
    parts.write_parts(
        split,
        source="other",
        test_share=0.20,
        validation_share=0.16,
        feature_names=features.feature_names(),
    )
    assert len(parts.load_part("test").districts) == len(districts)
    _is_held(challenger, "the gate cannot be asked")
    (own / "data" / "processed" / "manifest.json").unlink()
    _is_held(challenger, "the gate cannot be asked")


def test_a_store_that_is_locked_holds(own, challenger, monkeypatch):
    _forget_store(monkeypatch)
    with sqlite3.connect(own / "mlflow.db") as blocker:
        blocker.execute("BEGIN EXCLUSIVE")
        _is_held_without_a_line(challenger)
        blocker.rollback()
    blocker.close()
    assert registry.stage_version("production") == 1


def _is_held_without_a_line(version):
    decision = promotion.promote(version)
    assert decision.decision == "held"
    assert "the registry cannot be asked or written" in decision.reasons[0]
    assert "read or written" not in decision.reasons[0]  # the same again
    assert "`housing history` tells" in decision.reasons[1]


def test_a_store_that_is_gone_or_cannot_be_written_holds(own, challenger, monkeypatch):
    monkeypatch.chdir(own)  # SQLAlchemy's address of a file is no path, and MLflow makes one of it
    _forget_store(monkeypatch, f"sqlite:///file:{own / 'mlflow.db'}?mode=ro&uri=true")
    _is_held_without_a_line(challenger)
    (own / "mlflow.db").rename(own / "away.db")
    _forget_store(monkeypatch)
    _is_held_without_a_line(challenger)
    (own / "away.db").rename(own / "mlflow.db")
    _forget_store(monkeypatch, f"sqlite:///{own / 'mlflow.db'}")
    assert registry.stage_version("production") == 1


def test_a_registry_that_goes_away_while_it_is_read_is_named(own, monkeypatch):
    def away(*_, **__):
        raise MlflowException("connection refused")

    monkeypatch.setattr(tracking.client(), "search_model_versions", away)
    line = ledger.Decision("held", 1, 1, ["a test"])
    for ask in (ledger.history, ledger.damage, lambda: ledger.append(line), registry.source_runs):
        with pytest.raises(tracking.TrackingError, match="connection refused"):
            ask()


def test_there_is_no_way_back_to_a_version_that_never_stood_there(challenger):
    with pytest.raises(registry.RegistryError, match="never stood in Production"):
        registry.rollback(challenger)
    with pytest.raises(registry.RegistryError, match="stands in Production already"):
        registry.rollback(1)
    assert registry.stage_version("production") == 1


def test_the_reason_of_a_rollback_stands_in_the_ledger_in_one_line(own, challenger):
    name = get_settings().model_name
    tracking.client().set_registered_model_alias(name, "production", str(challenger))
    run = CliRunner().invoke
    long = run(cli.app, ["rollback", "--to", "1", "--why", "x" * 501])
    assert long.exit_code == 2
    assert "has 501 characters; expected at most 500" in long.stderr
    assert registry.stage_version("production") == challenger
    done = run(cli.app, ["rollback", "--to", "1", "--why", "prices in [LA]\nare wrong "])
    assert done.exit_code == 0
    told = "asked for by a person: prices in [LA] are wrong"
    assert registry.history()[-1].reasons == [told]
    assert told in " ".join(run(cli.app, ["history"], env={"COLUMNS": "250"}).stdout.split())


def test_a_version_put_into_production_past_the_gate_holds_until_a_person_says_it_shall_stand(
    own, better, poor
):
    smuggled, version = _register(poor), _register(better)
    tracking.client().set_registered_model_alias("california-housing", "production", str(smuggled))
    decision = promotion.promote(version)
    assert "not whole: Production is at version 2, not 1" in decision.reasons[0]
    assert registry.stage_version("production") == smuggled
    assert registry.rollback(1).promoted
    assert ledger.damage() == []
    assert promotion.promote(version).promoted


def test_a_line_that_was_removed_or_changed_is_named(own, poor):
    promotion.promote(_register(poor))
    opened = tracking.client()
    opened.delete_model_version("california-housing-ledger", "3")
    opened.set_model_version_tag("california-housing-ledger", "4", "evidence", "{}")
    assert ledger.damage() == [
        "line 3 is missing",
        "line 4 does not hold the evidence that was written",
    ]


def test_an_empty_registry_says_what_to_do(empty_store):
    with pytest.raises(registry.RegistryError, match="stands in Production"):
        registry.load()
    with pytest.raises(registry.RegistryError, match="no version stands in Staging"):
        promotion.promote()
    with pytest.raises(registry.RegistryError, match="no version stands before"):
        registry.rollback()
    with pytest.raises(registry.RegistryError, match="has no version 9"):
        registry.load_version(9)
    with pytest.raises(registry.RegistryError, match="has no version 7"):
        promotion.promote(7)
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
