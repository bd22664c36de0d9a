"""What a team shares: MLflow's server on PostgreSQL, with its artifacts in an object store."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from clusters import START_S, end
from databases import Postgres, running_postgres
from object_stores import BUCKET, ObjectStore, running_store

from housing_lib.settings import PROJECT


@dataclass(frozen=True)
class TeamStore:
    """The address of an MLflow server, and what it keeps its runs and its files in."""

    address: str
    postgres: Postgres
    objects: ObjectStore


@contextmanager
def running_team_store(folder: Path) -> Iterator[TeamStore]:
    """A store with nothing in it, which ends with the block."""
    with running_postgres() as postgres, running_store() as objects:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = _command_of_the_readme(postgres.create("mlflow"), port)
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (folder / "mlflow.log").open("w") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **objects.environment, **quiet}, stdout=log, stderr=log
            )
        try:
            address = f"http://localhost:{port}"
            _wait(f"{address}/health", process)
            yield TeamStore(address, postgres, objects)
        finally:
            end(process)


def _command_of_the_readme(database: str, port: int) -> list[str]:
    """The command word for word, but for the names of machine, database and bucket."""
    text = (PROJECT / "README.md").read_text().replace("\\\n", "")
    (command,) = re.findall("^createdb mlflow && mlflow (server .*)$", text, flags=re.MULTILINE)
    named = {
        "postgresql+psycopg://user@host/mlflow": database,
        "s3://bucket": f"s3://{BUCKET}",
        "0.0.0.0": "127.0.0.1",
        "that-machine:5000": f"localhost:{port}",
    }
    for placeholder, name in named.items():
        assert placeholder in command
        command = command.replace(placeholder, name)
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    return [mlflow, *shlex.split(command), "--port", str(port), "--workers", "1"]


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("MLflow's server did not come up")
