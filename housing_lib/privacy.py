"""What must not be kept or shown: secrets by their names and values, and a machine's folders."""

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from housing_lib.errors import HousingError
from housing_lib.settings import get_settings

SECRET_WORDS = {"secret", "token", "password", "passwd", "key", "apikey", "credential"}
SECRET_ENDS = ("secret", "token", "password", "passwd", "apikey")  # as of PGPASSWORD
SHORTEST = 6  # what is shorter stands in too many innocent texts
HIDDEN = "[hidden]"
# The folders of an absolute path, or an address of a network, which stays as it is.
FOLDERS = re.compile(
    r"(?P<address>\b(?!file:|sqlite)[A-Za-z][\w+.-]*://\S+)|"
    r"(?:(?<![\w/.:~*<>-])|(?<=sqlite:///)|(?<=file://))/(?:[\w.+@~-]+/)+(?=[\w.+@~-])"
)
# What a notebook's file is built of: nobody's secret, whatever somebody chose for a password.
FORM = {"code", "markdown", "stream", "stdout", "stderr", "error", "display_data", "execute_result"}


def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is a secret.

    Examples
    --------
    >>> is_secret_name("api_key"), is_secret_name("PGPASSWORD"), is_secret_name("monkeys")
    (True, True, False)
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    singular = [word.lower().rstrip("s") for word in words]
    return any(word in SECRET_WORDS or word.endswith(SECRET_ENDS) for word in singular)


def secret_values() -> list[str]:
    """The secrets in this process's environment, settings and command, longest first.

    They are the values of variables with a secret name, and passwords in addresses.
    """
    known = os.environ | _settings()
    named = [value for name, value in known.items() if is_secret_name(name)]
    addresses = " ".join([*known.values(), *sys.argv])
    in_addresses = re.findall(r"://[^/@:\s]*:([^/@\s]+)@", addresses)
    found = {value for value in [*named, *in_addresses] if len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)


def _settings() -> dict[str, str]:
    """The settings, some of which `.env` may name."""
    with suppress(HousingError):  # whoever uses them says what is wrong with them
        return {name: str(value) for name, value in get_settings().model_dump().items()}
    return {}


def hide(content: Any, secrets: list[str]) -> Any:
    """Text, or lists and dictionaries of it, without the secrets; keys and words of form stay."""
    if not secrets:
        return content
    if isinstance(content, str):
        for secret in secrets if content not in FORM else ():
            content = content.replace(secret, HIDDEN)
        return content
    if isinstance(content, Mapping):
        return {key: hide(value, secrets) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [hide(value, secrets) for value in content]
    return content


def without_folders(text: str) -> str:
    """Text whose absolute paths are the names of their files: a page is read on other machines.

    Examples
    --------
    >>> without_folders("/home/ann/data/new.csv is empty; expected s3://bucket/new.csv")
    'new.csv is empty; expected s3://bucket/new.csv'
    >>> without_folders("see http://127.0.0.1:5000/#/runs/abc, not sqlite:////home/ann/mlflow.db")
    'see http://127.0.0.1:5000/#/runs/abc, not sqlite:///mlflow.db'
    """
    return FOLDERS.sub(lambda found: found["address"] or "", text)
