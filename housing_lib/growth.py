"""The training data as they grow: a source that is never edited, and labelled districts beside it.

Each addition is a file of its own, `labelled-0001.parquet` and so on, which is
never changed afterwards. `districts.parquet` is the source with all additions
behind it, made anew from them, for `housing run --source` to read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from housing_lib import locks
from housing_lib.data import (
    CONTRACT,
    PARTS,
    TARGET,
    USD_PER_UNIT,
    DataError,
    Ids,
    acquire,
    row_ids,
    split,
)
from housing_lib.files import atomic_path
from housing_lib.settings import get_settings

WHEN = "observed_at"
_LOCK_TIMEOUT_S = 60
LABELLED = "labelled-"  # the beginning of the name of each addition


@dataclass(frozen=True)
class Growth:
    """What became of labelled districts that were offered, and where all districts are now."""

    source: Path
    offered: int
    added: dict[str, int]  # by part of the split
    known: int
    unpriced: int
    faulty: int
    conflicts: tuple[str, ...]
    labelled: int

    @property
    def sentence(self) -> str:
        """It all, as a reader says it."""
        parts = ", ".join(f"{count:,} {name}" for name, count in self.added.items() if count)
        joined = f"{sum(self.added.values()):,} of {self.offered:,} labelled districts joined"
        left_out = {
            "known before": self.known,
            "without a price": self.unpriced,
            "breaking the contract": self.faulty,
            "of another price than is known": len(self.conflicts),
        }
        told = [f"{count:,} {why}" for why, count in left_out.items() if count]
        return "; ".join([f"{joined} ({parts})" if parts else joined, *told])


def grow(rows: pd.DataFrame, *, source: str = "bundled") -> Growth:
    """What came of adding labelled districts to `source`; each is added once.

    A row is known by its features. One whose price is another than the known
    one is left out and named: the price that came first counts, so that no
    locked price is ever changed. What is added falls to its part of the split
    by the same rule as everything else.

    Parameters
    ----------
    rows
        The columns of the contract, `fault` (why a row breaks it, or empty) and
        `observed_at` (when its price turned out, UTC).
    source
        What the data grow from: `bundled`, `sklearn` or a path.

    Raises
    ------
    DataError
        If the source or an earlier addition cannot be read, or another process is adding for long.
    LockError
        If the lock cannot be taken.
    """
    with _lock():
        old, joined = acquire(source), labelled()[list(CONTRACT)]
        base = _united(old, joined)
        good = rows["fault"] == ""
        priced = rows[good & rows[TARGET].notna()]
        fresh, conflicts = _fresh(priced, base)
        everything = pd.concat([base, fresh[list(CONTRACT)]], ignore_index=True)
        added = _by_part(everything, last=len(fresh))  # it may refuse, so nothing is written yet
        if len(fresh):
            _append(fresh)
        return Growth(
            source=_write(everything) if len(everything) > len(old) else Path(source),
            offered=len(rows),
            added=added,
            known=len(priced) - len(fresh) - len(conflicts),
            unpriced=int((good & rows[TARGET].isna()).sum()),
            faulty=int((~good).sum()),
            conflicts=conflicts,
            labelled=len(joined) + len(fresh),
        )


def _united(old: pd.DataFrame, joined: pd.DataFrame) -> pd.DataFrame:
    unheld = ~np.isin(row_ids(joined), row_ids(old))  # a source may hold them already
    return pd.concat([old, joined[unheld]], ignore_index=True)


def _write(everything: pd.DataFrame) -> Path:
    path = get_settings().grown / "districts.parquet"
    with atomic_path(path) as temporary:
        everything.to_parquet(temporary, index=False)
    return path


def _fresh(priced: pd.DataFrame, base: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of unknown districts, each once; and those whose price contradicts, in words."""
    ids = pd.Series(row_ids(priced), index=priced.index)
    known = base[TARGET].groupby(row_ids(base)).first()
    first = ids.map(known).fillna(priced[TARGET].groupby(ids).transform("first"))
    agrees = priced[TARGET] == first
    is_new = agrees & ~ids.isin(known.index) & ~ids.duplicated()
    contradicting = priced.assign(known=first)[~agrees]
    return priced[is_new], tuple(map(_conflict, contradicting.to_dict("records")))


def _conflict(row: dict[Any, Any]) -> str:
    place = f"{row['Latitude']:.2f}, {row['Longitude']:.2f}"
    found, known = (f"${row[name] * USD_PER_UNIT:,.0f}" for name in (TARGET, "known"))
    return f"the district at {place} for {found}, known for {known}"


def _by_part(everything: pd.DataFrame, *, last: int) -> dict[str, int]:
    parts = split(everything)[len(everything) - last :]
    return {name: int((parts == name).sum()) for name in PARTS}


def _append(fresh: pd.DataFrame) -> None:
    # Not their count: whoever removes one file must not have another one written over.
    number = max((int(path.stem.removeprefix(LABELLED)) for path in _files()), default=0) + 1
    with atomic_path(get_settings().grown / f"{LABELLED}{number:04d}.parquet") as path:
        fresh[[*CONTRACT, WHEN]].to_parquet(path, index=False)


def _files() -> list[Path]:
    return sorted(get_settings().grown.glob(f"{LABELLED}*.parquet"))


def labelled() -> pd.DataFrame:
    """All labelled districts that joined so far, with when they were observed.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    tables = [_empty(), *map(_read, _files())]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _empty() -> pd.DataFrame:
    types = dict.fromkeys(CONTRACT, "float64") | {WHEN: "datetime64[us, UTC]"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=[*CONTRACT, WHEN])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {str(error).splitlines()[0]}. It holds districts that the "
            "training data grew by; bring it back from a backup, or remove it to go on without "
            "them. Nothing was changed."
        ) from error


def recent_ids() -> Ids:
    """The ids of labelled districts observed within `HOUSING_RECENT_DAYS` before the newest one.

    Observed is a price, when it turned out to be true, whenever it was asked for.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    found = labelled()
    since = found[WHEN].max() - timedelta(days=get_settings().recent_days)
    return row_ids(found[found[WHEN] >= since])


@contextmanager
def _lock() -> Iterator[None]:
    path = get_settings().grown / ".lock"
    with locks.holding(path, timeout_s=_LOCK_TIMEOUT_S, taken=_held):
        yield


def _held() -> DataError:
    return DataError(
        f"{get_settings().grown} is held by another process, which adds districts to the training "
        f"data for more than {_LOCK_TIMEOUT_S} seconds. Give the same command again once it has "
        "ended. Nothing was written."
    )
