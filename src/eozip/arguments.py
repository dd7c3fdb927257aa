"""What callers of the Python interface give, checked by kind: errors name the argument, what was expected and what came."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError

_CHAINED = re.compile(r"[a-z0-9]+::")  # of fsspec: zip::scene.zarr.zip
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)://(?P<rest>.*)")
READ_ONLY = ("http", "https")
_REMOTE = re.compile(r"/vsi[a-z0-9_]+/|[a-z][a-z0-9+.-]+://")


def real(name: str, value: object) -> float:
    """A number.

    Raises:
        InputError: it is something else; text, truth values and arrays among them.
    """
    is_number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"  # type: ignore[arg-type]
    if (not is_number and not isinstance(value, int | float)) or isinstance(value, bool):
        raise InputError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def whole(name: str, value: object, low: int | None = None) -> int:
    """A whole number, at least `low`.

    Raises:
        InputError: it is something else, or smaller.
    """
    number = real(name, value)
    if not math.isfinite(number) or number != int(number) or (low is not None and number < low):
        least = "" if low is None else f" from {low} on"
        raise InputError(f"{name}: expected a whole number{least}, got {value!r}")
    return int(number)


@dataclass(frozen=True)
class RemotePath:
    """A folder or a file that a URL names.

    Attributes:
        url: without a slash at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """What stands behind the last slash."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def is_listed(self) -> bool:
        """Whether it says which keys there are: a web server gives what is named, and what it lists is for people."""
        return self.url.partition("://")[0] not in READ_ONLY


Place = Path | RemotePath
PlaceLike = str | Path | RemotePath


def place(name: str, value: object, *, reading: bool = False) -> Place:
    """Where something lies, or is to lie: on this machine, or where a URL of fsspec says.

    Args:
        name: of the argument, for messages.
        value: what a caller gave.
        reading: nothing is to be written there: http:// and https:// will do.

    Raises:
        InputError: it is neither a path nor such a URL.
    """
    if isinstance(value, RemotePath):
        value = value.url
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes) or not os.fspath(value):
        raise InputError(f"{name}: expected a path or a URL, got {value!r}")
    text = str(value)
    check_plain(name, text)
    if text.startswith("/vsi"):
        raise InputError(
            f"{name}: expected a path, or a URL such as s3://bucket/name, got {text}: GDAL's names are for inputs"
        )
    found = _URL.fullmatch(text)
    if found is None or found["scheme"] == "file":
        return Path(found["rest"] if found else text)
    if (found["scheme"] in READ_ONLY and not reading) or not found["rest"].strip("/"):
        raise InputError(
            f"{name}: expected a URL of an object store with a bucket and a name, such as s3://bucket/name, got {text}"
        )
    return RemotePath(text.rstrip("/"))


def store_path(name: str, value: object) -> Path:
    """Where a store lies, or is to lie, on this machine.

    Raises:
        InputError: it is no path, or a remote name.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes) or not os.fspath(value):
        raise InputError(f"{name}: expected a path, got {value!r}")
    check_plain(name, str(value))
    if _REMOTE.match(str(value)):
        raise InputError(
            f"{value}: expected a store on this machine, got a remote name; write or fetch it here and copy it (aws s3 cp "
            "--recursive, say). xarray.open_zarr reads stores anywhere"
        )
    return Path(value)


def check_plain(name: str, path: str) -> None:
    """Refuse names that no file of eozip has: of fsspec's chains, and with zero bytes.

    Raises:
        InputError: see above.
    """
    if "\0" in path:
        raise InputError(f"{name}: expected a path, got one with a zero byte, {path!r:.80}")
    if _CHAINED.match(path):
        raise InputError(
            f"{name}: expected a path or a URL, got {path}, as xarray takes it; give what stands behind ::"
        )


def listed(name: str, value: object) -> list[Any]:
    """What a list, a tuple, an array and the like hold.

    Raises:
        InputError: it is something else, text among them.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or np.ndim(value) != 1:  # type: ignore[arg-type]
        raise InputError(f"{name}: expected a list, got {value!r:.80}")
    return list(value)


def numbers(name: str, value: object, parts: Sequence[str]) -> list[float]:
    """As many finite numbers as there are names of them.

    Raises:
        InputError: others.
    """
    found = [real(name, number) for number in listed(name, value)]
    if len(found) != len(parts) or not all(map(math.isfinite, found)):
        raise InputError(f"{name}: expected {', '.join(parts)}, got {value!r:.80}")
    return found


def counted(given: object) -> int | None:
    """The whole number that text of decimal digits says; None of anything else, and of numbers that count nothing."""
    digits = str(given)
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else None


def text(name: str, value: object) -> str | None:
    """Text, or None.

    Raises:
        InputError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name}: expected text, got {value!r}")
    return value


def choice(name: str, value: object) -> list[str | int] | None:
    """Names or positions, counted from 1; None for all.

    Raises:
        InputError: it is something else, or one of them is.
    """
    if value is None:
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InputError(f"{name}: expected a list of names or positions, got {value!r}")
    chosen = [item.item() if isinstance(item, np.generic) else item for item in value]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in chosen):
        raise InputError(f"{name}: expected names or positions, got {chosen!r}")
    return chosen
