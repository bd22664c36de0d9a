"""What a benchmark found, beside its peer, and the bar it has to clear; a table on the screen.

Where `HOUSING_BARS` names a file, the bars are left there too, for the scoreboard.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from housing_lib.files import write_json

SIGNS = {"≤": lambda found, target: found <= target, "≥": lambda found, target: found >= target}
COLUMNS = ("what", "ours", "peer", "ratio", "target", "")


@dataclass(frozen=True)
class Bar:
    """A measure and its target; `peer` is the peer's own figure, and `found` then the ratio.

    `ours` is our figure where `found` is not it.
    """

    measure: str
    found: float
    sign: str
    target: float
    unit: str = ""
    ours: str = ""
    peer: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar is cleared."""
        return bool(SIGNS[self.sign](self.found, self.target))

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the scoreboard."""
        found, unit = f"{self.found:,.4g}", f" {self.unit}".rstrip()
        asked = f"{self.sign} {self.target:,.4g}{unit}"
        shown = (self.ours, self.peer, found) if self.peer else (f"{found}{unit}", "", "")
        return (self.measure, *shown, asked, "met" if self.met else "missed")


def table(title: str, bars: Iterable[Bar]) -> Table:
    """Bars for the screen."""
    made = Table(*COLUMNS, title=title, title_justify="left")
    for bar in bars:
        made.add_row(*bar.cells, style="" if bar.met else "bold red")
    return made


def show(title: str, bars: Iterable[Bar]) -> None:
    """Print bars, and leave them for the scoreboard."""
    bars = list(bars)
    Console(width=120).print(table(title, bars))
    if path := os.environ.get("HOUSING_BARS"):
        write_json(Path(path), [asdict(bar) for bar in bars])
