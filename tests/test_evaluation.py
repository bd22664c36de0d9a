"""How good a model is, and how sure that is."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from housing_lib import (
    accuracy,
    blend,
    card,
    data,
    evaluation,
    explanations,
    families,
    features,
    intervals,
    places,
    plots,
    tables,
)
from housing_lib.blend import BlendedModel, Choice, choose, cross_weighed, weigh


@pytest.fixture(scope="module")
def prices():
    return np.random.default_rng(0).uniform(0.5, 5, 2_000)


@pytest.fixture(scope="module")
def predicted(prices):
    return prices + np.random.default_rng(1).normal(0, 0.4, len(prices))


@pytest.fixture(scope="module")
def split():
    districts = data.acquire().sample(3_000, random_state=0)
    return features.preprocess(districts, data.split(districts))


@pytest.fixture(scope="module")
def models(split):
    small = {"xgboost": {"n_estimators": 60, "max_depth": 4}, "ridge": None}
    train = split["train"]
    return {
        name: families.make_model(name, params, repeats=1).fit(train.districts, train.y)
        for name, params in small.items()
    }


def test_intervals_of_metrics_hold_the_metrics_and_shrink_with_more_districts(prices, predicted):
    ends = accuracy.metric_intervals(prices, predicted, seed=0)
    for name, value in accuracy.metrics(prices, predicted).items():
        assert ends[f"{name}_low"] < value < ends[f"{name}_high"]
    few = accuracy.metric_intervals(prices[:200], predicted[:200], seed=0)
    assert few["rmse_high"] - few["rmse_low"] > 2 * (ends["rmse_high"] - ends["rmse_low"])


def test_the_interval_of_rmse_is_as_wide_as_theory_says(prices, predicted):
    ends = accuracy.metric_intervals(prices, predicted, seed=0)
    sampling = 0.4 / np.sqrt(2 * len(prices))  # of the spread of normal errors
    assert ends["rmse_high"] - ends["rmse_low"] == pytest.approx(2 * 1.96 * sampling, rel=0.15)


def test_a_real_difference_is_told_from_chance(prices, predicted):
    noise = np.random.default_rng(2).normal(0, 0.02, len(prices))
    same = accuracy.rmse_difference(prices, predicted + noise, predicted - noise, seed=0)
    assert same["low"] < 0 < same["high"]
    worse = accuracy.rmse_difference(prices, predicted + 0.2, predicted, seed=0)
    assert 0 < worse["low"] < worse["difference"] < worse["high"]


def test_blocks_held_out_on_a_cluster_give_the_same_prices(split, request):
    train = split["train"]
    model = {"xgboost": families.make_model("xgboost", {"n_estimators": 20}, repeats=1)}
    some = (train.districts.head(600), train.y[:600])
    here = evaluation.block_predictions(model, *some)
    request.getfixturevalue("on_cluster")
    there = evaluation.block_predictions(model, *some)
    np.testing.assert_array_equal(there["xgboost"], here["xgboost"])


def test_districts_without_a_place_are_held_out_together_and_told_apart(split, monkeypatch):
    monkeypatch.setitem(evaluation.RAW_BOOSTER, "n_estimators", 2)
    train, test = split["train"], split["test"]
    holed = train.districts.copy()
    holed.loc[3, "Latitude"] = np.nan
    holed.loc[[5, 8], "Longitude"] = np.nan
    numbers = evaluation.blocks(holed)
    assert set(numbers[[3, 5, 8]]) == {places.NOWHERE}
    assert (np.delete(numbers, [3, 5, 8]) != places.NOWHERE).all()
    nowhere = replace(train, districts=holed.assign(Latitude=np.nan, Longitude=np.nan))
    assert len(evaluation.baselines(nowhere, nowhere, test)) == 4


def test_blocks_are_held_out_whole(split):
    districts = split["train"].districts
    numbers = evaluation.blocks(districts)
    table = districts.assign(block=numbers).groupby("block")[["Latitude", "Longitude"]]
    assert (table.max() - table.min()).max().max() <= 0.5

    seen = []

    class Spy:
        def get_params(self, deep=True):
            return {}

        def set_params(self):
            return self

        def fit(self, X, y):
            self.fitted = set(evaluation.blocks(X))
            return self

        def predict(self, X):
            seen.append((self.fitted, set(evaluation.blocks(X))))
            return np.zeros(len(X))

    heard = []
    evaluation.block_predictions({"a spy": Spy()}, districts, split["train"].y, on_fit=heard.append)
    assert heard == ["1 of 1 models judged where blocks are held out: a spy"]
    assert len(seen) == evaluation.BLOCK_FOLDS
    assert all(not fitted & held for fitted, held in seen)


@pytest.mark.parametrize(("blocks", "folds"), [(3, 3), (1, evaluation.BLOCK_FOLDS)])
def test_few_blocks_are_as_many_folds_and_in_one_random_districts_are_held_out(blocks, folds):
    columns = dict.fromkeys(data.FEATURES, 1.0)
    districts = pd.DataFrame([columns] * 60).assign(HouseAge=np.arange(60.0))
    districts["Latitude"] = 34.2 + np.arange(60) % blocks
    model = {"ridge": families.make_model("ridge", repeats=1)}
    assert len(evaluation._folds(districts)) == folds
    found = evaluation.block_predictions(model, districts, np.ones(60))
    np.testing.assert_allclose(found["ridge"], 1, atol=1e-6)


def test_slices_cover_every_district_once_each_way(split):
    test = split["test"]
    predicted = test.y + 0.1
    interval = (predicted - 0.2, predicted + 0.2)
    found = evaluation.slices(test.districts, test.y, predicted, interval, seed=0)
    assert (found["districts"].groupby("by").sum() == len(test.y)).all()
    np.testing.assert_allclose(found["rmse"], 0.1)
    np.testing.assert_allclose(found["bias"], 0.1)
    assert (found["coverage"] == 1).all()
    dear = test.y + 10
    of_ones_own = evaluation.slices(test.districts, dear, dear, (dear, dear), seed=0)
    assert "limit" not in of_ones_own.index.get_level_values("by")


def test_the_worst_come_first(split):
    test = split["test"]
    predicted = test.y.copy()
    predicted[7] += 2
    predicted[3] -= 3
    worst = evaluation.worst(test.districts, predicted, count=2)
    assert worst["error"].tolist() == pytest.approx([-3, 2])


def test_tables_of_errors_are_short_flat_and_say_why(split):
    test = split["test"]
    worst = evaluation.worst(test.districts, np.zeros(len(test.y)), count=5)
    html = tables.worst_table(worst).to_html()
    assert "500,001" in html
    assert "0000<" not in html
    at_limit = int((worst["MedHouseVal"] >= data.PRICE_CAP).sum())
    assert tables.worst_words(worst).startswith(
        f"{at_limit} of these 5 stand at the census's limit"
    )
    dear = worst.assign(MedHouseVal=12.0, AveOccup=0.0)
    assert tables.worst_words(dear).startswith("0 of these 5 rest on fewer than")
    found = evaluation.slices(test.districts, test.y, test.y, (test.y, test.y), seed=0)
    assert "rowspan" not in tables.slice_table(found).to_html()
    plots.use_house_style()
    scores = {f"{part}_{name}": [0.4] for part in data.PARTS for name in accuracy.METRICS}
    board = pd.DataFrame(scores, index=["ridge"])
    assert tables.styled_leaderboard(board).to_html().count("Ridge") == len(data.PARTS)


def test_contributions_add_up_to_the_prediction(split, models):
    val = split["val"]
    champion = intervals.CalibratedModel(models["xgboost"])
    champion.model_ = models["xgboost"]
    found = explanations.contributions(champion, val.districts.head(50), features.feature_names())
    np.testing.assert_allclose(
        found.sum(axis=1), models["xgboost"].predict(val.districts.head(50)), atol=1e-4
    )
    several = families.make_model("xgboost", {"n_estimators": 30})  # with a line and networks
    champion.model_ = several.fit(val.districts, val.y)
    found = explanations.contributions(champion, val.districts.head(50), features.feature_names())
    np.testing.assert_allclose(
        found.sum(axis=1), several.predict(val.districts.head(50)), atol=1e-4
    )
    champion.model_ = models["ridge"]
    assert explanations.contributions(champion, val.districts, features.feature_names()) is None


def test_importances_of_its_own_are_the_mean_of_the_seeds(split, models):
    several = families.make_model("xgboost", {"n_estimators": 5})  # with a line and networks
    several.fit(split["val"].districts, split["val"].y)
    found = explanations.own_importances(several, features.feature_names())
    first, second, *_ = several.near_estimators
    both = first.feature_importances_ + second.estimator_.feature_importances_
    assert found.max() == pytest.approx(both.max() / 2)
    slopes = explanations.own_importances(models["ridge"], features.feature_names())
    assert set(slopes) == set(np.ravel(models["ridge"].near_.coef_))
    forest = families.make_model("random_forest", {"n_estimators": 5})
    forest.fit(split["val"].districts, split["val"].y)
    impurity = explanations.own_importances(forest, features.feature_names())
    assert set(impurity) == set(forest.near_.feature_importances_)


def test_every_baseline_answers_for_every_district(split):
    found = evaluation.baselines(split["train"], split["val"], split["test"])
    assert len(found) == 4
    errors = {name: r2_score(split["test"].y, one) for name, one in found.items()}
    assert errors["the mean price"] < 0.01
    assert errors[evaluation.RAW_NAME] > errors["linear regression on the eight columns"] > 0.4


def test_weights_find_the_mixture_that_made_the_prices(prices):
    rng = np.random.default_rng(3)
    noisy = {name: prices + rng.normal(0, 0.3, len(prices)) for name in "ab"}
    weights = weigh({**noisy, "constant": np.full(len(prices), 2.0)}, prices)
    assert weights.get("a", 0) == pytest.approx(0.5, abs=0.05)
    assert sum(weights.values()) == pytest.approx(1)


def test_a_blend_is_judged_on_predictions_that_had_no_part_in_its_weights(prices):
    useless = {"a": np.random.default_rng(4).uniform(0.5, 5, len(prices))}
    changed = prices.copy()
    changed[0] = 50
    one, other = (cross_weighed(useless, y, seed=0)[0] for y in (prices, changed))
    assert one == other


def test_a_blend_predicts_the_weighted_mean(split, models):
    districts = split["val"].districts.head(20)
    blended = BlendedModel.of_fitted(list(models.values()), [0.25, 0.75]).predict(districts)
    first, second = (model.predict(districts) for model in models.values())
    np.testing.assert_allclose(blended, 0.25 * first + 0.75 * second)


@pytest.mark.parametrize(
    ("slowness", "noise", "chosen"),
    [(1, 0.3, families.BLEND), (1_000, 0.3, "xgboost"), (1, 0.0, "xgboost")],
    ids=["it earns its time", "it takes too long", "it gains nothing"],
)
def test_the_best_family_is_chosen_unless_the_blend_earns_its_time(
    monkeypatch, prices, slowness, noise, chosen
):
    rng = np.random.default_rng(5)
    spreads = {"xgboost": noise, "ridge": 0.4}
    predicted = {name: prices + rng.normal(0, one, len(prices)) for name, one in spreads.items()}
    monkeypatch.setattr(blend, "predictions", lambda models, part: predicted)
    monkeypatch.setattr(
        blend, "_seconds", lambda model, _: slowness if isinstance(model, BlendedModel) else 1
    )
    models = {name: families.make_model(name, repeats=1) for name in spreads}
    choice = choose(models, SimpleNamespace(y=prices), seed=0)
    assert (choice.name, choice.slowness) == (chosen, slowness)
    assert (choice.gain["low"] > 0) == (noise > 0)


def test_what_was_chosen_is_made_again_unfitted(models):
    choice = Choice("ridge", models["ridge"], {}, {}, 1.0)
    alone = choice.unfitted({"ridge": {"alpha": 3.5}}, seed=0)
    assert alone.near.get_params()["alpha"] == 3.5
    assert not hasattr(alone, "near_")
    fitted = BlendedModel.of_fitted(list(models.values()), [0.25, 0.75])
    again = Choice(families.BLEND, fitted, {}, {}, 1.0).unfitted({}, seed=0)
    assert again.weights == fitted.weights
    assert not hasattr(again, "models_")


def test_where_blocks_are_held_out_all_families_and_the_published_peer_can_stand_beside():
    choice = Choice("xgboost", None, {}, {}, 1.0)
    searched = {"xgboost": {"n_estimators": 20}, "ridge": {}}
    beside = choice.for_blocks(searched, seed=0, families=True, growth=0.2)
    assert set(beside) == {evaluation.CHAMPION_NAME, "ridge", evaluation.RAW_NAME}
    assert set(choice.for_blocks(searched, seed=0, families=False)) == {evaluation.CHAMPION_NAME}


def test_every_figure_of_the_model_card_is_a_logged_metric(split):
    metrics = {
        f"test_{name}{end}": 0.1234 + place / 1000
        for place, name in enumerate(accuracy.METRICS)
        for end in ("", "_low", "_high")
    }
    metrics |= {"block_rmse": 0.5678, "baseline_rmse": 0.4321, "test_coverage": 0.903}
    metrics |= {"rows_fit": 16527.0, "rows_test": 4113.0, "capped_share": 0.047}
    test = split["test"]
    found = evaluation.slices(
        test.districts, test.y, test.y + 0.1, (test.y - 1, test.y + 1), seed=0
    )
    text = card.model_card("xgboost", 3, "abcd", metrics, found)
    assert "of 1990" in text
    assert "XGBoost is more than one model: it is fitted with 2 seeds" in text
    assert "(4.7\xa0% of the test districts)" in text
    own = card.model_card("xgboost", 3, "abcd", metrics, found, source="mine.csv")
    assert not any(word in own for word in ("1990", "500,001", "Pace and Barry"))
    told = ("$12,340", "$56,780", "$43,210", "90.3\xa0%", "16,527", "4,113", "version 3", "abcd")
    for shown in told:
        assert shown in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) >= 7 + len(found)


def test_a_champion_made_of_several_families_says_how_far_it_leads():
    board = pd.DataFrame({"val_rmse": [0.40, 0.42]}, index=["xgboost", "ridge"])
    gain = {"difference": 0.01, "low": 0.005, "high": 0.015}
    choice = Choice(families.BLEND, None, {"xgboost": 0.7, "ridge": 0.3}, gain, 2.0)
    kept = tables.champion_record(choice, board, {"test_rmse": 0.39}, 1, "run")
    assert kept["title"] == "Blend"
    assert kept["runner_up"]["val_rmse_gain_usd"] == pytest.approx(1_000)
    assert "taken" in tables.blend_verdict(choice)
    alone = Choice("xgboost", None, {"xgboost": 1.0}, gain, 1.0)
    assert tables.blend_verdict(alone).startswith("There is no blend")
