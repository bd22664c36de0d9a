"""Runs that there are: found, compared, resumed, and removed with what they left in MLflow."""

import json
import os
import platform
import time

import psutil
import pytest

from housing_lib import comparison, housekeeping, pipeline, runs, store, tracked_runs
from housing_lib.graph import Plan
from housing_lib.settings import get_settings


def test_a_run_and_itself_do_not_differ(tiny_done):
    one = runs.find("first-run")
    assert comparison.compare(one, one) == []


def test_what_differs_between_two_runs_is_told_by_kind(tiny_done):
    changed = tiny_done.three(first=["reports.record(x=2)"], second=["reports.record(x=2.5)"])
    changed[2].parameters = {"seen": "new"}
    pipeline.run_steps("second-run", Plan((), 0, jobs=2), changed)
    one, other = runs.find("first-run"), runs.find("second-run")
    other.content["data_digest"] = "abc"
    found = comparison.compare(one, other)
    told = {(row.kind, row.name): (row.old, row.new) for row in found}
    assert told[("data", "digest")] == ("", "abc")
    assert told[("parameter", "seen")][1] == "new"
    assert ("code", "notebook of first") in told
    assert ("code", "notebook of beside") not in told


def test_old_runs_are_removed_but_never_what_production_came_from(tiny_done, monkeypatch, housing):
    reports = get_settings().reports
    for number in range(4):
        folder = reports / f"2026-01-0{number + 1}_000000"
        folder.mkdir()
        champion = {"version": number, "metrics": {}}
        content = {"state": "done", "started": f"2026-01-0{number + 1}", "steps": []}
        content |= {"champion": champion, "seconds": 1.0}
        content["steps"] = [{"id": "evaluation", "state": "done", "origin": folder.name}]
        (folder / "run.json").write_text(json.dumps(content))
    monkeypatch.setattr(store, "version_in", lambda stage: 1)
    old = housekeeping.removable(keep=2)
    assert [run.id[:10] for run in old] == ["2026-01-03", "2026-01-01"]
    housekeeping.remove(old)
    left = sorted(path.parent.name[:10] for path in reports.glob("*/run.json"))
    assert left == ["2026-01-02", "2026-01-04", "first-run"]


@pytest.mark.usefixtures("empty_store")
def test_mlflow_runs_go_with_old_runs_unless_something_rests_on_them(tiny):
    logs = "from housing_lib import tracking"
    begin = 'with tracking.run("tuning", "x", params={}, tags={"pipeline_run": '
    trial = "tracking.log_trial(run, Trial(0, {}, {'val_rmse': 1.0}, 'complete', 1.0), family='x')"
    sources = [
        f"{logs}\nfrom housing_lib.trials import Trial\n"
        f"{begin}seen}}) as run:\n    {trial}\n    tracking.log_table(seen_table, 'x')"
    ]
    table = "import pandas as pd\nseen_table = pd.DataFrame({'a': [1]})"
    for run in ("first-run", "second-run", "third-run"):
        step = tiny.make("logs", table, *sources, parameters={"seen": run})
        step.forced = True
        pipeline.run_steps(run, Plan((), 0), [step])
    assert [len(trials) for trials in tracked_runs.runs_of("first-run").values()] == [1]
    old = housekeeping.removable(keep=1)
    doomed = housekeeping.removable_mlflow_runs(old)
    assert {run.id for run in old} == {"first-run", "second-run"}
    assert len(doomed) == 4
    files = get_settings().artifacts.rglob("x.csv")
    assert len(list(files)) == 3
    housekeeping.remove(old, doomed)
    assert len(list(get_settings().artifacts.rglob("x.csv"))) == 1
    assert tracked_runs.runs_of("first-run") == tracked_runs.runs_of("second-run") == {}
    assert len(tracked_runs.runs_of("third-run")) == 1


def test_a_store_that_does_not_answer_keeps_all_runs(tiny_done, own_root):
    (own_root / "mlflow.db").write_text("no database")
    with pytest.raises(store.StoreError, match="does not answer"):
        housekeeping.removable(keep=1)


def test_a_run_is_found_by_the_beginning_of_its_id_and_refused_by_others(tiny_done):
    assert runs.find("first").id == runs.find("latest").id == "first-run"
    with pytest.raises(runs.RunError, match=r"there is no run 'third'\. Found: first-run"):
        runs.find("third")


def test_nothing_to_resume_is_said(tiny_done):
    with pytest.raises(runs.RunError, match="nothing to resume: there is no run yet"):
        pipeline.resume()


def test_who_holds_the_root_is_told_as_far_as_it_is_known(tiny_done, monkeypatch):
    folder = get_settings().reports / "first-run"
    monkeypatch.setattr(runs.PastRun, "is_alive", True)
    (folder / runs.PROCESS_FILE).write_text(json.dumps({"pid": 7, "host": "far"}))
    told = runs._who_holds()
    assert "held by run first-run (?), process 7 of ? on far since ?." in told
    (folder / runs.PROCESS_FILE).unlink()  # it ended in the meantime
    assert "another run that just starts" in runs._who_holds()


def test_the_time_of_a_run_goes_on_while_it_lives_although_nothing_happens(tiny_done, monkeypatch):
    path = get_settings().reports / "first-run" / "run.json"
    content = json.loads(path.read_text()) | {"state": "running", "seconds": 5.0}
    content["steps"][0] |= {"state": "running", "seconds": 3.0}
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() - 60,) * 2)
    (run,) = runs.past_runs()
    assert run.record["state"] == "killed"
    assert runs.summary(run)["seconds"] == 5.0
    monkeypatch.setattr(runs.PastRun, "is_alive", True)
    assert run.record["seconds"] == pytest.approx(65, abs=5)
    assert runs.summary(run)["seconds"] == pytest.approx(65, abs=5)
    running, *done = run.record["steps"]
    assert running["seconds"] == pytest.approx(63, abs=5)
    assert done == content["steps"][1:]


def test_a_step_whose_notebook_has_no_number_is_followed_too(tiny_done):
    folder = get_settings().reports / "first-run"
    content = json.loads((folder / "run.json").read_text())
    content |= {"state": "running", "steps": [{"id": "foo", "state": "running"}]}
    (folder / "run.json").write_text(json.dumps(content))
    process = psutil.Process()
    alive = {"pid": process.pid, "created": process.create_time(), "host": platform.node()}
    (folder / runs.PROCESS_FILE).write_text(json.dumps(alive))
    assert runs.is_running(runs.find("first-run"), folder / "foo.log")


@pytest.mark.parametrize("address", ["foo://x", "./mlruns", "file:///nowhere/mlruns"])
def test_an_address_that_is_no_stores_is_said_to_be_wrong(own_root, monkeypatch, address):
    monkeypatch.setenv("HOUSING_TRACKING_URI", address)
    get_settings.cache_clear()
    with pytest.raises(store.StoreAddressError, match="HOUSING_TRACKING_URI names another"):
        store.version_in("production")
