"""The commands about runs that there are: watch them, list, compare and remove them."""

import json
import time
from typing import Annotated

import typer

from housing_lib.terminal import clock, out, say_errors

NAMED = "an id, or its beginning; latest is the newest of all runs"
Name = Annotated[str, typer.Argument(metavar="RUN", help=NAMED)]
Json = Annotated[bool, typer.Option("--json", help="for machines")]


def add_to(app: typer.Typer) -> None:
    """Make these functions commands of `app`."""
    for command in (status, logs, runs, diff, clean):
        app.command()(say_errors(command))


def status(
    name: Name = "latest",
    as_json: Json = False,
) -> None:
    """Show how far a run is, also from another terminal."""
    from housing_lib import console
    from housing_lib import runs as records

    found = records.find(name)
    record = found.record
    if as_json:
        print(json.dumps(record, indent=2))
        return
    out.print(console.table(record))
    started = record["started"].replace("T", " ")
    out.print(f"{record['state']}, started {started}, {found.folder}")


def logs(
    step: Annotated[str, typer.Argument(help="as tuning-ridge, or 03_tuning-ridge")],
    name: Annotated[str, typer.Option("--run", help=NAMED)] = "latest",
    follow: Annotated[bool, typer.Option("-f", help="go on until the step ends")] = False,
) -> None:
    """Show what a step printed, also while it runs."""
    from housing_lib import runs as records

    found = records.find(name)
    path = records.log_of(found, step)
    with path.open(encoding="utf-8") as file:
        while True:
            text = file.read()
            print(text, end="", flush=True)
            if not text and (not follow or not records.is_running(found, path)):
                return
            time.sleep(0 if text else 0.3)


def runs(as_json: Json = False) -> None:
    """List all runs, newest first."""
    from rich import box
    from rich.table import Table

    from housing_lib import runs as records
    from housing_lib.summary import dollars

    damaged: dict[str, str] = {}
    known = records.past_runs(lambda path, why: damaged.update({str(path): why}))
    rows = [records.summary(run) for run in known]
    if as_json:
        print(json.dumps({"runs": rows, "damaged": damaged}, indent=2))
        return
    if not rows and not damaged:
        out.print("There is no run yet. `housing run` makes the first.")
        return
    title = f"{len(rows)} {'run' if len(rows) == 1 else 'runs'}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("run", "state", "took", "steps", "about", "test RMSE", "result"):
        shown.add_column(column, no_wrap=column == "run")
    for row in rows:
        rmse = dollars(row["test_rmse"]) if row["test_rmse"] else ""
        told = {**row, "seconds": clock(row["seconds"]), "test_rmse": rmse}
        shown.add_row(*told.values())
    out.print(shown)
    for path, why in damaged.items():
        out.print(f"{path} cannot be read: {why}", markup=False, soft_wrap=True)


def diff(
    first: Annotated[str, typer.Argument(help=NAMED)],
    second: Annotated[str, typer.Argument(help="another one")],
    as_json: Json = False,
) -> None:
    """Show what differs between two runs: data, code, parameters, packages, metrics, champion."""
    from rich.table import Table
    from rich.text import Text

    from housing_lib import comparison
    from housing_lib import runs as records

    old, new = records.find(first), records.find(second)
    rows = comparison.compare(old, new)
    if as_json:
        print(json.dumps([row.__dict__ for row in rows], indent=2))
        return
    if not rows:
        out.print(f"{old.id} and {new.id} do not differ.")
        return
    shown = Table(title="What differs", title_justify="left")
    for column in ("", "what", old.id, new.id):
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, (row.kind, row.name, row.old, row.new)))
    out.print(shown)


def clean(
    keep: Annotated[int, typer.Option(min=1, help="how many of the newest runs stay")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
) -> None:
    """Remove old runs, with their files and MLflow runs, never what Production came from."""
    from housing_lib import housekeeping

    old = housekeeping.removable(keep=keep)
    if not old:
        out.print(f"Nothing to remove: there are no more than {keep} runs, or all are needed.")
        return
    mlflow_runs = housekeeping.removable_mlflow_runs(old)
    for run_, size in old.items():
        out.print(f"{run_.id}  {run_.state:<7} {size / 1e6:8.1f} MB")
    total = f"{sum(old.values()) / 1e6:.1f} MB, and {len(mlflow_runs)} runs of MLflow"
    if yes or (out.is_terminal and typer.confirm(f"Remove {len(old)} runs, {total}?")):
        housekeeping.remove(old, mlflow_runs)
        out.print(f"{len(old)} runs removed, {total}.")
    else:
        out.print(f"{len(old)} runs, {total}. Nothing was removed; --yes removes them.")
