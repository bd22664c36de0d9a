"""Metrics from sums, their intervals, what chance does, and what widths tell of errors."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, quality, series
from housing_lib.accuracy import metrics


@pytest.fixture(scope="module")
def rows(store):
    return series.reference(store.registered)


def _sums(rows, batch):
    return quality.sums_of(rows, batch, count=int(batch[-1]) + 1, centre=2.0)


def test_each_batch_has_the_metrics_that_scikit_learn_gives(rows):
    some = rows.head(95)
    found = quality.metrics_of(_sums(some, np.arange(95) // 10))
    assert len(found) == 10
    for number, row in found.iterrows():
        own = some.iloc[10 * number : 10 * number + 10]
        wanted = metrics(own[data.TARGET].to_numpy(), own["predicted"].to_numpy())
        assert row["rmse"] == pytest.approx(wanted["rmse"])
        assert row["mae"] == pytest.approx(wanted["mae"])
        assert row["r2_score"] == pytest.approx(wanted["r2"])
        assert row["bias"] == pytest.approx((own["predicted"] - own[data.TARGET]).mean())
        assert row["coverage"] == own[data.TARGET].between(own["low"], own["high"]).mean()


def test_a_window_is_what_its_rows_are_together(rows):
    some = rows.head(60)
    sums = _sums(some, np.arange(60) // 10)
    alike = {"variances": quality.variances_of(_sums(rows, np.zeros(len(rows), dtype=int)))}
    window = quality.sliding(sums, width=3, **alike).iloc[-1]
    last = _sums(some.tail(30), np.zeros(30, dtype=int))
    together = quality.metrics_of(last, **alike).iloc[0]
    assert window.notna().all()
    pd.testing.assert_series_equal(window, together, check_names=False)


def test_r2_is_missing_where_there_is_nothing_to_explain(rows):
    same = rows.head(3).assign(MedHouseVal=2.0)
    variances = quality.variances_of(_sums(rows, np.zeros(len(rows), dtype=int)))
    found = quality.metrics_of(_sums(same, np.zeros(3, dtype=int)), variances=variances).iloc[0]
    assert np.isnan(found["r2_score"])
    assert np.isfinite(found["rmse_high"])


def test_coverage_is_missing_where_an_answer_came_without_an_interval(rows):
    some = rows.head(40).copy()
    some.loc[some.index[5], ["low", "high"]] = np.nan
    sums = _sums(some, np.arange(40) // 10)
    assert quality.metrics_of(sums)["coverage"].isna().tolist() == [True, False, False, False]
    assert quality.sliding(sums, width=2)["coverage"].isna().tolist() == [True, True, False, False]
    assert quality.metrics_of(sums)["rmse"].notna().all()


def test_one_row_has_values_and_no_intervals(rows):
    found = quality.metrics_of(_sums(rows.head(1), np.zeros(1, dtype=int))).iloc[0]
    assert np.isfinite(found["mae"])
    assert np.isnan(found[["mae_low", "rmse_high", "r2_score"]].astype(float)).all()


@pytest.mark.parametrize("size", [10, 30, 200])
def test_intervals_hold_what_all_rows_have_about_as_often_as_they_say(rows, size):
    rng = np.random.default_rng(0)
    drawn = rows.iloc[rng.integers(len(rows), size=400 * size)]
    found = quality.metrics_of(_sums(drawn, np.repeat(np.arange(400), size)))
    truth = quality.metrics_of(_sums(rows, np.zeros(len(rows), dtype=int))).iloc[0]
    for name in quality.METRICS:
        held = (found[f"{name}_low"] <= truth[name]) & (truth[name] <= found[f"{name}_high"])
        assert 0.91 < held.mean() < 0.99, name


def test_the_interval_of_coverage_has_a_width_where_all_rows_are_inside(rows):
    inside = rows.head(10).assign(low=-1.0, high=9.0)
    found = quality.metrics_of(_sums(inside, np.zeros(10, dtype=int))).iloc[0]
    assert found["coverage"] == found["coverage_high"] == 1
    assert found["coverage_low"] == pytest.approx(0.722, abs=1e-3)  # Wilson's, by a table


def test_errors_of_few_rows_have_no_interval_unless_more_tell_how_heavy_errors_are(rows):
    some = _sums(rows.head(100), np.arange(100) // 10)
    ends = ["rmse_low", "rmse_high", "mae_low", "r2_score_high"]
    assert quality.metrics_of(some)[ends].isna().all(axis=None)
    more = quality.variances_of(some, _sums(rows, np.zeros(len(rows), dtype=int)))
    assert quality.metrics_of(some, variances=more)[ends].notna().all(axis=None)


def test_a_windows_estimate_is_that_of_its_rows_together():
    estimates = pd.DataFrame({"estimated_rmse": [0.3, 0.5, np.nan], "estimated_mae": [0.2, 0.4, 0]})
    rows = pd.Series([30, 10, 10])
    found = quality.sliding_estimates(estimates, rows, width=2)
    wanted = [0.3, np.sqrt((30 * 0.09 + 10 * 0.25) / 40), 0.5]
    np.testing.assert_allclose(found["estimated_rmse"], wanted)
    np.testing.assert_allclose(found["estimated_mae"], [0.2, 0.25, 0.2])


def test_chance_puts_most_unchanged_batches_between_its_ends(rows):
    ends = quality.by_chance(rows, size=10)
    shuffled = rows.sample(4000, random_state=1)
    found = quality.metrics_of(_sums(shuffled, np.arange(4000) // 10))
    for name in quality.METRICS:
        inside = found[name].between(ends.loc[name, "low"], ends.loc[name, "high"]).mean()
        assert inside > 0.91, name
    assert ends.loc["rmse", "low"] < found["rmse"].median() < ends.loc["rmse", "high"]


def test_the_estimate_is_near_the_realised_error_of_batches_it_has_not_seen(rows):
    shuffled = rows.sample(frac=1, random_state=2)
    known, new = shuffled.head(2100), shuffled.tail(2000)
    batch = np.arange(2000) // 500
    estimated = quality.Estimator.fit(known).estimate(new, batch, count=4)
    realised = quality.metrics_of(_sums(new, batch))
    assert np.abs(estimated["estimated_rmse"] / realised["rmse"] - 1).median() < 0.15
    assert np.abs(estimated["estimated_mae"] / realised["mae"] - 1).median() < 0.10


def test_the_estimate_rises_where_harder_districts_are_asked_for(rows):
    wide = rows["high"] - rows["predicted"]
    hard, easy = rows[wide > wide.median()], rows[wide <= wide.median()]
    both = pd.concat([easy, hard.assign(MedHouseVal=np.nan)])
    batch = np.repeat([0, 1], [len(easy), len(hard)])
    found = quality.Estimator.fit(rows).estimate(both, batch, count=2)["estimated_rmse"]
    assert found[1] > 1.3 * found[0]
