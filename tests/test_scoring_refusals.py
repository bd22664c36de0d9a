"""What cannot be scored is refused as a whole, and nothing is written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored import refused, write

from housing_lib import scoring, targets
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


def months(districts, folder):
    """A folder of three files."""
    for number in (1, 2, 3):
        write(districts.head(4), folder / f"2026-0{number}.csv")
    return folder


@pytest.mark.parametrize("taken", ["2026-02.csv", "_quarantine/2026-03.csv.csv"])
def test_no_file_of_a_folder_is_replaced_that_predict_did_not_write(
    asked, districts, tmp_path, taken
):
    source, own = months(districts, tmp_path / "months"), tmp_path / "results" / taken
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert f"was not written by `housing predict`: {own}." in refused(
        source, tmp_path / "results", asked
    )


def test_many_files_that_are_in_the_way_are_counted(asked, districts, tmp_path):
    source = months(districts, tmp_path / "months")
    write(districts.head(4), source / "2026-04.csv")
    for path in [*source.iterdir()]:
        write(districts, tmp_path / "results" / path.name)
    assert "2026-03.csv and 1 more." in refused(source, tmp_path / "results", asked)


def test_an_attempt_that_moved_nothing_is_no_proof_of_whose_a_file_is(
    asked, districts, tmp_path, monkeypatch
):
    source, target = months(districts, tmp_path / "months"), tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            scoring.predict(str(source), str(target), asked=asked)
    write(districts, target / "2026-02.csv")
    assert "was not written by" in refused(source, target, asked)


def stop(*_):
    """Like a user's Ctrl-C."""
    raise KeyboardInterrupt


def test_no_input_is_overwritten_by_the_predictions_of_another(asked, districts, tmp_path):
    write(districts.head(3), tmp_path / "d" / "b.csv")
    deep = write(districts.head(4), tmp_path / "d" / "a" / "b.csv")
    before = deep.read_bytes()
    assert f"is the input itself: {deep}." in refused(tmp_path / "d", deep.parent, asked)
    assert deep.read_bytes() == before


def test_predictions_for_other_files_are_not_removed(asked, districts, tmp_path):
    source, target = months(districts, tmp_path / "months"), tmp_path / "scored"
    scoring.predict(str(source / "2026-01.csv"), str(target), asked=asked)
    text = refused(source / "2026-02.csv", target, asked)
    assert "holds predictions for other files, which would be lost: 2026-01.csv." in text
    assert scoring.predict(str(source), str(target), asked=asked).rows == 12


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": [{"source": 1}]}'])
def test_a_damaged_manifest_is_named(asked, districts, tmp_path, content):
    source, target = write(districts, tmp_path / "in.csv"), tmp_path / "out.csv"
    manifest = Path(scoring.predict(str(source), str(target), asked=asked).manifest)
    manifest.write_text(content)
    text = refused(source, target, asked)
    assert text.startswith(f"{manifest} is damaged")
    assert "remove it together with them" in text


def test_a_folder_of_predictions_that_is_a_file_is_refused(asked, districts, tmp_path):
    source = write(districts, tmp_path / "in.csv")
    (tmp_path / "scored").touch()
    assert "is a file, and" in refused(source, tmp_path / "scored", asked)


def test_a_lock_that_cannot_be_taken_is_named(asked, districts, tmp_path, monkeypatch):
    source = write(districts, tmp_path / "in.csv")
    monkeypatch.setattr(targets.tempfile, "gettempdir", lambda: str(source))
    assert "somebody else's file" in refused(source, tmp_path / "out.csv", asked)


def test_reasons_of_before_that_stand_among_other_columns_are_refused(asked, districts, tmp_path):
    source = write(districts.assign(quarantined_at="line 3"), tmp_path / "in.csv")
    assert "would take: quarantined_at" in refused(source, tmp_path / "out.csv", asked)


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
    with pytest.raises(
        DataError, match=r"in\.parquet cannot be read as parquet: .+Expected a whole"
    ):
        scoring.predict(str(source), str(tmp_path / "out.parquet"), asked=asked)
    assert not (tmp_path / "out.parquet").exists()
    assert [one.name for one in tmp_path.rglob("*")] == ["in.parquet"]


def test_a_target_that_another_writes_is_refused_by_whatever_name(asked, districts, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    source = write(districts, tmp_path / "in.csv")
    with targets.alone(str(tmp_path / "real" / "out.csv")):
        for folder in ("real", "link"):
            text = refused(source, tmp_path / folder / "out.csv", asked)
            assert "being written by another `housing predict`" in text


def test_a_file_that_came_while_rows_were_scored_is_not_replaced(
    asked, districts, tmp_path, monkeypatch
):
    """As that of another process, which writes one file of the folder that this one writes."""
    source, target = months(districts, tmp_path / "months"), tmp_path / "scored"
    score = scoring._receipts

    def meanwhile(*arguments):
        receipts = score(*arguments)
        one = str(target / "2026-02.csv")
        scoring.predict(str(source / "2026-01.csv"), one, asked=asked)
        return receipts

    monkeypatch.setattr(scoring, "_receipts", lambda *a: (monkeypatch.undo(), meanwhile(*a))[1])
    with pytest.raises(DataError, match=r"not written by `housing predict`: .*2026-02\.csv"):
        scoring.predict(str(source), str(target), asked=asked)
    assert len(list(target.glob("*.csv"))) == 1
