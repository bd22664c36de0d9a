"""No body of bytes, however it is made, gets anything but an answer or a documented refusal."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import JSON

from housing_lib import compiled
from housing_lib.data import CONTRACT, FEATURES
from serve import tables
from serve.schemas import EXAMPLE_DISTRICT

# Many more are tried before a release: HOUSING_BODIES=100000.
BODIES = int(os.environ.get("HOUSING_BODIES", "300"))
ROUTES = ("/predict", "/predict/batch", "/actuals")

odd_numbers = st.sampled_from(["NaN", "-Infinity", "1e400", "-0", "1E5", "9" * 400, "0x1", ".5"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
in_range = {
    name: st.none() | st.floats(CONTRACT[name].low, CONTRACT[name].high) for name in FEATURES
}
districts = st.fixed_dictionaries(in_range)
broken = st.tuples(districts, st.sampled_from([*FEATURES, "Price", ""]), values).map(
    lambda made: made[0] | {made[1]: made[2]}
)
as_text = st.one_of(districts, broken, values).map(json.dumps)
in_envelopes = st.tuples(st.sampled_from(["districts", "actuals", "x"]), st.lists(broken)).map(
    lambda made: json.dumps({made[0]: made[1]})
)
with_odd_number = st.tuples(as_text, odd_numbers).map(lambda made: made[0].replace("1", made[1]))
twice = st.tuples(districts, st.sampled_from(FEATURES), values).map(
    lambda made: f'{{"{made[1]}": {json.dumps(made[2])}, {json.dumps(made[0])[1:]}'
)
cut = st.tuples(as_text, st.integers(0, 200)).map(lambda made: made[0][: made[1]])
nested = st.integers(1, 50_000).map(lambda depth: "[" * depth)
texts = st.one_of(as_text, in_envelopes, with_odd_number, twice, cut, nested)
encodings = st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1"])
bodies = st.binary(max_size=300) | st.tuples(texts, encodings).map(
    lambda made: made[0].encode(made[1], "replace")
)


@pytest.fixture(scope="module")
def model(server, store):
    """The compiled model by which that server answers."""
    digest = server.get("/model").json()["digest"]
    return compiled.load(store.root / "data" / "serving" / f"{digest}.npz", digest=digest)


def rows_of(listed):
    """Districts as the model takes them."""
    return np.array([[one[name] for name in FEATURES] for one in listed], dtype="float64")


def prices(answers):
    """The prices in some answers."""
    return [one["predicted_median_house_value"] for one in answers]


many = settings(
    max_examples=BODIES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
some = settings(many, max_examples=max(50, BODIES // 10))


@many
@given(body=bodies, route=st.sampled_from(ROUTES))
def test_any_body_is_answered_or_refused_as_documented(server, model, body, route):
    answer = server.post(route, content=body, headers=JSON)
    assert answer.status_code in (200, 409, 422), (answer.status_code, body)
    if answer.status_code != 200:
        assert answer.json()["problems"]
    elif route == "/predict":
        given = json.loads(body)
        assert answer.json()["imputed"] == [name for name in FEATURES if given[name] is None]
        expected = model.answer(rows_of([given])).prices
        np.testing.assert_allclose(prices([answer.json()]), expected, rtol=0, atol=1e-6)
    elif route == "/predict/batch":
        expected = model.answer(rows_of(json.loads(body)["districts"])).prices
        found = prices(answer.json()["predictions"])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def as_table(kind, listed):
    """The body of a table of that kind."""
    table = pa.Table.from_pylist(listed)
    if kind == tables.ARROW:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue()
    frame = table.to_pandas()
    return frame.to_parquet() if kind == tables.PARQUET else frame.to_csv(index=False).encode()


GOOD_TABLES = {kind: as_table(kind, [EXAMPLE_DISTRICT] * 3) for kind in tables.TYPES}
spots = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)


@st.composite
def damaged_tables(draw):
    """A good table of some kind, some bytes of which are others, and perhaps cut."""
    kind = draw(st.sampled_from(tables.TYPES))
    body = bytearray(GOOD_TABLES[kind])
    for place, byte in draw(spots):
        body[int(place * len(body))] = byte
    return kind, bytes(body[: int(len(body) * draw(st.just(1) | st.floats(0, 1)))])


@some
@given(made=damaged_tables())
def test_a_damaged_table_is_answered_or_refused_as_documented(server, made):
    kind, body = made
    answer = server.post("/predict/batch", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (200, 422), (answer.status_code, kind, body)
    if answer.status_code == 422:
        assert answer.json()["problems"]


@some
@given(district=districts)
def test_whatever_a_district_holds_its_price_is_a_number_in_its_interval(server, district):
    if all(value is None for value in district.values()):
        district = EXAMPLE_DISTRICT
    answer = server.post("/predict", json=district)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    interval = found["interval"]
    assert -5 < found["predicted_median_house_value"] < 20
    assert not interval or interval["low"] <= found["predicted_median_house_value"]


@pytest.mark.parametrize("route", ["/predict", "/predict/batch", "/actuals"])
def test_however_many_names_a_body_holds_it_is_refused(server, route):
    names = ",".join(f'"name{number}":0' for number in range(200_000))
    for body in (f'{{{names},"name199999":0}}', f'{{"actuals":[{{{names}}}]}}', f"{{{names}}}"):
        answer = server.post(route, content=body, headers=JSON)
        assert answer.status_code == 422
        assert len(answer.json()["problems"]) <= 20
    assert server.get("/health/live").status_code == 200
