"""The contract of a district, its sources and the split."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data
from housing_lib.settings import PROJECT


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire("bundled")


def test_the_bundled_file_holds_all_districts_of_the_census(districts):
    assert districts.shape == (20_640, 9)
    assert list(districts.columns) == list(data.CONTRACT)
    assert data.capped(districts[data.TARGET]).sum() == 965
    assert data.duplicates(districts) == 0


def test_prices_at_the_limit_are_told_from_higher_ones_and_from_the_round_one_below():
    prices = np.array([5.0, data.PRICE_CAP, np.float32(data.PRICE_CAP), 5.001, 20])
    assert data.capped(prices).tolist() == [False, True, True, False, False]


def test_the_first_row_is_the_one_that_scikit_learn_documents(districts):
    first = [8.3252, 41.0, 6.98412698, 1.02380952, 322.0, 2.55555556, 37.88, -122.23, 4.526]
    assert districts.iloc[0].to_numpy() == pytest.approx(first)


def test_a_changed_bundled_file_is_refused(monkeypatch, tmp_path):
    changed = tmp_path / "california_housing.csv"
    changed.write_text("MedInc\n1\n")
    monkeypatch.setattr(type(data.get_settings()), "raw_csv", property(lambda self: changed))
    with pytest.raises(data.DataError, match=r"found +[0-9a-f]{64}\n +expected SHA-256"):
        data.acquire("bundled")


def test_every_source_passes_the_same_contract(districts, tmp_path):
    for name, write in {"own.csv": "to_csv", "own.parquet": "to_parquet"}.items():
        getattr(districts, write)(tmp_path / name, index=False)
        pd.testing.assert_frame_equal(data.acquire(str(tmp_path / name)), districts)


def test_columns_may_stand_in_any_order(districts):
    turned = districts[districts.columns[::-1]]
    pd.testing.assert_frame_equal(data.check(turned), districts)


def test_all_problems_are_named_at_once(districts):
    broken = districts.head(10).rename(columns={"Latitude": "latitude"}).astype(object)
    broken.loc[3, "MedInc"] = -1
    broken.loc[4, "AveRooms"] = "six"
    broken.loc[5, data.TARGET] = None
    with pytest.raises(data.DataError) as caught:
        data.check(broken, origin="own.csv")
    text = str(caught.value)
    assert "own.csv breaks the contract (5 problems in 10 rows)" in text
    assert "Latitude    missing column; is it 'latitude'?" in text
    assert "latitude    column not in the contract" in text
    assert "MedInc      1 value below 0, first in row 3 (-1); expected 0 to 20" in text
    assert "AveRooms    1 value not a number, first in row 4 (six)" in text
    assert "MedHouseVal 1 value missing, first in row 5" in text
    assert "Rows are counted from 0" in text
    assert "Nothing was written" in text


def test_missing_features_are_allowed_and_counted(districts):
    holed = districts.head(10).copy()
    holed.loc[2, "AveRooms"] = np.nan
    assert data.summarise(data.check(holed)).loc["AveRooms", "missing"] == 1


def test_infinite_values_and_empty_tables_break_the_contract(districts):
    endless = districts.head(2).copy()
    endless.loc[1, "Population"] = np.inf
    with pytest.raises(data.DataError, match="Population  1 value above"):
        data.check(endless)
    with pytest.raises(data.DataError, match="no rows") as caught:
        data.check(districts.head(0))
    assert "Rows are counted" not in str(caught.value)


def test_a_repeated_column_is_refused(districts):
    twice = pd.concat([districts.head(3), districts.head(3)[["MedInc"]]], axis=1)
    with pytest.raises(data.DataError, match="MedInc      column stands there twice"):
        data.check(twice)
    notes = districts.head(3).assign(note=1)
    notes = notes[[*notes.columns, "note"]]
    assert len(data.check(notes, extra_columns=True)) == 3
    with pytest.raises(data.DataError, match="note        column not in the contract"):
        data.check(notes)


def test_a_table_that_was_written_with_its_index_is_told_so(districts, tmp_path):
    districts.head(3).to_csv(tmp_path / "own.csv")
    with pytest.raises(data.DataError, match=r"\(unnamed\) +column .* written with its index\?"):
        data.acquire(str(tmp_path / "own.csv"))


def test_whole_numbers_of_any_length_break_the_contract(districts, tmp_path):
    for digits in (400, 5_000):
        long = districts.head(3).astype({"Population": int}).astype(object)
        long.loc[1, "Population"] = "1" * digits
        long.to_csv(tmp_path / "own.csv", index=False)
        with pytest.raises(data.DataError, match=r"Population  1 value .*first in row 1"):
            data.acquire(str(tmp_path / "own.csv"))
        _, faults = data.check_rows(data.read_table(tmp_path / "own.csv"), origin="arrivals")
        assert faults[1].startswith("Population ")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", b"", "cannot be read"),
        ("cut.parquet", b"PAR1 and no more", "cannot be read"),
        ("binary.csv", b"\xff\xfe\x00\x01", "cannot be read"),
        ("table.xlsx", b"", "expected a .csv or .parquet file"),
        ("german.csv", b"MedInc;HouseAge\n8,3;41\n", "separated by semicolons; expected commas"),
        ("tabs.csv", b"MedInc\tHouseAge\n8.3\t41\n", "separated by tabs; expected commas"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(data.DataError, match=reason):
        data.acquire(str(tmp_path / name))


def test_columns_that_pandas_would_rename_or_shift_are_refused(tmp_path):
    names = ",".join(data.CONTRACT)
    (tmp_path / "twice.csv").write_text(f"{names},MedInc\n{'3,' * 9}3\n")
    with pytest.raises(data.DataError, match=r"MedInc +column stands there twice"):
        data.acquire(str(tmp_path / "twice.csv"))
    (tmp_path / "long.csv").write_text(f"{names}\n{'3,' * 9}3\n")
    with pytest.raises(data.DataError, match="rows are longer than the header"):
        data.acquire(str(tmp_path / "long.csv"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(data.DataError, match="there is no such file"):
        data.acquire(str(tmp_path / "none.csv"))
    with pytest.raises(data.DataError, match="expected bundled, sklearn"):
        data.resolve_source(str(tmp_path / "none.csv"))


def test_a_folder_of_parquet_is_one_table(tmp_path, districts):
    folder = tmp_path / "parts.parquet"
    folder.mkdir()
    districts.head(60).to_parquet(folder / "1.parquet", index=False)
    districts.tail(40).to_parquet(folder / "2.parquet", index=False)
    assert len(data.acquire(str(folder))) == 100


def test_bad_rows_are_told_apart_from_good_ones(districts):
    arriving = districts.head(4).astype(object)
    arriving.loc[1, "MedInc"] = "high"
    arriving.loc[2, data.TARGET] = None
    rows, faults = data.check_rows(arriving, origin="arrivals")
    assert list(faults) == ["", "MedInc not a number", "MedHouseVal missing", ""]
    assert np.isnan(rows.loc[1, "MedInc"])


def test_shuffling_moves_no_district_to_another_part(districts):
    order = np.random.default_rng(0).permutation(len(districts))
    assert (data.split(districts)[order] == data.split(districts.iloc[order])).all()


def test_appending_moves_no_district_to_another_part(districts):
    assert (data.split(districts)[:10_000] == data.split(districts.head(10_000))).all()


def test_a_revised_price_keeps_its_district_in_its_part(districts):
    revised = districts.assign(MedHouseVal=1.0)
    assert (data.row_ids(revised) == data.row_ids(districts)).all()


def test_the_shares_are_those_asked_for(districts):
    shares = pd.Series(data.split(districts)).value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.20, abs=0.01)
    assert shares["val"] == pytest.approx(0.16, abs=0.01)


def test_impossible_shares_and_too_few_districts_are_refused(districts):
    with pytest.raises(data.DataError, match="their sum below 1"):
        data.split(districts, test_share=0.9, validation_share=0.2)
    with pytest.raises(data.DataError, match="leave nothing for"):
        data.split(districts.head(2))


def test_the_digest_changes_with_any_value(districts):
    changed = districts.copy()
    changed.loc[0, "MedInc"] = np.nextafter(changed.loc[0, "MedInc"], 99)
    assert data.data_digest(changed) != data.data_digest(districts)


def test_the_data_sheet_agrees_with_the_contract():
    sheet = (PROJECT / "data" / "README.md").read_text()
    for name, column in data.CONTRACT.items():
        line = f"| `{name}` | {column.unit} | {column.meaning}"
        bounds = f"| {column.expected.split(' (')[0]} |"
        assert any(row.startswith(line) and row.endswith(bounds) for row in sheet.splitlines()), (
            name
        )
    assert str(data.PRICE_CAP) in sheet


def test_without_git_the_bundled_file_is_not_restored_and_it_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(data.DataError, match=r"cannot be restored: .*git"):
        data.restore_bundled()


def test_prices_that_are_all_one_break_the_contract_for_nothing_can_be_learned(districts, tmp_path):
    same = districts.head(30).assign(MedHouseVal=2.5)
    same.to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(data.DataError, match=r"MedHouseVal 30 values are all 2\.5; expected"):
        data.acquire(str(tmp_path / "own.csv"))
    assert len(data.check(same.head(1))) == 1
    assert len(data.check(same.drop(columns=data.TARGET), target=False)) == 30
