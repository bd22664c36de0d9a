"""True prices are recorded, asked for again, or refused, and never lost in doubt."""

import uuid
from contextlib import closing
from datetime import UTC, datetime

import pytest
from log_rows import fail, locked, rows, truth_of

from housing_lib.prediction_tables import make_tables
from serve import prediction_log
from serve.prediction_log import LogUnavailableError, PredictionLog
from serve.spool import Spool
from serve.truths import ConflictError, Truth


def test_a_log_that_is_off_takes_no_true_price_and_says_so(tmp_path):
    truth = Truth("a", None, 2.0, datetime.now(UTC))
    with pytest.raises(LogUnavailableError, match="is off"):
        PredictionLog("off", spool=tmp_path).record([truth])


def test_a_true_price_of_what_another_process_has_spooled_is_asked_for_again(tmp_path):
    truth = Truth(str(uuid.UUID(int=0)), None, 2.0, datetime.now(UTC))
    log = PredictionLog(f"sqlite:///{tmp_path / 'answers.db'}", spool=tmp_path)
    with pytest.raises(ConflictError):
        log.record([truth])
    with closing(Spool(tmp_path)) as other:  # of a process that lives
        assert other.append(rows("theirs"))
        with pytest.raises(LogUnavailableError, match="not all answers"):
            log.record([truth])


def test_a_true_price_of_what_waits_in_memory_is_asked_for_again(tmp_path, monkeypatch):
    truth = Truth(str(uuid.UUID(int=0)), None, 2.0, datetime.now(UTC))
    log = PredictionLog(f"sqlite:///{tmp_path / 'answers.db'}", spool=tmp_path)
    monkeypatch.setattr(log._database, "keep", fail)  # and it can be asked again right afterwards
    monkeypatch.setattr(log._spool, "append", lambda rows: False)
    log.add(rows(truth.prediction_id))
    with pytest.raises(LogUnavailableError, match="not all answers"):
        log.record([truth])


def test_true_prices_that_may_be_written_yet_are_not_called_unwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_log, "PATIENCE_OF_CALLERS_S", 0.1)
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)
    make_tables(log._database.engine)
    with locked(tmp_path / "answers.db"), pytest.raises(LogUnavailableError, match="may be"):
        log.record([truth_of(2)])
