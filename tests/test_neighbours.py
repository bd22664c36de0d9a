"""What the districts around a district tell of its price."""

import pickle

import numpy as np
import pytest

from housing_lib import data
from housing_lib.data import DataError
from housing_lib.neighbours import COUNTS, NeighbourFeatures


@pytest.fixture(scope="module")
def known():
    districts = data.acquire().sample(1_500, random_state=3)
    return districts[list(data.FEATURES)].to_numpy(), districts[data.TARGET].to_numpy()


def _named(matrix, name):
    return matrix[:, list(NeighbourFeatures().get_feature_names_out()).index(name)]


def test_a_price_never_tells_of_itself(known):
    X, y = known
    changed = y.copy()
    changed[100] += 3
    before = NeighbourFeatures().fit_transform(X, y)
    after = NeighbourFeatures().fit_transform(X, changed)
    np.testing.assert_array_equal(before[100], after[100])
    assert (before != after).any(axis=1).sum() > 10  # its neighbours do hear of it


def test_new_districts_see_all_the_known_ones(known):
    X, y = known
    features = NeighbourFeatures().fit(X, y)
    assert features.transform(X).shape == (len(X), len(features.get_feature_names_out()))
    assert not np.allclose(features.transform(X), features.fit_transform(X, y))
    places = X[:, 6:] + X[:, 6:].max() * np.arange(len(X))[:, None]  # no two at one place
    apart = np.column_stack([X[:, :6], places])
    own = _named(NeighbourFeatures().fit(apart, y).transform(apart), "PlacePrice1")
    np.testing.assert_allclose(own, y)


def test_means_are_those_of_the_nearest_by_brute_force(known):
    X, y = known
    features = NeighbourFeatures().fit(X[1:], y[1:])
    distances = np.linalg.norm(features.places_ - _place(X[:1]), axis=1)
    order = np.argsort(distances, kind="stable")
    found = features.transform(X[:1])
    for count in COUNTS[3:]:
        if distances[order[count]] > distances[order[count - 1]]:  # no tie at the edge
            expected = y[1:][order[:count]].mean()
            assert _named(found, f"PlacePrice{count}") == pytest.approx(expected)


def _place(X):
    from housing_lib.places import places_km

    return places_km(X[:, 6], X[:, 7])


def test_a_local_regression_finds_a_plane_exactly():
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [
            rng.uniform(1, 9, 400),
            rng.uniform(1, 50, 400),
            *np.full((4, 400), 3.0),
            *rng.uniform(34, 35, (1, 400)),
            *rng.uniform(-119, -118, (1, 400)),
        ]
    )
    plane = 0.5 * np.log(X[:, 0]) + 0.01 * X[:, 1] + 1
    features = NeighbourFeatures().fit(X[50:], plane[50:])
    found = _named(features.transform(X[:50]), "PlaceLocalPrice0.3")
    assert np.abs(found - plane[:50]).max() < 0.05
    assert np.abs(_named(features.transform(X[:50]), "PlacePrice40") - plane[:50]).max() > 0.2


def test_a_trait_that_never_varied_keeps_no_district_from_its_neighbours(known):
    X, y = known
    alike = X.copy()
    alike[:, 1] = 30.0  # the age of every known district
    asked = np.column_stack([alike[:, 0], np.full(len(X), 31.0), alike[:, 2:]])
    features = NeighbourFeatures().fit(alike, y)
    for name in ("Kind20Price1", "Kind20Price5", "PlaceLocalPrice3"):
        found, usual = (_named(features.transform(rows), name) for rows in (asked, alike))
        assert np.corrcoef(found, usual)[0, 1] > 0.5, name


def test_a_district_that_repeats_never_sees_its_price_in_its_twin(known):
    X, y = known
    once = NeighbourFeatures().fit_transform(X, y)
    twice = NeighbourFeatures().fit_transform(np.repeat(X, 2, axis=0), np.repeat(y, 2))
    np.testing.assert_array_equal(twice, np.repeat(once, 2, axis=0))


def test_rows_that_repeat_are_to_others_one_district_of_their_mean_price(known):
    X, y = known
    twins, prices = np.vstack([X[:200], X[:1]]), np.r_[1.0, y[1:200], 3.0]
    features = NeighbourFeatures().fit(twins, prices)
    assert _named(features.transform(X[:1]), "Kind5Price1") == 2.0


def test_few_districts_stand_for_many_and_one_is_refused(known):
    X, y = known
    few = NeighbourFeatures().fit_transform(X[:2], y[:2])
    assert np.isfinite(few).all()
    np.testing.assert_allclose(_named(few, "PlacePrice40"), y[:2][::-1])
    for one in ([0], [0, 0, 0]):
        with pytest.raises(DataError, match="found 1 training district; expected at least 2"):
            NeighbourFeatures().fit(X[one], y[one])


def test_a_stored_transformer_leaves_its_trees_behind_and_answers_the_same(known):
    X, y = known
    features = NeighbourFeatures().fit(X[100:], y[100:])
    assert "_trees" not in features.__getstate__()
    again = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(again.transform(X[:100]), features.transform(X[:100]))
