"""Bands that were interpolated onto a finer grid: found, coded on their own grid, interpolated again on integers.

Most archives bring the 20 and 60 m bands of Sentinel-2 to 10 m. Such a band is U s V^T, with s the band on its own grid and
U, V the interpolation along rows and columns; only s is coded. The weights of nearest, bilinear and cubic interpolation are
fractions with a small denominator, so the decoder's interpolation is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

FACTORS = (2, 3, 6)
LEAST, LARGEST = 24, 4096  # pixels a side: with fewer there is no telling; more would take long
TILE, TILES, LIVELY = 36, 512, 16  # every grid begins alike in tiles of 36 pixels
_TOLERANCE = 0.6  # DN rms over a whole band of a date: rounding once leaves 0.29, twice 0.41
_TIE = 0.01  # DN**2: bilinear and cubic grids of factor 2 make the same pictures
_TAPS = 4
_ROUNDS = 96  # of the search for cells beside holes, at most: cells of 60 m need more than those of 20 m
_SETTLED = 0.0001  # DN**2 a pixel that the search may leave
_RIDGE_HOLES = 1e-4  # of the same, where float32 has to do
_RIDGE = 1e-9  # of cells that the border nearly cuts off


def _nearest(distance: np.ndarray) -> np.ndarray:
    return (np.abs(distance) < 0.5).astype(np.float64)


def _bilinear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distance))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -1/2 (Keys 1981), which GDAL and most others use."""
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


_KERNELS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (_bilinear, _nearest, _cubic)
KERNELS = len(_KERNELS)


@dataclass(frozen=True)
class Grid:
    """How bands were interpolated.

    Attributes:
        kernel: 0 bilinear, 1 nearest, 2 cubic.
        factor: pixels per cell, each way.
        rows, columns: pixels before the first whole cell, 0..factor-1.
    """

    kernel: int
    factor: int
    rows: int
    columns: int

    @property
    def denominator(self) -> int:
        """Of pixels that `interpolated` makes."""
        return _denominator(self.kernel, self.factor) ** 2

    def cells(self, size: int, axis: int) -> tuple[int, int]:
        """Along an axis of so many pixels: the first cell that they touch (0 or less), and how many they touch."""
        touched = _taps(self.kernel, self.factor, self.rows if axis == 0 else self.columns, size)
        return touched.first, touched.count

    def solved(self, x: np.ndarray) -> np.ndarray:
        """Cells whose interpolation is nearest to pixels: float [..., H, W] -> float [..., h, w] of the same precision."""
        down = _solver(self.kernel, self.factor, self.rows, x.shape[-2]).astype(x.dtype)
        across = _solver(self.kernel, self.factor, self.columns, x.shape[-1]).astype(x.dtype)
        return down @ (x.reshape(-1, x.shape[-1]) @ across.T).reshape(*x.shape[:-1], -1)

    def interpolated(self, cells: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int]:
        """Pixels from cells: integers [..., h, w] -> float [..., H, W] numerators and their denominator.

        Args:
            cells: integers below 2**26, held by float64, so that all sums stay below 2**53 and are exact; float32 ones give
                float32.
            height: H.
            width: W.
        """
        rows = _taps(self.kernel, self.factor, self.rows, height)
        columns = _taps(self.kernel, self.factor, self.columns, width)
        tall = np.empty((*cells.shape[:-2], height, cells.shape[-1]), np.result_type(cells, np.float32))
        _spread(cells.swapaxes(-2, -1), rows, self.factor, tall.swapaxes(-2, -1))
        wide = np.empty((*cells.shape[:-2], height, width), tall.dtype)
        _spread(tall, columns, self.factor, wide)
        return wide, rows.denominator * columns.denominator


def _spread(cells: np.ndarray, taps: _Taps, factor: int, out: np.ndarray) -> None:
    """Pixels along the last axis; those a factor apart have the same weights, of cells that lie beside each other."""
    for phase in range(min(factor, out.shape[-1])):
        pixels = out[..., phase::factor]
        parts = [
            cells[..., first : first + pixels.shape[-1]] * float(weight)
            for first, weight in zip(taps.cell[phase], taps.weight[phase], strict=True)
            if weight
        ]
        pixels[...] = parts[0]
        for part in parts[1:]:
            pixels += part


@dataclass(frozen=True, eq=False)
class _Taps:
    first: int
    count: int
    cell: np.ndarray  # int64 [size, TAPS], from the first one
    weight: np.ndarray  # int64 [size, TAPS]
    denominator: int


def _denominator(kernel: int, factor: int) -> int:
    """Of the weights along one axis."""
    return (2 * factor, 1, 2 * (2 * factor) ** 3)[kernel]


@lru_cache(64)
def _taps(kernel: int, factor: int, phase: int, size: int) -> _Taps:
    place = (np.arange(size) - (factor - 1) / 2 - phase) / factor
    cells = np.floor(place)[:, None].astype(np.int64) + np.arange(-1, _TAPS - 1)
    denominator = _denominator(kernel, factor)
    weight = np.rint(_KERNELS[kernel](place[:, None] - cells) * denominator).astype(np.int64)
    used = cells[weight != 0]
    first, last = int(used.min()), int(used.max())
    return _Taps(first, last - first + 1, np.clip(cells - first, 0, last - first), weight, denominator)


@lru_cache(64)
def _solver(kernel: int, factor: int, phase: int, size: int) -> np.ndarray:
    """(U^T U)^-1 U^T: float64 [cells, size]."""
    up = _matrix(kernel, factor, phase, size)
    return np.linalg.solve(up.T @ up + _RIDGE * np.eye(up.shape[1]), up.T)


def _matrix(kernel: int, factor: int, phase: int, size: int) -> np.ndarray:
    taps = _taps(kernel, factor, phase, size)
    up = np.zeros((size, taps.count))
    for k in range(_TAPS):
        np.add.at(up, (np.arange(size), taps.cell[:, k]), taps.weight[:, k] / taps.denominator)
    return up


def found(x: np.ndarray) -> list[Grid | None]:
    """The grid of each band of pixels [T, C, H, W] DN on which every date lies to the rounding, or None."""
    return [None if one is None else one[0] for one in solved(x)]


def solved(x: np.ndarray, holes: np.ndarray | None = None) -> list[tuple[Grid, np.ndarray] | None]:
    """As `found`, with the cells of each such band, float [T, h, w].

    Args:
        x: float [T, C, H, W].
        holes: bool, alike, pixels whose values nobody needs; None: there are none.
    """
    if min(x.shape[2:]) < LEAST or max(x.shape[2:]) > LARGEST:
        return [None] * x.shape[1]
    bands: list[tuple[Grid, np.ndarray] | None] = []
    for band in range(x.shape[1]):
        # bands of a sensor come in groups
        likely = list(dict.fromkeys(one[0] for one in bands[::-1] if one is not None))
        own = None if holes is None or not holes[:, band].any() else holes[:, band]
        bands.append(_solved(x[:, band], likely, own))
    return bands


def _solved(x: np.ndarray, likely: list[Grid], holes: np.ndarray | None) -> tuple[Grid, np.ndarray] | None:
    """Of one band [T, H, W]."""
    tiles = _lively(x, holes)
    if not len(tiles):
        return None
    coarse_first = sorted(likely, key=lambda grid: -grid.factor)
    best = next((g for g in coarse_first if _left(tiles, g) < _TOLERANCE**2), None)
    # what was interpolated bilinearly from 60 m lies on a grid of 20 m as well: its own is the coarsest that fits
    tried = [f for f in FACTORS[::-1] if best is None or (f > best.factor and f % best.factor == 0)]
    grids = [grid for factor in tried for grid in _likely_grids(tiles, factor)]
    left = [_left(tiles, grid) + grid.kernel * _TIE for grid in grids]
    near = [(g, v) for g, v in zip(grids, left, strict=True) if v < _TOLERANCE**2]
    if near:
        coarsest = near[0][0].factor
        best = min((pair for pair in near if pair[0].factor == coarsest), key=lambda pair: pair[1])[0]
    if best is None:
        return None
    cells = best.solved(x) if holes is None else _solved_beside(x, best, holes)
    return (best, cells) if _makes(x, best, np.rint(cells), holes) else None


def _solved_beside(x: np.ndarray, grid: Grid, holes: np.ndarray) -> np.ndarray:
    """As `Grid.solved`, with nothing asked of the pixels in holes.

    Conjugate gradients that begin with what fits the filled holes, preconditioned by the inverse without holes.
    """
    cells = grid.solved(x)
    down = _matrix(grid.kernel, grid.factor, grid.rows, x.shape[1]).astype(x.dtype)
    across = _matrix(grid.kernel, grid.factor, grid.columns, x.shape[2]).astype(x.dtype)
    inverses = [
        np.linalg.inv(m.T @ m + _RIDGE_HOLES * np.eye(m.shape[1], dtype=m.dtype)) for m in (down, across)
    ]
    for t in np.flatnonzero(holes.any((1, 2)) & ~holes.all((1, 2))):
        shown = ~holes[t]
        left = down.T @ (shown * (x[t] - down @ cells[t] @ across.T)) @ across
        way = near = inverses[0] @ left @ inverses[1]
        size = float((left * near).sum())
        for _ in range(_ROUNDS):
            if size < _SETTLED * np.count_nonzero(shown):
                break
            pushed = down.T @ (shown * (down @ way @ across.T)) @ across
            step = size / max(float((way * pushed).sum()), 1e-9)
            cells[t] += step * way
            left = left - step * pushed
            near = inverses[0] @ left @ inverses[1]
            now = float((left * near).sum())
            way, size = near + now / max(size, 1e-9) * way, now
    return cells


def _makes(x: np.ndarray, grid: Grid, cells: np.ndarray, holes: np.ndarray | None) -> bool:
    """Whether cells make every date again, to the rounding."""
    made, denominator = grid.interpolated(cells, *x.shape[1:])
    made /= -denominator
    made += x
    squares = np.square(made, out=made)
    if holes is None:
        return bool((squares.mean((1, 2)) < _TOLERANCE**2).all())
    squares[holes] = 0
    return bool((squares.sum((1, 2)) <= _TOLERANCE**2 * (~holes).sum((1, 2))).all())


def _lively(x: np.ndarray, holes: np.ndarray | None) -> np.ndarray:
    """Some of the whole tiles of [T, H, W] in which more happens than in others, [n, h, w]: flat ones fit any grid."""
    h, w = (min(TILE, side) for side in x.shape[1:])

    def cut(v: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(v, (h, w), (1, 2))[:, ::TILE, ::TILE].reshape(
            -1, h, w
        )

    tiles = cut(x)
    if holes is not None:
        tiles = tiles[~cut(holes).any((1, 2))]
    some = tiles if len(tiles) <= TILES else tiles[np.random.default_rng(0).permutation(len(tiles))[:TILES]]
    order = np.argsort(np.ptp(some, (1, 2)))[::-1]
    upper = order[: -(-len(order) // 2)]
    return some[upper[:: max(1, -(-len(upper) // LIVELY))]].astype(np.float64)


def _likely_grids(tiles: np.ndarray, factor: int) -> list[Grid]:
    """Of each kernel the best phases, if pixels lie on a grid of it along both axes; each axis is looked at by itself."""
    down, across = (_outside(v, factor) for v in (tiles.swapaxes(1, 2), tiles))
    near = (np.maximum(down.min(1), across.min(1)) < _TOLERANCE**2).nonzero()[0].tolist()
    return [Grid(k, factor, int(down[k].argmin()), int(across[k].argmin())) for k in near]


def _outside(tiles: np.ndarray, factor: int) -> np.ndarray:
    """Mean square of what is not on a grid along the last axis, in most tiles [n, h, w]: [KERNELS, factor] by phase."""
    n, h, w = tiles.shape
    spans, starts = _spans(factor, w)
    inside = (tiles.reshape(-1, w) @ spans).reshape(n, h, -1)
    shares = np.add.reduceat(np.einsum("nhk,nhk->nk", inside, inside), starts, 1)
    outside = np.einsum("nhw,nhw->n", tiles, tiles)[:, None] - shares
    return np.median(outside / (h * w), 0).reshape(KERNELS, factor)


def _left(tiles: np.ndarray, grid: Grid) -> float:
    """Mean square of what is not on the grid, in most tiles [n, h, w]."""
    _, h, w = tiles.shape
    columns = tiles @ _span(grid.kernel, grid.factor, grid.columns, w)
    cells = _span(grid.kernel, grid.factor, grid.rows, h).T @ columns
    # the three are orthogonal to each other
    whole, beside, inside = (np.einsum("nij,nij->n", v, v) for v in (tiles, columns, cells))
    return float(np.median(whole - beside) + np.median(beside - inside)) / (h * w)


@lru_cache(8)
def _spans(factor: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`_span` of all kernels and phases beside each other, and where each begins."""
    found = [_span(kernel, factor, phase, size) for kernel in range(KERNELS) for phase in range(factor)]
    return np.hstack(found), np.cumsum([0, *(one.shape[1] for one in found[:-1])])


@lru_cache(128)
def _span(kernel: int, factor: int, phase: int, size: int) -> np.ndarray:
    """An orthonormal basis of what interpolation can make of a tile's line: float64 [size, cells]."""
    return np.linalg.qr(_matrix(kernel, factor, phase, size))[0]
