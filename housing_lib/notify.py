"""Telling somebody: an address or a command that is called when people should know something."""

import json
import shlex
import subprocess
from http.client import HTTPException
from typing import Any

from housing_lib.privacy import hide, secret_values
from housing_lib.settings import get_settings

TIMEOUT_S = 10


def tell(kind: str, **news: Any) -> list[str]:
    """What went wrong while telling, in a line each; empty if all went well, or nobody asked.

    `HOUSING_NOTIFY_URL` gets the news as a JSON body by POST, and
    `HOUSING_NOTIFY_COMMAND` the same on its standard input. Whoever is away
    fails nothing.

    Parameters
    ----------
    kind
        `run` for a run that failed or was held, `alarm` for an alarm of monitoring,
        `retraining` for one whose model was promoted.
    """
    body = json.dumps({"kind": kind, **hide(news, secret_values())}, default=str).encode()
    settings = get_settings()
    targets = {"URL": (_post, settings.notify_url), "COMMAND": (_call, settings.notify_command)}
    faults = []
    for name, (send, target) in targets.items():
        try:
            send(target, body) if target else None
        except (OSError, ValueError, HTTPException, subprocess.SubprocessError) as error:
            # An address may hold a secret, so its name is told and not the address.
            faults.append(f"HOUSING_NOTIFY_{name} could not be told: {type(error).__name__}")
    return faults


def _post(url: str, body: bytes) -> None:
    import urllib.request

    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):
        pass


def _call(command: str, body: bytes) -> None:
    subprocess.run(shlex.split(command), input=body, timeout=TIMEOUT_S, check=True)
