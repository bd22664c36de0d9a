"""Lock files, by which processes of one machine keep out of each other's way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from housing_lib.errors import HousingError


class LockError(HousingError):
    """A lock that cannot be taken, whoever holds it: its file is another user's, for example."""


@contextmanager
def holding(path: Path, *, timeout_s: float, taken: Callable[[], HousingError]) -> Iterator[None]:
    """Hold the lock of a file, which is there afterwards as its folder is.

    Parameters
    ----------
    timeout_s
        How long to wait for whoever holds it; for ever if below 0.
    taken
        The error to raise if somebody holds it for longer.

    Raises
    ------
    LockError
        If it cannot be taken, whoever holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout_s)
    except Timeout:
        raise taken() from None
    except OSError as error:
        raise _cannot_take(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _cannot_take(path: Path, error: OSError) -> LockError:
    owner = ""
    with suppress(OSError, KeyError):  # a user without a name, or a file that went away
        owner = f"; it belongs to {path.owner()}"
    return LockError(
        f"the lock {path} cannot be taken: {error.strerror or error}{owner}. Expected a file that "
        "you can write: let its owner remove it once nothing of theirs runs here, or name "
        "another place by HOUSING_ROOT. Nothing was run."
    )
