"""The eight families: what they are, and that their models are whole."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingRegressor

from housing_lib import data, estimators, families, features, makeup

EIGHT = {
    "linear_regression",
    "lasso",
    "ridge",
    "elastic_net",
    "decision_tree",
    "random_forest",
    "gradient_boosting",
    "xgboost",
}


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire().sample(1_500, random_state=0)


def test_there_are_the_eight_families():
    assert set(families.FAMILIES) == EIGHT


@pytest.mark.parametrize("name", sorted(EIGHT))
def test_a_model_takes_raw_districts_and_repeats_itself(name, districts):
    small = _small(name)
    first = families.make_model(name, small, seed=1).fit(districts, districts[data.TARGET])
    again = clone(first).fit(districts, districts[data.TARGET])
    holed = districts.head(20).copy()
    holed.iloc[0, :3] = np.nan
    np.testing.assert_array_equal(first.predict(holed), again.predict(holed))
    assert np.isfinite(first.predict(holed)).all()


@pytest.mark.parametrize("name", sorted(EIGHT))
def test_the_shipped_parameters_lie_in_the_search_space(name):
    family = families.FAMILIES[name]
    for parameter, values in family.space.items():
        assert values.low <= family.defaults[parameter] <= values.high, parameter


def test_a_wrong_name_gets_the_nearest_right_one():
    with pytest.raises(families.FamilyError, match="Did you mean 'xgboost'"):
        families.get_family("xgbost")


def test_a_wrong_parameter_is_refused():
    with pytest.raises(families.FamilyError, match="ridge does not take alfa"):
        families.make_estimator("ridge", {"alfa": 1})


def test_least_squares_uses_the_share_of_features_that_it_is_given(districts):
    model = families.make_model("linear_regression", {"percentile": 25})
    model.fit(districts, districts[data.TARGET])
    used = np.mean(model.near_.coef_ != 0)
    assert used == pytest.approx(0.25, abs=0.05)


def test_the_champion_is_a_mean_of_boosters_one_from_a_line_and_of_networks(districts):
    prices = districts[data.TARGET].to_numpy()
    model = families.make_model(families.CHAMPION, {"n_estimators": 20}, seed=0)
    model.fit(districts, prices)
    matrix = features.make_preprocessing().fit_transform(districts, prices)
    plain, started, *networks = model.near_estimators
    assert [type(one) for one in networks] == [estimators.RankNetwork] * 2
    assert model.near_weights == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    np.testing.assert_allclose(
        started.predict(matrix), started.line_.predict(matrix) + started.estimator_.predict(matrix)
    )
    far = np.sqrt(np.mean((started.line_.predict(matrix) - districts[data.TARGET]) ** 2))
    assert np.sqrt(np.mean((started.predict(matrix) - districts[data.TARGET]) ** 2)) < far
    each = [one.predict(matrix) for one in model.near_estimators]
    together = np.average(each, axis=0, weights=model.near_weights)
    np.testing.assert_allclose(model.near_.predict(matrix), together, rtol=1e-6)
    assert not np.allclose(plain.predict(matrix), started.predict(matrix))


def test_a_quick_look_is_quick_in_all_parts_of_the_champion():
    whole, quick = (
        families.make_model(families.CHAMPION, {"n_estimators": 20}, growth=growth)
        for growth in (1.0, 0.2)
    )
    epochs = [one.epochs for _, one in quick.near.estimators if hasattr(one, "epochs")]
    assert epochs == [round(0.2 * estimators.EPOCHS)] * 2
    assert quick.far.n_estimators == pytest.approx(0.2 * whole.far.n_estimators)
    assert quick.far.learning_rate == pytest.approx(whole.far.learning_rate / 0.2)


def test_too_few_districts_to_thin_still_make_a_model(districts):
    model = families.make_model("xgboost", {"n_estimators": 2})
    three = districts.head(3)
    assert np.isfinite(model.fit(three, three[data.TARGET]).predict(three)).all()


def _small(name: str) -> dict | None:
    stages = families.FAMILIES[name].stages
    return {stages.parameter: 10} if stages else None


@pytest.mark.parametrize("name", sorted(EIGHT))
def test_only_a_family_of_one_estimator_is_said_to_be_a_single_model(name):
    several = isinstance(families.make_model(name).near, VotingRegressor)
    assert several == bool(makeup.beyond_one(name))
