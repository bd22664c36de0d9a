"""Who made something, from which code, with which packages."""

import getpass
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from housing_lib.settings import PROJECT

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


def describe() -> dict[str, str]:
    """User, commit, Python and package versions, as tags and footers show them."""
    return {
        "user": getpass.getuser(),
        "commit": commit(),
        "versions": " ".join([f"python=={platform.python_version()}", *requirements()]),
    }


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
