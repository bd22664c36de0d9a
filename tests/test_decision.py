"""One alarm: rare where nothing changed, and sure where something did."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, decision, gains, places, series
from housing_lib.causes import ranked_causes
from housing_lib.watch import WATCHED, Sums, Watch

ONE = np.array([0])
EVERY = np.ones(500, dtype=bool)


@pytest.fixture(scope="module")
def registered(store):
    return store.registered


@pytest.fixture(scope="module")
def rows(registered):
    return series.reference(registered)


@pytest.fixture(scope="module")
def watch(rows):
    return Watch(rows)


@pytest.fixture(scope="module")
def chance(watch):
    return decision.Chance(watch)


def _answered(rows, registered):
    """Rows whose features were changed, answered anew."""
    asked = rows[list(data.FEATURES)]
    low, high = registered.model.predict_interval(asked)
    return rows.assign(predicted=registered.model.predict(asked), low=low, high=high)


def _decide(rows, watch, chance, *, batches=1):
    starts = np.arange(batches) * (len(rows) // batches)
    return decision.decide(chance, watch, watch.sums(rows, starts))


@pytest.mark.parametrize("size", [100, 500])
def test_few_unchanged_batches_raise_an_alarm_and_yet_some(watch, chance, size):
    """Each of 500 batches is drawn from the test districts and compared with those not drawn."""
    rng = np.random.default_rng(1)
    total = len(watch.reference)
    drawn = np.zeros((500, total), dtype=np.float32)
    for row in drawn:
        row[rng.choice(total, size, replace=False)] = 1
    own, others = (side @ watch.scores for side in (drawn, 1 - drawn))
    sums = Sums(own.astype(float), np.full(own.shape, float(size)), np.full(500, float(size)))
    shifts = watch.shift(sums, of=others / (total - size)).largest
    p_values = chance.p_values(shifts, sums.rows)
    assert 0.01 < (p_values <= decision.FALSE_ALARMS).mean() < 0.05
    assert 0.4 < np.median(p_values) < 0.6


def _dearer_incomes(rows):
    return rows.assign(MedInc=rows["MedInc"] * 1.2)


def _nulls(rows):
    gone = np.arange(len(rows)) % 10 == 0
    return rows.assign(HouseAge=rows["HouseAge"].mask(gone))


def _regions_swapped(rows):
    region = places.regions(rows["Latitude"].to_numpy(), rows["Longitude"].to_numpy())
    bay, inland = region == "San Francisco Bay", region == "Inland Empire"
    columns = ["Latitude", "Longitude"]
    away = rows.loc[inland, columns].mean() - rows.loc[bay, columns].mean()
    swapped = rows.copy()
    swapped.loc[bay, columns] += away
    swapped.loc[inland, columns] -= away
    return swapped


def _dearer_prices(rows):
    return rows.assign(MedHouseVal=rows["MedHouseVal"] * 1.1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_dearer_incomes, "MedInc"),
        (_nulls, "missing values"),
        (_regions_swapped, "all columns"),
        (_dearer_prices, "errors"),
    ],
)
def test_a_change_of_500_rows_raises_the_alarm_and_is_named(
    rows, watch, chance, registered, change, named
):
    found = 0
    for seed in range(4):
        changed = _answered(change(rows.sample(500, random_state=seed)), registered)
        found += bool(_decide(changed, watch, chance).alarmed)
        assert named in {cause.what for cause in ranked_causes(watch, changed, EVERY[:500])}
    assert found == 4


def test_slow_change_is_caught_before_prices_are_8_percent_higher(rows, watch, chance):
    rng = np.random.default_rng(4)
    weeks = rows.iloc[rng.integers(len(rows), size=12 * 300)]
    dearer = 1 + 0.01 * np.maximum(np.repeat(np.arange(12), 300) - 4, 0)
    slow = weeks.assign(MedHouseVal=weeks[data.TARGET] * dearer)
    first = next(
        week
        for week in range(1, 13)
        if _decide(slow.head(300 * week), watch, chance, batches=week).alarmed
    )
    assert 4 < first < 12
    assert not _decide(weeks, watch, chance, batches=12).alarmed


def test_a_month_of_unchanged_days_is_one_decision_and_seldom_an_alarm(rows, watch, chance):
    rng = np.random.default_rng(5)
    months = [rows.iloc[rng.integers(len(rows), size=30 * 100)] for _ in range(25)]
    alarms = sum(bool(_decide(month, watch, chance, batches=30).alarmed) for month in months)
    assert alarms <= 3


def test_a_short_change_is_found_where_it_is(rows, watch, chance):
    month = rows.sample(3000, random_state=6)
    month = month.assign(MedHouseVal=month[data.TARGET].mask(np.arange(3000) // 100 == 17, 5.0))
    assert _decide(month, watch, chance, batches=30).alarmed == [(17, 18)]


def test_small_batches_are_judged_together_and_too_few_rows_not_at_all(rows, watch, chance):
    some = rows.sample(250, random_state=7)
    units = _decide(some, watch, chance, batches=25).units
    assert list(units["first"]) == [0, 10]
    assert list(units["end"]) == [10, 25]
    nothing = _decide(some.head(90), watch, chance, batches=9)
    assert not nothing.enough
    assert nothing.alarmed == []
    assert np.isnan(nothing.p_value)


@pytest.mark.parametrize("name", ["AveRooms", "Latitude"])
@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_column_that_is_all_missing_or_constant_raises_the_alarm(
    rows, watch, chance, name, value
):
    broken = rows.sample(300, random_state=8).assign(**{name: value})
    assert _decide(broken, watch, chance).alarmed
    assert all(cause.sentence for cause in ranked_causes(watch, broken, EVERY[:300]))


def test_levels_and_p_values_are_each_others_inverse(chance):
    for wanted in (0.3, 0.05, 1e-3, 1e-6):
        level = chance.level(wanted, 100)
        found = chance.p_values(np.array([level]), np.array([100.0]))[0]
        assert found == pytest.approx(wanted, rel=0.05, abs=1e-3 if wanted > 0.1 else 0)


def test_sums_of_windows_are_those_of_their_rows(rows, watch):
    some = rows.head(600)
    sums = watch.sums(some, np.arange(6) * 100)
    window = sums.window(np.array([2]), np.array([5]))
    np.testing.assert_allclose(window.totals, watch.sums(some.iloc[200:500], ONE).totals, atol=1e-3)
    assert watch.shift(sums).z.shape == (6, len(WATCHED))


def test_answers_that_nobody_can_compare_are_not_judged(rows, chance):
    unknown = rows.assign(predicted=np.nan, low=np.nan, high=np.nan)
    watch = Watch(unknown)
    assert not _decide(rows.sample(500, random_state=9), watch, chance).alarmed


def test_too_few_reference_rows_are_refused(rows):
    with pytest.raises(ValueError, match="found 199 reference rows"):
        Watch(pd.DataFrame(rows.head(199)))


def test_however_many_rows_there_are_the_draws_fit_into_memory(monkeypatch):
    whole = np.concatenate(list(gains.draws(30, 0)))
    assert gains.pieces(5, 3) == [5]
    monkeypatch.setattr(gains, "MOST_AT_ONCE", 3_000)
    assert max(gains.pieces(gains.RESAMPLES, 30)) == 100
    pieces = list(gains.draws(30, 0))
    assert {len(one) for one in pieces} == {100}
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_chance_drawn_in_pieces_is_the_same(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    scores[::7, 1] = np.nan
    whole = decision._drawn(np.random.default_rng(1), 20, scores)
    monkeypatch.setattr(gains, "MOST_AT_ONCE", 5_000)
    pieces = decision._drawn(np.random.default_rng(1), 20, scores)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_how_far_a_value_moved_is_told_in_ranks(rows, watch, registered):
    wider = _answered(rows.assign(AveRooms=rows["AveRooms"] * 1.2), registered)
    found = next(
        one
        for one in ranked_causes(watch, wider, np.ones(len(wider), dtype=bool))
        if one.what == "AveRooms"
    )
    told = watch.ranks(wider)["AveRooms"].mean() / watch.ranks(rows)["AveRooms"].std()
    assert found.size == pytest.approx(told, abs=0.01)
    assert f"AveRooms ranks {told:.2f} standard deviations higher" in found.sentence
    assert told > 1.5 * (0.2 * rows["AveRooms"].mean() / rows["AveRooms"].std())  # of the values
