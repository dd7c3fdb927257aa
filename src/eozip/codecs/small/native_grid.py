"""Bands that were interpolated onto a finer grid: a decoded picture is put back among what interpolation can make.

Sentinel-2 has bands of 20 and 60 m, which most archives bring to 10 m. Such a band is U s V^T, with s the band on its own
grid and U, V the interpolation along rows and columns: of 4 (or 36) pixels only one is free. A network knows that such
bands are smooth, but not where their grid lies. The encoder finds out, a few bits say it, and the decoder projects its
picture onto the pictures that this grid can make, which takes away all of the error that no such band can have: 5 to 7 %
of the bits at 48 dB, 1 % at 36 (docs/training-log.md).

    x_hat > U (U^T U)^-1 U^T x_hat V (V^T V)^-1 V^T

Every date of every band may be left out, where its pixels lie on no grid (holes that were filled, another archive).

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
from eozip.entropy.range_coder import Port, Tables
from eozip.errors import FormatError

LARGEST = 2048  # pixels a side: projecting takes time like its third power
LEAST = 24  # pixels a side: with fewer there is no telling
TILE = 36  # pixels; grids are looked for in tiles, in which each of them begins alike
TILES, LIVELY = 512, 16  # so many are drawn, and of the livelier half so many looked at
NEAR = 3.0  # DN: left in most of them on a grid that is worth trying
TOLERANCE = 0.6  # DN: rounding once leaves 0.29, twice 0.41
ROWS = 3  # every third tells what a grid gains
TIE = 0.01  # DN**2: bilinear and cubic grids of factor 2 make the same pictures
RIDGE = 1e-9  # of cells that the border nearly cuts off
CACHED, CACHED_TILES = 16, 128  # operators; the former may be large
NARROW_ROW, WIDE_ROW = 30, 36  # the tables' rows of kernels and phases 0..1, and of phases 0..5
FLAG_ROW, FLAG_BITS = 6, 9.2  # of what is left out: 0.01 bits if not, so many if so
GRID_BITS = 9.0  # about what the rest costs


def bilinear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distance))


def nearest(distance: np.ndarray) -> np.ndarray:
    return (np.abs(distance) < 0.5).astype(np.float64)


def cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -1/2 (Keys 1981), which GDAL and most others use."""
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


KERNELS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (bilinear, nearest, cubic)


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
    """Bands of one resolution.

    Attributes:
        bands: positions.
        factor: pixels per cell, each way.
    """

    bands: tuple[int, ...]
    factor: int


@dataclass(frozen=True, eq=False)
class Placing:
    """What lies on a grid: of a group's bands the dates `kept`, bool [T, bands]."""

    group: Group
    grid: Grid
    kept: Tensor

    def applied(self, x: Tensor) -> Tensor:
        """Pictures [T, C, H, W] > those of the group [T, bands, H, W], put onto the grid where kept."""
        own = x[:, list(self.group.bands)]
        put = projected(own, self.grid)
        return put if bool(self.kept.all()) else torch.where(self.kept[:, :, None, None], put, own)


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


def projected(x: Tensor, grid: Grid, every: int = 1) -> Tensor:
    """Pictures [..., H, W] > the nearest ones that the grid can make; of their rows only each so many-th."""
    down_rows, up_rows = operators(grid.kernel, grid.factor, grid.rows, x.shape[-2])
    down_columns, up_columns = operators(grid.kernel, grid.factor, grid.columns, x.shape[-1])
    return up_rows[::every] @ (down_rows @ x @ down_columns.T @ up_columns.T)


def put_on_grids(x: Tensor, placings: Sequence[Placing]) -> None:
    """Changes pictures [T, C, H, W]: bands that have a grid now lie on it."""
    for placing in placings:
        x[:, list(placing.group.bands)] = placing.applied(x)


def placings_by_draft(
    x: Tensor, x_hat: Tensor, groups: Sequence[Group], bits_per_square: float, seen: Tensor | None = None
) -> list[Placing]:
    """What is better on a grid than off it.

    Args:
        x: pixels [T, C, H, W], DN.
        x_hat: the same decoded.
        groups: bands that may lie on one.
        bits_per_square: what a squared DN of error is worth.
        seen: bool [T, H, W], pixels that count; None: all.
    """
    placings = []
    for group in groups:
        if (grid := guessed(x, group)) is None:
            continue
        own, wanted = (v[:, list(group.bands)] for v in (x_hat, x))
        put, own, wanted = projected(own, grid, ROWS), own[:, :, ::ROWS], wanted[:, :, ::ROWS]
        squares = (own - put).mul_((own - wanted).add_(put - wanted))  # of errors, before less after
        if seen is not None:
            squares *= seen[:, None, ::ROWS]
        gain = ROWS * bits_per_square * squares.sum((2, 3))
        kept = gain > -FLAG_BITS
        if float(gain[kept].sum()) > GRID_BITS + FLAG_BITS * int((~kept).sum()):
            placings.append(Placing(group, grid, kept))
    return placings


def placings_by_pixels(x: Tensor, groups: Sequence[Group]) -> list[Placing]:
    """What lies on a grid to the rounding, [T, C, H, W] DN, where no draft says what it gains."""
    placings = []
    for group in groups:
        if (grid := guessed(x, group)) is None:
            continue
        own = x[:, list(group.bands)]
        kept = (own - projected(own, grid)).square().mean((2, 3)) < TOLERANCE**2
        if 2 * int(kept.sum()) > kept.numel():
            placings.append(Placing(group, grid, kept))
    return placings


def guessed(x: Tensor, group: Group) -> Grid | None:
    """The grid of most of a group's pictures, [T, C, H, W] DN; None: none that is known, or sides that forbid one."""
    if min(x.shape[2:]) < LEAST or max(x.shape[2:]) > LARGEST:
        return None
    tiles = lively(x, group.bands)
    grids = [_best_phases(tiles, kernel, group.factor) for kernel in range(len(KERNELS))]
    best = min(grids, key=lambda grid: _left(tiles, grid) + grid.kernel * TIE)
    return best if _left(tiles, best) < NEAR**2 else None


def lively(x: Tensor, bands: Sequence[int]) -> Tensor:
    """Some of the whole tiles of [T, C, H, W] in which more happens than in others, [n, h, w]: flat ones fit any grid."""
    h, w = (min(TILE, side) for side in x.shape[2:])
    tiles = x.unfold(2, h, TILE).unfold(3, w, TILE)  # a view
    shape = (len(x), len(bands), *tiles.shape[2:4])
    drawn = np.random.default_rng(0).permutation(int(np.prod(shape)))[:TILES]
    date, band, row, column = np.unravel_index(drawn, shape)
    some = tiles[date, np.array(bands)[band], row, column]
    order = (some.amax((1, 2)) - some.amin((1, 2))).argsort(descending=True)
    upper = order[: -(-len(order) // 2)]
    return some[upper[:: -(-len(upper) // LIVELY)]]


def _best_phases(tiles: Tensor, kernel: int, factor: int) -> Grid:
    """One axis after the other: interpolating along the other one leaves pixels on the grid of this one."""

    def phase(along: Tensor) -> int:
        return min(range(factor), key=lambda phase: _typical(_off(along, kernel, factor, phase)))

    return Grid(kernel, factor, phase(tiles.transpose(1, 2)), phase(tiles))


def _left(tiles: Tensor, grid: Grid) -> float:
    """Mean square of what is not on the grid, in most tiles [n, h, w]."""
    columns = _off(tiles, grid.kernel, grid.factor, grid.columns)
    rows = _off((tiles - columns).transpose(1, 2), grid.kernel, grid.factor, grid.rows)
    return _typical(columns) + _typical(rows)  # they are orthogonal


def _typical(off: Tensor) -> float:
    """The median over tiles: some may have holes that were filled."""
    return float(off.square().mean((1, 2)).median())


def _off(x: Tensor, kernel: int, factor: int, phase: int) -> Tensor:
    """What is not on the grid along the last axis."""
    return x @ _away(kernel, factor, phase, x.shape[-1])


@lru_cache(CACHED_TILES)
def _away(kernel: int, factor: int, phase: int, size: int) -> Tensor:
    """1 - U (U^T U)^-1 U^T of a tile, transposed."""
    down, up = operators.__wrapped__(kernel, factor, phase, size)
    return torch.eye(size) - (up @ down).T


def phase_code(factor: int) -> tuple[int, int]:
    """The tables' row of a phase, and the phase that symbol 0 means."""
    return (NARROW_ROW, 0) if factor == 2 else (WIDE_ROW, factor // 3)


def send_grids(port: Port, tables: Tables, groups: Sequence[Group], placings: Sequence[Placing]) -> None:
    """For each group codes the kernel (-1: no grid), both phases, and what is left out."""
    for group in groups:
        placing = next((p for p in placings if p.group == group), None)
        port.code(
            np.array([placing.grid.kernel if placing else -1], np.int32), np.array([NARROW_ROW]), tables
        )
        if placing:
            row, middle = phase_code(group.factor)
            for phase in (placing.grid.rows, placing.grid.columns):
                port.code(np.array([phase - middle], np.int32), np.array([row]), tables)
            out = (~placing.kept).flatten().to(torch.int32).numpy()
            port.code(out, np.full(len(out), FLAG_ROW), tables)


def read_grids(port: Port, tables: Tables, groups: Sequence[Group], shape: Sequence[int]) -> list[Placing]:
    """What `send_grids` coded of pixels [T, C, H, W].

    Raises:
        FormatError: bytes that no encoder writes.
    """

    def value(row: int, first: int, end: int) -> int:
        return int(_checked(port.code(None, np.array([row]), tables), first, end)[0])

    placings = []
    for group in groups:
        kernel = value(NARROW_ROW, -1, len(KERNELS))
        if kernel < 0:
            continue
        if max(shape[2:]) > LARGEST:
            raise FormatError(
                f"native grid: expected none above {LARGEST} pixels a side; the bytes are damaged"
            )
        row, middle = phase_code(group.factor)
        rows, columns = (value(row, -middle, group.factor - middle) + middle for _ in range(2))
        flags = port.code(None, np.full(shape[0] * len(group.bands), FLAG_ROW), tables)
        kept = torch.from_numpy(_checked(flags, 0, 2) == 0).reshape(shape[0], -1)
        placings.append(Placing(group, Grid(kernel, group.factor, rows, columns), kept))
    return placings


def _checked(symbols: np.ndarray, first: int, end: int) -> np.ndarray:
    wrong = symbols[(symbols < first) | (symbols >= end)]
    if len(wrong):
        raise FormatError(f"native grid: expected {first}..{end - 1}, got {wrong[0]}; the bytes are damaged")
    return symbols
