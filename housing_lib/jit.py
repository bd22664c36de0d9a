"""Functions that become machine code once a machine, and again when any of them is changed.

numba's own cache notices a change of the file in which a function stands, but not
of those that it calls; so each state of all these files has a folder of its own.
"""

import hashlib
from pathlib import Path

import numba
from numba.core import config

SOURCES = ("searching", "compiled_features", "forests", "shallow", "networks")


def _folder() -> Path:
    here = Path(__file__).parent
    sources = b"".join((here / f"{name}.py").read_bytes() for name in SOURCES)
    base = Path(config.CACHE_DIR or here / "__pycache__")  # type: ignore[attr-defined]
    return base / hashlib.sha256(sources).hexdigest()[:16]


config.CACHE_DIR = str(_folder())  # type: ignore[attr-defined]
# Without Python's lock, so that another thread gets on meanwhile.
kernel = numba.njit(cache=True, nogil=True)
