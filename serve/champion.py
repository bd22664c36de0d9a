"""The Production model as the server holds it: the newest verified copy on this machine.

One follower process a machine (`serve.follower`) looks at the registry and lays
verified copies into a folder; every worker watches that folder. So no worker
imports MLflow or unpickles anything, all of them agree, and a registry that goes
away changes nothing.
"""

import logging
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from housing_lib import compiled
from housing_lib.contract import Floats
from housing_lib.errors import HousingError
from housing_lib.files import atomic_path
from housing_lib.settings import get_settings

log = logging.getLogger("uvicorn.error")

SILENT_AFTER_S = 15.0
RESPAWN_AFTER_S = 5.0


class NoChampionError(HousingError):
    """No model stands ready to answer; the text says why."""


class StartingError(NoChampionError):
    """Nobody has told yet which model is to answer; within moments somebody will have."""


class Release(msgspec.Struct, frozen=True):
    """One version of the registry and the file that it was compiled into."""

    name: str
    version: int
    stage: str
    family: str
    run_id: str
    data_digest: str
    digest: str

    @property
    def file(self) -> Path:
        """The compiled model on this machine."""
        return get_settings().serving / f"{self.digest}.npz"


class Sighting(msgspec.Struct, frozen=True):
    """What the follower last saw: the release to serve, and what keeps it from seeing more."""

    release: Release | None = None
    problem: str = ""
    at: float = 0.0
    differs_since: float = 0.0


def sighting_file() -> Path:
    """Where the follower tells the workers what it saw."""
    return get_settings().serving / "champion.json"


def read_sighting() -> Sighting:
    """What the follower last saw; nothing, if there never was one."""
    try:
        return msgspec.json.decode(sighting_file().read_bytes(), type=Sighting)
    except (OSError, msgspec.DecodeError):
        return Sighting()


def write_sighting(sighting: Sighting) -> None:
    """Tell the workers what was seen, whole or not at all."""
    with atomic_path(sighting_file()) as temporary:
        temporary.write_bytes(msgspec.json.encode(sighting))


@dataclass(frozen=True)
class Champion:
    """A release, its arrays, and the moment since which it answers."""

    release: Release
    model: compiled.Compiled
    loaded_at: datetime

    def answer(self, rows: Floats) -> compiled.Answers:
        """What the model says of districts of shape (rows, 8)."""
        return self.model.answer(rows)


def load_champion(release: Release) -> Champion:
    """The model of a release, verified and warmed up.

    Raises
    ------
    CompileError
        If its file is not what it should be, or does not give the model's own answers.
    """
    model = compiled.load(release.file, digest=release.digest)
    model.answer(model.golden)
    model.answer(model.golden[:1])
    return Champion(release, model, datetime.now(UTC))


class Follower:
    """The follower process, of which one worker of the machine is the keeper.

    It ends when its keeper does, because nobody holds the other end of its
    standard input any more; another worker takes the lock then.
    """

    def __init__(self) -> None:
        folder = get_settings().serving
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "follower.lock", thread_local=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def keep(self) -> None:
        """See to it that the process runs, here or under another worker."""
        if self._process is not None and self._process.poll() is None:
            return
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return
        if time.monotonic() - self._started > RESPAWN_AFTER_S or not self._started:
            self._started = time.monotonic()
            command = [sys.executable, "-m", "serve.follower"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def end(self) -> None:
        """End the process if it is ours; what it writes is whole or absent at any moment."""
        if self._process is not None:
            self._process.kill()  # also where it was stopped, and would not hear of it
            self._process.wait()
        self._lock.release(force=True)


class Following:
    """The champion of one worker: what answers now, and what is wrong with it.

    `champion` is replaced between two requests and never changed, so a request
    that has begun ends with the version that it began with.
    """

    def __init__(self) -> None:
        self.champion: Champion | None = None
        self.sighting = Sighting()
        self._fault, self._behind_since = "", 0.0
        self._refused: Release | None = None

    def look(self) -> None:
        """Take over what the follower saw; whatever fails, the old champion stays."""
        self.sighting = read_sighting()
        wanted = self.sighting.release
        if wanted is None or wanted == self._refused:
            return
        try:
            self._take_over(wanted)
        except Exception as error:
            if str(error) != self._fault:
                log.exception("Version %d cannot be taken over", wanted.version)
            self._behind_since = self._behind_since or time.time()
            may_pass = isinstance(error.__cause__ or error, OSError)
            self._fault, self._refused = str(error), None if may_pass else wanted

    def _take_over(self, wanted: Release) -> None:
        if self.champion is None or self.champion.release != wanted:
            self.champion = load_champion(wanted)
            log.info("Serving %s version %d (%s)", wanted.name, wanted.version, wanted.family)
        self._fault, self._refused, self._behind_since = "", None, 0.0

    @property
    def problem(self) -> str:
        """Why what answers may not be what stands in Production; empty if all is well."""
        if self._fault or self.sighting.problem:
            return self._fault or self.sighting.problem
        if not self.sighting.at:
            return "the registry is being asked for the first time"
        silent = time.time() - self.sighting.at
        if silent > get_settings().poll_seconds + SILENT_AFTER_S:
            return f"the registry was last asked {silent:.0f} s ago"
        return ""

    @property
    def lag_seconds(self) -> float:
        """For how long Production has been another version than the one that answers."""
        since = self.sighting.differs_since or (self._behind_since if self.champion else 0)
        return max(0.0, time.time() - since) if since else 0.0

    def current(self) -> Champion:
        """The model that answers now.

        Raises
        ------
        NoChampionError
            If there is none; the text says why.
        """
        if self.champion is None:
            raise self._absence()
        return self.champion

    def _absence(self) -> NoChampionError:
        if self.sighting.at or self._fault:
            return NoChampionError(self.problem or "no model has been loaded yet")
        return StartingError(f"the server is starting: {self.problem}")
