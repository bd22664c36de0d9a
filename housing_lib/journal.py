"""A run while it is one, and its record: `run.json` is its truth, `events.jsonl` tells it live."""

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from housing_lib import provenance
from housing_lib.files import write_json
from housing_lib.graph import Plan, Selection, Step
from housing_lib.runs import PACKAGES_FILE, PROCESS_FILE, reports_folder
from housing_lib.settings import get_settings
from housing_lib.terminal import EXIT_DONE, EXIT_FAILED, EXIT_HELD


@dataclass
class Run:
    """One run: its steps in the order of the table, and what came of them."""

    id: str
    plan: Plan
    steps: dict[str, Step]
    choice: Selection = field(default_factory=Selection)
    state: str = "running"
    stopping: str = ""
    untold: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    resumed: float = field(default_factory=time.time)
    spent: float = 0.0  # seconds, before it was resumed
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        """The folder of the run's reports."""
        return get_settings().reports / self.id

    def record_of(self, step_id: str) -> dict[str, Any]:
        """What a step recorded; empty if it did not run or failed."""
        step = self.steps.get(step_id)
        return step.record if step and step.finished else {}

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked for: the plan, or the parameters of the one notebook."""
        if self.plan.models:
            return {name: value for name, value in asdict(self.plan).items() if value is not None}
        return {
            key: value for step in self.steps.values() for key, value in step.parameters.items()
        }

    @property
    def champion(self) -> dict[str, Any] | None:
        """The chosen model with its metrics and what the registry decided on it."""
        chosen = self.record_of("evaluation").get("champion")
        return chosen and {**chosen, **self.record_of("promotion")}

    @property
    def exit_code(self) -> int:
        """0 done, 1 a step failed, 3 done and the gate held."""
        if self.state != "done":
            return EXIT_FAILED
        held = self.record_of("promotion").get("decision") == "held"
        return EXIT_HELD if held else EXIT_DONE


class Journal:
    """Keeps a run's files in step with it: what changed is written, what did not is not."""

    def __init__(self, current: Run) -> None:
        self.run = current
        self._written: dict[str, Any] = {}
        self._told: dict[str, Any] = {}

    def begin(self) -> None:
        """Say whose run it is, for others to see that it is alive."""
        write_json(self.run.folder / PROCESS_FILE, _this_process())
        write_json(self.run.folder / PACKAGES_FILE, provenance.packages())
        self._tell({"event": "run", "run": self.run.id, "state": "running"})

    def keep(self) -> None:
        """Write `run.json` and new events, if anything changed."""
        self.run.seconds = self.run.spent + time.time() - self.run.resumed
        for step in self.run.steps.values():
            self._tell_of(step)
        content = to_json(self.run)
        if _lasting(content) != self._written:
            write_json(self.run.folder / "run.json", content)
            self._written = _lasting(content)

    def end(self) -> None:
        """Write what is left, and leave."""
        self.keep()
        self._tell({"event": "run", "run": self.run.id, "state": self.run.state})
        self.leave()

    def leave(self) -> None:
        """Say that nobody is at it any more."""
        (self.run.folder / PROCESS_FILE).unlink(missing_ok=True)

    def _tell_of(self, step: Step) -> None:
        news: dict[str, Any] = {"event": "step", "step": step.id, "state": step.state}
        if self._told.get(step.id, "waiting") != step.state:
            self._told[step.id] = step.state
            self._tell(news | {"reason": step.reason, "seconds": round(step.seconds, 1)})
        k, n, heading = step.cell
        if k and self._told.get(f"{step.id} cell") != k:
            self._told[f"{step.id} cell"] = k
            place = {"event": "cell", "step": step.id, "cell": k, "of": n, "heading": heading}
            self._tell(place)

    def _tell(self, event: dict[str, Any]) -> None:
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        with (self.run.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, **event}) + "\n")


def new_id() -> str:
    """The id of a run that starts now, local date and time; its folder is there afterwards.

    Raises
    ------
    RunError
        If the folder of reports cannot be made.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    folder = reports_folder()
    for name in (now if number == 1 else f"{now}-{number}" for number in count(1)):
        with suppress(FileExistsError):
            (folder / name).mkdir()
            break
    return name


def to_json(current: Run) -> dict[str, Any]:
    """A run as `run.json` holds it."""
    return {
        **provenance.describe(),
        "id": current.id,
        "state": current.state,
        "started": datetime.fromtimestamp(current.started).isoformat(timespec="seconds"),
        "seconds": round(current.seconds, 1),
        "data_digest": current.record_of("preprocessing").get("data_digest", ""),
        "parameters": current.parameters,
        "choice": asdict(current.choice),
        "steps": [_step_json(step) for step in current.steps.values()],
        "champion": current.champion,
        "leaderboard": current.record_of("evaluation").get("leaderboard", []),
    }


def _step_json(step: Step) -> dict[str, Any]:
    keys = ("name", "variant", "state", "reason", "key", "report", "record", "cell", "origin")
    more = ("why", "words", "made_of", "files", "outputs")
    found = {key: getattr(step, key) for key in (*keys, *more, "expected_s")}
    return {"id": step.id, **found, "seconds": round(step.elapsed, 1)}


def _lasting(content: dict[str, Any]) -> dict[str, Any]:
    """What is worth writing for: all but the seconds, which pass by themselves."""
    steps = [{**step, "seconds": step["state"] == "running"} for step in content["steps"]]
    return {**content, "seconds": 0, "steps": steps}


def _this_process() -> dict[str, Any]:
    import psutil

    return {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "host": platform.node(),
        "user": provenance.user(),
        "command": provenance.command(),
        "since": datetime.now().isoformat(timespec="seconds"),
    }
