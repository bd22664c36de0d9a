"""The history of monitoring: a run a session, a step a batch, nothing logged twice."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housing_lib import data, monitoring, series, sessions, tracking, traffic
from housing_lib.traffic import Traffic
from housing_lib.verdict import NOT_ENOUGH

PARAMS = {"batch_rows": 100}


@pytest.fixture(scope="module")
def rows(store):
    return series.reference(store.registered).sample(600, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def observe(store):
    """A function that looks at rows; the store is looked at before a test has its own root."""
    known = series.reference(store.registered)

    def look(rows, *, source="new.csv", registered=store.registered, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(series, "reference", lambda registered: known)
            patch.setattr(monitoring, "fitted_rows", lambda rows, registered: 0)
            return monitoring.observe(Traffic(rows, source), registered, **options)

    return look


def test_a_session_is_a_run_with_a_step_a_batch_and_is_logged_once(rows, observe, empty_store):
    session = observe(rows, batch_rows=100)
    first = sessions.log(session, params=PARAMS, tags={})
    assert (first.fresh, first.completed, first.known) == (6, 0, 0)
    run = tracking.client().get_run(first.run_id)
    assert run.data.tags["state"] == session.verdict.state
    assert run.data.tags["model_version"] == str(session.verdict.model_version)
    steps = tracking.client().get_metric_history(first.run_id, "batch_rmse")
    assert [one.step for one in steps] == list(range(6))
    assert [one.value for one in steps] == pytest.approx(list(session.batches["batch_rmse"]))

    again = sessions.log(observe(rows, batch_rows=100), params=PARAMS, tags={})
    assert (again.fresh, again.known, again.run_id) == (0, 6, first.run_id)
    assert len(sessions.history()) == 1

    late = rows.assign(MedHouseVal=rows[data.TARGET].where(rows.index < 300))
    waiting = sessions.log(observe(late, batch_rows=100, source="late"), params=PARAMS, tags={})
    done = sessions.log(observe(rows, batch_rows=100, source="late"), params=PARAMS, tags={})
    assert (waiting.fresh, waiting.completed) == (6, 0)
    assert (done.fresh, done.completed, done.known) == (3, 3, 3)
    logged = tracking.client().get_metric_history(done.run_id, "num_valid_rows_in_batch")
    assert [one.step for one in logged] == [3, 4, 5]

    found = sessions.history()
    assert list(found["run_id"]) == [first.run_id, waiting.run_id, done.run_id]
    assert found["rmse"].notna().all()


def test_batches_by_time_carry_it_and_a_later_look_logs_what_is_new(rows, observe, empty_store):
    begin = traffic.moment("2026-03-01")
    times = [begin + timedelta(hours=number / 5) for number in range(len(rows))]
    timed = rows.assign(answered_at=times)
    timed["answered_at"] = timed["answered_at"].astype("datetime64[us, UTC]")
    first = sessions.log(observe(timed.head(300), batch_hours=24), params=PARAMS, tags={})
    second = sessions.log(observe(timed.tail(480), batch_hours=24), params=PARAMS, tags={})
    assert first.fresh == 3
    assert (second.fresh, second.completed, second.known) == (3, 1, 1)
    steps = tracking.client().get_metric_history(first.run_id, "batch_estimated_rmse")
    days = [one.timestamp / 86_400_000 - begin.timestamp() / 86_400 for one in steps]
    assert [int(day) for day in days] == [0, 1, 2]
    found = sessions.history()
    assert found["at"].is_monotonic_increasing
    assert found["at"].iloc[-1] == timed["answered_at"].iloc[-1].floor("s")


def test_a_source_with_a_quote_in_its_name_is_a_source(rows, observe, empty_store):
    session = observe(rows.head(100), batch_rows=100, source="it's.csv")
    logged = sessions.log(session, params=PARAMS, tags={})
    assert sessions.log(session, params=PARAMS, tags={}).run_id == logged.run_id


def test_the_history_of_nothing_is_empty(empty_store):
    assert sessions.history().empty


def test_what_other_versions_answered_before_is_not_logged_again(rows, observe, empty_store):
    begin = traffic.moment("2026-03-01")
    timed = rows.assign(answered_at=[begin + timedelta(days=n // 200) for n in range(len(rows))])
    timed["answered_at"] = timed["answered_at"].astype("datetime64[us, UTC]")
    first = sessions.log(observe(timed.head(400), batch_hours=24), params=PARAMS, tags={})
    session = observe(timed, batch_hours=24)
    last_day = str(session.batches["first"].iloc[-1])  # on which another version took over
    judged = replace(session, verdict=replace(session.verdict, first=last_day))
    again = sessions.log(judged, params=PARAMS, tags={})
    assert (first.fresh, again.fresh, again.known) == (2, 1, 2)


def test_a_session_of_earlier_answers_alone_stands_in_the_history_without_an_error(
    rows, observe, store, empty_store
):
    promoted = replace(store.registered, version=store.registered.version + 1)
    session = observe(rows, batch_rows=100, registered=promoted)
    assert sessions.log(session, params=PARAMS, tags={}).fresh == 6
    (found,) = sessions.history().to_dict("records")
    assert (found["state"], found["model_version"]) == (NOT_ENOUGH, str(promoted.version))
    assert found["rmse"] is None
    assert found["rows"] == 0
