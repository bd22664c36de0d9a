"""Batch prediction keeps what it is given, adds the model's own prices, and never writes a half."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from scored import identity_of, refused, write

from housing_lib import scoring
from housing_lib.answering import Answering, PlainModel, answering
from housing_lib.answers import answers
from housing_lib.compiled import CompileError
from housing_lib.data import CONTRACT, FEATURES
from housing_lib.files import file_digest
from housing_lib.predictions import ADDED, QUARANTINED
from housing_lib.scoring import predict
from housing_lib.settings import get_settings
from housing_lib.targets import default_target


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
    assert default_target("months/2026-0?.csv") == f"{folder}/2026-0_predictions"
    assert default_target("months/[ab].csv") == f"{folder}/months_predictions"


def test_what_is_there_under_a_name_with_brackets_is_meant_itself(
    asked, districts, tmp_path, monkeypatch
):
    source = write(districts, tmp_path / "br[1]" / "new[2].csv")
    assert Path(default_target(str(source))).name == "new[2]_predictions.csv"
    monkeypatch.chdir(source.parent)
    for number, name in enumerate(["*.csv", f"{source.parent}/*.csv"]):
        assert predict(name, str(tmp_path / f"out{number}"), asked=asked).rows == 50


def test_a_damaged_compiled_file_is_named_and_not_answered_around(own_store, monkeypatch, tmp_path):
    def fetched(self, run_id, path, dst_path):
        (tmp_path / "damaged.npz").write_bytes(b"PK no")
        return str(tmp_path / "damaged.npz")

    shutil.rmtree(own_store[0] / "data" / "serving", ignore_errors=True)
    monkeypatch.setattr(MlflowClient, "download_artifacts", fetched)
    with pytest.raises(CompileError, match="is not the file that was compiled"):
        answering()


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


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_row_that_fails_again_has_its_newest_reasons_alone(asked, districts, tmp_path, suffix):
    bad = districts.assign(Latitude=[99.0] * 3 + [*districts["Latitude"][3:]])
    bad["id"] = [f'a, "{number}"' for number in range(50)]
    first = predict(
        str(write(bad, tmp_path / "in.csv")), str(tmp_path / "out.csv"), asked=asked
    ).quarantine[0]
    half = pd.read_csv(first).assign(Latitude=[37.0, 99.0, 99.0])
    half.loc[2, "quarantined_because"] = 'who, "knows"'
    source = write(half, tmp_path / f"half{suffix}")
    second = predict(str(source), str(tmp_path / "half_out.csv"), asked=asked).quarantine[0]
    kept = pd.read_csv(second)
    assert list(kept.columns) == [*QUARANTINED, *bad.columns]
    assert set(kept["quarantined_from"]) == {source.name}
    assert list(kept["id"]) == list(bad["id"][1:3])
    right = write(kept.assign(Latitude=37.0), tmp_path / "right.csv")
    assert predict(str(right), str(tmp_path / "right_out.csv"), asked=asked).scored == 2


def test_what_counts_as_missing_does_not_depend_on_other_rows(asked, districts, tmp_path):
    texts = districts.astype({"HouseAge": str})
    texts.loc[[5, 7, 8], "HouseAge"] = ["infinity", "Nan", "nan(1)"]
    expected = {f"HouseAge above {CONTRACT['HouseAge'].high:g}": 1, "HouseAge not a number": 2}
    for others in range(2):
        source = write(texts, tmp_path / f"in{others}.csv")
        scored = predict(str(source), str(tmp_path / f"out{others}.csv"), asked=asked)
        assert scored.reasons == expected
        texts.loc[9, "HouseAge"] = "old"
        expected["HouseAge not a number"] += 1


def test_blank_lines_before_the_header_count(asked, districts, tmp_path):
    source = write(
        districts.assign(Latitude=[99.0, *districts["Latitude"][1:]]), tmp_path / "a.csv"
    )
    source.write_text("\n\n" + source.read_text())
    kept = predict(str(source), str(tmp_path / "out.csv"), asked=asked).quarantine[0]
    assert list(pd.read_csv(kept)["quarantined_at"]) == ["line 4"]


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


def test_earlier_predictions_below_the_source_are_no_input(asked, districts, tmp_path):
    bad = districts.assign(Latitude=99.0)
    for name in ("a.csv", "b.csv"):
        write(pd.concat([districts, bad]), tmp_path / "months" / name)
    for _ in range(2):
        target = str(tmp_path / "months" / "scored") + "/"
        assert predict(str(tmp_path / "months"), target, asked=asked).rows == 200
    (tmp_path / "months" / "b.csv").unlink()
    for _ in range(2):
        alone = str(tmp_path / "months" / "alone.csv")
        assert predict(str(tmp_path / "months" / "*.csv"), alone, asked=asked).rows == 100


def test_stopped_while_it_replaces_files_another_version_goes_on(
    asked, districts, tmp_path, monkeypatch
):
    for name in ("a.csv", "b.csv", "c.csv"):
        write(districts, tmp_path / "in" / name)
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    manifest = Path(predict(source, target, asked=asked).manifest)
    stopped(monkeypatch, scoring.predictions, "join", 1, source, target, asked)
    assert manifest.exists()  # nothing was replaced yet
    stopped(monkeypatch, scoring.storage, "move", 2, source, target, asked)
    assert not manifest.exists()
    (tmp_path / "in" / "c.csv").unlink()
    later = replace(asked, identity=replace(asked.identity, model_version=77))
    assert predict(source, target, asked=later).model_version == 77
    assert {path.name for path in Path(target).iterdir()} == {"a.csv", "b.csv", manifest.name}
    assert not list(tmp_path.glob(".*"))


def test_who_removes_the_folder_can_begin_anew_after_a_stop(
    asked, districts, tmp_path, monkeypatch
):
    for name in ("a.csv", "b.csv"):
        write(districts, tmp_path / "in" / name)
    target = tmp_path / "out"
    stopped(monkeypatch, scoring.storage, "move", 2, str(tmp_path / "in"), str(target), asked)
    shutil.rmtree(target)
    assert predict(str(tmp_path / "in" / "b.csv"), str(target), asked=asked).rows == 50


def test_what_was_put_there_after_a_stop_is_not_taken_for_our_own(
    asked, districts, tmp_path, monkeypatch
):
    source, target = write(districts, tmp_path / "in" / "a.csv"), tmp_path / "out"
    stopped(monkeypatch, scoring.storage, "move", 1, str(source.parent), str(target), asked)
    shutil.rmtree(target)
    own = write(districts, target / "a.csv")
    assert "was not written by" in refused(source.parent, target, asked)
    assert own.exists()
    alone = tmp_path / "alone.csv"
    stopped(monkeypatch, scoring.storage, "move", 1, str(source), str(alone), asked)
    own = write(districts, tmp_path / "alone.csv.quarantine.csv")
    assert "alone.csv.quarantine.csv" in refused(source, alone, asked)
    own.unlink()
    assert predict(str(source), str(alone), asked=asked).scored == 50


def test_predictions_for_a_file_of_the_same_name_elsewhere_are_not_replaced(
    asked, districts, tmp_path
):
    first, second = (write(districts.head(n), tmp_path / str(n) / "a.csv") for n in (20, 30))
    target = tmp_path / "out"
    predict(str(first.parent), str(target), asked=asked)
    assert "would be lost: a.csv" in refused(second.parent, target, asked)
    write(districts.head(10), first)  # the same request, of a file that has changed
    assert predict(str(first.parent), str(target), asked=asked).rows == 10


def stopped(monkeypatch, module, name, number, source, target, asked):
    """Score until the call of that number, when somebody presses Ctrl-C."""
    calls, function = [], getattr(module, name)

    def called(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, called)
        with pytest.raises(KeyboardInterrupt):
            predict(source, target, asked=asked)


def test_a_name_is_told_without_the_folders_above_it(asked, districts, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(districts, tmp_path / "deep" / "in.csv")
    monkeypatch.chdir(tmp_path)
    scored = predict("deep/in.csv", "out.csv", asked=asked)
    text = Path(scored.manifest).read_text()
    assert json.loads(text)["files"][0]["source"]["name"] == "in.csv"
    assert str(tmp_path) not in text


def test_a_model_that_is_not_compiled_says_the_same(asked, store, districts, tmp_path):
    plain = Answering(identity_of(store), PlainModel(store.registered.model))
    source = write(districts, tmp_path / "in.csv")
    slow, fast = (
        pd.read_csv(predict(str(source), str(tmp_path / f"{name}.csv"), asked=one).target)
        for name, one in (("slow", plain), ("fast", asked))
    )
    pd.testing.assert_frame_equal(slow, fast, rtol=1e-5)


def test_a_file_of_bad_rows_alone_is_in_quarantine_whoever_is_asked(
    asked, store, districts, tmp_path
):
    plain = Answering(identity_of(store), PlainModel(store.registered.model))
    source = write(districts.assign(Latitude=99.0), tmp_path / "in.csv")
    for name, one in (("slow", plain), ("fast", asked)):
        scored = predict(str(source), str(tmp_path / f"{name}.csv"), asked=one)
        assert (scored.rows, scored.scored) == (50, 0)


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


def test_rows_longer_than_the_header_are_quarantined_and_not_shifted(asked, districts, tmp_path):
    source = write(districts.drop(columns="note"), tmp_path / "in.csv")
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0], *(f"0,{line}" for line in lines[1:])]))
    scored = predict(str(source), str(tmp_path / "out.csv"), asked=asked)
    assert scored.quarantined == scored.rows == 50
