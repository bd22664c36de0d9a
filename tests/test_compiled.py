"""A compiled model is the model, to the last bit that counts, and no file can pretend to be one."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from sklearn.ensemble import VotingRegressor
from xgboost import XGBRegressor

from housing_lib import (
    compiled,
    compiling,
    data,
    families,
    forests,
    intervals,
    nearness,
    searching,
    shallow,
)
from housing_lib.answering import CompiledModel, PlainModel
from housing_lib.data import FEATURES, TARGET
from housing_lib.model import DistrictModel
from serve import schemas

SMALL = {
    "xgboost": {"n_estimators": 30, "max_depth": 6},
    "gradient_boosting": {"max_iter": 30, "max_leaf_nodes": 31},
    "random_forest": {"n_estimators": 10, "max_depth": 30},
    "decision_tree": {"max_depth": 20},
}


@pytest.fixture(scope="module")
def training():
    """Districts enough to have neighbours, few enough to be quick."""
    return data.acquire().sample(3_000, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def everywhere(training):
    """All districts, and some that nobody saw."""
    known = data.acquire()[list(FEATURES)].to_numpy()
    unseen = compiling.synthetic_districts(known, rows=2_000, seed=7)
    return np.vstack([known[::5], training[list(FEATURES)].to_numpy(), unseen])


@pytest.fixture(scope="module")
def calibrated(training):
    """A champion's kind of model, with intervals."""
    model = intervals.CalibratedModel(families.make_model("xgboost", SMALL["xgboost"]))
    return model.fit(training[list(FEATURES)], training[TARGET].to_numpy())


@pytest.fixture(scope="module")
def arrays(calibrated, training):
    """The same as arrays."""
    return compiling.compile_model(calibrated, training[list(FEATURES)].to_numpy())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_gives_the_same_numbers_compiled(family, training, everywhere):
    model = families.make_model(family, SMALL.get(family))
    model.fit(training[list(FEATURES)], training[TARGET].to_numpy())
    made = compiling.compile_model(model, training[list(FEATURES)].to_numpy())
    compiling.prove(made, model, everywhere)
    assert np.isnan(made.answer(everywhere[:2]).low).all()


def test_districts_that_repeat_and_a_trait_that_never_varied_are_compiled_as_they_are_learned(
    training, everywhere
):
    odd = pd.concat([training, training.head(500)]).assign(HouseAge=np.nan)
    model = families.make_model("ridge").fit(odd, odd[TARGET].to_numpy())
    made = compiling.compile_model(model, odd[list(FEATURES)].to_numpy())
    compiling.prove(made, model, everywhere)
    assert len(made.districts) == len(made.around.known.prices) == len(training)


def test_prices_and_intervals_are_the_models_own(arrays, calibrated, everywhere):
    found = arrays.answer(everywhere)
    low, high = calibrated.predict_interval(everywhere, 0.9)
    np.testing.assert_allclose(found.prices, calibrated.predict(everywhere), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.low, low, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.high, high, rtol=0, atol=1e-6)


def test_a_district_alone_gets_the_answer_that_it_gets_among_others(arrays, everywhere):
    together = arrays.answer(everywhere[:300]).table()
    alone = np.vstack([arrays.answer(row[None]).table() for row in everywhere[:300]])
    np.testing.assert_array_equal(alone, together)


def _nearest_in_order(points, asked, most):
    """By sorting all of them: the nearest first, at one distance the one that comes first."""
    squares = np.zeros((len(asked), len(points)), dtype="f4")
    for known, here in zip(points.T.astype("f4"), asked.T.astype("f4"), strict=True):
        squares += (known - here[:, None]) ** 2
    rows = np.argsort(squares, axis=1, kind="stable")[:, :most]
    return np.sqrt(np.take_along_axis(squares, rows, axis=1)), rows


def _searched(points, asked, most):
    search = compiling._search(points)
    squares, rows = np.empty((len(asked), most), dtype="f4"), np.empty((len(asked), most), "i8")
    for number, point in enumerate(asked.astype("f4")):
        searching.nearest(search, point, squares[number], rows[number])
    return np.sqrt(squares), rows


@pytest.mark.parametrize("dimensions", [3, 8])
def test_the_nearest_are_found_and_where_distances_tie_the_first_of_them(dimensions):
    random = np.random.default_rng(dimensions)
    on_a_grid = random.integers(0, 4, (1_500, dimensions)).astype("f8")
    # More than are kept before they are sorted out.
    many = 40 + 2 * searching.SPARE * compiling.BUCKET
    at_one_place = np.ones((many, dimensions))
    points = np.vstack([on_a_grid, random.normal(2, 1, (1_500, dimensions)), at_one_place])
    points = random.permutation(points)
    asked = np.vstack([points[::20], random.normal(2, 2, (300, dimensions))])
    distances, rows = _nearest_in_order(points, asked, 40)
    found, which = _searched(points, asked, 40)
    np.testing.assert_array_equal(which, rows)
    np.testing.assert_array_equal(found, distances)
    own_found, own_which = nearness.nearest(nearness.grow(points), asked, 40)
    np.testing.assert_array_equal(own_which, rows)
    np.testing.assert_array_equal(own_found, distances)


@pytest.mark.parametrize("count", [1, 2, 41, 520, 9_000])
def test_boxes_around_any_number_of_points_lead_to_the_nearest(count):
    random = np.random.default_rng(count)
    points, asked = random.normal(size=(count, 5)), random.normal(size=(50, 5))
    there = min(count, 40)
    _, rows = _nearest_in_order(points, asked, there)
    _, which = _searched(points, asked, 40)
    np.testing.assert_array_equal(which[:, :there], rows)
    np.testing.assert_array_equal(which[:, there:], np.repeat(rows[:, -1:], 40 - there, axis=1))


@pytest.mark.parametrize("depth", [1, 8, 9, 10, 12])
def test_boosters_of_any_depth_give_the_same_numbers_alone_and_together(depth):
    random = np.random.default_rng(depth)
    matrix = random.normal(size=(3_000, 5)).astype("f4")
    prices = np.sin(3 * matrix).sum(axis=1)
    booster = XGBRegressor(n_estimators=13, max_depth=depth, max_bin=32, n_jobs=1)
    booster.fit(matrix, prices)
    made = forests.from_boosters([booster, booster])
    assert isinstance(made, shallow.Shallow) == (depth <= shallow.DEEPEST)
    expected = booster.predict(matrix[:200])
    np.testing.assert_array_equal(made.predict(matrix[:200]), expected)
    alone = [made.predict(row[None])[0] for row in matrix[:50]]
    np.testing.assert_array_equal(alone, expected[:50])


def test_a_file_gives_back_the_same_model(arrays, everywhere, tmp_path):
    digest = arrays.save(tmp_path / "model.npz")
    loaded = compiled.load(tmp_path / "model.npz", digest=digest)
    np.testing.assert_array_equal(
        loaded.answer(everywhere).table(), arrays.answer(everywhere).table()
    )


def test_the_nearest_training_district_is_found_with_its_distance(arrays, training):
    row, kilometres = arrays.nearest(*training.loc[5, ["Latitude", "Longitude"]])
    assert kilometres == pytest.approx(0, abs=1e-9)
    assert arrays.districts[row, 6] == training.loc[5, "Latitude"]
    _, far = arrays.nearest(42.0, -115.0)
    assert far > 50


@pytest.mark.parametrize(("away", "is_far"), [(9.8, False), (10.2, True)])
def test_a_place_is_far_in_files_where_it_is_far_over_http(
    arrays, calibrated, training, away, is_far
):
    def beyond(longitude):
        return arrays.nearest(37.75, longitude)[1] - away

    there = brentq(beyond, -124.0, -122.45)  # in the sea before San Francisco
    asked = training[list(FEATURES)].head(1).assign(Latitude=37.75, Longitude=there).to_numpy()
    champion = SimpleNamespace(release=SimpleNamespace(name="", version=1, stage=""))
    (told,) = schemas.predictions(champion, asked, arrays.answer(asked))
    assert told.nearest_training_district_km == away
    assert told.far_from_training == is_far
    for model in (CompiledModel(arrays), PlainModel(calibrated)):
        assert model.answer(asked).flags == ["far_from_known" if is_far else ""]


@pytest.mark.parametrize("missing", [["Latitude"], ["Longitude"], ["Latitude", "Longitude"]])
def test_a_place_that_nobody_gave_is_near_or_far_neither_in_files_nor_over_http(
    arrays, calibrated, training, missing
):
    oregon = training[list(FEATURES)].head(1).assign(Latitude=41.9, Longitude=-124.9)
    asked = oregon.assign(**dict.fromkeys(missing, np.nan)).to_numpy()
    champion = SimpleNamespace(release=SimpleNamespace(name="", version=1, stage=""))
    (told,) = schemas.predictions(champion, asked, arrays.answer(asked))
    assert told.nearest_training_district_km is None
    assert not told.far_from_training
    assert told.imputed == missing
    for model in (CompiledModel(arrays), PlainModel(calibrated)):
        assert model.answer(asked).flags == [" ".join(f"imputed_{name}" for name in missing)]


@pytest.mark.parametrize("damage", ["a bit", "cut off", "empty", "text", "missing"])
def test_a_changed_file_is_refused_before_it_is_read(arrays, damage, tmp_path):
    path = tmp_path / "model.npz"
    digest = arrays.save(path)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    damaged = {"a bit": bytes(changed), "cut off": content[:1000], "empty": b"", "text": b"PK no"}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(compiled.CompileError, match="Nothing was loaded"):
        compiled.load(path, digest=digest)


def test_a_file_that_does_not_give_its_golden_answers_is_refused(arrays, tmp_path):
    wrong = compiled.Compiled(**{**vars(arrays), "medians": arrays.medians + 1})
    digest = wrong.save(tmp_path / "model.npz")
    with pytest.raises(compiled.CompileError, match="golden"):
        compiled.load(tmp_path / "model.npz", digest=digest)


def test_arrays_that_are_not_the_model_are_not_proved(arrays, calibrated, everywhere):
    wrong = compiled.Compiled(**{**vars(arrays), "mean": arrays.mean + 0.1})
    with pytest.raises(compiled.CompileError, match="is not the model"):
        compiling.prove(wrong, calibrated, everywhere[:500])


def test_an_estimator_that_cannot_become_arrays_is_named(training):
    from sklearn.neighbors import KNeighborsRegressor

    model = DistrictModel(KNeighborsRegressor())
    model.fit(training[list(FEATURES)], training[TARGET].to_numpy())
    with pytest.raises(compiled.CompileError, match="KNeighborsRegressor cannot become arrays"):
        compiling.compile_model(model, training[list(FEATURES)].to_numpy())


def test_a_mean_in_which_boosters_count_unequally_is_refused(training):
    boosters = [(str(seed), XGBRegressor(n_estimators=2, random_state=seed)) for seed in (0, 1)]
    model = DistrictModel(VotingRegressor(boosters, weights=[2.0, 1.0]))
    model.fit(training[list(FEATURES)], training[TARGET].to_numpy())
    with pytest.raises(compiled.CompileError, match=r"count \[2.0, 1.0\] cannot become arrays"):
        compiling.compile_model(model, training[list(FEATURES)].to_numpy())


def test_a_model_of_other_districts_is_refused(calibrated):
    others = data.acquire()[list(FEATURES)].to_numpy()[:50]
    with pytest.raises(compiled.CompileError, match="are not among the data"):
        compiling.compile_model(calibrated, others)
