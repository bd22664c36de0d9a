"""The `housing` command: what it says when it is used well and when it is not."""

import io
import json
import os
import socket
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer
from mlflow.cli import server
from rich.console import Console
from typer.testing import CliRunner

from housing_lib import (
    cli,
    connection,
    console,
    data,
    families,
    graph,
    monitor_command,
    run_commands,
    storage,
    sufficiency,
    terminal,
)
from housing_lib.settings import PROJECT, Settings, get_settings

RAW = PROJECT / "data" / "raw" / "california_housing.csv"


@pytest.fixture
def here(own_root, monkeypatch):
    """The command in this process, which saves the start of another: `here(*arguments)`."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(cli.app, arguments)


def test_help_lists_every_command(housing, tmp_path):
    text = housing(tmp_path, "--help").stdout
    commands = "data run notebook monitor status logs runs diff clean predict promote rollback"
    for command in [*commands.split(), "history", "serve", "ui"]:
        assert f" {command} " in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("predict", "(default: data/predictions/)"),
        ("tune", f"a standard run's: {graph.BUDGETS['standard'].trials}"),
        ("serve", f"or {Settings.model_fields['host'].default})"),
        ("serve", f"or {Settings.model_fields['port'].default})"),
        ("notebook", "{NAME} [-p KEY VALUE]..."),
        ("monitor", f"districts a batch (default: {monitor_command.BATCH_ROWS})"),
    ],
)
def test_help_says_what_holds_without_an_option(here, command, said):
    assert said in here(command, "--help").stdout


@pytest.mark.usefixtures("empty_store")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--models", "xgbost"], "Did you mean 'xgboost'?"),
        (["run", "--models", "foo"], "there is no family 'foo'.\nThe families are: linear_regr"),
        (["run", "--models", "ridge, lasso,ridge"], "names ridge more than once"),
        (["run", "--budget", "huge"], "there is no budget 'huge'; expected smoke, standard"),
        (["run", "--budget", "smoky"], "Did you mean 'smoke'?"),
        (["run", "--trials", "0"], "Invalid value for '--trials'"),
        (["run", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["run", "--seed", "-5"], "Invalid value for '--seed'"),
        (["run", "--models", ""], "'' names no family; expected some of linear_regression"),
        (["run", "--models", ","], "names no family; expected some of linear_regression"),
        (["run", "--trials", "many"], "Invalid value for '--trials'"),
        (["run", "--trails", "3"], "--trials"),
        (["run", "--source", "none.csv"], "found no such file"),
        (["run", "--only", "tunning", "--models", "ridge"], "Did you mean 'tuning'?"),
        (["run", "--only", "evaluation", "--models", "ridge"], "no earlier run of it is kept"),
        (["run", "--from", "premotion"], "Did you mean 'promotion'?"),
        (["run", "--only", "eda", "--from", "nonsense"], "name one of them"),
        (["run", "--resume"], "nothing to resume"),
        (["run", "--resume", "--trials", "3"], "--resume goes on with what that run"),
        (["run", "--timeout", "soon"], "no length of time"),
        (["notebook", "03_tunning"], "Did you mean '03_tuning'?"),
        (["notebook", "tuning", "-p", "n_trails", "3"], "Did you mean 'n_trials'?"),
        (["notebook", "tuning", "-p", "n_trials=0"], "expected 1 to 100000"),
        (["notebook", "tuning", "-p", "model_name", "rige"], "Did you mean 'ridge'?"),
        (["notebook", "tuning", "-p", "api_token", "x"], "environment variable"),
        (["notebook", "tuning", "-p", "n_trials"], "has no value"),
        (["notebook", "tuning", "3"], "belongs to no -p"),
        (["status"], "there is no run yet"),
        (["logs", "tuning-ridge"], "there is no run yet"),
        (["diff", "latest", "2026"], "there is no run"),
        (["predict", "none.csv", "--stage", "champion"], "'champion' is not one of"),
        (["serve", "--port", "99999"], "Invalid value for '--port'"),
        (["tune", "xgbost"], "Did you mean 'xgboost'?"),
        (["monitor", "none.csv"], "found no such file"),
        (["monitor", "--batch-rows", "0"], "Invalid value for '--batch-rows'"),
        (["monitor"], "stands in Production"),
        (["monitor"], "ends what was interrupted"),
        (["predict", str(RAW)], "`housing history` ends what was interrupted"),
        (["monitor", "log", "--batch-rows", "5", "--batch-time", "1h"], "name one of them"),
        (["monitor", "--batch-time", "24h"], "whose rows have no times"),
        (["monitor", "--batch-time", "soon"], "is no length of time"),
        (["promote"], "no version stands in Staging"),
        (["data", "--source", "none.csv"], "there is no such file"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(here, tmp_path, arguments, said):
    done = here(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("reports/*"))
    assert not list(tmp_path.glob("data/**/*.*"))


def test_a_narrow_table_shortens_what_is_told_and_neither_states_nor_times(tmp_path):
    step = {"state": "done", "cell": [0, 0, ""], "seconds": 62, "expected_s": 61, "record": {}}
    steps = [step | {"id": "promotion", "reason": "held, because " * 20}]
    narrow = Console(width=60, file=io.StringIO())
    narrow.print(console.table({"id": "x", "steps": steps}))
    told = narrow.file.getvalue()
    assert len(told.splitlines()) == 6
    for shown in ("promotion", "done", "held", "…", "1:02", "1:01"):
        assert shown in told


@pytest.mark.parametrize(("seconds", "told"), [(9, "Run x"), (2, "needs about 0:03 more")])
def test_the_time_that_is_left_is_never_negative(seconds, told):
    step = {"id": "eda", "state": "running", "reason": "", "cell": [1, 2, ""], "record": {}}
    run = {"id": "x", "steps": [step | {"seconds": seconds, "expected_s": 5}]}
    assert str(console.table(run).title).endswith(told)


@pytest.fixture
def started(monkeypatch):
    """The command line that this process becomes, which stays empty if it becomes none."""
    told = []
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    monkeypatch.setattr(os, "execvp", lambda _, arguments: told.extend(arguments))
    return told


@pytest.mark.usefixtures("empty_store")
def test_mlflows_page_listens_on_this_machine_only(here, started):
    here("ui", "--port", "5999")
    assert started[started.index("--host") + 1] == "127.0.0.1"


def test_mlflows_page_is_told_the_store_where_nobody_else_reads_it(here, started, monkeypatch):
    store = "postgresql+psycopg://somebody:hunter22@database/mlflow"
    monkeypatch.setenv("HOUSING_TRACKING_URI", store)
    monkeypatch.setattr(connection, "client", lambda: None)
    get_settings.cache_clear()
    assert here("ui", "--port", "5999").exit_code == 0
    assert started
    assert "hunter22" not in " ".join(started)
    (option,) = [one for one in server.params if one.name == "backend_store_uri"]
    assert os.environ[option.envvar] == store


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("http://that-machine:5000", "http://that-machine:5000"),
        ("https://somebody:hunter22@that-machine/mlflow", "https://that-machine/mlflow"),
    ],
)
def test_a_teams_server_shows_its_own_pages(here, started, monkeypatch, store, shown):
    monkeypatch.setenv("HOUSING_TRACKING_URI", store)
    get_settings.cache_clear()
    done = here("ui")
    assert (done.exit_code, started) == (0, [])
    assert done.stdout == f"MLflow's pages are at {shown}\n"


@pytest.mark.parametrize(
    ("champion", "served"),
    [
        ({"decision": "promoted", "incumbent": None}, True),
        ({"decision": "held", "incumbent": 3}, True),
        ({"decision": "held", "incumbent": None}, False),
        ({}, False),
    ],
)
def test_a_run_tells_how_to_serve_where_there_is_something_to_serve(
    own_root, monkeypatch, capsys, champion, served
):
    monkeypatch.setenv("HOUSING_PORT", "8123")
    get_settings.cache_clear()
    told = {"title": "Ridge", "version": 4, **champion}
    plan = SimpleNamespace(models=["ridge"])
    run = SimpleNamespace(steps={}, untold=[], champion=told, folder=own_root, plan=plan)
    run.state, run.exit_code = "done", 0
    with pytest.raises(typer.Exit):
        run_commands.conclude(run)
    assert ("make serve   (then http://127.0.0.1:8123)" in capsys.readouterr().out) == served


def test_people_read_whole_words_and_programs_whole_lines():
    for is_terminal, lines in ((True, ["one two", "three"]), (False, ["one two three"])):
        told = Console(width=10, file=io.StringIO(), force_terminal=is_terminal, color_system=None)
        terminal.say("one two three", to=told)
        assert [line.rstrip() for line in told.file.getvalue().splitlines()] == lines


def test_an_address_that_is_taken_is_refused_before_anything_starts(here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command in ("serve", "ui"):
            done = here(command, "--port", port)
            assert done.exit_code == 2
            assert f"127.0.0.1:{port} cannot be listened on: Address already in use" in done.stderr


def test_a_source_that_breaks_the_contract_is_refused_before_anything_runs(here, tmp_path):
    rows = data.acquire().head(4)
    rows.to_csv(tmp_path / "few.csv", index=False)
    rows.drop(columns="MedInc").to_csv(tmp_path / "lacking.csv", index=False)
    for name, said in {"few.csv": "found 4 rows", "lacking.csv": "missing column"}.items():
        done = here("run", "--source", str(tmp_path / name))
        assert done.exit_code == 2
        assert said in done.stderr
    assert not (tmp_path / "reports").exists()


def test_a_source_too_small_for_a_run_is_refused_before_and_told_how_many_rows_are_enough(
    here, tmp_path
):
    small, enough = tmp_path / "small.csv", tmp_path / "enough.csv"
    data.acquire().head(100).to_csv(small, index=False)
    data.acquire().head(sufficiency.rows_for_a_run()).to_csv(enough, index=False)
    needed = f"about {sufficiency.rows_for_a_run()} rows"
    refused = here("run", "--source", str(small))
    assert refused.exit_code == 2
    assert "found 100 rows" in refused.stderr
    assert needed in refused.stderr
    assert not (tmp_path / "reports").exists()
    looked = here("data", "--source", str(small))
    assert looked.exit_code == 0
    assert "too few for a run: found 100 rows" in looked.stdout
    assert needed in looked.stdout
    assert "too few" not in here("data", "--source", str(enough)).stdout


def test_settings_that_cannot_be_used_are_all_named(housing, tmp_path, monkeypatch):
    monkeypatch.setenv("HOUSING_PORT", "99999")
    monkeypatch.setenv("HOUSING_SEED", "abc")
    done = housing(tmp_path, "history")
    assert done.returncode == 2
    assert "HOUSING_PORT: found '99999'" in done.stderr
    assert "HOUSING_SEED: found 'abc'" in done.stderr


def test_names_that_are_no_settings_are_told_in_a_line_beside_the_output(
    here, tmp_path, monkeypatch
):
    file = tmp_path / "env"
    file.write_text("HOUSING_SEEED=1\nHOUSING_SEED=2\n")
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    for name in ("HOUSING_GATE_RMSE", "HOUSING_FOO", "HOUSING_KEY", "HOUSING_PORT"):
        monkeypatch.setenv(name, "3")
    done = here("history", "--json")
    assert json.loads(done.stdout) == []
    assert done.stderr == (
        "No settings, and so without effect: HOUSING_FOO, HOUSING_GATE_RMSE (did you mean "
        "HOUSING_GATE_RMSE_USD?), HOUSING_SEEED (did you mean HOUSING_SEED?). "
        "README.md lists all.\n"
    )


def test_a_cluster_that_cannot_be_used_is_told_before_anything_runs(housing, tmp_path):
    done = housing(tmp_path, "run", "--cluster", "foo")
    assert done.returncode == 2
    assert done.stderr.startswith("ClusterAddressError: the Dask scheduler foo cannot be reached")
    assert not (tmp_path / "reports").exists()


def test_a_reports_folder_that_cannot_be_written_is_named(housing, tmp_path):
    (tmp_path / "reports").write_text("a file")
    done = housing(tmp_path, "run", "--models", "ridge", "--trials", "1")
    assert done.returncode == 2
    assert "cannot be made" in done.stderr


def test_data_shows_what_is_in_a_source(housing, tmp_path):
    done = housing(tmp_path, "data")
    assert done.returncode == 0
    assert "20,640 districts" in done.stdout
    assert "965 prices at the cap" in done.stdout


def test_data_says_whose_cap_it_counts_prices_at(here, tmp_path):
    rows = data.acquire().head(10).assign(MedHouseVal=[*range(6, 16)])
    rows.to_csv(tmp_path / "own.csv", index=False)
    done = here("data", "--source", str(tmp_path / "own.csv"))
    assert "0 prices at the cap of the census" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["history"], 0),
        (["history", "--json"], 0),
        (["gate"], 2),
        (["gate", "1"], 2),
        (["predict", str(RAW)], 2),
        (["rollback"], 2),
        (["promote"], 2),
        (["clean"], 0),
        (["monitor"], 2),
    ],
)
def test_whoever_only_looks_makes_no_store(here, tmp_path, arguments, code):
    assert here(*arguments).exit_code == code
    assert not list(tmp_path.rglob("mlflow*"))


def test_a_ledger_without_a_line_says_what_makes_one(here):
    assert "There is no decision yet. `housing run` makes" in here("history").stdout
    assert json.loads(here("history", "--json").stdout) == []


@pytest.mark.parametrize("arguments", [["history"], ["predict", str(RAW)], ["monitor"]])
def test_a_store_that_is_lost_beside_reports_of_its_runs_is_no_fresh_start(
    here, tmp_path, arguments
):
    folder = tmp_path / "reports" / "2026-11-29_222946"
    folder.mkdir(parents=True)
    champion = {"version": 3, "decision": "promoted"}
    record = {"state": "done", "started": "2026-11-29T22:29:46", "seconds": 1.0, "steps": []}
    (folder / "run.json").write_text(json.dumps(record | {"champion": champion}))
    done = here(*arguments)
    assert done.exit_code == 1
    assert "mlflow.db is not there, but" in done.stderr
    assert "1 run that registered a version, 2026-11-29_222946 the newest" in done.stderr
    assert "(version 3 promoted)" in done.stderr
    assert "HOUSING_TRACKING_URI" in done.stderr
    assert not list(tmp_path.glob("mlflow*"))


def test_a_store_that_cannot_be_opened_is_named(housing, tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    done = housing(tmp_path, "history")
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert (tmp_path / "mlflow.db").read_text() == "no database"


def test_predictions_stand_beside_the_input_and_a_bad_row_ends_with_3(smoke, tmp_path):
    rows = data.acquire().head(30).drop(columns=data.TARGET).assign(name="a")
    rows.loc[30] = {**rows.loc[0], "Latitude": 99.0}
    rows.to_csv(tmp_path / "districts.csv", index=False)
    done = smoke.housing("predict", str(tmp_path / "districts.csv"))
    assert done.returncode == 3, done.stderr
    assert "1 of 31 rows are in quarantine" in done.stdout
    written = pd.read_csv(smoke.root / "data" / "predictions" / "districts_predictions.csv")
    assert list(written.columns[:9]) == list(rows.columns)
    assert np.isfinite(written["predicted_median_house_value"]).all()
    assert (written["model_version"] == 1).all()


@pytest.mark.usefixtures("smoke_store")
def test_an_object_store_that_is_away_ends_with_1_so_that_schedulers_try_again(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage._object_store.cache_clear()
    done = CliRunner().invoke(cli.app, ["predict", "s3://bucket/districts.csv"])
    storage._object_store.cache_clear()
    assert done.exit_code == 1
    assert "s3://bucket/districts.csv" in done.output


def test_a_store_that_is_locked_ends_with_1_so_that_schedulers_try_again(here, empty_store):
    with closing(sqlite3.connect(empty_store / "mlflow.db")) as held:
        held.execute("begin exclusive")
        done = here("history")
    assert done.exit_code == 1
    assert "database is locked" in done.stderr
    assert "Traceback" not in done.stderr


def test_history_tells_what_was_decided(smoke):
    text = smoke.housing("history").stdout
    assert "promoted" in text
    assert "Production: 1" in text


def test_the_ledger_as_json_replays_to_the_stages(smoke):
    lines = json.loads(smoke.housing("history", "--json").stdout)
    assert [line["line"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["decision"] == "registered"
    assert all(line["settled"] for line in lines)
    assert any(rule["name"] == "test RMSE" for rule in lines[1]["evidence"]["rules"])


def test_the_gate_shows_its_table_and_changes_nothing(smoke):
    before = smoke.housing("history").stdout
    done = smoke.housing("gate", "1")
    assert done.returncode == 3
    assert "gain over version 1" in done.stdout
    assert "would be held" in done.stdout
    assert smoke.housing("history").stdout == before


def test_a_registry_that_cannot_be_reached_holds_with_exit_code_3(housing, tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    done = housing(tmp_path, "promote", "2")
    assert done.returncode == 3
    assert "the registry cannot be asked or written" in done.stdout
    assert "Production was not changed" in done.stdout


def test_promoting_the_incumbent_again_holds_with_exit_code_3(smoke):
    done = smoke.housing("promote", "1")
    assert done.returncode == 3
    assert "it stands in Production already" in done.stdout


@pytest.mark.parametrize("command", [["run", "--help-notebook", "03_tuning"], ["notebook", "03"]])
def test_parameters_of_a_notebook_are_listed_and_nothing_is_run(here, tmp_path, command):
    flag = [] if command[0] == "run" else ["--help-notebook"]
    done = here(*command, *flag)
    assert done.exit_code == 0, done.stderr
    for name in ("model_name", "n_trials", "seed", *families.FAMILIES):
        assert name in done.stdout
    assert not list(tmp_path.iterdir())


def test_one_notebook_runs_into_a_report_of_its_own_and_is_told_of(housing, tmp_path):
    done = housing(tmp_path, "notebook", "02_preprocessing", "-p", "test_share", "0.3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "preprocessing              done" in done.stdout
    told = json.loads(housing(tmp_path, "status", "--json").stdout)
    assert (told["state"], told["parameters"]) == ("done", {"test_share": 0.3})
    assert "done" in housing(tmp_path, "status").stdout
    assert "── code cell 1 of" in housing(tmp_path, "logs", "preprocessing").stdout
    (row,) = json.loads(housing(tmp_path, "runs", "--json").stdout)["runs"]
    assert row["steps"] == "1 of 1"
    assert "do not differ" in housing(tmp_path, "diff", "latest", row["run"]).stdout
    assert "Nothing to remove" in housing(tmp_path, "clean").stdout


def test_clean_shows_what_it_would_remove_before_it_does(housing, tmp_path):
    for number in range(3):
        folder = tmp_path / "reports" / f"2026-01-0{number + 1}_000000"
        folder.mkdir(parents=True)
        content = {"id": folder.name, "state": "done", "started": folder.name, "steps": []}
        (folder / "run.json").write_text(json.dumps(content | {"champion": None, "seconds": 1}))
    shown = housing(tmp_path, "clean", "--keep", "1")
    assert "2026-01-01" in shown.stdout
    assert "Nothing was removed; --yes" in shown.stdout
    assert len(list(tmp_path.glob("reports/*/run.json"))) == 3
    assert "2 runs removed" in housing(tmp_path, "clean", "--keep", "1", "--yes").stdout
    assert [path.name[:10] for path in tmp_path.glob("reports/2026*")] == ["2026-01-03"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)]
)
def test_a_length_of_time_is_read_as_people_write_it(text, seconds):
    assert terminal.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "nan", "1e99h"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(typer.BadParameter, match="no length of time"):
        terminal.seconds_of(text)
