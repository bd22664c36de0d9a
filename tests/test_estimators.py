"""The estimators that scikit-learn does not have in this form."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor

from housing_lib.estimators import RankNetwork, RoundedForest, RoundedTree, rounded


@pytest.fixture(scope="module")
def learned():
    """A network, what it learned from, and a matrix of which a part lies far outside."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(600, 5))
    matrix[:, 3] = matrix[:, 3] > 0  # two values only
    matrix[:, 4] = 0
    prices = np.abs(matrix[:, 0]) + matrix[:, 1] * matrix[:, 3]
    network = RankNetwork(units=(32, 16), epochs=60, random_state=1)
    return network.fit(matrix, prices), prices, np.vstack([matrix, 50 * matrix[:100]])


def test_a_network_learns_what_is_no_line_and_stays_in_bounds(learned):
    network, prices, matrix = learned
    values = network.predict(matrix)
    assert np.sqrt(np.mean((values[:600] - prices) ** 2)) < 0.3 * prices.std()
    assert values.min() > prices.min() - prices.std()
    assert values.max() < prices.max() + prices.std()


def test_a_network_gives_a_row_alone_the_same_bits_as_among_others(learned):
    network, _, matrix = learned
    alone = [network.predict(row[np.newaxis])[0] for row in matrix]
    assert alone == network.predict(matrix).tolist()


def test_a_network_is_what_the_formula_says(learned):
    network, _, matrix = learned
    columns = zip(matrix.astype("f4").T, network.knots_, strict=True)
    values = np.column_stack([_score(*column, network.scores_) for column in columns])
    for weights, start in zip(network.weights_[:-1], network.thresholds_[:-1], strict=True):
        values = np.maximum(values @ weights + start, 0)
    expected = values @ network.weights_[-1][:, 0] + network.thresholds_[-1]
    np.testing.assert_allclose(network.predict(matrix), expected, atol=1e-5)


def _score(column, knots, scores):
    passed = np.searchsorted(knots, column, side="right")
    inside = np.clip(passed, 1, len(knots) - 1)
    low, high = knots[inside - 1], knots[inside]
    share = np.divide(column - low, high - low, out=np.zeros_like(column), where=high > low)
    between = scores[inside - 1] + share * (scores[inside] - scores[inside - 1])
    ends = np.where(passed == 0, scores[0], scores[-1])
    return np.where((passed == 0) | (passed == len(knots)), ends, between)


def test_contributions_to_a_networks_value_add_up_to_it(learned):
    network, _, matrix = learned
    found = network.contributions(matrix)
    np.testing.assert_allclose(found.sum(axis=1), network.predict(matrix), atol=1e-4)
    assert np.abs(found[:, 4]).max() == pytest.approx(0, abs=1e-6)  # a constant says nothing
    assert np.abs(found[:, 0]).mean() > 10 * np.abs(found[:, 2]).mean()  # and noise hardly any


def test_the_same_seed_makes_the_same_network(learned):
    network, prices, matrix = learned
    again = clone(network).fit(matrix[:600], prices)
    assert again.predict(matrix).tolist() == network.predict(matrix).tolist()
    other = clone(network).set_params(random_state=2).fit(matrix[:600], prices)
    assert not np.allclose(other.predict(matrix), network.predict(matrix))


@pytest.fixture(scope="module")
def skewed():
    rng = np.random.default_rng(0)
    return np.column_stack(
        [rng.lognormal(size=2000), rng.normal(size=2000), rng.integers(0, 3, 2000)]
    )


def test_values_are_rounded_to_the_nearest_of_their_quantiles(skewed):
    levels = np.quantile(skewed, np.linspace(0, 1, 20), axis=0)
    for column, (values, steps) in enumerate(zip(skewed.T, levels.T, strict=True)):
        nearest = np.abs(values[:, np.newaxis] - steps).min(axis=1)
        found = rounded(skewed, 20)[:, column]
        assert np.isin(found, steps).all()
        assert np.abs(values - found) == pytest.approx(nearest)


def test_a_rounded_tree_puts_districts_into_the_leaves_of_their_rounded_values(skewed):
    prices = np.log(skewed[:, 0]) + skewed[:, 1] * (skewed[:, 2] == 1)
    tree = RoundedTree(min_samples_leaf=5, random_state=0).fit(skewed, prices)
    assert np.array_equal(tree.apply(skewed), tree.apply(rounded(skewed)))
    assert len(np.unique(tree.apply(skewed))) > 100


def test_a_rounded_forest_predicts_as_well_as_an_exact_one(skewed):
    prices = np.log(skewed[:, 0]) + skewed[:, 1] * (skewed[:, 2] == 1)
    settings = {"n_estimators": 40, "min_samples_leaf": 3, "random_state": 0}
    errors = [
        np.std(
            forest(**settings).fit(skewed[:1000], prices[:1000]).predict(skewed[1000:])
            - prices[1000:]
        )
        for forest in (RoundedForest, RandomForestRegressor)
    ]
    assert errors[0] < 1.1 * errors[1] < 0.5 * prices.std()
