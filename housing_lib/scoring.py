"""Batch prediction over tables of any size: each row scored, or in quarantine with the reason."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from housing_lib import compute, predictions, storage
from housing_lib.answering import Answering
from housing_lib.contract import COVERAGE
from housing_lib.data import DataError
from housing_lib.predictions import ADDED, QUARANTINED, Places, Receipt
from housing_lib.processes import worth_starting
from housing_lib.sources import Part, Source, ending, find_files, survey
from housing_lib.targets import (
    FORMAT,
    Job,
    alone,
    begin_moving,
    claim,
    earlier_manifest,
    end_moving,
    is_folder,
    refuse_many,
    without_written,
)

WORTH_A_PROCESS = 5_000_000  # bytes, which take some seconds
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


def plan(source: str, target: str, asked: Answering) -> Job:
    """What is to be done, after a look at every file.

    Raises
    ------
    DataError
        If a file is not what it should be, or the target cannot be; nothing is written then.
    StorageError
        If a place cannot be reached.
    """
    base, found = find_files(source)
    into_folder = is_folder(target)
    whole = storage.absolute(target).rstrip("/")
    names = without_written(found, whole, into_folder)
    refuse_many(target, into_folder, names)
    sources = [survey(name, base) for name in names]
    for one in sources:
        _refuse_taken_columns(one)
    with_rows = [one for one in sources if one.parts]
    if not with_rows:
        raise DataError(f"{source}: no rows; expected at least one district. Nothing was written.")
    request = hashlib.sha256(storage.absolute(source).encode()).hexdigest()
    return Job(with_rows, whole, into_folder, asked, tuple(names), request)


def _refuse_taken_columns(source: Source) -> None:
    rest = source.columns[predictions.reasons_before(source) :]
    taken = ", ".join(name for name in (*ADDED, *QUARANTINED) if name in rest)
    if taken:
        raise DataError(
            f"{source.name} already has columns that the predictions would take: {taken}. "
            "Rename or remove them. Nothing was written."
        )


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

    No input is replaced, and no file that `predict` did not write. Predictions in
    the target folder for files other than these are neither, but where the same
    folder or glob was asked for before: then those of changed files are replaced,
    and those go whose file is gone. Earlier predictions in the target are no input.

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
    with alone(job.target):
        claim(job)
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
    old = earlier_manifest(job.target, job.into_folder)
    left = iter(zip(places, receipts, strict=True))
    of_parts = {one.relative: list(islice(left, len(one.parts))) for one in job.sources}
    bad = {name for name, parts in of_parts.items() if any(one.quarantined for _, one in parts)}
    files: list[dict[str, Any]] = []
    for source in job.sources:
        joined = _join(job, source, of_parts[source.relative])
        if not files:
            begin_moving(job, old, bad)
        _move(job, source, joined)
        files.append(joined)
    manifest = _manifest(job, files, receipts)
    end_moving(job, old, manifest)
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


def _move(job: Job, source: Source, joined: dict[str, Any]) -> None:
    if joined["quarantine"]:
        storage.move(f"{job.staging}/quarantine", job.quarantine(source))
    output = job.output(source)
    storage.move(f"{job.staging}/joined{ending(output)}", output)


def _join(job: Job, source: Source, of_parts: list[tuple[Places, Receipt]]) -> dict[str, Any]:
    """What the manifest says of one source, after writing its two files to the staging."""
    places = [one for one, _ in of_parts]
    rows = sum(receipt.rows for _, receipt in of_parts)
    scored = sum(receipt.scored for _, receipt in of_parts)
    quarantine = None
    if rows > scored:
        digest = predictions.join_quarantine(source, places, f"{job.staging}/quarantine")
        quarantine = {"name": job.below(job.quarantine(source)), "sha256": digest}
    output = job.output(source)
    digest = predictions.join(source, places, f"{job.staging}/joined{ending(output)}")
    return {
        "source": {"name": source.relative, "sha256": source.sha256, "bytes": source.size},
        "rows": rows,
        "scored": scored,
        "quarantined": rows - scored,
        "output": {"name": job.below(output), "sha256": digest},
        "quarantine": quarantine,
    }


def _manifest(job: Job, files: list[dict[str, Any]], receipts: list[Receipt]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for receipt in receipts:
        reasons.update(receipt.reasons)
    totals = {name: sum(file[name] for file in files) for name in ("rows", "scored", "quarantined")}
    return {
        "format": FORMAT,
        "model": job.asked.described(),
        "coverage": COVERAGE,
        **({"request": job.request} if job.into_folder else {}),
        **totals,
        "reasons": dict(sorted(reasons.items())),
        "files": files,
    }
