"""Batch prediction keeps what it is given, adds the model's own prices, and never writes a half."""

import json
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_stores import running_store

from housing_lib import compiling, scoring, sources, storage
from housing_lib.answering import Answering, CompiledModel, Identity, PlainModel
from housing_lib.answers import answers
from housing_lib.data import CONTRACT, FEATURES, DataError
from housing_lib.files import file_digest
from housing_lib.predictions import ADDED
from housing_lib.scoring import default_target, predict
from housing_lib.settings import get_settings


@pytest.fixture(scope="module")
def asked(store):
    """The model in Production, compiled as it is for a server."""
    known = compiling.compile_model(store.registered.model, _known(store))
    return Answering(_identity(store), CompiledModel(known))


def _known(store):
    from housing_lib import deployment

    return deployment.known_districts(store.registered.data_digest)


def _identity(store):
    one = store.registered
    return Identity(one.name, one.version, one.family, one.run_id, one.data_digest, "", "")


@pytest.fixture
def districts(store):
    """Fifty districts with an id, a note and a few missing values, in an order of their own."""
    table = store.test[list(reversed(FEATURES))].head(50).reset_index(drop=True)
    table.loc[3, "AveBedrms"] = np.nan
    table.insert(0, "id", [f"{number:05d}" for number in range(50)])
    table["note"] = ["NA", 'with "quotes", and a comma', "two\nlines", *[""] * 47]
    return table


def write(table, path):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def refused(source, target, asked):
    """The text of the error, once it is proved that nothing was written."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        predict(str(source), str(target), asked=asked)
    assert sorted(source.parent.rglob("*")) == before
    assert "Nothing was written" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target_suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("source_suffix", [".csv", ".parquet"])
def test_every_format_gives_the_models_own_prices(
    asked, store, districts, tmp_path, source_suffix, target_suffix
):
    source = write(districts, tmp_path / f"in{source_suffix}")
    scored = predict(str(source), str(tmp_path / f"out{target_suffix}"), asked=asked)
    out = pd.read_csv(scored.target) if target_suffix == ".csv" else pd.read_parquet(scored.target)
    expected = store.registered.model.predict(districts)
    np.testing.assert_allclose(out["predicted_median_house_value"], expected, atol=1e-6)
    np.testing.assert_allclose(out["predicted_median_house_value_usd"], expected * 1e5, atol=0.01)
    low, high = store.registered.model.predict_interval(districts)
    np.testing.assert_allclose(out["interval_low_usd"], low * 1e5, atol=0.2)
    np.testing.assert_allclose(out["interval_high_usd"], high * 1e5, atol=0.2)
    error = store.registered.model.expected_error(districts)
    np.testing.assert_allclose(out["expected_error_usd"], error * 1e5, atol=0.2)
    assert list(out["flags"].fillna("")) == list(
        answers(store.registered.model, districts)["flags"]
    )
    assert set(out["model_version"]) == {store.registered.version} == {scored.model_version}
    assert list(out.columns) == [*districts.columns, *ADDED]
    assert scored.rows == 50
    np.testing.assert_array_equal(out[list(FEATURES)], districts[list(FEATURES)])


def csv_records(path):
    """The records of a CSV file as they stand there; one of them has two lines."""
    joined = path.read_text().replace("two\nlines", "two\0lines")
    return [line.replace("\0", "\n") for line in joined.split("\n")[:-1]]


def test_a_csv_comes_back_character_for_character(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    out = predict(str(source), str(tmp_path / "out.csv"), asked=asked).target
    rest = Path(out).read_text()
    for record in csv_records(source):
        assert rest.startswith(f"{record},")
        rest = rest[rest.index("\n", len(record)) + 1 :]
    assert not rest


def test_a_csv_keeps_its_ids_as_text_and_its_prices_as_numbers_in_a_parquet_file(
    asked, store, districts, tmp_path
):
    source = write(districts.assign(MedHouseVal=1.5), tmp_path / "in.csv")
    out = predict(str(source), str(tmp_path / "out.parquet"), asked=asked).target
    table = pd.read_parquet(out)
    assert list(table["id"]) == list(districts["id"])
    assert (table["MedHouseVal"] == 1.5).all()


def test_a_parquet_file_keeps_its_types_and_its_index(asked, districts, tmp_path):
    whole = districts.assign(count=pd.array([None, *range(49)], dtype="Int64")).set_index("id")
    whole.to_parquet(tmp_path / "in.parquet")
    target = str(tmp_path / "out.parquet")
    out = predict(str(tmp_path / "in.parquet"), target, asked=asked).target
    columns = pd.read_parquet(out, dtype_backend="pyarrow")
    assert str(columns["count"].dtype) == "int64[pyarrow]"
    assert list(columns["id"]) == list(districts["id"])


def test_missing_values_are_imputed_and_stay_missing_in_the_output(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    out = predict(str(source), str(tmp_path / "out.csv"), asked=asked).target
    table = pd.read_csv(out)
    assert np.isnan(table["AveBedrms"][3])
    assert np.isfinite(table["predicted_median_house_value"]).all()


def test_an_earlier_output_is_replaced(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    target = tmp_path / "out.csv"
    write(districts.head(3), tmp_path / "few.csv")
    assert predict(str(tmp_path / "few.csv"), str(target), asked=asked).rows == 3
    assert predict(str(source), str(target), asked=asked).rows == 50
    assert len(pd.read_csv(target)) == 50


def test_predictions_go_to_their_own_folder_by_default():
    folder = get_settings().predictions
    assert default_target("elsewhere/new.parquet") == f"{folder}/new_predictions.parquet"
    assert default_target("s3://bucket/months/*.csv") == f"{folder}/months_predictions"
    assert default_target("*.csv") == f"{folder}/districts_predictions"


def test_all_columns_that_are_missing_are_named_at_once(asked, districts, tmp_path):
    bad = districts.rename(columns={"MedInc": "medinc"}).drop(columns="Latitude")
    text = refused(write(bad, tmp_path / "in.csv"), tmp_path / "out.csv", asked)
    assert "MedInc      missing column; is it 'medinc'?" in text
    assert "Latitude    missing column" in text


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_bad_rows_go_to_quarantine_with_every_reason_and_the_others_are_scored(
    asked, districts, tmp_path, suffix
):
    bad = districts.astype({"HouseAge": str})
    bad.loc[7, "HouseAge"] = "old"
    bad.loc[7, "Latitude"] = 52.5
    bad.loc[9, list(FEATURES)] = np.nan
    bad["HouseAge"] = bad["HouseAge"].replace("nan", "")
    source = write(bad, tmp_path / f"in{suffix}")
    scored = predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    assert (scored.rows, scored.scored, scored.quarantined) == (50, 48, 2)
    above = f"Latitude above {CONTRACT['Latitude'].high:g}"
    assert scored.reasons == {
        "HouseAge not a number": 1, above: 1, "all eight features missing": 1
    }  # fmt: skip
    kept = pd.read_csv(scored.quarantine[0], dtype=str)
    places = ["line 10", "line 12"] if suffix == ".csv" else ["row 7", "row 9"]
    assert list(kept["quarantined_at"]) == places  # "two lines" stands in two lines
    assert kept["quarantined_because"][0] == f"HouseAge not a number; {above}"
    assert set(kept["quarantined_from"]) == {source.name}
    assert list(kept["id"]) == ["00007", "00009"]
    assert len(pd.read_csv(scored.target)) == 48


def test_corrected_rows_can_be_scored_from_the_quarantine_file(asked, districts, tmp_path):
    bad = districts.assign(Latitude=[99.0, *districts["Latitude"][1:]])
    source = write(bad, tmp_path / "in.csv")
    first = predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    text = Path(first.quarantine[0]).read_text().replace("99.0", str(districts["Latitude"][0]))
    (tmp_path / "corrected.csv").write_text(text)
    again = predict(str(tmp_path / "corrected.csv"), str(tmp_path / "rest.csv"), asked=asked)
    assert (again.rows, again.quarantined) == (1, 0)


def test_the_manifest_tells_the_model_the_counts_and_every_digest(asked, districts, tmp_path):
    bad = districts.assign(Population=[-1.0, *districts["Population"][1:]])
    source = write(bad, tmp_path / "in.parquet")
    scored = predict(str(source), str(tmp_path / "out.parquet"), asked=asked)
    manifest = json.loads(Path(scored.manifest).read_text())
    assert manifest["model"]["model_version"] == asked.identity.model_version
    assert (manifest["rows"], manifest["scored"], manifest["quarantined"]) == (50, 49, 1)
    (file,) = manifest["files"]
    assert file["source"]["sha256"] == file_digest(source)
    for one in (file["output"], file["quarantine"]):
        assert one["sha256"] == file_digest(tmp_path / one["name"])


def test_nothing_but_predictions_quarantine_and_manifest_is_left(asked, districts, tmp_path):
    bad = districts.assign(Population=[-1.0, *districts["Population"][1:]])
    source = write(bad, tmp_path / "in.csv")
    predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    kinds = ["", ".manifest.json", ".quarantine.csv"]
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", *(f"out.csv{k}" for k in kinds)}
    write(districts, source)  # without the bad row no quarantine stays behind
    predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    assert not (tmp_path / "out.csv.quarantine.csv").exists()


def test_a_folder_of_both_kinds_becomes_a_folder_of_the_same_files(asked, districts, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(districts.head(7), tmp_path / "in" / "a.csv")
    write(districts.tail(9), tmp_path / "in" / "deep" / "b.parquet")
    write(districts, tmp_path / "in" / "_hidden.csv")
    scored = predict(str(tmp_path / "in"), str(tmp_path / "out"), asked=asked)
    assert scored.rows == 16
    assert len(pd.read_csv(tmp_path / "out" / "a.csv")) == 7
    assert len(pd.read_parquet(tmp_path / "out" / "deep" / "b.parquet")) == 9
    (tmp_path / "in" / "a.csv").unlink()
    predict(str(tmp_path / "in"), str(tmp_path / "out"), asked=asked)
    assert not (tmp_path / "out" / "a.csv").exists()


def test_a_glob_stands_for_the_files_that_it_matches(asked, districts, tmp_path):
    for name in ("2025-01.csv", "2025-02.csv", "2026-01.csv"):
        write(districts.head(4), tmp_path / name)
    scored = predict(str(tmp_path / "2025-*.csv"), str(tmp_path / "out"), asked=asked)
    assert scored.rows == 8
    assert sorted(path.name for path in (tmp_path / "out").glob("*.csv")) == [
        "2025-01.csv",
        "2025-02.csv",
    ]


def test_a_name_is_told_without_the_folders_above_it(asked, districts, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(districts, tmp_path / "deep" / "in.csv")
    monkeypatch.chdir(tmp_path)
    scored = predict("deep/in.csv", "out.csv", asked=asked)
    text = Path(scored.manifest).read_text()
    assert json.loads(text)["files"][0]["source"]["name"] == "in.csv"
    assert str(tmp_path) not in text


def test_many_files_do_not_go_into_one(asked, districts, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        write(districts, tmp_path / "in" / name)
    assert "go into a folder" in refused(tmp_path / "in", tmp_path / "out.csv", asked)


def test_a_file_that_predict_did_not_write_is_not_replaced(asked, districts, tmp_path):
    """As `housing predict *.csv` would, where the shell finds two files."""
    first = write(districts, tmp_path / "a.csv")
    second = write(districts, tmp_path / "b.csv")
    assert "was not written by" in refused(first, second, asked)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of some rows each, so that small files have many."""
    monkeypatch.setattr(sources, "PART_ROWS", 40)
    monkeypatch.setattr(sources, "PART_BYTES", 4_000)
    monkeypatch.setattr(sources, "BLOCK", 1_500)


@pytest.fixture
def many(districts):
    """Six hundred districts, some of them bad."""
    many = pd.concat([districts] * 12, ignore_index=True)
    many.loc[::37, "Latitude"] = 99.0
    return many


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_killed_at_ten_moments_it_comes_to_the_same_bytes(asked, many, tmp_path, suffix):
    source = write(many, tmp_path / f"in{suffix}")
    straight = tmp_path / f"straight{suffix}"
    started = time.perf_counter()
    predict(str(source), str(straight), asked=asked)
    took = time.perf_counter() - started
    target, moments = tmp_path / f"out{suffix}", random.Random(7)
    for _ in range(10):
        kill_after(moments.uniform(0.02, took), str(source), str(target), asked)
        assert not target.exists() or file_digest(target) == file_digest(straight)
    predict(str(source), str(target), asked=asked)
    for ending in ("", ".quarantine.csv"):
        same = [file_digest(Path(f"{one}{ending}")) for one in (straight, target)]
        assert same[0] == same[1]
    assert not list(tmp_path.glob(".*"))


def kill_after(seconds, source, target, asked):
    """Score in a process of its own, and kill it without a word."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=predict, args=(source, target), kwargs={"asked": asked})
    process.start()
    process.join(seconds)
    process.kill()
    process.join()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_finished_parts_are_not_scored_again(asked, many, tmp_path, suffix, monkeypatch):
    source, target = write(many, tmp_path / f"in{suffix}"), str(tmp_path / f"out{suffix}")
    scored = []
    score = scoring.predictions.score

    def stop_after_five(*arguments):
        scored.append(arguments)
        if len(scored) == 5:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(scoring.predictions, "score", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        predict(str(source), target, asked=asked)
    heard = []
    done = predict(str(source), target, asked=asked, on_progress=lambda *told: heard.append(told))
    assert 0 < heard[0][0] < 1
    assert heard[-1] == (pytest.approx(1), 600)
    assert len(scored) == 5 + len(heard) - 1
    assert done.rows == 600


@pytest.mark.usefixtures("small_parts")
def test_cut_or_whole_the_rows_are_the_same_and_in_order(asked, many, tmp_path, monkeypatch):
    source = write(many, tmp_path / "in.csv")
    cut = predict(str(source), str(tmp_path / "cut.csv"), asked=asked)
    monkeypatch.setattr(sources, "PART_BYTES", 1 << 30)
    whole = predict(str(source), str(tmp_path / "whole.csv"), asked=asked)
    assert Path(cut.target).read_bytes() == Path(whole.target).read_bytes()
    assert Path(cut.quarantine[0]).read_bytes() == Path(whole.quarantine[0]).read_bytes()
    assert list(pd.read_csv(cut.target, dtype=str)["id"]) == list(
        many["id"][many["Latitude"] != 99]
    )


def test_several_processes_write_what_one_writes(asked, many, tmp_path, small_parts):
    source = write(many, tmp_path / "in.parquet")
    one = predict(str(source), str(tmp_path / "one.parquet"), asked=asked, jobs=1)
    two = predict(str(source), str(tmp_path / "two.parquet"), asked=asked, jobs=2)
    assert file_digest(Path(one.target)) == file_digest(Path(two.target))


def test_a_cluster_writes_what_this_machine_writes(asked, many, tmp_path, small_parts, request):
    source = write(many, tmp_path / "in.csv")
    here = predict(str(source), str(tmp_path / "here.csv"), asked=asked)
    request.getfixturevalue("on_cluster")
    there = predict(str(source), str(tmp_path / "there.csv"), asked=asked)
    assert file_digest(Path(here.target)) == file_digest(Path(there.target))


@pytest.fixture(scope="module")
def object_store():
    """An S3-compatible store on this machine."""
    with running_store() as running:
        yield running


def test_from_and_to_an_object_store_the_bytes_are_the_same(
    asked, many, tmp_path, small_parts, object_store
):
    source = write(many, tmp_path / "in" / "a.csv")
    name = object_store.put(source, "months/a.csv")
    here = predict(str(source), str(tmp_path / "here.csv"), asked=asked)
    there = predict(name, "s3://housing/scored.csv", asked=asked)
    assert storage.read_bytes(there.target) == Path(here.target).read_bytes()
    assert storage.read_bytes(there.quarantine[0]) == Path(here.quarantine[0]).read_bytes()
    folder = predict("s3://housing/months/*.csv", "s3://housing/scored", asked=asked)
    assert storage.read_bytes(f"{folder.target}/a.csv") == Path(here.target).read_bytes()
    kept = storage.files_below("s3://housing/scored")
    assert kept == [f"s3://housing/scored/{name}" for name in
                    ("_manifest.json", "_quarantine/a.csv.csv", "a.csv")]  # fmt: skip


def test_an_object_store_that_is_lost_costs_no_finished_part(
    asked, many, tmp_path, small_parts, object_store, monkeypatch
):
    name = object_store.put(write(many, tmp_path / "in.csv"), "lost/in.csv")
    told = []

    def lose(share, rows):
        told.append(rows)
        if len(told) == 4:
            object_store.stop()

    with pytest.raises(storage.StorageError, match="goes on from there"):
        predict(name, "s3://housing/lost/out.csv", asked=asked, on_progress=lose)
    object_store.start()
    done = predict(name, "s3://housing/lost/out.csv", asked=asked, on_progress=lose)
    assert told[4] == told[3] > 0
    assert done.rows == 600


def test_a_model_that_is_not_compiled_says_the_same(asked, store, districts, tmp_path):
    plain = Answering(_identity(store), PlainModel(store.registered.model))
    source = write(districts, tmp_path / "in.csv")
    slow, fast = (
        pd.read_csv(predict(str(source), str(tmp_path / f"{name}.csv"), asked=one).target)
        for name, one in (("slow", plain), ("fast", asked))
    )
    pd.testing.assert_frame_equal(slow, fast, rtol=1e-5)


def test_what_is_no_csv_record_and_no_utf8_is_quarantined_as_it_stands(asked, districts, tmp_path):
    source = write(districts.drop(columns="note"), tmp_path / "in.csv")
    lines = source.read_bytes().splitlines()
    lines[3] = b"\xff\xfe" + lines[3]
    lines[5] = lines[5] + b",more"
    source.write_bytes(b"\r\n".join(lines))
    scored = predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    assert scored.reasons == {"found 10 values, expected 9": 1, "not UTF-8": 1}
    assert lines[3] in Path(scored.quarantine[0]).read_bytes()
    assert scored.scored == 48


def parquet_of(columns):
    """The bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("in.csv", b"", "empty"),
        ("in.csv", b"\xff\xfe\x00,1\n", "cannot be read as csv"),
        ("in.parquet", b"PAR1 cut off", "cannot be read as parquet"),
        ("in.xlsx", b"PK", "expected a .csv or .parquet file"),
        (
            "in.parquet",
            parquet_of({"MedInc": ["text"]} | {name: [[1.0]] for name in FEATURES[1:]}),
            "expected numbers",
        ),
        ("in.csv", ",".join(FEATURES).encode() + b"\n", "no rows"),
    ],
)
def test_a_file_that_is_no_table_is_refused(asked, tmp_path, name, content, expected):
    source = tmp_path / name
    source.write_bytes(content)
    assert expected in refused(source, tmp_path / "out.csv", asked)


def test_a_truncated_parquet_file_is_refused(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.parquet")
    source.write_bytes(source.read_bytes()[:-100])
    assert "cannot be read as parquet" in refused(source, tmp_path / "out.csv", asked)


def test_a_missing_file_is_refused(asked, tmp_path):
    assert "no such file" in refused(tmp_path / "none.csv", tmp_path / "out.csv", asked)


def test_rows_longer_than_the_header_are_quarantined_and_not_shifted(asked, districts, tmp_path):
    source = write(districts.drop(columns="note"), tmp_path / "in.csv")
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0], *(f"0,{line}" for line in lines[1:])]))
    scored = predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    assert scored.quarantined == scored.rows == 50


def test_a_column_that_stands_there_twice_is_refused(asked, districts, tmp_path):
    source = write(districts.assign(again=1.0), tmp_path / "in.csv")
    source.write_text(source.read_text().replace("again", "MedInc", 1))
    assert "columns twice: MedInc" in refused(source, tmp_path / "out.csv", asked)


def test_a_column_that_the_predictions_would_take_is_refused(asked, districts, tmp_path):
    source = write(districts.assign(model_version=3), tmp_path / "in.csv")
    assert "would take: model_version" in refused(source, tmp_path / "out.csv", asked)


def test_the_input_is_never_overwritten(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    before = source.read_bytes()
    (tmp_path / "link.csv").symlink_to(source)
    assert "is the input itself" in refused(source, tmp_path / "link.csv", asked)
    assert source.read_bytes() == before


def test_an_unknown_ending_of_the_target_is_refused(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    assert ".csv or .parquet" in refused(source, tmp_path / "out.txt", asked)


def test_a_target_that_cannot_be_written_is_an_error_of_its_own(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    assert "cannot be written" in refused(source, source / "out.csv", asked)
