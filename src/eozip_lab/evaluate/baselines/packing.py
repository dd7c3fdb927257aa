"""One byte string from the parts a baseline writes, so that lengths and shapes are charged like everything
else.

dtype u8, T C H W u16 each, then each part as LEB128 length and bytes
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from eozip.bitstream.integers import packed_length, read_length
from eozip.errors import FormatError, InputError

_HEAD = struct.Struct("<B4H")
_DTYPES = ("uint16", "int16")
_MAX_PIXELS = 1 << 28

Shape = tuple[int, int, int, int]


def pack(dn: np.ndarray, parts: Sequence[bytes]) -> bytes:
    """Join parts behind the shape and dtype of the stack they code."""
    body = b"".join(packed_length(len(part)) + part for part in parts)
    return _HEAD.pack(_DTYPES.index(dn.dtype.name), *dn.shape) + body


def unpack(blob: bytes) -> tuple[Shape, str, list[bytes]]:
    """Shape, dtype name and parts.

    Raises:
        FormatError: cut short, or not written by `pack`.
    """
    if len(blob) < _HEAD.size:
        raise FormatError(f"baseline stream: expected at least {_HEAD.size} bytes, got {len(blob)}")
    code, t, c, h, w = _HEAD.unpack_from(blob)
    if code >= len(_DTYPES) or not 0 < t * c * h * w <= _MAX_PIXELS:
        raise FormatError(f"baseline stream: impossible header (dtype {code}, shape {(t, c, h, w)})")
    parts, position = [], _HEAD.size
    while position < len(blob):
        length, position = read_length(blob, position, "baseline stream")
        if position + length > len(blob):
            raise FormatError(
                f"baseline stream: expected {length} bytes at {position}, got {len(blob) - position}"
            )
        parts.append(blob[position : position + length])
        position += length
    return (t, c, h, w), _DTYPES[code], parts


def checked_stack(dn: np.ndarray, highest: int) -> np.ndarray:
    """The stack as it is, if a baseline can take it.

    Args:
        dn: uint16 or int16 [T, C, H, W].
        highest: largest DN that the baseline can hold.

    Raises:
        InputError: another dtype or shape, or larger values.
    """
    if (
        dn.ndim != 4
        or dn.dtype.name not in _DTYPES
        or not 0 < dn.size <= _MAX_PIXELS
        or max(dn.shape) > 0xFFFF
    ):
        raise InputError(f"expected uint16 or int16 [T, C, H, W], not empty, got {dn.dtype} {dn.shape}")
    if int(dn.max()) > highest:
        raise InputError(f"expected DN up to {highest} for this baseline, got {int(dn.max())}")
    return dn


def restored(values: np.ndarray, shape: Shape, dtype: str) -> np.ndarray:
    """Rounded and limited to the dtype."""
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype).reshape(shape)


def expect_parts(parts: Sequence[bytes], count: int) -> None:
    """Raise FormatError unless there are that many."""
    if len(parts) != count:
        raise FormatError(f"baseline stream: expected {count} parts, got {len(parts)}")


def planes(shape: Shape) -> int:
    """How many planes a stack has."""
    return math.prod(shape[:2])
