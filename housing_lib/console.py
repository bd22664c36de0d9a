"""What a person sees of a run: a live table, or plain lines where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from housing_lib.pipeline import Run, Step, Watcher

STYLES = {
    "waiting": "dim",
    "running": "bold cyan",
    "done": "green",
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
        yield lambda run: live.update(table(run))


def table(run: Run) -> Table:
    """One row a step: its state, how far it is, and the time it took."""
    shown = Table(title=f"Run {run.id}", title_justify="left", expand=False)
    widest = max(len(name) for name in run.steps)
    shown.add_column("step", no_wrap=True, min_width=widest)
    shown.add_column("state", no_wrap=True, min_width=len("waiting"))
    shown.add_column("progress", no_wrap=True, overflow="ellipsis")
    shown.add_column("time", justify="right", no_wrap=True, min_width=len("00:00"))
    for step in run.steps.values():
        state = Text(step.state, style=STYLES[step.state])
        shown.add_row(step.id, state, _progress(step), _clock(step.elapsed))
    return shown


def _progress(step: Step) -> str:
    if step.reason:
        return step.reason.splitlines()[0]
    k, n, heading = step.cell
    if step.state == "running":
        return f"cell {k} of {n}  {heading}" if n else "starting"
    return _result(step)


def _result(step: Step) -> str:
    record = step.record
    if "val_rmse" in record:
        return f"validation RMSE {record['val_rmse']:.4f}"
    if "decision" in record:
        return f"version {record['version']} {record['decision']}: {record['reason']}"
    if "batches" in record:
        seen = f", {record['fitted']:,} rows were fitted on" if record["fitted"] else ""
        return f"{record['batches']:,} batches, MAE {record['mae']:.4f}{seen}"
    return ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if seconds else ""


def _line_writer(console: Console) -> Watcher:
    seen: dict[str, str] = {}

    def write(run: Run) -> None:
        for step in run.steps.values():
            if seen.get(step.id, "waiting") != step.state:
                seen[step.id] = step.state
                line = f"{_clock(run.seconds) or '0:00':>6}  {step.id:<26} {step.state:<8}"
                console.print(f"{line} {_progress(step)}".rstrip(), soft_wrap=True, highlight=False)

    return write
