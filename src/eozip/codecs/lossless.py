"""Pixels of one grid, exactly, where bands that were interpolated cost their own cells.

A band that lies on a coarser grid (`eozip.codecs.pyramid.grids`) is coded as the cells of that grid, and as what their
interpolation, rounded, leaves of its pixels: nothing nearly everywhere, and elsewhere mostly one, on the side to which the
rounding was close. Other bands, and arrays for which this does not pay, are as in `eozip.bitstream.lossless`:

    its bytes, whose first one is less than 3
    or 3 | u8 [C] grids | u8 n | n grids of 4 bytes | u32 size, pixels of bands without a grid | n times u32 size, cells
      | u8 [n, 16, 3] weights | rest
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eozip.bitstream import lossless
from eozip.bitstream.integers import normalised, sent_weight, weight_count
from eozip.codecs.pyramid import grids
from eozip.codecs.pyramid.grids import Grid
from eozip.entropy.range_coder import DecodePort, EncodePort, Tables
from eozip.errors import FormatError

_CELLS = 3  # the mode, beside those of `eozip.bitstream.lossless`
_SIZE = 4
_PLACES = 16  # between two roundings
_LEFT = (-1, 0, 1)
_GRID = 4  # bytes
_SURE_BITS = 2.0  # a sample; what is smaller may be flat, and smaller still without cells

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Gridded:
    """Bands of one array that lie on one grid."""

    grid: Grid
    bands: np.ndarray


def encode_array(x: np.ndarray, holes: np.ndarray | None = None) -> bytes:
    """Code pixels exactly.

    Args:
        x: uint16 or int16 [T, C, H, W].
        holes: bool, alike, pixels whose values nobody needs; None: there are none.
    """
    found = grids.solved(x.astype(np.float32), holes)
    if all(one is None for one in found):
        return lossless.encode_array(x)
    by_cells = _encode_cells(x, found, holes)
    if 8 * len(by_cells) > _SURE_BITS * x.size:
        return by_cells
    return min(by_cells, lossless.encode_array(x), key=len)


def decode_array(data: bytes, shape: Shape, dtype: str) -> np.ndarray:
    """Decode `encode_array`: pixels of ``dtype`` and ``shape`` [T, C, H, W].

    Raises:
        FormatError: bytes that `encode_array` does not write.
    """
    if data[:1] != bytes([_CELLS]):
        return lossless.decode_array(data, shape, dtype)
    return _decode_cells(data, shape, dtype)


def _encode_cells(
    x: np.ndarray, found: list[tuple[Grid, np.ndarray] | None], holes: np.ndarray | None
) -> bytes:
    kinds = list(dict.fromkeys(one[0] for one in found if one is not None))
    index = np.array([0 if one is None else 1 + kinds.index(one[0]) for one in found], np.uint8)
    own = lossless.encode_array(x[:, index == 0]) if (index == 0).any() else b""
    head = [bytes([_CELLS]), index.tobytes(), bytes([len(kinds)]), *map(_packed_grid, kinds), _sized(own)]
    limits, cells, left, places = np.iinfo(x.dtype), [], [], []
    for k, grid in enumerate(kinds, start=1):
        solved = np.stack([one[1] for one, i in zip(found, index.tolist(), strict=True) if one and i == k], 1)
        whole = np.clip(np.rint(solved), limits.min, limits.max).astype(x.dtype)
        made, place = _made(grid, whole, x.shape[2:])
        rest = x[:, index == k] - made
        if holes is not None:
            rest[holes[:, index == k]] = 0
        cells.append(_sized(lossless.encode_array(whole)))
        left.append(rest.ravel())
        places.append(place.ravel())
    weights = np.stack([_weights(rest, place) for rest, place in zip(left, places, strict=True)])
    port = EncodePort()
    for rest, place, own_weights in zip(left, places, weights, strict=True):
        port.code(rest, place, _tables(own_weights))
    return b"".join([*head, *cells, weights.tobytes(), port.finish()])


def _decode_cells(data: bytes, shape: Shape, dtype: str) -> np.ndarray:
    t, c, h, w = shape
    reader = _Reader(data, 1)
    index = np.frombuffer(reader.take(c), np.uint8)
    kinds = [_unpacked_grid(reader.take(_GRID)) for _ in range(reader.take(1)[0])]
    if set(index.tolist()) - {0} != set(range(1, 1 + len(kinds))) or not kinds:
        raise FormatError(
            "lossless: bands of a grid that does not exist, or a grid without bands; the data are damaged"
        )
    if min(h, w) < grids.LEAST or max(h, w) > grids.LARGEST:
        raise FormatError(f"lossless: grids of cells in {h} x {w} pixels; the data are damaged")
    out = np.empty(shape, dtype)
    own = reader.sized()
    if (index == 0).any():
        out[:, index == 0] = lossless.decode_array(own, (t, int((index == 0).sum()), h, w), dtype)
    elif own:
        raise FormatError("lossless: pixels of bands that are none; the data are damaged")
    cells = [reader.sized() for _ in kinds]
    weights = np.frombuffer(reader.take(len(kinds) * _PLACES * len(_LEFT)), np.uint8)
    port = DecodePort(reader.rest())
    for k, (grid, section) in enumerate(zip(kinds, cells, strict=True), start=1):
        count = int((index == k).sum())
        size = (t, count, grid.cells(h, 0)[1], grid.cells(w, 1)[1])
        made, place = _made(grid, lossless.decode_array(section, size, dtype), (h, w))
        rows = weights.reshape(len(kinds), _PLACES, len(_LEFT))[k - 1]
        made += port.code(None, place.ravel(), _tables(rows)).reshape(made.shape)
        out[:, index == k] = made
    port.finish()
    return out


def _made(grid: Grid, cells: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """int64 [T, C, H, W] pixels of cells, a half rounded up, and how far between two roundings each was, 0..15."""
    made, denominator = grid.interpolated(cells.astype(np.float64), *size)
    doubled = 2 * made.astype(np.int64) + denominator
    whole = doubled // (2 * denominator)
    return whole, (doubled - whole * (2 * denominator)) * _PLACES // (2 * denominator)


def _weights(left: np.ndarray, places: np.ndarray) -> np.ndarray:
    """uint8 [places, 3]: how often each of `_LEFT` occurs."""
    near = np.abs(left) <= 1
    counts = np.bincount(places[near] * 3 + left[near] + 1, minlength=_PLACES * 3)
    return np.array([sent_weight(n) for n in counts.tolist()], np.uint8).reshape(_PLACES, 3)


def _tables(weights: np.ndarray) -> Tables:
    rows = [[weight_count(w) for w in row] for row in weights.tolist()]
    return normalised(rows, first=[_LEFT[0]] * _PLACES)


def _packed_grid(grid: Grid) -> bytes:
    return bytes([grid.kernel, grid.factor, grid.rows, grid.columns])


def _unpacked_grid(data: bytes) -> Grid:
    grid = Grid(*data)
    if grid.kernel >= grids.KERNELS or grid.factor not in grids.FACTORS:
        raise FormatError(f"lossless: expected a known grid, got {tuple(data)}; the data are damaged")
    if max(grid.rows, grid.columns) >= grid.factor:
        raise FormatError(
            f"lossless: expected phases below {grid.factor}, got {tuple(data)[2:]}; the data are damaged"
        )
    return grid


def _sized(section: bytes) -> bytes:
    return len(section).to_bytes(_SIZE, "little") + section


class _Reader:
    """Bytes taken one part after the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def take(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            FormatError: there are fewer.
        """
        stop = self._at + size
        if stop > len(self._data):
            raise FormatError("lossless: shorter than its cells; the data are damaged")
        part, self._at = self._data[self._at : stop], stop
        return part

    def sized(self) -> bytes:
        """The next bytes, whose number stands before them."""
        return self.take(int.from_bytes(self.take(_SIZE), "little"))

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data) - self._at)
