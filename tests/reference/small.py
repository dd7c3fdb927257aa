"""Symbols of a tec-elic-small or tec-fp-small chunk after docs/exact.md, in the order of its section 3, without torch.

Every number is an int64 that counts units of 2**-b; b is said where it is not that of the number's grid. Stored weights
count 2**-20, per-level vectors at a level 2**-32. The one use of floats is the division of group 0. Arrays are [frame, row,
column, channel], or [frame, cell, channel] where some cells are meant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from eozip.bitstream import Chunk, frame_check
from eozip.entropy.range_coder import DecodePort
from reference.model import (
    AT_LEVEL_BITS,
    COARSE,
    FINE,
    NARROW_BITS,
    PLACE,
    SETTLE,
    WIDE_BITS,
    Model,
    log,
    settled,
    settled_fine,
    squash,
    table_row,
)

# --- Sums over cells --------------------------------------------------------------------------------------------------

SQUARE = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
CROSS = ((-1, 0), (0, -1), (0, 1), (1, 0))
RING = tuple((i, j) for i in range(-2, 3) for j in range(-2, 3) if (i, j) != (0, 0))
ZEROS, EDGES = "constant", "edge"  # what lies outside the grid


def seen_at(v: np.ndarray, offset: tuple[int, int], outside: str) -> np.ndarray:
    """v of every cell's neighbour at an offset."""
    (i, j), (h, w) = offset, v.shape[1:3]
    return np.pad(v, ((0, 0), (2, 2), (2, 2), (0, 0)), outside)[:, 2 + i : 2 + i + h, 2 + j : 2 + j + w]


def conv3(
    v: np.ndarray, weight: np.ndarray, outside: str = ZEROS, taps: tuple[tuple[int, int], ...] = SQUARE
) -> np.ndarray:
    """Sums over a 3x3 kernel [K', K, 3, 3], or some taps of it."""
    return sum(seen_at(v, (i, j), outside) @ weight[:, :, i + 1, j + 1].T for i, j in taps)


def dense(m: Model, layer: str, v: np.ndarray) -> np.ndarray:
    """A 1x1 layer with bias on activations: a narrow sum."""
    return v @ m.weight(f"{layer}.weight")[:, :, 0, 0].T + (m.weight(f"{layer}.bias") << SETTLE.bits)


def dense3(m: Model, layer: str, v: np.ndarray) -> np.ndarray:
    """A 3x3 layer with bias on activations: a narrow sum."""
    return conv3(v, m.weight(f"{layer}.weight")) + (m.weight(f"{layer}.bias") << SETTLE.bits)


def shuffle2(v: np.ndarray) -> np.ndarray:
    """Channel 4c + 2i + j of a cell becomes channel c of the cell (2 row + i, 2 column + j)."""
    b, h, w, k = v.shape
    return v.reshape(b, h, w, k // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, k // 4)


# --- 3. Order ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step of 3.

    Attributes:
        group: of channels.
        number: pass or colour.
        first: the group's first channel.
        cells: bool [h, w].
    """

    group: int
    number: int
    first: int
    cells: np.ndarray


@dataclass(frozen=True)
class Reader:
    """Takes symbols from the section, and keeps them in coding order, [frame, n] for each step."""

    m: Model
    port: DecodePort
    steps: list[np.ndarray] = field(default_factory=list)

    def values(self, mean: np.ndarray, log_scale: np.ndarray, step: Step | None = None) -> np.ndarray:
        """Latents of a step (None: z): mean (place) [frame, cell, channel], log scale (fine) like it."""
        rows = table_row(self.m, log_scale).ravel()
        symbols = self.port.code(None, rows, self.m.tables).astype(np.int64).reshape(mean.shape)
        self.steps.append(symbols.reshape(len(symbols), -1))
        return PLACE.of((symbols << PLACE.bits) + mean, PLACE.bits)


@dataclass(frozen=True)
class Decoded:
    """What the section of a chunk says.

    Attributes:
        symbols: int64 [T, n] in coding order.
        y_hat: int64 [T, M, h, w], in units of 1/64 step.
    """

    symbols: np.ndarray
    y_hat: np.ndarray


def decode(m: Model, chunk: Chunk) -> Decoded:
    """All symbols of a chunk, checked against its check values.

    Raises:
        ValueError: the check of a frame differs, or (eozip.errors.FormatError) bytes that no encoder writes.
    """
    shape = latent_shape(chunk)
    read = Reader(m, DecodePort(chunk.sections[0]))
    y_hat = latents(read, shape)
    symbols = np.concatenate(read.steps, 1)
    compare(chunk, tuple(frame_check(frame) for frame in symbols))
    pass_grids(m, read.port, chunk)
    pass_fits(m, read.port, chunk)
    read.port.finish()
    return Decoded(symbols, y_hat.transpose(0, 3, 1, 2))


def pass_grids(m: Model, port: DecodePort, chunk: Chunk) -> None:
    """Passes over the native grids of the 20 and 60 m bands, which say nothing about latents."""
    for phase_row, bands in ((30, 6), (36, 2)):
        if port.code(None, np.array([30]), m.tables)[0] >= 0:
            port.code(None, np.array([phase_row]), m.tables)
            port.code(None, np.array([phase_row]), m.tables)
            port.code(None, np.full(chunk.header.shape[0] * bands, 6), m.tables)


def pass_fits(m: Model, port: DecodePort, chunk: Chunk) -> None:
    """Passes over the closing fits: 5 kinds of coefficients a date, one more with classes, one more with a past."""
    bands = m.network["bands"]  # a companion band has no part in them
    for k in range(chunk.header.shape[0]):
        more = (k > 0 and m.network["entropy"] == "time") + bool(m.network["fit_classes"])
        for count in (1, *[bands] * (4 + more)):
            choice = 8 + int(port.code(None, np.array([48]), m.tables)[0])
            if choice:
                port.code(None, np.full(bands * count, 6 * choice), m.tables)


def latent_shape(chunk: Chunk) -> tuple[int, int, int]:
    """Frames, rows and columns of the latent grid."""
    frames, _, height, width = chunk.header.shape
    return frames, 4 * -(-height // 32), 4 * -(-width // 32)


def compare(chunk: Chunk, checks: tuple[int, ...]) -> None:
    if checks != chunk.header.checks:
        raise ValueError(f"checks: expected {chunk.header.checks}, got {checks}")


def latents(read: Reader, shape: tuple[int, int, int]) -> np.ndarray:
    features = hyper_features(read, shape) if read.m.refined else None
    y_hat = group_zero(read, shape, features)
    for k in range(1, len(read.m.network["groups"])):
        y_hat = np.concatenate([y_hat, later_group(read, k, y_hat, features)], 3)
    return y_hat


# --- 3.1 Hyper features -----------------------------------------------------------------------------------------------


def hyper_features(read: Reader, shape: tuple[int, int, int]) -> np.ndarray:
    """z, then the features (activations) of every cell."""
    m, (frames, h, w) = read.m, shape
    z = read_z(read, (frames, h // 4, w // 4))
    v = FINE.of(shuffle2(dense(m, "h_s.enter", SETTLE.of(z, PLACE.bits))), NARROW_BITS)
    v = residual_block(m, settled_fine(v + m.bias_at_level("h_s.level")))
    v = settled(shuffle2(dense(m, "h_s.rise", np.maximum(v, 0))))
    return settled(dense3(m, "h_s.leave", v))


def read_z(read: Reader, shape: tuple[int, int, int]) -> np.ndarray:
    mean = PLACE.of(read.m.at_level("z_mean"), AT_LEVEL_BITS)
    log_scale = FINE.of(read.m.at_level("z_log_scale"), AT_LEVEL_BITS)
    frames, h, w = shape
    cells = frames, h * w, len(mean)
    return read.values(np.broadcast_to(mean, cells), np.broadcast_to(log_scale, cells)).reshape(*shape, -1)


def residual_block(m: Model, v: np.ndarray) -> np.ndarray:
    inner = settled(dense3(m, "h_s.block.mix", settled(dense(m, "h_s.block.down", v))))
    return SETTLE.of(v + SETTLE.of(dense(m, "h_s.block.up", inner), NARROW_BITS), SETTLE.bits)


# --- 3.2 Group 0 ------------------------------------------------------------------------------------------------------

LEAST_WEIGHT = 64  # 2**-14
LEAST_SPREAD = 32  # 1/2


def passes(h: int, w: int) -> tuple[np.ndarray, ...]:
    """Which cells each of the five passes codes, bool [h, w]."""
    i, j = np.arange(h)[:, None] % 4, np.arange(w)[None, :] % 4
    first, centre = (i == 0) & (j == 0), (i == 2) & (j == 2)
    even = (i % 2 == 0) & (j % 2 == 0)
    odd = (i % 2 == 1) & (j % 2 == 1)
    return first, centre, even & ~first & ~centre, odd, (i + j) % 2 == 1


def group_zero(read: Reader, shape: tuple[int, int, int], features: np.ndarray | None) -> np.ndarray:
    m = read.m
    value = np.zeros((*shape, m.network["groups"][0]), np.int64)
    known = np.zeros((1, *shape[1:], 1), np.int64)
    for number, cells in enumerate(passes(*shape[1:])):
        near = np.stack([seen_at(value, o, ZEROS)[:, cells] for o in RING], 2)  # [frame, cell, 24, channel]
        seen = np.stack([seen_at(known, o, ZEROS)[:, cells] for o in RING], 2)
        mean, spread, off = weighted(m, near, seen)
        start = log(m, spread) if number else FINE.of(m.at_level("first"), AT_LEVEL_BITS)
        if features is None:
            log_scale = offset_scale(m, number, start, mean.shape)
        else:
            shift, correction = refinement(m, number, off, seen, features[:, cells])
            mean = PLACE.of((mean << FINE.bits) + shift * spread, PLACE.bits + FINE.bits)
            log_scale = corrected(start, correction)
        value[:, cells] = read.values(mean, log_scale, Step(0, number, 0, cells))
        known[:, cells] = 1
    return value


def weighted(m: Model, near: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and spread (place) of the known neighbours, and their differences from the mean."""
    weight = m.weight("average.weight").T * seen
    total = np.maximum(weight.sum(2), LEAST_WEIGHT)
    mean = quotient((weight * near).sum(2), total)
    off = (near - mean[:, :, None]) * seen
    spread = np.maximum(quotient((weight * np.abs(off)).sum(2), total), LEAST_SPREAD)
    return mean, spread, off


def quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """place(above / below), above in units of 2**-26, below of 2**-20: an IEEE float64 division, rounded."""
    # integers below 2**53 are float64 exactly, and a power of two changes no digit of a quotient
    return PLACE.of(np.rint(above.astype(np.float64) / below.astype(np.float64)).astype(np.int64), PLACE.bits)


def offset_scale(m: Model, number: int, start: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Log scale (fine) of fp."""
    correction = FINE.of(m.at_level("average.offset", number), AT_LEVEL_BITS)
    return np.broadcast_to(FINE.of(start + correction, FINE.bits), shape)


def refinement(
    m: Model, number: int, off: np.ndarray, seen: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The network of elic -> shift (fine), correction of the log scale (narrow sum)."""
    by_channel = squash(m, off).swapaxes(2, 3).reshape(*off.shape[:2], -1)
    ones = np.broadcast_to(seen[..., 0] << SETTLE.bits, (*off.shape[:2], len(RING)))
    v = np.concatenate([by_channel, ones, features], 2)
    v = FINE.of(dense(m, "average.enter", v), NARROW_BITS)
    v = settled_fine(v + m.bias_at_level("average.level", number))
    v = settled(dense(m, "average.middle", v))
    shift, correction = np.split(dense(m, "average.leave", v), 2, axis=2)
    return FINE.of(shift, NARROW_BITS), correction


def corrected(start: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """fine(log scale + correction), the correction a narrow sum."""
    return FINE.of(start + FINE.of(correction, NARROW_BITS), FINE.bits)


# --- 3.3 Later groups -------------------------------------------------------------------------------------------------


def later_group(read: Reader, k: int, y_hat: np.ndarray, features: np.ndarray | None) -> np.ndarray:
    m, groups = read.m, read.m.network["groups"]
    value = np.zeros((*y_hat.shape[:3], groups[k]), np.int64)
    even = np.indices(y_hat.shape[1:3]).sum(0) % 2 == 0
    for colour, cells in enumerate((even, ~even)):
        mean = linear_mean(m, k, colour, y_hat, value)
        log_scale = log(m, linear_scale(m, k, colour, y_hat, value))
        if features is None:
            mean = PLACE.of(mean, WIDE_BITS + FINE.bits)
        else:
            shift, correction = group_refinement(m, k, colour, y_hat, value, features)
            mean = PLACE.of(mean + (shift << (WIDE_BITS + FINE.bits - NARROW_BITS)), WIDE_BITS + FINE.bits)
            log_scale = corrected(log_scale, correction)
        step = Step(k, colour, y_hat.shape[3], cells)
        value[:, cells] = read.values(mean[:, cells], log_scale[:, cells], step)
    return value


def entering(m: Model, v: np.ndarray) -> np.ndarray:
    """Earlier channels as they enter the linear sums, in units of place: those behind the first two groups coarse."""
    large = sum(m.network["groups"][:2])
    return np.concatenate([v[..., :large], coarse(v[..., large:])], 3)


def own_entering(k: int, v: np.ndarray) -> np.ndarray:
    """The group's own values as they enter the linear sums: coarse where earlier ones are."""
    return coarse(v) if k > 2 else v


def coarse(v: np.ndarray) -> np.ndarray:
    """Rounded to the coarse grid, still in units of place."""
    return COARSE.of(v, PLACE.bits) << (PLACE.bits - COARSE.bits)


def linear_mean(m: Model, k: int, colour: int, y_hat: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Units of 2**-34."""
    weight, before = m.weight(f"groups.{k - 1}.linear.{colour}.weight"), y_hat.shape[3]
    total = conv3(entering(m, y_hat), weight[:, :before], EDGES)
    if colour:
        total = total + conv3(own_entering(k, value), weight[:, before:], ZEROS, CROSS)
    return product(total, FINE.of(m.at_level(f"groups.{k - 1}.shrink"), AT_LEVEL_BITS))


def linear_scale(m: Model, k: int, colour: int, y_hat: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Place."""
    weight, before = m.weight(f"groups.{k - 1}.magnitude.{colour}"), y_hat.shape[3]
    here = np.abs(entering(m, y_hat))
    # coarse a second time: the sum over a box is clamped to the coarse range too
    around = entering(m, sum(seen_at(here, tap, EDGES) for tap in SQUARE))
    total = here @ weight[:, :before].T + around @ weight[:, before : 2 * before].T
    if colour:
        own = np.abs(own_entering(k, value))
        cross = np.concatenate([seen_at(own, tap, ZEROS) for tap in CROSS], 3)
        total = total + cross @ weight[:, 2 * before :].T
    floor = m.at_level(f"groups.{k - 1}.floor")
    return PLACE.of((total << (AT_LEVEL_BITS - WIDE_BITS)) + floor, AT_LEVEL_BITS)


def group_refinement(
    m: Model, k: int, colour: int, y_hat: np.ndarray, value: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The network of elic -> shift, correction of the log scale (narrow sums)."""
    part = f"groups.{k - 1}"
    sums = [dense(m, f"{part}.hyper", features), conv3(squash(m, y_hat), m.weight(f"{part}.earlier.weight"))]
    if colour:
        sums.append(conv3(squash(m, value), m.weight(f"{part}.spatial.weight"), ZEROS, CROSS))
    v = sum(FINE.of(v, NARROW_BITS) for v in sums) + m.bias_at_level(f"{part}.level", colour)
    v = settled(dense(m, f"{part}.middle", settled_fine(v)))
    shift, correction = np.split(dense(m, f"{part}.leave", v), 2, axis=3)
    return shift, correction


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b; the one product whose operands nothing above bounds tightly enough for int64."""
    if int(np.abs(a).max()) * int(np.abs(b).max()) >= 2**62:
        raise OverflowError("a mean beyond 2**28 steps")
    return a * b
