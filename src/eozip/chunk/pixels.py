"""Pixels of one chunk, before and after coding: checked, holes filled, rounded back, compared.

Nodata and out-of-range values are coded exactly (`eozip.bitstream.nodata_mask`); the codec sees something cheap instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from eozip import bitstream, sensors
from eozip.arguments import real
from eozip.bitstream import Group, Header, arrays
from eozip.errors import FormatError, InputError

PEAK = 10_000.0  # DN; PSNR counts clip(dn - offset, 0, PEAK)
_CODED_RANGE = (-2_000, 20_000)  # DN without offset; what lies beyond is coded exactly
REFLECTANCE = 1e-4  # of a DN, for which these hold; sensors of another scale have others in proportion


@dataclass(frozen=True)
class Source:
    """Input of one chunk, checked.

    Attributes:
        dn: uint16 or int16 [T, C, H, W], as given.
        squeezed: the caller gave [C, H, W].
        nodata: value of pixels without data, or None.
        offset: radiometric offset contained in ``dn``.
        sensor: sensor id.
        masked: bool [T, C, H, W], nodata.
        beyond: bool [T, C, H, W], valid, but beyond `_CODED_RANGE`.
        left_out: bool [T, C, H, W], nothing is spent on them: any value may come back, and no PSNR counts them.
        groups: bands on grids of their own; then all arrays above are flat (see `eozip.bitstream.arrays`).
        extent: T, all bands, H and W of the finest of these grids.
        names: of the bands, or empty.
        unit: DN that are as much reflectance as one of Sentinel-2's.
    """

    dn: np.ndarray
    squeezed: bool
    nodata: int | None
    offset: int
    sensor: str
    masked: np.ndarray
    beyond: np.ndarray
    left_out: np.ndarray
    groups: tuple[Group, ...] = ()
    extent: tuple[int, int, int, int] | None = None
    names: tuple[str, ...] = ()
    unit: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """T, C, H, W; with groups, of all bands on the finest grid."""
        t, c, h, w = self.extent or self.dn.shape
        return t, c, h, w

    @property
    def factors(self) -> tuple[int, ...]:
        """Of each group, cells of the finest grid along one of its own."""
        return tuple(group.resolution // self.groups[0].resolution for group in self.groups)

    def parts(self, samples: np.ndarray) -> list[np.ndarray]:
        """Samples like `dn` as the arrays [T, C, h, w] of the groups, or as the only array."""
        return arrays.parts(samples, bitstream.shapes_of(self.shape, self.groups))

    def filled(self, samples: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """`fill_holes` within each array; samples and holes like `dn`."""
        pairs = zip(self.parts(samples), self.parts(holes), strict=True)
        return arrays.flat([fill_holes(part, hole) for part, hole in pairs])

    @property
    def counted(self) -> np.ndarray:
        """bool [T, C, H, W]: pixels that PSNR counts."""
        return ~(self.masked | self.left_out)

    def without(self, dropped: np.ndarray) -> Source:
        """The source with pixels [T, H, W] left out; out-of-range values among them are not coded either."""
        left_out = np.broadcast_to(dropped[:, None], self.dn.shape)
        return replace(self, beyond=self.beyond & ~left_out, left_out=left_out)


def checked_source(dn: np.ndarray, nodata: int | None, offset: int, sensor: str) -> Source:
    """Check the pixels of one chunk, and find those to be coded exactly.

    Args:
        dn: uint16 or int16 [T, C, H, W] or [C, H, W].
        nodata: a value of that dtype, or None.
        offset: integer, -65536..65536.
        sensor: sensor id.

    Raises:
        InputError: says what is wrong and what to do.
    """
    stack, squeezed = _checked_stack(dn, "dn")
    return _source(stack, squeezed, nodata, offset, sensor)


def checked_groups(groups: Mapping[int, np.ndarray], nodata: int | None, offset: int, sensor: str) -> Source:
    """As `checked_source`, for groups of bands on their own grids.

    Args:
        groups: resolution > uint16 or int16 [T, C, h, w] or [C, h, w].
        nodata: a value of their dtype, or None.
        offset: integer, -65536..65536.
        sensor: sensor id.

    Raises:
        InputError: says what is wrong and what to do.
    """
    if not isinstance(groups, Mapping) or not groups:
        raise InputError(
            f"groups: expected a mapping of resolutions to pixels, such as {{10: r10, 20: r20}}, got {groups!r:.80}"
        )
    sizes = {_checked_resolution(key): pixels for key, pixels in groups.items()}
    found = {key: _checked_stack(sizes[key], f"groups[{key}]") for key in sorted(sizes)}
    stacks = [stack for stack, _ in found.values()]
    table = tuple(Group(key, stack.shape[1]) for key, (stack, _) in found.items())
    extent = (len(stacks[0]), sum(g.bands for g in table), *stacks[0].shape[2:])
    problem = bitstream.size_problem(extent) or bitstream.groups_problem(table, extent[1])
    if problem:
        raise InputError(f"groups: {problem}")
    for group, stack, shape in zip(table, stacks, bitstream.shapes_of(extent, table), strict=True):
        if stack.shape != shape or stack.dtype != stacks[0].dtype:
            raise InputError(
                f"groups[{group.resolution}]: expected {shape} of {stacks[0].dtype}, as groups[{table[0].resolution}] is "
                f"{stacks[0].shape}, got {stack.shape} of {stack.dtype}; crop or pad to whole cells"
            )
    if len({squeezed for _, squeezed in found.values()}) > 1:
        raise InputError("groups: expected all [T, C, h, w] or all [C, h, w], got both")
    made = _source(arrays.flat(stacks), found[table[0].resolution][1], nodata, offset, sensor)
    return replace(made, groups=table, extent=extent)


def _checked_resolution(key: object) -> int:
    try:
        if isinstance(key, bool):
            raise TypeError("a truth value")
        return operator.index(key)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"groups: expected whole numbers as resolutions, got {key!r:.80}") from error


def _source(stack: np.ndarray, squeezed: bool, nodata: int | None, offset: int, sensor: str) -> Source:
    nodata = _checked_nodata(nodata, stack.dtype)
    try:
        if isinstance(offset, bool):
            raise TypeError("a truth value")
        offset = operator.index(offset)
    except TypeError as error:
        raise InputError(f"offset: expected an integer, got {offset!r}") from error
    if abs(offset) > 1 << 16:
        raise InputError(f"offset: expected at most 65536 in size, got {offset}")
    masked = np.zeros(stack.shape, bool) if nodata is None else stack == nodata
    unit = unit_of(sensor)
    low, high = (round(unit * bound) + offset for bound in _CODED_RANGE)
    beyond = ((stack < low) | (stack > high)) & ~masked
    left_out = np.broadcast_to(False, stack.shape)
    return Source(stack, squeezed, nodata, offset, sensor, masked, beyond, left_out, unit=unit)


def unit_of(sensor: str) -> float:
    """DN of a sensor that are as much reflectance as one of Sentinel-2's; 1 where it is not known."""
    return REFLECTANCE / sensors.get(sensor).scale if sensor in sensors.names() else 1.0


def _checked_stack(dn: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    if isinstance(dn, np.ma.MaskedArray):
        raise InputError(
            f"{name}: expected a plain array, got a masked one; use {name}.filled(value) and nodata=value"
        )
    dn = np.asarray(dn)
    dtype = dn.dtype.newbyteorder("=")
    if dtype not in (np.uint16, np.int16):
        raise InputError(
            f"{name}: expected uint16 or int16 digital numbers, got {dn.dtype}; scale reflectances to DN, round, "
            "and replace NaN by a nodata value"
        )
    if dn.ndim not in (3, 4):
        raise InputError(f"{name}: expected [T, C, H, W] or [C, H, W], got shape {dn.shape}")
    if dn.size == 0:
        raise InputError(f"{name}: expected at least one pixel, got shape {dn.shape}")
    stack = np.ascontiguousarray(dn, dtype)
    stack = stack[None] if dn.ndim == 3 else stack
    problem = bitstream.size_problem(stack.shape)
    if problem:
        raise InputError(f"{name}: {problem}; use smaller chunks")
    return stack, dn.ndim == 3


def _checked_nodata(nodata: float | None, dtype: np.dtype) -> int | None:
    if nodata is None:
        return None
    value = real("nodata", nodata)
    if not math.isfinite(value) or int(value) != value or not bitstream.fits(int(value), dtype.name):
        raise InputError(f"nodata: expected a value of {dtype}, got {nodata}")
    return int(value)


def pixels_to_code(source: Source) -> np.ndarray:
    """float32 [T, C, H, W] without offset; pixels that are coded exactly are filled with something cheap."""
    x = source.dn.astype(np.float32) - np.float32(source.offset)
    return source.filled(x, source.masked | source.beyond | source.left_out)


def fill_holes(x: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill holes with the nearest value in their row, else the nearest filled row, else the band's mean.

    Args:
        x: [T, C, H, W], any real dtype.
        holes: bool [T, C, H, W].

    Returns:
        Like ``x``; a new array if anything was filled.
    """
    if not holes.any():
        return x
    x = x.copy()
    for band in range(x.shape[1]):
        _fill_band(x[:, band], holes[:, band])
    return x


def _fill_band(frames: np.ndarray, holes: np.ndarray) -> None:
    known = frames[~holes]
    mean = known.mean(dtype=np.float64) if known.size else 0.0
    for frame, hole in zip(frames, holes):
        if hole.all():
            frame[:] = round(mean)
        elif hole.any():
            rows = np.flatnonzero(hole.any(axis=1))
            frame[rows] = np.take_along_axis(frame[rows], _nearest(~hole[rows]), axis=1)
            frame[:] = frame[_nearest(~hole.all(axis=1)[None])[0]]


def _nearest(known: np.ndarray) -> np.ndarray:
    """Index of the nearest known element in each row of bool [N, L]; any index where a row knows none."""
    size = known.shape[1]
    index = np.arange(size)
    before = np.maximum.accumulate(np.where(known, index, -size), axis=1)
    after = np.minimum.accumulate(np.where(known, index, 2 * size)[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where(index - before <= after - index, before, after)
    return np.clip(nearest, 0, size - 1)


def to_dn(x_hat: np.ndarray, header: Header) -> np.ndarray:
    """Pixels of the header's dtype from float32 pixels without offset; none of them equals nodata."""
    limits = np.iinfo(header.dtype)
    dn = np.empty(x_hat.shape, header.dtype)
    for where in np.ndindex(*x_hat.shape[:-2]):  # a picture at a time, which fits the cache
        shifted = x_hat[where] + np.float32(header.offset)
        if not np.isfinite(shifted).all():
            raise FormatError("chunk: decoded pixels are not finite; the data are damaged")
        whole = np.rint(shifted)
        dn[where] = np.clip(whole, limits.min, limits.max, out=whole)
        if header.nodata is not None and (taken := dn[where] == header.nodata).any():
            dn[where][taken] = _beside(header.nodata, shifted[taken], limits)
    return dn


def finished(dn: np.ndarray, source: Source) -> np.ndarray:
    """Decoded pixels with those that are coded exactly put in their places, as a decoder does; changes `dn`."""
    dn[source.beyond] = source.dn[source.beyond]
    if source.nodata is not None:
        dn[source.masked] = source.nodata
    return dn


def _beside(nodata: int, shifted: np.ndarray, limits: np.iinfo) -> np.ndarray:
    """The neighbour of nodata on the side of the decoded value, within the dtype."""
    up = (shifted >= nodata) & (nodata < limits.max) | (nodata == limits.min)
    return np.where(up, min(nodata + 1, limits.max), max(nodata - 1, limits.min)).astype(limits.dtype)


def psnr(
    dn: np.ndarray,
    dn_hat: np.ndarray,
    valid: np.ndarray | None = None,
    offset: int = 0,
    peak: float = PEAK,
) -> float:
    """PSNR in dB: peak 10,000 DN, over clip(dn - offset, 0, 10000), all bands and dates together.

    Args:
        dn: any shape, DN.
        dn_hat: like ``dn``.
        valid: bool like ``dn``; only these count. None: all.
        offset: radiometric offset contained in both.
        peak: DN of reflectance 1 without offset.

    Returns:
        dB; infinite if equal or if nothing is valid.
    """
    low, high = np.float32(offset), np.float32(offset + peak)
    error = np.clip(dn.astype(np.float32), low, high) - np.clip(dn_hat.astype(np.float32), low, high)
    if valid is not None:
        error = error[valid]
    mse = float(np.square(error, dtype=np.float64).mean()) if error.size else 0.0
    return 10 * math.log10(peak**2 / mse) if mse else math.inf
