"""What an encoder sends so that the means of a plane fit better: a few small integers, most of them 0.

    planes before    how far details lie off their means, plane by plane, tells of the same cell in this plane
    references       the map that was fitted one level below is not quite the one that fits here (references.py)

Both are linear. An encoder finds what would have been best, and sends it in units that both sides know, where that is worth
its bits. The network is not told.

Source: predictors that are sent beside what they predict are those of lossless coders (Matsuda et al. 2005) and, between
components, of video (Khairat et al. 2014). Here they are added to a network's, and chosen one by one as by a lasso.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.context import BITS_PER_SQUARED_STEP, VALUE, packed
from eozip.codecs.pyramid.references import Told
from eozip.codecs.pyramid.side import ROWS_PER_NAT, SCALE_MIN, Side

_LEAST_SAMPLES = 512  # details of a plane that are worth any
_LARGEST_NUMBER = 1 << 9
_LARGEST_LEFT = 1 << 13  # in 1/64 step; so that sums over all planes are below 2**28
_MANY = 2048  # details
_RARE, _OFTEN = 27, 32  # rows of kinds
_ROWS = (0, 24, 31, 38)  # of numbers, by their kind: of none, and of spreads of 0.25, 0.6 and 1.5
_FINENESS, _MOST_FINENESS = 34, 8
_SPREADS = np.array([0.25, 0.6, 1.5])[:, None] * (math.sqrt(3) / math.pi)  # scales of logistics
_LOOKED_AT = 1 << 14  # details that an encoder looks at, about, at most
_FEWEST = 32
_ROUNDS = 3
# squared steps: of details that have no symbol errors count
_WEAK = 1 / (2 * math.log(2) * BITS_PER_SQUARED_STEP)
# of a number that is not 0, in twice the saved squared error by its variance
_NUMBER_PRICE = 12 * math.log(2)
_PRICE = 3 * math.log(2)  # of a bit, for all numbers together


@dataclass(frozen=True, eq=False)
class Correction:
    """Numbers of one plane of one date: of each plane before [J], of the map of references [M], and the unit of these."""

    planes: np.ndarray
    bands: np.ndarray
    fineness: int = 0


@dataclass(frozen=True, eq=False)
class First:
    """What an encoder knows of the details of one colour.

    Attributes:
        residual: what they lie off their means as these are, in steps or octaves, float [3, h, half].
        rows: of their tables, alike.
        gates: of what references predict, alike.
        counts: which of them count, bool, alike.
        scale: of a step in their octaves, float [3, h, half], or None.
    """

    residual: np.ndarray
    rows: np.ndarray
    gates: np.ndarray
    counts: np.ndarray
    scale: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Ground:
    """What one plane of one date may be corrected by.

    Attributes:
        number: of the plane.
        left: how far details of planes before lie off their means, [J] of int32 [3, h, w] in 1/64 step.
        told: by references, or None.
        strengths: int32 [3].
        shape: (h, w) of the details.
    """

    number: int
    left: Sequence[np.ndarray]
    told: Told | None
    strengths: np.ndarray
    shape: tuple[int, int]

    @property
    def samples(self) -> int:
        """Details of a plane."""
        return 3 * self.shape[0] * self.shape[1]

    @property
    def shift(self) -> int:
        """Binary digits behind the point of numbers for planes."""
        return self.samples.bit_length() // 2 - 2

    def unit(self, fineness: int) -> float:
        """Of numbers for references, a power of two in 1/64 step."""
        strongest = max(0, int(self.strengths.max())) // 2
        return math.ldexp(1, fineness + 6 + strongest - self.samples.bit_length() // 2)

    def code(self, side: Side, first: First | None) -> Correction:
        """Send the best correction or read one.

        Args:
            side: where to.
            first: what an encoder knows; None: read.
        """
        nothing = self._nothing()
        parts = [nothing.planes, nothing.bands]
        counts = [len(part) for part in parts]
        asked = [k for k in range(2) if counts[k]]
        if not asked or self.samples < _LEAST_SAMPLES:
            return nothing
        found = None if first is None else self._best(first)
        own = None if found is None else (found.planes, found.bands)
        row = _OFTEN if self.samples >= _MANY and self.strengths.max() >= 0 else _RARE
        sent = None if own is None else np.array([_kind(own[k]) for k in asked])
        kinds = side.rows(sent, np.full(len(asked), row, np.uint8)).clip(0, len(_ROWS) - 1)
        fineness = 0
        for k, kind in zip(asked, kinds.tolist(), strict=True):
            if kind and k:
                sent = None if found is None else np.array([found.fineness])
                fineness = int(side.rows(sent, np.full(1, _FINENESS, np.uint8))[0])
                fineness = min(max(fineness, -_MOST_FINENESS), _MOST_FINENESS)
            if kind:
                read = side.rows(None if own is None else own[k], np.full(counts[k], _ROWS[kind], np.uint8))
                parts[k] = read.clip(-_LARGEST_NUMBER, _LARGEST_NUMBER).astype(np.int64)
        return Correction(parts[0], parts[1], fineness)

    def beside(self, correction: Correction) -> np.ndarray | None:
        """What planes before add to means, int32 [3, h, w] in 1/64 step, or None."""
        if not correction.planes.any():
            return None
        sums = np.zeros((3, *self.shape), np.int32)
        for number, one in zip(correction.planes.tolist(), self.left, strict=True):
            if number:
                sums += np.int32(number) * one.clip(-_LARGEST_LEFT, _LARGEST_LEFT)
        return (sums + (1 << self.shift >> 1)) >> self.shift

    def moved(self, correction: Correction) -> np.ndarray | None:
        """What is added to what references predict, alike."""
        if self.told is None or not correction.bands.any():
            return None
        turns, unit = self.told.turns, self.unit(correction.fineness)
        weights = np.zeros(len(turns))
        for j, number in enumerate(correction.bands.tolist()):
            if number:
                weights += turns[:, j] * (number * unit)
        return self.told.by_map(self.number, weights)

    def _nothing(self) -> Correction:
        bands = 0 if self.told is None else len(self.told.here)
        return Correction(np.zeros(len(self.left), np.int64), np.zeros(bands, np.int64))

    def _best(self, first: First) -> Correction:
        """What is worth its bits, as far as the details of the first colour tell."""
        at = np.flatnonzero(first.counts)
        count = len(at)
        at = at[:: -(-max(1, count) // _LOOKED_AT)]
        if len(at) < _FEWEST:
            return self._nothing()
        planes, bands = self._vectors(first, at)
        scale = np.exp(first.rows.ravel()[at] / np.float32(ROWS_PER_NAT) + np.float32(SCALE_MIN))
        weight = 1 / (np.pi**2 / 3 * scale * scale + _WEAK)
        x = np.concatenate([planes, bands]).astype(np.float32)
        weighted = x * (weight * (count / len(at))).astype(np.float32)
        square = (weighted @ x.T).astype(np.float64)
        right = (weighted @ first.residual.ravel()[at].astype(np.float32)).astype(np.float64)
        units, fineness = np.full(len(x), math.ldexp(1, -self.shift)), 0
        if len(bands):
            power = max(float(np.diag(square)[len(planes) :].mean()), 1e-9)
            fineness = min(max(round(1.5 - math.log2(power) / 2), -_MOST_FINENESS), _MOST_FINENESS)
            units[len(planes) :] = math.ldexp(1, fineness)
        numbers = _descended(square, right.copy(), units)
        for part in (slice(0, len(planes)), slice(len(planes), None)):
            own, others = numbers[part] * units[part], numbers * units
            others[part] = 0
            saved = own @ (2 * (right - square @ others)[part] - square[part, part] @ own)
            if own.any() and saved < _PRICE * (_bits(numbers[part]).min() + 3):
                numbers[part] = 0
        return Correction(numbers[: len(planes)], numbers[len(planes) :], fineness)

    def _vectors(self, first: First, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of some details of the first colour, in steps or octaves, what adds one in each plane before, and each unit of
        fineness 0 of the map: [J, n], [M, n]."""
        planes = np.array([packed(one, 0).ravel()[at] for one in self.left]).reshape(len(self.left), len(at))
        found = [planes / VALUE, np.zeros((0, len(at)))]
        if self.told is not None:
            share = np.broadcast_to(self.told.shares(self.number), (3, *self.shape))
            counts = first.gates.ravel()[at] * packed(share, 0).ravel()[at] * (self.unit(0) / 256 / VALUE)
            bands = np.array([packed(one, 0).ravel()[at] for one in self.told.here], np.float32)
            found[1] = (self.told.turns.T.astype(np.float32) @ bands) * counts
        scale = 1 if first.scale is None else first.scale.ravel()[at]
        return found[0] * scale, found[1] * scale


def corrected(
    sides: Sequence[Side],
    grounds: Sequence[Ground],
    firsts: Sequence[First | None],
    reference: np.ndarray | None,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Send or read corrections of one plane of some dates.

    Args:
        sides: where to.
        grounds: what each may be corrected by.
        firsts: what an encoder knows of each; None: read.
        reference: what references predict, int32 [N, 3, h, w] in 1/64 step, or None.

    Returns:
        The same with corrections, and what is added to means, alike.
    """
    found = None if reference is None else reference.copy()
    more = np.zeros((len(grounds), 3, *grounds[0].shape), np.int32)
    for n, (side, ground, first) in enumerate(zip(sides, grounds, firsts, strict=True)):
        correction = ground.code(side, first)
        beside, moved = ground.beside(correction), ground.moved(correction)
        if beside is not None:
            more[n] = beside
        if found is not None and moved is not None:
            found[n] += moved
    return found, more


def _descended(square: np.ndarray, right: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Whole numbers of units that save most of squares as in least squares, each more than it costs: int64."""
    out, steps = [0] * len(units), units.tolist()
    diagonal = np.maximum(np.diag(square), 1e-9).tolist()
    for _ in range(_ROUNDS):
        for j, (unit, own) in enumerate(zip(steps, diagonal, strict=True)):
            exact = out[j] + float(right[j]) / own / unit
            number = min(max(round(exact), -_LARGEST_NUMBER), _LARGEST_NUMBER)
            if own * unit * unit * (exact * exact - (exact - number) ** 2) < _NUMBER_PRICE:
                number = 0
            if number != out[j]:
                right -= square[:, j] * ((number - out[j]) * unit)
                out[j] = number
    return np.array(out, np.int64)


def _kind(numbers: np.ndarray) -> int:
    return 1 + int(np.argmin(_bits(numbers))) if numbers.any() else 0


def _bits(numbers: np.ndarray) -> np.ndarray:
    """What numbers cost by kind, about: [3]."""
    far, half = np.minimum(np.abs(numbers) / _SPREADS, 300), 0.5 / _SPREADS
    mass = 1 / (1 + np.exp(far - half)) - 1 / (1 + np.exp(far + half))
    return -np.log2(np.maximum(mass, 2.0**-24)).sum(1)
