"""A spectral basis of a scene's own: few small integers, which the encoder fits and sends.

    bands - mean = V @ planes        V int32 [C, C] in units of 2**-PRECISION, columns by falling variance

Each column has as many bits as its variance deserves; a column of no bits is absent, its plane zero. Encoders take the
planes by the pseudo-inverse of V, so that rounding V costs a little decorrelation and no accuracy.

Where a decoder knows a basis already, of a date before or of the level below, it may be taken as it is, or turned a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eozip.codecs.pyramid.context import BITS_PER_SQUARED_STEP
from eozip.codecs.pyramid.native import call, library
from eozip.codecs.pyramid.side import Side, row_of
from eozip.entropy.range_coder import EstimatePort, Tables
from eozip.errors import FormatError

LARGEST = 1 << 28  # units of pictures and details: four of them add up in 32 bits
PRECISION = 11  # bits of a column at most
_FINEST = 1 << PRECISION
_FIRST_BITS = 8  # expected of the strongest column
_FINENESS = 0.75  # units of a column's entries for a step of its plane, times the root of the samples
_SPREAD = 0.35  # of a unit vector's entries, about
_RUN = 16  # samples that are about as strong
_STRONG = 0.7  # steps: weaker pixels need no plane

_FRESH, _BORROWED, _CARRIED, _TURNED = range(4)  # how a basis is told
_NARROWER = 8  # times half a nat, at most, by which a turned basis differs less than a fresh one
_NARROWEST = 28  # row of its entries
_LEFT = 209_715  # squared units, a twentieth: columns of which less is left tell nothing new


@dataclass(frozen=True, eq=False)
class Basis:
    """A basis of C bands.

    Attributes:
        vectors: int32 [C, C], a column for each plane, in units of 2**-PRECISION.
        bits: int32 [C], of each column; 0: absent.
        exact: float [C, C], what an encoder rounded.
    """

    vectors: np.ndarray
    bits: np.ndarray
    exact: np.ndarray | None = None

    @property
    def present(self) -> np.ndarray:
        """bool [C]: planes that exist."""
        return self.bits > 0

    def bands(self, planes: np.ndarray) -> np.ndarray:
        """Bands from planes: int32 [C, ...] -> int32 [C, ...], in the same units, halves to even, within +-LARGEST."""
        return _mixed(self.vectors, planes)

    def seen(self, bands: np.ndarray) -> np.ndarray:
        """Bands along the columns, as context for details: int32 [C, ...] -> int32 [C, ...]."""
        return _mixed(self.vectors.T, bands)

    def planes(self, bands: np.ndarray) -> np.ndarray:
        """What an encoder codes: float [C, ...] bands -> float64 [C, ...] planes, 0 where a column is absent."""
        out = np.zeros((len(bands), bands[0].size))
        inverse = np.linalg.pinv(self.vectors[:, self.present] / _FINEST)
        out[self.present] = inverse @ bands.reshape(len(bands), -1)
        return out.reshape(bands.shape)


def _mixed(vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """int32 [C, C] and [C, ...] -> [C, ...]."""
    kernel = library()
    if kernel is not None and values.dtype == np.int32:
        out, is_back = np.empty(values.shape, np.int32), not vectors.flags.c_contiguous
        basis = np.ascontiguousarray(vectors.T if is_back else vectors, np.int32)
        size = values[0].size
        call(kernel, "eozip_mixed", basis, len(values), is_back, np.ascontiguousarray(values), size, out)
        return out
    sums = vectors @ values.reshape(len(values), -1).astype(np.float64)
    return np.clip(np.rint(sums / _FINEST), -LARGEST, LARGEST).astype(np.int32).reshape(values.shape)


def stacked(found: Sequence[np.ndarray]) -> np.ndarray:
    """As `np.stack`, which copies even one array alone."""
    return found[0][None] if len(found) == 1 else np.stack(found)


def fitted(samples: np.ndarray, step: float) -> Basis:
    """The Karhunen-Loeve basis of samples, rounded as the step deserves.

    Args:
        samples: float [C, n], what is to be decorrelated, its mean taken off if it has one.
        step: quantisation step in the same units.
    """
    exact = np.asarray(samples, np.float64)
    exact = exact - exact.mean(
        1, keepdims=True
    )  # means are rounded to steps; what is left of them is no colour
    variance, vectors = np.linalg.eigh(exact @ exact.T / max(1, exact.shape[1]))
    variance, vectors = np.maximum(variance[::-1], 0), vectors[:, ::-1]
    # what a column's rounding leaves in other planes grows with their samples
    finest = _FINENESS * math.sqrt(exact.shape[1])
    bits = np.ceil(np.log2(np.maximum(np.sqrt(variance), 1e-9) / step * finest))
    # a plane that is weak on the whole may have strong pixels
    strong = np.abs(vectors.T @ samples).max(1, initial=0.0) > _STRONG * step
    bits = np.where(strong, np.clip(bits, 3, PRECISION), 0).astype(np.int32)
    return Basis(_quantised(vectors, bits), bits, vectors)


def _quantised(vectors: np.ndarray, bits: np.ndarray) -> np.ndarray:
    units = np.rint(vectors * 2.0**bits) * (bits > 0)
    return (units * 2.0 ** (PRECISION - bits)).astype(np.int32)


def code_related(
    side: Side,
    own: Basis | None,
    bands: int,
    reference: Basis | None,
    below: Basis | None,
    samples: np.ndarray | None = None,
) -> Basis:
    """Send or read a basis where others are known: one of these, or what it differs in, or a fresh one.

    Args:
        side: where to.
        own: fitted to the samples; None: read one.
        bands: C.
        reference: of a reference at this level, or None.
        below: of the level below, of the same bands or of these and more, or None.
        samples: an encoder's, float [C, n] in steps.

    Raises:
        FormatError: a kind of basis, or a precision, that no encoder writes.
    """
    known = {_BORROWED: reference} if reference is not None else {}
    if below is not None:
        known[_CARRIED] = _carried(below, bands)
    if not known:
        return code_basis(side, own, bands)
    kind = None
    if own is not None and samples is not None:
        kind, own = _cheapest(side.tables, own, known, samples)
    read = int(
        side.bounded(None if kind is None else np.array([kind]), 1, spread=1.2, first=0, last=_TURNED)[0]
    )
    if read != _FRESH and min(read, _CARRIED) not in known:
        raise FormatError(
            f"basis: of kind {read}, where nothing is known to take it from; the bytes are damaged"
        )
    return _told(side, read, own, bands, known)


def _told(side: Side, kind: int, basis: Basis | None, bands: int, known: Mapping[int, Basis]) -> Basis:
    """Send or read what a kind leaves open."""
    if kind == _BORROWED:
        return known[_BORROWED]
    if kind == _FRESH:
        return code_basis(side, basis, bands)
    carried = known[_CARRIED]
    if kind == _CARRIED:
        most = int(carried.present.sum())
        sent = None if basis is None else np.array([most - basis.present.sum()])
        return _first(carried, most - int(side.bounded(sent, 1, spread=1.2, first=0, last=most)[0]))
    bits = _code_bits(side, basis, bands)
    narrower = None if basis is None else np.array([_narrower(basis, carried)])
    narrower = side.bounded(narrower, 1, spread=2, first=0, last=_NARROWER)
    return _code_columns(side, basis, bits, carried.vectors, int(narrower[0]))


def _cheapest(
    tables: Tables, own: Basis, known: Mapping[int, Basis], samples: np.ndarray
) -> tuple[int, Basis]:
    """The kind that costs least, its samples included, and the basis that it gives."""
    offers = {_FRESH: own, **known}
    if _CARRIED in known:
        carried = known[_CARRIED]
        strong = np.flatnonzero(np.abs(carried.planes(samples)).max(1) > _STRONG)
        offers[_CARRIED] = _first(carried, int(strong.max(initial=-1)) + 1)
        offers[_TURNED] = _turned_like(own, carried)
    costs = {kind: _cost(basis, samples) for kind, basis in offers.items() if kind != _TURNED}
    costs[_TURNED] = costs[_FRESH]  # the same but for signs
    for kind, basis in offers.items():
        port = EstimatePort()
        _told(Side(port, tables), kind, basis, len(basis.bits), known)
        costs[kind] += port.bits
    kind = min(offers, key=lambda kind: costs[kind])
    return kind, offers[kind]


def _turned_like(own: Basis, other: Basis) -> Basis:
    """The same basis, its columns with the signs of another's."""
    signs = np.where((own.vectors.astype(np.int64) * other.vectors).sum(0) < 0, -1, 1).astype(np.int32)
    return replace(own, vectors=own.vectors * signs, exact=None)


def _narrower(basis: Basis, carried: Basis) -> int:
    """By how much less a basis differs from a carried one than from none; an encoder's choice."""
    there = basis.present
    apart = (basis.vectors - carried.vectors)[:, there] / _FINEST
    rms = math.sqrt(float(np.square(apart).mean())) if there.any() else 0.0
    return min(_NARROWER, max(0, round(2 * math.log(_SPREAD / max(rms, 1e-3)))))


def _first(basis: Basis, count: int) -> Basis:
    """Its first planes; what is absent comes last."""
    bits = np.where(np.arange(len(basis.bits)) < count, basis.bits, 0).astype(np.int32)
    return Basis(basis.vectors * (bits > 0), bits)


def _carried(below: Basis, bands: int) -> Basis:
    """A basis of the first few bands of another: its columns there, each without what those before it have."""
    found: list[np.ndarray] = []
    for column in below.vectors[:bands, below.present].T.astype(np.int64):
        left = column
        for u in found if bands < len(below.bits) else ():
            left = left - ((int(left @ u) * u + (1 << 2 * PRECISION - 1)) >> 2 * PRECISION)
        square = int(left @ left)
        if bands == len(below.bits):
            found.append(left)
        elif square >= _LEFT and len(found) < bands:
            found.append(np.rint(left * float(_FINEST) / np.sqrt(float(square))).astype(np.int64))
    vectors = np.zeros((bands, bands), np.int32)
    for k, own in enumerate(found):
        vectors[:, k] = own
    return Basis(vectors, np.where(np.arange(bands) < len(found), PRECISION, 0).astype(np.int32))


def _cost(basis: Basis, samples: np.ndarray) -> float:
    """Bits of samples [C, n] in steps, about, and what their loss is worth in bits where a plane is absent."""
    planes = basis.planes(samples)
    lost = np.square(samples - basis.vectors / _FINEST @ planes).sum()
    ends = np.arange(0, planes.shape[1], _RUN)  # contexts see how strong details are from place to place
    counts = np.diff(ends, append=planes.shape[1])
    powers = np.add.reduceat(np.square(planes), ends, axis=1) / counts
    bits = (0.5 * np.log2(1 + 12 * powers) * counts).sum()
    return float(bits + BITS_PER_SQUARED_STEP * lost)


def code_basis(side: Side, basis: Basis | None, bands: int) -> Basis:
    """Send or read a basis.

    Args:
        side: where to.
        basis: what to send; None: read it.
        bands: C.

    Raises:
        FormatError: a precision that no encoder writes.
    """
    return _code_columns(side, basis, _code_bits(side, basis, bands))


def _code_bits(side: Side, basis: Basis | None, bands: int) -> np.ndarray:
    """int64 [C], of each column."""
    falls = None if basis is None else np.diff(basis.bits, prepend=_FIRST_BITS)
    bits = _FIRST_BITS + np.cumsum(side.integers(falls, bands, 1.2).astype(np.int64))
    if bits.min() < 0 or bits.max() > PRECISION:
        raise FormatError(
            f"basis: expected 0..{PRECISION} bits, got {bits.min()}..{bits.max()}; the bytes are damaged"
        )
    return bits


def _code_columns(
    side: Side, basis: Basis | None, bits: np.ndarray, expected: np.ndarray | None = None, narrower: int = 0
) -> Basis:
    """Columns, or what they differ in from those expected, int32 [C, C]."""
    bands, there = len(bits), np.flatnonzero(bits)
    vectors = np.zeros((bands, bands), np.int32)
    shift, unit = PRECISION - bits[there], 1 << bits[there]
    rows = np.array(
        [max(row_of(_SPREAD * one) - 4 * narrower, _NARROWEST) for one in unit.tolist()], np.uint8
    )
    known = np.zeros((bands, len(there)), np.int64)
    if expected is not None:
        known = (expected[:, there] + (1 << shift >> 1)) >> shift
    sent = None if basis is None else ((basis.vectors[:, there] >> shift) - known).T
    read = side.rows(sent, rows.repeat(bands))
    vectors[:, there] = np.clip(known + read.reshape(-1, bands).T, -unit, unit) << shift
    return Basis(vectors, bits.astype(np.int32))
