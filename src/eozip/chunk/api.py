"""numpy in, bytes out, numpy back: what every codec shares.

`encode` checks the pixels, takes nodata and out-of-range values out (they are coded exactly), has the codec
code the rest, and packs one chunk; `decode` goes back. No torch is imported here; codecs load on first use.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eozip import bitstream
from eozip.bitstream import Header
from eozip.chunk import constraints
from eozip.chunk.constraints import Kept, Promise
from eozip.chunk.decoding import check_budget, check_samples, decode_stack, rounded
from eozip.chunk.encoding import DEFAULT_QUALITY, Report, Work, encode_learned, pack, shape_of, work_on
from eozip.chunk.pixels import Source, checked_source, real
from eozip.codecs import registry, skip_mask
from eozip.codecs.base import Codec, Encoded
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError

DEFAULT_CODEC = "tec-elic-small"
DEFAULT_TEMPORAL_CODEC = "tec-tt-small"
DEFAULT_SENSOR = "s2-l2a"
FLOOR_PSNR = 46.0  # dB that quality 100 reaches on any pixels

# Beyond this rate, or on frames this small, lossless coding may be smaller and is tried.
_TRY_LOSSLESS_BITS = 4.0
_TRY_LOSSLESS_PIXELS = 64
# Under a bound on the error alone, which quality below the residual layer comes out smallest depends on both.
_BASES = (60.0, 80.0, 100.0)


@dataclass(frozen=True)
class Info:
    """What a chunk says about itself.

    Attributes:
        header: shape, dtype, codec, quality and the rest.
        bytes: size of the chunk.
        bpppb: bits per pixel per band, all bytes counted, of the unpadded input.
        sections: bytes of each section, in order.
        residual: bytes of the residual layer (the last section); 0 if there is none.
    """

    header: Header
    bytes: int
    bpppb: float
    sections: tuple[int, ...]
    residual: int = 0


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
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    max_error: int | None = None,
    nodata: int | None = None,
    sensor: str | None = None,
    offset: int = 0,
    drop: np.ndarray | None = None,
    budgets: int | Sequence[int] | None = None,
) -> bytes:
    """Codes one chunk.

    Args:
        dn: uint16 or int16 [T, C, H, W] or [C, H, W], digital numbers.
        codec: full id or short name, or ``lossless``; a path of weights, a published "owner/name@lambda-40", or a codec
            that `eozip.load` gave; None: see `default_codec`.
        quality: 0..100, rounded to hundredths; 60 if neither it nor ``target_psnr`` is given. 100 reaches
            46 dB whatever the pixels: where the network does not, a residual layer is added, or the chunk
            coded without a network.
        target_psnr: dB (see `psnr`); the quality is searched for; where the codec falls short, 100 is used,
            and what is missing is added as for quality 100.
        max_error: largest absolute error of any pixel, in DN, on every machine; in addition to ``quality`` or
            ``target_psnr``, or alone: then whatever is smallest. 0 is lossless.
        nodata: value of pixels without data; they come back exactly, and no other pixel gets that value.
        sensor: sensor id; a short codec name means the codec for this sensor. None: the codec's own, s2-l2a for short
            names.
        offset: radiometric offset contained in ``dn``: 1000 for Sentinel-2 baseline 04.00 and later.
        drop: bool [T, H, W] ([H, W] with [C, H, W] pixels), such as a mask of clouds: nothing is spent on latent
            cells (8 x 8 pixels) of which every pixel is set; they come back as what the network expects there from
            earlier dates and their surroundings. Cells with a clear pixel are coded as always. No promise and no PSNR
            counts what was dropped; `dropped` says which pixels that are. Where a chunk is smaller without a network
            (large errors forbidden), all of it is coded and nothing dropped.
        budgets: of codecs whose streams are sections of rising detail (flextec, where a section is a token): how many to
            send, for every date alike or for each of them, instead of ``quality``. 0 is for dates after the first,
            which are then forecast.

    Returns:
        One chunk.

    Raises:
        InputError: pixels or arguments that cannot be coded.
        UnknownCodecError: no such codec.
        WeightsError: its weights are missing or damaged.
    """
    asked = {"target_psnr": target_psnr, "max_error": max_error, "drop": drop, "budgets": budgets}
    facts = {"nodata": nodata, "sensor": sensor, "offset": offset}
    return encode_report(dn, codec, quality, **asked, **facts)[0]  # type: ignore[arg-type]


def encode_report(
    dn: np.ndarray,
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    max_error: int | None = None,
    nodata: int | None = None,
    sensor: str | None = None,
    offset: int = 0,
    drop: np.ndarray | None = None,
    budgets: int | Sequence[int] | None = None,
) -> tuple[bytes, Report]:
    """As `encode`, and says which quality was used, whether the target was reached, and what that took."""
    asked = _asked_quality(quality, target_psnr)
    promise = _promise(quality, target_psnr, constraints.checked_error(max_error))
    _check_names(codec, sensor)
    asked_for = sensor or DEFAULT_SENSOR
    source = checked_source(dn, nodata, offset, asked_for)
    problem = bitstream.samples_problem(source.dn.shape)
    if problem:
        raise InputError(f"dn: {problem}; use smaller chunks")
    full_id = (
        default_codec(len(source.dn), asked_for) if codec is None else registry.resolve(codec, asked_for)
    )
    sent: tuple[int, ...] = ()
    if budgets is not None:
        _check_alone({"quality": quality, "target_psnr": target_psnr, "drop": drop})
        sent = _checked_budgets(budgets, full_id, len(source.dn))
    if drop is not None:
        check_droppable(full_id)
        drop = skip_mask.checked_drop(drop, shape_of(source), source.squeezed)
    if full_id == LOSSLESS:
        # a target alone is kept by exact coding; beside a bound on the error it limits how coarse that may be
        target = None if target_psnr is None or max_error is None else promise.min_psnr
        return _encode_exactly(source, Promise(promise.max_error, target), target_psnr)
    model = registry.get(full_id)
    source = replace(source, sensor=sensor or model.sensor)
    _check_bands(model, source)
    if source.masked.all():
        return pack(source, model, asked, Encoded((), ())), Report(full_id, asked)
    cells = None if drop is None else skip_mask.droppable(drop, source.masked)
    is_free = promise.max_error is not None and quality is None and target_psnr is None and budgets is None
    work = work_on(model, source, cells) if budgets is None else Work(model, source, budgets=sent)
    made = [encode_learned(work, q, target_psnr) for q in (_BASES if is_free else (asked,))]
    if promise:
        made = _keeping(work, source, promise, made, target_psnr)
    blob, report = min(made, key=lambda one: len(one[0]))
    if _is_lossless_worth_trying(source.dn, blob):
        exact = constraints.exact(source)
        if len(exact) <= len(blob):
            return exact, _exact_report(promise, target_psnr)
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
    if budget is not None and not (real("budget", budget) >= 1 and budget == int(budget)):
        raise InputError(f"budget: expected at least 1 section, got {budget}")
    chunk = bitstream.unpack(_bytes(blob), allow_truncated=budget is not None)
    check_budget(chunk, budget)
    dn = decode_stack(chunk, budget)
    return dn[0] if chunk.header.squeezed else dn


def inspect(blob: bytes) -> Info:
    """Reads the header of a chunk; needs no codec and no weights.

    Raises:
        FormatError: not a chunk, or a damaged header.
    """
    header, sections = bitstream.read_header(_bytes(blob))
    layer = sections[-1] if header.residual else 0
    return Info(header, len(blob), 8.0 * len(blob) / math.prod(header.shape), sections, layer)


def check(blob: bytes) -> Info:
    """Checks every checksum of a chunk; needs no codec and no weights.

    Raises:
        FormatError: not a chunk, damaged or truncated.
    """
    bitstream.unpack(_bytes(blob))
    return inspect(blob)


def dropped(blob: bytes) -> np.ndarray:
    """Which pixels of a chunk nothing was spent on: they are forecast (see `encode`); needs no network.

    Args:
        blob: the bytes of `encode`.

    Returns:
        bool [T, H, W], or [H, W] where [C, H, W] was encoded; False where all bands are nodata.

    Raises:
        FormatError: not a chunk, damaged or cut.
    """
    chunk = bitstream.unpack(_bytes(blob))
    check_samples(chunk.header)
    pixels = skip_mask.dropped_pixels(chunk)
    return pixels[0] if chunk.header.squeezed else pixels


# --- checking the input ---


def _bytes(blob: object) -> bytes:
    """A chunk as a caller gave it.

    Raises:
        InputError: it is no bytes; a path, say.
    """
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise InputError(
            f"expected the bytes of a chunk, got {type(blob).__name__}; read the file first, or decode a store with "
            "eozip.decode_store"
        )
    return bytes(blob)


def _check_names(codec: object, sensor: object) -> None:
    is_codec = codec is None or isinstance(codec, str | Path) or hasattr(codec, "weights_hash")
    if not is_codec:
        raise InputError(f"codec: expected a name, a path or a codec of eozip.load, got {codec!r}")
    if not (sensor is None or isinstance(sensor, str)):
        raise InputError(f"sensor: expected an id such as {DEFAULT_SENSOR}, got {sensor!r}")


def check_droppable(full_id: str) -> None:
    """Refuses codecs that cannot leave cells out.

    Raises:
        InputError: this is one; the message names those that can.
    """
    if full_id == LOSSLESS or not registry.get(full_id).can_skip:
        raise InputError(
            f"drop: codec {full_id} cannot leave cells out, expected one that can, such as {DEFAULT_TEMPORAL_CODEC}; "
            "choose it, or encode without drop"
        )


def _check_alone(others: Mapping[str, object]) -> None:
    asked = [name for name, value in others.items() if value is not None]
    if asked:
        raise InputError(f"give budgets or {', '.join(asked)}, not both")


def _checked_budgets(budgets: int | Sequence[int], full_id: str, dates: int) -> tuple[int, ...]:
    """A budget for each date, as far as it can be said without the codec.

    Raises:
        InputError: no whole numbers, another number of them than of dates, or a codec without budgets.
    """
    try:
        sent = (operator.index(budgets),) * dates if _is_one(budgets) else tuple(map(operator.index, budgets))  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(
            f"budgets: expected a whole number, or one for each date, got {budgets!r}"
        ) from error
    if len(sent) != dates or not all(0 <= k <= 255 for k in sent) or sent[0] < 1:
        raise InputError(
            f"budgets: expected a whole number from 1, or one for each of {dates} dates (0 is for later ones), got "
            f"{list(sent)}"
        )
    check_budgeted(full_id)
    return sent


def check_budgeted(full_id: str) -> None:
    """Refuses codecs whose streams have no sections to choose from.

    Raises:
        InputError: this is one.
    """
    if full_id == LOSSLESS or not hasattr(registry.get(full_id), "encode_budgets"):
        raise InputError(
            f"budgets: the streams of codec {full_id} have none; choose flextec-small or a FlexTEC checkpoint, or give a "
            "quality"
        )


def _is_one(budgets: object) -> bool:
    return not isinstance(budgets, Sequence | np.ndarray)


def _asked_quality(quality: float | None, target_psnr: float | None) -> float:
    if quality is not None and target_psnr is not None:
        raise InputError("give quality or target_psnr, not both")
    if target_psnr is not None and not (math.isfinite(real("target_psnr", target_psnr)) and target_psnr > 0):
        raise InputError(f"target_psnr: expected dB above 0, got {target_psnr}")
    asked = DEFAULT_QUALITY if quality is None else real("quality", quality)
    if not 0 <= asked <= 100:  # also NaN
        raise InputError(f"quality: expected 0..100, got {quality}")
    return round(asked, 2)


def _promise(quality: float | None, target_psnr: float | None, max_error: int | None) -> Promise:
    """What decoded pixels must fulfil, the codec's own working aside."""
    if target_psnr is not None:
        return Promise(max_error, target_psnr)
    return Promise(max_error, FLOOR_PSNR if quality == 100 else None)


def _check_bands(model: Codec, source: Source) -> None:
    bands = source.dn.shape[1]
    if bands != model.bands:
        raise InputError(
            f"dn: codec {model.id} takes {model.bands} bands, got {bands} (shape {source.dn.shape}); "
            f"choose another codec or codec='{LOSSLESS}'"
        )


# --- encoding ---


def _keeping(
    work: Work,
    source: Source,
    promise: Promise,
    made: Sequence[tuple[bytes, Report]],
    target_psnr: float | None,
) -> list[tuple[bytes, Report]]:
    """Chunks with what they need to keep a promise; where that is much, one without a network beside them.

    That one holds every pixel of `source`: without a network there are no forecasts.
    """
    kept = [
        (layered.blob, _kept_report(report, layered, target_psnr))
        for blob, report in made
        if (layered := constraints.layered(work.source, blob, rounded(bitstream.unpack(blob)), promise))
    ]
    if promise.max_error is None and kept and not any(report.residual for _, report in kept):
        return kept
    return [*kept, _encode_exactly(source, promise, target_psnr)]


def _kept_report(report: Report, kept: Kept, target_psnr: float | None) -> Report:
    reached = None if target_psnr is None else kept.psnr >= target_psnr
    return replace(report, psnr=kept.psnr, reached=reached, residual=kept.residual)


def _encode_exactly(source: Source, promise: Promise, target_psnr: float | None) -> tuple[bytes, Report]:
    """A chunk without a network: lossless, or as coarse as the promise allows if that is smaller."""
    exact = constraints.exact(source)
    if not promise or source.masked.all():
        return exact, _exact_report(promise, target_psnr)
    near = constraints.near_lossless(source, promise)
    if len(exact) <= len(near.blob):
        return exact, _exact_report(promise, target_psnr)
    report = Report(bitstream.read_header(near.blob)[0].codec, 100.0)
    return near.blob, _kept_report(report, near, target_psnr)


def _exact_report(promise: Promise, target_psnr: float | None) -> Report:
    is_asked = promise or target_psnr is not None
    return Report(LOSSLESS, 100.0, math.inf if is_asked else None, None if target_psnr is None else True)


def _is_lossless_worth_trying(dn: np.ndarray, blob: bytes) -> bool:
    small = dn.shape[2] * dn.shape[3] <= _TRY_LOSSLESS_PIXELS
    return small or 8 * len(blob) > _TRY_LOSSLESS_BITS * dn.size
