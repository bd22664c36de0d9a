"""What a person sees of a run: a live table, or plain lines where there is no terminal."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from housing_lib.journal import Run, to_json
from housing_lib.pipeline import Watcher
from housing_lib.summary import dollars
from housing_lib.terminal import clock

STYLES = {
    "waiting": "dim",
    "running": "bold cyan",
    "done": "green",
    "reused": "green",
    "failed": "bold red",
    "skipped": "yellow",
    "killed": "yellow",
}


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A watcher of runs that shows each change on `console`."""
    if not console.is_terminal:
        yield _line_writer(console)
        return
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        yield lambda run: live.update(table(to_json(run)))


@contextmanager
def progress(console: Console, label: str) -> Iterator[Callable[[float, int], None]]:
    """A function that hears how much of some work is done, and shows it where people look."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        task = shown.add_task(label, total=1.0, rows=0)
        yield lambda share, rows: shown.update(task, completed=share, rows=rows)


def table(run: Mapping[str, Any]) -> Table:
    """One row a step of what `run.json` holds: state, how far it is, time, time it took last."""
    shown = Table(title=_title(run), title_justify="left", expand=False)
    widest = max((len(step["id"]) for step in run["steps"]), default=0)
    shown.add_column("step", no_wrap=True, min_width=widest)
    shown.add_column("state", no_wrap=True, min_width=len("waiting"))
    shown.add_column("progress")  # the only one that may be narrowed, and it shows one line
    shown.add_column("time", justify="right", no_wrap=True, min_width=len("00:00"))
    shown.add_column("last", justify="right", no_wrap=True, style="dim", min_width=len("00:00"))
    for step in run["steps"]:
        state = Text(step["state"], style=STYLES[step["state"]])
        times = clock(step["seconds"]), clock(step.get("expected_s"))
        progress = Text(_progress(step), no_wrap=True, overflow="ellipsis")
        shown.add_row(step["id"], state, progress, *times)
    return shown


def _title(run: Mapping[str, Any]) -> str:
    left = _time_left(run)
    more = f", what is running needs about {clock(left)} more" if left else ""
    return f"Run {run['id']}{more}"


def _time_left(run: Mapping[str, Any]) -> float:
    """The seconds until the last of the running steps ends, by the times they took before."""
    running = [step for step in run["steps"] if step["state"] == "running"]
    known = [step["expected_s"] - step["seconds"] for step in running if step.get("expected_s")]
    return float(max([0, *known]))


def _progress(step: Mapping[str, Any]) -> str:
    if step["reason"]:
        return str(step["reason"].splitlines()[0])
    k, n, heading = step["cell"]
    if step["state"] == "running":
        return f"cell {k} of {n}  {heading}" if n else f"starting: {step['why']}"
    return _result(step["record"])


def _result(record: Mapping[str, Any]) -> str:
    if "val_rmse" in record:
        return f"validation RMSE {dollars(record['val_rmse'])}"
    if "decision" in record:
        return f"version {record['version']} {record['decision']}: {record['reason']}"
    if "batches" in record:
        seen = f", {record['fitted']:,} rows were fitted on" if record["fitted"] else ""
        faulty = record.get("faulty_rows", 0)
        seen += f", {faulty:,.0f} rows break the contract" if faulty else ""
        error = f", MAE {dollars(record['mae'])}" if "mae" in record else ", no true prices yet"
        noun = "batch" if record["batches"] == 1 else "batches"
        return f"{record['batches']:,} {noun}{error}{seen}"
    return ""


def _line_writer(console: Console) -> Watcher:
    seen: dict[str, str] = {}

    def write(run: Run) -> None:
        for step in to_json(run)["steps"]:
            if seen.get(step["id"], "waiting") != step["state"]:
                seen[step["id"]] = step["state"]
                line = f"{clock(run.seconds) or '0:00':>6}  {step['id']:<26} {step['state']:<8}"
                shown = f"{line} {_progress(step)}".rstrip()
                console.print(shown, soft_wrap=True, highlight=False, markup=False)

    return write
