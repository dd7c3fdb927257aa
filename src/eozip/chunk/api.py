"""numpy in, bytes out, numpy back: what every codec shares.

`encode` checks the pixels, takes nodata and out-of-range values out (they are coded exactly), has the codec
code the rest, and packs one chunk; `decode` goes back. No torch is imported here; codecs load on first use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eozip import bitstream
from eozip.arguments import real
from eozip.bitstream import Header
from eozip.chunk.candidates import Report
from eozip.chunk.decoding import check_budget, check_samples, decode_stack
from eozip.chunk.encoding import default_codec, encode_chunk
from eozip.codecs import skip_mask
from eozip.codecs.base import Codec
from eozip.errors import InputError

__all__ = [
    "Info",
    "Report",
    "check",
    "decode",
    "default_codec",
    "dropped",
    "encode",
    "encode_report",
    "inspect",
]


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
    asked = {"target_psnr": target_psnr, "max_error": max_error, "drop": drop, "budgets": budgets}
    facts = {"nodata": nodata, "sensor": sensor, "offset": offset}
    made = encode_chunk(dn, codec, quality, **asked, **facts)  # type: ignore[arg-type]
    return made.blob, made.report


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
