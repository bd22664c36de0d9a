"""A file of the spool belongs to whoever holds its lock, and to nobody once that one is gone."""

import os
import subprocess
import sys
from contextlib import closing

import pytest
from log_rows import rows

from serve import spool
from serve.spool import Spool

WRITER = """
import sys, log_rows
from pathlib import Path
from serve.spool import Spool
one = Spool(Path(sys.argv[1]))
assert one.append(log_rows.rows("theirs"))
print(flush=True)
input()
"""


@pytest.fixture
def ours(tmp_path):
    """A spool of this process."""
    with closing(Spool(tmp_path)) as made:
        yield made


def taken(one):
    """The ids of all rows that a spool gives, each of which it forgets."""
    found = []
    for file in one.finished():
        found += [row[0] for row in file.read()]
        one.forget(file)
    return found


@pytest.fixture
def writer(tmp_path):
    """Another process, which has added a row to the same folder and may add more."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_file_is_left_to_who_writes_it_until_that_process_is_killed(ours, writer):
    assert taken(ours) == []
    assert not ours.is_empty
    writer.kill()
    writer.wait()
    assert taken(ours) == ["theirs"]
    assert ours.is_empty


def test_a_file_of_a_number_that_another_process_has_now_is_nobodys(ours, tmp_path):
    with closing(Spool(tmp_path)) as before:
        assert before.append(rows("left"))
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / f"spool-{os.getppid()}-1.jsonl")
    assert taken(ours) == ["left"]


def test_a_file_of_a_second_server_with_the_number_of_this_one_is_left_to_it(ours, tmp_path):
    """As of two containers on one folder, both of which are process 1."""
    with closing(Spool(tmp_path)) as second:
        assert second.append(rows("first"))
        assert taken(ours) == []
        assert second.append(rows("second"))
        assert taken(second) == ["first", "second"]


def test_what_one_takes_over_nobody_else_takes_meanwhile(ours, tmp_path):
    with closing(Spool(tmp_path)) as gone:
        assert gone.append(rows("left"))
    with closing(Spool(tmp_path)) as other:
        for file in ours.finished():
            assert taken(other) == []
            ours.forget(file)
        assert taken(other) == []
    assert ours.is_empty


def test_a_new_file_that_is_taken_for_an_orphan_loses_no_row(ours, tmp_path, monkeypatch):
    """Between the moment when it is made and the one when it is locked."""
    lock, cleaned = spool.fcntl.flock, []

    def flock(file, how):
        if not cleaned:
            cleaned.append(file)
            with closing(Spool(tmp_path)) as other:
                assert taken(other) == []
        lock(file, how)

    monkeypatch.setattr(spool.fcntl, "flock", flock)
    assert ours.append(rows("kept"))
    assert cleaned
    assert [file.stat().st_size > 0 for file in tmp_path.iterdir()] == [True]
    assert taken(ours) == ["kept"]


def test_a_file_that_is_removed_by_hand_is_made_anew(ours, tmp_path):
    assert ours.append(rows("removed"))
    for file in tmp_path.iterdir():
        file.unlink()
    assert ours.rows == 1
    assert not ours.is_empty
    assert ours.append(rows("kept"))
    ours.close()
    with closing(Spool(tmp_path)) as following:
        assert taken(following) == ["kept"]


@pytest.mark.parametrize("line", [b'["half a li', b"[]", b"{}", b"\xff", b'["id", 3, 1]'])
def test_a_line_that_is_no_row_costs_no_other_one(ours, tmp_path, line):
    with closing(Spool(tmp_path)) as gone:
        assert gone.append(rows("left"))
    (file,) = tmp_path.iterdir()
    with file.open("ab") as cut:
        cut.write(line)
    assert taken(ours) == ["left"]


def test_lines_that_are_lost_are_told_of_once_and_when_they_are(ours, tmp_path, caplog):
    (tmp_path / "spool-1.jsonl").write_bytes(b"[]\n{}\n")
    for _ in range(3):
        assert [file.read() for file in ours.finished()] == [[]]
    assert not caplog.text
    taken(ours)
    assert caplog.text.count("2 lines were no rows") == 1


def test_a_disk_that_fails_halfway_costs_no_row_that_it_takes_later(ours, monkeypatch):
    class Failing:
        """A file that takes half of what is written, and cannot be cut."""

        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, content):
            return self._file.write(content[: len(content) // 2])

        def truncate(self, size):
            raise OSError("input/output error")

    assert ours.append(rows("before"))
    monkeypatch.setattr(ours._open, "_opened", Failing(ours._open._opened))
    assert not ours.append(rows("half"))
    assert ours.append(rows("after"))
    assert taken(ours) == ["before", "after"]


def test_a_disk_that_is_full_for_long_leaves_one_file(ours, tmp_path, monkeypatch):
    def fsync(number):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool.os, "fsync", fsync)
        assert not any(ours.append(rows("refused")) for _ in range(30))
    assert ours.append(rows("kept"))
    assert len(list(tmp_path.iterdir())) == 1
    assert taken(ours) == ["kept"]


def test_a_database_that_comes_and_goes_leaves_no_file_for_each_time(ours, tmp_path):
    for number in range(20):
        assert ours.append(rows(str(number)))
        with closing(ours.finished()) as files:
            next(files)  # and the database refuses it
    assert len(list(tmp_path.iterdir())) <= 2
    assert taken(ours) == [str(number) for number in range(20)]


def test_where_no_file_can_be_locked_none_is_left_and_it_is_told_once(
    ours, tmp_path, monkeypatch, caplog
):
    def flock(*given):
        raise OSError("no locks available")

    monkeypatch.setattr(spool.fcntl, "flock", flock)
    assert [ours.append(rows("one")) for _ in range(3)] == [False] * 3
    assert list(tmp_path.iterdir()) == []
    assert caplog.text.count("no locks available") == 1
