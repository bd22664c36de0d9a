"""The graph of steps, and a run through it: order, processes, failure, and the record of it all."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from graphlib import TopologicalSorter
from itertools import count
from pathlib import Path
from typing import Any

from housing_lib import provenance
from housing_lib.compute import call_in_process, stop_all
from housing_lib.files import write_json
from housing_lib.settings import HousingError, get_settings

BUDGETS = {"smoke": 2, "standard": 50, "thorough": 200}
EXIT_DONE, EXIT_FAILED, EXIT_WRONG_USE, EXIT_HELD = 0, 1, 2, 3


@dataclass(frozen=True)
class Plan:
    """What a run shall do."""

    models: Sequence[str]
    trials: int
    source: str = "bundled"
    seed: int = 42
    jobs: int = 1


@dataclass
class Step:
    """One step of a run: what it executes, what it waits for, and how it went."""

    name: str
    notebook: str = ""
    variant: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    needs_all: bool = True
    state: str = "waiting"
    reason: str = ""
    key: str = ""
    seconds: float = 0.0
    started: float = 0.0
    cell: tuple[int, int, str] = (0, 0, "")
    report: str | None = None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The step's name in the graph."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def file_stem(self) -> str:
        """The name of the step's files in the run's folder."""
        stem = Path(self.notebook).stem
        return f"{stem}-{self.variant}" if self.variant else stem

    @property
    def elapsed(self) -> float:
        """The seconds that the step has taken so far."""
        return time.time() - self.started if self.state == "running" else self.seconds


@dataclass
class Run:
    """One run: its steps in the order of the table, and what came of them."""

    id: str
    plan: Plan
    steps: dict[str, Step]
    state: str = "running"
    started: float = field(default_factory=time.time)
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        """The folder of the run's reports."""
        return get_settings().reports / self.id

    def record_of(self, step_id: str) -> dict[str, Any]:
        """What a step recorded; empty if it did not run or failed."""
        step = self.steps.get(step_id)
        return step.record if step and step.state == "done" else {}

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked for: the plan, or the parameters of the one notebook."""
        if self.plan.models:
            return asdict(self.plan)
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


Watcher = Callable[[Run], None]


def ignore(current: Run) -> None:
    """Watch a run without showing anything."""


def make_steps(plan: Plan, run_id: str) -> list[Step]:
    """The steps of a run: the graph, as data."""
    common = {"run": run_id, "seed": plan.seed, "data_digest": ""}
    tuning = [
        Step(
            "tuning",
            notebook="03_tuning.ipynb",
            variant=model,
            parameters={**common, "model_name": model, "n_trials": plan.trials},
            after=["preprocessing"],
        )
        for model in plan.models
    ]
    return [
        Step("eda", notebook="01_eda.ipynb", parameters={"source": plan.source}),
        Step(
            "preprocessing", notebook="02_preprocessing.ipynb", parameters={"source": plan.source}
        ),
        *tuning,
        Step(
            "evaluation",
            notebook="04_evaluation.ipynb",
            parameters=common,
            after=[step.id for step in tuning],
            needs_all=False,
        ),
        Step("promotion", after=["evaluation"]),
        Step("monitoring", notebook="05_monitoring.ipynb", after=["promotion"]),
    ]


def run(plan: Plan, *, watch: Watcher = ignore) -> Run:
    """A finished run of the whole graph, with its folder of reports."""
    run_id = new_id()
    return run_steps(run_id, plan, make_steps(plan, run_id), watch=watch)


def run_one(name: str, notebook: str, parameters: Mapping[str, Any], *, watch: Watcher) -> Run:
    """A finished run of a single notebook, in a folder of its own."""
    step = Step(name, notebook=notebook, parameters=parameters)
    return run_steps(new_id(), Plan(models=(), trials=0), [step], watch=watch)


def new_id() -> str:
    """The id of a run that starts now: local date and time."""
    now = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    names = (now if number == 1 else f"{now}-{number}" for number in count(1))
    return next(name for name in names if not (get_settings().reports / name).exists())


def run_steps(run_id: str, plan: Plan, steps: Sequence[Step], *, watch: Watcher = ignore) -> Run:
    """A finished run of some steps.

    A failed step stops only what needs it; the others go on. Ctrl-C kills what
    is running and keeps what is done. `watch` is called whenever something changed.
    """
    current = Run(run_id, plan, {step.id: step for step in steps})
    _make_folder(current.folder)
    try:
        with closing(_execute(current)) as changes:
            for _ in changes:
                _save(current)
                watch(current)
    except KeyboardInterrupt:
        _mark_killed(current)
    _finish(current)
    watch(current)
    return current


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise HousingError(
            f"{folder} cannot be made: {error.strerror}. Reports need a folder that can be "
            "written; HOUSING_ROOT names another place. Nothing was run."
        ) from error


def _mark_killed(current: Run) -> None:
    for step in current.steps.values():
        if step.state != "done":
            step.state, step.reason = "killed", "stopped by hand"


def _execute(current: Run) -> Generator[None]:
    sorter = TopologicalSorter({step.id: step.after for step in current.steps.values()})
    sorter.prepare()
    waiting: list[Step] = []
    running: dict[Future[None], Step] = {}
    with ThreadPoolExecutor(current.plan.jobs) as pool:
        try:
            while sorter.is_active():
                waiting += [current.steps[name] for name in sorter.get_ready()]
                waiting.sort(key=_urgency)
                while waiting and len(running) < current.plan.jobs:
                    step = waiting.pop(0)
                    running[pool.submit(_run_step, current, step)] = step
                for step in _finished(running):
                    sorter.done(step.id)
                yield
        finally:
            stop_all()


def _finished(running: dict[Future[None], Step]) -> list[Step]:
    """The steps that ended within the last quarter of a second, taken out of `running`."""
    done, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return [running.pop(future) for future in done]


# The long ones first, so that nobody waits for a straggler at the end; looking at data can wait.
SLOWEST_FIRST = ("gradient_boosting", "random_forest", "xgboost", "decision_tree")


def _urgency(step: Step) -> int:
    if step.name == "eda":
        return len(SLOWEST_FIRST) + 1
    slow = step.variant in SLOWEST_FIRST
    return SLOWEST_FIRST.index(step.variant) if slow else len(SLOWEST_FIRST)


def missing(current: Run, step: Step) -> list[str]:
    """The steps without whose results this one cannot run."""
    absent = [name for name in step.after if current.steps[name].state != "done"]
    return absent if step.needs_all or len(absent) == len(step.after) else []


def _run_step(current: Run, step: Step) -> None:
    absent = missing(current, step)
    if absent:
        step.state, step.reason = "skipped", f"needs {', '.join(absent)}"
        return
    step.state, step.started = "running", time.time()
    try:
        step.record = _call(current, step)
        step.state = "done"
    except HousingError as error:
        step.state, step.reason = "failed", str(error)
    step.seconds = time.time() - step.started
    page = current.folder / f"{step.file_stem}.html"
    step.report = page.name if step.notebook and page.exists() else None


def _call(current: Run, step: Step) -> dict[str, Any]:
    def on_cell(k: int, n: int, heading: str) -> None:
        step.cell = (k, n, heading)

    answer: dict[str, Any]
    given = dict(step.parameters)
    if "data_digest" in given:  # known only since the preprocessing of this run
        given["data_digest"] = current.record_of("preprocessing").get("data_digest", "")
    if step.notebook:
        answer = call_in_process(
            run_notebook,
            get_settings().notebooks / step.notebook,
            given,
            current.folder / f"{step.file_stem}.ipynb",
            on_message=on_cell,
        )
        return answer
    version = current.record_of("evaluation").get("version")
    answer = call_in_process(run_promotion, version, on_message=on_cell)
    return answer


def run_notebook(
    notebook: Path, parameters: Mapping[str, Any], ipynb: Path, send: Callable[..., None]
) -> dict[str, Any]:
    """What a notebook recorded, after executing it and writing its page, whole or FAILED."""
    from housing_lib import execution, kernels, reports

    kernels.use_forked_kernels()
    started = time.time()
    failed = None
    try:
        execution.execute(notebook, parameters, ipynb, on_cell=send)
        return reports.read_record(ipynb)
    except HousingError as error:
        failed = str(error)
        raise
    finally:
        if ipynb.exists():
            shown = {"notebook": notebook.name, **{k: str(v) for k, v in parameters.items()}}
            shown |= {**provenance.describe(), "seconds": f"{time.time() - started:.0f}"}
            reports.render(ipynb, ipynb.with_suffix(".html"), provenance=shown, failed=failed)


def run_promotion(version: int | None, send: Callable[..., None]) -> dict[str, Any]:
    """What the registry decided on a version."""
    from housing_lib import registry
    from housing_lib.data import USD_PER_UNIT

    decision = registry.promote(version)
    gain = decision.metrics.get("gain")
    return {
        "decision": decision.decision,
        "version": decision.version,
        "incumbent": decision.incumbent,
        "reason": "; ".join(decision.reasons),
        "gain_usd": gain and gain * USD_PER_UNIT,
    }


def _finish(current: Run) -> None:
    from housing_lib import pages

    states = {step.state for step in current.steps.values()}
    current.state = "done"
    for worst in ("failed", "killed"):
        if worst in states:
            current.state = worst
    _save(current)
    pages.write_index(to_json(current), current.folder)
    pages.write_overview(get_settings().reports)


def _save(current: Run) -> None:
    current.seconds = time.time() - current.started
    write_json(current.folder / "run.json", to_json(current))


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
        "steps": [_step_json(step) for step in current.steps.values()],
        "champion": current.champion,
        "leaderboard": current.record_of("evaluation").get("leaderboard", []),
    }


def _step_json(step: Step) -> dict[str, Any]:
    keys = ("name", "variant", "state", "reason", "key", "report", "record")
    return {key: getattr(step, key) for key in keys} | {"seconds": round(step.elapsed, 1)}
