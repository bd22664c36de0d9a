"""The `housing` command: each subcommand is one job of the project."""

import atexit
import gc
import os
import re
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from housing_lib import action_commands, monitor_command, past_commands, run_commands
from housing_lib.errors import HousingError
from housing_lib.terminal import EXIT_HELD, Cluster, err, out, say
from housing_lib.terminal import say_errors as _say_errors

LOOPBACK = "127.0.0.1"

app = typer.Typer(
    help="Predict median house values in Californian districts, and keep the predictions honest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
run_commands.add_to(app)
past_commands.add_to(app)
monitor_command.add_to(app)
action_commands.add_to(app)


@app.command()
@_say_errors
def data(
    source: Annotated[
        str, typer.Option(help="bundled, sklearn (the official download), or a CSV or Parquet file")
    ] = "bundled",
    restore: Annotated[bool, typer.Option(help="bring the bundled file back from git")] = False,
) -> None:
    """Check a source of districts against the contract and show what is in it."""
    from housing_lib import data as districts_data
    from housing_lib import sufficiency

    if restore:
        districts_data.restore_bundled()
    districts = districts_data.acquire(source)
    shown = Table(title=f"{len(districts):,} districts from {source}", title_justify="left")
    columns = districts_data.summarise(districts)
    for name in ("column", *columns.columns):
        shown.add_column(name, justify="left" if name in ("column", "unit") else "right")
    for row in columns.itertuples():
        shown.add_row(
            *(f"{value:,.5g}" if isinstance(value, float) else str(value) for value in row)
        )
    out.print(shown)
    at_cap = int(districts_data.capped(districts[districts_data.TARGET]).sum())
    twice = districts_data.duplicates(districts)
    found = f"{twice:,} duplicates, {at_cap:,} prices at the cap of the census"
    digest = districts_data.data_digest(districts)
    say(f"The contract holds: {found}, digest {digest}.")
    if lacking := sufficiency.what_is_lacking(districts):
        say(f"They are too few for a run: {lacking}.")


@app.command()
@_say_errors
def tune(
    family: Annotated[
        str, typer.Argument(help="as xgboost; housing notebook 03 --help-notebook lists them")
    ],
    trials: Annotated[
        int, typer.Option(min=1, help="the total, whoever runs them; a standard run's: 30")
    ] = 20,
    join: Annotated[
        bool, typer.Option("--join", help="help with a search in HOUSING_STUDY_URL, to its total")
    ] = False,
    abreast: Annotated[int, typer.Option(min=1, help="trials proposed and run side by side")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="the seed of the search")
    ] = None,
    growth: Annotated[
        float, typer.Option(min=0.05, max=1, help="the share of its size to which a family grows")
    ] = 1.0,
    cluster: Cluster = "",
) -> None:
    """Search one family's hyperparameters on the preprocessed districts.

    The trials are kept: `housing run` takes them from there, if seed, growth, code and packages
    are the same and they did not run abreast. A search that was stopped goes on. Several machines
    share one search by HOUSING_STUDY_URL: one begins it, the others `--join`; the number of trials
    stays the total, and the trial of a machine that dies is run again by another.
    """
    from housing_lib import compute, families, parts, studies, tuning
    from housing_lib.processes import cores
    from housing_lib.settings import get_settings, use_cluster
    from housing_lib.summary import dollars

    families.get_family(family)
    use_cluster(cluster)
    parts.load_manifest()
    train, val = parts.load_part("train"), parts.load_part("val")
    chosen = get_settings().seed if seed is None else seed
    name = tuning.study_name(family, train, val, seed=chosen, growth=growth, abreast=abreast)
    total = studies.total_to_join(name) if join else trials
    place = compute.where(min(abreast, cores()))
    told = "here, and wherever others join" if studies.is_shared() else f"on {place}"
    err.print(f"Trials run {told}, {abreast} at a time.", soft_wrap=True)
    search = tuning.tune(
        family, train, val, n_trials=total, seed=chosen, growth=growth, abreast=abreast,
        on_trial=_tell_trial,
    )  # fmt: skip
    best = search.best
    say(
        f"The best of {len(search.trials)} trials is {best.number}, counted from 0, with a "
        f"validation RMSE of {dollars(best.metrics['val_rmse'])}: {best.params}"
    )


def _tell_trial(trial: Any) -> None:
    from housing_lib.summary import dollars

    shown = dollars(trial.metrics["val_rmse"])
    out.print(f"trial {trial.number:3d}  {trial.state:<8}  {shown:>8}  {trial.seconds:5.1f} s")


@app.command()
@_say_errors
def predict(
    source: Annotated[
        str, typer.Argument(help="CSV or Parquet: a file, a folder, a 'glob', or s3://bucket/...")
    ],
    target: Annotated[
        str, typer.Argument(help="a file, or a folder for many (default: data/predictions/)")
    ] = "",
    stage: Annotated[
        Literal["production", "staging", "previous"], typer.Option(help="whose model predicts")
    ] = "production",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="processes (default: at most one a core, where the size pays)"),
    ] = None,
    cluster: Cluster = "",
) -> None:
    """Write the model's predictions beside the columns of files of any size.

    Each row gets a price, its 90 % interval, the error to expect and flags. Rows that break the
    contract go to a quarantine file with the reasons (exit code 3); a manifest beside the
    predictions counts both, with the model's version and all digests. Stopped or killed? The same
    command goes on where it was, and comes to the same bytes.
    """
    from housing_lib import answering, compute, console, scoring, targets
    from housing_lib.settings import use_cluster

    use_cluster(cluster)
    goal = target or targets.default_target(source)
    asked = answering.answering(stage)
    with console.progress(err, f"on {compute.where(jobs)}") as tell:
        scored = scoring.predict(source, goal, asked=asked, jobs=jobs, on_progress=tell)
    _tell_scored(scored)


def _tell_scored(scored: Any) -> None:
    done = f"{scored.scored:,} districts by version {scored.model_version}: {scored.target}"
    out.print(done, soft_wrap=True, markup=False)
    if not scored.quarantined:
        return
    what = f"{scored.quarantined:,} of {scored.rows:,} rows are in quarantine"
    out.print(f"{what}: {', '.join(scored.quarantine[:3])}", soft_wrap=True, markup=False)
    for reason, count in sorted(scored.reasons.items(), key=lambda one: -one[1])[:5]:
        out.print(f"  {count:>10,}  {reason}", markup=False)
    raise typer.Exit(EXIT_HELD)


@app.command()
@_say_errors
def promote(
    version: Annotated[int | None, typer.Argument(help="default: the version in Staging")] = None,
) -> None:
    """Let the gate decide whether a version goes to Production."""
    from housing_lib import promotion

    _tell(promotion.promote(version))


@app.command()
@_say_errors
def gate(
    version: Annotated[int | None, typer.Argument(help="default: the version in Staging")] = None,
) -> None:
    """Show what the gate would say of a version, without deciding."""
    from housing_lib import promotion

    found = promotion.assess(version)
    before = f"version {found.incumbent}" if found.incumbent else "no version in Production"
    _show_rules(found.rules, title=f"version {found.version} against {before}")
    say(f"{found.sentence} Nothing was decided.")
    if not found.passed:
        raise typer.Exit(EXIT_HELD)


def _show_rules(rules: Any, *, title: str) -> None:
    shown = Table(title=title, title_justify="left")
    for name in ("rule", "found", "asked", "verdict"):
        shown.add_column(name, overflow="fold")
    for rule in rules:
        style = "green" if rule.passed else "bold red"
        shown.add_row(rule.name, rule.figure, rule.bar, f"[{style}]{rule.verdict}[/]")
    out.print(shown)


@app.command()
@_say_errors
def rollback(
    to: Annotated[int | None, typer.Option(help="default: the version before this one")] = None,
    why: Annotated[str, typer.Option(metavar="TEXT", help="the reason, for the ledger")] = "",
) -> None:
    """Bring an earlier version back to Production."""
    from housing_lib import connection, registry

    connection.import_slim()
    _tell(registry.rollback(to, why=why))


def _tell(decision: Any) -> None:
    reasons, version = "; ".join(decision.reasons), f"version {decision.version}"
    back = decision.decision == "rolled back"
    what = f"back to {version}" if back else f"{version} {decision.decision}"
    say(f"{what}: {reasons}.")
    if not decision.promoted:
        stays = decision.incumbent and f"stays at version {decision.incumbent}"
        out.print(f"Production {stays or 'was not changed'}.")
        raise typer.Exit(EXIT_HELD)


@app.command()
@_say_errors
def history(
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """Show the ledger: every decision, after finishing one that was interrupted."""
    from housing_lib import connection, ledger

    connection.refuse_lost()
    connection.import_slim()
    ledger.settle()
    lines = ledger.history()
    if as_json:
        out.print_json(data=[asdict(line) for line in lines])
        return
    if not lines:
        say("There is no decision yet. `housing run` makes a version, and the gate decides on it.")
        return
    _show_ledger(lines)
    stages = {stage: ledger.stage_version(stage) for stage in ledger.STAGES}
    out.print(
        ", ".join(f"{stage.title()}: {version or 'none'}" for stage, version in stages.items())
    )
    for found in ledger.damage():
        say(f"The ledger was bypassed or altered: {found}.", to=err, style="red")


def _show_ledger(lines: Any) -> None:
    from housing_lib.settings import get_settings

    name = get_settings().model_name
    shown = Table(title=f"{name}: decisions", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("line", "when", "who", "decision", "from", "to", "why"):
        shown.add_column(heading, no_wrap=heading != "why", overflow="fold")
    for one in lines:
        when = one.when.replace("T", " ")[:16]
        move = (one.decision, str(one.incumbent or "–"), str(one.version))
        why = escape("; ".join(one.reasons)) + f"\n[dim]evidence {one.evidence_sha256[:12]}[/]"
        shown.add_row(str(one.line), when, escape(one.who), *move, why)
    out.print(shown)


@app.command()
@_say_errors
def report(
    run: Annotated[
        str, typer.Argument(help="an id, or its beginning; latest is the newest with a model")
    ] = "latest",
    pdf: Annotated[bool, typer.Option("--pdf", help="also print every page, by Chromium")] = False,
) -> None:
    """Make a run's index page anew from its records, and every page a PDF if asked."""
    from housing_lib import pages, printing
    from housing_lib.settings import get_settings

    if pdf:
        printing.find_browser()
    folder = pages.rewrite(get_settings().reports, run)
    out.print(f"Report   {folder / 'index.html'}", soft_wrap=True)
    for page in sorted(folder.glob("*.html")) if pdf else []:
        printing.print_pdf(page, page.with_suffix(".pdf"))
        out.print(f"Printed  {page.with_suffix('.pdf')}", soft_wrap=True)


@app.command()
@_say_errors
def serve(
    host: Annotated[
        str | None, typer.Option(help="address to listen on (default: HOUSING_HOST, or 127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="port to listen on (default: HOUSING_PORT, or 8000)"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="processes that answer")] = 1,
    without_keys: Annotated[
        bool, typer.Option(help="answer other machines although no API keys are set")
    ] = False,
) -> None:
    """Serve the Production model over HTTP."""
    from housing_lib.settings import get_settings
    from serve.launch import launch

    _refuse_taken(host or get_settings().host, port or get_settings().port)
    launch(host, port, workers, without_keys=without_keys)


def _refuse_taken(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise HousingError(
                f"{host}:{port} cannot be listened on: {error.strerror}. --port names another. "
                "Nothing was started."
            ) from None


@app.command()
@_say_errors
def key(
    name: Annotated[str, typer.Argument(help="who will use it; appears in the access log")],
    scopes: Annotated[
        str, typer.Option(help="some of predict, actuals, metrics, separated by commas")
    ] = "predict",
) -> None:
    """Make an API key for the server, and the entry of HOUSING_API_KEYS that lets it in."""
    from serve.keys import new_key

    secret, made = new_key(name, [scope.strip() for scope in scopes.split(",")])
    out.print(f"The key, shown this once:         {secret}", soft_wrap=True, markup=False)
    out.print(f"Its entry in HOUSING_API_KEYS:    {made.entry}", soft_wrap=True, markup=False)


@app.command()
@_say_errors
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 5000,
) -> None:
    """Serve MLflow's own pages on the project's store, or say which server does so already."""
    from housing_lib import connection
    from housing_lib.settings import get_settings

    store = get_settings().store_uri
    if get_settings().store_is_server:
        shown = re.sub("//[^/]*@", "//", store)
        out.print(f"MLflow's pages are at {shown}", soft_wrap=True, markup=False)
        return
    _refuse_taken(LOOPBACK, port)  # MLflow asks nobody who they are
    connection.client()
    # On the command line, everybody on this machine could read the password of a database.
    told = {"BACKEND_STORE_URI": store, "SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.environ.update({f"MLFLOW_{name}": value for name, value in told.items()})
    arguments = ["mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    os.execvp(Path(sys.executable).with_name("mlflow"), arguments)


def main() -> None:
    """Run the command line."""
    # Imports make many objects and no garbage: looking for it would be half a second of waiting.
    gc.set_threshold(200_000)
    atexit.register(gc.freeze)
    app()
