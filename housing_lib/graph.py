"""The graph of steps, as data: what a run executes, in which order, and what each step reads."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from housing_lib.errors import HousingError

FINISHED = ("done", "reused")
CUT_SHORT = {"waiting": "skipped", "running": "killed"}  # of a run that ends early
# The long ones first, so that nobody waits for a straggler at the end; looking at data can wait.
SLOWEST_FIRST = ("gradient_boosting", "random_forest", "xgboost", "decision_tree")


class StepError(HousingError):
    """A name that is no step's, or a step that cannot be run alone."""


@dataclass(frozen=True)
class Budget:
    """What a run may spend: trials a family, the share of its size to which it grows, and blocks.

    With `every_family`, blocks of the map are held out for all of them, else for the champion.
    """

    trials: int
    growth: float = 1.0
    every_family: bool = True


BUDGETS = {
    "smoke": Budget(trials=2, growth=0.2, every_family=False),
    "standard": Budget(trials=30),
    "thorough": Budget(trials=200),
}


@dataclass(frozen=True)
class Plan:
    """What a run shall do, how long it may take, and what it was started for if not by hand."""

    models: Sequence[str]
    trials: int
    growth: float = 1.0
    every_family: bool = True
    source: str = "bundled"
    seed: int = 42
    jobs: int = 1
    step_timeout_s: float | None = None
    timeout_s: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which steps a run executes again, and whether it leaves the others alone."""

    force: bool = False
    only: Sequence[str] = ()
    start: str = ""


@dataclass(frozen=True)
class Recorded:
    """A parameter that is known once other steps are finished: what they recorded under a name."""

    steps: Sequence[str]
    name: str


@dataclass
class Step:
    """One step of a run: what it executes, what it waits for and reads, and how it went.

    `reads` and `writes` name what lies outside of the notebook: `source`, `processed`,
    `production`. Of the tables in `tables` it reads one entry alone, or none; `settings` are the
    beginnings of the names of the settings that it follows.
    """

    name: str
    notebook: str = ""
    variant: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    needs_all: bool = True
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    modules: Sequence[str] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[str] = ()
    forced: bool = False
    may_run: bool = True
    state: str = "waiting"
    reason: str = ""
    why: str = ""
    key: str = ""
    words: str = ""
    made_of: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    seconds: float = 0.0
    expected_s: float | None = None
    started: float = 0.0
    cell: tuple[int, int, str] = (0, 0, "")
    report: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The step's name in the graph."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def file_stem(self) -> str:
        """The name of the step's files in the run's folder."""
        stem = Path(self.notebook).stem or self.name
        return f"{stem}-{self.variant}" if self.variant else stem

    @property
    def elapsed(self) -> float:
        """The seconds that the step has taken so far."""
        return time.time() - self.started if self.state == "running" else self.seconds

    @property
    def finished(self) -> bool:
        """Whether its result is there, made now or before."""
        return self.state in FINISHED

    @property
    def urgency(self) -> int:
        """Where it stands among the steps that could start, the lowest first."""
        if self.name == "eda":
            return len(SLOWEST_FIRST) + 1
        slow = self.variant in SLOWEST_FIRST
        return SLOWEST_FIRST.index(self.variant) if slow else len(SLOWEST_FIRST)


def make_steps(plan: Plan, run_id: str) -> list[Step]:
    """The steps of a run, in the order of its table."""
    tuning = [_tuning(plan, run_id, model) for model in plan.models]
    searches = [step.id for step in tuning]
    source = {"source": plan.source}
    no_family = {"families.FAMILIES": ""}
    return [
        Step(
            "eda",
            notebook="01_eda.ipynb",
            parameters=source,
            reads=["source"],
            tables=no_family,
        ),
        Step(
            "preprocessing",
            notebook="02_preprocessing.ipynb",
            parameters=source,
            reads=["source"],
            writes=["processed"],
            tables=no_family,
        ),
        *tuning,
        Step(
            "evaluation",
            notebook="04_evaluation.ipynb",
            parameters=_common(plan, run_id)
            | {"search_runs": Recorded(searches, "mlflow_run")}
            | {"growth": plan.growth, "every_family": plan.every_family},
            after=searches,
            needs_all=False,
            reads=["processed"],
            settings=["model_name"],
        ),
        Step(
            "promotion",
            parameters={"version": Recorded(["evaluation"], "version")},
            after=["evaluation"],
            modules=["promotion"],
            settings=["model_name", "gate"],
        ),
        Step(
            "monitoring",
            notebook="05_monitoring.ipynb",
            parameters={"run": run_id},
            after=["promotion"],
            reads=["processed", "production"],
            settings=["model_name"],
        ),
    ]


def _tuning(plan: Plan, run_id: str, model: str) -> Step:
    return Step(
        "tuning",
        notebook="03_tuning.ipynb",
        variant=model,
        parameters=_common(plan, run_id)
        | {"model_name": model, "n_trials": plan.trials, "growth": plan.growth},
        after=["preprocessing"],
        reads=["processed"],
        tables={"families.FAMILIES": model},
    )


def _common(plan: Plan, run_id: str) -> dict[str, Any]:
    digest = Recorded(["preprocessing"], "data_digest")
    return {"run": run_id, "seed": plan.seed, "data_digest": digest}


def in_order(steps: Iterable[Step]) -> list[Step]:
    """The steps such that each stands after those that it waits for."""
    by_id = {step.id: step for step in steps}
    sorter = TopologicalSorter({step.id: step.after for step in by_id.values()})
    return [by_id[name] for name in sorter.static_order()]


def missing(steps: Mapping[str, Step], step: Step) -> list[str]:
    """The steps without whose results this one cannot run."""
    absent = [name for name in step.after if not steps[name].finished]
    return absent if step.needs_all or len(absent) == len(step.after) else []


def parameters_now(steps: Mapping[str, Step], step: Step) -> dict[str, Any]:
    """The parameters of a step, with the values that the steps before it recorded."""
    return {name: _value(steps, value) for name, value in step.parameters.items()}


def _value(steps: Mapping[str, Step], value: Any) -> Any:
    if not isinstance(value, Recorded):
        return value
    found = [steps[name].record.get(value.name) for name in value.steps if steps[name].finished]
    if len(value.steps) == 1:
        return found[0] if found else None
    return ",".join(map(str, found))


def select(steps: Sequence[Step], choice: Selection) -> list[Step]:
    """The steps that a run needs for a choice, marked as to run again or not at all.

    With `only`, the named steps run again, and what they need is taken from
    earlier runs. With `start`, that step and all that follow it run again.

    Raises
    ------
    StepError
        If a name is no step's; the nearest right one is given.
    """
    if choice.only:
        named = {step.id for name in choice.only for step in _named(steps, name)}
        needed = _closure(steps, named)
        for step in steps:
            step.forced = step.may_run = step.id in named
        return [step for step in steps if step.id in needed]
    first = {step.id for step in _named(steps, choice.start)} if choice.start else set()
    for step in in_order(steps):
        first |= {step.id} if first & set(step.after) else set()
        step.forced = choice.force or step.id in first
    return list(steps)


def _named(steps: Sequence[Step], name: str) -> list[Step]:
    """The steps of a name: of one step, of all its variants, or of a notebook."""
    found = [step for step in steps if name in _names(step)]
    if not found:
        known = list(dict.fromkeys(each for step in steps for each in (step.name, step.id)))
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise StepError(
            f"there is no step '{name}'.{hint}\nThe steps are: {', '.join(known)}. Nothing was run."
        )
    return found


def _names(step: Step) -> set[str]:
    return {step.id, step.name, step.file_stem, Path(step.notebook).stem} - {""}


def _closure(steps: Sequence[Step], named: set[str]) -> set[str]:
    needed = set(named)
    for step in reversed(in_order(steps)):
        needed |= set(step.after) if step.id in needed else set()
    return needed
