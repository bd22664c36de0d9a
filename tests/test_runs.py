"""Runs that are killed, stopped, out of time or disk: the record stays true, no process stays."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from housing_lib import pipeline, store, tracking
from housing_lib.files import file_digest
from housing_lib.graph import FINISHED, Plan, Step
from housing_lib.journal import Journal, Run
from housing_lib.settings import get_settings

# A run of small steps in a process of its own, which imports no more than they need.
SCRIPT = """
import json, sys
from housing_lib import pipeline, processes, run_commands, runs
from housing_lib.graph import Plan, Step
from housing_lib.journal import new_id
from housing_lib.errors import HousingError

# The first of them spares the others a slow import.
SMALL = ["housing_lib.quick_schemas", "ipykernel.kernelapp", "papermill", "nbconvert"]
processes._context().set_forkserver_preload(SMALL)
run_commands.end_like_ctrl_c()
plan, steps, wait = json.loads(sys.argv[1])
try:
    with runs.holding_root(wait=wait):
        done = pipeline.run_steps(new_id(), Plan(**plan), [Step(**step) for step in steps])
except HousingError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
sys.exit(done.exit_code)
"""


def prepare(limit: tuple[int, tuple[int, int]]) -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(*limit)


@pytest.fixture
def start(own_root):
    """A function that starts a process which runs steps; it is killed at the end of the test."""
    started = []

    def begin(steps: list[Step], *, wait: bool = False, most_bytes: int | None = None, **plan):
        kept = ("name", "notebook", "parameters", "after")
        told = [{name: getattr(step, name) for name in kept} for step in steps]
        given = json.dumps([{"models": [], "trials": 0, "jobs": 2, **plan}, told, wait])
        limit = (resource.RLIMIT_FSIZE, (most_bytes or -1, most_bytes or -1))
        with (own_root / "said.txt").open("a") as said:
            command = [sys.executable, "-c", SCRIPT, given]
            process = subprocess.Popen(
                command, stdout=said, stderr=said, preexec_fn=lambda: prepare(limit)
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def records(root: Path) -> list[dict]:
    """What each `run.json` holds, oldest first; each must be whole at any moment."""
    return [json.loads(path.read_text()) for path in sorted(root.glob("reports/2*/run.json"))]


def states(root: Path) -> dict[str, str]:
    known = records(root)
    return {step["id"]: step["state"] for step in known[-1]["steps"]} if known else {}


def processes_of(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOUSING_ROOT") == str(root):
                found.append(process)
    return [one for one in found if one.pid != os.getpid() and one.is_running()]


def wait_for(condition, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def until(file: Path) -> str:
    """The source of a cell that waits until there is a file, for two minutes at most."""
    return (
        "import pathlib, time\n"
        "end = time.monotonic() + 120\n"
        f"while not pathlib.Path({str(file)!r}).exists() and time.monotonic() < end:\n"
        "    time.sleep(0.05)"
    )


def slow(tiny) -> list[Step]:
    """Five steps of about a second, three of them in a row."""
    sleep = "import time; time.sleep(0.5)"
    return [
        tiny.make("a", sleep),
        tiny.make("b", sleep, after=["a"]),
        tiny.make("c", sleep, after=["b"]),
        tiny.make("d", sleep),
        tiny.make("e", sleep),
    ]


def ours(root: Path) -> list[psutil.Process]:
    """Processes of a root beside the fork server of the tests, which lives as long as they do."""
    own = {one.pid for one in psutil.Process().children(recursive=True)}
    return [one for one in processes_of(root) if one.pid not in own]


def test_a_run_that_is_killed_at_any_moment_goes_on_with_what_is_left(tiny, own_root, start):
    moments = random.Random(4)
    for _ in range(3):
        before = _finished(own_root)
        known = len(records(own_root))
        process = start(slow(tiny))
        wait_for(lambda known=known: len(records(own_root)) > known)
        wait_for(lambda: "running" in states(own_root).values())
        time.sleep(moments.uniform(0, 2.5))
        process.kill()
        process.wait()
        wait_for(lambda: not ours(own_root))
        assert not before & set(tiny.executed)
        _files_are_those_that_were_written(own_root)
    before = _finished(own_root)
    assert start(slow(tiny)).wait(timeout=120) == 0
    assert set(tiny.executed) == {"a", "b", "c", "d", "e"} - before
    assert set(states(own_root).values()) <= set(FINISHED)
    killed = records(own_root)[:-1]
    assert {run["state"] for run in killed} <= {"killed", "done"}
    assert not list(own_root.glob("reports/2*/.*-*"))


def _finished(root: Path) -> set[str]:
    return {
        step["id"] for run in records(root) for step in run["steps"] if step["state"] in FINISHED
    }


def _files_are_those_that_were_written(root: Path) -> None:
    for run in records(root):
        for step in run["steps"]:
            for name, digest in step["files"].items():
                assert file_digest(root / "reports" / run["id"] / name) == digest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_keeps_what_ran_and_leaves_no_process(tiny, own_root, start, number):
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)"
    hang = tiny.make("hang", "print('it ran until here')", child, "import time; time.sleep(60)")
    process = start([tiny.make("quick"), hang, tiny.make("later", after=["hang"])])
    log = "reports/2*/00_hang.log"
    wait_for(lambda: any("cell 5" in path.read_text() for path in own_root.glob(log)))
    wait_for(lambda: states(own_root)["quick"] == "done")
    process.send_signal(number)
    assert process.wait(timeout=20) == 1
    assert states(own_root) == {"quick": "done", "hang": "killed", "later": "skipped"}
    (folder,) = own_root.glob("reports/2*")
    assert "it ran until here" in (folder / "00_hang.ipynb").read_text()
    assert "<title>FAILED" in (folder / "00_hang.html").read_text()
    assert "the run was killed by hand" in (folder / "00_hang.html").read_text()
    (record,) = records(own_root)
    assert record["state"] == "killed"
    reasons = {step["id"]: step["reason"] for step in record["steps"]}
    assert "the run was killed by hand" in reasons["hang"]
    assert reasons["later"].startswith("the run was killed by hand")
    wait_for(lambda: not ours(own_root), timeout_s=10)


def test_time_limits_end_a_step_alone_and_the_run_as_a_whole(tiny, own_root, start):
    hang = tiny.make("hang", "import time; time.sleep(60)")
    step_limit = start([hang, tiny.make("quick")], step_timeout_s=2)
    assert step_limit.wait(timeout=120) == 1
    assert states(own_root) == {"hang": "failed", "quick": "done"}
    assert "took longer than 2 seconds" in records(own_root)[-1]["steps"][0]["reason"]
    run_limit = start([hang, tiny.make("quick")], timeout_s=3)
    assert run_limit.wait(timeout=120) == 1
    assert states(own_root) == {"hang": "killed", "quick": "reused"}
    assert "the run took longer than 3 seconds" in records(own_root)[-1]["steps"][0]["reason"]
    wait_for(lambda: not ours(own_root), timeout_s=10)


def test_a_file_that_cannot_be_written_fails_its_step_and_is_not_there(tiny, own_root, start):
    big = tiny.make("big", "print('x' * 400_000)")
    process = start([big, tiny.make("small")], most_bytes=300_000)
    assert process.wait(timeout=120) == 1
    assert states(own_root) == {"big": "failed", "small": "done"}
    (folder,) = own_root.glob("reports/2*")
    assert not (folder / "00_big.ipynb").exists()
    assert "File too large" in records(own_root)[-1]["steps"][0]["reason"]


def test_a_record_that_cannot_be_written_stops_the_run_and_says_what_to_do(tiny, own_root, start):
    process = start(slow(tiny), most_bytes=600)
    assert process.wait(timeout=120) == 1
    said = (own_root / "said.txt").read_text()
    assert "RunStoppedError" in said
    assert "Nothing was kept. Make room, then give the same command again." in said
    wait_for(lambda: not ours(own_root), timeout_s=10)
    assert not list(own_root.glob("reports/2*"))


def test_two_runs_at_once_the_second_is_told_who_holds_the_root_or_waits(
    tiny, own_root, start, housing
):
    told = own_root / "told"
    first = start([tiny.make("long", until(told))])
    wait_for(lambda: states(own_root).get("long") == "running")
    waiting = start([tiny.make("next")], wait=True)
    refused = housing(own_root, "run", "--models", "ridge", "--trials", "1")
    assert refused.returncode == 2
    holder = records(own_root)[0]["id"]
    assert f"is held by run {holder}" in refused.stderr
    assert f"process {first.pid}" in refused.stderr
    assert "--wait" in refused.stderr
    assert len(records(own_root)) == 1
    told.touch()
    assert first.wait(timeout=120) == 0
    assert waiting.wait(timeout=120) == 0
    assert states(own_root) == {"next": "done"}


def test_another_terminal_sees_how_far_a_run_is_and_what_a_step_prints(
    tiny, own_root, start, housing
):
    file = own_root / "told"
    process = start([tiny.make("talk", f"print('FIRST')\n{until(file)}\nprint('LAST')")])
    logs = "reports/2*/00_talk.log"
    wait_for(lambda: any("FIRST" in path.read_text() for path in own_root.glob(logs)))
    told = json.loads(housing(own_root, "status", "--json").stdout)
    assert told["state"] == "running"
    assert told["steps"][0]["cell"] == [4, 5, "Tiny"]
    command = [Path(sys.executable).with_name("housing"), "logs", "-f", "talk"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert "FIRST\n" in following.stdout
        file.touch()
        assert "LAST\n" in following.stdout
    assert process.wait(timeout=120) == 0


@pytest.mark.usefixtures("empty_store")
def test_runs_that_mlflow_still_believes_open_are_closed_as_killed(tiny):
    opened = [
        "from housing_lib import tracking",
        "mine = tracking.run('tuning', 'open', params={}, tags={'pipeline_run': 'the-run'})",
        "parent = mine.__enter__()",
        "tags = {'mlflow.parentRunId': parent}",
        "child = tracking.client().create_run(tracking.experiment_id('tuning'), tags=tags)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ]
    done = pipeline.run_steps("the-run", Plan((), 0), [tiny.make("dies", *opened)])
    assert "its process ended" in done.steps["dies"].reason
    found = tracking.client().search_runs([tracking.experiment_id("tuning")])
    assert [run.info.status for run in found] == ["KILLED", "KILLED"]
    assert not store.has_open_runs("the-run")


def test_eight_at_once_on_a_fresh_store_do_not_disturb_each_other(tiny):
    log = "with tracking.run('tuning', 'race', params={'a': 1}, tags={}): pass"
    sources = "from housing_lib import tracking", log
    steps = [tiny.make(f"race{number}", *sources) for number in range(8)]
    done = pipeline.run_steps("races", Plan((), 0, jobs=8), steps)
    assert {step.id: step.reason for step in steps if step.state != "done"} == {}
    assert done.exit_code == 0
    found = tracking.client().search_runs([tracking.experiment_id("tuning")])
    assert [run.info.status for run in found] == ["FINISHED"] * 8


def test_events_tell_a_run_line_by_line(tiny_done):
    folder = get_settings().reports / "first-run"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "run"
    assert events[-1] | {"time": ""} == {
        "event": "run",
        "run": "first-run",
        "state": "done",
        "time": "",
    }
    ends = {event["step"]: event["state"] for event in events if event["event"] == "step"}
    assert ends == {"first": "done", "second": "done", "beside": "done"}
    cells = [event for event in events if event["event"] == "cell"]
    assert {event["heading"] for event in cells} == {"Tiny"}


def test_the_record_is_written_when_something_changes_and_not_otherwise(own_root):
    current = Run("x", Plan((), 0), {"a": Step("a")})
    current.folder.mkdir(parents=True)
    journal = Journal(current)
    journal.keep()
    written = (current.folder / "run.json").stat().st_mtime_ns
    journal.keep()
    assert (current.folder / "run.json").stat().st_mtime_ns == written
    current.steps["a"].state = "running"
    journal.keep()
    assert (current.folder / "run.json").stat().st_mtime_ns > written
