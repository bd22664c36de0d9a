"""The commands that run: everything, what is left of it, or a single notebook."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from housing_lib.errors import HousingError
from housing_lib.terminal import Cluster, err, out, say, say_errors, seconds_of

if TYPE_CHECKING:
    from housing_lib.graph import Plan
    from housing_lib.journal import Run

MOST_JOBS = 8
Limit = Annotated[
    float | None,
    typer.Option(parser=seconds_of, metavar="TIME", help="kill it after 90s, 10m or 1.5h"),
]
StepLimit = Annotated[
    float | None,
    typer.Option(parser=seconds_of, metavar="TIME", help="kill a step after 90s, 10m or 1.5h"),
]
Help = Annotated[
    str, typer.Option("--help-notebook", metavar="NAME", help="list a notebook's parameters")
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help=f"notebooks at once (default: one a core, at most {MOST_JOBS})"),
]
Wait = Annotated[bool, typer.Option("--wait", help="wait for a run that holds the folder")]


def add_to(app: typer.Typer) -> None:
    """Make these functions commands of `app`."""
    for command in (run, notebook):
        app.command()(say_errors(command))


def run(
    budget: Annotated[str, typer.Option(help="smoke, standard or thorough")] = "standard",
    trials: Annotated[
        int | None, typer.Option(min=1, help="trials a family, instead of the budget's")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="families, separated by commas (default: all)")
    ] = None,
    source: Annotated[
        str, typer.Option(help="bundled, sklearn, or a CSV or Parquet file")
    ] = "bundled",
    jobs: Jobs = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="the seed of every random choice")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="run every step again")] = False,
    only: Annotated[
        str, typer.Option(metavar="STEPS", help="run these steps again, and no other")
    ] = "",
    start: Annotated[
        str, typer.Option("--from", metavar="STEP", help="run it and all that follow it again")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="finish the last run, which did not")
    ] = False,
    wait: Wait = False,
    step_timeout: StepLimit = None,
    timeout: Limit = None,
    cluster: Cluster = "",
    help_notebook: Help = "",
) -> None:
    """Run everything: look, preprocess, tune, evaluate, promote, monitor, report.

    What was run before from the same code, data and parameters is taken from there.
    """
    from housing_lib.settings import get_settings, use_cluster

    if help_notebook:
        _show_parameters(help_notebook)
        return
    from housing_lib import compute, console, pipeline
    from housing_lib.graph import Selection

    use_cluster(cluster)
    if resume:
        others = (trials, seed, step_timeout, timeout)
        _refuse_other_options(budget, models, source, force, only, start, *others)
    if only and start:
        raise HousingError(
            "--only runs the named steps again and no other, --from all that follow one: name one "
            "of them. Nothing was run."
        )
    choice = Selection(force, _split(only), start)
    limits = {"step_timeout_s": step_timeout, "timeout_s": timeout}
    plan = None if resume else make_plan(budget, trials, models, source, jobs, seed, limits)
    if get_settings().cluster:
        work = "Held-out blocks run" if get_settings().study_url else "Trials and blocks run"
        err.print(f"{work} on {compute.where()}.", soft_wrap=True)
    end_like_ctrl_c()
    with console.watching(out) as watch:
        if plan is None:
            finished = pipeline.resume(jobs=jobs, wait_for_others=wait, watch=watch)
        else:
            finished = pipeline.run(plan, choice=choice, wait_for_others=wait, watch=watch)
    conclude(finished)


def _refuse_other_options(budget: str, models: str | None, source: str, *others: Any) -> None:
    if (budget, models, source) != ("standard", None, "bundled") or any(
        other not in (None, False, "") for other in others
    ):
        raise HousingError(
            "--resume goes on with what that run was asked for; of the other options it takes "
            "--jobs, --wait and --cluster. Nothing was run."
        )


def end_like_ctrl_c() -> None:
    """Let the signals that end this process end it as Ctrl-C does: what is done is kept."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What nohup, or a shell in the background, lets it ignore stays ignored.
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _named(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _split(names: str) -> list[str]:
    return list(dict.fromkeys(_named(names)))


def make_plan(
    budget: str,
    trials: int | None,
    models: str | None,
    source: str,
    jobs: int | None,
    seed: int | None,
    limits: dict[str, Any],
) -> "Plan":
    """The plan of a run, after checking all that it names.

    Raises
    ------
    HousingError
        If it names a budget, a family or a source that cannot be used.
    """
    from difflib import get_close_matches

    from housing_lib import compute
    from housing_lib.graph import BUDGETS, Plan
    from housing_lib.processes import cores
    from housing_lib.settings import get_settings

    compute.refuse_away()
    names = _families(models)
    if budget not in BUDGETS:
        near = get_close_matches(budget, BUDGETS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        known = ", ".join(BUDGETS)
        raise HousingError(
            f"there is no budget '{budget}'; expected {known}.{hint} Nothing was run."
        )
    if source != "bundled":
        source = _checked(source)
    allowed = BUDGETS[budget]
    count = allowed.trials if trials is None else trials
    chosen = get_settings().seed if seed is None else seed
    at_once = jobs or min(cores(), MOST_JOBS)
    size = (count, allowed.growth, allowed.every_family)
    return Plan(names, *size, source, chosen, at_once, **limits)


def _checked(source: str) -> str:
    """The source as it is found from any folder, after a look whether it is enough."""
    from housing_lib import data, sufficiency

    found = data.resolve_source(source)
    if found not in data.SOURCES:
        sufficiency.refuse_too_few(data.acquire(found), origin=source)
    return found


def _families(models: str | None) -> list[str]:
    from housing_lib.families import FAMILIES, FamilyError, get_family

    if models is None:
        return list(FAMILIES)
    names = _split(models)
    if not names:
        raise FamilyError(
            f"'{models}' names no family; expected some of {', '.join(FAMILIES)}. Nothing was run."
        )
    for name in names:
        get_family(name)
    twice = [name for name in names if _named(models).count(name) > 1]
    if twice:
        raise FamilyError(
            f"'{models}' names {', '.join(twice)} more than once; expected each family once. "
            "Nothing was run."
        )
    return names


def conclude(finished: "Run") -> None:
    """Print how a run ended and what to do next, and end with its exit code."""
    for step in finished.steps.values():
        if step.state in ("failed", "skipped", "killed"):
            say(f"\n{step.id} {step.state}: {step.reason}", to=err, style="red")
    for fault in finished.untold:
        err.print(fault, markup=False)
    champion = finished.champion
    if champion:
        decided = f"version {champion['version']} {champion.get('decision', 'registered')}"
        why = f"; {champion['reason']}" if champion.get("reason") else ""
        say(f"\n{champion['title']}: {decided}{why}.")
    out.print(f"Report   {finished.folder / 'index.html'}", soft_wrap=True)
    if champion:
        if champion.get("decision") == "promoted" or champion.get("incumbent"):
            out.print(f"Serve    make serve   (then {_address()})")
        out.print("Runs     make ui")
    if finished.state != "done" and finished.plan.models:
        out.print("Resume   housing run --resume")
    raise typer.Exit(finished.exit_code)


def _address() -> str:
    """Where a server of these settings answers."""
    from housing_lib.settings import get_settings

    settings = get_settings()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def notebook(
    name: Annotated[str, typer.Argument(metavar="NAME", help="as 03_tuning, 03 or tuning")],
    values: Annotated[list[str] | None, typer.Argument(metavar="-p KEY VALUE", hidden=True)] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="KEY VALUE", help="a parameter; repeatable")
    ] = None,
    timeout: Limit = None,
    wait: Wait = False,
    help_notebook: Annotated[
        bool, typer.Option("--help-notebook", help="list its parameters, and run nothing")
    ] = False,
) -> None:
    """Run a single notebook into a report of its own."""
    from housing_lib import parameters

    if help_notebook:
        _show_parameters(name)
        return
    found = parameters.find_notebook(name)
    given = parameters.read_values(found, _pairs(parameter or [], values or []))
    conclude(run_alone(found, given, limit_s=timeout, wait=wait))


def _pairs(keys: list[str], values: list[str]) -> list[tuple[str, str]]:
    """What `-p key value -p key=value` says, in pairs."""
    left = list(values)
    pairs = []
    for key in keys:
        name, equals, value = key.partition("=")
        pairs.append((name, value if equals or not left else left.pop(0)))
        if not equals and len(pairs) > len(values) + sum("=" in one for one in keys):
            raise typer.BadParameter(f"-p {key} has no value; expected -p {key} VALUE")
    if left:
        raise typer.BadParameter(f"'{left[0]}' belongs to no -p; expected -p KEY {left[0]}")
    return pairs


def _show_parameters(name: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from housing_lib import parameters

    found = parameters.find_notebook(name)
    shown = Table(title=found.name, title_justify="left")
    for column in ("parameter", "type", "default", "what it is", "allowed"):
        shown.add_column(column, overflow="fold")
    for one in parameters.parameters_of(found).values():
        shown.add_row(*map(Text, (one.name, one.type, one.default, one.meaning, one.allowed)))
    out.print(shown)
    out.print(f"housing notebook {found.stem} -p KEY VALUE ...", markup=False)


def run_alone(
    path: Path,
    given: dict[str, Any],
    *,
    limit_s: float | None = None,
    wait: bool = False,
    alone: bool = True,
) -> "Run":
    """A finished run of one notebook, shown while it goes on.

    Raises
    ------
    RunError
        If another run holds the root, or a folder of reports cannot be made.
    NotebookError
        If the notebook cannot be read.
    RunStoppedError
        If the run's own record cannot be written.
    """
    from housing_lib import console, pipeline

    end_like_ctrl_c()
    with console.watching(out) as watch:
        return pipeline.run_one(
            path, given, limit_s=limit_s, alone=alone, wait_for_others=wait, watch=watch
        )
