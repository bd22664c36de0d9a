"""The start of a server: one process or several behind one address, and who may reach it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from housing_lib.errors import HousingError
from housing_lib.settings import get_settings
from serve.keys import is_loopback, parse_keys
from serve.prediction_log import refuse_strictness_without_log, refuse_unusable_log

GRACE_SECONDS = 30
PROTOCOL = "serve.protocol:OnePiece"


class LaunchError(HousingError):
    """A server that is not started as it was asked for."""


def launch(host: str | None, port: int | None, workers: int, *, without_keys: bool) -> None:
    """Serve until told to stop; requests in flight are finished first.

    Raises
    ------
    LaunchError
        If other machines could call a server that has no API keys, unless said twice:
        by this option and by `HOUSING_WITHOUT_KEYS`.
    ApiKeyError
        If an entry of `HOUSING_API_KEYS` is not of its form.
    LogOffError
        If answers are to wait for a log that is off.
    UnusableLogError
        If the name of the log is no address of a database.
    """
    refuse_unusable_log(get_settings())
    refuse_strictness_without_log(get_settings())
    address = host or get_settings().host
    _refuse_open_door(address, without_keys)
    os.environ["HOUSING_HOST"] = address
    get_settings.cache_clear()  # the server in this process goes by it, too
    with _counting_together(workers):
        uvicorn.run(
            "serve.app:app",
            host=address,
            port=port or get_settings().port,
            workers=workers,
            http=PROTOCOL,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )


@contextmanager
def _counting_together(workers: int) -> Iterator[None]:
    """A block in which several workers count in files, so that each can tell of all."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="housing-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _refuse_open_door(address: str, without_keys: bool) -> None:
    settings = get_settings()
    keys = parse_keys(settings.api_keys)
    if keys or is_loopback(address) or (without_keys and settings.without_keys):
        return
    raise LaunchError(
        f"{address} can be reached from other machines, and no API keys are set. Set "
        "HOUSING_API_KEYS (`housing key NAME` makes one). Or, if anybody may call it, say so "
        "twice: --without-keys and HOUSING_WITHOUT_KEYS=true. Nothing was started."
    )
