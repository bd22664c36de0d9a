"""The process that looks at the registry, and lays verified models where the workers find them.

`python -m serve.follower`; the server starts it. It ends when its standard input does.
"""

import os
import select
import sys
import time
from dataclasses import asdict
from pathlib import Path

from housing_lib.errors import HousingError
from housing_lib.settings import get_settings
from serve.champion import (
    Release,
    Sighting,
    load_champion,
    log,
    read_sighting,
    write_sighting,
)

# A registry that does not answer within seconds is away; the next look comes soon.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
KEPT = 3


def see(before: Sighting) -> Sighting:
    """What stands in Production now, verified and in the folder; or else what stood there."""
    try:
        return Sighting(_release(before.release), at=time.time())
    except HousingError as error:
        problem = str(error)
    except Exception as error:
        log.exception("Production cannot be followed")
        problem = f"Production cannot be followed ({type(error).__name__})"
    return _still(before, problem)


def _still(before: Sighting, problem: str) -> Sighting:
    now = time.time()
    return Sighting(before.release, problem, now, before.differs_since or now)


def _release(current: Release | None) -> Release:
    from housing_lib import deployment

    found = deployment.standing_in("production")
    if current is not None and current.file.exists() and deployment.is_same(current, found):
        return current
    deployed = deployment.deploy(found, get_settings().serving)
    release = Release(stage="Production", **asdict(deployed))
    load_champion(release)
    _keep_newest()
    return release


def _keep_newest() -> None:
    copies = sorted(get_settings().serving.glob("*.npz"), key=lambda path: path.stat().st_mtime)
    for old in copies[:-KEPT]:
        old.unlink(missing_ok=True)


def _store() -> tuple[int, int] | None:
    """What tells one SQLite store from another; None if there is none, or it is no file."""
    scheme, _, path = get_settings().store_uri.partition(":///")
    try:
        found = Path(path).stat() if scheme == "sqlite" else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def main() -> None:
    """Look, tell, wait, until the server that started this process is gone."""
    os.nice(19)  # those who answer come first
    sighting, known = read_sighting(), _store()
    while True:
        here = _store()
        if known and here and here != known:
            return  # another store stands there; the server starts this process anew
        if known and not here:
            # SQLite itself would go on with the file that was taken away.
            sighting = _still(sighting, "the MLflow store is gone")
        else:
            sighting = see(sighting)
        known = known or _store()
        write_sighting(sighting)
        gone, _, _ = select.select([sys.stdin], [], [], get_settings().poll_seconds)
        if gone:
            return


if __name__ == "__main__":
    main()
