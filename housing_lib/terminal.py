"""What all commands share: where they write, and how an error becomes text and an exit code."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from rich.console import Console

from housing_lib.errors import HousingError, OutageError

EXIT_DONE, EXIT_HELD = 0, 3
EXIT_FAILED = OutageError.exit_code

Cluster = Annotated[
    str, typer.Option(metavar="ADDRESS", help="a Dask scheduler, as tcp://scheduler:8786")
]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str, *, to: Console = out, style: str = "") -> None:
    """Print prose, broken at words where people read it and never where programs do."""
    to.print(text, style=style, markup=False, soft_wrap=not to.is_terminal)


def say_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command`, with the project's errors shown as text, ending with their exit code."""

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            _tell_no_settings()
            return command(*arguments, **options)
        except HousingError as error:
            say(f"{type(error).__name__}: {error}", to=err)
            raise typer.Exit(error.exit_code) from None

    return wrapped


def _tell_no_settings() -> None:
    """Say once which names are no settings; programs read what stands on standard output."""
    from housing_lib.settings import no_settings  # --help does not wait for it

    told = [
        f"{name} (did you mean {near}?)" if near else name for name, near in no_settings().items()
    ]
    if told:
        say(f"No settings, and so without effect: {', '.join(told)}. README.md lists all.", to=err)


def seconds_of(text: str) -> float:
    """The seconds in a length of time as people write it.

    Examples
    --------
    >>> seconds_of("90"), seconds_of("10m"), seconds_of("1.5h")
    (90.0, 600.0, 5400.0)
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        found = float(number) * unit
    except ValueError:
        found = 0
    if not 0 < found < 1e9:
        raise typer.BadParameter(f"'{text}' is no length of time; expected 90, 90s, 10m or 1.5h")
    return found


def clock(seconds: float | None) -> str:
    """Seconds as a stopwatch shows them; empty if there are none."""
    minutes, rest = divmod(int(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return shown if seconds else ""
