"""One chunk by a codec's network: encoded, its quality searched for, packed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from eozip import bitstream
from eozip.bitstream import Header, nodata_mask
from eozip.chunk.pixels import Source, pixels_to_code, psnr, to_dn
from eozip.chunk.quality_search import CAP, Try, quality_for
from eozip.codecs import skip_mask
from eozip.codecs.base import BudgetedCodec, Codec, Encoded, SkippingCodec
from eozip.threads import alone

DEFAULT_QUALITY = 60.0


@dataclass(frozen=True)
class Report:
    """What `encode_report` did.

    Attributes:
        codec: id in the stream (``lossless`` or ``near-lossless`` where that was smaller, or the network's
            pixels were not good enough).
        quality: quality used, 0..100; 100 without a network.
        psnr: dB over the valid pixels, infinite if exact; None unless something was promised: a target, a
            largest error, or quality 100.
        reached: whether the target was reached; None without a target.
        date_bits: estimated bits of each date: those of the chunk, shared out by what the codec's encoder
            counted; None where it cannot tell.
        residual: bytes of the residual layer, without which the promise would not hold; 0 if there is none.
        dropped: share of the latent cells (8 x 8 pixels of one date) that nothing was spent on: their pixels are
            forecast, and neither `psnr` nor `reached` counts them.
    """

    codec: str
    quality: float
    psnr: float | None = None
    reached: bool | None = None
    date_bits: tuple[float, ...] | None = None
    residual: int = 0
    dropped: float = 0.0


@dataclass(frozen=True)
class Work:
    """One chunk for one codec.

    Attributes:
        model: the codec.
        source: its pixels, those of `cells` left out.
        cells: bool [T, h, w], cells that nothing is spent on; None: all are coded.
        budgets: sections of each date, instead of a quality.
    """

    model: Codec
    source: Source
    cells: np.ndarray | None = None
    budgets: tuple[int, ...] = ()

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """As the codec's own, without `cells`."""
        with alone():
            if self.budgets:
                return cast(BudgetedCodec, self.model).encode_budgets(x, self.budgets)
            if self.cells is None:
                return self.model.encode(x, quality)
            return cast(SkippingCodec, self.model).encode_without(x, quality, self.cells)

    @property
    def dropped(self) -> float:
        """Share of cells."""
        return 0.0 if self.cells is None else float(self.cells.mean())


def work_on(model: Codec, source: Source, cells: np.ndarray | None) -> Work:
    """See `Work`; without any cell to leave out the codec is asked for an ordinary chunk."""
    if cells is None or not cells.any():
        return Work(model, source)
    return Work(model, source.without(skip_mask.pixels_of(cells, shape_of(source)[2:])), cells)


def encode_learned(work: Work, asked: float, target_psnr: float | None) -> tuple[bytes, Report]:
    """A chunk at the quality asked for, or at the one found for a target; nothing is promised yet."""
    model, source, x = work.model, work.source, pixels_to_code(work.source)
    if target_psnr is None:
        coded = work.encode(x, asked)
        blob = pack(source, model, asked, coded)
        return blob, Report(model.id, asked, date_bits=_date_bits(blob, coded), dropped=work.dropped)
    found = quality_for(target_psnr, lambda quality: _try(work, x, quality), DEFAULT_QUALITY)
    blob = pack(source, model, found.quality, found.coded)
    report = Report(model.id, found.quality, found.psnr, found.psnr >= target_psnr)
    return blob, replace(report, date_bits=_date_bits(blob, found.coded), dropped=work.dropped)


def _date_bits(blob: bytes, coded: Encoded) -> tuple[float, ...] | None:
    """All bits of a chunk shared out among its dates as its encoder counted them."""
    counted = sum(coded.bits)
    return tuple(8 * len(blob) * bits / counted for bits in coded.bits) if counted > 0 else None


def _try(work: Work, x: np.ndarray, quality: float) -> Try:
    model, source, coded = work.model, work.source, work.encode(x, quality)
    with alone():
        x_hat = model.decode(coded, shape_of(source), quality)
    dn_hat = to_dn(x_hat, _header(source, model, quality, coded))
    dn_hat[source.beyond] = source.dn[source.beyond]
    achieved = psnr(source.dn, dn_hat, source.counted, source.offset)
    return Try(quality, min(achieved, CAP), coded)


def shape_of(source: Source) -> tuple[int, int, int, int]:
    """T, C, H, W."""
    t, c, h, w = source.dn.shape
    return t, c, h, w


def _header(source: Source, model: Codec, quality: float, coded: Encoded) -> Header:
    return Header(
        codec=model.id,
        dtype=source.dn.dtype.name,
        shape=shape_of(source),
        squeezed=source.squeezed,
        sensor=source.sensor,
        offset=source.offset,
        nodata=source.nodata,
        quality=quality,
        weights_hash=model.weights_hash,
        checks=coded.checks,
        budgets=coded.budgets,
        skip=coded.skip is not None,
    )


def pack(source: Source, model: Codec, quality: float, coded: Encoded) -> bytes:
    """The chunk's bytes."""
    mask = nodata_mask.encode_mask(source.masked)
    exceptions = nodata_mask.encode_exceptions(source.dn, source.beyond)
    skip = b"" if coded.skip is None else skip_mask.encode_cells(coded.skip)
    return bitstream.pack(_header(source, model, quality, coded), mask, exceptions, coded.sections, skip=skip)
