"""Bands on their own grids within one array: the joint cube, and the samples of each grid in it.

The array lies on the finest grid; bands of a grid that is `factor` times coarser are repeated, so that every factor-th pixel
is a sample, exactly. Streams hold the samples alone (`eozip.encode_groups`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eozip.bitstream import MAX_BANDS, MAX_FACTOR, MAX_GROUPS, Header
from eozip.chunk import api
from eozip.errors import FormatError, InputError


@dataclass(frozen=True)
class NativeGrid:
    """Bands that were measured on one grid.

    Attributes:
        resolution: metres a cell, or any whole unit; that of the finest grid divides it.
        bands: positions on the band axis of the array.
    """

    resolution: int
    bands: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As in a codec's configuration."""
        return {"resolution": self.resolution, "bands": list(self.bands)}


def read_grids(found: object) -> tuple[NativeGrid, ...]:
    """Grids as a codec's configuration spells them, finest first.

    Raises:
        FormatError: no such grids.
    """
    items = list(found) if isinstance(found, list | tuple) else [found]
    try:
        grids = tuple(item if isinstance(item, NativeGrid) else _grid(item) for item in items)
    except (TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"grids: expected resolutions and bands, got {found!r:.80}") from error
    problem = _problem(grids)
    if problem:
        raise FormatError(f"grids: {problem}, got {found!r:.120}")
    return grids


def _grid(item: Any) -> NativeGrid:
    resolution, bands = item["resolution"], tuple(item["bands"])
    if any(isinstance(n, bool) or not isinstance(n, int) for n in (resolution, *bands)) or len(item) != 2:
        raise TypeError("not whole numbers")
    return NativeGrid(resolution, bands)


def _problem(grids: Sequence[NativeGrid]) -> str:
    positions = sorted(band for grid in grids for band in grid.bands)
    sizes = [grid.resolution for grid in grids]
    if not 1 <= len(grids) <= MAX_GROUPS or not all(grid.bands for grid in grids):
        return f"expected 1 to {MAX_GROUPS} grids with a band each"
    if positions != list(range(len(positions))) or len(positions) > MAX_BANDS:
        return f"expected each of at most {MAX_BANDS} bands once"
    if not 1 <= sizes[0] <= 65535 or sizes != sorted(set(sizes)) or sizes[-1] > MAX_FACTOR * sizes[0]:
        return f"expected rising resolutions, the last at most {MAX_FACTOR} times the first"
    return "expected multiples of the finest resolution" * any(size % sizes[0] for size in sizes)


def factors(grids: Sequence[NativeGrid]) -> tuple[int, ...]:
    """Of each grid, pixels of the array along one of its cells."""
    return tuple(grid.resolution // grids[0].resolution for grid in grids)


def band_factors(grids: Sequence[NativeGrid], bands: int) -> tuple[int, ...]:
    """[C] the factor of each band of an array; 1 where all lie on one grid."""
    found = {band: f for grid, f in zip(grids, factors(grids), strict=True) for band in grid.bands}
    return tuple(found.get(band, 1) for band in range(bands))


def alignment(grids: Sequence[NativeGrid]) -> int:
    """Pixels of the array after which cells of all grids begin together."""
    return math.lcm(*factors(grids)) if grids else 1


def samples(shape: Sequence[int], grids: Sequence[NativeGrid]) -> int:
    """What was measured within a joint cube [T, C, H, W]."""
    t, c, h, w = shape
    return t * sum(-(-h // f) * -(-w // f) for f in band_factors(grids, c))


def cells_of(dn: np.ndarray, grids: Sequence[NativeGrid]) -> dict[int, np.ndarray]:
    """The samples of a joint cube [T, C, H, W]: resolution > [T, c, h, w]."""
    return {
        grid.resolution: np.ascontiguousarray(dn[:, list(grid.bands), ::f, ::f])
        for grid, f in zip(grids, factors(grids), strict=True)
    }


def joint(cells: Mapping[int, np.ndarray], grids: Sequence[NativeGrid], size: tuple[int, int]) -> np.ndarray:
    """The joint cube of samples; the inverse of `cells_of`.

    Args:
        cells: resolution > [T, c, h, w].
        grids: of the array.
        size: H, W of the cube.
    """
    finest = cells[grids[0].resolution]
    out = np.empty((len(finest), sum(len(grid.bands) for grid in grids), *size), finest.dtype)
    for grid, f in zip(grids, factors(grids), strict=True):
        out[:, list(grid.bands)] = repeated(cells[grid.resolution], f, size)
    return out


def repeated(cells: np.ndarray, factor: int, size: tuple[int, int]) -> np.ndarray:
    """Cells [..., h, w] as pixels [..., H, W] so many times finer."""
    if factor == 1:
        return cells
    return cells.repeat(factor, axis=-2)[..., : size[0], :].repeat(factor, axis=-1)[..., : size[1]]


def check_repeated(dn: np.ndarray, grids: Sequence[NativeGrid], fill: int) -> None:
    """Refuses a cube whose coarse bands are anything but repeated samples; fill values behind its end are none of it.

    Raises:
        InputError: see above.
    """
    used = dn != fill
    height, width = (
        int(np.max(np.flatnonzero(used.any(axis=axes)), initial=-1)) + 1 for axes in ((0, 1, 3), (0, 1, 2))
    )
    inside = dn[..., :height, :width]
    if not np.array_equal(joint(cells_of(inside, grids), grids, (height, width)), inside):
        raise InputError(
            f"expected bands on grids of {[grid.resolution for grid in grids]}, each sample repeated on the finest one, got "
            "other pixels; resample them onto their own grids, or write an array of one grid"
        )


def decode_joint(
    data: bytes,
    grids: Sequence[NativeGrid],
    budget: int | None = None,
    dates: Sequence[int] | None = None,
) -> np.ndarray:
    """Pixels [T, C, H, W] of one stream, of some dates or all.

    Raises:
        FormatError: damaged bytes, or groups that are not these grids.
    """
    header = api.inspect(data).header
    if not header.groups and not grids:
        return api.decode_array(data, budget=budget, dates=dates)
    check_grids(header, grids)
    return joint(api.decode_groups(data, dates=dates), grids, header.shape[2:])


def check_grids(header: Header, grids: Sequence[NativeGrid]) -> None:
    """Refuses a stream of other grids than its array's.

    Raises:
        FormatError: see above.
    """
    got = [(group.resolution, group.bands) for group in header.groups]
    expected = [(grid.resolution, len(grid.bands)) for grid in grids]
    if got != expected:
        raise FormatError(
            f"expected a stream of grids (resolution, bands) {expected}, got {got}; it belongs to another array"
        )


def block_means(dn: np.ndarray, times: int, nodata: int | None) -> np.ndarray:
    """Averages of blocks of so many cells each way, halves up; blocks at the edge have what is left.

    Args:
        dn: integers [..., h, w].
        times: cells of a block, each way.
        nodata: value that does not count, and that blocks without any other have; None: none.
    """
    if times == 1:
        return dn
    starts = [np.arange(0, side, times) for side in dn.shape[-2:]]
    counted = np.ones(dn.shape, bool) if nodata is None else dn != nodata
    values = np.where(counted, dn, 0).astype(np.int64)
    sums, counts = values, counted.astype(np.int64)
    for axis, at in zip((-2, -1), starts, strict=True):
        sums, counts = np.add.reduceat(sums, at, axis=axis), np.add.reduceat(counts, at, axis=axis)
    whole = np.maximum(counts, 1)
    means = (2 * sums + whole) // (2 * whole)
    if nodata is not None:
        means[(means == nodata) & (counts > 0)] += 1 if nodata < np.iinfo(dn.dtype).max else -1
        means[counts == 0] = nodata
    return means.astype(dn.dtype)
