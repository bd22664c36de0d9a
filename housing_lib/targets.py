"""Where predictions go: which files there are ours, what would be lost, what the manifest says."""

import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from housing_lib import storage
from housing_lib.answering import Answering
from housing_lib.data import DataError
from housing_lib.predictions import Places
from housing_lib.settings import get_settings
from housing_lib.sources import ENDINGS, MARKS, Part, Source, ending, split_glob

FORMAT = 3  # of the files that are written: another one scores everything again
MANIFEST = "_manifest.json"
JOURNAL = "_moving.json"
SHOWN = 3


@dataclass(frozen=True)
class Job:
    """What is to be scored by which model, and where it goes.

    Each file with rows becomes one file. Its parts lie in `staging` until all are done, where a
    later attempt finds those that are.

    Parameters
    ----------
    found
        The names of all files that were found, those without rows too.
    request
        The digest of what was asked for, by which a later job knows that it is asked the same.
    """

    sources: list[Source]
    target: str
    into_folder: bool
    asked: Answering
    found: tuple[str, ...]
    request: str

    @cached_property
    def staging(self) -> str:
        """The hidden folder beside the target, of this model and no other."""
        told = f"{FORMAT} {pa.__version__} {self.asked.identity}"
        digest = hashlib.sha256(told.encode()).hexdigest()
        folder, _, name = self.target.rpartition("/")
        return f"{folder}/.{name}-{digest[:12]}"

    @property
    def manifest(self) -> str:
        """The file that says what was done; it is written last."""
        return _manifest_name(self.target, self.into_folder)

    @property
    def folder(self) -> str:
        """The folder below which the manifest names files."""
        return _folder(self.target, self.into_folder)

    def output(self, source: Source) -> str:
        """The file of a source's predictions."""
        return f"{self.target}/{source.relative}" if self.into_folder else self.target

    def quarantine(self, source: Source) -> str:
        """The file of a source's rows that are not scored."""
        if self.into_folder:
            return f"{self.target}/_quarantine/{source.relative}.csv"
        return f"{self.target}.quarantine.csv"

    def places(self, part: Part) -> Places:
        """Where the files of a part go."""
        told = f"{part.source.relative} {part.source.sha256} {part.start} {part.stop}"
        key = f"{self.staging}/{hashlib.sha256(told.encode()).hexdigest()[:24]}"
        kind = ending(self.output(part.source))
        return Places(f"{key}{kind}", f"{key}.quarantine", f"{key}.json")

    def below(self, name: str) -> str:
        """A file's name as the manifest has it."""
        return name.removeprefix(f"{self.folder}/")


def default_target(source: str) -> str:
    """The file or folder that predictions for `source` go to if no other is named."""
    fixed, rest = split_glob(source)
    begun = re.split(f"[{re.escape(MARKS)}]", rest)[0]
    name = PurePosixPath(f"{fixed.removeprefix(storage.REMOTE)}/{begun}")
    kind = name.suffix if not rest and name.suffix.lower() in ENDINGS else ""
    called = name.stem if kind else name.name
    return str(get_settings().predictions / f"{called or 'districts'}_predictions{kind}")


def is_folder(target: str) -> bool:
    """Whether predictions go into a folder of that name.

    Raises
    ------
    DataError
        If they can go nowhere of that name.
    """
    kind, there = PurePosixPath(target).suffix.lower(), storage.kind_of(target)
    into_folder = target.endswith("/") or not kind or there == "folder"
    if not into_folder and kind not in ENDINGS:
        raise DataError(
            f"{target}: predictions go to a {' or '.join(ENDINGS)} file, or into a folder. "
            "Nothing was written."
        )
    if into_folder and there == "file":
        raise DataError(
            f"{target} is a file, and the predictions would go into a folder of that name. "
            "Name another place for them. Nothing was written."
        )
    return into_folder


def refuse_many(target: str, into_folder: bool, names: list[str]) -> None:
    """Refuse one file for the predictions of several.

    Raises
    ------
    DataError
        If that is what is asked for.
    """
    if not into_folder and len(names) > 1:
        raise DataError(
            f"{target} is one file, and {len(names):,} files are to be scored: they go into a "
            "folder. Nothing was written."
        )


@contextmanager
def alone(target: str) -> Iterator[None]:
    """Be the only one of this machine who writes to a target.

    Raises
    ------
    DataError
        If somebody else does, or nobody can tell.
    """
    real = _real(target)  # which may be reached by several names, through links
    name = f"housing-{hashlib.sha256(real.encode()).hexdigest()[:16]}.lock"
    path = Path(tempfile.gettempdir()) / name
    try:
        taken = FileLock(path, timeout=0).acquire()
    except Timeout:
        raise DataError(
            f"{target} is being written by another `housing predict`. Nothing was written."
        ) from None
    except OSError as error:
        raise DataError(
            f"{target} cannot be kept from others: {error}. If that is somebody else's file, "
            "let them remove it once their `housing predict` has ended, or name another place. "
            "Nothing was written."
        ) from error
    with taken:
        yield


def without_written(names: list[str], target: str, into_folder: bool) -> list[str]:
    """The files to score, where earlier predictions lie among them.

    Raises
    ------
    DataError
        If a manifest is damaged.
    StorageError
        If a place cannot be reached.
    """
    written = {
        _real(f"{_folder(target, into_folder)}/{name}")
        for name in _named(earlier_manifest(target, into_folder))
    }
    return [name for name in names if not written or _real(name) not in written] or names


def _real(name: str) -> str:
    return name if storage.is_remote(name) else str(Path(name).resolve())


def _folder(target: str, into_folder: bool) -> str:
    return target if into_folder else target.rpartition("/")[0]


def _manifest_name(target: str, into_folder: bool) -> str:
    return f"{target}/{MANIFEST}" if into_folder else f"{target}.manifest.json"


def _journal_name(target: str, into_folder: bool) -> str:
    folder, _, name = target.rpartition("/")
    return f"{target}/{JOURNAL}" if into_folder else f"{folder}/.{name}-moving"


def earlier_manifest(target: str, into_folder: bool) -> dict[str, Any]:
    """What the manifest says, or the journal of an attempt that was stopped without one.

    Raises
    ------
    DataError
        If it is damaged.
    StorageError
        If it cannot be reached.
    """
    for name in (_manifest_name(target, into_folder), _journal_name(target, into_folder)):
        if storage.kind_of(name):
            return _read_manifest(name)
    return {"files": []}


def _read_manifest(name: str) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(storage.read_bytes(name))
        _named(told), [file["source"]["sha256"] for file in told["files"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{name} is damaged, or none of `housing predict` ({type(error).__name__}: {error}). "
            "Expected the list of the predictions beside it: remove it together with them, or "
            "name another place for the predictions. Nothing was written."
        ) from error
    return told


def _named(manifest: dict[str, Any]) -> set[str]:
    files = manifest["files"]
    written = [one for file in files for one in (file["output"], file["quarantine"])]
    return {one["name"] for one in written if one}


def claim(job: Job) -> None:
    """Make room for a job's files, unless that would cost one which it does not replace.

    Raises
    ------
    DataError
        If it would, or there can be no room.
    StorageError
        If a place cannot be reached.
    """
    wanted = _wanted(job)
    inputs = {_real(name) for name in job.found}
    own = [name for name in wanted if _real(name) in inputs]
    if own:
        raise DataError(
            f"What would be written over is the input itself: {_some(own)}. "
            "Name another place for the predictions. Nothing was written."
        )
    earlier = earlier_manifest(job.target, job.into_folder)
    _refuse_foreign(job, wanted, earlier)
    _refuse_to_lose(job, earlier)
    _make_room(job)


def _wanted(job: Job) -> list[str]:
    """The names of all files that a job may write."""
    return [name for one in job.sources for name in (job.output(one), job.quarantine(one))]


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _refuse_foreign(job: Job, wanted: list[str], earlier: dict[str, Any]) -> None:
    ours = {f"{job.folder}/{name}" for name in _named(earlier)}
    foreign = sorted(_there(job, wanted) - ours)
    if foreign:
        raise DataError(
            f"What is there was not written by `housing predict`: {_some(foreign)}. "
            "Remove it, or name another place for the predictions. Nothing was written."
        )


def _there(job: Job, names: list[str]) -> set[str]:
    """Which of the names are taken; in an object store one listing says it of a whole folder."""
    if not storage.is_remote(job.target):
        return {name for name in names if Path(name).exists() or Path(name).is_symlink()}
    if job.into_folder:
        return set(names).intersection(storage.files_below(job.target))
    return {name for name in names if storage.kind_of(name)}


def _refuse_to_lose(job: Job, earlier: dict[str, Any]) -> None:
    """Refuse to remove predictions for files that have no part in this job."""
    if not job.into_folder or earlier.get("request") == job.request:
        return
    own = {source.relative: source.sha256 for source in job.sources}
    others = [file for file in earlier["files"] if not _is_of(file["source"], own)]
    names = [f"{job.folder}/{name}" for name in _named({"files": others})]
    lost = _there(job, names) if names else set()
    if lost:
        raise DataError(
            f"{job.target} holds predictions for other files, which would be lost: "
            f"{_some(sorted(job.below(name) for name in lost))}. Name another folder, predict "
            "all files together, or remove the folder. Nothing was written."
        )


def _is_of(source: Mapping[str, str], own: Mapping[str, str]) -> bool:
    return own.get(source["name"]) == source["sha256"]


def _make_room(job: Job) -> None:
    if storage.is_remote(job.target):
        return
    try:
        Path(job.target).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{job.target} cannot be written: {error}. Nothing was written.") from error


def begin_moving(job: Job, old: dict[str, Any], quarantined: Collection[str]) -> None:
    """Remove the manifest, after noting what is ours without it if this is interrupted.

    Parameters
    ----------
    quarantined
        The sources that have rows in quarantine, by their relative names.

    Raises
    ------
    DataError
        If a file is in the way that was written since the job was claimed, by whomever.
    StorageError
        If a place cannot be reached.
    """
    _refuse_foreign(job, _wanted(job), old)  # which may have come since the job was claimed
    claimed = [_to_write(job, one, one.relative in quarantined) for one in job.sources]
    told = {"request": job.request, "files": [*old["files"], *claimed]}
    journal = _journal_name(job.target, job.into_folder)
    storage.write_bytes(journal, json.dumps(told).encode())
    storage.remove(job.manifest)


def _to_write(job: Job, source: Source, is_quarantined: bool) -> dict[str, Any]:
    quarantine = {"name": job.below(job.quarantine(source))} if is_quarantined else None
    return {
        "source": {"name": source.relative, "sha256": source.sha256},
        "output": {"name": job.below(job.output(source))},
        "quarantine": quarantine,
    }


def end_moving(job: Job, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Write the manifest, after removing what an earlier one names and this one does not.

    Raises
    ------
    StorageError
        If a place cannot be reached; the next attempt goes on from there.
    """
    for name in sorted(_named(old) - _named(new)):
        storage.remove(f"{job.folder}/{name}")
    told = f"{job.staging}/manifest"
    storage.write_bytes(told, (json.dumps(new, indent=2) + "\n").encode())
    storage.move(told, job.manifest)
    _remove_staging(job)


def _remove_staging(job: Job) -> None:
    storage.remove(_journal_name(job.target, job.into_folder))
    for name in storage.files_below(job.staging):
        if name.endswith(".json"):  # first of all: a receipt vouches for what lies beside it
            storage.remove(name)
    storage.remove(job.staging)
    if not storage.is_remote(job.target):  # and what models before this one left unfinished
        target = Path(job.target)
        for old in target.parent.glob(f".{escape(target.name)}-{'[0-9a-f]' * 12}"):
            storage.remove(str(old))
