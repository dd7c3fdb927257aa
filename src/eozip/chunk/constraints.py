"""What an encoder can be held to about its pixels, and how far pixels keep to it.

A constraint is checked against what the decoder will make: the encoder decodes its own chunk. Networks make pixels
in floating point, which another machine may round to the other side: one DN either way is allowed for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eozip.chunk.pixels import PEAK, Source, psnr

SLACK = 1  # DN by which another machine's decoded pixels may differ


@dataclass(frozen=True)
class Constraint:
    """What must hold for the decoded pixels of a chunk.

    Attributes:
        max_error: largest absolute error of any pixel, DN; None: any.
        min_psnr: dB over all valid pixels (see `eozip.chunk.pixels.psnr`); None: any.

    Pixels that a source leaves out are held to nothing.
    """

    max_error: int | None = None
    min_psnr: float | None = None

    def __bool__(self) -> bool:
        return self.max_error is not None or self.min_psnr is not None


def too_far(source: Source, values: np.ndarray, constraint: Constraint) -> np.ndarray:
    """Pixels that some machine may give back with a larger error than allowed.

    Args:
        source: the true pixels.
        values: whole DN [T, C, H, W] before clipping and before nodata is avoided.
        constraint: what must hold.

    Returns:
        bool [T, C, H, W].
    """
    if constraint.max_error is None:
        return np.zeros(values.shape, bool)
    limits, worst = np.iinfo(source.dn.dtype), np.zeros(values.shape, np.int64)
    for change in (-SLACK, 0, SLACK):
        here = np.clip(values.astype(np.int64) + change, limits.min, limits.max)
        moved = 0 if source.nodata is None else here == source.nodata  # it goes one up or down
        np.maximum(worst, np.abs(here - source.dn) + moved, out=worst)
    return (worst > constraint.max_error) & source.counted & ~source.beyond


def is_good(source: Source, dn_hat: np.ndarray, constraint: Constraint) -> bool:
    """Whether decoded pixels reach the PSNR of a constraint."""
    return constraint.min_psnr is None or psnr_of(source, dn_hat) >= constraint.min_psnr


def psnr_of(source: Source, dn_hat: np.ndarray) -> float:
    """dB of decoded pixels, those counted as exact that are coded exactly."""
    seen = np.where(source.beyond, source.dn, dn_hat)
    return psnr(source.dn, seen, source.counted, source.offset, PEAK * source.unit)


def largest(is_good: Callable[[int], bool], most: int) -> int:
    """Largest number up to `most` that is good, by bisection; 0 is taken to be."""
    if is_good(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return low
