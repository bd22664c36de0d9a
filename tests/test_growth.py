"""The training data grow by labelled districts, each once, and nothing locked is touched."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from logged import use_log

from housing_lib import data, growth, retraining
from housing_lib.data import FEATURES, TARGET

NOW = pd.Timestamp("2026-03-01", tz="UTC")


@pytest.fixture
def fresh(own_root):
    """A hundred labelled districts that nobody knows yet."""
    known = data.acquire().head(100)
    return known.assign(MedInc=known["MedInc"] * 1.01, fault="", observed_at=NOW)


def test_new_districts_join_behind_the_source_which_stays_as_it_is(fresh):
    grown = growth.grow(fresh)
    together, source = data.acquire(str(grown.source)), data.acquire()
    assert sum(grown.added.values()) == grown.labelled == 100
    pd.testing.assert_frame_equal(together.head(len(source)), source)
    np.testing.assert_array_equal(together.tail(100)[TARGET], fresh[TARGET])
    data.verify_bundled()


def test_every_old_district_stays_in_its_part_and_new_ones_fall_by_the_same_rule(fresh):
    grown = growth.grow(fresh)
    together, source = data.acquire(str(grown.source)), data.acquire()
    parts = data.split(together)
    np.testing.assert_array_equal(parts[: len(source)], data.split(source))
    names, counts = np.unique(parts[len(source) :], return_counts=True)
    assert {name: count for name, count in grown.added.items() if count} == dict(
        zip(names, counts, strict=True)
    )


def test_a_district_joins_once(fresh):
    growth.grow(pd.concat([fresh.head(60), fresh.head(10)]))
    again = growth.grow(fresh)
    assert (sum(again.added.values()), again.known, again.labelled) == (40, 60, 100)
    assert sum(growth.grow(fresh).added.values()) == 0


def test_what_is_known_unpriced_faulty_or_contradicts_is_left_out_and_counted(fresh):
    rows = pd.concat([fresh, data.acquire().head(5).assign(fault="", observed_at=NOW)])
    rows = rows.reset_index(drop=True)
    rows.loc[0, TARGET], rows.loc[1, "fault"] = np.nan, "MedInc above 20"
    rows.loc[102, TARGET] += 1
    grown = growth.grow(rows)
    assert (grown.unpriced, grown.faulty, grown.known) == (1, 1, 4)
    (conflict,) = grown.conflicts
    assert "$452,100, known for $352,100" in conflict
    assert sum(grown.added.values()) == 98


def test_missing_features_join_and_are_known_again(fresh):
    fresh.loc[:9, "AveRooms"] = np.nan
    assert sum(growth.grow(fresh).added.values()) == 100
    assert growth.grow(fresh).known == 100


def test_recent_are_the_districts_of_the_last_days_before_the_newest(fresh):
    old = fresh.head(30).assign(observed_at=NOW - pd.Timedelta(days=100))
    growth.grow(old)
    growth.grow(fresh.tail(70))
    assert set(growth.recent_ids()) == set(data.row_ids(fresh.tail(70)[list(FEATURES)]))


def test_recent_is_what_turned_out_lately_whenever_it_was_asked(fresh, tmp_path, monkeypatch):
    log, now = use_log(monkeypatch, tmp_path), datetime.now(UTC)
    answered = fresh.head(40).assign(predicted=1.0, low=0.5, high=2.0, model_version=1)
    asked = now - timedelta(days=200)
    ids = log.answer(answered, every=timedelta(0), start=asked)
    log.turn_out(ids[:10], answered[TARGET].head(10), at=now - timedelta(days=1))
    log.turn_out(ids[10:20], answered[TARGET].iloc[10:20], at=asked)
    log.turn_out_by_features(answered.iloc[20:30], at=now + timedelta(days=400))
    assert retraining.collect("log", base="bundled").labelled == 30
    recent = pd.concat([fresh.head(10), fresh.iloc[20:30]])
    assert set(growth.recent_ids()) == set(data.row_ids(recent[list(FEATURES)]))


def test_a_damaged_addition_is_named_and_nothing_is_changed(fresh):
    grown = growth.grow(fresh)
    before = grown.source.read_bytes()
    (path,) = grown.source.parent.glob("labelled-*.parquet")
    path.write_bytes(b"broken")
    with pytest.raises(data.DataError, match=r"labelled-0001.parquet cannot be read"):
        growth.grow(fresh)
    assert grown.source.read_bytes() == before


def test_an_addition_that_was_removed_costs_no_later_one(fresh):
    for rows in (30, 60):
        grown = growth.grow(fresh.head(rows)).source.parent
    first, second = sorted(grown.glob("labelled-*.parquet"))
    kept = second.read_bytes()
    first.unlink()
    assert growth.grow(fresh).labelled == 100
    assert second.read_bytes() == kept


def test_without_any_labelled_district_there_is_nothing_to_learn_from(own_root, tmp_path):
    unpriced = tmp_path / "unpriced.csv"
    data.acquire().head(3).drop(columns=TARGET).to_csv(unpriced, index=False)
    with pytest.raises(retraining.RetrainError, match=r"3 without a price.*Nothing was run"):
        retraining.collect(str(unpriced), base="bundled")


def test_the_test_districts_are_not_learned_from(own_root):
    with pytest.raises(retraining.RetrainError, match="stay locked"):
        retraining.collect("test", base="bundled")


def test_one_retraining_at_a_time(own_root):
    with (
        retraining.alone(),
        pytest.raises(retraining.RetrainError, match="under way"),
        retraining.alone(),
    ):
        pass


def test_where_nothing_joins_nothing_is_written(fresh):
    grown = growth.grow(fresh.assign(MedHouseVal=np.nan))
    assert (grown.labelled, grown.unpriced) == (0, 100)
    assert not grown.source.exists()


def test_a_source_that_holds_labelled_districts_already_does_not_grow_by_them(fresh):
    grown = growth.grow(fresh)
    rows = len(data.acquire(str(grown.source)))
    again = growth.grow(fresh, source=str(grown.source))
    assert (again.known, sum(again.added.values())) == (100, 0)
    assert len(data.acquire(str(grown.source))) == rows


def test_a_retraining_that_died_finds_its_districts_again(fresh):
    grown = growth.grow(fresh)
    again = growth.grow(fresh, source=str(grown.source))
    assert again.labelled == grown.labelled == 100
    assert again.source == grown.source
