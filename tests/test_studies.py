"""Searches that several machines share: a total stays a total, whatever dies meanwhile."""

import multiprocessing
import time
from zlib import crc32

import optuna
import pytest
from databases import running_postgres

from housing_lib import data, features, growing, studies, tuning
from housing_lib.settings import get_settings


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL server of this file."""
    with running_postgres() as running:
        yield running


@pytest.fixture
def shared(postgres, own_root, monkeypatch, request):
    """A database for trials, named in the settings."""
    url = postgres.create(f"trials_{crc32(request.node.name.encode())}")
    monkeypatch.setenv("HOUSING_STUDY_URL", url)
    monkeypatch.setattr(studies, "HEARTBEAT_S", 1)
    monkeypatch.setattr(studies, "SILENT_S", 2)
    get_settings.cache_clear()
    return url


@pytest.fixture(scope="module")
def split():
    districts = data.acquire().sample(2_000, random_state=0)
    return features.preprocess(districts, data.split(districts))


def search(split, n_trials=5, **more):
    return tuning.tune("ridge", split["train"], split["val"], n_trials=n_trials, seed=3, **more)


def beside(work, *arguments):
    """A process that does some work, started and not waited for."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


@pytest.mark.usefixtures("shared")
def test_a_search_in_a_database_is_kept_and_goes_on_to_its_total(split):
    assert len(search(split, 3).trials) == 3
    heard = []
    again = search(split, 5, on_trial=heard.append)
    assert [trial.number for trial in again.trials] == [0, 1, 2, 3, 4]
    assert heard == again.trials


@pytest.mark.usefixtures("shared")
def test_two_that_search_together_run_each_trial_once_and_end_with_the_same(split):
    other = beside(search, split, 12)
    found = search(split, 12)
    other.join(60)
    assert other.exitcode == 0
    assert len(found.trials) == 12
    study = studies.open_study(found.study.study_name, None)
    assert sum(trial.state in studies.ENDED for trial in study.trials) == 12
    assert search(split, 12).trials == found.trials


@pytest.mark.usefixtures("shared")
def test_the_trial_of_a_process_that_dies_is_run_by_another(split, monkeypatch):
    def never_end(*given, **more):
        time.sleep(600)

    with monkeypatch.context() as patch:
        patch.setattr(growing, "fit", never_end)
        dying = beside(search, split, 2)
        name = tuning.study_name("ridge", split["train"], split["val"], seed=3)
        wait_for(lambda: running(name))
        dying.kill()
        dying.join()
    assert running(name) == 1
    assert len(search(split, 2).trials) == 2
    assert running(name) == 0


@pytest.mark.usefixtures("shared")
def test_a_trial_that_was_lost_before_its_first_heartbeat_is_run_by_another(split):
    name = tuning.study_name("ridge", split["train"], split["val"], seed=3)
    with pytest.warns(UserWarning, match="Heartbeat"):
        studies.open_study(name, None).ask()
    assert len(search(split, 2).trials) == 2
    assert running(name) == 0


def running(name):
    """The number of trials that seem to be running."""
    study = studies.open_study(name, None)
    return sum(trial.state.name == "RUNNING" for trial in study.trials)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.usefixtures("shared")
def test_a_search_waits_for_a_database_that_is_away(split, postgres, monkeypatch):
    fit = growing.fit

    def slowly(*given, **more):
        time.sleep(0.3)
        return fit(*given, **more)

    monkeypatch.setattr(growing, "fit", slowly)
    searching = beside(search, split, 8)
    name = tuning.study_name("ridge", split["train"], split["val"], seed=3)
    wait_for(lambda: len(studies.open_study(name, None).trials) > 2)
    postgres.stop()
    time.sleep(2)
    assert searching.is_alive()
    postgres.start()
    searching.join(60)
    assert searching.exitcode == 0
    assert len(search(split, 8).trials) == 8


@pytest.mark.usefixtures("shared")
def test_to_join_a_search_that_nobody_began_is_refused():
    with pytest.raises(studies.StudyError, match="nobody began"):
        studies.total_to_join("ridge-000000000000")


@pytest.mark.usefixtures("shared")
def test_trials_abreast_are_refused_where_others_may_join(split):
    with pytest.raises(studies.StudyError, match="proposed in order"):
        search(split, abreast=2)


@pytest.mark.usefixtures("own_root")
def test_to_join_without_a_database_is_refused():
    with pytest.raises(studies.StudyError, match="HOUSING_STUDY_URL names no database"):
        studies.total_to_join("ridge-000000000000")


def test_the_database_of_mlflow_is_refused(shared, monkeypatch):
    monkeypatch.setenv("HOUSING_TRACKING_URI", shared)
    get_settings.cache_clear()
    with pytest.raises(studies.StudyError, match="one of their own"):
        studies.open_study("any", None)


def test_a_database_that_is_not_there_is_named_without_its_password(own_root, monkeypatch):
    monkeypatch.setenv("HOUSING_STUDY_URL", "postgresql://me:secret@127.0.0.1:9/none")
    get_settings.cache_clear()
    with pytest.raises(studies.StudyError, match=r"127\.0\.0\.1:9/none cannot be used") as caught:
        studies.open_study("any", None)
    assert "secret" not in str(caught.value)


def test_two_searches_of_the_same_wait_for_each_other(own_root, split, capfd):
    other = beside(search, split, 6)
    deadline = time.monotonic() + 60
    while not list(own_root.glob("data/studies/ridge-*.log")):
        assert time.monotonic() < deadline, "the other one did not begin"
        time.sleep(0.01)
    found = search(split, 6)
    other.join()
    assert other.exitcode == 0
    assert [trial.number for trial in found.trials] == list(range(6))
    (study,) = optuna.get_all_study_names(found.study._storage)
    assert len(found.study.trials) == 6, study
    assert "waiting for its end" in capfd.readouterr().out
