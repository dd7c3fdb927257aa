"""Quality by cell: a level for every cell of 16 x 16 pixels of a chunk, in the chunk's own bytes. Needs no network.

A level says by how many half octaves (factors of 2 ** 0.5) the quantisation of a cell is coarser than the chunk's quality
says: 0 is that quality, `NOTHING` is for cells of which no detail is sent. Cells count from the chunk's upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.bitstream import nodata_mask
from eozip.errors import FormatError, InputError

CELL = 16  # pixels of the finest grid, each way
NOTHING = 15  # the highest level
_BITS = 4


def size_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Dates and cells of pixels [T, C, H, W]: T, ceil(H / 16), ceil(W / 16)."""
    return shape[0], -(-shape[2] // CELL), -(-shape[3] // CELL)


def checked_levels(levels: object, shape: tuple[int, int, int, int], squeezed: bool = False) -> np.ndarray:
    """A map as a caller gives it, checked.

    Args:
        levels: whole numbers 0..15, [T, h, w] of cells, or [h, w] for every date alike.
        shape: T, C, H, W of the pixels.
        squeezed: the caller gave [C, H, W].

    Returns:
        uint8 [T, h, w].

    Raises:
        InputError: another type, shape or range.
    """
    given = np.asarray(levels)
    expected = size_of(shape)
    if given.dtype.kind not in "iuf":
        raise InputError(f"level_map: expected whole numbers 0..{NOTHING}, got an array of {given.dtype}")
    if given.shape not in (expected, expected[1:]):
        raise InputError(
            f"level_map: wrong size: expected {expected} or {expected[1:]}, a level for each {CELL} x {CELL} pixels of "
            f"{shape[2]} x {shape[3]}, got {given.shape}; eozip.level_map_of makes one from a map by pixel"
        )
    if not np.isfinite(given).all() or (given != np.rint(given)).any():
        raise InputError(f"level_map: expected whole numbers 0..{NOTHING}, got others; round them, and fill NaN")
    if given.min() < 0 or given.max() > NOTHING:
        raise InputError(
            f"level_map: expected 0..{NOTHING}, got {given.min():g}..{given.max():g}; 0 is the best, {NOTHING} sends nothing"
        )
    return np.ascontiguousarray(np.broadcast_to(given.astype(np.uint8), expected))


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
    dates, h, w = size_of(shape)
    bits = nodata_mask.decode_mask(data, (dates, _BITS, h, w)).astype(np.uint8)
    out = np.zeros((dates, h, w), np.uint8)
    below = np.zeros_like(out)
    for bit in reversed(range(_BITS)):
        below ^= bits[:, bit]
        out |= below << bit
    return out
