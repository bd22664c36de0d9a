"""The `housing` command: what it says when it is used well and when it is not."""

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
        (["run", "--trials", "0"], "each must be at least 1"),
        (["run", "--trials", "many"], "Invalid value for '--trials'"),
        (["run", "--trails", "3"], "--trials"),
        (["run", "--source", "none.csv"], "found no such file"),
        (["monitor", "none.csv"], "found no such file"),
        (["predict", "none.csv"], "stands in Production"),
        (["promote"], "no version stands in Staging"),
        (["rollback"], "no version stands before"),
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


def test_promoting_the_incumbent_again_holds_with_exit_code_3(smoke):
    done = smoke.housing("promote", "1")
    assert done.returncode == 3
    assert "it stands in Production already" in done.stdout
