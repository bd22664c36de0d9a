"""The door to files wherever they are: on this machine, or in an object store."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from housing_lib.errors import OutageError
from housing_lib.files import atomic_path

REMOTE = "s3://"
UNREACHABLE_S = 10.0
BLOCK = 8_000_000


class StorageError(OutageError):
    """A file or an object store that cannot be reached, read or written."""


@lru_cache(maxsize=1)
def _object_store() -> Any:
    from pyarrow import fs

    # Keys and region come from the environment by themselves, the address only so.
    scheme, _, address = os.environ.get("AWS_ENDPOINT_URL", "https://").partition("://")
    return fs.S3FileSystem(
        scheme=scheme,
        endpoint_override=address or None,
        connect_timeout=UNREACHABLE_S,
        request_timeout=6 * UNREACHABLE_S,
    )


def locate(name: str) -> tuple[Any, str]:
    """The file system that a name belongs to, and its path there."""
    from pyarrow import fs

    if name.startswith(REMOTE):
        return _object_store(), name.removeprefix(REMOTE).rstrip("/")
    return fs.LocalFileSystem(), str(Path(name).expanduser().absolute())


def is_remote(name: str) -> bool:
    """Whether a name is one of an object store."""
    return name.startswith(REMOTE)


@contextmanager
def reaching(name: str) -> Iterator[None]:
    """Turns what file systems raise into an error that names the file.

    Raises
    ------
    StorageError
        If the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise StorageError(
            f"{name} cannot be read or written: {reason}. What is finished is kept: the same "
            "command goes on from there."
        ) from error


def absolute(name: str) -> str:
    """A name that means the same from any folder; it may be a glob."""
    return name.rstrip("/") if is_remote(name) else locate(name)[1]


def kind_of(name: str) -> str:
    """What is at a name: `file`, `folder`, or nothing (empty).

    Raises
    ------
    StorageError
        If its place cannot be reached.
    """
    from pyarrow.fs import FileType

    filesystem, path = locate(name)
    with reaching(name):
        found = filesystem.get_file_info(path).type
    return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "")


def size_of(name: str) -> int:
    """The bytes of a file.

    Raises
    ------
    StorageError
        If it cannot be reached.
    """
    filesystem, path = locate(name)
    with reaching(name):
        return int(filesystem.get_file_info(path).size or 0)


def files_below(name: str) -> list[str]:
    """All files below a folder, sorted by name; none if there is no such folder.

    Raises
    ------
    StorageError
        If the place cannot be reached.
    """
    from pyarrow.fs import FileSelector

    filesystem, path = locate(name)
    with reaching(name):
        infos = filesystem.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    root = REMOTE if is_remote(name) else ""
    return sorted(f"{root}{info.path}" for info in infos if info.is_file)


def open_file(name: str) -> Any:
    """A file to read from any place in it."""
    filesystem, path = locate(name)
    return filesystem.open_input_file(path)


def read_bytes(name: str) -> bytes:
    """All that a file holds.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    with reaching(name), open_file(name) as file:
        content: bytes = file.read()
    return content


def blocks(name: str) -> Iterator[bytes]:
    """All that a file holds, in pieces of `BLOCK` bytes.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    with reaching(name), open_file(name) as file:
        while block := file.read(BLOCK):
            yield block


@contextmanager
def local_copy(name: str) -> Iterator[Path]:
    """A local file that holds what the named one does, for readers that want a path.

    Raises
    ------
    StorageError
        If it is in an object store and cannot be read.
    """
    if not is_remote(name):
        yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="housing-") as folder:
        path = Path(folder) / name.rpartition("/")[2]
        path.write_bytes(read_bytes(name))
        yield path


@contextmanager
def writing(name: str) -> Iterator[Path]:
    """A temporary local file that becomes the named one, whole, when the block ends well.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    if not is_remote(name):
        with reaching(name), atomic_path(Path(locate(name)[1])) as temporary:
            yield temporary
        return
    from pyarrow import fs

    filesystem, path = locate(name)
    with reaching(name), tempfile.TemporaryDirectory(prefix="housing-") as folder:
        temporary = Path(folder) / "object"
        yield temporary
        fs.copy_files(str(temporary), path, fs.LocalFileSystem(), filesystem)


def write_bytes(name: str, content: bytes) -> None:
    """Make a file, whole or not at all.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with writing(name) as temporary:
        temporary.write_bytes(content)


def move(name: str, target: str) -> None:
    """Give a file another name in the same store.

    Raises
    ------
    StorageError
        If it cannot be moved.
    """
    filesystem, path = locate(name)
    _, wanted = locate(target)
    with reaching(target):
        if not is_remote(target):
            Path(wanted).parent.mkdir(parents=True, exist_ok=True)
        filesystem.move(path, wanted)


def remove(name: str) -> None:
    """Remove a file or a folder, if it is there.

    Raises
    ------
    StorageError
        If it cannot be removed.
    """
    filesystem, path = locate(name)
    with reaching(name):
        if kind_of(name) == "folder":
            filesystem.delete_dir(path)
        elif kind_of(name) == "file":
            filesystem.delete_file(path)
