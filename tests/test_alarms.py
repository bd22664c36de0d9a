"""An alarm is kept once and told once, whatever is in its way."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from housing_lib import action_commands, alarms, cli, retraining
from housing_lib.graph import Plan, Step
from housing_lib.journal import Run
from housing_lib.settings import get_settings
from housing_lib.verdict import Cause, Verdict

VERDICT = Verdict(
    state="alarm",
    sentence="MedInc ranks 0.50 standard deviations higher",
    model_version=1,
    source="log",
    first="2026-03-01T00:00:00+00:00",
    last="2026-03-08T00:00:00+00:00",
    batches=4,
    rows=1000,
    alarmed=(3,),
    causes=(Cause("MedInc", 0.5, "MedInc ranks 0.50 standard deviations higher"),),
    evidence={"p_value": 0.001},
)
OTHER = replace(VERDICT, rows=1250)


class Tomorrow(datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(days=1)


@pytest.fixture
def told(own_root, monkeypatch):
    """What the notify command was told, a line each."""
    path = own_root / "told.jsonl"
    monkeypatch.setenv("HOUSING_NOTIFY_COMMAND", f"sh -c 'cat >> {path}; echo >> {path}'")
    get_settings.cache_clear()
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def test_an_alarm_is_kept_and_told_with_its_causes_and_report(told):
    assert alarms.raise_alarm(VERDICT, Path("/reports/a-run/index.html")) == []
    (news,) = told()
    assert (news["kind"], news["sentence"]) == ("alarm", VERDICT.sentence)
    assert news["report"] == "/reports/a-run/index.html"
    (kept,) = alarms.read()
    assert kept["causes"] == [{"what": "MedInc", "size": 0.5, "sentence": VERDICT.sentence}]


def test_the_same_alarm_is_kept_once_and_what_goes_on_is_told_once(told):
    for verdict in (VERDICT, VERDICT, OTHER):
        alarms.raise_alarm(verdict, Path("x"))
    assert [one["rows"] for one in alarms.read()] == [1000, 1250]
    assert [one["rows"] for one in told()] == [1000]


@pytest.mark.parametrize(
    "change",
    [{"model_version": 2}, {"source": "new.csv"}, {"causes": (Cause("errors", 0.5, "errors"),)}],
)
def test_an_alarm_of_another_version_source_or_cause_is_told(told, change):
    for verdict in (VERDICT, replace(VERDICT, **change)):
        alarms.raise_alarm(verdict, Path("x"))
    assert len(alarms.read()) == len(told()) == 2


def test_what_goes_on_after_the_window_is_told_again(told, monkeypatch):
    alarms.raise_alarm(VERDICT, Path("x"))
    monkeypatch.setenv("HOUSING_RETRAIN_WINDOW_DAYS", "0")
    get_settings.cache_clear()
    monkeypatch.setattr(alarms, "datetime", Tomorrow)
    alarms.raise_alarm(OTHER, Path("x"))
    assert [one["rows"] for one in told()] == [1000, 1250]


def test_what_is_found_every_night_is_told_once_a_week(told, monkeypatch):
    for night in range(15):
        ahead = timedelta(days=1.1 * night)
        later = type("Later", (datetime,), {"now": lambda tz=None, by=ahead: datetime.now(tz) + by})
        monkeypatch.setattr(alarms, "datetime", later)
        alarms.raise_alarm(replace(VERDICT, rows=1000 + night), Path("x"))
    assert len(alarms.read()) == 15
    assert [one["rows"] for one in told()] == [1000, 1007, 1014]


@pytest.mark.parametrize("content", ["[{", '{"id": 1}', "[1]"])
def test_a_damaged_file_is_put_aside_and_the_alarm_still_kept_and_told(told, content):
    path = get_settings().alerts
    path.parent.mkdir()
    path.write_text(content)
    (fault,) = alarms.raise_alarm(VERDICT, Path("x"))
    assert "was damaged" in fault
    (aside,) = path.parent.glob("alerts-damaged-*.json")
    assert aside.read_text() == content
    assert len(alarms.read()) == len(told()) == 1


def test_a_file_that_another_process_holds_is_said_and_the_alarm_told(told, monkeypatch):
    monkeypatch.setattr(alarms, "_LOCK_TIMEOUT_S", 0)
    get_settings().reports.mkdir()
    with FileLock(get_settings().alerts.with_suffix(".lock")):
        (fault,) = alarms.raise_alarm(VERDICT, Path("x"))
    assert "cannot be written" in fault
    assert len(told()) == 1


def test_a_file_that_cannot_be_written_and_a_target_that_is_away_fail_nothing(
    own_root, monkeypatch
):
    (own_root / "reports").write_text("in the way")
    monkeypatch.setenv("HOUSING_NOTIFY_COMMAND", "/no/such/command")
    get_settings.cache_clear()
    faults = alarms.raise_alarm(VERDICT, Path("x"))
    assert "alerts.json cannot be written" in faults[0]
    assert "HOUSING_NOTIFY_COMMAND could not be told" in faults[1]


@pytest.mark.parametrize("again", [VERDICT, OTHER], ids=["the same rows", "other rows"])
def test_what_could_not_be_told_is_told_the_next_time(told, monkeypatch, again):
    with monkeypatch.context() as away:
        away.setenv("HOUSING_NOTIFY_COMMAND", "/no/such/command")
        get_settings.cache_clear()
        assert len(alarms.raise_alarm(VERDICT, Path("x"))) == 1
    get_settings.cache_clear()
    for _ in range(2):
        assert alarms.raise_alarm(again, Path("x")) == []
    assert [one["rows"] for one in told()] == [again.rows]


def test_a_second_alarm_within_the_window_is_not_answered_again(own_root):
    alarms.raise_alarm(VERDICT, Path("x"))
    assert retraining.why_not(VERDICT) == ""
    alarms.note_answer(run="r1", decision="promoted")
    alarms.raise_alarm(OTHER, Path("x"))
    assert "run r1 answered an alarm" in retraining.why_not(OTHER)


def test_a_retraining_that_failed_or_was_killed_is_no_answer(own_root):
    alarms.raise_alarm(VERDICT, Path("x"))
    alarms.note_answer(run="r1", state="killed", decision="")
    assert retraining.why_not(VERDICT) == ""


def test_after_the_window_an_alarm_is_answered_again(own_root, monkeypatch):
    alarms.raise_alarm(VERDICT, Path("x"))
    alarms.note_answer(run="r1", decision="held")
    monkeypatch.setenv("HOUSING_RETRAIN_WINDOW_DAYS", "0")
    get_settings.cache_clear()
    assert retraining.why_not(OTHER) == ""


def test_a_source_that_sends_nothing_is_to_be_mended_and_not_learned_from(own_root):
    silent = replace(VERDICT, causes=(Cause("missing values", 0.3, "AveRooms is missing"),))
    assert "is to be mended" in retraining.why_not(silent)


def finished_run(decision):
    step = Step("promotion", state="done", record={"decision": decision, "version": 2})
    return Run("a-run", Plan((), 0), {"promotion": step}, state="done")


def test_a_promotion_is_told_and_written_beside_every_alarm_that_waited(told):
    for verdict in (VERDICT, OTHER):
        alarms.raise_alarm(verdict, Path("x"))
    assert retraining.conclude(finished_run("promoted")) == []
    assert [one["action"]["run"] for one in alarms.read()] == ["a-run", "a-run"]
    assert (told()[-1]["kind"], told()[-1]["version"]) == ("retraining", 2)


def test_an_answer_is_not_written_over_and_what_was_declined_is(own_root):
    alarms.raise_alarm(VERDICT, Path("x"))
    retraining.decline(VERDICT, "no labels yet")
    assert alarms.read()[0]["action"]["declined"] == "no labels yet"
    retraining.conclude(finished_run("held"))
    retraining.decline(VERDICT, "not again")
    assert alarms.read()[0]["action"]["decision"] == "held"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retrain", "test"], "stay locked"),
        (["retrain", "no-such.csv"], "found no such file"),
        (["retrain", "log", "--budget", "smok"], "Did you mean 'smoke'"),
        (["monitor", "test", "--act"], "stay locked"),
        (["simulate", "--shift", "inflaton"], "Did you mean 'inflation'"),
        (["simulate", "http://example.org"], "not on this machine"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_run(own_root, arguments, said):
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not list(own_root.glob("reports/*"))


def test_without_labels_an_alarm_stays_raised_and_says_why_nothing_was_done(own_root, capsys):
    alarms.raise_alarm(VERDICT, Path("x"))
    action_commands.answer(VERDICT, "log")
    assert "cannot be read" in alarms.read()[0]["action"]["declined"]


@pytest.mark.parametrize(
    "action", [None, "held", {"decision": "held"}, {"decision": "held", "when": 7}]
)
def test_an_alarm_whose_action_cannot_be_read_is_left_out(own_root, action):
    alerts = get_settings().alerts
    alerts.parent.mkdir(parents=True)
    told = {"id": "a", "raised_at": "2026-01-01T00:00:00+00:00", "sentence": "odd"}
    alerts.write_text(json.dumps([told | {"action": action}, told | {"action": {}}]))
    assert [one["action"] for one in alarms.read()] == [{}]
    assert alarms.answered_within(7) is None
    alarms.note_answer(decision="held")
    assert alarms.read()[-1]["action"]["decision"] == "held"
