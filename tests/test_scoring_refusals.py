"""What cannot be scored is refused as a whole, and nothing is written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored import refused, write

from housing_lib import scoring
from housing_lib.data import FEATURES, DataError


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


def test_a_file_that_predict_did_not_write_is_not_replaced(asked, districts, tmp_path):
    """As `housing predict *.csv` would, where the shell finds two files."""
    first = write(districts, tmp_path / "a.csv")
    second = write(districts, tmp_path / "b.csv")
    assert "was not written by" in refused(first, second, asked)


def test_many_files_do_not_go_into_one(asked, districts, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        write(districts, tmp_path / "in" / name)
    assert "go into a folder" in refused(tmp_path / "in", tmp_path / "out.csv", asked)


def test_all_columns_that_are_missing_are_named_at_once(asked, districts, tmp_path):
    bad = districts.rename(columns={"MedInc": "medinc"}).drop(columns="Latitude")
    text = refused(write(bad, tmp_path / "in.csv"), tmp_path / "out.csv", asked)
    assert "MedInc      missing column; is it 'medinc'?" in text
    assert "Latitude    missing column" in text


def test_a_parquet_file_with_damaged_pages_is_at_fault_itself(asked, districts, tmp_path):
    source = tmp_path / "in.parquet"
    districts.to_parquet(source, compression="snappy", index=False)
    content = bytearray(source.read_bytes())
    content[4:200] = b"\xff" * 196  # the first page; the footer, which tells of it, is whole
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"in\.parquet is damaged: .+Expected a whole Parquet"):
        scoring.predict(str(source), str(tmp_path / "out.parquet"), asked=asked)
    assert not (tmp_path / "out.parquet").exists()
    assert [one.name for one in tmp_path.rglob("*")] == ["in.parquet"]
