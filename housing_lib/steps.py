"""One step of a run: taken from an earlier one, or executed in a process of its own."""

import time
from pathlib import Path
from typing import Any

from housing_lib import privacy, reuse, store, work
from housing_lib.errors import HousingError
from housing_lib.files import file_digest
from housing_lib.graph import Step, missing, parameters_now
from housing_lib.journal import Run
from housing_lib.processes import Channel, call_in_process
from housing_lib.settings import get_settings

GAINS = ("gain", "recent_gain")  # over the version before, on locked districts and on recent ones


def run_step(current: Run, step: Step, archive: reuse.Archive) -> None:
    """Bring a step to its end: taken from an earlier run, executed, skipped or failed."""
    absent = missing(current.steps, step)
    if absent:
        step.state, step.reason = "skipped", f"needs {', '.join(absent)}"
        return
    if current.stopping:
        return
    step.started = time.time()
    try:
        step.state = _reuse_or_run(current, step, archive)
    except (HousingError, OSError) as error:
        step.state = "killed" if current.stopping else "failed"
        step.reason = privacy.hide(str(error), privacy.secret_values())
    step.seconds = step.seconds or time.time() - step.started
    page = current.folder / f"{step.file_stem}.html"
    step.report = page.name if step.notebook and page.exists() else None


def _reuse_or_run(current: Run, step: Step, archive: reuse.Archive) -> str:
    """The state that a step ends in, after its result was taken from before or made."""
    reuse.identify(current.steps, step)
    found, why = (None, "asked for") if step.forced else archive.find(step)
    if found:
        reuse.take(found, step, current.folder)
        step.record = _as_it_stands(step)
        state = _state_of_taken(found, step, current)
        if step.notebook and _page_is_old(found, step, current.folder):
            _write_page_again(found, step, current)
        return state
    if not step.may_run:
        step.reason = f"not among --only, and there is no result to take: {why}"
        return "skipped"
    step.why, step.expected_s, step.state = why, archive.seconds(step), "running"
    step.record = _call(current, step)
    ipynb = current.folder / f"{step.file_stem}.ipynb"
    step.files = {ipynb.name: file_digest(ipynb)} if step.notebook else {}
    step.outputs = {name: reuse.read_digest(name, {}) for name in step.writes}
    step.origin = current.id
    return "done"


def _as_it_stands(step: Step) -> dict[str, Any]:
    """What a step recorded; of a promotion not its decision, if Production was moved since."""
    record = step.record
    if record.get("decision") != "promoted":
        return record
    now = store.version_in("production")
    if now == record["version"]:
        return record
    version, stands = record["version"], f"version {now}" if now else "none"
    told = f"run {step.origin} promoted version {version}, and {stands} stands in Production now"
    kept = {name: value for name, value in record.items() if name != "decision"}
    return kept | {"reason": f"{told}; `housing promote {version}` asks the gate again"}


def _state_of_taken(found: reuse.Finished, step: Step, current: Run) -> str:
    if found.run.id != current.id:
        return "reused"
    step.reason, step.why = found.step["reason"], found.step.get("why", "")
    step.seconds = float(found.step["seconds"])  # of this run, before it resumed
    return str(found.step["state"])


def _page_is_old(found: reuse.Finished, step: Step, folder: Path) -> bool:
    page = folder / f"{step.file_stem}.html"
    return found.step["words"] != step.words or not page.exists()


def _call(current: Run, step: Step) -> dict[str, Any]:
    def on_cell(k: int, n: int, heading: str) -> None:
        step.cell = (k, n, heading)

    given = parameters_now(current.steps, step)
    told: dict[str, Any] = {"on_message": on_cell, "stopping": lambda: current.stopping}
    answer: dict[str, Any]
    if not step.notebook:
        answer = call_in_process(run_promotion, given["version"], **told)
        return answer
    answer = call_in_process(
        work.run_notebook,
        get_settings().notebooks / step.notebook,
        given,
        current.folder / f"{step.file_stem}.ipynb",
        current.plan.step_timeout_s,
        **told,
    )
    return answer


def _write_page_again(found: reuse.Finished, step: Step, current: Run) -> None:
    """Write the page of a result that was taken, whose words or looks have changed since."""
    notebook = get_settings().notebooks / step.notebook
    ipynb = current.folder / f"{step.file_stem}.ipynb"
    executed = found.run.folder / ipynb.name
    call_in_process(work.renew_page, notebook, executed, ipynb, on_message=lambda *message: None)
    step.files = {ipynb.name: file_digest(ipynb)}
    step.reason += "; its page was written anew, for its words or looks had changed"


def run_promotion(version: int | None, channel: Channel) -> dict[str, Any]:
    """What the registry decided on a version.

    Raises
    ------
    RegistryError
        If there is no such version; or none is given and none stands in Staging.
    LedgerError
        If the decision is written but the stages could not be moved yet.
    """
    from housing_lib import promotion
    from housing_lib.data import USD_PER_UNIT

    decision = promotion.promote(version)
    found = decision.metrics
    gains = {f"{name}_usd": found[name] * USD_PER_UNIT for name in GAINS if name in found}
    return {
        "decision": "promoted" if decision.promoted else "held",
        "version": decision.version or version,
        "incumbent": decision.incumbent,
        "reason": "; ".join(decision.reasons),
        "reasons": decision.reasons,
        "rules": decision.rules,
        "prices_moved": bool(found.get("moved")),
        **{"gain_usd": None, **gains},
    }
