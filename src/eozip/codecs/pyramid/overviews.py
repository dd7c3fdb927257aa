"""From decoded levels of a ladder to pictures, whole or reduced, on integers.

A reduced sample is the average of a block of samples (see `eozip.codecs.scales`) as the ladder holds it: that of the whole
picture but for the rounding of the levels between, at most 1/64 of a quantisation step. Where bands were interpolated from
coarser cells that do not share the blocks' borders, it is the value between the averages of cells at the middle of the
block, bilinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.layout import NATIVE, Canvas, Group, canvas
from eozip.codecs.scales import averaged, ratio, size_at

_EXACT = 1 << 24  # float32 holds all integers up to here


@dataclass(frozen=True, eq=False)
class Picture:
    """A group at some level.

    Attributes:
        cells: int32 [T, C, h, w] in 1/64 DN, averages of blocks of its canvas.
        place: the canvas, in cells of the group's own grid.
        level: log2 of the blocks' side.
    """

    cells: np.ndarray
    place: Canvas
    level: int


def of_cells(group: Group, picture: Picture, size: tuple[int, int], times: int) -> np.ndarray:
    """A group on its own grid, `times` coarser: float32 [T, C, h, w], whole DN."""
    own = canvas(group, *size)
    top, left = _before(own, picture)
    cells = picture.cells
    if picture.level == 0:
        cells = cells[:, :, top : top + own.shape[0], left : left + own.shape[1]]
    height, width = size_at(own.shape, times)
    out = np.empty((*cells.shape[:2], height, width), np.float32)
    for where in np.ndindex(*cells.shape[:2]):  # a picture at a time, which fits the cache
        averages = averaged(cells[where], times >> picture.level)[:height, :width]
        out[where] = (averages + VALUE // 2) >> (VALUE.bit_length() - 1)
    return out


def on_pixels(group: Group, picture: Picture, size: tuple[int, int], reduce: int) -> np.ndarray:
    """A group on the finest grid, `reduce` times coarser: float32 [T, C, H, W], whole DN."""
    if reduce > 1:
        return _at_centres(group, picture, size, reduce)
    if group.grid is None:
        return of_cells(group, picture, size, 1)
    own = canvas(group, *size)
    top, left = _before(own, picture)
    cells = picture.cells[:, :, top : top + own.shape[0], left : left + own.shape[1]]
    out = np.empty((*cells.shape[:2], *size), np.float32)
    for where in np.ndindex(*cells.shape[:2]):  # a picture at a time, which fits the cache
        pixels, denominator = group.grid.interpolated(_held(cells[where], group.grid.denominator), *size)
        out[where] = quotient(pixels, denominator * VALUE)
    return out


def _held(cells: np.ndarray, denominator: int) -> np.ndarray:
    """Integers as floats of the least width in which they stay exact when interpolated and halved up."""
    largest = max(int(cells.max()), -int(cells.min())) * denominator + denominator * VALUE // 2
    return cells.astype(np.float32 if largest < _EXACT else np.float64)


def lowered(picture: np.ndarray, level: int) -> np.ndarray:
    """A picture [..., H, W] as a ladder has it at a level: 2**level times averages of blocks; integers, halves up."""
    if level == 0:
        return picture
    sums = averaged(picture.astype(np.int64) << (2 * level), 1 << level)
    return ((sums + (1 << level >> 1)) >> level).astype(np.int32)


def _before(own: Canvas, picture: Picture) -> tuple[int, int]:
    """Cells of a ladder's canvas before those of the group's own one."""
    return (0, 0) if own.shape == picture.place.shape else picture.place.before


def _at_centres(group: Group, picture: Picture, size: tuple[int, int], reduce: int) -> np.ndarray:
    block = max(1 << picture.level, ratio(reduce, group.factor))
    cells = averaged(picture.cells, block >> picture.level).astype(np.int64)
    native = group.grid is None or group.grid.kernel == NATIVE
    phases = (0, 0) if native else (group.grid.rows, group.grid.columns)  # type: ignore[union-attr]
    unit = 2 * group.factor * block
    for axis in (0, 1):
        count = -(-size[axis] // reduce)
        middle = np.arange(count, dtype=np.int64) * reduce + reduce // 2 - phases[axis]
        at = 2 * middle + 2 * group.factor * picture.place.before[axis] - group.factor * block
        last = cells.shape[-1 if axis else -2] - 1
        at = np.clip(at, 0, last * unit)
        first, share = at // unit, at % unit
        second = np.minimum(first + 1, last)
        if axis == 0:
            weight = share[:, None]
            cells = cells[..., first, :] * (unit - weight) + cells[..., second, :] * weight
        else:
            cells = cells[..., first] * (unit - share) + cells[..., second] * share
    return _rounded(cells, VALUE * unit * unit)


def _rounded(numerators: np.ndarray, denominator: int) -> np.ndarray:
    return ((numerators + denominator // 2) // denominator).astype(np.float32)


def quotient(numerators: np.ndarray, denominator: int) -> np.ndarray:
    """Integers over an integer, halves up: exact, as no quotient of less than 2**52 in float64 is rounded to an integer.

    Nor is one of less than 2**24 in float32.
    """
    out = numerators + float(denominator // 2)
    out /= denominator
    return np.floor(out, out=out)
