"""The processed folder: written whole, read back whole, or refused."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, features, parts


@pytest.fixture
def folder(own_root):
    """A processed folder made of 500 districts."""
    _write(data.acquire().head(500))
    return own_root / "data" / "processed"


def _write(districts: pd.DataFrame) -> parts.Manifest:
    return parts.write_parts(
        features.preprocess(districts, data.split(districts)),
        source="bundled",
        test_share=0.20,
        validation_share=0.16,
        feature_names=features.feature_names(),
    )


def test_the_files_are_those_of_the_design(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "train_data.npz",
        "val_data.npz",
        "test_data.npz",
        "feature_names.txt",
        "districts.parquet",
        "manifest.json",
    }
    stored = np.load(folder / "train_data.npz")
    assert stored["X"].dtype == np.float64
    assert stored["X"].shape == (len(stored["y"]), len(features.feature_names()))
    assert (folder / "feature_names.txt").read_text().split() == features.feature_names()


def test_parts_come_back_as_they_were_written(folder):
    districts = data.acquire().head(500)
    written = features.preprocess(districts, data.split(districts))
    for name, part in parts.load_parts().items():
        np.testing.assert_array_equal(part.X, written[name].X)
        np.testing.assert_array_equal(part.ids, written[name].ids)
        np.testing.assert_array_equal(part.spread, written[name].spread)
        pd.testing.assert_frame_equal(part.districts, written[name].districts)


def test_a_folder_that_was_never_written_is_refused(own_root):
    with pytest.raises(data.DataError, match="were not preprocessed"):
        parts.load_part("train")


def test_a_folder_of_other_data_than_expected_is_refused(folder):
    assert parts.load_manifest(expected=parts.load_manifest().data_digest)
    with pytest.raises(data.DataError, match=r"expected 0000\. Another run wrote it since"):
        parts.load_manifest(expected="0000")


def test_files_of_other_data_are_refused(folder):
    own = (folder / "train_data.npz").read_bytes()
    _write(data.acquire().tail(600))
    (folder / "train_data.npz").write_bytes(own)
    with pytest.raises(data.DataError, match="They come from different data"):
        parts.load_part("train")


@pytest.mark.parametrize("name", ["train_data.npz", "districts.parquet", "manifest.json"])
def test_a_damaged_file_is_refused(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match=r"damaged|cannot be read"):
        parts.load_part("train")


def test_while_a_folder_is_written_it_has_no_manifest(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(parts.np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        _write(data.acquire().head(500))
    assert not (folder / "manifest.json").exists()
    assert not list(folder.glob(".*"))
