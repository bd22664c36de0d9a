"""Finished steps of earlier runs, found by their key, and taken instead of running again."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housing_lib import keys, store
from housing_lib.files import atomic_path, file_digest, folder_digest
from housing_lib.graph import FINISHED, Step, parameters_now
from housing_lib.runs import PastRun, past_runs
from housing_lib.settings import get_settings

UNKEYED = {"run"}  # the id of the run itself
SIZES = ("n_trials", "model_name", "source", "growth", "every_family")  # what a step's time goes by


@dataclass(frozen=True)
class Finished:
    """A finished step of an earlier run."""

    run: PastRun
    step: dict[str, Any]

    @property
    def fault(self) -> str:
        """Why its result cannot be taken; empty if it can.

        Raises
        ------
        StoreError
            If the MLflow store does not answer.
        TrackingError
            If the MLflow server cannot be opened.
        """
        for name, digest in self.step["files"].items():
            path = self.run.folder / name
            if not path.exists() or file_digest(path) != digest:
                return f"{name} of run {self.run.id} is missing or was changed"
        for name, digest in self.step["outputs"].items():
            if read_digest(name, {}) != digest:
                return f"the {name} data are not those of run {self.run.id} any more"
        logged = self.step["record"].get("mlflow_run")
        if logged and not store.finished_runs([logged]):
            return f"its MLflow run {logged} is not in the store"
        return ""


class Archive:
    """The finished steps of a root, newest first."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[Finished]] = {}
        self._newest: dict[str, Finished] = {}
        for run in past_runs():
            for step in run.steps:
                if step["state"] in FINISHED and step.get("key"):
                    self._add(Finished(run, step))

    def _add(self, found: Finished) -> None:
        self._by_key.setdefault(found.step["key"], []).append(found)
        self._newest.setdefault(found.step["id"], found)

    def find(self, step: Step) -> tuple[Finished | None, str]:
        """A result for a step's key that can be taken; without one, why it has to run.

        Raises
        ------
        StoreError
            If the MLflow store does not answer.
        TrackingError
            If the MLflow server cannot be opened.
        """
        own = [one for one in self._by_key.get(step.key, []) if one.step["id"] == step.id]
        faults = [(one, one.fault) for one in own]
        usable = [one for one, fault in faults if not fault]
        if usable:
            return usable[0], ""
        return None, faults[0][1] if faults else self._what_changed(step)

    def _what_changed(self, step: Step) -> str:
        last = self._newest.get(step.id)
        if last is None:
            return "no earlier run of it is kept"
        changed = keys.differences(last.step["made_of"], step.made_of)
        return f"changed since run {last.run.id}: {', '.join(changed)}"

    def seconds(self, step: Step) -> float | None:
        """How long the step took last with the same parameters; None if it never ran so."""
        known = (one.step for several in self._by_key.values() for one in several)
        own = (past for past in known if (past["id"], past["state"]) == (step.id, "done"))
        alike = (past for past in own if _parameters(past["made_of"]) == _parameters(step.made_of))
        return next((float(past["seconds"]) for past in alike), None)


def _parameters(made_of: Mapping[str, str]) -> dict[str, str]:
    named = (f"parameter {name}" for name in SIZES)
    return {name: made_of[name] for name in named if name in made_of}


def identify(steps: Mapping[str, Step], step: Step) -> None:
    """Note in a step what it is made of now, and its key.

    Raises
    ------
    NotebookError
        If its notebook cannot be read.
    StoreError
        If the MLflow store does not answer.
    TrackingError
        If the MLflow server does not answer.
    """
    given = parameters_now(steps, step)
    notebook = get_settings().notebooks / step.notebook if step.notebook else None
    inputs = {name: read_digest(name, given) for name in step.reads}
    followed = get_settings().model_dump(mode="json")
    inputs |= {
        f"setting {name}": repr(value)
        for name, value in followed.items()
        if name.startswith(tuple(step.settings))
    }
    step.made_of = keys.ingredients(
        notebook=notebook,
        modules=step.modules,
        tables=step.tables,
        parameters={name: value for name, value in given.items() if name not in UNKEYED},
        inputs=inputs,
    )
    step.key = keys.key_of(step.made_of)
    step.words = keys.words_digest(notebook) if notebook else ""


def read_digest(name: str, parameters: Mapping[str, Any]) -> str:
    """The digest of something that steps read: `source`, `processed` or `production`.

    Raises
    ------
    StoreError
        If the MLflow store does not answer.
    TrackingError
        If the MLflow server does not answer.
    """
    settings = get_settings()
    if name == "processed":
        return folder_digest(settings.processed)[:16]
    if name == "production":
        return str(store.version_in("production"))
    source = parameters["source"]
    path = settings.raw_csv if source == "bundled" else Path(source)
    return file_digest(path)[:16] if path.is_file() else str(source)


def take(found: Finished, step: Step, folder: Path) -> None:
    """Let a step have the result of an earlier run, and link its files into this run's folder."""
    past = found.step
    for name in (*past["files"], past["report"], f"{step.file_stem}.log"):
        if name and (found.run.folder / name).exists():
            _link(found.run.folder / name, folder / name)
    step.record, step.outputs, step.files = past["record"], past["outputs"], past["files"]
    step.report = past["report"]
    step.origin = past.get("origin") or found.run.id
    step.reason = f"as in run {step.origin}"


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, temporary)
