"""What reads tables may be ended by one of them, and the server goes on."""

import io
import signal
import subprocess
import sys
import threading
import time

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet
from serving import district, problems

from housing_lib.data import FEATURES
from serve import apart, tables
from serve.apart import FATAL, TableReader
from serve.problems import RefusedError

ROW = district()
CSV = (",".join(FEATURES) + "\n" + ",".join(str(ROW[name]) for name in FEATURES)).encode()


def fatal():
    """A Parquet file of a column that is never missing, by its schema, but not by its statistics.

    pyarrow 25 aborts when it looks at them.
    """
    table, sink = pa.table({name: [1.0] for name in FEATURES}), io.BytesIO()
    parquet.write_table(table, sink, compression="none", store_schema=False)
    optional, required = (bytes([0x25, kind, 0x18, 8]) + b"AveRooms" for kind in (2, 0))
    assert sink.getvalue().count(optional) == 1
    return sink.getvalue().replace(optional, required)


@pytest.fixture
def reader():
    made = TableReader(longest=5)
    yield made
    made.end()


def reads(reader):
    """Whether it reads a table."""
    return reader.read(CSV, tables.CSV).tolist() == [[ROW[name] for name in FEATURES]]


def test_one_process_reads_all_tables_and_refuses_what_is_none(reader):
    assert reads(reader)
    first = reader.process.pid
    with pytest.raises(RefusedError) as refused:
        reader.read(b"MedInc,Price\n1,2", tables.CSV)
    assert "HouseAge" in {one.field for one in refused.value.refusal.problems}
    assert reads(reader)
    assert reader.process.pid == first


def test_a_column_of_no_numbers_is_refused_before_its_values_are_read(reader):
    columns = {name: [ROW[name]] for name in FEATURES}
    table = pa.table(columns | {"HouseAge": pa.array([2**62], pa.date64())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(RefusedError) as refused:
        reader.read(sink.getvalue(), tables.ARROW)
    assert refused.value.refusal.problems[0].problem == "not a column of numbers"
    assert refused.value.refusal.problems[0].field == "HouseAge"


def test_it_may_take_no_more_memory_than_a_table_needs(reader):
    assert reads(reader)
    limit = psutil.Process(reader.process.pid).rlimit(psutil.RLIMIT_AS)[1]
    assert 0 < limit < 2 * 1024**3


def test_a_read_that_never_ends_is_ended_also_where_nobody_waits_for_it():
    script = (
        "import time; from serve import apart, tables; apart.LONGEST_S = 0.4;"
        "tables.read_rows = lambda body, kind: time.sleep(60); apart._read(b'', '')"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGALRM


def test_a_table_that_aborts_what_reads_it_is_refused_and_the_next_one_read(reader):
    for _ in range(2):
        with pytest.raises(RefusedError) as refused:
            reader.read(fatal(), tables.PARQUET)
        assert refused.value.refusal.problems == [FATAL]
        assert reader.process.returncode == -signal.SIGABRT
        assert reads(reader)


def test_a_reader_that_was_killed_meanwhile_is_no_fault_of_the_table(reader):
    assert reads(reader)
    reader.process.kill()
    reader.process.wait()
    assert reads(reader)


@pytest.mark.parametrize("rows", [1, 50_000])  # more than the connection holds
def test_what_reads_for_too_long_is_ended(reader, rows):
    assert reads(reader)
    reader.longest = 0.5
    reader.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RefusedError):
        reader.read(CSV * rows, tables.CSV)
    reader.longest = 5
    assert reads(reader)


def test_a_slow_start_is_no_fault_of_the_table(tmp_path, monkeypatch):
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    reader = TableReader(longest=1)
    assert reads(reader)
    reader.end()
    patient = TableReader(longest=20)
    threading.Timer(0.7, lambda: patient.process.kill()).start()
    assert reads(patient)
    patient.end()


def test_what_never_starts_is_no_fault_of_the_table_either(tmp_path, monkeypatch):
    never = tmp_path / "python"
    never.write_text("#!/bin/sh\nexec sleep 60\n")
    never.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(never))
    monkeypatch.setattr(apart, "LONGEST_START_S", 0.5)
    reader = TableReader(longest=0.2)
    with pytest.raises(RuntimeError, match="the process that reads tables ended"):
        reads(reader)
    reader.end()


def test_a_kill_under_a_table_is_no_fault_of_it(reader):
    assert reads(reader)
    reader.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.5, reader.process.kill).start()
    assert reads(reader)


def test_a_table_under_which_it_is_killed_twice_is_refused(reader, monkeypatch):
    killed = []

    def start():
        killed.append(running())
        killed[-1].kill()
        return killed[-1]

    running = reader._running
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_running", start)
        with pytest.raises(RefusedError):
            reader.read(CSV, tables.CSV)
    assert len(killed) == 2
    assert reads(reader)


def test_it_ends_with_the_process_that_started_it():
    script = (
        "import os, sys; from serve.apart import TableReader; one = TableReader();"
        "one.read(sys.stdin.buffer.read(), 'text/csv'); print(one.process.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], input=CSV, stdout=subprocess.PIPE)
    assert ended.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while _runs(int(ended.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_server_goes_on_after_a_table_that_would_abort_it(server):
    kind = {"Content-Type": tables.PARQUET}
    answer = server.post("/predict/batch", content=fatal(), headers=kind)
    assert problems(answer)["(body)"]["found"] == FATAL.found
    assert server.post("/predict", json=ROW).status_code == 200
    answer = server.post("/predict/batch", content=CSV, headers={"Content-Type": tables.CSV})
    assert answer.status_code == 200
    children = psutil.Process(server.process.pid).children()
    assert any("serve.apart" in one.cmdline() for one in children)
