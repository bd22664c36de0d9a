"""Who made something, from which code, with which packages."""

import getpass
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from housing_lib.files import file_digest
from housing_lib.privacy import hide, secret_values
from housing_lib.settings import PROJECT

MOST_TYPED = 500  # characters of a command
MODEL_PACKAGES = {
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "scikit-learn": ("scikit-learn",),
    "skops": ("skops",),
    "xgboost": ("xgboost", "xgboost-cpu"),
}


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the code, followed by `+` if files were changed since; empty outside git."""
    changed = _git("status", "--short")
    return _git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


@lru_cache(maxsize=1)
def requirements() -> list[str]:
    """The packages that a model's numbers depend on, with their exact versions."""
    return [f"{name}=={_version(names)}" for name, names in MODEL_PACKAGES.items()]


@lru_cache(maxsize=1)
def lock_digest() -> str:
    """The digest of the file that pins every package; empty if there is none."""
    path = PROJECT / "requirements.lock"
    return file_digest(path)[:16] if path.exists() else ""


def packages() -> dict[str, str]:
    """The version of every installed package, by name."""
    found = {one.metadata["Name"]: one.version for one in distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def user() -> str:
    """The name of whoever runs this process; in a container that knows no names, the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def command() -> str:
    """What was typed to start this, without secrets."""
    typed = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return str(hide(typed, secret_values()))[:MOST_TYPED]


def describe() -> dict[str, str]:
    """User, commit, versions and lock file's digest, as tags and footers show them."""
    return {
        "user": user(),
        "commit": commit(),
        "versions": " ".join([f"python=={platform.python_version()}", *requirements()]),
        "lock_file": lock_digest(),
    }


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _git(*arguments: str) -> str:
    # Without optional locks: a run that is killed meanwhile would leave the repository locked.
    command = ["git", "--no-optional-locks", "-C", str(PROJECT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
