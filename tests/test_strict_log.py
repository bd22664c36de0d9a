"""A strict log holds the answers that were given, and none that was refused."""

import time

from log_rows import fail, kept, locked, rows, waited_for

from serve import prediction_log
from serve.prediction_log import LogUnavailableError, PredictionLog
from serve.spool import Spool


def test_a_strict_answer_is_not_given_while_the_database_is_away(tmp_path):
    log = PredictionLog("postgresql+psycopg://nobody@127.0.0.1:1/none", spool=tmp_path)
    promise = log.add_now(rows("strict"))
    log.flush()
    assert isinstance(promise.exception(timeout=0), LogUnavailableError)
    assert "no answer was given, and none stays in the log" in str(promise.exception())
    assert (log.waiting, log.spooled, log.dropped) == (0, 0, 0)
    assert Spool(tmp_path).is_empty


def test_a_strict_answer_that_the_database_takes_too_late_is_taken_out_again(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_log, "PATIENCE_OF_CALLERS_S", 0.2)
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)
    log.add(rows("before"))
    log.flush(patience=10)
    with locked(tmp_path / "answers.db"):
        late = log.add_now(rows("late"))
        log.flush()
        assert isinstance(late.exception(timeout=0), LogUnavailableError)
        assert log._rows_written.is_tried  # so it may still come
    waited_for(lambda: not log._rows_written.is_tried)
    assert kept(uri, ["before", "late"]) == {"before", "late"}
    log.flush(patience=10)
    assert kept(uri, ["before", "late"]) == {"before"}


def test_a_strict_answer_whose_database_went_away_after_it_took_it_is_taken_out_again(
    tmp_path, monkeypatch
):
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)
    keep = log._database.keep

    def keep_andfail(given):
        keep(given)
        raise OSError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(log._database, "keep", keep_andfail)
        promise = log.add_now(rows("refused"))
        log.flush(patience=10)
    assert isinstance(promise.exception(timeout=0), LogUnavailableError)
    assert kept(uri, ["refused"]) == {"refused"}
    log.flush(patience=10)
    assert kept(uri, ["refused"]) == set()


def test_a_slow_database_that_refused_once_takes_the_next_answers(tmp_path, monkeypatch):
    log = PredictionLog(f"sqlite:///{tmp_path / 'answers.db'}", spool=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(log._database, "keep", fail)
        refused = log.add_now(rows("refused"))
        log.flush()
    assert isinstance(refused.exception(timeout=0), LogUnavailableError)
    for name in ("keep", "take_out"):
        monkeypatch.setattr(log._database, name, slowly(getattr(log._database, name)))
    for name in ("one", "two", "three"):
        promise = log.add_now(rows(name))
        log.flush()
        assert promise.result(timeout=0) is None


def slowly(work):
    """Work that takes longer than the log waits for what nobody waits for."""

    def done(given):
        time.sleep(1.5 * prediction_log.PATIENCE_S)
        work(given)

    return done


def test_a_promise_that_nobody_waits_for_any_more_costs_no_other_one_and_is_not_logged(tmp_path):
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)
    given_up, kept_one = log.add_now(rows("given up")), log.add_now(rows("waited for"))
    given_up.cancel()
    log.flush()
    assert kept_one.result(timeout=0) is None
    assert kept(uri, ["given up", "waited for"]) == {"waited for"}


def test_an_error_that_nobody_expected_costs_no_row_and_leaves_no_promise_open(
    tmp_path, monkeypatch
):
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(log._database, "keep", fail)
        log.add(rows("under an error"))
        promise = log.add_now(rows("refused"))
        log.flush()
    assert isinstance(promise.exception(timeout=0), LogUnavailableError)
    log.start()
    log.add(rows("after it"))
    log.stop()
    given = {"under an error", "after it"}
    assert kept(uri, [*given, "refused"]) == given
