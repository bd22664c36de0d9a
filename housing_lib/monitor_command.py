"""The command that monitors: from a source and a period to a verdict, an alarm and an exit code."""

from typing import TYPE_CHECKING, Annotated

import typer

from housing_lib import action_commands
from housing_lib.errors import HousingError
from housing_lib.run_commands import conclude, run_alone
from housing_lib.terminal import EXIT_HELD, Cluster, err, out, say_errors, seconds_of

if TYPE_CHECKING:
    from housing_lib.journal import Run
    from housing_lib.verdict import Verdict


BATCH_ROWS = 10


def add_to(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    app.command()(say_errors(monitor))


def monitor(
    source: Annotated[
        str,
        typer.Argument(help="test, log (the server's predictions), or files as for predict"),
    ] = "test",
    batch_rows: Annotated[
        int | None, typer.Option(min=1, help=f"districts a batch (default: {BATCH_ROWS})")
    ] = None,
    batch_time: Annotated[
        float | None,
        typer.Option(parser=seconds_of, metavar="TIME", help="batches of 1h or 24h, of the log"),
    ] = None,
    since: Annotated[
        str, typer.Option(help="of the log: 2026-03-01, or 30d for how long ago")
    ] = "",
    until: Annotated[str, typer.Option(help="of the log: before this moment")] = "",
    cluster: Cluster = "",
    act: Annotated[
        bool, typer.Option("--act", help="answer an alarm: retrain, and let the gate decide")
    ] = False,
) -> None:
    """Ask whether the model in Production is still as good as it was; exit code 3 is an alarm.

    What was asked, what was answered and what turned out true are compared with the test
    districts, which the model did not learn from, batch by batch. Prices may be missing yet.
    Files may be a folder, a 'glob', or s3://bucket/..., as for `housing predict`.
    Nothing is logged twice, so the log can be monitored again and again: with 24h batches over
    the last 30d for example, once a day. The address of an SQLite or PostgreSQL database as the
    source reads that one; HOUSING_PREDICTION_LOG keeps its password out of the shell's history.
    An alarm is kept in reports/alerts.json and told to HOUSING_NOTIFY_URL or _COMMAND.
    serve/schedules/ has lines for cron, systemd and Airflow that run this for months.
    """
    from housing_lib import compute, parameters, registry, traffic
    from housing_lib.settings import get_settings, use_cluster

    use_cluster(cluster)
    if get_settings().cluster:
        err.print(f"Many rows are answered on {compute.where()}.", soft_wrap=True)
    found = traffic.resolve_source(source)
    if act:
        action_commands.refuse_action(found)
    batches = _batches(found, batch_rows, batch_time)
    given = {"source": found, **batches, "since": since, "until": until}
    registry.load_first("production", "staging")
    traffic.refuse(found, since=since, until=until)
    path = parameters.find_notebook("05_monitoring")
    parameters.check_parameters(path, given)
    finished = run_alone(path, given, alone=False)
    _sound(finished, found, act=act)
    conclude(finished)


def _batches(source: str, rows: int | None, seconds: float | None) -> dict[str, float]:
    """How batches are cut, as parameters of the notebook."""
    if rows and seconds:
        raise HousingError(
            "--batch-rows cuts batches by districts, and --batch-time by hours: name one of them. "
            "Nothing was run."
        )
    if not seconds:
        return {"batch_rows": rows or BATCH_ROWS}
    _refuse_without_times(source)
    return {"batch_rows": BATCH_ROWS, "batch_hours": seconds / 3600}


def _refuse_without_times(source: str) -> None:
    if source != "log":
        raise HousingError(
            f"--batch-time was given for '{source}', whose rows have no times; expected it for log "
            "alone. Nothing was run."
        )


def _sound(finished: "Run", source: str, *, act: bool) -> None:
    """Print the verdict; raise the alarm, act on it, end with its exit code if there is one."""
    from housing_lib import alarms, verdict

    found = finished.record_of("monitoring").get("verdict")
    if not found:
        return
    decided = verdict.from_record(found)
    _say(decided)
    if decided.alarming:
        report = finished.folder / "index.html"
        for fault in alarms.raise_alarm(decided, report):
            err.print(fault, markup=False)
        out.print(f"Report   {report}", soft_wrap=True)
        if act:
            action_commands.answer(decided, source)
        raise typer.Exit(EXIT_HELD)


def _say(decided: "Verdict") -> None:
    """Print the verdict: its causes, a line each, or its sentence where there are none."""
    from housing_lib.causes import coverage_told
    from housing_lib.verdict import known_too_well

    style = "bold red" if decided.alarming else "bold"
    out.print(f"\n{decided.state.capitalize()}: ", style=style, end="")
    sentences = [cause.sentence for cause in decided.causes]
    if sentences:
        sentences.append(coverage_told(decided.evidence))
        sentences.append(known_too_well(decided.evidence, decided.rows))
    told = list(filter(None, sentences)) or [f"{decided.sentence}."]
    out.print("\n  ".join(told), markup=False, soft_wrap=True)
