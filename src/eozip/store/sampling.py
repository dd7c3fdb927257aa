"""A few chunks of a scene, spread over it, from which the size of the whole is told with an interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eozip.store.grid import Grid, Window
from eozip.store.writer import PixelReader

_SEED = 20
_DRAWS = 2000
_SHARE = (5, 95)  # percentiles of the interval


@dataclass(frozen=True, eq=False)
class Sample:
    """One chunk of a scene.

    Attributes:
        window: its place.
        dn: [T, C, h, w], bands in the order of the store.
    """

    window: Window
    dn: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """Bytes of a whole, told from a part.

    Attributes:
        value: the best guess.
        low: 5 of 100 resamplings of the chunks lie below.
        high: 5 of 100 lie above.
    """

    value: float
    low: float
    high: float


def sampled(reader: PixelReader, grid: Grid, count: int, nodata: int | None) -> Iterator[Sample]:
    """Chunks with data, spread evenly over places and dates; all of them where there are not more.

    Args:
        reader: the pixels.
        grid: of the store.
        count: how many at most.
        nodata: DN without data, or None.
    """
    windows = [w for shard in grid.shards() for strip in grid.strips(shard) for w in strip]
    order = np.random.default_rng(_SEED).permutation(len(windows))
    chosen = order if len(windows) <= count else _spread(len(windows), count)
    rest = [i for i in order if i not in set(chosen)]
    found = 0
    for i in [*chosen, *rest]:
        if found == count:
            return
        window = windows[i]
        dn = reader.read(slice(*window.times), slice(*window.rows), slice(*window.columns))
        if not np.all(dn == (nodata or 0)):
            found += 1
            yield Sample(window, np.ascontiguousarray(dn))


def _spread(total: int, count: int) -> np.ndarray:
    """Positions one in each of so many equal parts, by chance within it."""
    edges = np.linspace(0, total, count + 1)
    inside = np.random.default_rng(_SEED).random(count)
    return np.minimum(total - 1, edges[:-1] + inside * np.diff(edges)).astype(int)


def whole_bytes(sizes: Sequence[float], pixels: Sequence[int], total: int) -> Estimate:
    """Bytes of all chunks from those of some, in proportion to their pixels, with a bootstrap over the chunks.

    Args:
        sizes: bytes of each sampled chunk.
        pixels: of each.
        total: of all.
    """
    size, area = np.asarray(sizes, float), np.asarray(pixels, float)
    value = float(size.sum() / area.sum() * total)
    if area.sum() >= total:
        return Estimate(value, value, value)
    draws = np.random.default_rng(_SEED).integers(0, len(size), (_DRAWS, len(size)))
    spread = size[draws].sum(axis=1) / area[draws].sum(axis=1) * total
    low, high = np.percentile(spread, _SHARE)
    return Estimate(value, float(low), float(high))
