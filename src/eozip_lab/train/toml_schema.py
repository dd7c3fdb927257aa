"""TOML tables to frozen dataclasses: unknown keys refused, types checked, every fault named with its key."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from eozip.errors import InputError

T = TypeVar("T")


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build dataclass `cls` from a table.

    Args:
        cls: a dataclass; its annotations are int, float, bool, str, Mapping, tuples of them, dataclasses, or
            one of these or None.
        table: as `tomllib` gives it.
        where: place of the table, for messages.

    Raises:
        InputError: an unknown or missing key, or a value of another type.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a table, got {table!r}")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise InputError(
                f"{where}: unknown key {key!r}{_guess(key, known)}; known are {', '.join(known)}"
            )
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(
            f"{where}: missing {', '.join(missing)}; add it to the recipe (see docs/training.md)"
        )
    hints = get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()})


def _guess(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _value(next(h for h in get_args(hint) if h is not type(None)), value, where)
    if origin is tuple:
        return _items(get_args(hint)[0], value, where)
    if is_dataclass(hint):
        return from_table(hint, value, where)  # type: ignore[arg-type]
    if origin is not None or hint is Mapping:
        return _checked(Mapping, value, where)
    return _checked(hint, value, where)


def _items(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{where}: expected a list, got {value!r}")
    return tuple(_value(hint, item, f"{where}[{i}]") for i, item in enumerate(value))


def _checked(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_wrong_bool = isinstance(value, bool) and kind is not bool  # bool is an int in Python
    if is_wrong_bool or not isinstance(value, kind):
        raise InputError(f"{where}: expected {kind.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):  # no comparison with a limit refuses NaN
        raise InputError(f"{where}: expected a finite number, got {value!r}")
    return value
