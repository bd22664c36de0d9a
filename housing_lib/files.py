"""Files that are either whole or absent, and their digests."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well.

    Whatever interrupts the block, `path` holds either what it held before or
    all that was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder of files that were never whole."""
    for path in folder.glob(".*-*"):
        shutil.rmtree(path, ignore_errors=True)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """The SHA-256 over the names and bytes of a folder's own files; empty if there are none."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    digests = "".join(f"{path.name} {file_digest(path)}\n" for path in files)
    return hashlib.sha256(digests.encode()).hexdigest() if files else ""


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
