"""The search of one family."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from clusters import kill_busy_worker
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_info

from housing_lib import compute, data, families, features, keys, studies, tuning
from housing_lib.accuracy import metrics

pytestmark = pytest.mark.usefixtures("own_root")
QUICK = 0.2  # the share of its trees that a family grows, where their number is no matter


@pytest.fixture(scope="module")
def split():
    districts = data.acquire().sample(3_000, random_state=0)
    return features.preprocess(districts, data.split(districts))


@pytest.mark.parametrize("family", ["decision_tree", "random_forest", "xgboost"])
def test_the_same_seed_gives_the_same_trials(split, family):
    def searched():
        train, val = split["train"], split["val"]
        return tuning.tune(family, train, val, n_trials=4, seed=3, growth=QUICK)

    first, second = searched(), searched()
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert [trial.metrics for trial in first.trials] == [trial.metrics for trial in second.trials]


@pytest.mark.parametrize("family", ["ridge", "random_forest", "gradient_boosting", "xgboost"])
def test_the_estimator_of_the_best_trial_scores_what_the_trial_scored(split, family):
    train, val = split["train"], split["val"]
    search = tuning.tune(family, train, val, n_trials=2, seed=0, growth=QUICK)
    again = families.make_model(family, search.best.params, seed=0, repeats=1)
    again.fit(train.districts, train.y)
    best = search.best_model(train)
    first = best.near_estimators[0]
    heard_alike = [first]
    if families.get_family(family).thinned:  # then the model's own hears thinned districts as well
        assert first.get_params() == again.near_.get_params()
        heard_alike = []
    for estimator in (search.estimator, again.near_, *heard_alike):
        found = metrics(val.y, estimator.predict(val.X), prefix="val_")
        assert found["val_rmse"] == pytest.approx(search.best.metrics["val_rmse"], abs=1e-9)
    np.testing.assert_allclose(best.transform(val.districts), val.X)


def test_a_forest_grows_to_the_size_that_is_noted(split):
    search = tuning.tune(
        "random_forest", split["train"], split["val"], n_trials=1, seed=0, growth=0.3
    )
    assert len(search.estimator.estimators_) == search.best.params["n_estimators"] == 30


def test_the_number_of_trials_is_a_total_and_a_stopped_search_comes_to_the_same(split, own_root):
    def searched(n_trials):
        return tuning.tune("decision_tree", split["train"], split["val"], n_trials=n_trials, seed=5)

    stopped = searched(3)
    resumed = searched(6)
    assert len(resumed.trials) == 6
    assert resumed.trials[:3] == stopped.trials
    for file in (own_root / "data" / "studies").glob("*.log"):
        file.unlink()
    straight = searched(6)
    assert [one.metrics for one in straight.trials] == [one.metrics for one in resumed.trials]
    model = resumed.best_model(split["train"])
    assert model.near_.get_params() == straight.estimator.get_params()


def test_the_best_of_a_resumed_search_is_fitted_again_as_the_trial_was(split, monkeypatch):
    train, val = split["train"], split["val"]
    tuning.tune("ridge", train, val, n_trials=1, seed=6)
    threads = []

    class Watched(Ridge):
        def fit(self, *given):
            threads.append(
                {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
            )
            return super().fit(*given)

    monkeypatch.setattr(tuning, "make_estimator", lambda *_, **__: Watched())
    tuning.tune("ridge", train, val, n_trials=1, seed=6)
    assert threads == [{1}]


def test_a_search_begins_anew_when_code_or_packages_changed(split, monkeypatch):
    train, val = split["train"], split["val"]

    def name():
        return tuning.study_name("xgboost", train, val, seed=1)

    assert (before := name()) == name()
    monkeypatch.setitem(families.FAMILIES, "ridge", families.FAMILIES["lasso"])
    assert name() == before
    with monkeypatch.context() as patch:
        patch.setattr(keys, "lock_digest", lambda: "another")
        assert name() != before
    read, edited = keys._module, ""

    def module_of(asked):
        more = "CHANGED = True\n" if asked == edited else ""
        return keys._Module(asked, read(asked).text + more)

    monkeypatch.setattr(keys, "_module", module_of)
    assert name() == before
    for edited in ("growing", "estimators", "trials", "features", "tuning"):
        assert name() != before, edited


def test_a_trial_whose_process_was_killed_is_tried_again(split, own_root):
    train, val = split["train"], split["val"]
    straight = tuning.tune("lasso", train, val, n_trials=4, seed=1)
    for file in (own_root / "data" / "studies").glob("*.log"):
        file.unlink()

    class KilledError(Exception):
        pass

    def die(trial):
        if trial.number == 1:
            raise KilledError

    with pytest.raises(KilledError):
        tuning.tune("lasso", train, val, n_trials=4, seed=1, on_trial=die)
    name = tuning.study_name("lasso", train, val, seed=1)
    studies.open_study(name, None).ask()  # and one that is still running, for ever
    resumed = tuning.tune("lasso", train, val, n_trials=4, seed=1)
    assert [one.metrics for one in resumed.trials] == [one.metrics for one in straight.trials]


@pytest.fixture
def searched(split, own_root):
    """What a search that was never made before comes to."""

    def search(family, *, n_trials, abreast):
        found = tuning.tune(
            family, split["train"], split["val"], n_trials=n_trials, seed=2, abreast=abreast
        )
        for file in (own_root / "data" / "studies").glob("*.log"):
            file.unlink()
        return [(trial.params, trial.metrics, trial.state) for trial in found.trials]

    return search


def test_trials_abreast_are_the_same_wherever_they_run(searched, request, monkeypatch):
    with_processes = searched("decision_tree", n_trials=5, abreast=2)
    monkeypatch.setattr(compute, "cores", lambda: 1)
    assert searched("decision_tree", n_trials=5, abreast=2) == with_processes
    request.getfixturevalue("on_cluster")
    assert searched("decision_tree", n_trials=5, abreast=2) == with_processes


def test_a_worker_killed_in_a_trial_costs_the_search_nothing(searched, request):
    here = searched("random_forest", n_trials=2, abreast=1)
    cluster = request.getfixturevalue("on_cluster")
    with ThreadPoolExecutor() as aside:
        killed = aside.submit(kill_busy_worker, cluster)
        assert searched("random_forest", n_trials=2, abreast=1) == here
        assert killed.result()


def test_the_first_trial_tries_the_shipped_parameters(split):
    search = tuning.tune("decision_tree", split["train"], split["val"], n_trials=1, seed=0)
    assert search.trials[0].params == families.FAMILIES["decision_tree"].defaults


def test_every_trial_is_told_and_scored_on_both_parts(split):
    heard = []
    search = tuning.tune(
        "lasso", split["train"], split["val"], n_trials=3, seed=0, on_trial=heard.append
    )
    assert heard == search.trials
    wanted = {
        f"{part}_{name}" for part in ("train", "val") for name in ("rmse", "mae", "mse", "r2")
    }
    assert all(set(trial.metrics) == wanted for trial in heard)
    assert list(search.table.index) == [0, 1, 2]


def test_trials_that_fall_behind_are_pruned(split):
    search = tuning.tune("random_forest", split["train"], split["val"], n_trials=12, seed=0)
    pruned = [trial for trial in search.trials if trial.state == "pruned"]
    assert pruned
    assert search.best.state == "complete"
    assert min(trial.metrics["val_rmse"] for trial in pruned) > search.best.metrics["val_rmse"]


def test_a_quick_look_prunes_too_and_notes_the_longer_steps_that_were_taken(split):
    train, val = split["train"], split["val"]
    search = tuning.tune("xgboost", train, val, n_trials=8, seed=0, growth=QUICK)
    rates = [one.params["learning_rate"] for one in search.trials if one.state == "pruned"]
    assert rates
    assert min(rates) >= families.FAMILIES["xgboost"].space["learning_rate"].low / QUICK


def test_boosting_stops_when_more_brings_nothing(split):
    search = tuning.tune("xgboost", split["train"], split["val"], n_trials=1, seed=0)
    assert search.best.params["n_estimators"] < families.FAMILIES["xgboost"].stages.end


def test_a_quick_look_grows_fewer_trees_in_longer_steps(split):
    train, val = split["train"], split["val"]
    whole = tuning.tune("gradient_boosting", train, val, n_trials=1, seed=0)
    quick = tuning.tune("gradient_boosting", train, val, n_trials=1, seed=0, growth=0.1)
    end = families.FAMILIES["gradient_boosting"].stages.end
    assert quick.best.params["max_iter"] <= 0.1 * end < whole.best.params["max_iter"]
    rates = [one.best.params["learning_rate"] for one in (quick, whole)]
    assert rates[0] == pytest.approx(10 * rates[1])
    forest = tuning.tune("random_forest", train, val, n_trials=1, seed=0, growth=0.1)
    assert len(forest.estimator.estimators_) == forest.best.params["n_estimators"] == 10
