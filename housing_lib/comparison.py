"""What differs between two runs: data, code, parameters, packages, metrics, champion."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from housing_lib.runs import PastRun


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in two runs; empty where a run has no such thing."""

    kind: str
    name: str
    old: str
    new: str


def compare(old: PastRun, new: PastRun) -> list[Difference]:
    """All that differs, by kind and name; nothing for a run and itself."""
    before, after = dict(_facts(old)), dict(_facts(new))
    names = [*before, *(name for name in after if name not in before)]
    pairs = ((name, before.get(name, ""), after.get(name, "")) for name in names)
    differing = [Difference(*name, one, other) for name, one, other in pairs if one != other]
    return sorted(differing, key=lambda difference: KINDS.index(difference.kind))


KINDS = ("data", "code", "parameter", "package", "step", "metric", "champion")
Fact = tuple[tuple[str, str], str]


def _facts(run: PastRun) -> Iterator[Fact]:
    content = run.content
    yield ("data", "digest"), str(content["data_digest"])
    yield ("code", "commit"), str(content["commit"])
    yield ("code", "lock file"), str(content.get("lock_file", ""))
    for name, value in content["parameters"].items():
        yield ("parameter", name), str(value)
    for name, version in run.packages.items():
        yield ("package", name), version
    for step in content["steps"]:
        yield from _facts_of_step(step)
    yield from _facts_of_champion(content.get("champion") or {})


def _facts_of_step(step: Mapping[str, Any]) -> Iterator[Fact]:
    yield ("step", step["id"]), _ended(step["state"])
    for name, digest in step.get("made_of", {}).items():
        if name == "code" or name.startswith("module "):
            yield ("code", name if name != "code" else f"notebook of {step['id']}"), digest
    for name, value in step["record"].items():
        if isinstance(value, int | float):
            yield ("metric", f"{step['id']} {name}"), f"{value:.6g}"


def _ended(state: str) -> str:
    return "done" if state == "reused" else state


def _facts_of_champion(champion: Mapping[str, Any]) -> Iterator[Fact]:
    for name in ("title", "version", "decision"):
        yield ("champion", name), str(champion.get(name, ""))
    for name, value in champion.get("metrics", {}).items():
        yield ("metric", name), f"{value:.6g}"
