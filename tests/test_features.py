"""Raw districts to a model matrix."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, features
from housing_lib.data import DataError


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire().head(2_000)


@pytest.fixture(scope="module")
def fitted(districts):
    return features.make_preprocessing().fit(districts, districts[data.TARGET])


def test_the_matrix_is_complete_scaled_and_named(districts, fitted):
    matrix = features.make_preprocessing().fit_transform(districts, districts[data.TARGET])
    assert matrix.shape == (2_000, len(features.feature_names()))
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(matrix.std(axis=0), 1)
    named = [name.split("__")[1] for name in fitted.get_feature_names_out()]
    assert named == features.feature_names()


def test_every_kind_of_feature_is_summed_up_by_what_is_farthest_from_usual(districts):
    split = features.preprocess(districts, data.split(districts))
    names = features.feature_names()
    table = features.matrix_summary(split, names)
    assert set(table.index) == set(features.KINDS.values())
    assert (table[["train: mean", "train: spread"]].to_numpy() == [0, 1]).all()
    assert table["test: largest"].max() == np.abs(split["test"].X).max().round(2)
    strongest = features.strongest_by_kind(features.rank_correlations(split["train"], names))
    assert strongest["features"].sum() == len(names)
    assert strongest["rank correlation"].abs().is_monotonic_decreasing


def test_a_table_in_any_order_and_an_array_give_the_same_matrix(districts, fitted):
    turned = districts[districts.columns[::-1]].assign(note="extra")
    array = districts[list(data.FEATURES)].to_numpy()
    np.testing.assert_array_equal(fitted.transform(turned), fitted.transform(districts))
    np.testing.assert_array_equal(fitted.transform(array), fitted.transform(districts))


def test_missing_and_infinite_values_get_the_training_median(districts, fitted):
    holed = districts.head(3).copy()
    filled = holed.copy()
    holed.loc[0, "MedInc"], holed.loc[1, "MedInc"] = np.nan, np.inf
    filled.loc[:1, "MedInc"] = districts["MedInc"].median()
    np.testing.assert_allclose(fitted.transform(holed), fitted.transform(filled))


def test_a_district_with_nothing_known_still_gets_a_row(fitted):
    assert np.isfinite(fitted.transform(np.full((1, 8), np.nan))).all()


def test_nothing_is_learned_from_validation_and_test(districts):
    membership = data.split(districts)
    before = features.preprocess(districts, membership)
    changed = districts.copy()
    changed.loc[membership != "train", "MedInc"] *= 2
    after = features.preprocess(changed, membership)
    np.testing.assert_array_equal(before["train"].X, after["train"].X)
    assert not np.array_equal(before["test"].X, after["test"].X)


def test_a_written_part_prepares_again_to_the_bit(districts):
    train, val = (
        features.preprocess(districts, data.split(districts))[one] for one in ("train", "val")
    )
    before, again = features.prepare(train.districts, train.y), features.prepared_before(train)
    np.testing.assert_array_equal(before.matrix, again.matrix)
    asked = [one.preprocessing.transform(val.districts) for one in (before, again)]
    np.testing.assert_array_equal(*asked)


def test_thinned_districts_know_half_of_their_neighbours_and_never_their_own_price(districts):
    prices = districts[data.TARGET].to_numpy()
    preprocessing = features.make_preprocessing()
    matrix = preprocessing.fit_transform(districts, prices)
    thinned = features.thinned_matrix(preprocessing, districts, prices)
    own = len(features.own_names())
    np.testing.assert_allclose(thinned[:, :own], matrix[:, :own])
    away = features.feature_names().index("PlaceLogDistance20")
    assert (thinned[:, away] >= matrix[:, away]).all()
    changed = prices.copy()
    changed[100] += 3
    again = features.thinned_matrix(preprocessing, districts, changed)
    np.testing.assert_array_equal(thinned[100], again[100])
    assert (thinned != again).any(axis=1).sum() > 10  # its neighbours do hear of it


def test_a_district_that_repeats_is_in_one_half_with_its_twin(districts):
    once = districts.head(500)
    twice = once.loc[once.index.repeat(2)]
    matrices = []
    for table in (once, twice):
        prices = table[data.TARGET].to_numpy()
        prepared = features.prepare(once, once[data.TARGET].to_numpy())
        matrices.append(features.thinned_matrix(prepared.preprocessing, table, prices))
    np.testing.assert_allclose(matrices[1], np.repeat(matrices[0], 2, axis=0))


def test_missing_columns_and_wrong_shapes_are_refused(districts, fitted):
    with pytest.raises(DataError, match="missing columns: MedInc"):
        fitted.transform(districts.drop(columns="MedInc"))
    with pytest.raises(DataError, match=r"shape \(1, 7\); expected \(rows, 8\)"):
        fitted.transform(np.zeros((1, 7)))
