"""What was asked, answered and turned out true: files, the log, periods, and odd rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from logged import BEGIN, use_log
from object_stores import running_store

from housing_lib import data, series, traffic
from housing_lib.settings import get_settings

HOUR = timedelta(hours=1)
WAITING = "predictions that wait for their price"


@pytest.fixture
def log(tmp_path, monkeypatch):
    yield use_log(monkeypatch, tmp_path)
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def answered(store):
    return series.reference(store.registered)


def test_the_log_is_joined_with_the_prices_that_arrived(log, answered):
    rows = answered.head(6)
    ids = log.answer(rows, every=HOUR)
    log.turn_out(ids[:2], rows[data.TARGET].head(2))
    log.turn_out_by_features(rows.iloc[3:4])
    found = traffic.load("log")
    prices = rows[data.TARGET].to_numpy()
    np.testing.assert_array_equal(
        found.rows[data.TARGET], [*prices[:2], np.nan, prices[3], np.nan, np.nan]
    )
    np.testing.assert_array_equal(found.rows["predicted"], rows["predicted"])
    assert found.timed
    assert found.oddities[WAITING] == 3


def test_a_period_of_the_log_ends_before_its_end(log, answered):
    log.answer(answered.head(6), every=HOUR)
    found = traffic.load("log", since="2026-03-01T01:00", until="2026-03-01T04:00")
    assert list(found.rows["answered_at"].dt.hour) == [1, 2, 3]
    whole = traffic.load("log", since="2026-03-01T05:30", batch_hours=24)
    assert len(whole.rows) == 6


def test_conflicting_prices_are_counted_and_the_one_by_id_stands(log, answered):
    rows = answered.head(2)
    ids = log.answer(rows, every=HOUR)
    log.turn_out(ids, rows[data.TARGET])
    log.turn_out_by_features(rows.assign(MedHouseVal=rows[data.TARGET] + [0, 1]))
    found = traffic.load("log")
    np.testing.assert_array_equal(found.rows[data.TARGET], rows[data.TARGET])
    (conflicts,) = [n for what, n in found.oddities.items() if "two true prices" in what]
    assert conflicts == 1


def test_prices_of_unknown_predictions_and_wrong_clocks_are_counted(log, answered):
    rows = answered.head(3)
    log.turn_out(["nobody"], pd.Series([1.0]))
    ids = log.answer(rows.head(2), every=HOUR)
    log.answer(rows.tail(1), every=HOUR, start=datetime.now(UTC) + timedelta(days=400))
    log.turn_out(ids[1:], rows[data.TARGET].head(1), at=BEGIN)
    counted = {what.split(" (")[0]: n for what, n in traffic.load("log").oddities.items()}
    assert counted["true prices of unknown predictions"] == 1
    assert counted["predictions of the future"] == 1
    assert counted["true prices received before the prediction"] == 1


def test_an_empty_period_and_an_absent_log_are_refused(log, answered, tmp_path, monkeypatch):
    log.answer(answered.head(1), every=HOUR)
    with pytest.raises(data.DataError, match="found no predictions"):
        traffic.refuse("log", since="2026-04-01")
    with pytest.raises(data.DataError, match=r"ends at .* begins at"):
        traffic.refuse("log", since="2026-04-01", until="2026-03-01")
    monkeypatch.setenv("HOUSING_PREDICTION_LOG", f"sqlite:///{tmp_path / 'none.db'}")
    get_settings.cache_clear()
    with pytest.raises(data.DataError, match="there is no such file"):
        traffic.refuse("log")
    assert not (tmp_path / "none.db").exists()


def test_a_database_that_is_no_log_is_refused(tmp_path, monkeypatch):
    (tmp_path / "other.db").write_text("not a database at all, but long enough to look at")
    monkeypatch.setenv("HOUSING_PREDICTION_LOG", f"sqlite:///{tmp_path / 'other.db'}")
    get_settings.cache_clear()
    with pytest.raises(data.DataError, match="cannot be read"):
        traffic.load("log")


def test_the_address_of_a_database_reaches_the_settings_and_not_the_source(monkeypatch):
    monkeypatch.setenv("HOUSING_PREDICTION_LOG", "off")
    address = "postgresql+psycopg://me:secret-word@nowhere/log"
    assert traffic.resolve_source(address) == "log"
    assert get_settings().prediction_log_uri == address
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.mark.parametrize("source", ["none.csv", "mysql://me:secret@nowhere/log"])
def test_an_unknown_source_is_refused_without_its_password(source):
    with pytest.raises(data.DataError, match="found no such file") as refused:
        traffic.resolve_source(source)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["lately", "5x", "d", "2026-13-01", "1e99d"])
def test_what_is_no_point_in_time_is_refused(text):
    with pytest.raises(data.DataError, match="is no point in time"):
        traffic.moment(text)


def test_a_length_of_time_is_that_long_ago():
    found = traffic.moment("36h")
    assert abs(datetime.now(UTC) - found - timedelta(hours=36)) < timedelta(minutes=1)
    assert traffic.moment("") is None


def test_a_file_has_no_times():
    with pytest.raises(data.DataError, match="whose rows have no times"):
        traffic.load("test", since="2d")


def in_three_files(districts, folder):
    """The folder, with districts in files of both kinds; one has no prices, and one no rows."""
    folder.mkdir()
    districts[:2].to_csv(folder / "a.csv", index=False)
    districts[2:5].drop(columns=data.TARGET).to_parquet(folder / "b.parquet", index=False)
    districts[:0].to_csv(folder / "c.csv", index=False)
    (folder / "_manifest.json").write_text("{}")
    return folder


def test_a_folder_and_a_glob_are_read_file_after_file(tmp_path):
    districts = data.acquire().head(5)
    folder = in_three_files(districts, tmp_path / "months")
    for name in (str(folder), f"{folder}/*"):
        assert traffic.resolve_source(name) == name
        found = traffic.load(name)
        assert_same_districts(found, districts)
        assert found.oddities["rows that wait for their price"] == 3
    assert len(traffic.load(f"{folder}/*.csv").rows) == 2


def assert_same_districts(found, districts):
    columns = list(data.FEATURES)
    pd.testing.assert_frame_equal(found.rows[columns], districts[columns])
    np.testing.assert_array_equal(found.rows[data.TARGET][:2], districts[data.TARGET][:2])


def test_an_object_store_holds_what_a_folder_holds(tmp_path):
    districts = data.acquire().head(5)
    folder = in_three_files(districts, tmp_path / "months")
    with running_store() as objects:
        for path in folder.iterdir():
            objects.put(path, f"months/{path.name}")
        assert_same_districts(traffic.load("s3://housing/months"), districts)
        with pytest.raises(data.DataError, match="found no such file"):
            traffic.resolve_source("s3://housing/years")


def test_a_file_among_others_that_lacks_a_column_is_named(tmp_path):
    folder = in_three_files(data.acquire().head(5), tmp_path / "months")
    data.acquire().head(2).drop(columns="MedInc").to_csv(folder / "d.csv", index=False)
    with pytest.raises(data.DataError, match=r"d\.csv.*\n.*MedInc +missing column"):
        traffic.load(str(folder))


def test_rows_may_wait_for_their_price_and_a_file_need_not_have_any():
    districts = data.acquire().head(5)
    some = districts.assign(MedHouseVal=[1.0, None, 2.0, None, 30.0])
    found = traffic.from_table(some, source="some")
    assert list(found.rows["fault"] == "") == [True, True, True, True, False]
    assert found.oddities["rows that wait for their price"] == 2
    without = traffic.from_table(districts.drop(columns=data.TARGET), source="none")
    assert without.rows[data.TARGET].isna().all()
    assert (without.rows["fault"] == "").all()


def test_repeated_and_conflicting_rows_and_unknown_columns_are_counted():
    districts = data.acquire().head(3)
    table = pd.concat([districts, districts.head(2).assign(MedHouseVal=[4.526, 1.0])])
    counted = traffic.from_table(table.assign(colour="red"), source="x").oddities
    assert counted["districts that stand there twice"] == 2
    assert counted["districts with conflicting prices"] == 1
    assert counted["columns that are not in the contract"] == 1


def test_no_rows_and_a_missing_column_are_refused():
    districts = data.acquire().head(3)
    with pytest.raises(data.DataError, match="no rows"):
        traffic.from_table(districts.head(0), source="x")
    with pytest.raises(data.DataError, match=r"Latitude +missing column"):
        traffic.from_table(districts.drop(columns="Latitude"), source="x")


def test_the_test_districts_come_in_an_order_that_means_nothing(store):
    found = traffic.load("test").rows
    assert len(found) == len(store.test)
    assert abs(found["Latitude"].autocorr()) < 0.1
    assert store.test["Latitude"].autocorr() > 0.8
