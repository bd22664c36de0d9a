"""Batch prediction over tables of any size: each row scored, or in quarantine with the reason."""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from housing_lib import compute, predictions, storage
from housing_lib.answering import Answering
from housing_lib.contract import COVERAGE
from housing_lib.data import DataError
from housing_lib.predictions import ADDED, Places, Receipt
from housing_lib.processes import worth_starting
from housing_lib.settings import get_settings
from housing_lib.sources import ENDINGS, Part, Source, ending, find_files, survey

WORTH_A_PROCESS = 5_000_000  # bytes, which take some seconds
FORMAT = 2  # of the files that are written: another one scores everything again
MANIFEST = "_manifest.json"
OnProgress = Callable[[float, int], None]


@dataclass(frozen=True)
class Scored:
    """Predictions that were written, and how the rows were dealt with."""

    target: str
    rows: int
    scored: int
    reasons: dict[str, int]
    quarantine: list[str]
    manifest: str
    model_version: int

    @property
    def quarantined(self) -> int:
        """The number of rows that were not scored."""
        return self.rows - self.scored


@dataclass(frozen=True)
class Job:
    """What is to be scored by which model, and where it goes.

    Each file with rows becomes one file. Its parts lie in `staging` until all are done, where a
    later attempt finds those that are.
    """

    sources: list[Source]
    target: str
    into_folder: bool
    asked: Answering

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
        return f"{self.target}/{MANIFEST}" if self.into_folder else f"{self.target}.manifest.json"

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


def default_target(source: str) -> str:
    """The file or folder that predictions for `source` go to if no other is named."""
    fixed = PurePosixPath(source.removeprefix(storage.REMOTE).partition("*")[0].rstrip("/"))
    kind = fixed.suffix if fixed.suffix.lower() in ENDINGS else ""
    name = fixed.stem if kind else fixed.name
    return str(get_settings().predictions / f"{name or 'districts'}_predictions{kind}")


def plan(source: str, target: str, asked: Answering) -> Job:
    """What is to be done, after a look at every file.

    Raises
    ------
    DataError
        If a file is not what it should be, or the target cannot be; nothing is written then.
    StorageError
        If a place cannot be reached.
    """
    base, names = find_files(source)
    into_folder = _refuse_target(target, names)
    sources = [survey(name, base) for name in names]
    if not any(one.parts for one in sources):
        raise DataError(f"{source}: no rows; expected at least one district. Nothing was written.")
    for one in sources:
        _refuse_taken_columns(one)
    whole = target if storage.is_remote(target) else storage.locate(target)[1]
    job = Job([one for one in sources if one.parts], whole.rstrip("/"), into_folder, asked)
    _refuse_overwriting(job)
    return job


def _refuse_target(target: str, names: list[str]) -> bool:
    """Whether the target is a folder."""
    kind = PurePosixPath(target).suffix.lower()
    into_folder = target.endswith("/") or not kind or storage.kind_of(target) == "folder"
    if not into_folder and kind not in ENDINGS:
        raise DataError(
            f"{target}: predictions go to a {' or '.join(ENDINGS)} file, or into a folder. "
            "Nothing was written."
        )
    if not into_folder and len(names) > 1:
        raise DataError(
            f"{target} is one file, and {len(names):,} files are to be scored: they go into a "
            "folder. Nothing was written."
        )
    return into_folder


def _refuse_taken_columns(source: Source) -> None:
    taken = ", ".join(name for name in ADDED if name in source.columns)
    if taken:
        raise DataError(
            f"{source.name} already has columns that the predictions would take: {taken}. "
            "Rename or remove them. Nothing was written."
        )


def _refuse_overwriting(job: Job) -> None:
    for source in job.sources:
        output = job.output(source)
        local = not storage.is_remote(output) and not storage.is_remote(source.name)
        if output == source.name or (
            local and Path(output).exists() and Path(output).samefile(source.name)
        ):
            raise DataError(
                f"{output} is the input itself, which is never overwritten. "
                "Name another place for the predictions. Nothing was written."
            )
    found = storage.kind_of(job.output(job.sources[0]))
    if found and not storage.kind_of(job.manifest) and not storage.files_below(job.staging):
        raise DataError(
            f"{job.target} is there, and was not written by `housing predict`. "
            "Remove it, or name another place for the predictions. Nothing was written."
        )
    if not storage.is_remote(job.target):
        try:
            Path(job.target).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{job.target} cannot be written: {error}. Nothing was written."
            ) from error


def predict(
    source: str,
    target: str,
    *,
    asked: Answering,
    jobs: int | None = None,
    on_progress: OnProgress | None = None,
) -> Scored:
    """What became of all districts in `source`, after writing the predictions to `target`.

    The input's columns come first and unchanged, whatever they hold beside the
    eight features; then the price in 100,000 USD and in dollars, the ends of its
    90 % interval, the error to expect, flags (`flags.FLAGS`), and the model's
    version. Missing features are imputed by the model, and flagged. A row that
    breaks the contract goes to a quarantine file with the reasons instead. The
    same input and version give the same bytes, however often the work was
    interrupted and wherever it is done.

    Parameters
    ----------
    source
        A CSV or Parquet file, a folder or a glob of them, here or in S3.
    target
        A file of either kind for one file, or a folder for any number.
    jobs
        Local processes; by default one a core, where there is work for so many.
    on_progress
        Hears the share of all that is done, from 0 to 1, and the rows so far.

    Raises
    ------
    DataError
        If a file is not what it should be; no prediction is written then.
    StorageError
        If a place cannot be reached; what is finished is kept for the next attempt.
    ProcessDiedError
        If the processes that work died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    job = plan(source, target, asked)
    with _alone(job.target):
        parts = [part for one in job.sources for part in one.parts]
        places = [job.places(part) for part in parts]
        size = sum(source.size for source in job.sources)
        few = jobs or worth_starting(size, each=WORTH_A_PROCESS)
        try:
            receipts = _receipts(job, parts, places, few, on_progress)
        except DataError:
            if not storage.files_below(job.staging):
                storage.remove(job.staging)
            raise
        return _finish(job, places, receipts)


@contextmanager
def _alone(target: str) -> Iterator[None]:
    name = f"housing-{hashlib.sha256(target.encode()).hexdigest()[:16]}.lock"
    try:
        with FileLock(Path(tempfile.gettempdir()) / name, timeout=0):
            yield
    except Timeout:
        raise DataError(
            f"{target} is being written by another `housing predict`. Nothing was written."
        ) from None


def _receipts(
    job: Job,
    parts: list[Part],
    places: list[Places],
    jobs: int,
    on_progress: OnProgress | None,
) -> list[Receipt]:
    """The receipt of each part, after scoring those that have none."""
    there = set(storage.files_below(job.staging))
    found = {
        number: predictions.read_receipt(one)
        for number, one in enumerate(places)
        if one.receipt in there
    }
    missing = [number for number in range(len(parts)) if number not in found]
    tasks = [(parts[number], places[number]) for number in missing]
    shares = _shares(parts)
    done, rows = sum(shares[one] for one in found), sum(one.rows for one in found.values())
    tell = on_progress or (lambda share, rows: None)
    tell(done, rows)
    for task, receipt in compute.each(predictions.score, tasks, shared=job.asked, jobs=jobs):
        found[missing[task]] = receipt
        done, rows = done + shares[missing[task]], rows + receipt.rows
        tell(done, rows)
    return [found[number] for number in range(len(parts))]


def _shares(parts: list[Part]) -> list[float]:
    """How much of all the work each part is; they add up to 1."""
    sizes = [part.share * part.source.size for part in parts]
    whole = sum(sizes)
    return [size / whole for size in sizes]


def _finish(job: Job, places: list[Places], receipts: list[Receipt]) -> Scored:
    """Join the parts, and write the manifest last: where it is, all is there."""
    old = json.loads(storage.read_bytes(job.manifest)) if storage.kind_of(job.manifest) else {}
    storage.remove(job.manifest)
    of_parts = list(zip(places, receipts, strict=True))
    files = []
    for source in job.sources:
        count = len(source.parts)
        files.append(_join(job, source, of_parts[:count]))
        del of_parts[:count]
    manifest = _manifest(job, files, receipts)
    _remove_stale(job, old, manifest)
    told = f"{job.staging}/manifest"
    storage.write_bytes(told, (json.dumps(manifest, indent=2) + "\n").encode())
    storage.move(told, job.manifest)
    _remove_staging(job)
    return Scored(
        target=job.target,
        rows=manifest["rows"],
        scored=manifest["scored"],
        reasons=manifest["reasons"],
        quarantine=[job.quarantine(one) for one, file in zip(job.sources, files, strict=True)
                    if file["quarantine"]],
        manifest=job.manifest,
        model_version=job.asked.identity.model_version,
    )  # fmt: skip


def _join(job: Job, source: Source, of_parts: list[tuple[Places, Receipt]]) -> dict[str, Any]:
    """What the manifest says of one source, after writing its two files."""
    places = [one for one, _ in of_parts]
    rows = sum(receipt.rows for _, receipt in of_parts)
    scored = sum(receipt.scored for _, receipt in of_parts)
    quarantine = None
    if rows > scored:
        joined = f"{job.staging}/quarantine"
        digest = predictions.join_quarantine(source, places, joined)
        storage.move(joined, job.quarantine(source))
        quarantine = {"name": _below(job, job.quarantine(source)), "sha256": digest}
    output = job.output(source)
    joined = f"{job.staging}/joined{ending(output)}"
    digest = predictions.join(source, places, joined)
    storage.move(joined, output)
    return {
        "source": {"name": source.relative, "sha256": source.sha256, "bytes": source.size},
        "rows": rows,
        "scored": scored,
        "quarantined": rows - scored,
        "output": {"name": _below(job, output), "sha256": digest},
        "quarantine": quarantine,
    }


def _below(job: Job, name: str) -> str:
    folder = job.target if job.into_folder else job.target.rpartition("/")[0]
    return name.removeprefix(f"{folder}/")


def _manifest(job: Job, files: list[dict[str, Any]], receipts: list[Receipt]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for receipt in receipts:
        reasons.update(receipt.reasons)
    totals = {name: sum(file[name] for file in files) for name in ("rows", "scored", "quarantined")}
    return {
        "format": FORMAT,
        "model": job.asked.described(),
        "coverage": COVERAGE,
        **totals,
        "reasons": dict(sorted(reasons.items())),
        "files": files,
    }


def _remove_stale(job: Job, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Remove what an earlier manifest names and this one does not."""
    folder = job.target if job.into_folder else job.target.rpartition("/")[0]
    for name in sorted(_named(old) - _named(new)):
        storage.remove(f"{folder}/{name}")


def _named(manifest: dict[str, Any]) -> set[str]:
    files = manifest.get("files", [])
    written = [one for file in files for one in (file["output"], file["quarantine"])]
    return {one["name"] for one in written if one}


def _remove_staging(job: Job) -> None:
    for name in storage.files_below(job.staging):
        if name.endswith(".json"):  # first of all: a receipt vouches for what lies beside it
            storage.remove(name)
    storage.remove(job.staging)
    if not storage.is_remote(job.target):  # and what models before this one left unfinished
        target = Path(job.target)
        for old in target.parent.glob(f".{escape(target.name)}-{'[0-9a-f]' * 12}"):
            storage.remove(str(old))
