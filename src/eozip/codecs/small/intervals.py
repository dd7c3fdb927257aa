"""Intervals that latents are known to lie in, and how one plane of flextec-small codes them finer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from eozip.bitstream import frame_check
from eozip.codecs.small.image_codec import SYMBOL_MAX, nearest
from eozip.codecs.small.linear_entropy import Step
from eozip.codecs.small.refinement import UNITS, ZERO, Refinement
from eozip.entropy.fixed_point import ExactArithmetic
from eozip.entropy.range_coder import Port, Tables

WIDE = UNITS * 3 // 2  # an interval no wider than this is fine enough for its plane


@dataclass
class Known:
    """Where the latents of one step lie, in positions from 0 at the plane `plane`; int64 [n] each, bool [n].

    Attributes:
        low, high: bounds.
        near: still in the bin of the mean.
        plane: the positions are 1 / UNITS of this plane's step.
    """

    low: np.ndarray
    high: np.ndarray
    near: np.ndarray
    plane: int

    def at(self, plane: int) -> Known:
        factor = 2 ** (plane - self.plane)
        return Known(self.low * factor, self.high * factor, self.near, plane)

    def value(self, mean: np.ndarray) -> np.ndarray:
        """Where the latents are taken to be: the mean, as far as the interval allows, or the interval's middle."""
        return np.where(self.near, np.clip(mean, self.low, self.high), (self.low + self.high) >> 1)


@dataclass
class DateState:
    """What is known of one date.

    Attributes:
        known: intervals by (group, pass).
        symbols: those of each section since its last check byte.
        check: over all symbols before.
    """

    known: dict[tuple[int, int], Known] = field(default_factory=dict)
    symbols: dict[int, list[np.ndarray]] = field(default_factory=dict)
    check: int = 0

    def settle(self, section: int) -> int:
        """The check value over all symbols up to the end of a section."""
        before = np.array([self.check], np.uint32).view(np.int32)
        self.check = frame_check(np.concatenate([before, *self.symbols.pop(section, [])]))
        return self.check


@dataclass(frozen=True)
class SectionPort:
    """The port of a section, which keeps the symbols of one date for its check byte."""

    port: Port
    section: int
    state: DateState

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        got = self.port.code(symbols, rows, tables)
        self.state.symbols.setdefault(self.section, []).append(got)
        return got


@dataclass(frozen=True)
class PlaneCode:
    """Stands in the traversal of one date at one plane where `PortCode` stands in other codecs.

    Attributes:
        plane: number of the plane.
        state: the date's; changed.
        ports: port of every channel group that this plane codes for this date; others are left as they are.
        z_port: port of the hyper-latent; None: it is its mean.
        y: rows of the latents in steps of the plane, [1, h*w, M]; None when decoding.
        z: of the hyper-latent.
    """

    plane: int
    state: DateState
    ports: dict[int, Port]
    z_port: Port | None
    refinement: Refinement
    tables: Tables
    arithmetic: ExactArithmetic
    y: Tensor | None
    z: Tensor | None

    def __call__(self, step: Step) -> Tensor:
        if step.channels is None:
            return self.hyper(step)
        mean = (step.mean * UNITS).to(torch.int64).numpy().ravel()
        key = step.group, step.number
        port, known = self.ports.get(step.group), self.state.known.get(key)
        if known is not None:
            known = known.at(self.plane)
        if port is not None:
            known = self.coded(port, step, mean, known)
            self.state.known[key] = known
        value = mean if known is None else known.value(mean)
        found = torch.from_numpy(value / UNITS).to(step.mean).reshape(step.mean.shape)
        return self.arithmetic.place(found)

    def hyper(self, step: Step) -> Tensor:
        """z of this plane, rounded around its mean."""
        if self.z_port is None:
            return step.mean.clone()
        wanted = None if self.z is None else nearest(self.z[:, step.cells] - step.mean)
        row = self.arithmetic.rows(step.log_scale).numpy().ravel()
        got = self.z_port.code(wanted, row, self.tables)
        return self.arithmetic.place(torch.from_numpy(got.reshape(step.mean.shape)).to(step.mean) + step.mean)

    def coded(self, port: Port, step: Step, mean: np.ndarray, known: Known | None) -> Known:
        row = self.arithmetic.rows(step.log_scale).numpy().ravel()
        wanted = None
        if self.y is not None:
            wanted = self.y[:, step.cells, step.channels].numpy().ravel().astype(np.float64) * UNITS
        if known is None:
            return self.begun(port, row, mean, wanted)
        return self.refined(port, row, mean, wanted, known)

    def begun(self, port: Port, row: np.ndarray, mean: np.ndarray, wanted: np.ndarray | None) -> Known:
        """First symbols: 0 within ZERO of the mean, n in the n-th bin beyond."""
        symbols = None if wanted is None else first_symbols(wanted - mean)
        got = port.code(symbols, row, self.refinement.first).astype(np.int64)
        away = np.abs(got)
        inner, outer = ZERO + (away - 1) * UNITS, ZERO + away * UNITS
        low = np.where(got > 0, inner, -outer)
        high = np.where(got < 0, -inner, outer)
        return Known(mean + low, mean + high, got == 0, self.plane)

    def refined(
        self, port: Port, row: np.ndarray, mean: np.ndarray, wanted: np.ndarray | None, known: Known
    ) -> Known:
        """Wide intervals are halved; the bin of the mean is laid anew."""
        r = self.refinement
        low, high = known.low - mean, known.high - mean
        around = np.clip(0, low, high)  # the mean, as far as the interval allows
        # bounds of the part that a 0 stands for: the lower half, or the mean's bin
        left = np.where(known.near, np.maximum(low, around - ZERO), low)
        right = np.where(known.near, np.minimum(high, around + ZERO), (low + high) >> 1)
        below, within, above = r.mass(row, low, left), r.mass(row, left, right), r.mass(row, right, high)
        outside = below + above
        is_open = np.where(known.near, outside > 0, high - low > WIDE)
        asked = np.flatnonzero(is_open)
        rest = None if wanted is None else wanted - mean
        off = np.zeros(len(mean), bool)
        off[asked] = self.bits(
            port,
            None if rest is None else ((rest < left) & known.near | (rest >= right))[asked],
            r.row_of(outside[asked], (outside + within)[asked]),
        )
        sides = np.flatnonzero(off & (below > 0) & (above > 0))
        up = off & (above > 0)
        up[sides] = self.bits(
            port,
            None if rest is None else (rest >= right)[sides],
            r.row_of(above[sides], outside[sides]),
        )
        stays = is_open & ~off
        new_low = np.where(up, right, np.where(stays, left, low))
        new_high = np.where(off & ~up, left, np.where(stays, right, high))
        return Known(mean + new_low, mean + new_high, known.near & ~off, self.plane)

    def bits(self, port: Port, wanted: np.ndarray | None, row: np.ndarray) -> np.ndarray:
        symbols = None if wanted is None else wanted.astype(np.int32)
        return port.code(symbols, row, self.refinement.binary) > 0


def first_symbols(rest: np.ndarray) -> np.ndarray:
    """int32 [n] from distances to the mean in positions."""
    away = np.floor((np.abs(rest) - ZERO) / UNITS) + 1
    return (np.sign(rest) * np.clip(away, 0, SYMBOL_MAX)).astype(np.int32)
