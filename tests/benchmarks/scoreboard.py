"""One scoreboard of all benchmarks: what, ours, the peer's, their ratio, the target, met or not.

At a small size it takes minutes and says whether everything still measures. With --full the
sizes are those of the published figures, which are stored with the day, the machine and the
versions, and shown in the README.
Run: python tests/benchmarks/scoreboard.py --help
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import bars
from rich.console import Console

from housing_lib.files import atomic_path, read_json, write_json

HERE = Path(__file__).parent
PUBLISHED = HERE / "published.json"
README = HERE.parents[1] / "README.md"
MARKS = ("<!-- scoreboard -->", "<!-- end of the scoreboard -->")
SMALL = (
    "At a small size what is done once, as starting processes, weighs more than in the figures "
    "that README.md publishes: a target that is missed here can be met there (--full)."
)
VERSIONS = ("scikit-learn", "xgboost-cpu", "optuna", "mlflow", "fastapi", "papermill")
# What each benchmark is started with: at a small size, and for the published figures.
BENCHMARKS = {
    "accuracy": ("--seeds 0 --no-blocks", ""),
    "engine": ("--trials 2 --models ridge,decision_tree --peers 'bare script'", ""),
    "gate": ("--pairs 4 --better 2 --kills 4 --races 2", ""),
    "serving": ("--rounds 1 --seconds 1", ""),
    "monitoring": ("--only alarms,changes,batches --repeats 50", ""),
    "scale": ("predict neighbours --rows 20000 --trees 50", "--rows 10000000"),
}


def main() -> None:
    """Run benchmarks one after another, and print the scoreboard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--full", action="store_true", help="measure what the README publishes")
    parser.add_argument("--readme", action="store_true", help="only write the README's table anew")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(BENCHMARKS):
        parser.error(f"found {', '.join(sorted(unknown))}; expected {', '.join(BENCHMARKS)}")
    if not chosen.readme:
        found = {name: run(name, full=chosen.full) for name in chosen.names or BENCHMARKS}
        if len(found) > 1:
            every = [bar for one in found.values() for bar in one]
            Console(width=120).print(bars.table("Scoreboard", every))
        if chosen.full:
            publish(found)
        else:
            print(SMALL)
    if chosen.full or chosen.readme:
        write_readme()


def run(name: str, *, full: bool) -> list[bars.Bar]:
    """What one benchmark found, in a process of its own, whose own tables are printed too."""
    arguments = shlex.split(BENCHMARKS[name][full])
    with tempfile.TemporaryDirectory() as folder:
        left = Path(folder) / "bars.json"
        command = [sys.executable, "-W", "ignore", str(HERE / f"{name}.py"), *arguments]
        subprocess.run(command, env=os.environ | {"HOUSING_BARS": str(left)}, check=True)
        return [bars.Bar(**one) for one in read_json(left)]


def publish(found: dict[str, list[bars.Bar]]) -> None:
    """Store what was found as the published figures of those benchmarks."""
    stored = read_json(PUBLISHED) if PUBLISHED.exists() else {}
    where = {"day": time.strftime("%Y-%m-%d"), "machine": machine()}
    where["versions"] = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    made = {name: where | {"bars": [asdict(bar) for bar in one]} for name, one in found.items()}
    kept = {name: one for name, one in (stored | made).items() if name in BENCHMARKS}
    write_json(PUBLISHED, kept)


def machine() -> str:
    """The processor, its cores, and Python's version."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores of {processor}, Python {platform.python_version()}"


def readme_table() -> str:
    """The published figures as Markdown."""
    stored = read_json(PUBLISHED)
    lines = ["| what | ours | peer | ratio | target | |", "|---|---|---|---|---|---|"]
    for one in stored.values():
        lines += [f"| {' | '.join(bars.Bar(**bar).cells)} |" for bar in one["bars"]]
    notes: dict[str, list[str]] = {}
    for name, one in stored.items():
        measured = f"measured {one['day']} on {one['machine']}, with {one['versions']}"
        notes.setdefault(measured, []).append(f"`{name}.py`")
    lines += ["", *(f"{', '.join(names)}: {measured}." for measured, names in notes.items())]
    return "\n".join(lines)


def write_readme() -> None:
    """Put the table between the README's marks."""
    before, rest = README.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    with atomic_path(README) as temporary:
        temporary.write_text(f"{before}{MARKS[0]}\n{readme_table()}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
