"""Steps of small notebooks, for the tests of how runs go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import v4

from housing_lib.graph import Recorded, Step

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


@dataclass(frozen=True)
class TinySteps:
    """Steps of small notebooks, which leave a line in a file whenever they are executed."""

    folder: Path

    def make(
        self, name: str, *sources: str, words: str = "# Tiny", recorded: Any = None, **more: Any
    ) -> Step:
        """A step of a notebook that runs `sources` and records something."""
        record = recorded or {"x": 1}
        note = f"with open({str(self.folder / 'executed')!r}, 'a') as f: f.write('{name}\\n')"
        start = "from housing_lib import reports", note, *sources, f"reports.record(**{record})"
        given = v4.new_code_cell("seen: str = ''", metadata={"tags": ["parameters"]})
        cells = [v4.new_markdown_cell(words), given, *map(v4.new_code_cell, start)]
        for number, cell in enumerate(cells):
            cell["id"] = f"{name}-{number}"
        path = self.folder / f"00_{name}.ipynb"
        nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
        return Step(name, notebook=str(path), **more)

    def three(self, *, first: Any = (), second: Any = (), words: str = "# Tiny") -> list[Step]:
        """A step, one that is given what it recorded, and one beside them."""
        seen = {"seen": Recorded(["first"], "x")}
        return [
            self.make("first", *first),
            self.make("second", *second, words=words, after=["first"], parameters=seen),
            self.make("beside"),
        ]

    @property
    def executed(self) -> list[str]:
        """The names of the steps that were executed, in order; forgotten by asking."""
        path = self.folder / "executed"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names
