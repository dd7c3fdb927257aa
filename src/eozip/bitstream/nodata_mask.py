"""Exact coding of the nodata mask and of single out-of-range pixels.

A mask becomes the positions of ones after XOR with its neighbours along some axes, so that an edge is one
number per row and what dates and bands share costs nothing.
"""

from __future__ import annotations

import numpy as np

from eozip.bitstream.integers import pack_numbers, unpack_numbers, unzigzag, zigzag
from eozip.errors import FormatError

_ALL, _SHARED, _FLIP = 1, 2, 4  # flags of a mask; _FLIP << axis: XOR along that axis of [planes, H, W]


def encode_mask(mask: np.ndarray) -> bytes:
    """Code a mask exactly.

    Args:
        mask: bool [T, C, H, W].

    Returns:
        Bytes, empty if nothing is set, one byte if everything is.
    """
    if not mask.any():
        return b""
    if mask.all():
        return bytes([_ALL])
    shared = bool((mask == mask[:, :1]).all())
    planes = mask[:, :1] if shared else mask
    planes = planes.reshape(-1, *mask.shape[2:]).view(np.uint8)
    axes = min(range(8), key=lambda flags: int(np.count_nonzero(_flipped(planes, flags))))
    ones = np.flatnonzero(_flipped(planes, axes))
    gaps = np.diff(ones, prepend=-1) - 1
    flags = _SHARED * shared | _FLIP * axes
    return bytes([flags]) + len(ones).to_bytes(4, "little") + pack_numbers(gaps)


def decode_mask(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Decode `encode_mask`.

    Args:
        data: its bytes.
        shape: T, C, H, W.

    Returns:
        bool [T, C, H, W]; may be read-only.

    Raises:
        FormatError: bytes that `encode_mask` does not write.
    """
    if not data:
        return np.zeros(shape, bool)
    flags = data[0]
    if flags == _ALL and len(data) == 1:
        return np.ones(shape, bool)
    if flags & _ALL or flags >= _FLIP << 3 or len(data) < 5:
        raise FormatError("mask: unknown flags or too short; the data are damaged")
    t, c, h, w = shape
    planes = t if flags & _SHARED else t * c
    gaps = unpack_numbers(data[5:], _count(data[1:5], planes * h * w))
    ones = np.cumsum(np.minimum(gaps, planes * h * w) + 1) - 1  # the minimum keeps the sum within int64
    if not len(ones) or ones[-1] >= planes * h * w:
        raise FormatError("mask: positions beyond the chunk; the data are damaged")
    bits = np.zeros(planes * h * w, np.uint8)
    bits[ones] = 1
    mask = _unflipped(bits.reshape(planes, h, w), flags // _FLIP).view(bool).reshape(t, -1, h, w)
    return np.broadcast_to(mask, shape)


def _count(field: bytes, most: int) -> int:
    count = int.from_bytes(field, "little")
    if count > most:
        raise FormatError(f"mask: {count} positions among {most} pixels; the data are damaged")
    return count


def _flipped(planes: np.ndarray, axes: int) -> np.ndarray:
    """XOR with the previous element along each axis in ``axes``: edges become single ones."""
    for axis in range(3):
        if axes >> axis & 1:
            before = np.roll(planes, 1, axis)
            before[(slice(None),) * axis + (0,)] = 0
            planes = planes ^ before
    return planes


def _unflipped(planes: np.ndarray, axes: int) -> np.ndarray:
    for axis in range(3):
        if axes >> axis & 1:
            planes = np.bitwise_xor.accumulate(planes, axis=axis)
    return planes


def encode_exceptions(dn: np.ndarray, where: np.ndarray) -> bytes:
    """Code the values of some pixels exactly, with their positions.

    Args:
        dn: uint16 or int16 [T, C, H, W].
        where: bool [T, C, H, W].

    Returns:
        Bytes, empty if no pixel is meant.
    """
    if not where.any():
        return b""
    positions = encode_mask(where)
    values = pack_numbers(zigzag(np.diff(dn[where].astype(np.int64), prepend=0)))
    return len(positions).to_bytes(4, "little") + positions + values


def decode_exceptions(
    data: bytes, shape: tuple[int, int, int, int], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Decode `encode_exceptions`.

    Returns:
        bool [T, C, H, W] and the values there, of ``dtype``, in C order.

    Raises:
        FormatError: bytes that `encode_exceptions` does not write.
    """
    if not data:
        return np.zeros(shape, bool), np.zeros(0, dtype)
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 + size or not size:
        raise FormatError("exceptions: shorter than their positions; the data are damaged")
    where = decode_mask(data[4 : 4 + size], shape)
    values = np.cumsum(unzigzag(unpack_numbers(data[4 + size :], int(where.sum()))))
    limits = np.iinfo(dtype)
    if values.min() < limits.min or values.max() > limits.max:
        raise FormatError(f"exceptions: values beyond {dtype}; the data are damaged")
    return where, values.astype(dtype)
