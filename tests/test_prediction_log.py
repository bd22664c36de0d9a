"""The prediction log on PostgreSQL keeps every answer, whatever becomes of the database."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise

import httpx2
import pytest
import sqlalchemy
from databases import running_postgres
from log_rows import fail, kept, rows, truth_of, waited_for
from serving import gauge, running_server

from housing_lib import traffic
from housing_lib.data import FEATURES
from housing_lib.prediction_tables import actuals, make_tables
from housing_lib.settings import get_settings
from serve import prediction_log
from serve.patience import Patience
from serve.prediction_log import PredictionLog
from serve.schemas import EXAMPLE_DISTRICT
from serve.spool import Spool
from serve.truths import ConflictError, Truth


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL server of this file."""
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def database(postgres):
    """A database with nothing in it."""
    return postgres.create("answers")


@pytest.fixture(scope="module")
def server(store, database, tmp_path_factory):
    """A server that keeps its log there, named as people name a PostgreSQL."""
    log_path = tmp_path_factory.mktemp("log") / "server.log"
    plain = database.replace("postgresql+psycopg://", "postgresql://")
    with running_server(store.root, log_path, HOUSING_PREDICTION_LOG=plain) as running:
        yield running
    assert "Traceback" not in running.printed


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_the_tables_can_be_made_by_many_at_once(kind, postgres, tmp_path):
    for number in range(10):
        path = tmp_path / f"{number}.db"
        uri = postgres.create(f"fresh{number}") if kind == "postgres" else f"sqlite:///{path}"
        engines = [sqlalchemy.create_engine(uri) for _ in range(6)]
        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(make_tables, engines))
        assert set(sqlalchemy.inspect(engines[0]).get_table_names()) == {"predictions", "actuals"}
        for engine in engines:
            engine.dispose()


def predict(server):
    """The id of one more answer."""
    answer = server.post("/predict", json=EXAMPLE_DISTRICT)
    assert answer.status_code == 200, answer.text
    return answer.json()["prediction_id"]


def tell(server, price, **of):
    """The answer to one true price."""
    one = {"median_house_value": price, "observed_at": "2026-11-23T12:00:00Z", **of}
    return server.post("/actuals", json={"actuals": [one]})


class Asking(threading.Thread):
    """Predictions one after the other, and their ids, until it is told to stop."""

    def __init__(self, server):
        super().__init__()
        self.server, self.ids, self.failures, self.ended = server, [], [], threading.Event()

    def run(self):
        base = str(self.server.base_url)
        with httpx2.Client(base_url=base, trust_env=False, timeout=10) as client:
            while not self.ended.wait(0.01):
                answer = client.post("/predict", json=EXAMPLE_DISTRICT)
                if answer.status_code == 200:
                    self.ids.append(answer.json()["prediction_id"])
                else:
                    self.failures.append(answer.text)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.join()


def test_a_true_price_is_recorded_once_and_never_contradicted(server):
    for of in ({"prediction_id": predict(server)}, {"features": EXAMPLE_DISTRICT}):
        assert tell(server, 3.5, **of).json() == {"recorded": 1, "already_known": 0}
        assert tell(server, 3.5, **of).json() == {"recorded": 0, "already_known": 1}
        other = tell(server, 3.6, **of)
        assert other.status_code == 409
        assert other.json()["problems"][0]["expected"] == "3.5"


def test_of_prices_that_contradict_each_other_at_the_same_moment_one_is_taken(database, tmp_path):
    logs = [PredictionLog(database, spool=tmp_path / str(number)) for number in range(4)]
    for log in logs:
        log.start()
    engine = sqlalchemy.create_engine(database)
    for house_age in range(10, 20):
        together = threading.Barrier(len(logs))

        def record(log, together=together, house_age=house_age):
            truth = truth_of(1 + logs.index(log), HouseAge=house_age)
            together.wait()
            log.record([truth])

        with ThreadPoolExecutor(len(logs)) as pool:
            futures = [pool.submit(record, log) for log in logs]
        taken = [future.exception() is None for future in futures]
        refused = [future.exception() for future in futures if future.exception()]
        assert {type(error) for error in refused} == {ConflictError}
        assert taken.count(True) == 1
        with engine.connect() as connection:
            query = sqlalchemy.select(actuals.c.price).where(actuals.c.HouseAge == house_age)
            assert connection.execute(query).scalars().all() == [1 + taken.index(True)]
    engine.dispose()
    for log in logs:
        log.stop()


def test_a_database_that_stopsfails_no_prediction_and_gets_every_row_later(
    server, postgres, database
):
    before = gauge(server, "housing_log_spooled")
    with Asking(server) as asking:
        postgres.stop()
        server.wait_for(lambda _: gauge(server, "housing_log_spooled") > before)
        assert tell(server, 3.5, prediction_id=asking.ids[0]).status_code == 503
        postgres.start()
        time.sleep(0.5)
    server.wait_for(lambda _: gauge(server, "housing_log_waiting") == 0)
    assert not asking.failures
    assert kept(database, asking.ids) == set(asking.ids)
    assert gauge(server, "housing_log_dropped") == 0


def test_a_database_that_freezesfails_no_prediction_and_gets_every_row_later(
    server, postgres, database
):
    before = gauge(server, "housing_log_spooled")
    with Asking(server) as asking:
        with postgres.frozen():
            server.wait_for(lambda _: gauge(server, "housing_log_spooled") > before + 20)
            assert tell(server, 3.5, features=EXAMPLE_DISTRICT).status_code == 503
        time.sleep(0.5)
    server.wait_for(lambda _: gauge(server, "housing_log_waiting") == 0)
    assert not asking.failures
    assert kept(database, asking.ids) == set(asking.ids)


def spool(folder, *ids):
    """Put rows into the spool, as a process that ends then."""
    with closing(Spool(folder)) as ended:
        assert ended.append(rows(*ids))


def test_what_a_process_that_is_gone_left_in_the_spool_is_written_by_the_next(database, tmp_path):
    gone = "spool-999999999-1.jsonl"
    spool(tmp_path, "left-1", "left-2")
    (file,) = tmp_path.glob("spool-*")
    file.rename(tmp_path / gone)
    spool(tmp_path, "left-3")
    with (tmp_path / gone).open("ab") as cut:
        cut.write(b'["half a li')
    log = PredictionLog(database, spool=tmp_path)
    log.start()
    deadline = time.monotonic() + 10
    while list(tmp_path.glob("spool-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    log.stop()
    assert kept(database, ["left-1", "left-2", "left-3"]) == {"left-1", "left-2", "left-3"}


def test_rows_wait_until_the_database_has_them(tmp_path):
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)
    log.add(rows("first"))
    log.flush()
    lock = sqlite3.connect(tmp_path / "answers.db", isolation_level=None, check_same_thread=False)
    lock.execute("begin exclusive")
    log.add(rows("second", "third"))
    waited = []

    def free():
        waited.append(log.waiting)
        lock.execute("rollback")

    threading.Timer(0.3, free).start()
    log.flush(patience=10)
    assert waited == [2]
    assert log.waiting == 0
    assert kept(uri, ["second", "third"]) == {"second", "third"}
    lock.close()


def test_a_spool_that_cannot_be_written_keeps_its_rows_in_memory(postgres, tmp_path):
    away = postgres.create("unused").replace("unused", "nothere")
    log = PredictionLog(away, spool=tmp_path)
    tmp_path.rmdir()
    log.add(rows("kept-1", "kept-2"))
    log.flush()
    assert (log.waiting, log.spooled, log.dropped) == (2, 0, 0)
    tmp_path.mkdir()
    log.flush()
    assert (log.waiting, log.spooled, log.dropped) == (2, 2, 0)
    log.stop()


def test_rows_are_written_at_the_same_pace_however_long_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_log, "FLUSH_EVERY_S", 1.0)
    log = PredictionLog(f"sqlite:///{tmp_path / 'answers.db'}", spool=tmp_path)
    begun = []

    def flush(*given):
        begun.append(time.monotonic())
        time.sleep(0.8)

    monkeypatch.setattr(log, "flush", flush)
    log.start()
    waited_for(lambda: len(begun) >= 4)
    log.stop()
    assert min(later - one for one, later in pairwise(begun[:4])) < 1.5


def test_what_another_server_has_spooled_does_not_hide_that_the_database_is_away(
    postgres, tmp_path, caplog
):
    away = postgres.create("unused_three").replace("unused_three", "nothere")
    log = PredictionLog(away, spool=tmp_path)
    with closing(Spool(tmp_path)) as other:
        assert other.append(rows("theirs"))
        for name in ("one", "two", "three"):
            log.add(rows(name))
            log.flush(patience=10)
            log._replay()
            assert "nothere" in log.problem
    log.stop()
    assert caplog.text.count("cannot be written") == 1


def test_a_file_that_is_taken_away_is_made_anew(tmp_path):
    uri = f"sqlite:///{tmp_path / 'answers.db'}"
    log = PredictionLog(uri, spool=tmp_path)
    for name in ("before", "after"):
        log.add(rows(name))
        log.flush()
        assert kept(uri, [name]) == {name}
        for file in tmp_path.glob("answers.db*"):
            file.unlink()


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_price_is_read_with_when_it_turned_out(kind, postgres, tmp_path, monkeypatch):
    sqlite = f"sqlite:///{tmp_path / 'answers.db'}"
    uri = postgres.create("turned_out") if kind == "postgres" else sqlite
    log = PredictionLog(uri, spool=tmp_path)
    log.start()
    other = ["by-features", datetime.now(UTC), 1, *[2.0] * len(FEATURES), 2.0, 1.5, None]
    log.add([*rows("by-id", "waits"), tuple(other)])
    days = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in (1, 2)]
    named, described = ("by-id", None), (None, (2.0,) * len(FEATURES))
    log.record([Truth(*of, 3.0, day) for of, day in zip((named, described), days, strict=True)])
    log.stop()
    monkeypatch.setenv("HOUSING_PREDICTION_LOG", uri)
    get_settings.cache_clear()
    found = traffic.load("log").rows.sort_values("observed_at")["observed_at"]
    get_settings.cache_clear()
    assert [*found.dropna().dt.to_pydatetime()] == days
    assert found.isna().sum() == 1


def test_a_server_that_ends_with_answers_that_nothing_takes_says_how_many(
    tmp_path, monkeypatch, caplog
):
    log = PredictionLog(f"sqlite:///{tmp_path / 'answers.db'}", spool=tmp_path)
    monkeypatch.setattr(log._database, "keep", fail)
    monkeypatch.setattr(log._spool, "append", lambda rows: False)
    log.start()
    log.add(rows("lost-1", "lost-2"))
    log.stop()
    assert "2 answers are lost" in caplog.text


def test_an_id_that_no_database_holds_is_of_no_prediction(server):
    one = {
        "prediction_id": "a\0b",
        "median_house_value": 3.5,
        "observed_at": "2026-11-23T12:00:00Z",
    }
    assert server.post("/actuals", json={"actuals": [one]}).status_code == 409


def test_who_finds_no_thread_leaves_the_work_to_others(monkeypatch):
    patience = Patience()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            patience.wait_for(1, int)
    assert patience.wait_for(1, int, "3") == 3


def _no_thread(thread):
    raise RuntimeError("can't start new thread")
