"""A run through the graph: order, processes, reuse, failure, and an end whatever happens."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from housing_lib import notify, reuse, runs, store, work
from housing_lib.errors import HousingError, OutageError
from housing_lib.graph import (
    CUT_SHORT,
    Plan,
    Selection,
    Step,
    StepError,
    in_order,
    make_steps,
    missing,
    select,
)
from housing_lib.journal import Journal, Run, new_id, to_json
from housing_lib.parameters import parameters_of
from housing_lib.processes import call_in_process, share_cores, stop_all
from housing_lib.settings import get_settings
from housing_lib.steps import run_step

BY_HAND = "the run was killed by hand, as by Ctrl-C"
GRACE_S = 8.0  # for a step that is stopped, to write down what it has

Watcher = Callable[[Run], None]


class RunStoppedError(OutageError):
    """A run that could not go on, because its own record could not be written for example."""


def ignore(current: Run) -> None:
    """Watch a run without showing anything."""


def run(
    plan: Plan,
    *,
    choice: Selection = Selection(),  # noqa: B008 (it is frozen)
    wait_for_others: bool = False,
    watch: Watcher = ignore,
) -> Run:
    """A finished run of the graph, with its folder of reports.

    Steps whose key was finished before are taken from there. One run holds the
    root at a time.

    Raises
    ------
    HousingError
        If the steps cannot be run as chosen, another run holds the root, or the run's own record
        cannot be written.
    """
    refuse_impossible(select(make_steps(plan, ""), choice))  # before anything is written
    with runs.holding_root(wait=wait_for_others):
        run_id = new_id()
        steps = select(make_steps(plan, run_id), choice)
        refuse_impossible(steps)  # another run may have changed it meanwhile
        return run_steps(run_id, plan, steps, choice=choice, watch=watch)


def resume(
    *, jobs: int | None = None, wait_for_others: bool = False, watch: Watcher = ignore
) -> Run:
    """The newest run of the graph, which did not finish, finished in its own folder.

    Raises
    ------
    RunError
        If it did, or there is none; or another run holds the root.
    RunStoppedError
        If the run's own record cannot be written.
    """
    runs.unfinished()  # before anything is written
    with runs.holding_root(wait=wait_for_others):
        past = runs.unfinished()
        plan, choice = runs.plan_of(past, jobs=jobs), runs.choice_of(past)
        steps = select(make_steps(plan, past.id), choice)
        done = runs.done_in(past)
        for step in steps:  # what it was asked to run again, and did, is taken from itself
            step.forced = step.forced and step.id not in done
        return run_steps(past.id, plan, steps, choice=choice, past=past, watch=watch)


def run_one(
    notebook: Path,
    parameters: Mapping[str, Any],
    *,
    limit_s: float | None = None,
    alone: bool = True,
    wait_for_others: bool = False,
    watch: Watcher = ignore,
) -> Run:
    """A finished run of a single notebook, in a folder of its own.

    It holds the root like any other run, unless it may run beside one: `alone` is off.

    Raises
    ------
    RunError
        If another run holds the root, or a folder of reports cannot be made.
    NotebookError
        If the notebook cannot be read.
    RunStoppedError
        If the run's own record cannot be written.
    """
    with runs.holding_root(wait=wait_for_others) if alone else nullcontext():
        run_id = new_id()
        own = {"run": run_id} if "run" in parameters_of(notebook) else {}
        name = notebook.stem.partition("_")[2] or notebook.stem
        given = {**own, **parameters}
        step = Step(name, notebook=str(notebook), parameters=given, forced=True)
        plan = Plan(models=(), trials=0, step_timeout_s=limit_s)
        return run_steps(run_id, plan, [step], watch=watch)


def run_steps(
    run_id: str,
    plan: Plan,
    steps: Sequence[Step],
    *,
    choice: Selection = Selection(),  # noqa: B008 (it is frozen)
    past: runs.PastRun | None = None,
    watch: Watcher = ignore,
) -> Run:
    """A finished run of some steps, which were chosen by `choice`.

    A failed step stops only what needs it; the others go on. Ctrl-C and time
    limits end what is running and keep what is done. `watch` is called whenever
    something may have changed. A run that is resumed goes on where its `past` ended.

    Raises
    ------
    RunStoppedError
        If the run's own record cannot be written.
    RunError
        If its folder cannot be made.
    """
    current = Run(run_id, plan, {step.id: step for step in steps}, choice)
    if past:
        current.started, current.spent = runs.time_of(past)
    runs.make_folder(current.folder)
    journal = Journal(current)
    share_cores(jobs=plan.jobs)
    try:
        dead = runs.mend()
        journal.begin()
        _close_open_runs(dead)
        _execute(current, journal, watch)
        _finish(current, journal)
    except OSError as error:
        journal.leave()
        raise RunStoppedError(
            f"{current.folder}: {error.strerror or error}. {_what_is_kept(current)}"
        ) from error
    watch(current)
    return current


def _what_is_kept(stopped: Run) -> str:
    """What is left of a run that could not go on, and what to do; without a record, nothing is."""
    if not (stopped.folder / "run.json").exists():
        shutil.rmtree(stopped.folder, ignore_errors=True)
        return "Nothing was kept. Make room, then give the same command again."
    again = "`housing run --resume`" if stopped.plan.models else "give the same command again"
    return f"The run was stopped; what was finished until then is kept. Make room, then {again}."


def refuse_impossible(steps: Sequence[Step]) -> None:
    """Refuse a choice of steps that need results which are not there.

    Raises
    ------
    StepError
        With each of them, and why it has no result that could be taken.
    NotebookError
        If a notebook cannot be read.
    StoreError
        If the MLflow store does not answer.
    TrackingError
        If the MLflow server does not answer.
    """
    if all(step.may_run for step in steps):
        return
    archive = reuse.Archive()
    by_id = {step.id: step for step in steps}
    reasons = {}
    for step in (one for one in in_order(steps) if not one.may_run):
        reuse.identify(by_id, step)
        found, why = archive.find(step)
        if found:
            step.state, step.record = "reused", found.step["record"]
        else:
            reasons[step.id] = why
    lacking = {name for step in steps if step.may_run for name in missing(by_id, step)}
    told = [f"  {name}: {reasons[name]}" for name in by_id if name in lacking & set(reasons)]
    for step in steps:
        step.state, step.record = "waiting", {}
    if told:
        lines = "\n".join(told)
        raise StepError(
            f"--only needs results that are not there:\n{lines}\n"
            f"`housing run --from {min(lacking)}` makes them. Nothing was run."
        )


def _execute(current: Run, journal: Journal, watch: Watcher) -> None:
    sorter = TopologicalSorter({step.id: step.after for step in current.steps.values()})
    sorter.prepare()
    archive = reuse.Archive()
    waiting: list[Step] = []
    running: dict[Future[None], Step] = {}
    with ThreadPoolExecutor(current.plan.jobs) as pool:
        try:
            while sorter.is_active():
                waiting += [current.steps[name] for name in sorter.get_ready()]
                waiting.sort(key=lambda step: step.urgency)
                while waiting and len(running) < current.plan.jobs:
                    step = waiting.pop(0)
                    running[pool.submit(run_step, current, step, archive)] = step
                for step in _finished(running):
                    sorter.done(step.id)
                journal.keep()
                watch(current)
                _refuse_overtime(current)
        except KeyboardInterrupt:
            _stop(current, current.stopping or BY_HAND)
        except BaseException:
            _stop(current, "the run could not go on")
            raise


def _refuse_overtime(current: Run) -> None:
    limit = current.plan.timeout_s
    if limit and time.time() - current.resumed > limit:
        current.stopping = f"the run took longer than {limit:g} seconds"
        raise KeyboardInterrupt


def _stop(current: Run, reason: str) -> None:
    """Let what is running write down what it has, and end it; a second Ctrl-C ends it at once."""
    current.stopping = reason
    with suppress(KeyboardInterrupt):
        stop_all(reason, grace_s=GRACE_S)


def _finished(running: dict[Future[None], Step]) -> list[Step]:
    """The steps that ended within the last quarter of a second, taken out of `running`."""
    done, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return [running.pop(future) for future in done]


def _finish(current: Run, journal: Journal) -> None:
    from housing_lib import pages

    cut_short = [step for step in current.steps.values() if step.state in CUT_SHORT]
    for step in cut_short:
        step.state, step.reason = CUT_SHORT[step.state], current.stopping
    states = {step.state for step in current.steps.values()}
    current.state = "killed" if cut_short or "killed" in states else "done"
    if "failed" in states:
        current.state = "failed"
    if current.state != "done":
        _close_open_runs([current.id])
    journal.end()
    pages.write_index(to_json(current), current.folder)
    pages.write_overview(get_settings().reports)
    if current.exit_code:
        current.untold = notify.tell("run", **_news(current))


def _news(current: Run) -> dict[str, Any]:
    unfinished = [step for step in current.steps.values() if not step.finished]
    return {
        "run": current.id,
        "state": "held" if current.state == "done" else current.state,
        "steps": {step.id: step.reason for step in unfinished},
        "report": str(current.folder / "index.html"),
    }


def _close_open_runs(ids: Sequence[str]) -> None:
    """Let MLflow know of the runs that ended without telling it."""
    for run_id in ids:
        with suppress(HousingError):  # a store that is away must not keep a run from its end
            if store.has_open_runs(run_id):
                call_in_process(work.close_open_runs, run_id, on_message=lambda *message: None)
