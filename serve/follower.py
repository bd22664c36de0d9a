"""The process that looks at the registry, and lays verified models where the workers find them.

`python -m serve.follower`; the server starts it. It ends when its standard input does.
"""

import os
import select
import sys
import time
from dataclasses import asdict

from housing_lib.settings import HousingError, get_settings
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
    now = time.time()
    try:
        return Sighting(_release(before.release), at=now)
    except HousingError as error:
        problem = str(error)
    except Exception as error:
        log.exception("Production cannot be followed")
        problem = f"Production cannot be followed ({type(error).__name__})"
    return Sighting(before.release, problem, now, before.differs_since or now)


def _release(current: Release | None) -> Release:
    from housing_lib import deployment

    found = deployment.production()
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


def main() -> None:
    """Look, tell, wait, until the server that started this process is gone."""
    os.nice(10)  # those who answer come first
    sighting = read_sighting()
    while True:
        sighting = see(sighting)
        write_sighting(sighting)
        gone, _, _ = select.select([sys.stdin], [], [], get_settings().poll_seconds)
        if gone:
            return


if __name__ == "__main__":
    main()
