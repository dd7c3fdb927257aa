"""Chunks that might be written, not packed yet: by a network, near-lossless, lossless.

`held` adds the residual layer that makes a network's chunk keep a constraint; `quality_for` searches, on real decodes, the
quality that reaches a PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from eozip import bitstream
from eozip.bitstream import Chunk, Header, arrays, nodata_mask, residual
from eozip.chunk.options import DEFAULT_QUALITY, SLACK, Constraint, Goal, is_good, largest, psnr_of, too_far
from eozip.chunk.pixels import Source, finished, pixels_to_code, to_dn
from eozip.chunk.sizes import largest_of_size
from eozip.codecs import level_map, lossless, skip_mask
from eozip.codecs.base import (
    BudgetedCodec,
    Codec,
    Encoded,
    ScaledBudgetedCodec,
    ScaledCodec,
    SkippingCodec,
)
from eozip.codecs.registry import LOSSLESS, NEAR_LOSSLESS
from eozip.errors import InputError
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
        levels: whether some cells are coded more coarsely than others.
    """

    codec: str
    quality: float
    psnr: float | None = None
    reached: bool | None = None
    date_bits: tuple[float, ...] | None = None
    residual: int = 0
    dropped: float = 0.0
    levels: bool = False


@dataclass(frozen=True, eq=False)
class Candidate:
    """A chunk that might be written.

    Attributes:
        chunk: its parts.
        report: what it is.
        decoded: float32 [T, C, H, W], what the network makes of it; None: nobody has decoded it yet, or there is none.
        pixels: DN [T, C, H, W] as a decoder gives them back; None: nobody has decoded it yet.
        known: gives the arrays of `decoded` where the encoder knows them.
    """

    chunk: Chunk
    report: Report
    decoded: np.ndarray | None = None
    pixels: np.ndarray | None = None
    known: Callable[[], list[np.ndarray]] | None = None

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
        levels: uint8 [T, h, w], how much more coarsely cells are coded (`eozip.codecs.level_map`); None: all alike.
    """

    model: Codec
    source: Source
    cells: np.ndarray | None = None
    budgets: tuple[int, ...] = ()
    levels: np.ndarray | None = None

    @cached_property
    def x(self) -> np.ndarray:
        """float32 [T, C, H, W], what the network gets."""
        return pixels_to_code(self.source)

    def encode(self, quality: float) -> Encoded:
        """One pass of the network's encoder, without `cells`."""
        with alone():
            if self.source.groups:
                pairs = list(zip(self.source.factors, self.source.parts(self.x), strict=True))
                needless = self.source.parts(self.source.masked) if self.source.masked.any() else None
                return cast(ScaledCodec, self.model).encode_groups(pairs, quality, needless, self.levels)
            if isinstance(self.model, ScaledCodec):
                holes = self.source.masked if self.source.masked.any() else None
                if self.budgets:
                    model = cast(ScaledBudgetedCodec, self.model)
                    return model.encode_budgets(self.x, self.budgets, holes, self.levels)
                if self.cells is None:
                    return self.model.encode(self.x, quality, holes, self.levels)
                return self.model.encode_without(self.x, quality, self.cells, holes, self.levels)
            if self.budgets:
                return cast(BudgetedCodec, self.model).encode_budgets(self.x, self.budgets)
            if self.cells is None:
                return self.model.encode(self.x, quality)
            return cast(SkippingCodec, self.model).encode_without(self.x, quality, self.cells)

    def decode(self, chunk: Chunk) -> np.ndarray:
        """One pass of the network's decoder: float32 [T, C, H, W], flat with groups."""
        header = chunk.header
        coded = Encoded(chunk.sections, header.checks, header.budgets, skip=self.cells, levels=self.levels)
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
            levels=self.levels is not None,
        )
        mask = mask_of(self.source)
        exceptions = exceptions_of(self.source, self.source.beyond)
        levels = b"" if self.levels is None else level_map.encode_levels(self.levels)
        chunk = Chunk(header, mask, exceptions, coded.sections, skip=skip, levels=levels)
        dropped = 0.0 if self.cells is None else float(self.cells.mean())
        bits = shared_out(bitstream.packed_size(chunk), coded)
        report = Report(
            self.model.id, quality, date_bits=bits, dropped=dropped, levels=self.levels is not None
        )
        return Candidate(chunk, report, known=coded.decoded)

    def decoded(self, made: Candidate) -> Candidate:
        """The same with what a decoder makes of it."""
        if made.decoded is not None:
            return made
        x_hat = self.decode(made.chunk) if made.known is None else arrays.flat(made.known())
        return replace(made, decoded=x_hat, pixels=finished(to_dn(x_hat, made.chunk.header), self.source))


def job_for(
    model: Codec,
    source: Source,
    cells: np.ndarray | None,
    budgets: tuple[int, ...] = (),
    levels: np.ndarray | None = None,
) -> EncodeJob:
    """See `EncodeJob`; without any cell to leave out, or to code more coarsely, the codec is asked for an ordinary chunk."""
    levels = levels if levels is not None and levels.any() else None
    if cells is None or not cells.any():
        return EncodeJob(model, source, budgets=budgets, levels=levels)
    dropped = skip_mask.pixels_of(cells, source.shape[2:])
    return EncodeJob(model, source.without(dropped), cells, levels=levels)


def shared_out(size: int, coded: Encoded) -> tuple[float, ...] | None:
    """All bits of a chunk of `size` bytes, shared out among its dates as its encoder counted them."""
    counted = sum(coded.bits)
    return tuple(8 * size * bits / counted for bits in coded.bits) if counted > 0 else None


def empty(source: Source, model: Codec, goal: Goal) -> Candidate:
    """A chunk of nodata alone, which needs no section of its codec."""
    header = replace(plain_header(source, model.id), quality=goal.quality, weights_hash=model.weights_hash)
    chunk = Chunk(header, mask_of(source), b"", ())
    return Candidate(chunk, Report(model.id, goal.quality))


def exact(source: Source, goal: Goal) -> Candidate:
    """A lossless chunk."""
    mask, filled = mask_of(source), source.filled(source.dn, source.masked)
    pairs = zip(source.parts(filled), source.parts(source.masked), strict=True)
    sections = () if source.masked.all() else tuple(lossless.encode_array(dn, holes) for dn, holes in pairs)
    reached = None if goal.target_psnr is None else True
    report = Report(LOSSLESS, 100.0, math.inf if goal.is_promised else None, reached)
    return Candidate(Chunk(plain_header(source, LOSSLESS), mask, b"", sections), report)


def without_network(source: Source, constraint: Constraint, goal: Goal) -> Candidate:
    """A chunk without any network: lossless, or as coarse as the constraint allows if that is smaller."""
    whole = exact(source, goal)
    if not constraint or source.masked.all():
        return whole
    near = near_lossless(source, constraint, goal)
    return whole if near is None or whole.size <= near.size else near


def near_lossless(source: Source, constraint: Constraint, goal: Goal) -> Candidate | None:
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
    report = Report(NEAR_LOSSLESS, 100.0, reached, goal.is_reached(reached))
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


def held(source: Source, made: Candidate, goal: Goal) -> Candidate:
    """A network's chunk, with the coarsest residual layer that keeps the constraint if it needs one.

    Args:
        source: the true pixels.
        made: decoded, without a layer.
        goal: with the constraint, which is no largest error of 0: no network's pixels are exact everywhere.
    """
    constraint = goal.constraint
    base = to_dn(
        cast(np.ndarray, made.decoded), replace(made.chunk.header, nodata=None)
    )  # nothing is moved off nodata yet
    source = replace(source, dn=np.where(source.left_out, base, source.dn))  # nothing to correct there
    plain = residual.corrected(base, np.zeros(base.shape, np.int16), 1, base.dtype.name, source.nodata)
    if is_good(source, plain, constraint) and not too_far(source, base, constraint).any():
        return _told(made, psnr_of(source, plain), goal)
    return _layered(source, made, np.where(source.masked | source.beyond, source.dn, base), goal)


def _told(made: Candidate, psnr: float, goal: Goal) -> Candidate:
    return replace(made, report=replace(made.report, psnr=psnr, reached=goal.is_reached(psnr)))


def _layered(source: Source, made: Candidate, base: np.ndarray, goal: Goal) -> Candidate:
    """Where pixels are coded exactly anyway, `base` holds the true ones: nothing to correct."""

    def pixels(most: int) -> np.ndarray:
        steps = residual.corrections(source.dn, base, most)
        return residual.corrected(base, steps, 2 * most + 1, base.dtype.name, source.nodata)

    constraint = goal.constraint
    most = largest(lambda e: is_good(source, pixels(e), constraint), _coarsest(constraint))
    steps, step = residual.corrections(source.dn, base, most), 2 * most + 1
    values = base + steps.astype(np.int64) * step
    # more than int16 can correct, or moved too far off nodata: exact instead
    apart = source.beyond | too_far(source, values, constraint) | (np.abs(source.dn - values) > most)
    chunk = replace(
        made.chunk,
        header=replace(made.chunk.header, residual=True),
        exceptions=exceptions_of(source, apart & ~source.masked),
        residual=arrays.joined([residual.encode_layer(part, step) for part in source.parts(steps)]),
    )
    dn_hat = np.where(apart, source.dn, pixels(most))
    report = replace(made.report, residual=len(chunk.residual))
    layered = Candidate(chunk, report, made.decoded, finished(dn_hat, source))
    return _told(layered, psnr_of(source, dn_hat), goal)


def _coarsest(constraint: Constraint) -> int:
    return residual.MOST if constraint.max_error is None else min(constraint.max_error - SLACK, residual.MOST)


TOLERANCE = 0.15  # dB above a target that a search is content with; it never falls short
STEPS = 8
CAP = 200.0  # dB; what an exact reconstruction counts as


@dataclass(frozen=True, eq=False)
class Trial:
    """One quality tried: the PSNR in dB that it reached, at most `CAP`, and the decoded chunk."""

    quality: float
    psnr: float
    made: Candidate


def quality_for(target: float, try_at: Callable[[float], Trial], start: float) -> Trial:
    """The trial that reaches the target with the least to spare; the one at the highest quality if none does.

    Only the best so far is kept: decoded pixels of a large chunk are large.

    Args:
        target: dB.
        try_at: quality 0..100, in hundredths -> what came of it.
        start: the quality tried first.
    """
    best = trial = try_at(start)
    tried = [(trial.quality, trial.psnr)]

    def attempt(quality: float) -> None:
        nonlocal best
        trial = try_at(quality)
        tried.append((trial.quality, trial.psnr))
        best = _better(best, trial, target)

    if not _near(tried[0], target):
        attempt(100.0 if trial.psnr < target else 0.0)
    low, high = (tried[0], tried[-1]) if tried[0][1] < target else (tried[-1], tried[0])
    while len(tried) < STEPS and not _near(tried[-1], target) and low[1] < target < high[1]:
        attempt(_between(low, high, target))
        low, high = (tried[-1], high) if tried[-1][1] < target else (low, tried[-1])
    return best


def _better(a: Trial, b: Trial, target: float) -> Trial:
    reached = [one for one in (a, b) if one.psnr >= target]
    if reached:
        return min(reached, key=lambda one: one.psnr)
    return max(a, b, key=lambda one: one.quality)


def _near(tried: tuple[float, float], target: float) -> bool:
    return target <= tried[1] <= target + TOLERANCE


def _between(low: tuple[float, float], high: tuple[float, float], target: float) -> float:
    """Where a straight line meets the middle of what is near, kept off the ends so that the bracket always shrinks."""
    share = min(0.85, max(0.15, (target + TOLERANCE / 2 - low[1]) / (high[1] - low[1])))
    return round(low[0] + share * (high[0] - low[0]), 2)


def candidate_of_size(target: int, try_at: Callable[[float], Candidate]) -> Candidate:
    """The candidate of at most so many bytes, and hardly fewer (see `largest_of_size`).

    Args:
        target: bytes.
        try_at: quality 0..100, in hundredths -> the chunk.

    Raises:
        InputError: even the lowest quality is larger.
    """
    made = largest_of_size(target, try_at, DEFAULT_QUALITY).made
    if made.size > target:
        raise InputError(f"target_size: expected at least {made.size} bytes for these pixels, got {target}")
    return made
