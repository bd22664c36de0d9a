"""The commands that act: retrain on new labelled districts, and simulate what may come."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from housing_lib import run_commands
from housing_lib.errors import HousingError
from housing_lib.run_commands import Jobs, Wait
from housing_lib.terminal import EXIT_FAILED, EXIT_HELD, err, out, say, say_errors

if TYPE_CHECKING:
    from housing_lib.graph import Plan
    from housing_lib.growth import Growth
    from housing_lib.journal import Run
    from housing_lib.simulation import Client, Script, World
    from housing_lib.verdict import Verdict

MOST_NAMED = 5


def add_to(app: typer.Typer) -> None:
    """Make these functions commands of `app`."""
    for command in (retrain, simulate):
        app.command()(say_errors(command))


def retrain(
    labelled: Annotated[
        str,
        typer.Argument(
            help="log (answers with true prices), or files or a database as for monitor"
        ),
    ] = "log",
    since: Annotated[
        str, typer.Option(help="of the log: 2026-03-01, or 30d for how long ago")
    ] = "",
    until: Annotated[str, typer.Option(help="of the log: before this moment")] = "",
    source: Annotated[
        str, typer.Option(help="what they join (default: HOUSING_RETRAIN_SOURCE)")
    ] = "",
    budget: Annotated[str, typer.Option(help="as of a run (default: HOUSING_RETRAIN_BUDGET)")] = "",
    models: Annotated[
        str, typer.Option(help="families, by commas (default: HOUSING_RETRAIN_MODELS)")
    ] = "",
    jobs: Jobs = None,
    wait: Wait = False,
) -> None:
    """Let new labelled districts join the training data, run everything, and ask the gate.

    Each district joins once. The source is never edited: all districts together lie in
    data/grown/. Test districts stay locked; of the new ones a fifth is kept from training too, by
    the same rule, and judges: if prices have moved, those recent ones decide. Exit codes as run's.
    """
    from housing_lib import retraining, traffic

    found = traffic.resolve_source(labelled)
    retraining.refuse_locked(found)
    plan = _plan(source, budget, models, jobs)
    with retraining.alone():
        grown = retraining.collect(found, base=plan.source, since=since, until=until)
        finished = _run(plan, grown, wait=wait)
    run_commands.conclude(finished)


def _plan(source: str = "", budget: str = "", models: str = "", jobs: int | None = None) -> "Plan":
    from housing_lib.settings import get_settings

    settings = get_settings()
    return run_commands.make_plan(
        budget or settings.retrain_budget,
        None,
        models or settings.retrain_models or None,
        source or settings.retrain_source,
        jobs,
        None,
        {},
    )


def _run(
    plan: "Plan", grown: "Growth", *, verdict: "Verdict | None" = None, wait: bool = False
) -> "Run":
    from housing_lib import console, pipeline, retraining

    _show(grown)
    plan = replace(plan, source=str(grown.source), reason=retraining.reason(grown, verdict))
    run_commands.end_like_ctrl_c()
    with console.watching(out) as watch:
        finished = pipeline.run(plan, wait_for_others=wait, watch=watch)
    for fault in retraining.conclude(finished):
        err.print(fault, markup=False)
    return finished


def _show(grown: "Growth") -> None:
    say(f"{grown.sentence}.")
    for one in grown.conflicts[:MOST_NAMED]:
        say(f"  left out: {one}")
    if len(grown.conflicts) > MOST_NAMED:
        out.print(f"  and {len(grown.conflicts) - MOST_NAMED:,} more; the first price counts")


def refuse_action(source: str) -> None:
    """Refuse to act on what nothing may learn from, or with settings that cannot be used.

    Raises
    ------
    HousingError
        If the source is locked, or a setting of retraining cannot be used.
    """
    from housing_lib import retraining

    retraining.refuse_locked(source)
    _plan()


def answer(verdict: "Verdict", source: str) -> None:
    """Act on an alarm: retrain if that can help and was not done lately; say what came of it.

    What is in the way is said and noted beside the alarm, which stays raised.

    Raises
    ------
    OutageError
        If something that it needs is away, or its run could not go on.
    """
    from housing_lib import retraining

    try:
        with retraining.alone():
            finished = _answer(verdict, source)
    except HousingError as error:
        if error.exit_code == EXIT_FAILED:
            raise
        _decline(verdict, str(error).splitlines()[0])
        return
    if finished:
        _conclude_answer(finished)


def _answer(verdict: "Verdict", source: str) -> "Run | None":
    from housing_lib import retraining

    why_not = retraining.why_not(verdict)
    if why_not:
        _decline(verdict, why_not)
        return None
    plan = _plan()
    grown = retraining.collect(source, base=plan.source)
    return _run(plan, grown, verdict=verdict)


def _decline(verdict: "Verdict", why: str) -> None:
    from housing_lib import retraining

    say(f"No retraining: {why.rstrip('.')}.")
    for fault in retraining.decline(verdict, why):
        err.print(fault, markup=False)


def _conclude_answer(finished: "Run") -> None:
    """As a run ends, and with the alarm's exit code, unless a step failed."""
    try:
        run_commands.conclude(finished)
    except typer.Exit as end:
        raise typer.Exit(EXIT_FAILED if end.exit_code == EXIT_FAILED else EXIT_HELD) from None


def simulate(
    address: Annotated[str, typer.Argument(help="of the server")] = "",
    shift: Annotated[
        str,
        typer.Option(
            help="none, incomes (+20 %), regions (swapped), nulls, inflation (1 % a week)"
        ),
    ] = "none",
    weeks: Annotated[int, typer.Option(min=1, max=520, help="how many")] = 8,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="districts a week")] = 250,
    start: Annotated[int, typer.Option(min=1, help="the first week with the shift")] = 3,
    delay: Annotated[int, typer.Option(min=0, help="weeks until true prices arrive")] = 1,
    pace: Annotated[float, typer.Option(min=0, help="seconds that a week takes at least")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="of all that is drawn")] = 0,
    key: Annotated[
        str, typer.Option(envvar="HOUSING_KEY", help="an API key", show_default=False)
    ] = "",
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="also a server that is not on this machine")
    ] = False,
) -> None:
    """Send a running server simulated districts and, later, their true prices.

    For demonstrations and tests of monitoring: what is sent stays in the server's prediction log.
    Use a HOUSING_ROOT of its own. The districts resemble the test districts and are worth what the
    model in Production says, plus one of its errors: without a shift nothing is to be found.
    A week is ROWS districts, so `housing monitor log --batch-rows ROWS` looks at it week by week.
    """
    from housing_lib import simulation
    from housing_lib.settings import get_settings

    script = simulation.Script(shift, weeks, rows, start, delay, pace, seed)
    settings = get_settings()
    client = simulation.Client(address or f"http://{settings.host}:{settings.port}", key)
    tell = partial(say, to=err)
    simulation.refuse(client, script, anywhere=anywhere, on_wait=tell)
    _play(client, script)


def _play(client: "Client", script: "Script") -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from housing_lib import simulation

    world = _world()
    run_commands.end_like_ctrl_c()
    sent = simulation.Sent()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, console=out) as progress:
            task = progress.add_task("week 1", total=2 * script.weeks * script.rows)
            for sent in simulation.play(client, simulation.weeks_of(world, script), script):
                done = sent.asked + sent.told
                progress.update(task, completed=done, description=f"week {sent.week}")
    except KeyboardInterrupt:
        err.print("Stopped by hand. What was sent stays in the prediction log.", style="yellow")
        raise typer.Exit(EXIT_FAILED) from None
    finally:
        told = f"{sent.asked:,} districts asked, {sent.told:,} true prices told"
        out.print(
            f"{told}, in {sent.week} of {script.weeks} weeks; shift: {script.shift}.",
            soft_wrap=True,
        )
    out.print(f"Monitor  housing monitor log --batch-rows {script.rows} --act")


def _world() -> "World":
    """The test districts with the answers of the model in Production."""
    from housing_lib import registry
    from housing_lib.parts import load_part
    from housing_lib.simulation import world_of

    model, test = registry.load("production").model, load_part("test")
    return world_of(model, test.districts, test.y)
