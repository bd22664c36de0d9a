"""A session of monitoring the server's log: days, and several versions that answered."""

from dataclasses import replace
from datetime import timedelta

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from logged import use_log
from monitored import tell

from housing_lib import data, monitoring, plots, traffic, verdict
from housing_lib.registry import RegistryError
from housing_lib.settings import get_settings

DAY = timedelta(days=1)


@pytest.fixture
def log(tmp_path, monkeypatch):
    yield use_log(monkeypatch, tmp_path)
    monkeypatch.undo()
    get_settings.cache_clear()


def test_days_are_batches_and_versions_are_judged_by_themselves(log, quiet, registered):
    rows = quiet.rows.head(900)
    first = log.answer(rows.head(500), every=DAY / 100)
    log.turn_out(first, rows[data.TARGET].head(500))
    other = rows.tail(400).assign(model_version=7, predicted=rows["predicted"] * 2)
    other = other.assign(low=other["predicted"] - 0.1, high=other["predicted"] + 0.1)
    second = log.answer(other, every=DAY / 100, start=pd.Timestamp("2026-03-05T12:00Z"))
    log.turn_out(second, other[data.TARGET])
    found = _look(registered)
    by_version = found.batches.groupby("model_version")["num_rows_in_batch"].apply(list)
    assert by_version[registered.version] == [100] * 5
    assert by_version[7] == [50, 100, 100, 100, 50]
    assert found.verdict.model_version == registered.version
    assert found.verdict.state == verdict.QUIET
    assert [one.version for one in found.series] == [registered.version, 7]
    assert found.series[1].alarmed == ()  # nobody knows what version 7 does on the test districts
    assert found.sliding["rmse"].isna().tolist() == [number in (0, 5) for number in range(10)]
    assert found.sliding["rmse"].tail(5).min() > 2 * found.sliding["rmse"].head(5).max()
    known = _look(registered, load_version=lambda version: replace(registered, version=version))
    assert len(known.series[1].alarmed) == 5
    assert known.verdict.state == verdict.QUIET


def test_what_an_earlier_version_answered_is_no_verdict_about_the_one_that_is_registered(
    log, quiet, registered
):
    rows = quiet.rows.head(300)
    dearer = rows.assign(predicted=rows["predicted"] * 2)
    log.turn_out(log.answer(dearer, every=DAY / 100), rows[data.TARGET])
    later = replace(registered, version=registered.version + 1)
    found = _look(later, load_version=lambda version: registered)
    assert found.series[0].alarmed  # by itself, the one before would be in alarm
    assert found.verdict.state == verdict.NOT_ENOUGH
    assert found.verdict.model_version == later.version
    assert found.verdict.sentence == f"version {later.version} has not answered yet"
    assert (found.verdict.batches, found.verdict.rows, found.verdict.alarmed) == (0, 0, ())
    assert found.verdict.first < found.verdict.last
    assert monitoring.told_apart(found) is None
    assert found.by_chance.isna().all(axis=None)
    assert plots.quality_grid(found.batches, found.sliding, found.by_chance)
    plt.close("all")
    assert "mae" not in monitoring.overall(found)
    text = tell(found)
    assert f"were not answered by version {later.version}" in text
    assert "40,000 dollars in its test" not in text


def test_the_figures_are_those_of_the_version_that_is_judged(log, quiet, registered):
    rows = quiet.rows.head(300)
    log.turn_out(log.answer(rows.head(200), every=DAY / 100), rows[data.TARGET].head(200))
    other = rows.tail(100).assign(model_version=7, predicted=5.0)
    ids = log.answer(other, every=DAY / 100, start=pd.Timestamp("2026-03-05T12:00Z"))
    log.turn_out(ids[:50], other[data.TARGET].head(50))
    found = _look(registered)
    assert "200 of 200 have a true price" in tell(found)
    assert monitoring.overall(found)["rmse"] == pytest.approx(found.verdict.evidence["rmse"])
    assert found.verdict.evidence["rmse"] < 1
    assert found.batch_rows == 100


def _look(registered, *, load_version=None, batch_hours=24):
    def absent(version):
        raise RegistryError(f"there is no version {version}")

    return monitoring.observe(
        traffic.load("log"),
        registered,
        batch_hours=batch_hours,
        load_version=load_version or absent,
    )


def test_a_day_keeps_its_key_and_changes_its_digest_when_prices_arrive(log, quiet, registered):
    rows = quiet.rows.head(120)
    ids = log.answer(rows, every=DAY / 60)
    before = _look(registered).batches
    log.turn_out(ids[:60], rows[data.TARGET].head(60))
    after = _look(registered).batches
    assert list(before["key"]) == list(after["key"])
    assert (before["digest"] != after["digest"]).tolist() == [True, False]
    assert list(after["num_valid_rows_in_batch"]) == [60, 0]


def test_batches_of_seconds_have_keys_of_their_own_and_whole_minutes_the_short_ones(
    log, quiet, registered
):
    log.answer(quiet.rows.head(120), every=timedelta(seconds=1))
    halves = _look(registered, batch_hours=30 / 3600).batches["key"]
    assert list(halves.str.extract(r"@(.*)\+")[0]) == [
        "2026-03-01T00:00",
        "2026-03-01T00:00:30",
        "2026-03-01T00:01",
        "2026-03-01T00:01:30",
    ]
    whole = _look(registered, batch_hours=1 / 60).batches["key"]
    assert whole.iloc[1].endswith("@2026-03-01T00:01+0.0166667h")
