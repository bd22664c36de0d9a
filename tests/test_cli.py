"""The `housing` command: what it says when it is used well and when it is not."""

import json

import numpy as np
import pandas as pd
import pytest

from housing_lib import data


def test_help_lists_every_command(housing, tmp_path):
    text = housing(tmp_path, "--help").stdout
    for command in ("data", "run", "predict", "monitor", "promote", "rollback", "history", "serve"):
        assert f" {command} " in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--models", "xgbost"], "Did you mean 'xgboost'?"),
        (["run", "--budget", "huge"], "there is no budget 'huge'; expected smoke, standard"),
        (["run", "--budget", "smoky"], "Did you mean 'smoke'?"),
        (["run", "--trials", "0"], "Invalid value for '--trials'"),
        (["run", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["run", "--seed", "-5"], "Invalid value for '--seed'"),
        (["run", "--models", ","], "names no family"),
        (["run", "--trials", "many"], "Invalid value for '--trials'"),
        (["run", "--trails", "3"], "--trials"),
        (["run", "--source", "none.csv"], "found no such file"),
        (["monitor", "none.csv"], "found no such file"),
        (["monitor", "--batch-rows", "0"], "Invalid value for '--batch-rows'"),
        (["monitor"], "stands in Production"),
        (["promote"], "no version stands in Staging"),
        (["data", "--source", "none.csv"], "there is no such file"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(housing, tmp_path, arguments, said):
    done = housing(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("reports/*"))
    assert not list(tmp_path.glob("data/**/*.*"))


def test_a_source_that_breaks_the_contract_is_refused_before_anything_runs(housing, tmp_path):
    rows = data.acquire().head(4)
    rows.to_csv(tmp_path / "few.csv", index=False)
    rows.drop(columns="MedInc").to_csv(tmp_path / "lacking.csv", index=False)
    for name, said in {"few.csv": "leave nothing for", "lacking.csv": "missing column"}.items():
        done = housing(tmp_path, "run", "--source", str(tmp_path / name))
        assert done.returncode == 2
        assert said in done.stderr
    assert not (tmp_path / "reports").exists()


def test_settings_that_cannot_be_used_are_all_named(housing, tmp_path, monkeypatch):
    monkeypatch.setenv("HOUSING_PORT", "99999")
    monkeypatch.setenv("HOUSING_SEED", "abc")
    done = housing(tmp_path, "history")
    assert done.returncode == 2
    assert "HOUSING_PORT: found '99999'" in done.stderr
    assert "HOUSING_SEED: found 'abc'" in done.stderr


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


def test_a_store_that_cannot_be_opened_is_named(housing, tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    done = housing(tmp_path, "history")
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert (tmp_path / "mlflow.db").read_text() == "no database"


def test_predictions_stand_beside_the_input(smoke, tmp_path):
    rows = data.acquire().head(30).drop(columns=data.TARGET).assign(name="a")
    rows.to_csv(tmp_path / "districts.csv", index=False)
    done = smoke.housing("predict", str(tmp_path / "districts.csv"))
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(smoke.root / "data" / "predictions" / "districts_predictions.csv")
    assert list(written.columns[:9]) == list(rows.columns)
    assert np.isfinite(written["predicted_median_house_value"]).all()
    assert (written["model_version"] == 1).all()


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
    assert "Nothing was changed" in done.stdout


def test_promoting_the_incumbent_again_holds_with_exit_code_3(smoke):
    done = smoke.housing("promote", "1")
    assert done.returncode == 3
    assert "it stands in Production already" in done.stdout
