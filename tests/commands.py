"""The installed `housing` command in another root, and what a smoke run of it left behind."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stores import STORE_VARIABLES


def run_housing(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed `housing` command with another root."""
    command = [str(Path(sys.executable).with_name("housing")), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment_of(root),
        cwd=root,
        check=False,
        timeout=600,
    )


def environment_of(root: Path) -> dict[str, str]:
    """The environment of these tests, for a command in another root."""
    kept = {key: value for key, value in os.environ.items() if key not in STORE_VARIABLES}
    return kept | {"HOUSING_ROOT": str(root), "COLUMNS": "200"}


@dataclass(frozen=True)
class SmokeRun:
    """What `housing run --budget smoke` left behind in a root of its own."""

    root: Path
    exit_code: int
    printed: str
    record: dict[str, Any]
    folder: Path
    canary: str

    def housing(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the same root."""
        return run_housing(self.root, *arguments)


def run_smoke(root: Path) -> dict[str, Any]:
    """Make one in a new root; what there is to tell of it but its record."""
    root.mkdir()
    canary = f"canary-{uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_TEST_TOKEN", canary)
        done = run_housing(root, "run", "--budget", "smoke")
    (record,) = {path.resolve() for path in root.glob("reports/*/run.json")}
    return {
        "folder": str(record.parent),
        "exit_code": done.returncode,
        "printed": done.stdout + done.stderr,
        "canary": canary,
    }
