"""Symbols and latents of a flextec-small chunk after section 3.5 of docs/exact.md, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from eozip.bitstream import Chunk, frame_check
from eozip.entropy.range_coder import DecodePort, Tables
from reference.model import PLACE, Model, read_tables, stored_model, table_row
from reference.series import Past
from reference.small import Step, compare, latent_shape, pass_grids

PLANES = (
    ((0, 1),),
    ((0, 1),),
    ((0, 1),),
    ((0, 1), (2,)),
    ((0, 1), (2,), (3,)),
    ((0, 1, 2), (3,)),
    ((0, 1, 2), (3,)),
)
LEVELS = (819, 3978, 7137, 10296, 13456, 16615, 19774)  # of the planes, in units of 2**-12
UNITS, NEAR, WIDE = 64, 42, 96
ONE, SHARE_BITS = 2**30, 20


@dataclass(frozen=True)
class Flex:
    """The networks, at some level, and the tables of intervals."""

    m: Model
    tails: np.ndarray
    shares: np.ndarray
    first: Tables
    binary: Tables


def read_flex(folder: Path, chunk: Chunk) -> Flex:
    """What a folder of weights and the folder of its networks beside it hold."""
    config = json.loads((folder / "config.json").read_text())
    m = stored_model(folder.parent / config["base"])
    hashes = bytes.fromhex(config["base_sha256"]) + bytes.fromhex(config["sha256"])
    if hashlib.sha256(hashes).digest()[:8] != chunk.header.weights_hash:
        raise ValueError(
            f"weights: the chunk has hash {chunk.header.weights_hash.hex()}, not that of {folder}"
        )
    stored = {n: v.astype(np.int64) for n, v in load_file(folder / "model.safetensors").items()}
    first, binary = (read_tables(stored, f"{name}.") for name in ("first", "binary"))
    return Flex(m, stored["tails"], stored["shares"], first, binary)


# --- Masses -----------------------------------------------------------------------------------------------------------


def mass(flex: Flex, row: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Between two positions from the mean, [n] each."""
    difference = above(flex, row, low) - above(flex, row, high)
    return np.where(high > low, np.maximum(difference, 0) + 1, 0)


def above(flex: Flex, row: np.ndarray, position: np.ndarray) -> np.ndarray:
    tail = flex.tails[row, np.minimum(np.abs(position), flex.tails.shape[1] - 1)]
    return np.where(position < 0, ONE - tail, tail)


def row_of(flex: Flex, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Binary row of a bit that is 1 with mass part of whole > 0."""
    return np.searchsorted(flex.shares, (part << SHARE_BITS) // whole, side="right")


# --- Intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """Bounds, in positions of the step last coded or of that of now, and whether the latent is still near its mean; [n]."""

    low: np.ndarray
    high: np.ndarray
    near: np.ndarray
    plane: int

    def at(self, plane: int) -> Known:
        times = plane - self.plane
        return Known(self.low << times, self.high << times, self.near, plane)

    def value(self, mean: np.ndarray) -> np.ndarray:
        return np.where(self.near, np.clip(mean, self.low, self.high), (self.low + self.high) >> 1)


@dataclass
class DateState:
    """What is known of a date.

    Attributes:
        known: by group and number of the step.
        check: of all its symbols so far.
    """

    known: dict[tuple[int, int], Known] = field(default_factory=dict)
    check: int = 0


@dataclass(frozen=True)
class SectionReader:
    """One date's part of a section."""

    port: DecodePort
    symbols: list[np.ndarray] = field(default_factory=list)

    def code(self, rows: np.ndarray, tables: Tables) -> np.ndarray:
        got = self.port.code(None, rows, tables)
        self.symbols.append(got)
        return got.astype(np.int64)

    def end(self, state: DateState) -> None:
        """Its check byte.

        Raises:
            ValueError: another one.
        """
        before = np.array([state.check], np.uint32).view(np.int32)
        state.check = frame_check(np.concatenate([before, *self.symbols]))
        got = int(self.port.code(None, np.zeros(1, np.int64), CHECK_TABLES)[0])
        if got != state.check & 0xFF:
            raise ValueError(f"checks: expected the byte {state.check & 0xFF}, got {got}")


CHECK_TABLES = Tables(
    freqs=np.array([[256] * 255 + [255, 1]], np.uint32),
    first=np.zeros(1, np.int32),
    size=np.array([257], np.int32),
)


@dataclass(frozen=True)
class PlaneReader:
    """One date at one plane.

    Attributes:
        flex: with the model at the plane's level.
        plane: its number.
        state: the date's; changed.
        sections: by channel group, those that the date has.
    """

    flex: Flex
    plane: int
    state: DateState
    sections: Mapping[int, SectionReader]

    @property
    def m(self) -> Model:
        return self.flex.m

    def values(self, mean: np.ndarray, log_scale: np.ndarray, step: Step | None = None) -> np.ndarray:
        rows = table_row(self.m, log_scale).ravel()
        if step is None:
            return self.hyper(mean, rows)
        key, section = (step.group, step.number), self.sections.get(step.group)
        known = self.state.known.get(key)
        known = None if known is None else known.at(self.plane)
        if section is not None:
            known = self.coded(section, rows, mean.ravel(), known)
            self.state.known[key] = known
        value = mean.ravel() if known is None else known.value(mean.ravel())
        return PLACE.of(value, PLACE.bits).reshape(mean.shape)

    def hyper(self, mean: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if 0 not in self.sections:
            return mean
        symbols = self.sections[0].code(rows, self.m.tables).reshape(mean.shape)
        return PLACE.of((symbols << PLACE.bits) + mean, PLACE.bits)

    def coded(self, section: SectionReader, rows: np.ndarray, mean: np.ndarray, known: Known | None) -> Known:
        if known is None:
            return begun(section.code(rows, self.flex.first), mean, self.plane)
        return refined(self.flex, section, rows, mean, known)


def begun(symbols: np.ndarray, mean: np.ndarray, plane: int) -> Known:
    far = NEAR + UNITS * np.abs(symbols)
    low = np.where(symbols > 0, far - UNITS, -far)
    high = np.where(symbols < 0, UNITS - far, far)
    return Known(mean + low, mean + high, symbols == 0, plane)


def refined(flex: Flex, section: SectionReader, rows: np.ndarray, mean: np.ndarray, known: Known) -> Known:
    """One bit, or two, of the latents that are not fine enough; the others as they were."""
    low, high, near = known.low - mean, known.high - mean, known.near
    around = np.clip(0, low, high)
    left = np.where(near, np.maximum(low, around - NEAR), low)
    right = np.where(near, np.minimum(high, around + NEAR), (low + high) >> 1)
    is_open = np.where(near, (left > low) | (high > right), high - low > WIDE)
    below, within, beyond = (mass(flex, rows, *ends) for ends in ((low, left), (left, right), (right, high)))
    off = np.zeros(len(mean), bool)
    i = np.flatnonzero(is_open)
    off[i] = section.code(row_of(flex, (below + beyond)[i], (below + within + beyond)[i]), flex.binary)
    is_up = off & (high > right)
    i = np.flatnonzero(is_up & (left > low))
    is_up[i] = section.code(row_of(flex, beyond[i], (below + beyond)[i]), flex.binary)
    stays = is_open & ~off
    low, high = (
        np.where(is_up, right, np.where(stays, left, low)),
        np.where(off & ~is_up, left, np.where(stays, right, high)),
    )
    return Known(mean + low, mean + high, near & ~off, known.plane)


# --- Chunks -----------------------------------------------------------------------------------------------------------


def decode(flex: Flex, chunk: Chunk) -> np.ndarray:
    """y_hat [T, M, h, w] in units of 1/64 step of the last plane, from all sections or the first few.

    Raises:
        ValueError: a check differs, or (eozip.errors.FormatError) bytes that no encoder writes.
    """
    frames, *size = latent_shape(chunk)
    ports = [DecodePort(section) for section in chunk.sections]
    pass_grids(flex.m, ports[0], chunk)
    states = [DateState() for _ in range(frames)]
    first = 0
    for plane, groups in enumerate(PLANES):
        if first < len(ports):
            y_hat = one_plane(flex, plane, first, ports, chunk.header.budgets, states, size)
        first += len(groups)
    if len(ports) == max(chunk.header.budgets):
        compare(chunk, tuple(state.check for state in states))
    for port in ports:
        port.finish()
    return y_hat.transpose(0, 3, 1, 2)


def one_plane(
    flex: Flex,
    plane: int,
    first: int,
    ports: list[DecodePort],
    budgets: tuple[int, ...],
    states: list[DateState],
    size: list[int],
) -> np.ndarray:
    """All dates at one plane, whose sections are first, first + 1, ...: [T, h, w, M]."""
    flex, seen = replace(flex, m=replace(flex.m, t=LEVELS[plane])), PLANES[plane][-1][-1] + 1
    past, found = Past(), []
    for budget, state in zip(budgets, states, strict=True):
        there = max(0, min(len(PLANES[plane]), len(ports) - first, budget - first))
        own = [SectionReader(port) for port in ports[first : first + there]]
        by_group = {group: reader for reader, groups in zip(own, PLANES[plane]) for group in groups}
        found.append(past.latents(PlaneReader(flex, plane, state, by_group), size, seen))
        for reader in own:
            reader.end(state)
    return np.stack(found)
