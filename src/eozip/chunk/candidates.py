"""Chunks that might be written, not packed yet: by a network, near-lossless, lossless."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from eozip import bitstream
from eozip.bitstream import Chunk, Header, arrays, lossless, nodata_mask, residual
from eozip.chunk.constraints import Constraint, is_good, largest, psnr_of
from eozip.chunk.options import EncodeOptions
from eozip.chunk.pixels import Source, finished, pixels_to_code, to_dn
from eozip.codecs import skip_mask
from eozip.codecs.base import BudgetedCodec, Codec, Encoded, ScaledCodec, SkippingCodec
from eozip.codecs.registry import LOSSLESS, NEAR_LOSSLESS
from eozip.threads import alone


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


@dataclass(frozen=True, eq=False)
class Candidate:
    """A chunk that might be written.

    Attributes:
        chunk: its parts.
        report: what it is.
        decoded: float32 [T, C, H, W], what the network makes of it; None: nobody has decoded it yet, or there is none.
        pixels: DN [T, C, H, W] as a decoder gives them back; None: nobody has decoded it yet.
    """

    chunk: Chunk
    report: Report
    decoded: np.ndarray | None = None
    pixels: np.ndarray | None = None

    @cached_property
    def size(self) -> int:
        """Bytes of the chunk when it is packed."""
        return bitstream.packed_size(self.chunk)


@dataclass(frozen=True, eq=False)
class EncodeJob:
    """One chunk for one network.

    Attributes:
        model: the codec.
        source: the pixels, those of `cells` left out.
        cells: bool [T, h, w], latent cells that nothing is spent on; None: all are coded.
        budgets: sections of each date, instead of a quality.
    """

    model: Codec
    source: Source
    cells: np.ndarray | None = None
    budgets: tuple[int, ...] = ()

    @cached_property
    def x(self) -> np.ndarray:
        """float32 [T, C, H, W], what the network gets."""
        return pixels_to_code(self.source)

    def encode(self, quality: float) -> Encoded:
        """One pass of the network's encoder, without `cells`."""
        with alone():
            if self.source.groups:
                pairs = list(zip(self.source.factors, self.source.parts(self.x), strict=True))
                return cast(ScaledCodec, self.model).encode_groups(pairs, quality)
            if self.budgets:
                return cast(BudgetedCodec, self.model).encode_budgets(self.x, self.budgets)
            if self.cells is None:
                return self.model.encode(self.x, quality)
            return cast(SkippingCodec, self.model).encode_without(self.x, quality, self.cells)

    def decode(self, chunk: Chunk) -> np.ndarray:
        """One pass of the network's decoder: float32 [T, C, H, W], flat with groups."""
        header = chunk.header
        coded = Encoded(chunk.sections, header.checks, header.budgets, skip=self.cells)
        with alone():
            if header.groups:
                pairs = [(f, g.bands) for f, g in zip(header.factors, header.groups, strict=True)]
                return arrays.flat(cast(ScaledCodec, self.model).decode_groups(coded, header.shape, pairs))
            return self.model.decode(coded, header.shape, header.quality)

    def candidate(self, quality: float) -> Candidate:
        """The network's chunk at a quality, not decoded."""
        coded = self.encode(quality)
        skip = b"" if coded.skip is None else skip_mask.encode_cells(coded.skip)
        header = replace(
            plain_header(self.source, self.model.id),
            quality=quality,
            weights_hash=self.model.weights_hash,
            checks=coded.checks,
            budgets=coded.budgets,
            skip=coded.skip is not None,
            scales=isinstance(self.model, ScaledCodec),
        )
        mask = mask_of(self.source)
        exceptions = exceptions_of(self.source, self.source.beyond)
        chunk = Chunk(header, mask, exceptions, coded.sections, skip=skip)
        dropped = 0.0 if self.cells is None else float(self.cells.mean())
        bits = _shared_out(bitstream.packed_size(chunk), coded)
        return Candidate(chunk, Report(self.model.id, quality, date_bits=bits, dropped=dropped))

    def decoded(self, made: Candidate) -> Candidate:
        """The same with what a decoder makes of it."""
        if made.decoded is not None:
            return made
        x_hat = self.decode(made.chunk)
        return replace(made, decoded=x_hat, pixels=finished(to_dn(x_hat, made.chunk.header), self.source))


def job_for(
    model: Codec, source: Source, cells: np.ndarray | None, budgets: tuple[int, ...] = ()
) -> EncodeJob:
    """See `EncodeJob`; without any cell to leave out the codec is asked for an ordinary chunk."""
    if cells is None or not cells.any():
        return EncodeJob(model, source, budgets=budgets)
    return EncodeJob(model, source.without(skip_mask.pixels_of(cells, source.shape[2:])), cells)


def _shared_out(size: int, coded: Encoded) -> tuple[float, ...] | None:
    """All bits of a chunk of `size` bytes, shared out among its dates as its encoder counted them."""
    counted = sum(coded.bits)
    return tuple(8 * size * bits / counted for bits in coded.bits) if counted > 0 else None


def empty(source: Source, model: Codec, options: EncodeOptions) -> Candidate:
    """A chunk of nodata alone, which needs no section of its codec."""
    header = replace(plain_header(source, model.id), quality=options.quality, weights_hash=model.weights_hash)
    chunk = Chunk(header, mask_of(source), b"", ())
    return Candidate(chunk, Report(model.id, options.quality))


def exact(source: Source, options: EncodeOptions) -> Candidate:
    """A lossless chunk."""
    mask, filled = mask_of(source), source.filled(source.dn, source.masked)
    sections = () if source.masked.all() else tuple(map(lossless.encode_array, source.parts(filled)))
    reached = None if options.target_psnr is None else True
    report = Report(LOSSLESS, 100.0, math.inf if options.is_promised else None, reached)
    return Candidate(Chunk(plain_header(source, LOSSLESS), mask, b"", sections), report)


def without_network(source: Source, constraint: Constraint, options: EncodeOptions) -> Candidate:
    """A chunk without any network: lossless, or as coarse as the constraint allows if that is smaller."""
    whole = exact(source, options)
    if not constraint or source.masked.all():
        return whole
    near = near_lossless(source, constraint, options)
    return whole if near is None or whole.size <= near.size else near


def near_lossless(source: Source, constraint: Constraint, options: EncodeOptions) -> Candidate | None:
    """The coarsest chunk without any network that keeps a constraint; None if only a lossless one does."""
    filled = source.filled(source.dn, source.masked | source.beyond)

    def pixels(most: int) -> np.ndarray:
        positions = residual.near_positions(filled, most)
        return residual.near_pixels(positions, 2 * most + 1, filled.dtype.name, source.nodata)

    bound = residual.MOST if constraint.max_error is None else min(constraint.max_error, residual.MOST)
    most = largest(lambda e: is_good(source, pixels(e), constraint), bound)
    if most == 0:
        return None
    dn_hat = pixels(most)
    error = np.abs(source.dn.astype(np.int64) - dn_hat)
    apart = source.beyond | (~source.masked & (error > most))  # moved too far off nodata
    sections = tuple(residual.encode_near(part, most) for part in source.parts(filled))
    header = plain_header(source, NEAR_LOSSLESS)
    chunk = Chunk(header, mask_of(source), exceptions_of(source, apart), sections)
    reached = psnr_of(source, dn_hat)
    report = Report(NEAR_LOSSLESS, 100.0, reached, options.is_reached(reached))
    return Candidate(chunk, report)


def plain_header(source: Source, codec: str) -> Header:
    """Header of a chunk without a network."""
    return Header(
        codec=codec,
        dtype=source.dn.dtype.name,
        shape=source.shape,
        squeezed=source.squeezed,
        sensor=source.sensor,
        offset=source.offset,
        nodata=source.nodata,
        quality=100.0,
        groups=source.groups,
        names=source.names,
    )


def mask_of(source: Source) -> bytes:
    """The coded nodata mask."""
    return arrays.joined([nodata_mask.encode_mask(part) for part in source.parts(source.masked)])


def exceptions_of(source: Source, where: np.ndarray) -> bytes:
    """Samples that are coded exactly: bool like the source's `dn`."""
    pairs = zip(source.parts(source.dn), source.parts(where), strict=True)
    return arrays.joined([nodata_mask.encode_exceptions(dn, there) for dn, there in pairs])
