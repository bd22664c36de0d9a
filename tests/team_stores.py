"""What a team shares: MLflow's server on PostgreSQL, with its artifacts in an object store."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from databases import Postgres, running_postgres
from object_stores import BUCKET, running_store


@contextmanager
def running_team_store(folder: Path) -> Iterator[tuple[str, Postgres]]:
    """The address of an MLflow server, and the PostgreSQL below it."""
    with running_postgres(folder / "postgres") as postgres, running_store() as objects:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1",
                   "--backend-store-uri", postgres.create("mlflow"), "--port", str(port),
                   "--artifacts-destination", f"s3://{BUCKET}/mlflow"]  # fmt: skip
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (folder / "mlflow.log").open("w") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **objects.environment, **quiet}, stdout=log, stderr=log
            )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/health", process)
            yield address, postgres
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("MLflow's server did not come up")
