"""Quality by place: how much more coarsely than by the chunk's step details are quantised.

A map has a level for each cell of 16 x 16 pixels of the finest grid: half octaves of the step, 0 the step itself; of the
highest level nothing is sent. A detail takes the lowest level of the cells that it covers.

Within a cell all that a network sees and says counts in the cell's own **octave** (level // 2 doublings of the step): there
it works as at a coarser step, which is what it was trained for. The half octave that may be left is for quantisation alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eozip.codecs.level_map import CELL, NOTHING
from eozip.codecs.pyramid.context import BITS_PER_SQUARED_STEP, VALUE, packed
from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.pyramid.spectral import LARGEST

OCTAVES = np.arange(NOTHING // 2 + 1)
_HALF_OCTAVE = 91  # in 1 / VALUE
SPACING = 41  # of the two quantisers (eozip.entropy.trellis) together, in 1 / VALUE
THRIFT = BITS_PER_SQUARED_STEP * (SPACING / VALUE) ** 2  # bits that a squared spacing of error is worth
_WIDER = 58  # the same, half an octave more
_HALF_ROWS = 6  # a half octave in the units of log scales


@dataclass(frozen=True, eq=False)
class Coarse:
    """Levels of the details of one level of some dates.

    Attributes:
        levels: uint8 [N, h, w].
    """

    levels: np.ndarray

    def of(self, dates: np.ndarray) -> Coarse:
        """Those of some dates."""
        return Coarse(self.levels[dates])

    def packed(self, color: int) -> Coarse:
        """Those of the cells of one colour."""
        return Coarse(packed(self.levels, color))

    @cached_property
    def octaves(self) -> np.ndarray:
        """uint8 [N, h, w]."""
        return self.levels >> 1

    @cached_property
    def units(self) -> np.ndarray:
        """A cell's own step, in 1 / VALUE of the octave: int32 [N, 1, h, w]."""
        return np.where(self.levels & 1, _HALF_OCTAVE, VALUE).astype(np.int32)[:, None]

    @cached_property
    def spacings(self) -> np.ndarray:
        """Between values of the two quantisers, in 1 / VALUE of the octave: int32 [N, 1, h, w]."""
        return np.where(self.levels & 1, _WIDER, SPACING).astype(np.int32)[:, None]

    @cached_property
    def inverse(self) -> np.ndarray:
        """Steps in one of a cell's own, to the power of -1: float32 [N, h, w]; 0 where nothing is sent."""
        own = np.ldexp(VALUE / self.units[:, 0], -self.octaves.astype(np.int32))
        return np.where(self.levels == NOTHING, 0, own).astype(np.float32)

    @cached_property
    def scale(self) -> np.ndarray:
        """A step in cells' octaves: float32 [N, 1, h, w]; 0 where nothing is sent."""
        own = np.ldexp(np.float32(1), -self.octaves.astype(np.int32))
        return np.where(self.levels == NOTHING, np.float32(0), own)[:, None]

    def seen(self, values: np.ndarray) -> np.ndarray:
        """Integers in 1 / VALUE step [N, ..., h, w], each in its cell's octave and rounded."""
        shape = (len(values), *[1] * (values.ndim - 3), *values.shape[-2:])
        return np.rint(np.ldexp(values, -self.octaves.astype(np.int32).reshape(shape)))

    def in_steps(self, values: np.ndarray) -> np.ndarray:
        """The inverse, of int32 [N, K, h, w], clipped."""
        octaves = self.octaves[:, None].astype(np.int32)
        most = LARGEST >> octaves
        return np.clip(values, -most, most) << octaves

    def of_octave(self, values: np.ndarray) -> np.ndarray:
        """From values by octave [N, 8, K] those of the cells: [N, K, h, w]."""
        dates = np.arange(len(values))[:, None, None]
        return np.moveaxis(values[dates, self.octaves], 3, 1)

    def rows(self, scale: np.ndarray) -> np.ndarray:
        """Log scales of details in their octave [N, K, h, w], in 1/16, by what symbols count."""
        return scale - np.float32(_HALF_ROWS) * (self.levels & 1)[:, None]


def on_canvas(group: Group, place: Canvas, levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The lowest level of the pixels of each cell of a canvas.

    Args:
        group: whose cells.
        place: its canvas.
        levels: uint8 [T, ceil(H / 16), ceil(W / 16)].
        size: H and W.

    Returns:
        uint8 [T, h, w]; beyond the pixels the nearest ones'.
    """
    for axis in (0, 1):
        phase = 0 if group.is_native or group.grid is None else (group.grid.rows, group.grid.columns)[axis]
        first = (np.arange(place.shape[axis]) - place.before[axis]) * group.factor + phase
        ends = [np.clip(pixel, 0, size[axis] - 1) // CELL for pixel in (first, first + group.factor - 1)]
        found = levels.take(ends[0], axis + 1)
        for cell in range(int((ends[1] - ends[0]).max())):  # a cell may lie on several of the map's
            np.minimum(found, levels.take(np.minimum(ends[0] + cell + 1, ends[1]), axis + 1), out=found)
        levels = found
    return levels
