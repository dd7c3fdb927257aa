"""What an encoder can promise about its pixels, and what has to be added so that it holds.

A promise is checked against what the decoder will make: the encoder decodes its own chunk. Networks make pixels
in floating point, which another machine may round to the other side: one DN either way is allowed for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from eozip import bitstream
from eozip.bitstream import Header, lossless, nodata_mask, residual
from eozip.chunk.pixels import Source, fill_holes, psnr
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError

NEAR_LOSSLESS = "near-lossless"

SLACK = 1  # DN by which another machine's decoded pixels may differ


@dataclass(frozen=True)
class Promise:
    """What must hold for the decoded pixels of a chunk.

    Attributes:
        max_error: largest absolute error of any pixel, DN; None: any.
        min_psnr: dB over all valid pixels (see `eozip.chunk.pixels.psnr`); None: any.

    Pixels that a source leaves out are promised nothing.
    """

    max_error: int | None = None
    min_psnr: float | None = None

    def __bool__(self) -> bool:
        return self.max_error is not None or self.min_psnr is not None


@dataclass(frozen=True)
class Kept:
    """A chunk that keeps a promise.

    Attributes:
        blob: its bytes.
        psnr: dB over the valid pixels as decoded, infinite if exact.
        residual: bytes of its residual layer.
    """

    blob: bytes
    psnr: float
    residual: int = 0


def checked_error(max_error: int | None) -> int | None:
    """A bound on errors as given by a caller.

    Raises:
        InputError: not a whole number of DN from 0 to 65535.
    """
    if max_error is None:
        return None
    try:
        bound = operator.index(max_error)
    except TypeError as error:
        raise InputError(f"max_error: expected a whole number of DN, got {max_error!r}") from error
    if isinstance(max_error, bool) or not 0 <= bound <= 65535:
        raise InputError(f"max_error: expected 0..65535 DN, got {max_error}")
    return bound


def layered(source: Source, blob: bytes, base: np.ndarray, promise: Promise) -> Kept | None:
    """A chunk of a network, with the coarsest residual layer that keeps a promise if it needs one.

    Args:
        source: the true pixels.
        blob: the chunk without a layer.
        base: its decoded pixels [T, C, H, W] in the source's dtype, rounded and within it, but without
            exceptions and not moved off nodata.
        promise: what must hold.

    Returns:
        None if no layer keeps it: no network's pixels are exact everywhere.
    """
    if promise.max_error == 0:
        return None
    source = replace(source, dn=np.where(source.left_out, base, source.dn))  # nothing to correct there
    plain = residual.corrected(base, np.zeros(base.shape, np.int16), 1, base.dtype.name, source.nodata)
    if _is_good(source, plain, promise) and not _too_far(source, base, promise).any():
        return Kept(blob, _psnr(source, plain))
    return _with_layer(source, blob, np.where(source.masked | source.beyond, source.dn, base), promise)


def near_lossless(source: Source, promise: Promise) -> Kept:
    """A chunk without any network that keeps a promise; lossless if nothing coarser does."""
    filled = fill_holes(source.dn, source.masked | source.beyond)
    bound = residual.MOST if promise.max_error is None else min(promise.max_error, residual.MOST)
    most = _largest(lambda e: _is_good(source, _near_pixels(source, filled, e), promise), bound)
    if most == 0:
        return Kept(exact(source), np.inf)
    dn_hat = _near_pixels(source, filled, most)
    error = np.abs(source.dn.astype(np.int64) - dn_hat)
    apart = source.beyond | (~source.masked & (error > most))  # moved too far off nodata
    sections = (residual.encode_near(filled, most),)
    mask, exceptions = nodata_mask.encode_mask(source.masked), nodata_mask.encode_exceptions(source.dn, apart)
    header = plain_header(source, NEAR_LOSSLESS)
    return Kept(bitstream.pack(header, mask, exceptions, sections), _psnr(source, dn_hat))


def exact(source: Source) -> bytes:
    """A lossless chunk."""
    mask = nodata_mask.encode_mask(source.masked)
    sections = () if source.masked.all() else (lossless.encode_array(fill_holes(source.dn, source.masked)),)
    return bitstream.pack(plain_header(source, LOSSLESS), mask, b"", sections)


def plain_header(source: Source, codec: str) -> Header:
    """Header of a chunk without a network."""
    t, c, h, w = source.dn.shape
    return Header(
        codec=codec,
        dtype=source.dn.dtype.name,
        shape=(t, c, h, w),
        squeezed=source.squeezed,
        sensor=source.sensor,
        offset=source.offset,
        nodata=source.nodata,
        quality=100.0,
    )


def _with_layer(source: Source, blob: bytes, base: np.ndarray, promise: Promise) -> Kept:
    """Where pixels are coded exactly anyway, `base` holds the true ones: nothing to correct."""

    def pixels(most: int) -> np.ndarray:
        steps = residual.corrections(source.dn, base, most)
        return residual.corrected(base, steps, 2 * most + 1, base.dtype.name, source.nodata)

    bound = residual.MOST if promise.max_error is None else min(promise.max_error - SLACK, residual.MOST)
    most = _largest(lambda e: _is_good(source, pixels(e), promise), bound)
    steps, step = residual.corrections(source.dn, base, most), 2 * most + 1
    values = base + steps.astype(np.int64) * step
    # more than int16 can correct, or moved too far off nodata: exact instead
    apart = source.beyond | _too_far(source, values, promise) | (np.abs(source.dn - values) > most)
    chunk, data = bitstream.unpack(blob), residual.encode_layer(steps, step)
    header = replace(chunk.header, residual=True)
    exceptions = nodata_mask.encode_exceptions(source.dn, apart & ~source.masked)
    packed = bitstream.pack(header, chunk.mask, exceptions, chunk.sections, data, chunk.skip)
    return Kept(packed, _psnr(source, np.where(apart, source.dn, pixels(most))), len(data))


def _near_pixels(source: Source, filled: np.ndarray, most: int) -> np.ndarray:
    """Pixels as a near-lossless chunk of `filled` gives them back, exceptions aside."""
    positions = residual.near_positions(filled, most)
    return residual.near_pixels(positions, 2 * most + 1, filled.dtype.name, source.nodata)


def _too_far(source: Source, values: np.ndarray, promise: Promise) -> np.ndarray:
    """bool [T, C, H, W]: pixels that some machine may give back with a larger error than promised."""
    if promise.max_error is None:
        return np.zeros(values.shape, bool)
    limits, worst = np.iinfo(source.dn.dtype), np.zeros(values.shape, np.int64)
    for change in (-SLACK, 0, SLACK):
        here = np.clip(values.astype(np.int64) + change, limits.min, limits.max)
        moved = 0 if source.nodata is None else here == source.nodata  # it goes one up or down
        np.maximum(worst, np.abs(here - source.dn) + moved, out=worst)
    return (worst > promise.max_error) & source.counted & ~source.beyond


def _is_good(source: Source, dn_hat: np.ndarray, promise: Promise) -> bool:
    return promise.min_psnr is None or _psnr(source, dn_hat) >= promise.min_psnr


def _psnr(source: Source, dn_hat: np.ndarray) -> float:
    seen = np.where(source.beyond, source.dn, dn_hat)
    return psnr(source.dn, seen, source.counted, source.offset)


def _largest(is_good: Callable[[int], bool], most: int) -> int:
    """Largest number up to `most` that is good, by bisection; 0 is taken to be."""
    if is_good(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return low
