"""Bands that were interpolated onto a finer grid: a decoded picture is put back among what interpolation can make.

Sentinel-2 has bands of 20 and 60 m, which most archives bring to 10 m. Such a band is U s V^T, with s the band on its own
grid and U, V the interpolation along rows and columns: of 4 (or 36) pixels only one is free. A network knows that such
bands are smooth, but not where their grid lies. The encoder finds out, a few bits say it, and the decoder projects its
picture onto the pictures that this grid can make, which takes away all of the error that no such band can have: 5 to 7 %
of the bits at 48 dB, 1 % at 36 (docs/training-log.md).

    x_hat > U (U^T U)^-1 U^T x_hat V (V^T V)^-1 V^T

Pixels, not symbols, depend on floats here, as in the closing fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from eozip import sensors
from eozip.coder import Port, Tables
from eozip.errors import FormatError

ROW, MIDDLE = 48, 8  # the tables' row of the symbols (scale 4), and what they stand around
TILE = 36  # pixels; grids are looked for in tiles, in which each of them begins alike
TILES = 512  # are enough
LEAST = 24  # pixels a side: with fewer there is no telling
TOLERANCE = 0.6  # DN: rounding once leaves 0.29, twice 0.41
TIE = 0.01  # DN**2: bilinear and cubic grids of factor 2 make the same pictures
RIDGE = 1e-9  # of cells that the border nearly cuts off
CACHED = 256


def nearest(distance: np.ndarray) -> np.ndarray:
    """Half open, so that a pixel between two cells has one."""
    return ((distance >= -0.5) & (distance < 0.5)).astype(np.float64)


def bilinear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distance))


def cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -1/2 (Keys 1981), which GDAL and most others use."""
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


KERNELS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (nearest, bilinear, cubic)


@dataclass(frozen=True)
class Grid:
    """How a band was interpolated.

    Attributes:
        kernel: position in KERNELS.
        factor: pixels per cell, each way.
        rows, columns: pixels before the first whole cell, 0..factor-1.
    """

    kernel: int
    factor: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Group:
    """Bands that share a grid.

    Attributes:
        bands: positions.
        factor: pixels per cell, each way.
    """

    bands: tuple[int, ...]
    factor: int


def groups_of(sensor: str, bands: int) -> tuple[Group, ...]:
    """The groups of a sensor's coarser bands, finest first; none if the codec has other bands than the sensor."""
    resolutions = [band.native_resolution_m for band in sensors.get(sensor).bands]
    if len(resolutions) != bands:
        return ()
    finest = min(resolutions)
    coarser = sorted({r for r in resolutions if r > finest})
    return tuple(
        Group(tuple(k for k, own in enumerate(resolutions) if own == r), r // finest) for r in coarser
    )


def interpolation(kernel: int, factor: int, phase: int, size: int) -> np.ndarray:
    """U: float64 [size, cells], pixels from the cells that they touch."""
    place = (np.arange(size) - (factor - 1) / 2 - phase) / factor  # in cells
    cells = np.arange(np.floor(place[0]) - 2, np.ceil(place[-1]) + 3)
    weights = KERNELS[kernel](place[:, None] - cells)
    return weights[:, weights.any(0)]


@lru_cache(CACHED)
def operators(kernel: int, factor: int, phase: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis: pixels to cells by least squares (U^T U)^-1 U^T, and back U; float32 [cells, size], [size, cells]."""
    up = interpolation(kernel, factor, phase, size)
    down = np.linalg.solve(up.T @ up + RIDGE * np.eye(up.shape[1]), up.T)
    return torch.from_numpy(down).float(), torch.from_numpy(up).float()


def projected(x: Tensor, grid: Grid) -> Tensor:
    """Pictures [..., H, W] > the nearest ones that the grid can make."""
    down_rows, up_rows = operators(grid.kernel, grid.factor, grid.rows, x.shape[-2])
    down_columns, up_columns = operators(grid.kernel, grid.factor, grid.columns, x.shape[-1])
    return up_rows @ (down_rows @ x @ down_columns.T @ up_columns.T)


def on_grids(x: Tensor, groups: Sequence[Group], grids: Sequence[Grid | None]) -> Tensor:
    """Pictures [T, C, H, W] with the bands of each group on their grid; a group without one stays."""
    if not any(grids):
        return x
    x = x.clone()
    for group, grid in zip(groups, grids, strict=True):
        if grid:
            x[:, list(group.bands)] = projected(x[:, list(group.bands)], grid)
    return x


def found(x: Tensor, group: Group) -> Grid | None:
    """The grid on which all dates of a group's bands lie, [T, C, H, W] DN; None: none that is known, or too small."""
    if min(x.shape[2:]) < LEAST:
        return None
    tiles = tiled(x, group.bands)
    # where most happens, other grids fit worst
    liveliest = tiles[int((tiles.amax((1, 2)) - tiles.amin((1, 2))).argmax())]
    grids = [_best_phases(liveliest, kernel, group.factor) for kernel in range(len(KERNELS))]
    best = min(grids, key=lambda grid: _left(liveliest[None], grid) + grid.kernel * TIE)
    return best if _left(tiles, best) < TOLERANCE**2 else None


def tiled(x: Tensor, bands: Sequence[int]) -> Tensor:
    """[T, C, H, W] > whole tiles [n, h, w] of some bands, drawn if they are many; smaller pictures are one tile."""
    h, w = (min(TILE, side) for side in x.shape[2:])
    tiles = x.unfold(2, h, TILE).unfold(3, w, TILE)  # a view
    frames, _, rows, columns = tiles.shape[:4]
    count = frames * len(bands) * rows * columns
    drawn = np.random.default_rng(0).permutation(count)[:TILES]
    date, band, row, column = np.unravel_index(drawn, (frames, len(bands), rows, columns))
    return tiles[date, np.array(bands)[band], row, column]


def _best_phases(tile: Tensor, kernel: int, factor: int) -> Grid:
    """One axis after the other: interpolating along the other one leaves pixels on the grid of this one."""

    def phase(along: Tensor) -> int:
        return min(range(factor), key=lambda phase: _off(along, kernel, factor, phase).square().mean())

    return Grid(kernel, factor, phase(tile.T), phase(tile))


def _left(tiles: Tensor, grid: Grid) -> float:
    """Mean square of what is not on the grid, of tiles [n, h, w]."""
    columns = _off(tiles, grid.kernel, grid.factor, grid.columns)
    rows = _off((tiles - columns).transpose(1, 2), grid.kernel, grid.factor, grid.rows)
    return float(columns.square().mean() + rows.square().mean())  # they are orthogonal


def _off(x: Tensor, kernel: int, factor: int, phase: int) -> Tensor:
    """What is not on the grid along the last axis."""
    down, up = operators(kernel, factor, phase, x.shape[-1])
    return x - x @ (up @ down).T


def send_grids(port: Port, tables: Tables, grids: Sequence[Grid | None]) -> None:
    """Codes them: the kernel (0: none), and the phases of both axes."""
    for grid in grids:
        said = (grid.kernel + 1, grid.rows, grid.columns) if grid else (0,)
        for value in said:
            port.code(np.array([value - MIDDLE], np.int32), np.array([ROW]), tables)


def read_grids(port: Port, tables: Tables, groups: Sequence[Group]) -> list[Grid | None]:
    """What `send_grids` coded.

    Raises:
        FormatError: bytes that no encoder writes.
    """

    def value(end: int) -> int:
        got = int(port.code(None, np.array([ROW]), tables)[0]) + MIDDLE
        if not 0 <= got < end:
            raise FormatError(f"native grid: expected 0..{end - 1}, got {got}; the bytes are damaged")
        return got

    grids: list[Grid | None] = []
    for group in groups:
        kernel = value(len(KERNELS) + 1)
        grids.append(
            Grid(kernel - 1, group.factor, value(group.factor), value(group.factor)) if kernel else None
        )
    return grids
