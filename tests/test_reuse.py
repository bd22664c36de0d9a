"""What was done before is taken, with the reason shown; what changed is done again."""

import json

import pytest

from housing_lib import graph, pipeline, runs, store
from housing_lib.graph import Plan, Selection, Step, StepError
from housing_lib.journal import Run, new_id
from housing_lib.settings import get_settings


def run(steps: list[Step], *, jobs: int = 2, **limits) -> Run:
    return pipeline.run_steps(new_id(), Plan((), 0, jobs=jobs, **limits), steps)


def states(done: Run) -> dict[str, str]:
    return {step.id: step.state for step in done.steps.values()}


def test_a_second_run_executes_nothing_and_holds_all_files(tiny_done):
    second = run(tiny_done.three())
    assert tiny_done.executed == []
    assert set(states(second).values()) == {"reused"}
    assert second.exit_code == 0
    for step in second.steps.values():
        assert step.reason == "as in run first-run"
        for suffix in (".ipynb", ".html", ".log"):
            assert (second.folder / f"{step.file_stem}{suffix}").exists()
    assert run(tiny_done.three()).steps["first"].origin == "first-run"


def test_force_runs_everything_and_knows_how_long_it_took_before(tiny_done):
    again = run(graph.select(tiny_done.three(), Selection(force=True)))
    assert set(states(again).values()) == {"done"}
    assert len(tiny_done.executed) == 3
    assert all(step.expected_s > 0 for step in again.steps.values())


def test_a_changed_cell_reruns_its_step_and_what_it_records_decides_the_rest(tiny_done):
    again = run(tiny_done.three(first=["1 + 1"]))
    assert tiny_done.executed == ["first"]
    assert again.steps["first"].why == "changed since run first-run: code"
    assert states(again)["second"] == "reused"


def test_other_words_write_the_page_again_and_execute_nothing(tiny_done):
    again = run(tiny_done.three(words="# Quite another title"))
    assert tiny_done.executed == []
    assert "written anew" in again.steps["second"].reason
    page = (again.folder / "00_second.html").read_text()
    assert "Quite another title" in page
    assert "FAILED" not in page
    third = run(tiny_done.three(words="# Quite another title"))
    assert third.steps["second"].reason == "as in run first-run"


def test_a_file_that_is_gone_or_was_changed_is_made_again(tiny_done):
    folder = get_settings().reports / "first-run"
    (folder / "00_beside.ipynb").write_text("{}")
    (folder / "00_first.ipynb").unlink()
    again = run(tiny_done.three())
    assert sorted(tiny_done.executed) == ["beside", "first"]
    assert "missing or was changed" in again.steps["beside"].why


def test_data_that_were_written_since_are_made_again(tiny):
    file = get_settings().processed / "a.npz"
    file.parent.mkdir(parents=True)
    write = f"from pathlib import Path; Path({str(file)!r}).write_text('1')"

    def writer() -> Step:
        return tiny.make("writer", write, writes=["processed"])

    run([writer()])
    assert states(run([writer()])) == {"writer": "reused"}
    file.write_text("2")
    again = run([writer()])
    assert states(again) == {"writer": "done"}
    assert "the processed data are not those of run" in again.steps["writer"].why


@pytest.mark.usefixtures("empty_store")
def test_a_result_without_its_run_in_the_store_is_made_again(tiny):
    for _ in range(2):
        again = run([tiny.make("logs", recorded={"mlflow_run": "0123"})])
        assert states(again) == {"logs": "done"}
    assert "its MLflow run 0123 is not in the store" in again.steps["logs"].why


def test_a_damaged_record_of_a_run_is_taken_for_nothing(tiny_done):
    (get_settings().reports / "first-run" / "run.json").write_text('{"id": ')
    with pytest.raises(runs.RunError, match=r"no run that can be read \(.*first-run/run.json"):
        runs.find("latest")
    assert set(states(run(tiny_done.three())).values()) == {"done"}


def test_after_a_failure_only_what_is_not_finished_runs_again(tiny_done):
    failed = run(tiny_done.three(first=["reports.record(x=2); 1 / 0"]))
    assert states(failed) == {"first": "failed", "second": "skipped", "beside": "reused"}
    assert failed.exit_code == 1
    mended = run(tiny_done.three())
    assert tiny_done.executed == ["first"]
    assert set(states(mended).values()) == {"reused"}


def test_from_runs_a_step_and_all_that_follow_it(tiny_done):
    chosen = graph.select(tiny_done.three(), Selection(start="first"))
    assert states(run(chosen)) == {"first": "done", "second": "done", "beside": "reused"}
    assert tiny_done.executed == ["first", "second"]


def test_only_runs_one_step_on_what_is_there(tiny_done):
    chosen = graph.select(tiny_done.three(), Selection(only=["second"]))
    pipeline.refuse_impossible(chosen)
    assert states(run(chosen)) == {"first": "reused", "second": "done"}
    assert tiny_done.executed == ["second"]


def test_only_is_refused_where_what_it_needs_is_not_there(tiny):
    chosen = graph.select(tiny.three(), Selection(only=["second"]))
    with pytest.raises(StepError, match="first: no earlier run of it is kept") as error:
        pipeline.refuse_impossible(chosen)
    assert "--from first" in str(error.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tuning", ["tuning-ridge", "tuning-lasso"]),
        ("tuning-lasso", ["tuning-lasso"]),
        ("03_tuning-lasso", ["tuning-lasso"]),
        ("04_evaluation", ["evaluation"]),
    ],
)
def test_steps_are_chosen_by_name_variant_or_notebook(name, found):
    steps = graph.make_steps(Plan(["ridge", "lasso"], 1), "run")
    chosen = graph.select(steps, Selection(only=[name]))
    assert [step.id for step in chosen if step.forced] == found


def test_a_step_that_is_none_is_refused_with_the_nearest_name():
    steps = graph.make_steps(Plan(["ridge"], 1), "run")
    with pytest.raises(StepError, match="Did you mean 'tuning-ridge'"):
        graph.select(steps, Selection(only=["tuning-rigde"]))


def test_a_run_says_what_its_steps_were_made_of(tiny_done):
    content = json.loads((get_settings().reports / "first-run" / "run.json").read_text())
    (first, *_) = content["steps"]
    assert {"code", "lock file", "python", "module reports"} <= set(first["made_of"])
    assert len(first["key"]) == 16


def resumable(monkeypatch, tiny, **broken):
    """Runs of the graph are runs of the three small steps from here on."""
    monkeypatch.setattr(pipeline, "make_steps", lambda plan, run: tiny.three(**broken))


@pytest.mark.parametrize(
    ("choice", "before", "after"),
    [
        (Selection(only=["second"]), {"first": "reused"}, ["second"]),
        (Selection(start="second"), {"first": "reused", "beside": "reused"}, ["second"]),
        (Selection(force=True), {"first": "done", "beside": "done"}, ["second"]),
    ],
)
def test_a_resumed_run_does_what_it_was_asked_for_and_no_more(
    tiny_done, monkeypatch, choice, before, after
):
    resumable(monkeypatch, tiny_done, second=["1 / 0"])
    failed = pipeline.run(Plan(("ridge",), 0), choice=choice)
    assert states(failed) == before | {"second": "failed"}
    told = {name: failed.steps[name].reason for name in before}
    _ = tiny_done.executed
    resumable(monkeypatch, tiny_done)
    done = pipeline.resume()
    assert tiny_done.executed == after
    assert states(done) == before | {"second": "done"}
    assert {name: done.steps[name].reason for name in before} == told
    assert int(done.started) == int(failed.started)
    assert done.seconds > failed.seconds


def test_a_promotion_that_is_taken_says_what_stands_now(own_root, tiny, monkeypatch):
    def promoted():
        decided = {"decision": "promoted", "version": 3, "reason": "better"}
        return [tiny.make("promotion", recorded=decided)]

    first = run(promoted())
    monkeypatch.setattr(store, "version_in", lambda stage: 3)
    assert run(promoted()).steps["promotion"].record["decision"] == "promoted"
    monkeypatch.setattr(store, "version_in", lambda stage: 2)
    taken = run(promoted()).steps["promotion"]
    assert taken.state == "reused"
    assert "decision" not in taken.record
    assert taken.record["reason"].startswith(
        f"run {first.id} promoted version 3, and version 2 stands in Production now"
    )


def test_what_a_resumed_step_prints_is_not_written_into_another_runs_log(tiny_done):
    log = get_settings().reports / "first-run" / "00_beside.log"
    taken = run(tiny_done.three())
    before = log.read_text()
    assert (taken.folder / log.name).samefile(log)
    steps = tiny_done.three()
    steps[2] = tiny_done.make("beside", "print('anew')")
    pipeline.run_steps(taken.id, Plan((), 0), steps)
    assert log.read_text() == before
    assert "anew" in (taken.folder / log.name).read_text()
