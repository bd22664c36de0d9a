"""An S3-compatible store on this machine, which tests can lose and find again."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from housing_lib import storage

BUCKET = "housing"


@dataclass
class ObjectStore:
    """moto's server; it keeps its objects while it is stopped."""

    server: Any
    environment: dict[str, str]

    def put(self, path: Path, key: str) -> str:
        """The name of a new object that holds what a file holds."""
        storage.write_bytes(f"s3://{BUCKET}/{key}", path.read_bytes())
        return f"s3://{BUCKET}/{key}"

    def stop(self) -> None:
        """Answer nobody any more."""
        self.server.stop()

    def start(self) -> None:
        """Answer again, at the same address."""
        self.server.start()


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """A store with one bucket, which the environment of this process names."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request, whatever moto says
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    server._port = port  # so that it comes back where it was
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        storage._object_store.cache_clear()
        _create_bucket()
        yield ObjectStore(server, environment)
        storage._object_store.cache_clear()
        server.stop()


def _create_bucket() -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=BUCKET)
    client.close()
