"""Reduced pictures: which scales there are, in which section of a chunk they lie, and what their samples are.

A chunk whose header says ``scales`` has three sections of its codec, the coarsest scale first: pictures down to 1/8 of the
finest grid, down to 1/2, and the finest. A reduced sample is the average of 2 x 2 samples, so often as the reduction asks;
where a row or column is left over, it is repeated.
"""

from __future__ import annotations

import numpy as np

REDUCTIONS = (1, 2, 4, 8, 16, 32)
SECTIONS = 3


def section_of(scale: int) -> int:
    """The section that completes pictures so many times coarser than the finest grid."""
    return 0 if scale > 4 else 1 if scale > 1 else 2


def ratio(reduce: int, factor: int) -> int:
    """How much coarser a group of a factor becomes at 1 / reduce of the finest grid.

    The largest power of 2 that is at most reduce / factor, and at least 1.
    """
    return 1 << (max(1, reduce // factor).bit_length() - 1)


def size_at(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width of a picture `times` coarser."""
    return -(-size[0] // times), -(-size[1] // times)


def averaged(values: np.ndarray, times: int) -> np.ndarray:
    """Reduced samples: integers [..., H, W] -> int64 [..., h, w], rounded once, halves up; the same where times is 1.

    Args:
        values: integers.
        times: 1, 2, 4, ...
    """
    sums, count = values.astype(np.int64) if times > 1 else values, 1
    while count < times:
        pad = [(0, 0)] * (sums.ndim - 2) + [(0, side % 2) for side in sums.shape[-2:]]
        sums = np.pad(sums, pad, mode="edge")
        sums = sums[..., ::2, :] + sums[..., 1::2, :]
        sums = sums[..., ::2] + sums[..., 1::2]
        count *= 2
    return (sums + count * count // 2) // (count * count) if count > 1 else values


def all_over(flags: np.ndarray, times: int) -> np.ndarray:
    """Which reduced samples have no sample whose flag is not set: bool [..., H, W] -> bool [..., h, w]."""
    for axis in (-2, -1):
        flags = np.logical_and.reduceat(flags, np.arange(0, flags.shape[axis], times), axis=axis)
    return flags
