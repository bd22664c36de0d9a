"""A long prediction goes on where it was, and comes to the same bytes wherever it is made."""

import multiprocessing
import random
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from object_stores import running_store
from scored import write

from housing_lib import scoring, sources, storage
from housing_lib.data import DataError
from housing_lib.files import file_digest
from housing_lib.scoring import predict


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


@pytest.mark.usefixtures("small_parts")
def test_a_quote_within_a_value_opens_nothing(asked, many, tmp_path, monkeypatch):
    many["note"] = ['two\n"lines"\n\n\n', "pipe", *[""] * 3] * (len(many) // 5)
    source = write(many, tmp_path / "in.csv")
    source.write_text(source.read_text().replace("pipe", '5" pipe', 7))
    cut = predict(str(source), str(tmp_path / "cut.csv"), asked=asked)
    assert cut.rows == 600
    monkeypatch.setattr(sources, "PART_BYTES", 1 << 30)
    whole = predict(str(source), str(tmp_path / "whole.csv"), asked=asked)
    assert Path(cut.target).read_bytes() == Path(whole.target).read_bytes()


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


def test_what_others_keep_in_an_object_store_is_not_replaced(asked, many, tmp_path, object_store):
    for name in ("a.csv", "b.csv"):
        path = write(many, tmp_path / name)
        object_store.put(path, f"own/{name}")
    for name in ("b.csv", "_quarantine/a.csv.csv"):
        object_store.put(path, f"results/{name}")
    names = "s3://housing/results/_quarantine/a.csv.csv, s3://housing/results/b.csv"
    for source in ("s3://housing/own", "s3://housing/own/*.csv"):
        with pytest.raises(DataError, match=re.escape(f"`housing predict`: {names}.")):
            predict(source, "s3://housing/results", asked=asked)


def test_an_object_store_that_is_away_is_no_fault_of_the_file(asked, many, tmp_path, object_store):
    name = object_store.put(write(many, tmp_path / "in.csv"), "away/in.csv")
    found = sources.survey(name, "")
    object_store.stop()
    for read in (lambda: sources.survey(name, ""), lambda: b"".join(storage.blocks(name))):
        with pytest.raises(storage.StorageError, match="cannot be read or written"):
            read()
    object_store.start()
    assert sources.survey(name, "") == found


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
