"""Quality by place in a store: a region of interest at its quality and the rest at another, clouds at a third, errors in
proportion to brightness. Each chunk gets a level map (`eozip.codecs.level_map`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from eozip.codecs.level_map import CELL, NOTHING, lowest
from eozip.raster.masks import MaskReader
from eozip.raster.regions import Region, open_region
from eozip.raster.scene import Profile
from eozip.store.options import Places

_LEVELS_PER_QUALITY = 2 * math.log2(75) / 100  # steps rise by 75 from quality 100 to 0
_TYPICAL = 2000.0  # DN without offset, of reflectance 1e-4: as bright as the quality says
_WORTH = 0.99  # of the mean, below which a map for purposes is tried
_POWER = 0.75  # dark flat places err less than their steps
_FINEST = 95  # percentile of cells that are coded as finely as the quality says
_MOST_FINER = 8  # levels by which dark places may be finer than that


@dataclass(frozen=True)
class Levels:
    """The map of one chunk.

    Attributes:
        cells: uint8 [t, h, w].
        finer: levels by which level 0 is finer than the store's quality.
    """

    cells: np.ndarray
    finer: int = 0

    def of(self, dates: slice) -> Levels:
        return Levels(self.cells[dates], self.finer)

    def quality(self, asked: float) -> float:
        """That of level 0, where a store's is asked for."""
        return min(100.0, round(asked + self.finer / _LEVELS_PER_QUALITY, 2))


@dataclass(frozen=True)
class PlaceReader:
    """Maps of chunks; `open_places` makes it.

    Attributes:
        asked: by place.
        quality: the store's; None where it follows from something else.
        nodata: of the pixels, or None.
        unit: DN that are as much reflectance as one of Sentinel-2's.
        region: of interest, or None.
        hidden: the mask, or None.
    """

    asked: Places
    quality: float | None
    nodata: int | None
    unit: float
    region: Region | None = None
    hidden: MaskReader | None = None

    def read(self, t: slice, y: slice, x: slice, dn: np.ndarray, offset: np.ndarray) -> Levels:
        """The map of a chunk.

        Args:
            t: dates, and so are rows and columns those of the chunk in the scene.
            y: see `t`.
            x: see `t`.
            dn: its pixels [t, C, h, w].
            offset: [t, 1, 1, 1], radiometric offset that they contain.
        """
        levels = np.zeros((len(dn), *dn.shape[2:]), np.uint8)
        if self.region is not None:
            levels[:, ~self.region.read(y, x)] = self._level(self.asked.outside_quality)
        if self.hidden is not None:
            np.maximum(
                levels, self._level(self.asked.masked_quality), out=levels, where=self.hidden.read(t, y, x)
            )
        cells = lowest(levels, CELL)
        if not self.asked.relative:
            return Levels(cells)
        dimness = _dimness(dn, offset, self.unit, self.nodata)
        darker, finer = _by_brightness(dimness, self.asked.relative, self._room())
        return Levels(
            np.where(cells == NOTHING, NOTHING, np.minimum(cells + darker, NOTHING - 1)).astype(np.uint8),
            finer,
        )

    def _level(self, quality: float | str | None) -> int:
        if quality == "none" or quality is None or self.quality is None:
            return NOTHING
        return min(NOTHING - 1, round((self.quality - float(quality)) * _LEVELS_PER_QUALITY))

    def _room(self) -> int:
        """Levels by which the best cells can be finer than the quality says."""
        if self.quality is None:
            return _MOST_FINER
        return min(_MOST_FINER, int((100 - self.quality) * _LEVELS_PER_QUALITY))


@contextmanager
def open_places(
    asked: Places,
    profile: Profile,
    quality: float | None,
    nodata: int | None,
    unit: float,
    hidden: MaskReader | None,
    *,
    is_checked: bool = False,
) -> Iterator[PlaceReader | None]:
    """What `asked` says of the chunks of a scene; None where it says nothing. For `is_checked` see `open_region`.

    Raises:
        InputError: a region that cannot be read, or does not fit the scene.
    """
    if not asked:
        yield None
        return
    asked.check(quality, hidden is not None)
    masked = hidden if asked.masked_quality is not None else None
    if asked.roi is None:
        yield PlaceReader(asked, quality, nodata, unit, None, masked)
        return
    with open_region(asked.roi, profile, is_checked=is_checked) as region:
        yield PlaceReader(asked, quality, nodata, unit, region, masked)


def _dimness(dn: np.ndarray, offset: np.ndarray, unit: float, nodata: int | None) -> np.ndarray:
    """How much an error matters in each cell: 1 by brightness (the root mean square of the bands), averaged. [t, h, w]."""
    squares = np.square((dn.astype(np.float32) - offset) / np.float32(unit)).mean(1)
    inverse = 1 / np.sqrt(np.maximum(squares, 1e4))  # darker than 100 DN nobody tells apart
    known = np.ones(inverse.shape, bool) if nodata is None else (dn != nodata).all(1)
    return averages(inverse, known)


def averages(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of what is known in each cell, [t, H, W] -> [t, h, w]; 0 where nothing is."""
    sums, counts = np.where(known, values, 0), known.astype(np.float32)
    for axis in (1, 2):
        starts = np.arange(0, values.shape[axis], CELL)
        sums, counts = (np.add.reduceat(one, starts, axis) for one in (sums, counts))
    return sums / np.maximum(counts, 1)


def worthwhile(matters: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """Levels by how much an error matters at each pixel, where that saves something.

    Errors in inverse proportion take the fewest bits for a mean of what matters, which then falls by the geometric mean of
    cells over their arithmetic one.

    Args:
        matters: [t, H, W], 0 or more.
        known: bool [t, H, W], pixels that count.

    Returns:
        uint8 [t, h, w]; None where all cells matter about as much.
    """
    cells = averages(matters, known)
    counted = cells[cells > 0]
    if not counted.size or np.exp(np.log(counted).mean()) > _WORTH * counted.mean():
        return None
    finest = float(np.percentile(counted, _FINEST))
    levels = np.rint(2 * _POWER * np.log2(finest / np.maximum(cells, 1e-12 * finest)))
    return np.clip(levels, 0, NOTHING - 1).astype(np.uint8)


def _by_brightness(dimness: np.ndarray, power: float, room: int) -> tuple[np.ndarray, int]:
    """Levels of cells above the finest, and by how much that one is finer than the typical brightness."""
    levels = np.rint(-2 * power * np.log2(np.maximum(dimness, 1e-9) * _TYPICAL)).astype(int)
    levels[dimness == 0] = NOTHING - 1
    finer = max(0, min(room, -int(levels.min())))
    return np.clip(levels + finer, 0, NOTHING - 1), finer
