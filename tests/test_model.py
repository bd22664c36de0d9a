"""The model of a district's price, whatever its estimators."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import answers, data, families, intervals
from housing_lib.data import DataError
from housing_lib.flags import flag_texts


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire().sample(4_000, random_state=1).reset_index(drop=True)


@pytest.fixture(scope="module")
def prices(districts):
    return districts[data.TARGET].to_numpy()


@pytest.fixture(scope="module")
def champion(districts, prices):
    model = families.make_model("xgboost", {"n_estimators": 120, "max_depth": 5}, repeats=1)
    return intervals.CalibratedModel(model).fit(districts[:3_000], prices[:3_000])


def _district(**values):
    usual = {"MedInc": 4.0, "HouseAge": 30.0, "AveRooms": 5.0, "AveBedrms": 1.0}
    usual |= {"Population": 1200.0, "AveOccup": 3.0, "Latitude": 34.05, "Longitude": -118.24}
    return pd.DataFrame([usual | values])


def test_among_neighbours_they_count_and_far_away_they_hardly_do(champion):
    model = champion.model_
    town, desert = _district(), _district(Latitude=35.6, Longitude=-116.2)
    assert model.near_share(model.transform(town)) > 0.8
    assert model.near_share(model.transform(desert)) < 0.1


@pytest.mark.parametrize(
    "odd",
    [
        dict.fromkeys(data.FEATURES, np.nan),
        dict.fromkeys(data.FEATURES, np.inf),
        {"Latitude": 35.0, "Longitude": -123.0},
        {"Population": 1e9},
        {"AveOccup": 0.0, "AveRooms": 0.0},
        {"MedInc": -5.0},
    ],
)
def test_whatever_a_district_looks_like_the_answer_is_finite(champion, odd):
    given = answers.answers(champion, _district(**odd))
    numbers = given[["price", "low", "high", "expected_error"]].to_numpy()
    assert np.isfinite(numbers).all()
    assert 0 <= given["low"][0] <= given["price"][0] <= given["high"][0] < 20


def test_a_district_at_the_place_of_a_known_one_gets_a_sensible_price(champion, districts, prices):
    twins = champion.predict(districts[:500])
    assert np.abs(twins - prices[:500]).mean() < 0.3


def test_intervals_hold_what_they_promise_on_unseen_districts(champion, districts, prices):
    unseen, truth = districts[3_000:], prices[3_000:]
    for coverage, slack in ((0.5, 0.06), (0.9, 0.04)):
        low, high = champion.predict_interval(unseen, coverage)
        assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(coverage, abs=slack)


def test_expected_errors_tell_easy_districts_from_hard_ones(champion, districts, prices):
    unseen, truth = districts[3_000:], prices[3_000:]
    expected = champion.expected_error(unseen)
    errors = np.abs(champion.predict(unseen) - truth)
    hard = expected > np.median(expected)
    assert errors[hard].mean() > 1.5 * errors[~hard].mean()
    assert expected.mean() == pytest.approx(errors.mean(), rel=0.15)


def test_an_impossible_coverage_is_refused(champion, districts):
    with pytest.raises(DataError, match=r"coverage 1\.5: expected from"):
        champion.predict_interval(districts[:1], 1.5)


def test_too_few_districts_and_missing_prices_are_refused(districts, prices):
    model = families.make_model("ridge")
    with pytest.raises(DataError, match="at least 50"):
        intervals.CalibratedModel(model).fit(districts[:100], prices[:100])
    with pytest.raises(DataError, match="expected at least 2"):
        model.fit(districts[:1], prices[:1])
    with pytest.raises(DataError, match="2 prices that are missing or infinite"):
        model.fit(districts[:3], np.array([1.0, np.nan, np.inf]))


def test_flags_say_what_to_be_careful_about(champion):
    odd = pd.concat(
        [
            _district(),
            _district(MedInc=np.nan),
            _district(Latitude=39.53, Longitude=-119.0),
            _district(Latitude=35.6, Longitude=-116.2),
        ]
    )
    found = answers.answers(champion, odd)["flags"].tolist()
    assert found[0] == ""
    assert found[1] == "imputed_MedInc"
    assert "outside_california" in found[2]
    assert "far_from_known" in found[3]


def test_a_price_near_the_limit_is_flagged():
    assert flag_texts(_district().to_numpy(), np.array([4.9]), np.zeros(1)) == ["at_limit"]


def test_an_answer_is_what_the_model_says_and_looks_around_once(champion, districts, monkeypatch):
    some = districts[3_000:3_100]
    expected = [champion.predict(some), *champion.predict_interval(some, 0.5)]
    expected.append(champion.expected_error(some))
    looked, transform = [], champion.model_.transform
    monkeypatch.setattr(champion.model_, "transform", lambda X: looked.append(1) or transform(X))
    given = answers.answers(champion, some, coverage=0.5)
    assert looked == [1]
    for name, values in zip(["price", "low", "high", "expected_error"], expected, strict=True):
        np.testing.assert_array_equal(given[name], values)


def test_a_missing_place_is_neither_far_nor_outside(champion):
    flags = answers.answers(champion, _district(Latitude=np.nan, Longitude=np.nan))["flags"][0]
    assert flags == "imputed_Latitude imputed_Longitude"


def test_an_interval_of_a_price_below_nothing_is_none_upside_down(districts, prices):
    model = families.make_model("ridge", {"alpha": 1.0})
    linear = intervals.CalibratedModel(model).fit(districts, prices)
    poor = districts.assign(MedInc=0.5, HouseAge=1.0, AveOccup=50.0)
    predicted, low, high = linear.predict_both(poor)
    assert (predicted < 0).any()
    assert (low <= high).all()
