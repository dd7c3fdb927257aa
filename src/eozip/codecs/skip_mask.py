"""Cells that nothing was spent on: which they are, in a chunk's own bytes. Needs no network and no torch.

A latent cell is 8 x 8 pixels of one date, cut at the chunk's edge; cells count from the chunk's upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.bitstream import Chunk, nodata_mask
from eozip.errors import InputError

_CELL = 8  # pixels, each way


def cells_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Dates and cells of pixels [T, C, H, W], padding aside: T, ceil(H / 8), ceil(W / 8)."""
    return shape[0], -(-shape[2] // _CELL), -(-shape[3] // _CELL)


def checked_drop(drop: np.ndarray, shape: tuple[int, int, int, int], squeezed: bool = False) -> np.ndarray:
    """A mask as a caller gives it, checked.

    Args:
        drop: bool [T, H, W]; [H, W] too where the pixels were [C, H, W].
        shape: T, C, H, W of the pixels.
        squeezed: the caller gave [C, H, W].

    Returns:
        bool [T, H, W].

    Raises:
        InputError: another type or shape.
    """
    drop = np.asarray(drop)
    expected = (shape[0], *shape[2:])
    if drop.dtype != bool:
        raise InputError(
            f"drop: expected a mask of bool, True where nothing is to be spent, got {drop.dtype}"
        )
    if squeezed and drop.ndim == 2:
        drop = drop[None]
    if drop.shape != expected:
        raise InputError(
            f"drop: wrong mask size: expected [T, H, W] = {expected} as the pixels have, got {drop.shape}"
        )
    return drop


def droppable(drop: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Cells without a clear pixel.

    Args:
        drop: bool [T, H, W].
        masked: bool [T, C, H, W], nodata; where no band has data a pixel is not clear either.

    Returns:
        bool [T, ceil(H / 8), ceil(W / 8)]: all pixels dropped or without data, and one at least dropped.
    """
    empty = masked.all(axis=1)
    return _over_cells(np.logical_and, drop | empty) & _over_cells(np.logical_or, drop & ~empty)


def _over_cells(combine: np.ufunc, flags: np.ndarray) -> np.ndarray:
    starts = [np.arange(0, length, _CELL) for length in flags.shape[1:]]
    return combine.reduceat(combine.reduceat(flags, starts[0], axis=1), starts[1], axis=2)


def pixels_of(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flags of cells [T, h, w] > of their pixels, bool [T, H, W]."""
    return cells.repeat(_CELL, 1).repeat(_CELL, 2)[:, : size[0], : size[1]]


def encode_cells(cells: np.ndarray) -> bytes:
    """Flags [T, h, w] as a section."""
    return nodata_mask.encode_mask(cells[:, None])


def decode_cells(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The inverse: bool [T, h, w] of a chunk with pixels [T, C, H, W].

    Raises:
        FormatError: bytes that `encode_cells` does not write.
    """
    frames, h, w = cells_of(shape)
    return nodata_mask.decode_mask(data, (frames, 1, h, w))[:, 0]


def dropped_pixels(chunk: Chunk) -> np.ndarray:
    """Which pixels of a chunk are forecast.

    Args:
        chunk: parsed.

    Returns:
        bool [T, H, W]: in a dropped cell, and not nodata in every band.

    Raises:
        FormatError: damaged flags.
    """
    header = chunk.header
    if not header.skip:
        return np.zeros((header.shape[0], *header.shape[2:]), bool)
    pixels = pixels_of(decode_cells(chunk.skip, header.shape), header.shape[2:])
    return pixels & ~nodata_mask.decode_mask(chunk.mask, header.shape).all(axis=1)
