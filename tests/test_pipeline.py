"""`housing run`, end to end on the real data, and what happens when a part fails."""

import json
import re
import sqlite3
import time

import nbformat
import pytest
from threadpoolctl import threadpool_limits

from housing_lib import data, families, graph, parts, pipeline, promotion, steps, tracking, tuning
from housing_lib.accuracy import METRICS
from housing_lib.graph import Plan, Step
from housing_lib.journal import Run
from housing_lib.ledger import Decision
from housing_lib.settings import get_settings

LINEAR = {"linear_regression", "lasso", "ridge", "elastic_net"}
BOOSTED = {"gradient_boosting", "xgboost"}


def test_a_smoke_run_finishes_every_step(smoke):
    assert smoke.exit_code == 0, smoke.printed
    assert smoke.record["state"] == "done"
    states = {(step["name"], step["variant"]): step["state"] for step in smoke.record["steps"]}
    tuned = {variant for name, variant in states if name == "tuning"}
    assert tuned == set(families.FAMILIES)
    assert set(states.values()) == {"done"}


def test_it_prints_where_the_report_is_and_how_to_serve(smoke):
    assert str(smoke.folder / "index.html") in smoke.printed.replace("\n", "")
    assert "make serve" in smoke.printed
    assert "Traceback" not in smoke.printed


def test_the_numbers_are_those_of_a_working_system(smoke):
    errors = _validation_errors(smoke)
    assert errors["xgboost"] < 0.50
    assert max(errors[name] for name in BOOSTED) < min(errors[name] for name in LINEAR)
    assert smoke.record["champion"]["metrics"]["test_r2"] > 0.80


def test_the_champion_is_the_lowest_validation_error_and_stands_in_production(smoke):
    errors = _validation_errors(smoke)
    champion = smoke.record["champion"]
    assert champion["family"] == min(errors, key=errors.get)
    assert champion["decision"] == "promoted"


def test_the_same_seed_gives_the_same_numbers_in_the_notebook_and_in_the_library(
    smoke_store, tmp_path, monkeypatch
):
    train, val = parts.load_part("train"), parts.load_part("val")
    experiment = tracking.experiment_id("tuning")
    children = tracking.client().search_runs([experiment], max_results=1000)
    monkeypatch.setenv("HOUSING_ROOT", str(tmp_path))  # where no search is kept yet
    get_settings.cache_clear()
    trials, growth = graph.BUDGETS["smoke"].trials, graph.BUDGETS["smoke"].growth
    for family in ("xgboost", "ridge"):
        with threadpool_limits(1):  # as in the run: sums are taken in the same order
            search = tuning.tune(family, train, val, n_trials=trials, growth=growth, seed=42)
        tried = [trial.metrics["val_rmse"] for trial in search.trials]
        logged = [
            run.data.metrics["val_rmse"]
            for run in children
            if run.data.tags.get("family") == family and "mlflow.parentRunId" in run.data.tags
        ]
        assert sorted(tried) == sorted(logged)


def _validation_errors(smoke) -> dict[str, float]:
    steps = [step for step in smoke.record["steps"] if step["name"] == "tuning"]
    return {step["variant"]: step["record"]["val_rmse"] for step in steps}


def test_every_step_with_a_notebook_leaves_a_page_and_the_executed_notebook(smoke):
    for step in smoke.record["steps"]:
        if step["name"] == "promotion":
            continue
        assert re.fullmatch(r"\d\d_[a-z]+(-[a-z_]+)?\.html", step["report"])
        page = smoke.folder / step["report"]
        assert page.stat().st_size < 3_000_000
        executed = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
        assert all(cell.get("execution_count") for cell in executed.cells if _is_code(cell))


def _is_code(cell) -> bool:
    return cell.cell_type == "code" and bool(cell.source)


def test_the_index_leads_to_every_page_and_tells_who_won(smoke):
    index = (smoke.folder / "index.html").read_text()
    for step in smoke.record["steps"]:
        assert step["report"] is None or f'href="{step["report"]}"' in index
    champion = smoke.record["champion"]
    assert champion["title"] in index
    assert f"${champion['metrics']['test_rmse'] * 100_000:,.0f}" in index
    assert (smoke.root / "reports" / "latest" / "index.html").exists()


def test_mlflow_holds_every_trial_below_its_family(smoke_store):
    runs = tracking.client().search_runs([tracking.experiment_id("tuning")], max_results=1000)
    parents = {run.info.run_id: run for run in runs if run.data.tags.get("role") == "search"}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.data.tags["family"] for run in parents.values()} == set(families.FAMILIES)
    assert len(children) == len(families.FAMILIES) * graph.BUDGETS["smoke"].trials
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == set(parents)
    finished = [run for run in children if run.info.status == "FINISHED"]
    names = [f"{part}_{metric}" for part in ("train", "val") for metric in METRICS]
    assert all(set(names) <= set(run.data.metrics) for run in finished)
    assert all(run.data.params for run in finished)
    artifacts = {file.path for file in tracking.client().list_artifacts(next(iter(parents)))}
    assert {"figures", "tables", "model.joblib"} <= artifacts


def test_monitoring_logged_one_run_with_a_step_a_batch(smoke, smoke_store):
    (run,) = tracking.client().search_runs([tracking.experiment_id("monitoring")])
    steps = tracking.client().get_metric_history(run.info.run_id, "num_valid_rows_in_batch")
    (recorded,) = [step for step in smoke.record["steps"] if step["name"] == "monitoring"]
    assert len(steps) == recorded["record"]["batches"]
    assert sum(step.value for step in steps) == recorded["record"]["valid_rows"]
    assert recorded["record"]["fitted"] == 0
    assert run.data.tags["model_version"] == "1"
    assert run.data.tags["state"] == recorded["record"]["verdict"]["state"] == "quiet"


def test_a_second_monitoring_takes_a_file_and_counts_rows_that_were_fitted_on(smoke, tmp_path):
    """The first rows of the census lie around one bay, which is no sample of California."""
    data.acquire().head(2_000).to_parquet(tmp_path / "new.parquet")
    done = smoke.housing("monitor", str(tmp_path / "new.parquet"), "--batch-rows", "100", "--act")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Alarm: " in done.stdout
    assert "No retraining: " in done.stdout
    newest = sorted((smoke.root / "reports").glob("2*/run.json"))[-1]
    (step,) = json.loads(newest.read_text())["steps"]
    assert step["record"]["batches"] == 20
    assert step["record"]["fitted"] > 1_500
    assert step["record"]["verdict"]["state"] == "alarm"


def test_a_failed_notebook_leaves_its_page_marked_failed(own_root):
    step = Step("preprocessing", notebook="02_preprocessing.ipynb", parameters={"test_share": 2.0})
    run = pipeline.run_steps("x", Plan((), 0), [step])
    assert run.state == step.state == "failed"
    assert "their sum below 1" in step.reason
    assert "FAILED" in (run.folder / "02_preprocessing.html").read_text()
    assert not list(own_root.glob("data/processed/*"))


def test_every_later_step_is_bound_to_the_data_of_this_run(smoke):
    for name in ("03_tuning-ridge", "04_evaluation"):
        book = nbformat.read(smoke.folder / f"{name}.ipynb", as_version=4)
        (cell,) = [
            one for one in book.cells if "injected-parameters" in one.metadata.get("tags", [])
        ]
        assert f'data_digest = "{smoke.record["data_digest"]}"' in cell.source


def test_one_failing_step_leaves_the_others_finished(own_root, tmp_path):
    good = _notebook(
        tmp_path / "good.ipynb", "from housing_lib import reports", "reports.record(x=1)"
    )
    bad = _notebook(tmp_path / "bad.ipynb", "raise ValueError('no such thing')")
    steps = [
        Step("bad", notebook=bad),
        Step("good", notebook=good),
        Step("after-bad", notebook=good, after=["bad"]),
        Step("after-any", notebook=good, after=["bad", "good"], needs_all=False),
    ]
    run = pipeline.run_steps("x", Plan((), 0, jobs=2), steps)
    assert {step.id: step.state for step in steps} == {
        "bad": "failed",
        "good": "done",
        "after-bad": "skipped",
        "after-any": "done",
    }
    assert "ValueError: no such thing" in run.steps["bad"].reason
    assert run.record_of("good") == {"x": 1}
    assert run.exit_code == 1


def test_a_kernel_that_dies_fails_its_step_alone(own_root, tmp_path):
    dead = _notebook(
        tmp_path / "dead.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = pipeline.run_steps("x", Plan((), 0), [Step("dead", notebook=dead)])
    assert run.steps["dead"].state == "failed"
    assert "its process ended" in run.steps["dead"].reason


def test_a_killed_run_is_resumed_in_its_own_folder_with_what_is_left(
    tmp_path, housing, start_housing
):
    data.acquire().sample(1_500, random_state=0).to_parquet(tmp_path / "some.parquet")
    asked = ["--budget", "smoke", "--models", "ridge", "--trials", "40", "--source", "some.parquet"]
    process = start_housing(tmp_path, "run", *asked)
    logs = "reports/2*/03_tuning-ridge.log"
    _wait_for(lambda: any("trial   3" in path.read_text() for path in tmp_path.glob(logs)))
    process.kill()
    process.wait()
    told = json.loads(housing(tmp_path, "status", "--json").stdout)
    assert told["state"] == "killed"
    assert not {"running", "waiting"} & {step["state"] for step in told["steps"]}
    done = housing(tmp_path, "run", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("reports/2*")
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "done"
    assert record["id"] == told["id"]
    assert " preprocessing              running" not in done.stdout
    assert " tuning-ridge               running" in done.stdout
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        states = dict(store.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall())
    assert "RUNNING" not in states
    assert states["KILLED"] >= 1
    refused = housing(tmp_path, "run", "--resume")
    assert refused.returncode == 2
    assert "nothing to resume" in refused.stderr


def _wait_for(condition, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def test_a_second_run_executes_no_notebook_and_starts_no_process(smoke):
    done = smoke.housing("run", "--budget", "smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " running " not in done.stdout
    newest = sorted(smoke.root.glob("reports/2*/run.json"))[-1]
    record = json.loads(newest.read_text())
    assert {step["state"] for step in record["steps"]} == {"reused"}
    assert all(f"as in run {smoke.record['id']}" in step["reason"] for step in record["steps"])
    assert record["champion"] == smoke.record["champion"]
    for step in record["steps"]:
        assert step["report"] is None or (newest.parent / step["report"]).exists()


def test_a_secret_of_the_environment_is_nowhere_in_what_a_run_leaves(smoke):
    kept = [path for path in smoke.root.rglob("*") if path.is_file()]
    assert len(kept) > 100
    canary = smoke.canary.encode()
    assert not [path for path in kept if canary in path.read_bytes()]


def test_every_artifact_leads_to_commit_data_parameters_and_lock_file(smoke, smoke_store):
    wanted = {"commit", "lock_file", "user", "versions"}
    assert wanted <= set(smoke.record)
    book = nbformat.read(smoke.folder / "03_tuning-ridge.ipynb", as_version=4)
    assert wanted | {"n_trials", "seed", "data_digest"} <= set(book.metadata["housing"])
    page = (smoke.folder / "03_tuning-ridge.html").read_text()
    assert smoke.record["lock_file"] in page
    assert smoke.record["data_digest"] in page
    for run in tracking.client().search_runs([tracking.experiment_id("evaluation")]):
        assert wanted | {"data_digest", "pipeline_run"} <= set(run.data.tags)


def _notebook(path, *sources: str) -> str:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return str(path)


def test_the_graph_waits_for_what_it_needs():
    steps = graph.make_steps(Plan(["ridge", "lasso"], 1), "run")
    order = [step.id for step in graph.in_order(steps)]
    assert order.index("preprocessing") < order.index("tuning-ridge") < order.index("evaluation")


def test_the_graph_is_that_of_the_design():
    steps = {step.id: step for step in graph.make_steps(Plan(["ridge", "lasso"], 1), "run")}
    assert list(steps) == [
        "eda",
        "preprocessing",
        "tuning-ridge",
        "tuning-lasso",
        "evaluation",
        "promotion",
        "monitoring",
    ]
    assert steps["evaluation"].after == ["tuning-ridge", "tuning-lasso"]
    assert not steps["evaluation"].needs_all


@pytest.mark.parametrize("states", [("done", "failed"), ("failed", "done")])
def test_evaluation_goes_on_with_the_families_that_finished(states, tmp_path):
    plan = Plan(["ridge", "lasso"], 1)
    run = Run("x", plan, {step.id: step for step in graph.make_steps(plan, "x")})
    for name, state in zip(("tuning-ridge", "tuning-lasso"), states, strict=True):
        run.steps[name].state = state
    assert graph.missing(run.steps, run.steps["evaluation"]) == []
    assert graph.missing(run.steps, run.steps["tuning-ridge"]) == ["preprocessing"]


def test_a_promotion_records_its_gains_on_locked_and_on_recent_districts(monkeypatch):
    metrics = {"gain": -0.001, "recent_gain": 0.054, "recent_rmse": 0.4, "moved": 1.0}
    told = promotion._recommendation(1, metrics | {"test_rmse": 0.4})
    assert "in recent districts, $5,400 below version 1" in told
    assert "what is lost on locked ones is within bounds" in told
    decided = Decision("promoted", 2, 1, [told], evidence={"metrics": metrics})
    monkeypatch.setattr(promotion, "promote", lambda version: decided)
    found = steps.run_promotion(2, lambda *message: None)
    assert found["gain_usd"] == pytest.approx(-100)
    assert found["recent_gain_usd"] == pytest.approx(5_400)
    assert found["prices_moved"]
