"""Nested records as flat arrays by name, and back: what a file without code can hold."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np


def flatten(record: Any, prefix: str = "") -> dict[str, Any]:
    """The arrays and numbers of a record, its parts' names joined by dots."""
    flat: dict[str, Any] = {}
    for name in get_type_hints(type(record)):
        value, path = getattr(record, name), f"{prefix}{name}"
        if _is_record(type(value)):
            flat |= flatten(value, f"{path}.")
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                flat |= flatten(part, f"{path}.{number}.")
        elif value is not None:
            flat[path] = np.array(value, order="C")
    return flat


def restore(kind: Any, flat: Mapping[str, Any], prefix: str = "") -> Any:
    """The record of that kind which was flattened.

    Raises
    ------
    KeyError
        If an array is missing.
    """
    hints = get_type_hints(kind)
    return kind(**{name: _part(hint, flat, f"{prefix}{name}") for name, hint in hints.items()})


def _part(hint: Any, flat: Mapping[str, Any], path: str) -> Any:
    if get_origin(hint) is UnionType:
        return _one_of(get_args(hint), flat, path)
    if get_origin(hint) is tuple:
        names = {name.removeprefix(f"{path}.") for name in flat if name.startswith(f"{path}.")}
        count = len({name.partition(".")[0] for name in names})
        return tuple(restore(get_args(hint)[0], flat, f"{path}.{k}.") for k in range(count))
    if _is_record(hint):
        return restore(hint, flat, f"{path}.")
    value = flat[path]
    return value.item() if value.ndim == 0 else value


def _one_of(kinds: tuple[Any, ...], flat: Mapping[str, Any], path: str) -> Any:
    for kind in kinds:
        if kind is not NoneType and all(
            _is_there(name, flat, path) for name in get_type_hints(kind)
        ):
            return restore(kind, flat, f"{path}.")
    if NoneType in kinds:
        return None
    raise KeyError(path)


def _is_there(name: str, flat: Mapping[str, Any], path: str) -> bool:
    whole = f"{path}.{name}"
    return any(key == whole or key.startswith(f"{whole}.") for key in flat)


def _is_record(kind: Any) -> bool:
    return is_dataclass(kind) or hasattr(kind, "_fields")
