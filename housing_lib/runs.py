"""The runs of a root as their folders tell them, and who holds the root."""

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from housing_lib import locks
from housing_lib.errors import HousingError
from housing_lib.files import read_json, remove_leftovers, write_json
from housing_lib.graph import CUT_SHORT, FINISHED, Plan, Selection
from housing_lib.settings import get_settings

PACKAGES_FILE = "packages.json"
PROCESS_FILE = "process.json"  # whose run it is; it is there while the run is
HOLDER = "run {run} ({command}), process {pid} of {user} on {host} since {since}"


class RunError(HousingError):
    """A run that is not there, cannot be read, or stands in the way of another."""


@dataclass(frozen=True, eq=False)
class PastRun:
    """A run as its folder tells it, finished or not."""

    folder: Path
    content: dict[str, Any]

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.folder.name

    @property
    def state(self) -> str:
        """Its state; a run whose process is gone was killed, whatever it wrote last."""
        written = str(self.content["state"])
        return "killed" if written == "running" and not self.is_alive else written

    @property
    def record(self) -> dict[str, Any]:
        """What it wrote last; what goes on took longer since, and what is gone was cut short."""
        if self.state == "running":
            return self._as_of_now()
        if self.state == self.content["state"]:
            return self.content
        return self.content | {"state": "killed", "steps": [*map(_cut_short, self.steps)]}

    def _as_of_now(self) -> dict[str, Any]:
        # run.json is written when something happens, and time passes in between.
        passed = max(0.0, time.time() - (self.folder / "run.json").stat().st_mtime)
        steps = [_longer(one, passed) if one["state"] == "running" else one for one in self.steps]
        return _longer(self.content, passed) | {"steps": steps}

    @property
    def is_alive(self) -> bool:
        """Whether the process that runs it still does."""
        return _is_alive(self.process)

    @property
    def process(self) -> dict[str, Any]:
        """Whose run it is, while it is one: process, machine, user, command."""
        with suppress(OSError, ValueError):
            return dict(read_json(self.folder / PROCESS_FILE))
        return {}

    @property
    def packages(self) -> dict[str, str]:
        """The versions of all packages that were installed when it ran."""
        with suppress(OSError, ValueError):
            return dict(read_json(self.folder / PACKAGES_FILE))
        return {}

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Its steps as `run.json` holds them."""
        return list(self.content["steps"])


def _longer(timed: dict[str, Any], by: float) -> dict[str, Any]:
    return timed | {"seconds": round(timed.get("seconds", 0) + by, 1)}


def _cut_short(step: dict[str, Any]) -> dict[str, Any]:
    ended = CUT_SHORT.get(step["state"])
    return step | {"state": ended, "reason": "the run was killed"} if ended else step


def _is_alive(process: dict[str, Any]) -> bool:
    import psutil

    if not process:
        return False
    if process.get("host") != platform.node():
        return True  # nobody can tell from here
    with suppress(psutil.Error, KeyError, TypeError):
        return bool(abs(psutil.Process(process["pid"]).create_time() - process["created"]) < 2)
    return False


@contextmanager
def holding_root(*, wait: bool) -> Iterator[None]:
    """Hold the root, so that no other run changes its processed data and models meanwhile.

    Raises
    ------
    RunError
        If another run, which is named, holds it and `wait` is off; or the folder of reports cannot
        be made.
    LockError
        If the lock cannot be taken.
    """
    path, timeout_s = reports_folder() / ".lock", -1 if wait else 0
    with locks.holding(path, timeout_s=timeout_s, taken=lambda: RunError(_who_holds())):
        yield


def reports_folder() -> Path:
    """The folder of all reports, which is there afterwards.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    return make_folder(get_settings().reports)


def make_folder(folder: Path) -> Path:
    """A folder of reports, which is there afterwards.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be made: {error.strerror}. Reports need a folder that can be "
            "written; HOUSING_ROOT names another place. Nothing was run."
        ) from error
    return folder


def _who_holds() -> str:
    alive = [(run.id, run.process) for run in past_runs() if run.is_alive]
    told = [
        HOLDER.format_map(defaultdict(lambda: "?", process) | {"run": run_id})
        for run_id, process in alive
        if process
    ]
    return (
        f"{get_settings().root} is held by {told[0] if told else 'another run that just starts'}. "
        "`--wait` waits for its end; HOUSING_ROOT names another place. Nothing was run."
    )


def past_runs(
    on_damage: Callable[[Path, str], None] = lambda path, why: None,
    *,
    reports: Path | None = None,
    check: Callable[[Mapping[str, Any]], object] = lambda content: None,
) -> list[PastRun]:
    """The runs that can be read, newest first.

    Parameters
    ----------
    on_damage
        Hears the `run.json` of each other run, and what is wrong with it.
    reports
        The folder of all reports; by default that of this root.
    check
        Raises a `KeyError` or the like where a record lacks what its reader needs.
    """
    found = []
    for path in (reports or get_settings().reports).glob("*/run.json"):
        if path.parent.is_symlink():
            continue
        try:
            content = read_json(path)
            run = PastRun(path.parent, content)
            _ = content["state"], content["started"], [step["state"] for step in run.steps]
            check(content)
            found.append(run)
        except (OSError, ValueError, KeyError, TypeError) as error:
            on_damage(path, f"{type(error).__name__}: {error}")
    return sorted(found, key=lambda run: (str(run.content["started"]), run.id), reverse=True)


def find(name: str) -> PastRun:
    """The run of an id, of the beginning of one, or `latest`.

    Raises
    ------
    RunError
        If there is none, or more than one.
    """
    damaged: list[Path] = []
    known = past_runs(lambda path, why: damaged.append(path))
    if not known:
        raise RunError(f"{_none(damaged)}, and so no '{name}'. `housing run` makes one.")
    if name == "latest":
        matching = known[:1]
    else:
        matching = [run for run in known if run.id == name] or [
            run for run in known if run.id.startswith(name)
        ]
    if len(matching) != 1:
        many = f"{len(matching)} runs begin with" if matching else "there is no run"
        newest = ", ".join(run.id for run in (matching or known)[:5])
        raise RunError(f"{many} '{name}'. Found: {newest}. `housing runs` lists all.")
    return matching[0]


def _none(damaged: Sequence[Path]) -> str:
    if damaged:
        return f"there is no run that can be read ({', '.join(map(str, damaged))} cannot)"
    return "there is no run yet"


def mend() -> list[str]:
    """The ids of the runs whose process is gone; their records say now that they were killed."""
    dead = [run for run in past_runs() if run.state != run.content["state"]]
    for run in dead:
        write_json(run.folder / "run.json", run.record)
        (run.folder / PROCESS_FILE).unlink(missing_ok=True)
        remove_leftovers(run.folder)
    return [run.id for run in dead]


def unfinished() -> PastRun:
    """The newest run of the graph, if it did not finish.

    Raises
    ------
    RunError
        If it did, or there is none.
    """
    damaged: list[Path] = []
    known = past_runs(lambda path, why: damaged.append(path))
    whole = [run for run in known if "models" in run.content.get("parameters", {})]
    if not whole or whole[0].state == "done":
        last = f"the last run, {whole[0].id}, is done" if whole else _none(damaged)
        raise RunError(f"nothing to resume: {last}. `housing run` starts one. Nothing was run.")
    return whole[0]


def plan_of(past: PastRun, *, jobs: int | None) -> Plan:
    """What a run was asked to do, with another number of jobs if given."""
    known = {field.name for field in fields(Plan)}
    given = {name: value for name, value in past.content["parameters"].items() if name in known}
    return Plan(**(given | ({"jobs": jobs} if jobs else {})))


def time_of(past: PastRun) -> tuple[float, float]:
    """When a run started, and the seconds that it took."""
    started = datetime.fromisoformat(past.content["started"]).timestamp()
    return started, float(past.content["seconds"])


def choice_of(past: PastRun) -> Selection:
    """Which of its steps a run was asked to run again."""
    return Selection(**past.content.get("choice", {}))


def done_in(past: PastRun) -> set[str]:
    """The steps that a run finished itself."""
    return {step["id"] for step in past.steps if step["state"] == "done"}


def subject(content: Mapping[str, Any]) -> str:
    """What a run is about: its champion, or the one notebook that it ran."""
    steps = content["steps"]
    alone = steps[0]["name"] if len(steps) == 1 else ""
    return str((content.get("champion") or {}).get("title", alone))


def outcome(content: Mapping[str, Any]) -> str:
    """What a run came to: the gate's decision, or the verdict of monitoring; empty without one."""
    verdicts = [step.get("record", {}).get("verdict") or {} for step in content["steps"]]
    found = [one["state"] for one in verdicts if "state" in one]
    return str((content.get("champion") or {}).get("decision", found[-1] if found else ""))


def summary(run: PastRun) -> dict[str, Any]:
    """What a list of runs says of one."""
    champion = run.content.get("champion") or {}
    metrics = champion.get("metrics", {})
    finished = sum(step["state"] in FINISHED for step in run.steps)
    return {
        "run": run.id,
        "state": run.state,
        "seconds": run.record["seconds"],
        "steps": f"{finished} of {len(run.steps)}",
        "champion": subject(run.content),
        "test_rmse": metrics.get("test_rmse"),
        "decision": outcome(run.content),
    }


def log_of(run: PastRun, name: str) -> Path:
    """The file of what a step printed.

    Raises
    ------
    RunError
        If the run has no such step, or it printed nothing yet.
    """
    known = {path.stem: path for path in sorted(run.folder.glob("*.log"))}
    ids = [step["id"] for step in run.steps]
    found = [path for stem, path in known.items() if name in (stem, stem.partition("_")[2])]
    if found:
        return found[0]
    if name in ids:
        raise RunError(f"{name} of run {run.id} has printed nothing yet.")
    near = get_close_matches(name, [*ids, *known], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise RunError(f"run {run.id} has no step '{name}'.{hint}\nIts steps: {', '.join(ids)}.")


def is_running(run: PastRun, log: Path) -> bool:
    """Whether a step may still write to its log."""
    now = PastRun(run.folder, read_json(run.folder / "run.json"))
    names = (log.stem, log.stem.partition("_")[2])
    own = [step for step in now.steps if step["id"] in names]
    return now.state == "running" and any(step["state"] == "running" for step in own)
