"""Locked districts decide until prices have moved; then recent ones do, and the past is bounded."""

from dataclasses import replace

import numpy as np
import pytest
import xgboost
from scipy.spatial import KDTree

from housing_lib import gate, guarded, parts, places
from housing_lib.data import FEATURES, PRICE_CAP, TARGET
from housing_lib.gate import Evidence, Incumbent, Limits
from housing_lib.movement import FEWEST_PLACES, SQUARE_DEGREES, measure

LOCKED, RECENT = 3_000, 400


@pytest.fixture
def rng():
    """The source of what is random here."""
    return np.random.default_rng(0)


def world(rng, *, rise=0.0, follows=0.0, noise=0.30, recent=RECENT, harmed=0.0):
    """An incumbent of old prices and a challenger that follows a share of the rise of recent ones.

    Following, it asks too much by as much where the prices are old.
    """
    count = LOCKED + recent
    is_recent = np.arange(count) >= LOCKED
    old = rng.uniform(1, 4, count)
    prices = old * (1 + rise * is_recent) + rng.normal(0, 0.3, count)
    predicted = old * (1 + follows * rise) + rng.normal(0, noise, count) * 0.3
    slices = {"here": np.arange(count) % 2 == 0, "there": np.arange(count) % 2 == 1}
    predicted += harmed * (is_recent & slices["there"])
    return Evidence(
        prices=prices,
        predicted=predicted,
        squares=np.arange(count),
        slices=slices,
        baselines={"the median price": np.full(count, np.median(prices))},
        recorded_rmse=float(np.sqrt(np.mean((predicted - prices) ** 2))),
        latency_ms=1,
        size_mb=1,
        memory_mb=1,
        incumbent=Incumbent(5, old + rng.normal(0, 0.1, count)),
        recent=is_recent,
    )


def table(evidence, **limits):
    return {rule.name: rule for rule in gate.judge(evidence, Limits(**limits), seed=0)}


def held(evidence, **limits):
    return [name for name, rule in table(evidence, **limits).items() if not rule.passed]


def test_once_prices_rose_a_challenger_that_follows_them_passes_although_it_loses_on_old_ones(rng):
    evidence = world(rng, rise=0.10, follows=0.6)
    found = table(evidence)
    assert held(evidence) == []
    assert found["model in Production, lately"].bar == "recent districts decide"
    assert found["gain in the locked districts"].figure.startswith("−")
    assert found["gain over version 5 in recent districts"].passed


def test_the_same_challenger_is_held_where_nobody_marked_recent_districts(rng):
    unmarked = replace(world(rng, rise=0.10, follows=0.6), recent=None)
    assert "gain over version 5" in held(unmarked)


def test_what_is_lost_on_old_prices_is_bounded(rng):
    evidence = world(rng, rise=0.40, follows=1.0)
    assert "gain in the locked districts" in held(evidence)
    assert "gain in the locked districts" not in held(evidence, past_loss=5)


def test_a_challenger_that_does_not_follow_the_rise_is_held(rng):
    assert "gain over version 5 in recent districts" in held(world(rng, rise=0.10, follows=-0.2))


def test_a_part_that_is_harmed_among_recent_districts_holds(rng):
    assert "gain in there, recent" in held(world(rng, rise=0.10, follows=0.6, harmed=0.6))


def noisy(rng, **changes):
    """A world where much of a price cannot be foreseen, with its slices by price."""
    evidence = world(rng, recent=4_000, **changes)
    unforeseen = rng.normal(0, 0.6, len(evidence.prices))
    prices = np.maximum(evidence.prices + unforeseen, 0.2)
    rmse = float(np.sqrt(np.mean((evidence.predicted - prices) ** 2)))
    slices = evidence.slices | guarded.price_slices(prices)
    kept = {name: mask for name, mask in slices.items() if mask.sum() >= guarded.LEAST_ROWS}
    return replace(evidence, prices=prices, recorded_rmse=rmse, slices=kept)


def test_slices_by_price_hold_nobody_who_follows_a_rise(rng):
    evidence = noisy(rng, rise=0.06, follows=1.0)
    by_price = guarded.price_slices(evidence.prices)
    as_others = {
        f"as it is {name}": evidence.slices[name] for name in by_price if name in evidence.slices
    }
    assert any(
        name.startswith("gain in as it is") for name in held(replace(evidence, slices=as_others))
    )
    assert held(evidence) == []
    assert not {f"gain in {name}" for name in by_price} & set(table(evidence))


def test_without_a_rise_slices_by_price_are_guarded(rng):
    evidence = replace(noisy(rng), recent=None)
    assert {f"gain in {name}" for name in evidence.slices} <= set(table(evidence))


def test_who_harms_what_was_taken_for_cheap_is_held_although_prices_rose(rng):
    evidence = noisy(rng, rise=0.06, follows=1.0)
    cheap = evidence.incumbent.predicted < np.quantile(evidence.incumbent.predicted, 0.25)
    evidence = replace(evidence, predicted=evidence.predicted + 0.5 * cheap)
    assert any(name.startswith("gain in answers of") for name in held(evidence))


def test_without_a_change_locked_districts_decide_and_recent_ones_are_guarded(rng):
    evidence = world(rng, noise=2.0)
    found = table(evidence)
    assert "locked districts decide" in found["model in Production, lately"].bar
    assert {"gain over version 5", "gain in recent districts"} <= set(held(evidence))


def test_too_few_recent_districts_decide_nothing(rng):
    evidence = world(rng, rise=0.10, follows=0.6, recent=guarded.LEAST_ROWS - 1)
    assert "model in Production, lately" not in table(evidence)
    assert "gain over version 5" in held(evidence)


def test_no_number_in_recent_districts_holds(rng):
    evidence = world(rng, rise=0.10, follows=0.6)
    evidence.predicted[-1] = np.nan
    assert "gain over version 5 in recent districts" in held(evidence)


def test_one_of_twenty_samples_that_do_not_differ_seems_to_have_moved(rng):
    then = rng.normal(0, 0.4, LOCKED)
    found = [measure(rng.normal(0, 0.4, RECENT), then).clear for _ in range(300)]
    assert 0.01 < np.mean(found) < 0.09


def test_smaller_errors_are_no_movement_and_larger_ones_are(rng):
    then = rng.normal(0, 0.4, LOCKED)
    assert not measure(then[:RECENT] * 0.5 - np.mean(then[:RECENT]) * 0.5, then).clear
    assert measure(then[:RECENT] * 1.5 - np.mean(then[:RECENT]) * 1.5, then).clear


@pytest.fixture(scope="module")
def tested(store):
    """The evidence of the store's model against itself, and where its test districts lie."""
    predicted, prices = store.registered.model.predict(store.test), store.test[TARGET].to_numpy()
    slices = guarded.slices_of(store.test, prices)
    squares = places.squares(
        *store.test[["Latitude", "Longitude"]].to_numpy().T, degrees=SQUARE_DEGREES
    )
    incumbent = Incumbent(5, predicted)
    return Evidence(prices, predicted, squares, slices, {}, None, 1, 1, 1, incumbent)


LIES = {
    "anywhere": lambda tested: np.ones(len(tested.prices), dtype=bool),
    "in one region": lambda tested: tested.slices["Central Valley"],
    "where answers are high": lambda tested: tested.incumbent.predicted >= 3,
    "where answers are low": lambda tested: tested.incumbent.predicted < 1,
}


def share_moved(tested, rng, where, *, rise=1.0, tries=100):
    """How often a hundred and fifty recent districts of some places seem to have moved."""
    found = []
    for _ in range(tries):
        recent = np.zeros(len(tested.prices), dtype=bool)
        recent[rng.choice(np.flatnonzero(LIES[where](tested)), 150, replace=False)] = True
        prices = np.where(recent, np.minimum(rise * tested.prices, PRICE_CAP), tested.prices)
        found.append(gate.figures(replace(tested, prices=prices, recent=recent))["moved"])
    return np.mean(found)


@pytest.mark.parametrize("where", LIES)
def test_where_recent_districts_lie_is_no_movement_and_a_rise_there_is(tested, rng, where):
    assert share_moved(tested, rng, where) <= 0.10
    assert share_moved(tested, rng, where, rise=1.15, tries=20) >= 0.9


@pytest.fixture(scope="module")
def columns_alone(store, tested):
    """The same of a model of the raw columns, whose errors go together among neighbours."""
    train = parts.load_part("train")
    booster = xgboost.XGBRegressor(n_estimators=60, max_depth=6, learning_rate=0.15, n_jobs=1)
    booster.fit(train.districts[list(FEATURES)], train.y)
    predicted = booster.predict(store.test[list(FEATURES)]).astype("float64")
    return replace(tested, predicted=predicted, incumbent=Incumbent(5, predicted))


def around(tree, rng, *, places, rows):
    """Those of the districts that lie nearest to some of them."""
    middles = tree.data[rng.choice(tree.n, places, replace=False)]
    return np.unique(tree.query(middles, rows)[1])


@pytest.mark.parametrize(("count", "rows"), [(1, 200), (3, 70)])
def test_neighbourhoods_with_errors_of_their_own_are_no_movement(
    columns_alone, store, rng, count, rows
):
    on_sphere = places.places_km(*store.test[["Latitude", "Longitude"]].to_numpy().T)
    tree, found = KDTree(on_sphere), []
    for _ in range(100):
        recent = np.zeros(len(on_sphere), dtype=bool)
        recent[around(tree, rng, places=count, rows=rows)] = True
        found.append(gate.figures(replace(columns_alone, recent=recent)).get("moved", 0))
    assert np.mean(found) <= 0.08


def test_a_small_rise_of_districts_anywhere_is_still_found(columns_alone, rng):
    assert share_moved(columns_alone, rng, "anywhere", rise=1.1, tries=30) >= 0.9


def test_what_a_square_says_twice_counts_once(rng):
    then = rng.normal(0, 0.4, LOCKED)
    now = then[:RECENT] - then[:RECENT].mean() + then.mean() + 0.03
    squares = np.arange(RECENT + LOCKED)
    once = measure(now, then, squares=squares)
    again = measure(
        np.repeat(now, 9),
        then,
        squares=np.concatenate([np.repeat(squares[:RECENT], 9), squares[RECENT:]]),
    )
    assert not once.clear
    assert not again.clear
    assert (again.places, again.level) == pytest.approx((once.places, once.level))
    assert measure(np.repeat(now, 9), then).clear


def test_what_squares_have_of_their_own_is_no_movement_where_recent_districts_lie_in_some(rng):
    lies = np.repeat(np.arange(60), 50)
    recent = lies < 8
    both = np.concatenate([lies[recent], lies[~recent]])
    found, taken_for_independent = [], []
    for _ in range(200):
        errors = rng.normal(0, 0.2, 60)[lies] + rng.normal(0, 0.3, len(lies))
        now, then = errors[recent], errors[~recent]
        found.append(measure(now, then, squares=both).clear)
        taken_for_independent.append(measure(now, then).clear)
    assert np.mean(found) <= 0.08
    assert np.mean(taken_for_independent) > 0.5


@pytest.mark.parametrize("rows", [RECENT, LOCKED])
def test_few_places_cannot_be_told_whichever_districts_lie_there(rng, rows):
    squares = np.arange(RECENT + LOCKED)
    some = slice(0, RECENT) if rows == RECENT else slice(RECENT, None)
    squares[some] = squares[some] % (FEWEST_PLACES - 1)
    now, then = rng.normal(1, 0.4, RECENT), rng.normal(0, 0.4, LOCKED)
    found = measure(now, then, squares=squares)
    assert not found.clear
    assert found.meaning == "cannot be told from so few places: locked districts decide"
    assert measure(now, then).meaning == "recent districts decide"


def test_a_rise_in_one_place_leaves_the_decision_to_locked_districts(rng):
    evidence = world(rng, rise=0.10, follows=0.6)
    here = replace(evidence, squares=np.where(evidence.recent, 0, evidence.squares))
    assert "cannot be told" in table(here)["model in Production, lately"].bar
    assert "gain over version 5" in held(here)
    assert gate.figures(here)["moved"] == 0


def test_recent_districts_unlike_all_locked_ones_decide_nothing(rng):
    evidence = world(rng, rise=0.10, follows=0.6)
    alone = replace(evidence, slices=evidence.slices | {"San Diego": evidence.recent})
    assert "model in Production, lately" not in table(alone)
    assert "gain over version 5" in held(alone)
    assert gate.figures(alone)["recent_rows"] == RECENT
    assert "moved" not in gate.figures(alone)


def test_the_table_says_what_moved(rng):
    then = rng.normal(0, 0.4, LOCKED)
    same = then[:RECENT] - then[:RECENT].mean()
    lower, wider, both = (measure(now, then) for now in (same - 0.1, 1.5 * same, 1.5 * same - 0.4))
    assert lower.figure.startswith("asks $")
    assert "RMSE" not in lower.figure
    assert wider.figure.startswith("its RMSE is $")
    assert "less than it did and its RMSE is $" in both.figure
    assert measure(same, then).figure.startswith("asks $")
