"""A file that is no table is refused in the house's words, whoever reads it."""

import gzip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from housing_lib import data, records, sources, unreadable
from housing_lib.data import FEATURES, DataError

HEADER = ",".join([*FEATURES, "MedHouseVal"])
ROW = "8.3,41,7,1,322,2.5,37.9,-122.2,4.5"
CSV = f"{HEADER}\n{ROW}\n{ROW.replace('4.5', '3')}\n"
CARRIAGE = CSV.replace("\n", "\r")


class Keys(encryption.KmsClient):
    """Keys that are kept nowhere."""

    def __init__(self, _):
        super().__init__()

    def wrap_key(self, key_bytes, _):
        """The key as text."""
        return key_bytes.hex().encode()


def table(**changed):
    """The two districts as an Arrow table, some columns changed."""
    rows = pd.DataFrame([list(map(float, ROW.split(",")))] * 2, columns=HEADER.split(","))
    columns = {name: pa.array(rows[name]) for name in rows} | changed
    return pa.table(columns)


def not_utf8():
    """Two texts that are none."""
    _, ends, values = pa.array([b"\xff", b"\xfe"]).buffers()
    return pa.StringArray.from_buffers(2, ends, values)


def write_encrypted(path, *, plaintext_footer):
    """A Parquet file with an encrypted column, and perhaps an encrypted footer."""
    keys = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["MedInc"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(Keys)
    hidden = factory.file_encryption_properties(encryption.KmsConnectionConfig(), keys)
    with pq.ParquetWriter(path, table().schema, encryption_properties=hidden) as file:
        file.write_table(table())


def read_all(path):
    """All rows as `housing predict` reads them."""
    source = sources.survey(str(path), str(path.parent))
    return [one for part in source.parts for one in records.read(part, as_table=True)]


@pytest.mark.parametrize("read", [read_all, data.read_table])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (CSV.encode("utf-16"), "it is text in UTF-16"),
        (CSV.encode("utf-16-le"), "its first line holds NUL bytes"),
        (gzip.compress(CSV.encode()), "it is compressed by gzip"),
        (CSV.replace("MedInc", "MédInc").encode("latin-1"), "its text is no UTF-8"),
        (CSV.replace(",", ";").encode(), "found columns separated by semicolons; expected commas"),
        (CSV.replace(",", "\t").encode(), "found columns separated by tabs; expected commas"),
        (b'"' + CSV.encode(), "a quote (is|that is) never closed"),
    ],
)
def test_a_csv_file_that_is_no_table_is_told_what_it_is(tmp_path, content, why, read):
    (tmp_path / "in.csv").write_bytes(content)
    expected = rf"in\.csv cannot be read as csv: .*{why}.*\. Expected text in UTF-8.*Nothing was"
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "in.csv")


@pytest.mark.parametrize("read", [read_all, data.read_table])
@pytest.mark.parametrize(
    ("content", "why"), [(b"", "it is empty"), (b"ARROW1" + bytes(50), "it was cut off, or is")]
)
def test_a_parquet_file_that_is_none_is_told_what_it_is(tmp_path, content, why, read):
    (tmp_path / "in.parquet").write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot be read as parquet: {why}.*\. Expected a whole"):
        read(tmp_path / "in.parquet")


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_told_so(tmp_path, plaintext_footer):
    write_encrypted(tmp_path / "in.parquet", plaintext_footer=plaintext_footer)
    with pytest.raises(DataError, match=r"parquet: it is encrypted\. .* needs no key"):
        data.read_table(tmp_path / "in.parquet")


def test_texts_that_are_none_are_found_by_whoever_reads_them(tmp_path):
    pq.write_table(table(MedInc=not_utf8()), tmp_path / "in.parquet")
    with pytest.raises(DataError, match="its text is no UTF-8"):
        data.read_table(tmp_path / "in.parquet")


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (not_utf8(), "its text is no UTF-8"),
        (pa.array([2**31 - 1] * 2, pa.date32()), "a date lies beyond the years"),
        (pa.array([2**62] * 2, pa.timestamp("us")), "a date lies beyond the years"),
        (pa.array([1, 2], pa.timestamp("us", "Mars/Base")), "nobody knows its time zone"),
    ],
)
def test_a_column_that_cannot_become_text_is_named_with_its_file(tmp_path, column, why):
    pq.write_table(table(note=column), tmp_path / "in.parquet")
    (batch,) = read_all(tmp_path / "in.parquet")
    with pytest.raises(DataError, match=rf"in\.parquet: column note .*as text: {why}"):
        records.as_texts(batch)


def test_columns_of_the_same_name_are_named_by_the_contract(tmp_path):
    twice = table().append_column("MedInc", pa.array([1.0, 2.0]))
    pq.write_table(twice, tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"MedInc +column stands there twice"):
        data.acquire(str(tmp_path / "in.parquet"))


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.duration("us")])
def test_times_are_no_numbers(tmp_path, kind):
    pq.write_table(table(HouseAge=pa.array([1, 2], kind)), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"HouseAge +2 values not a number"):
        data.acquire(str(tmp_path / "in.parquet"))


def test_names_and_values_are_shown_in_one_line(tmp_path):
    (tmp_path / "in.csv").write_text(CSV.replace("MedInc", '"Med\nInc"').replace("41", "4\x1b1"))
    with pytest.raises(DataError) as caught:
        data.acquire(str(tmp_path / "in.csv"))
    assert r"is it 'Med\nInc'?" in str(caught.value)
    assert r"first in row 0 (4\x1b1)" in str(caught.value)
    with pytest.raises(DataError, match=r"is it 'Med\\nInc'\?"):
        read_all(tmp_path / "in.csv")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (f'"{ROW}\n{ROW}\n', "a quote is never closed"),
        (f"{'1' * 200_000},1\n", "a value has more than 131072 characters"),
    ],
)
def test_a_row_that_is_none_is_told_why(tmp_path, row, why):
    (tmp_path / "in.csv").write_text(CSV + row)
    (batch,) = read_all(tmp_path / "in.csv")
    assert batch.faults == {2: [why]}


def test_lines_that_end_in_carriage_returns_alone_are_told_so(tmp_path):
    (tmp_path / "in.csv").write_text(CARRIAGE, newline="")
    with pytest.raises(DataError, match="a carriage return stands alone"):
        sources.survey(str(tmp_path / "in.csv"), str(tmp_path))


def test_a_first_line_without_an_end_is_no_pair_of_columns(tmp_path):
    (tmp_path / "in.csv").write_text(",".join(f"c{one}" for one in range(200_000)))
    with pytest.raises(DataError, match=r"its first line exceeds 1,000,000 bytes"):
        sources.survey(str(tmp_path / "in.csv"), str(tmp_path))


@pytest.mark.parametrize("read", [sources.survey, data.read_table])
def test_what_the_system_refuses_is_no_fault_of_the_file(tmp_path, monkeypatch, read):
    path = tmp_path / "one.csv"
    path.write_text(CSV)
    given = (path,) if read is data.read_table else (str(path), str(tmp_path))

    def refuse(head):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(unreadable, "refuse_other_text", refuse)
    with pytest.raises(DataError, match=r"Permission denied\. Nothing was"):
        read(*given)


def test_damaged_notes_of_pandas_are_told_as_that(tmp_path):
    path = tmp_path / "one.parquet"
    pq.write_table(table().replace_schema_metadata({"pandas": "{}"}), path)
    with pytest.raises(DataError, match="what pandas noted in it is damaged"):
        data.read_table(path)
