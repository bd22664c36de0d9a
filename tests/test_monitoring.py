"""A session of monitoring a file: batches, the verdict, and odd input."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from monitored import observe, tell

from housing_lib import (
    batches,
    data,
    findings,
    monitor_command,
    monitoring,
    plots,
    series,
    verdict,
)
from housing_lib.parts import load_part


def test_the_model_answers_what_nobody_has_answered(quiet, registered):
    wanted = registered.model.predict(quiet.rows[list(data.FEATURES)])
    np.testing.assert_allclose(quiet.rows["predicted"], wanted)
    assert set(quiet.rows["model_version"]) == {registered.version}


def test_many_rows_get_the_same_answers_from_a_cluster(shuffled, registered, request, monkeypatch):
    monkeypatch.setattr(series, "ROWS_A_TASK", 200)
    asked = shuffled.head(500)
    here = observe(asked, registered)
    request.getfixturevalue("on_cluster")
    there = observe(asked, registered)
    pd.testing.assert_frame_equal(there.rows, here.rows, check_exact=True)
    assert asdict(there.verdict) == asdict(here.verdict)


def test_every_batch_has_realised_and_estimated_errors(quiet):
    assert len(quiet.batches) == 412
    assert quiet.batches["num_rows_in_batch"].sum() == len(quiet.rows)
    assert quiet.batches[["batch_rmse", "estimated_rmse", "batch_coverage"]].notna().all().all()
    assert quiet.batches["p_value"].notna().sum() == len(quiet.judged.decision.units)
    assert quiet.batches["key"].is_unique


def test_nothing_changed_is_quiet_and_says_on_what_grounds(quiet, registered):
    found = quiet.verdict
    assert found.state == verdict.QUIET
    assert found.causes == found.alarmed == ()
    assert (found.first, found.last) == ("row 0", "row 4112")
    assert found.evidence["p_value"] > found.evidence["threshold"]
    assert found.evidence["rmse"] == pytest.approx(monitoring.overall(quiet)["rmse"])


def test_changed_rows_raise_the_alarm_with_the_batches_and_the_cause(shuffled, registered):
    dearer = shuffled.head(1200).copy()
    dearer.loc[800:, data.TARGET] *= 1.2
    found = observe(dearer, registered, batch_rows=100).verdict
    assert found.alarming
    assert set(found.alarmed) <= set(range(8, 12))
    assert len(found.alarmed) >= 3
    assert found.causes[0].what == "errors"
    assert "against true prices the model asks" in found.sentence
    assert verdict.from_record(asdict(found)) == found


def test_intervals_that_hold_fewer_prices_are_told_with_an_alarm(shuffled, registered, capsys):
    dearer = shuffled.head(800).assign(MedHouseVal=lambda rows: rows["MedHouseVal"] * 1.3)
    found = observe(dearer, registered, batch_rows=100).verdict
    assert "intervals hold" in found.sentence
    assert found.sentence.endswith("in the test")
    monitor_command._say(found)
    assert "in the test" in capsys.readouterr().out
    plain = replace(registered, model=registered.model.model_)
    assert "intervals" not in observe(dearer, plain, batch_rows=100).verdict.sentence
    older = shuffled.head(800).assign(HouseAge=lambda rows: (rows["HouseAge"] + 15).clip(upper=52))
    aged = observe(older.drop(columns=data.TARGET), registered, batch_rows=100).verdict
    assert aged.alarming
    assert "intervals" not in aged.sentence


def test_smaller_errors_are_told_as_a_change_to_the_better(shuffled, registered):
    easy = shuffled.head(400).copy()
    predicted = registered.model.predict(easy[list(data.FEATURES)])
    easy[data.TARGET] = predicted + (easy[data.TARGET] - predicted) / 4
    better = observe(easy, registered, batch_rows=100).verdict
    assert "errors are smaller: " in better.sentence
    assert "a change to the better, yet a change" in better.sentence
    worse = observe(easy.assign(MedHouseVal=4.0), registered, batch_rows=100).verdict
    assert "to the better" not in worse.sentence


def test_an_alarm_over_rows_that_the_model_was_fitted_on_says_that_this_alone_can_raise_one(
    shuffled, registered, capsys
):
    known = pd.concat([load_part(name).districts for name in ("train", "val")])
    dearer = known.sample(300, random_state=0).reset_index(drop=True)
    dearer[data.TARGET] *= 1.5
    dearer.loc[:99, data.FEATURES[0]] = shuffled[data.FEATURES[0]].head(100)  # no known district
    found = observe(dearer, registered, batch_rows=300).verdict
    assert found.alarming
    assert found.evidence["fitted_rows"] == 200
    assert "but the model was fitted on" in found.sentence
    monitor_command._say(found)
    assert "alone can raise an alarm" in capsys.readouterr().out
    new = observe(shuffled.head(300).assign(MedHouseVal=4.0), registered, batch_rows=300).verdict
    assert new.evidence["fitted_rows"] == 0
    assert "alone can raise an alarm" not in new.sentence


def test_rows_that_break_the_contract_are_counted_and_left_out(shuffled, registered):
    arriving = shuffled.head(20).astype(object)
    arriving.loc[3, "MedInc"] = "high"
    arriving.loc[10:, data.TARGET] = None
    found = observe(arriving, registered, batch_rows=10).batches
    assert list(found["num_rows_in_batch"]) == [10, 10]
    assert list(found["num_valid_rows_in_batch"]) == [9, 0]
    assert np.isnan(found.loc[1, "batch_rmse"])
    assert np.isfinite(found.loc[1, "estimated_rmse"])


def test_without_prices_the_error_is_estimated_and_drift_is_watched(shuffled, registered):
    unpriced = shuffled.head(600).drop(columns=data.TARGET)
    found = observe(unpriced, registered, batch_rows=100)
    assert found.verdict.state == verdict.QUIET
    assert 0.2 < found.verdict.evidence["estimated_rmse"] < 0.8
    assert "rmse" not in found.verdict.evidence
    richer = unpriced.assign(MedInc=unpriced["MedInc"] * 1.2)
    alarm = observe(richer, registered, batch_rows=100).verdict
    assert alarm.alarming
    assert "MedInc" in {cause.what for cause in alarm.causes}
    for table in (findings.first_batches, findings.worst_batches, findings.region_table):
        assert "No true price is known yet" in table(found).data
    assert found.batch_rows == 100
    drawn = plots.quality_grid(found.batches, found.sliding, found.by_chance)
    assert [axes.get_ylabel() for axes in drawn.axes] == ["RMSE (dollars)", "MAE (dollars)"]
    plt.close("all")


def test_no_valid_row_and_no_batch_size_are_refused(shuffled, registered):
    some = shuffled.head(20)
    with pytest.raises(data.DataError, match="0 of them valid"):
        observe(some.assign(MedHouseVal=-1.0), registered)
    with pytest.raises(data.DataError, match="batches of 0"):
        observe(some, registered, batch_rows=0)
    with pytest.raises(data.DataError, match="have no times"):
        observe(some, registered, batch_hours=24)


@pytest.mark.parametrize("rows", [1, 2, 99])
def test_too_few_rows_get_no_verdict_and_every_table(shuffled, registered, rows):
    found = observe(shuffled.head(rows), registered)
    assert found.verdict.state == verdict.NOT_ENOUGH
    assert f"found {rows} row" in found.verdict.sentence
    assert monitoring.told_apart(found) is None
    tell(found)


def test_too_few_test_districts_give_no_verdict(shuffled, registered, monkeypatch):
    few = series.reference(registered).head(100)
    monkeypatch.setattr(series, "reference", lambda registered: few)
    found = observe(shuffled.head(300), registered, batch_rows=100)
    assert found.verdict.state == verdict.NOT_ENOUGH
    assert "100 test districts" in found.verdict.sentence
    tell(found)


ODD = {
    "no places": {"Latitude": np.nan, "Longitude": np.nan},
    "no incomes": {"MedInc": np.nan},
    "one age": {"HouseAge": 20.0},
    "one price": {data.TARGET: 2.0},
}


@pytest.mark.parametrize("columns", ODD.values(), ids=list(ODD))
def test_columns_without_values_and_constant_ones_raise_the_alarm_and_can_be_drawn(
    shuffled, registered, columns
):
    found = observe(shuffled.head(300).assign(**columns), registered, batch_rows=100)
    assert found.verdict.alarming
    tell(found)
    decided = found.judged.decision
    plots.strangeness(
        found.batches, usual=decided.usual, alarming=decided.alarming, alarmed=found.judged.alarmed
    )
    plots.shift_bars(found.shifts, level=decided.alarming, alarm=True)
    plots.quality_grid(found.batches, found.sliding, found.by_chance)
    if len(found.placed):
        plots.error_map(found.placed, found.errors[found.placed.index])
    assert len(found.placed) == (0 if "Latitude" in columns else 300)
    plt.close("all")


def test_the_worst_batches_have_an_interval_where_they_have_rows_enough(shuffled, registered):
    small, large = (observe(shuffled.head(300), registered, batch_rows=rows) for rows in (10, 100))
    assert findings.INTERVAL not in findings.worst_batches(small).data
    found = findings.worst_batches(large).data
    assert all(" to " in interval for interval in found[findings.INTERVAL])
    uneven = findings.worst_batches(observe(shuffled.head(230), registered, batch_rows=100)).data
    assert list(uneven.sort_index()["above the band"] == "") == [False, False, True]
    others = replace(large, judged=replace(large.judged, version=registered.version + 1))
    assert set(findings.worst_batches(others).data["above the band"]) == {""}
    band = large.by_chance.loc["rmse", "high"]
    above = large.batches["batch_rmse"] > band
    assert (found["above the band"] == "yes").sum() == above.sum()


def test_intervals_are_explained_where_the_worst_batches_have_some(shuffled, registered):
    small, large = (observe(shuffled.head(300), registered, batch_rows=rows) for rows in (10, 100))
    assert findings.interval_words(large).startswith("About nineteen in twenty")
    assert findings.interval_words(small).startswith("No interval")
    unpriced = observe(shuffled.head(300).drop(columns=data.TARGET), registered, batch_rows=100)
    assert findings.interval_words(unpriced).startswith("No interval")


def test_bars_are_drawn_only_of_what_can_be_seen_to_move(quiet, shuffled, registered):
    assert not quiet.moved  # the test districts themselves
    assert observe(shuffled.head(300), registered, batch_rows=100).moved
    assert not observe(shuffled.head(20), registered).moved


def test_the_bottom_line_says_that_districts_were_learned_from(quiet):
    told = {"family": "xgboost", "stage": "production", "promised": 0.4}
    evidence = quiet.verdict.evidence | {"fitted_rows": 243.0}
    learned = replace(quiet, verdict=replace(quiet.verdict, evidence=evidence))
    text = findings.bottom_line(learned, **told)
    assert "243 of these districts stood among those that the model learned from" in text
    assert "learned from" not in findings.bottom_line(quiet, **told)


def test_intervals_stand_where_true_prices_tell_how_heavy_errors_are(quiet):
    known = quiet.batches.assign(num_valid_rows_in_batch=50).head(2)
    unknown = known.assign(batch_rmse_low=np.nan, batch_rmse_high=np.nan)
    assert all(" to " in told for told in findings._intervals(known))
    assert findings._intervals(unknown) == ["", ""]
    assert findings._intervals(known.assign(num_valid_rows_in_batch=10)) == ["", ""]


def test_the_bottom_line_tells_the_figures(quiet):
    text = tell(quiet)
    assert text.startswith("**Quiet: ")
    assert f"{100_000 * quiet.verdict.evidence['rmse']:,.0f} dollars realised" in text
    assert "40,000 dollars in its test" in text


def test_batches_are_the_same_however_often_they_are_cut(quiet):
    again = batches.cut(quiet.traffic.rows, batch_rows=10)
    np.testing.assert_array_equal(np.sort(again), quiet.batch)


def test_a_classifier_tells_strangers_and_no_likes(shuffled, registered):
    train = data.acquire().sample(3000, random_state=1)
    train = train[~np.isin(data.row_ids(train), data.row_ids(shuffled))]
    alike = monitoring.told_apart(observe(train, registered, batch_rows=500))
    assert abs(alike - 0.5) < 0.05
    moved = train.assign(AveRooms=train["AveRooms"] * (1 + train["MedInc"] / 20))
    assert monitoring.told_apart(observe(moved, registered, batch_rows=500)) > 0.65


def test_rows_that_a_model_was_fitted_on_are_counted(store):
    assert series.fitted_rows(store.test, store.registered) == 0
    assert series.fitted_rows(data.acquire(), store.registered) == 20_640 - len(store.test)
    of_other_data = replace(store.registered, data_digest="other")
    assert series.fitted_rows(data.acquire(), of_other_data) == 0


def test_a_batch_of_which_nothing_can_be_estimated_costs_no_figure_of_the_session():
    answered = pd.DataFrame({"predicted": [1.0], data.TARGET: [1.5], "fault": [""]})
    judged = SimpleNamespace(decision=None, rows=answered, reference=answered)
    sizes = {"num_rows_in_batch": 10, "num_valid_rows_in_batch": [10, 10, 0]}
    batches = pd.DataFrame({"estimated_rmse": [0.5, 0.5, np.nan], **sizes})
    assert monitoring._evidence(judged, batches)["estimated_rmse"] == 0.5
    batches["estimated_rmse"] = np.nan
    assert "estimated_rmse" not in monitoring._evidence(judged, batches)


def test_a_model_without_intervals_is_monitored_by_its_prices(shuffled, registered):
    plain = replace(registered, model=registered.model.model_)
    assert not hasattr(plain.model, "predict_both")
    found = observe(shuffled.head(400), plain, batch_rows=100)
    assert found.verdict.state == verdict.QUIET
    assert found.batches["batch_rmse"].notna().all()
    assert found.batches[["estimated_rmse", "batch_coverage"]].isna().all(axis=None)
    assert "estimated" not in tell(found)
    drawn = plots.quality_grid(found.batches, found.sliding, found.by_chance)
    assert len(drawn.axes) == 4
    assert "estimated" not in drawn.axes[0].get_legend_handles_labels()[1]
    plt.close("all")


def test_answers_without_an_interval_are_no_misses_of_it(quiet):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"predicted": rng.random(50), data.TARGET: rng.random(50), "fault": ""})
    rows = rows.assign(low=np.nan, high=np.nan)
    unbounded = replace(quiet, judged=replace(quiet.judged, rows=rows))
    assert "coverage" not in monitoring.overall(unbounded)
    rows.loc[:9, ["low", "high"]] = [0.0, 2.0]
    assert monitoring.overall(unbounded)["coverage"] == 1.0
