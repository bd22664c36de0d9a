"""Who may call: API keys that are kept as digests, several at once, each for some routes."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from housing_lib.errors import HousingError

SCOPES = ("predict", "actuals", "metrics")
_ENTRY = re.compile(r"([A-Za-z0-9_.-]+):([a-z+]+):([0-9a-f]{64})")


class ApiKeyError(HousingError):
    """API keys in the settings that cannot be used."""


@dataclass(frozen=True)
class Key:
    """One caller: a name for the log, what it may do, and the SHA-256 of the key itself.

    A key is 256 random bits, so that its plain digest gives nothing away.
    """

    name: str
    scopes: frozenset[str]
    digest: str

    @property
    def entry(self) -> str:
        """The key as it stands in `HOUSING_API_KEYS`."""
        return f"{self.name}:{'+'.join(sorted(self.scopes))}:{self.digest}"


def new_key(name: str, scopes: Collection[str]) -> tuple[str, Key]:
    """A new secret, and what is kept of it.

    Raises
    ------
    ApiKeyError
        If the name or a scope is none.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ApiKeyError(
            f"found the scopes {', '.join(unknown) or 'none'}; expected some of "
            f"{', '.join(SCOPES)}, separated by commas. No key was made."
        )
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    (key,) = parse_keys(f"{name}:{'+'.join(scopes)}:{digest}")
    return secret, key


def parse_keys(setting: str) -> list[Key]:
    """The keys in a setting, `name:scope+scope:sha256`, separated by commas.

    Raises
    ------
    ApiKeyError
        If an entry is not of that form; the digest is not repeated.
    """
    keys: list[Key] = []
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        match = _ENTRY.fullmatch(entry)
        scopes = frozenset(match[2].split("+")) if match else frozenset()
        if match is None or not scopes <= set(SCOPES):
            raise ApiKeyError(
                f"HOUSING_API_KEYS: entry {len(keys) + 1} is not name:scopes:sha256; expected "
                f"scopes among {', '.join(SCOPES)}, joined by +. `housing key NAME` makes one. "
                "Nothing was started."
            )
        keys.append(Key(match[1], scopes, match[3]))
    return keys


def find_key(keys: Collection[Key], secret: str) -> Key | None:
    """The key of this secret; how long it takes does not tell how nearly right it was."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


@lru_cache(1024)
def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
