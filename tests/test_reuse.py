"""What was done before is taken, with the reason shown; what changed is done again."""

import json

import pytest

from housing_lib import graph, pipeline, runs
from housing_lib.graph import Plan, Recorded, Selection, Step, StepError
from housing_lib.settings import get_settings

SEEN = {"seen": Recorded(["first"], "x")}


def make(tiny, *, first=(), second=(), words="# Tiny") -> list[Step]:
    """A step, one that is given what it recorded, and one beside them."""
    return [
        tiny.make("first", *first),
        tiny.make("second", *second, words=words, after=["first"], parameters=SEEN),
        tiny.make("beside"),
    ]


def run(steps: list[Step], *, jobs: int = 1, **limits) -> runs.Run:
    return pipeline.run_steps(runs.new_id(), Plan((), 0, jobs=jobs, **limits), steps)


def states(done: runs.Run) -> dict[str, str]:
    return {step.id: step.state for step in done.steps.values()}


def test_a_second_run_executes_nothing_and_holds_all_files(tiny):
    first = run(make(tiny), jobs=2)
    assert sorted(tiny.executed) == ["beside", "first", "second"]
    second = run(make(tiny))
    assert tiny.executed == []
    assert set(states(second).values()) == {"reused"}
    assert second.exit_code == 0
    for step in second.steps.values():
        assert step.reason == f"as in run {first.id}"
        for suffix in (".ipynb", ".html"):
            assert (second.folder / f"{step.file_stem}{suffix}").exists()
    third = run(make(tiny))
    assert third.steps["first"].origin == first.id
    forced = graph.select(make(tiny), Selection(force=True))
    assert set(states(run(forced)).values()) == {"done"}
    assert len(tiny.executed) == 3


def test_a_changed_cell_reruns_its_step_and_says_so_and_what_it_recorded_decides_the_rest(tiny):
    run(make(tiny))
    tiny.executed  # noqa: B018 (forgets them)
    again = run(make(tiny, first=["1 + 1"]))
    assert tiny.executed == ["first"]
    assert "changed since run" in again.steps["first"].why
    assert again.steps["first"].why.endswith(": code")
    assert states(again)["second"] == "reused"
    changed = make(tiny, first=["reports.record(x=2)"])
    changed[0].parameters = {"seen": "another"}
    run(changed)
    assert tiny.executed == ["first"]


def test_other_words_write_the_page_again_and_execute_nothing(tiny):
    run(make(tiny))
    tiny.executed  # noqa: B018
    again = run(make(tiny, words="# Quite another title"))
    assert tiny.executed == []
    assert "written anew" in again.steps["second"].reason
    page = (again.folder / "00_second.html").read_text()
    assert "Quite another title" in page
    assert "FAILED" not in page
    assert set(states(run(make(tiny, words="# Quite another title"))).values()) == {"reused"}


def test_a_file_that_is_gone_or_was_changed_is_made_again(tiny):
    done = run(make(tiny))
    (done.folder / "00_beside.ipynb").write_text("{}")
    (done.folder / "00_first.ipynb").unlink()
    tiny.executed  # noqa: B018
    again = run(make(tiny))
    assert sorted(tiny.executed) == ["beside", "first"]
    assert "missing or was changed" in again.steps["beside"].why


def test_data_that_were_written_since_are_made_again(tiny):
    folder = get_settings().processed
    write = (
        f"from pathlib import Path; p = Path({str(folder)!r}); p.mkdir(parents=True, exist_ok=True)"
    )
    sources = write, "(p / 'a.npz').write_text('1')"

    def writer() -> Step:
        return tiny.make("writer", *sources, writes=["processed"])

    run([writer()])
    assert states(run([writer()])) == {"writer": "reused"}
    (folder / "a.npz").write_text("2")
    again = run([writer()])
    assert states(again) == {"writer": "done"}
    assert "the processed data are not those of run" in again.steps["writer"].why


def test_a_result_without_its_run_in_the_store_is_made_again(tiny):
    for _ in range(2):
        step = tiny.make("logs", recorded={"mlflow_run": "0123"})
        again = run([step])
        assert states(again) == {"logs": "done"}
    assert "its MLflow run 0123 is not in the store" in again.steps["logs"].why


def test_damaged_records_of_runs_are_passed_over_and_named(tiny):
    done = run(make(tiny))
    for name, text in {"torn": '{"id": ', "list": "[]", "short": "{}"}.items():
        (done.folder.parent / name).mkdir()
        (done.folder.parent / name / "run.json").write_text(text)
    damaged = {}
    known = runs.past_runs(lambda path, why: damaged.update({path.parent.name: why}))
    assert [one.id for one in known] == [done.id]
    assert set(damaged) == {"torn", "list", "short"}
    (done.folder / "run.json").write_text("{")
    assert set(states(run(make(tiny))).values()) == {"done"}


def test_after_a_failure_only_what_is_not_finished_runs_again(tiny):
    failed = run(make(tiny, first=["1 / 0"]))
    assert states(failed) == {"first": "failed", "second": "skipped", "beside": "done"}
    assert failed.exit_code == 1
    tiny.executed  # noqa: B018
    mended = run(make(tiny))
    assert tiny.executed == ["first", "second"]
    assert states(mended)["beside"] == "reused"


def test_from_runs_a_step_and_all_that_follow_it(tiny):
    run(make(tiny))
    tiny.executed  # noqa: B018
    chosen = graph.select(make(tiny), Selection(start="first"))
    assert set(states(run(chosen)).values()) == {"done", "reused"}
    assert tiny.executed == ["first", "second"]


def test_only_runs_one_step_on_what_is_there_and_refuses_what_is_not(tiny):
    nothing_yet = graph.select(make(tiny), Selection(only=["second"]))
    with pytest.raises(StepError, match="first: it has not been run yet") as error:
        pipeline.refuse_impossible(nothing_yet)
    assert "--from first" in str(error.value)
    run(make(tiny))
    tiny.executed  # noqa: B018
    chosen = graph.select(make(tiny), Selection(only=["second"]))
    pipeline.refuse_impossible(chosen)
    done = run(chosen)
    assert states(done) == {"first": "reused", "second": "done"}
    assert tiny.executed == ["second"]


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


def test_a_run_says_what_its_steps_were_made_of_and_how_long_they_took(tiny):
    done = run(make(tiny))
    content = json.loads((done.folder / "run.json").read_text())
    (first, *_) = content["steps"]
    assert {"code", "lock file", "python", "module reports"} <= set(first["made_of"])
    assert len(first["key"]) == 16
    again = graph.select(make(tiny), Selection(force=True))
    assert run(again).steps["first"].expected_s == first["seconds"]
