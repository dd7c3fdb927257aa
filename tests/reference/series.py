"""Symbols of a tec-tt-small chunk after section 3.4 of docs/exact.md, without torch. Units and axes: `reference.small`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from eozip.bitstream import Chunk, frame_check, nodata_mask
from eozip.entropy.range_coder import DecodePort
from reference.model import (
    FINE,
    NARROW_BITS,
    PLACE,
    SETTLE,
    WEIGHT_BITS,
    Model,
    settled,
    settled_fine,
    squash,
)
from reference.small import (
    CROSS,
    RING,
    SQUARE,
    ZEROS,
    Decoded,
    Reader,
    Step,
    compare,
    latent_shape,
    latents,
    pass_fits,
    pass_grids,
    passes,
    seen_at,
)

PAST = 12
RANKS = 8
NEAR_BITS, WINDOW_BITS = 2, 6  # sums of neighbours count a quarter, sums of the window a 64th
REACH = 4  # of the window, each way


class Reads(Protocol):
    """What gives the values of one date's steps, as `reference.small.Reader` does."""

    m: Model

    def values(self, mean: np.ndarray, log_scale: np.ndarray, step: Step | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class DateReader:
    """One date's `Reads`: what space says, refined by the dates before.

    Attributes:
        own: takes symbols.
        past: innovations (place) of the dates before, oldest first, [D, h, w, M].
        now: those of this date, [h, w, M]; filled in.
        groups: so many are coded; the latents of the others are the means that space says.
    """

    own: Reads
    past: np.ndarray
    now: np.ndarray
    groups: int

    @property
    def m(self) -> Model:
        return self.own.m

    def values(self, mean: np.ndarray, log_scale: np.ndarray, step: Step | None = None) -> np.ndarray:
        if step is None:
            return self.own.values(mean, log_scale)
        if step.group >= self.groups:
            return mean
        other = (mean, log_scale) if not len(self.past) else self.foreseen(mean, log_scale, step)
        value = self.own.values(*other, step)
        self.now[step.cells, step.first : step.first + mean.shape[2]] = (value - mean)[0]
        return value

    def foreseen(self, mean: np.ndarray, log_scale: np.ndarray, step: Step) -> tuple[np.ndarray, np.ndarray]:
        """Mean (place) and log scale (fine) with what the past tells, [1, n, K]."""
        m, part = self.m, f"time.{step.group}"
        own = self.past[:, step.cells, step.first : step.first + mean.shape[2]]
        shown = SETTLE.of(log_scale, FINE.bits)
        features = self.features(step, own, shown)
        guess, spread = weighted(SETTLE.of(line(m, f"{part}.score", features), NARROW_BITS), own)
        v = [pooled(m, part, features), squash(m, guess), squash(m, spread), shown]
        v = settled(line(m, f"{part}.merge", np.concatenate(v, 2)))
        shift, scale = (
            FINE.of(part, NARROW_BITS) for part in np.split(line(m, f"{part}.leave", v), 2, axis=2)
        )
        widened = (mean + guess) << (FINE.bits - PLACE.bits)
        return PLACE.of(widened + shift, FINE.bits), FINE.of(log_scale + scale, FINE.bits)

    def features(self, step: Step, own: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Of every past date, activations [D, n, K']."""
        m, part, dates = self.m, f"time.{step.group}", len(self.past)
        back = np.minimum(np.arange(dates, 0, -1), RANKS) - 1
        bias = m.bias_at_level(f"{part}.level", step.number)
        bias = bias + FINE.of(m.weight(f"{part}.rank")[back], WEIGHT_BITS)[:, None]
        repeated = np.broadcast_to(shown, (dates, *shown.shape[1:]))
        v = [squash(m, own), self.around(step, own.shape[2]), self.before(step), repeated]
        v = FINE.of(line(m, f"{part}.enter", np.concatenate(v, 2)), NARROW_BITS) + bias
        return settled(line(m, f"{part}.middle", settled_fine(v)))

    def around(self, step: Step, size: int) -> np.ndarray:
        """Agreement of the group's own channels over known cells, activations [D, n, 6 K]."""
        if step.number == 0:
            return np.zeros((len(self.past), step.cells.sum(), 6 * size), np.int64)
        known = known_cells(step)
        maps = self.agreement(step.first, step.first + size) * known[:, :, None]
        return sums(maps, CROSS if step.group else RING)[:, step.cells]

    def before(self, step: Step) -> np.ndarray:
        """Agreement of all earlier channels, activations [D, n, 6 before]."""
        return sums(self.agreement(0, step.first), ((0, 0), *SQUARE[:4], *SQUARE[5:]))[:, step.cells]

    def agreement(self, first: int, stop: int) -> np.ndarray:
        """Of every cell, activations: |now - past|, |now|, |past|, squashed; [D, h, w, 3 * channels]."""
        now, past = self.now[None, :, :, first:stop], self.past[..., first:stop]
        apart = squash(self.m, np.abs(PLACE.of(now - past, PLACE.bits)))
        loud = np.broadcast_to(squash(self.m, np.abs(now)), apart.shape)
        return np.concatenate([apart, loud, squash(self.m, np.abs(past))], 3)


def line(m: Model, layer: str, v: np.ndarray) -> np.ndarray:
    """A layer with bias on activations: a narrow sum."""
    return v @ m.weight(f"{layer}.weight").T + (m.weight(f"{layer}.bias") << SETTLE.bits)


def known_cells(step: Step) -> np.ndarray:
    """Which cells of the group earlier steps have coded, bool [h, w]."""
    if step.group:
        return ~step.cells
    return np.logical_or.reduce(passes(*step.cells.shape)[: step.number])


def sums(maps: np.ndarray, taps: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Over some neighbours and over the window, zeros outside the grid: activations [D, h, w, 2 * channels]."""
    near = sum(seen_at(maps, tap, ZEROS) for tap in taps)
    h, w = maps.shape[1:3]
    padded = np.pad(maps, ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)))
    over_rows = sum(padded[:, i : i + h] for i in range(2 * REACH + 1))
    wide = sum(over_rows[:, :, j : j + w] for j in range(2 * REACH + 1))
    found = SETTLE.of(near, SETTLE.bits + NEAR_BITS), SETTLE.of(wide, SETTLE.bits + WINDOW_BITS)
    return np.concatenate(found, 3)


def weighted(score: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (activations) and innovations (place) [D, n, K] -> guess and spread (place) [1, n, K]."""
    one = 1 << SETTLE.bits
    weight = quotient(score << FINE.bits, one + np.abs(score).sum(0))  # fine
    guess = PLACE.of((weight * own).sum(0, keepdims=True), FINE.bits + PLACE.bits)
    spread = np.abs(weight * (own - guess)).sum(0, keepdims=True)
    return guess, PLACE.of(spread, FINE.bits + PLACE.bits)


def pooled(m: Model, part: str, features: np.ndarray) -> np.ndarray:
    """Mean of the dates' features by attention, activations [1, n, K']."""
    weight = settled(line(m, f"{part}.attend", features))
    found = quotient((weight * features).sum(0, keepdims=True), weight.sum(0, keepdims=True) + 1)
    return SETTLE.of(found, SETTLE.bits)


def quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below rounded to an integer, ties to even; integers, below > 0."""
    whole, rest = np.divmod(above, below)
    return whole + ((2 * rest > below) | ((2 * rest == below) & (whole & 1 == 1)))


# --- Chunks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A `Reads` for one date of which some cells may have been left out.

    Attributes:
        read: takes the symbols of the others.
        dropped: bool [h, w]; None: nothing was left out.
    """

    read: Reader
    dropped: np.ndarray | None

    @property
    def m(self) -> Model:
        return self.read.m

    def values(self, mean: np.ndarray, log_scale: np.ndarray, step: Step | None = None) -> np.ndarray:
        if step is None or self.dropped is None:
            return self.read.values(mean, log_scale, step)
        kept, value = ~self.dropped[step.cells], mean.copy()
        value[:, kept] = self.read.values(mean[:, kept], log_scale[:, kept], step)
        return value


@dataclass(frozen=True)
class Past:
    """Innovations of the dates coded so far."""

    dates: list[np.ndarray] = field(default_factory=list)

    def latents(self, own: Reads, size: tuple[int, int], groups: int | None = None) -> np.ndarray:
        """The next date's y_hat, [h, w, M]."""
        channels = own.m.network["groups"]
        now = np.zeros((*size, sum(channels)), np.int64)
        past = np.array(self.dates[-PAST:]).reshape(-1, *now.shape)
        value = latents(DateReader(own, past, now, groups or len(channels)), (1, *size))
        self.dates.append(now)
        return value[0]


def decode(m: Model, chunk: Chunk) -> list[Decoded]:
    """Every date of a chunk, checked against its check values; the dates may have different numbers of symbols.

    Raises:
        ValueError: the check of a date differs, or (eozip.errors.FormatError) bytes that no encoder writes.
    """
    port = DecodePort(chunk.sections[0])
    dates = list(decoded_dates(m, port, chunk))
    compare(chunk, tuple(frame_check(date.symbols[0]) for date in dates))
    pass_grids(m, port, chunk)
    pass_fits(m, port, chunk)
    port.finish()
    return dates


def decoded_dates(m: Model, port: DecodePort, chunk: Chunk) -> Iterator[Decoded]:
    frames, *size = latent_shape(chunk)
    dropped, past = dropped_cells(chunk), Past()
    for k in range(frames):
        read = Reader(m, port)
        y_hat = past.latents(Kept(read, None if dropped is None else dropped[k]), size)
        yield Decoded(np.concatenate(read.steps, 1), y_hat.transpose(2, 0, 1)[None])


def dropped_cells(chunk: Chunk) -> np.ndarray | None:
    """bool [T, h, w]; cells of padding are as the last row and column."""
    if not chunk.header.skip:
        return None
    frames, h, w = latent_shape(chunk)
    rows, columns = (-(-n // 8) for n in chunk.header.shape[2:])
    flags = nodata_mask.decode_mask(chunk.skip, (frames, 1, rows, columns))[:, 0]
    return np.pad(flags, ((0, 0), (0, h - rows), (0, w - columns)), mode="edge")
