"""Batch prediction keeps what it is given, adds the model's own prices, and never writes a half."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing_lib.data import CONTRACT, FEATURES, DataError
from housing_lib.scoring import ADDED, default_target, predict_file
from housing_lib.settings import get_settings


@pytest.fixture
def districts(store):
    """Fifty districts with an id, a note and a few missing values, in an order of their own."""
    table = store.test[list(reversed(FEATURES))].head(50).reset_index(drop=True)
    table.loc[3, "AveBedrms"] = np.nan
    table.insert(0, "id", [f"{number:05d}" for number in range(50)])
    table["note"] = ["NA", 'with "quotes", and a comma', *[""] * 48]
    return table


def write(table, path):
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def refused(source, target, store):
    """The text of the error, once it is proved that nothing was written."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        predict_file(source, target, registered=store.registered)
    assert sorted(source.parent.rglob("*")) == before
    assert "Nothing was written" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target_suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("source_suffix", [".csv", ".parquet"])
def test_every_format_gives_the_models_own_prices(
    store, districts, tmp_path, source_suffix, target_suffix
):
    source = write(districts, tmp_path / f"in{source_suffix}")
    scored = predict_file(source, tmp_path / f"out{target_suffix}", registered=store.registered)
    out = pd.read_csv(scored.path) if target_suffix == ".csv" else pd.read_parquet(scored.path)
    expected = store.registered.model.predict(districts)
    np.testing.assert_allclose(out["predicted_median_house_value"], expected, atol=1e-6)
    np.testing.assert_allclose(out["predicted_median_house_value_usd"], expected * 1e5, atol=0.01)
    assert set(out["model_version"]) == {store.registered.version} == {scored.model_version}
    assert list(out.columns) == [*districts.columns, *ADDED]
    assert scored.rows == 50
    np.testing.assert_array_equal(out[list(FEATURES)], districts[list(FEATURES)])


def test_a_csv_comes_back_character_for_character(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    out = predict_file(source, tmp_path / "out.csv", registered=store.registered).path
    for before, after in zip(
        source.read_text().splitlines(), out.read_text().splitlines(), strict=True
    ):
        assert after.startswith(f"{before},")


def test_a_csv_keeps_its_ids_as_text_and_its_prices_as_numbers_in_a_parquet_file(
    store, districts, tmp_path
):
    source = write(districts.assign(MedHouseVal=1.5), tmp_path / "in.csv")
    out = predict_file(source, tmp_path / "out.parquet", registered=store.registered).path
    table = pd.read_parquet(out)
    assert list(table["id"]) == list(districts["id"])
    assert (table["MedHouseVal"] == 1.5).all()


def test_a_parquet_file_keeps_its_types_and_its_index(store, districts, tmp_path):
    whole = districts.assign(count=pd.array([None, *range(49)], dtype="Int64")).set_index("id")
    whole.to_parquet(tmp_path / "in.parquet")
    out = predict_file(
        tmp_path / "in.parquet", tmp_path / "out.parquet", registered=store.registered
    ).path
    columns = pd.read_parquet(out, dtype_backend="pyarrow")
    assert str(columns["count"].dtype) == "int64[pyarrow]"
    assert list(columns["id"]) == list(districts["id"])


def test_missing_values_are_imputed_and_stay_missing_in_the_output(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    out = predict_file(source, tmp_path / "out.csv", registered=store.registered).path
    table = pd.read_csv(out)
    assert np.isnan(table["AveBedrms"][3])
    assert np.isfinite(table["predicted_median_house_value"]).all()


def test_an_earlier_output_is_replaced(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    target = tmp_path / "out.csv"
    target.write_text("old")
    assert predict_file(source, target, registered=store.registered).rows == 50
    assert len(pd.read_csv(target)) == 50


def test_predictions_go_to_their_own_folder_by_default():
    target = default_target(Path("elsewhere/new.parquet"))
    assert target == get_settings().predictions / "new_predictions.parquet"


def test_all_problems_of_a_table_are_named_at_once(store, districts, tmp_path):
    bad = districts.rename(columns={"MedInc": "medinc"}).astype({"HouseAge": object})
    bad.loc[7, "HouseAge"] = "old"
    bad.loc[9, "Latitude"] = 52.5
    text = refused(write(bad, tmp_path / "in.csv"), tmp_path / "out.csv", store)
    assert "MedInc      missing column; is it 'medinc'?" in text
    assert "HouseAge    1 value not a number, first in row 7 (old)" in text
    assert f"above {CONTRACT['Latitude'].high:g}, first in row 9" in text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("in.csv", b"", "empty"),
        ("in.csv", b"\xff\xfe\x00,1\n", "cannot be read as csv"),
        ("in.parquet", b"PAR1 cut off", "cannot be read as parquet"),
        ("in.xlsx", b"PK", "expected a .csv or .parquet file"),
        ("in.csv", ",".join(FEATURES).encode() + b"\n", "no rows"),
    ],
)
def test_a_file_that_is_no_table_is_refused(store, tmp_path, name, content, expected):
    source = tmp_path / name
    source.write_bytes(content)
    assert expected in refused(source, tmp_path / "out.csv", store)


def test_a_truncated_parquet_file_is_refused(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.parquet")
    source.write_bytes(source.read_bytes()[:-100])
    assert "cannot be read as parquet" in refused(source, tmp_path / "out.csv", store)


def test_a_missing_file_is_refused(store, tmp_path):
    assert "no such file" in refused(tmp_path / "none.csv", tmp_path / "out.csv", store)


def test_a_row_longer_than_the_header_is_refused_and_not_shifted(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0], *(f"0,{line}" for line in lines[1:])]))
    assert "rows are longer than the header" in refused(source, tmp_path / "out.csv", store)


def test_a_column_that_stands_there_twice_is_refused(store, districts, tmp_path):
    source = write(districts.assign(again=1.0), tmp_path / "in.csv")
    source.write_text(source.read_text().replace("again", "MedInc", 1))
    assert "columns twice: MedInc" in refused(source, tmp_path / "out.csv", store)


def test_a_column_that_the_predictions_would_take_is_refused(store, districts, tmp_path):
    source = write(districts.assign(model_version=3), tmp_path / "in.csv")
    assert "would take: model_version" in refused(source, tmp_path / "out.csv", store)


def test_the_input_is_never_overwritten(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    before = source.read_bytes()
    (tmp_path / "link.csv").symlink_to(source)
    assert "is the input itself" in refused(source, tmp_path / "link.csv", store)
    assert source.read_bytes() == before


def test_an_unknown_ending_of_the_target_is_refused(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    assert ".csv or .parquet" in refused(source, tmp_path / "out.txt", store)


def test_a_target_that_cannot_be_written_is_an_error_of_its_own(store, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    assert "cannot be written" in refused(source, source / "out.csv", store)
