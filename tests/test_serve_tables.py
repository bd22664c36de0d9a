"""Many districts in one body, JSON or a table, are answered in order or refused row by row."""

import io

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from pyarrow.ipc import IpcWriteOptions
from serving import district, problems

from housing_lib.data import FEATURES
from serve.schemas import MOST_ROWS
from serve.tables import ARROW


def batch(rows):
    """The body of a batch of real districts."""
    return {"districts": rows[list(FEATURES)].to_dict("records")}


def test_a_batch_is_answered_in_its_order_with_the_models_prices(server, store):
    rows = store.test.head(2_500)
    found = server.post("/predict/batch", json=batch(rows)).json()["predictions"]
    prices = [one["predicted_median_house_value"] for one in found]
    expected = store.registered.model.predict(rows[list(FEATURES)])
    np.testing.assert_allclose(prices, expected, rtol=0, atol=1e-6)
    assert len({one["prediction_id"] for one in found}) == len(rows)


def as_csv(table):
    return table.to_csv(index=False).encode()


def as_parquet(table):
    return table.to_parquet(index=False)


def as_arrow(table):
    sink = io.BytesIO()
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    with pa.ipc.new_stream(sink, arrow.schema) as stream:
        stream.write_table(arrow)
    return sink.getvalue()


def from_arrow(content):
    return pa.ipc.open_stream(content).read_all().to_pandas()


KINDS = {
    "text/csv": (as_csv, lambda content: pd.read_csv(io.BytesIO(content))),
    "application/vnd.apache.parquet": (
        as_parquet,
        lambda content: pd.read_parquet(io.BytesIO(content)),
    ),
    "application/vnd.apache.arrow.stream": (as_arrow, from_arrow),
}


def send_table(server, kind, table):
    """The answer to a table as a body of that kind."""
    body = KINDS[kind][0](table)
    return server.post("/predict/batch", content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_answered_with_a_table_of_the_same_kind(server, store, kind):
    rows = store.test[list(FEATURES)].head(50).assign(name="left out")
    answer = send_table(server, kind, rows)
    assert answer.headers["content-type"].startswith(kind)
    found = KINDS[kind][1](answer.content)
    expected = store.registered.model.predict(rows[list(FEATURES)])
    np.testing.assert_allclose(found["predicted_median_house_value"], expected, atol=1e-6)


@pytest.mark.parametrize("place", [37.0, np.nan])
def test_a_column_of_the_answer_has_one_type_whatever_is_missing_in_it(server, store, place):
    rows = store.test[list(FEATURES)].head(5).assign(Latitude=place)
    answer = send_table(server, ARROW, rows)
    kinds = pa.ipc.open_stream(answer.content).schema
    assert kinds.field("nearest_training_district_km").type == pa.float64()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_table_is_refused_with_row_and_column(server, store, kind):
    rows = store.test[list(FEATURES)].head(5).copy()
    rows.loc[3, "MedInc"] = 99
    (found,) = send_table(server, kind, rows).json()["problems"]
    assert (found["row"], found["field"], found["problem"]) == (3, "MedInc", "above 20")
    refused = send_table(server, kind, rows.drop(columns="Latitude"))
    assert problems(refused)["Latitude"]["problem"] == "column is missing"
    headers = {"Content-Type": kind}
    assert problems(server.post("/predict/batch", content=b"\x00PK", headers=headers))


def test_in_a_long_csv_the_one_bad_cell_is_named_and_no_good_one(server, store):
    rows = pd.concat([store.test[list(FEATURES)].head(500)] * 4, ignore_index=True)
    rows.loc[3, "AveRooms"] = np.nan
    cells = rows.astype({"MedInc": str})
    cells.loc[1_999, "MedInc"] = "abc"
    (found,) = send_table(server, "text/csv", cells).json()["problems"]
    assert (found["row"], found["field"], found["found"]) == (1_999, "MedInc", '"abc"')


def packed_arrow(table, codec):
    """An Arrow stream that unpacks to many times its size; also its dictionary is compressed."""
    arrow = pa.Table.from_pandas(table.assign(name=pd.Categorical(["a"] * len(table))))
    sink = io.BytesIO()
    with pa.ipc.new_stream(
        sink, arrow.schema, options=IpcWriteOptions(compression=codec)
    ) as stream:
        stream.write_table(arrow)
    return sink.getvalue()


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_table_that_would_fill_the_memory_is_refused_before_it_is_unpacked(server, store, codec):
    row = store.test[list(FEATURES)].head(1)
    rows = row.loc[row.index.repeat(3_000_000)]
    bodies = {
        "application/vnd.apache.arrow.stream": packed_arrow(rows, codec),
        "application/vnd.apache.parquet": rows.head(10_000).to_parquet(compression=codec),
    }
    before = psutil.Process(server.process.pid).memory_info().rss
    for kind, body in bodies.items():
        answer = server.post("/predict/batch", content=body, headers={"Content-Type": kind})
        fault = problems(answer)["(body)"]
        assert fault["problem"] == "is compressed so that it could fill the memory"
        assert codec in fault["found"].lower() or kind.endswith("stream")
    assert psutil.Process(server.process.pid).memory_info().rss - before < 50e6


def test_an_arrow_stream_that_is_compressed_by_a_note_as_in_its_format_4_is_refused(server):
    batch = pa.record_batch([[1.0]] * len(FEATURES), names=list(FEATURES))
    sink, old = io.BytesIO(), IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, batch.schema, options=old) as stream:
        stream.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "zstd"})
    headers = {"Content-Type": "application/vnd.apache.arrow.stream"}
    answer = server.post("/predict/batch", content=sink.getvalue(), headers=headers)
    fault = problems(answer)["(body)"]["problem"]
    assert fault == "is compressed so that it could fill the memory"


@pytest.mark.parametrize("value", [b"3.5x", b"2026-11-23", b"12:00", b"true", b"\xff\xfe"])
def test_what_is_no_number_in_a_table_is_not_taken_for_one(server, value):
    names, given = ",".join(FEATURES).encode(), b",".join([value, *[b"1"] * 5, b"37", b"-122"])
    headers = {"Content-Type": "text/csv"}
    answer = server.post("/predict/batch", content=names + b"\n" + given, headers=headers)
    assert problems(answer)["MedInc"]["problem"] == "not a number"


def test_every_bad_row_of_a_batch_is_named_and_nothing_is_predicted(server):
    rows = [district(), district(MedInc=-1), district(Latitude="x"), dict.fromkeys(FEATURES)]
    answer = server.post("/predict/batch", json={"districts": rows})
    found = [(one["row"], one["field"], one["found"]) for one in answer.json()["problems"]]
    assert found == [(1, "MedInc", "-1"), (2, "Latitude", '"x"'), (3, "(body)", "null")]
    assert "predictions" not in answer.json()


@pytest.mark.parametrize("count", [0, MOST_ROWS + 1])
def test_a_batch_of_no_or_too_many_districts_is_refused(server, count):
    found = problems(server.post("/predict/batch", json={"districts": [district()] * count}))
    assert found["districts"]["found"] == f"{count:,}"


def test_a_kind_of_body_that_is_not_read_is_refused(server):
    headers = {"Content-Type": "application/xml"}
    answer = server.post("/predict/batch", content=b"<x/>", headers=headers)
    assert answer.status_code == 415
    assert "text/csv" in answer.json()["problems"][0]["expected"]


@pytest.mark.parametrize("kind", ["application/vnd.apache.parquet", ARROW])
@pytest.mark.parametrize("made", ["str", "category"])
def test_a_column_of_texts_is_refused_by_its_type(server, store, kind, made):
    rows = store.test[list(FEATURES)].head(5)
    texts = rows.assign(MedInc=rows["MedInc"].astype("str").astype(made))
    found = problems(send_table(server, kind, texts))
    assert set(found) == {"MedInc"}
    assert found["MedInc"]["problem"] == "not a column of numbers"


@pytest.mark.parametrize("bad", ["\u0663", "fou\ufffdr", "4 5"])
def test_of_a_column_in_csv_the_one_bad_cell_is_named(server, store, bad):
    rows = store.test[list(FEATURES)].head(30).astype({"MedInc": object})
    rows.loc[rows.index[25], "MedInc"] = bad
    header, cells = rows.to_csv(index=False).split("\n", 1)
    body = f"{header}\n{cells.replace(',', ', ')}".encode()
    for content in (body, body.replace("fou\ufffdr".encode(), b"fou\xe9r")):
        kind = {"Content-Type": "text/csv"}
        found = server.post("/predict/batch", content=content, headers=kind).json()["problems"]
        assert [(one["field"], one["row"]) for one in found] == [("MedInc", 25)]


def test_a_column_that_is_misspelt_is_pointed_at(server, store):
    rows = store.test[list(FEATURES)].head(2).rename(columns={"MedInc": "medinc "})
    found = problems(send_table(server, "text/csv", rows))
    assert found["MedInc"]["found"] == "a column 'medinc '"


def test_numbers_that_are_written_unusually_are_numbers(server, store):
    rows = store.test[list(FEATURES)].head(3)
    signed = send_table(server, "text/csv", rows.assign(HouseAge=[" +5", "5.", "05"]))
    plain = send_table(server, "text/csv", rows.assign(HouseAge=5))
    prices = [
        pd.read_csv(io.BytesIO(one.content))["predicted_median_house_value"]
        for one in (signed, plain)
    ]
    pd.testing.assert_series_equal(*prices)
