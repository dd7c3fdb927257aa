"""Pixels of one chunk, before and after coding: checked, holes filled, rounded back, compared.

Nodata and out-of-range values are coded exactly (`eozip.bitstream.nodata_mask`); the codec sees something cheap instead.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace

import numpy as np

from eozip import bitstream
from eozip.arguments import real
from eozip.bitstream import Header
from eozip.errors import FormatError, InputError

PEAK = 10_000.0  # DN; PSNR counts clip(dn - offset, 0, PEAK)
CODED_RANGE = (-2_000, 20_000)  # DN without offset; what lies beyond is coded exactly


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
        beyond: bool [T, C, H, W], valid, but beyond `CODED_RANGE`.
        left_out: bool [T, C, H, W], nothing is spent on them: any value may come back, and no PSNR counts them.
    """

    dn: np.ndarray
    squeezed: bool
    nodata: int | None
    offset: int
    sensor: str
    masked: np.ndarray
    beyond: np.ndarray
    left_out: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """T, C, H, W."""
        t, c, h, w = self.dn.shape
        return t, c, h, w

    @property
    def counted(self) -> np.ndarray:
        """bool [T, C, H, W]: pixels that PSNR counts."""
        return ~(self.masked | self.left_out)

    def without(self, dropped: np.ndarray) -> Source:
        """The source with pixels [T, H, W] left out; out-of-range values among them are not coded either."""
        left_out = np.broadcast_to(dropped[:, None], self.dn.shape)
        return replace(self, beyond=self.beyond & ~left_out, left_out=left_out)


def checked_source(dn: np.ndarray, nodata: int | None, offset: int, sensor: str) -> Source:
    """Checks the pixels of one chunk, and finds those to be coded exactly.

    Args:
        dn: uint16 or int16 [T, C, H, W] or [C, H, W].
        nodata: a value of that dtype, or None.
        offset: integer, -65536..65536.
        sensor: sensor id.

    Raises:
        InputError: says what is wrong and what to do.
    """
    stack, squeezed = _checked_stack(dn)
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
    low, high = CODED_RANGE
    beyond = ((stack < low + offset) | (stack > high + offset)) & ~masked
    left_out = np.broadcast_to(False, stack.shape)
    return Source(stack, squeezed, nodata, offset, sensor, masked, beyond, left_out)


def _checked_stack(dn: np.ndarray) -> tuple[np.ndarray, bool]:
    if isinstance(dn, np.ma.MaskedArray):
        raise InputError(
            "dn: expected a plain array, got a masked one; use dn.filled(value) and nodata=value"
        )
    dn = np.asarray(dn)
    dtype = dn.dtype.newbyteorder("=")
    if dtype not in (np.uint16, np.int16):
        raise InputError(
            f"dn: expected uint16 or int16 digital numbers, got {dn.dtype}; scale reflectances to DN, round, "
            "and replace NaN by a nodata value"
        )
    if dn.ndim not in (3, 4):
        raise InputError(f"dn: expected [T, C, H, W] or [C, H, W], got shape {dn.shape}")
    if dn.size == 0:
        raise InputError(f"dn: expected at least one pixel, got shape {dn.shape}")
    stack = np.ascontiguousarray(dn, dtype)
    stack = stack[None] if dn.ndim == 3 else stack
    problem = bitstream.size_problem(stack.shape)
    if problem:
        raise InputError(f"dn: {problem}; use smaller chunks")
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
    return fill_holes(x, source.masked | source.beyond | source.left_out)


def fill_holes(x: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fills holes with the nearest value in their row, else the nearest filled row, else the band's mean.

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
    if not np.isfinite(x_hat).all():
        raise FormatError("chunk: decoded pixels are not finite; the data are damaged")
    limits = np.iinfo(header.dtype)
    shifted = x_hat + np.float32(header.offset)
    whole = np.rint(shifted)
    dn = np.clip(whole, limits.min, limits.max, out=whole).astype(header.dtype)
    if header.nodata is not None:
        taken = dn == header.nodata
        dn[taken] = _beside(header.nodata, shifted[taken], limits)
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


def psnr(dn: np.ndarray, dn_hat: np.ndarray, valid: np.ndarray | None = None, offset: int = 0) -> float:
    """PSNR in dB: peak 10,000 DN, over clip(dn - offset, 0, 10000), all bands and dates together.

    Args:
        dn: any shape, DN.
        dn_hat: like ``dn``.
        valid: bool like ``dn``; only these count. None: all.
        offset: radiometric offset contained in both.

    Returns:
        dB; infinite if equal or if nothing is valid.
    """
    low, high = np.float32(offset), np.float32(offset + PEAK)
    error = np.clip(dn.astype(np.float32), low, high) - np.clip(dn_hat.astype(np.float32), low, high)
    if valid is not None:
        error = error[valid]
    mse = float(np.square(error, dtype=np.float64).mean()) if error.size else 0.0
    return 10 * math.log10(PEAK**2 / mse) if mse else math.inf
