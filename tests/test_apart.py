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
from serving import district, problems

from housing_lib.data import FEATURES
from serve import tables
from serve.apart import TableReader
from serve.problems import RefusedError

# A Parquet file whose statistics of sizes are cut: pyarrow 25 aborts when its metadata are read.
FATAL = bytes.fromhex(
    "504152311500151c151c2c15021500150615061c1808000000000000f83f1808000000000000f83f1600"
    "2808000000000000f83f1808000000000000f83f1111000000020000000201000000000000f83f150419"
    "2c35001806736368656d61150200150a2602180161001602191c191c26001c150a192506001918016115"
    "001602169a01169a0126083c1808000000000000f83f1808000000000000f83f16002808000000000000"
    "f83f1808000000000000f83f111100191c150015001502003c290619260002000000169a011602260816"
    "9a01002820706172717565742d6370702d6172726f772076657273696f6e2032352e302e31191c1c0000"
    "00ac00000050415231"
)
ROW = district()
CSV = (",".join(FEATURES) + "\n" + ",".join(str(ROW[name]) for name in FEATURES)).encode()


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


def test_a_date_that_no_calendar_has_is_refused(reader):
    columns = {name: [ROW[name]] for name in FEATURES}
    table = pa.table(columns | {"HouseAge": pa.array([2**62], pa.date64())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(RefusedError) as refused:
        reader.read(sink.getvalue(), tables.ARROW)
    assert refused.value.refusal.problems[0].problem == "cannot be read"


def test_a_table_that_aborts_what_reads_it_is_refused_and_the_next_one_read(reader):
    for _ in range(2):
        with pytest.raises(RefusedError) as refused:
            reader.read(FATAL, tables.PARQUET)
        assert refused.value.refusal.problems
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


def test_a_kill_under_a_table_refuses_it(reader):
    assert reads(reader)
    reader.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.5, reader.process.kill).start()
    with pytest.raises(RefusedError):
        reader.read(CSV, tables.CSV)
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
    answer = server.post("/predict/batch", content=FATAL, headers={"Content-Type": tables.PARQUET})
    assert "(body)" in problems(answer)
    assert server.post("/predict", json=ROW).status_code == 200
    answer = server.post("/predict/batch", content=CSV, headers={"Content-Type": tables.CSV})
    assert answer.status_code == 200
    children = psutil.Process(server.process.pid).children()
    assert any("serve.apart" in one.cmdline() for one in children)
