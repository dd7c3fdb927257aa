"""numpy in, bytes out, numpy back: what every codec shares.

`encode` checks the pixels, takes nodata and out-of-range values out (they are coded exactly), has the codec
code the rest, and packs one chunk; `decode` goes back. No torch is imported here; codecs load on first use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eozip import bitstream, lossless, masks
from eozip.bitstream import Chunk, Header
from eozip.codecs import registry
from eozip.codecs.base import Codec, Encoded
from eozip.codecs.registry import LOSSLESS
from eozip.errors import FormatError, InputError, WeightsError
from eozip.pixels import Source, checked_source, fill_holes, pixels_to_code, psnr, to_dn

DEFAULT_CODEC = "tec-elic-small"
DEFAULT_TEMPORAL_CODEC = "tec-tt-small"
DEFAULT_QUALITY = 60.0
PSNR_TOLERANCE = 0.15  # dB
PSNR_STEPS = 8

_PSNR_CAP = 200.0  # what an exact reconstruction counts as while searching
# Beyond this rate, or on frames this small, lossless coding may be smaller and is tried.
_TRY_LOSSLESS_BITS = 4.0
_TRY_LOSSLESS_PIXELS = 64


@dataclass(frozen=True)
class Report:
    """What `encode_report` did.

    Attributes:
        codec: id in the stream (``lossless`` where that was smaller).
        quality: quality used, 0..100; 100 if lossless.
        psnr: dB over the valid pixels, infinite if exact; None unless a target was given.
        reached: whether the target was reached; None without a target.
        date_bits: estimated bits of each date: those of the chunk, shared out by what the codec's encoder
            counted; None where it cannot tell.
    """

    codec: str
    quality: float
    psnr: float | None = None
    reached: bool | None = None
    date_bits: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Info:
    """What a chunk says about itself.

    Attributes:
        header: shape, dtype, codec, quality and the rest.
        bytes: size of the chunk.
        bpppb: bits per pixel per band, all bytes counted, of the unpadded input.
        sections: bytes of each section, in order.
    """

    header: Header
    bytes: int
    bpppb: float
    sections: tuple[int, ...]


def default_codec(dates: int, sensor: str = "s2-l2a") -> str:
    """Full id of the codec for who names none: the temporal one for several dates where there is one.

    Args:
        dates: dates coded together, T.
        sensor: sensor id.

    Raises:
        UnknownCodecError: no default codec for this sensor.
    """
    short = DEFAULT_TEMPORAL_CODEC if dates > 1 else DEFAULT_CODEC
    return registry.resolve(short if registry.knows(short, sensor) else DEFAULT_CODEC, sensor)


def encode(
    dn: np.ndarray,
    codec: str | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    nodata: int | None = None,
    sensor: str = "s2-l2a",
    offset: int = 0,
) -> bytes:
    """Codes one chunk.

    Args:
        dn: uint16 or int16 [T, C, H, W] or [C, H, W], digital numbers.
        codec: full id or short name, or ``lossless``; None: see `default_codec`.
        quality: 0..100, rounded to hundredths; 60 if neither it nor ``target_psnr`` is given.
        target_psnr: dB (see `psnr`); the quality is searched for; where the codec falls short, 100 is used.
        nodata: value of pixels without data; they come back exactly, and no other pixel gets that value.
        sensor: sensor id; a short codec name means the codec for this sensor.
        offset: radiometric offset contained in ``dn``: 1000 for Sentinel-2 baseline 04.00 and later.

    Returns:
        One chunk.

    Raises:
        InputError: pixels or arguments that cannot be coded.
        UnknownCodecError: no such codec.
        WeightsError: its weights are missing or damaged.
    """
    arguments = {"target_psnr": target_psnr, "nodata": nodata, "sensor": sensor, "offset": offset}
    return encode_report(dn, codec, quality, **arguments)[0]  # type: ignore[arg-type]


def encode_report(
    dn: np.ndarray,
    codec: str | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    nodata: int | None = None,
    sensor: str = "s2-l2a",
    offset: int = 0,
) -> tuple[bytes, Report]:
    """As `encode`, and says which quality was used and whether the target was reached."""
    asked = _asked_quality(quality, target_psnr)
    source = checked_source(dn, nodata, offset, sensor)
    full_id = registry.resolve(codec, sensor) if codec else default_codec(len(source.dn), sensor)
    if full_id == LOSSLESS:
        return _encode_lossless(source), _exact_report(target_psnr)
    model = registry.get(full_id)
    _check_bands(model, source)
    if source.masked.all():
        return _pack(source, model, asked, Encoded((), ())), Report(full_id, asked)
    blob, report = _encode_learned(source, model, asked, target_psnr)
    if _is_lossless_worth_trying(source.dn, blob):
        exact = _encode_lossless(source)
        if len(exact) <= len(blob):
            return exact, _exact_report(target_psnr)
    return blob, report


def decode(blob: bytes, *, budget: int | None = None) -> np.ndarray:
    """Decodes one chunk.

    Args:
        blob: the bytes of `encode`.
        budget: use only the first so many of the codec's sections (progressive codecs; the blob may then be
            cut behind them). None: all of them.

    Returns:
        Array of the shape and dtype that were encoded.

    Raises:
        FormatError: not a chunk, damaged or cut (`ChecksumError`, `LimitError`, `DesyncError` say more).
        UnknownCodecError: coded by a codec that this eozip does not have.
        WeightsError: coded with other weights.
    """
    if budget is not None and budget < 1:
        raise InputError(f"budget: expected at least 1 section, got {budget}")
    chunk = bitstream.unpack(blob, allow_truncated=budget is not None)
    _check_budget(chunk, budget)
    dn = _decode_stack(chunk, budget)
    return dn[0] if chunk.header.squeezed else dn


def inspect(blob: bytes) -> Info:
    """Reads the header of a chunk; needs no codec and no weights.

    Raises:
        FormatError: not a chunk, or a damaged header.
    """
    header, sections = bitstream.read_header(blob)
    return Info(header, len(blob), 8.0 * len(blob) / math.prod(header.shape), sections)


def check(blob: bytes) -> Info:
    """Checks every checksum of a chunk; needs no codec and no weights.

    Raises:
        FormatError: not a chunk, damaged or truncated.
    """
    bitstream.unpack(blob)
    return inspect(blob)


@dataclass(frozen=True)
class _Try:
    quality: float
    psnr: float
    coded: Encoded


# --- checking the input ---


def _asked_quality(quality: float | None, target_psnr: float | None) -> float:
    if quality is not None and target_psnr is not None:
        raise InputError("give quality or target_psnr, not both")
    if target_psnr is not None and not (math.isfinite(target_psnr) and target_psnr > 0):
        raise InputError(f"target_psnr: expected dB above 0, got {target_psnr}")
    asked = DEFAULT_QUALITY if quality is None else float(quality)
    if not 0 <= asked <= 100:  # also NaN
        raise InputError(f"quality: expected 0..100, got {quality}")
    return round(asked, 2)


def _check_bands(model: Codec, source: Source) -> None:
    bands = source.dn.shape[1]
    if bands != model.bands:
        raise InputError(
            f"dn: codec {model.id} takes {model.bands} bands, got {bands} (shape {source.dn.shape}); "
            f"choose another codec or codec='{LOSSLESS}'"
        )


# --- encoding ---


def _encode_learned(
    source: Source, model: Codec, asked: float, target_psnr: float | None
) -> tuple[bytes, Report]:
    x = pixels_to_code(source)
    if target_psnr is None:
        coded = model.encode(x, asked)
        blob = _pack(source, model, asked, coded)
        return blob, Report(model.id, asked, date_bits=_date_bits(blob, coded))
    found = _search_quality(lambda quality: _try(source, model, x, quality), target_psnr)
    blob = _pack(source, model, found.quality, found.coded)
    reached = found.psnr >= target_psnr - PSNR_TOLERANCE
    return blob, Report(model.id, found.quality, found.psnr, reached, _date_bits(blob, found.coded))


def _date_bits(blob: bytes, coded: Encoded) -> tuple[float, ...] | None:
    """All bits of a chunk shared out among its dates as its encoder counted them."""
    counted = sum(coded.bits)
    return tuple(8 * len(blob) * bits / counted for bits in coded.bits) if counted > 0 else None


def _try(source: Source, model: Codec, x: np.ndarray, quality: float) -> _Try:
    coded = model.encode(x, quality)
    dn_hat = to_dn(model.decode(coded, _shape(source), quality), _header(source, model, quality, coded))
    dn_hat[source.beyond] = source.dn[source.beyond]
    achieved = psnr(source.dn, dn_hat, ~source.masked, source.offset)
    return _Try(quality, min(achieved, _PSNR_CAP), coded)


def _search_quality(try_at: Callable[[float], _Try], target: float) -> _Try:
    """The try whose PSNR is nearest the target, by bisection on real decodes; 100 if none reaches it."""
    tries = [try_at(DEFAULT_QUALITY)]
    if not _near(tries[0], target):
        tries.append(try_at(100.0 if tries[0].psnr < target else 0.0))
    low, high = (tries[0], tries[-1]) if tries[0].psnr < target else (tries[-1], tries[0])
    while len(tries) < PSNR_STEPS and not _near(tries[-1], target) and low.psnr < target < high.psnr:
        tries.append(try_at(_between(low, high, target)))
        low, high = (tries[-1], high) if tries[-1].psnr < target else (low, tries[-1])
    if tries[-1].quality == 100.0:  # it stayed the last one, so even it falls short
        return tries[-1]
    return min(tries, key=lambda one: abs(one.psnr - target))


def _near(one: _Try, target: float) -> bool:
    return abs(one.psnr - target) <= PSNR_TOLERANCE


def _between(low: _Try, high: _Try, target: float) -> float:
    """Where a straight line meets the target, kept off the ends so that the bracket always shrinks."""
    share = min(0.85, max(0.15, (target - low.psnr) / (high.psnr - low.psnr)))
    return round(low.quality + share * (high.quality - low.quality), 2)


def _shape(source: Source) -> tuple[int, int, int, int]:
    t, c, h, w = source.dn.shape
    return t, c, h, w


def _header(source: Source, model: Codec | None, quality: float, coded: Encoded) -> Header:
    return Header(
        codec=model.id if model else LOSSLESS,
        dtype=source.dn.dtype.name,
        shape=_shape(source),
        squeezed=source.squeezed,
        sensor=source.sensor,
        offset=source.offset,
        nodata=source.nodata,
        quality=quality,
        weights_hash=model.weights_hash if model else bytes(8),
        checks=coded.checks,
        budgets=coded.budgets,
    )


def _pack(source: Source, model: Codec, quality: float, coded: Encoded) -> bytes:
    mask = masks.encode_mask(source.masked)
    exceptions = masks.encode_exceptions(source.dn, source.beyond)
    return bitstream.pack(_header(source, model, quality, coded), mask, exceptions, coded.sections)


def _encode_lossless(source: Source) -> bytes:
    mask = masks.encode_mask(source.masked)
    sections = () if source.masked.all() else (lossless.encode_array(fill_holes(source.dn, source.masked)),)
    return bitstream.pack(_header(source, None, 100.0, Encoded(sections, ())), mask, b"", sections)


def _exact_report(target_psnr: float | None) -> Report:
    return Report(LOSSLESS, 100.0) if target_psnr is None else Report(LOSSLESS, 100.0, math.inf, True)


def _is_lossless_worth_trying(dn: np.ndarray, blob: bytes) -> bool:
    small = dn.shape[2] * dn.shape[3] <= _TRY_LOSSLESS_PIXELS
    return small or 8 * len(blob) > _TRY_LOSSLESS_BITS * dn.size


# --- decoding ---


def _decode_stack(chunk: Chunk, budget: int | None) -> np.ndarray:
    header = chunk.header
    mask = masks.decode_mask(chunk.mask, header.shape)
    if chunk.mask and header.nodata is None:
        raise FormatError("chunk: a mask without a nodata value; the data are damaged")
    if chunk.declared == 0:
        dn = _decode_nothing(header, mask)
    elif header.codec == LOSSLESS:
        dn = _decode_lossless(chunk)
    else:
        dn = to_dn(_decode_learned(chunk, budget), header)
    if chunk.exceptions:
        where, values = masks.decode_exceptions(chunk.exceptions, header.shape, header.dtype)
        dn[where] = values
    if chunk.mask:
        dn[mask] = header.nodata
    return dn


def _check_budget(chunk: Chunk, budget: int | None) -> None:
    """What was asked for must be there: fewer sections would be a worse picture without a word."""
    needed = chunk.declared if budget is None else min(budget, chunk.declared)
    if 0 < len(chunk.sections) < needed:  # codecs refuse 0 by themselves
        raise FormatError(
            f"chunk: expected the first {needed} of {chunk.declared} sections, got {len(chunk.sections)} whole "
            "ones; fetch more of it, or ask for a smaller budget"
        )


def _decode_nothing(header: Header, mask: np.ndarray) -> np.ndarray:
    if not mask.all():
        raise FormatError("chunk: no sections, though not all of it is nodata; the data are damaged")
    return np.zeros(header.shape, header.dtype)


def _decode_lossless(chunk: Chunk) -> np.ndarray:
    if chunk.declared != 1 or not chunk.sections:
        raise FormatError(
            f"chunk: expected one lossless section, got {len(chunk.sections)} of {chunk.declared}"
        )
    return lossless.decode_array(chunk.sections[0], chunk.header.shape, chunk.header.dtype)


def _decode_learned(chunk: Chunk, budget: int | None) -> np.ndarray:
    header = chunk.header
    model = registry.get(header.codec)
    if model.weights_hash != header.weights_hash:
        raise WeightsError(
            f"{header.codec}: coded with weights {header.weights_hash.hex()}, installed are "
            f"{model.weights_hash.hex()}; install the weights it was coded with"
        )
    if model.bands != header.shape[1] or len(header.checks) != header.shape[0]:
        raise FormatError(
            f"chunk: {header.shape[1]} bands and {len(header.checks)} checks do not fit {model.id}"
        )
    coded = Encoded(chunk.sections[:budget], header.checks, header.budgets)
    return model.decode(coded, header.shape, header.quality)
