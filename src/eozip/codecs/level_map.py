"""Quality by cell: a level for every cell of 16 x 16 pixels of a chunk, in the chunk's own bytes. Needs no network.

A level says by how many half octaves (factors of 2 ** 0.5) the quantisation of a cell is coarser than the chunk's quality
says: 0 is that quality, `NOTHING` is for cells of which no detail is sent. Cells count from the chunk's upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.bitstream import Chunk, nodata_mask
from eozip.errors import FormatError, InputError

CELL = 16  # pixels of the finest grid, each way
NOTHING = 15  # the highest level
_BITS = 4


def _size_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Dates and cells of pixels [T, C, H, W]: T, ceil(H / 16), ceil(W / 16)."""
    return shape[0], -(-shape[2] // CELL), -(-shape[3] // CELL)


def checked_levels(levels: object, shape: tuple[int, int, int, int]) -> np.ndarray:
    """A map as a caller gives it, checked.

    Args:
        levels: whole numbers 0..15, [T, h, w] of cells or [T, H, W] of pixels, or without T for every date alike.
        shape: T, C, H, W of the pixels.

    Returns:
        uint8 [T, h, w].

    Raises:
        InputError: another type, shape or range.
    """
    if isinstance(levels, np.ma.MaskedArray):
        raise InputError("level_map: expected a plain array, got a masked one; use .filled(level)")
    try:
        given = np.asarray(levels)
    except ValueError as error:
        raise InputError(
            f"level_map: expected an array of whole numbers 0..{NOTHING}, got {error}"
        ) from error
    cells, pixels = _size_of(shape), (shape[0], shape[2], shape[3])
    if given.dtype.kind not in "iuf":
        raise InputError(f"level_map: expected whole numbers 0..{NOTHING}, got an array of {given.dtype}")
    if given.shape not in (cells, cells[1:], pixels, pixels[1:]):
        raise InputError(
            f"level_map: wrong size: expected {cells} or {cells[1:]}, a level for each {CELL} x {CELL} pixels, or "
            f"{pixels} or {pixels[1:]}, one for each pixel, got {given.shape}"
        )
    if not np.isfinite(given).all() or (given != np.rint(given)).any():
        raise InputError(
            f"level_map: expected whole numbers 0..{NOTHING}, got others; round them, and fill NaN"
        )
    if given.min() < 0 or given.max() > NOTHING:
        raise InputError(
            f"level_map: expected 0..{NOTHING}, got {given.min():g}..{given.max():g}; 0 is the best, {NOTHING} sends nothing"
        )
    whole = given.astype(np.uint8)
    whole = whole if given.shape[-2:] == cells[1:] else lowest(whole, CELL)
    return np.ascontiguousarray(np.broadcast_to(whole, cells))


def lowest(levels: np.ndarray, times: int) -> np.ndarray:
    """The lowest level of each times x times: [..., h, w] -> [..., ceil(h / times), ceil(w / times)]."""
    for axis in (-2, -1):
        levels = np.minimum.reduceat(levels, np.arange(0, levels.shape[axis], times), axis=axis)
    return levels


def levels_of(chunk: Chunk) -> np.ndarray:
    """The map of a parsed chunk, uint8 [T, h, w]; 0 everywhere if it has none.

    Raises:
        FormatError: a damaged map.
    """
    if chunk.header.levels:
        return decode_levels(chunk.levels, chunk.header.shape)
    return np.zeros(_size_of(chunk.header.shape), np.uint8)


def encode_levels(levels: np.ndarray) -> bytes:
    """Levels [T, h, w] as a section: the bits of their Gray codes, as a mask of four bands."""
    gray = levels ^ levels >> 1
    bits = gray[:, None] >> np.arange(_BITS, dtype=np.uint8)[:, None, None] & 1
    return nodata_mask.encode_mask(bits.astype(bool))


def decode_levels(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The inverse: uint8 [T, h, w] of a chunk with pixels [T, C, H, W].

    Raises:
        FormatError: bytes that `encode_levels` does not write.
    """
    if not data:
        raise FormatError("chunk: a level map without bytes; the data are damaged")
    dates, h, w = _size_of(shape)
    bits = nodata_mask.decode_mask(data, (dates, _BITS, h, w)).astype(np.uint8)
    out = np.zeros((dates, h, w), np.uint8)
    below = np.zeros_like(out)
    for bit in reversed(range(_BITS)):
        below ^= bits[:, bit]
        out |= below << bit
    return out
