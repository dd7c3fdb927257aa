"""A spectral basis of a scene's own: few small integers, which the encoder fits and sends.

    bands - mean = V @ planes        V int32 [C, C] in units of 2**-PRECISION, columns by falling variance

Each column has as many bits as its variance deserves; a column of no bits is absent, its plane zero. Encoders take the
planes by the pseudo-inverse of V, so that rounding V costs a little decorrelation and no accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.side import Side, row_of
from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP
from eozip.errors import FormatError

LARGEST = 1 << 28  # units of pictures and details: four of them add up in 32 bits
PRECISION = 11  # bits of a column at most
_FINEST = 1 << PRECISION
_FIRST_BITS = 8  # expected of the strongest column
_FINENESS = 0.75  # units of a column's entries for a step of its plane, times the root of the samples
_SPREAD = 0.35  # of a unit vector's entries, about


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
        return _rounded(self.vectors @ planes.reshape(len(planes), -1).astype(np.float64)).reshape(
            planes.shape
        )

    def seen(self, bands: np.ndarray) -> np.ndarray:
        """Bands along the columns, as context for details: int32 [C, ...] -> int32 [C, ...]."""
        return _rounded(self.vectors.T @ bands.reshape(len(bands), -1).astype(np.float64)).reshape(
            bands.shape
        )

    def planes(self, bands: np.ndarray) -> np.ndarray:
        """What an encoder codes: float [C, ...] bands -> float64 [C, ...] planes, 0 where a column is absent."""
        out = np.zeros((len(bands), bands[0].size))
        inverse = np.linalg.pinv(self.vectors[:, self.present] / _FINEST)
        out[self.present] = inverse @ bands.reshape(len(bands), -1)
        return out.reshape(bands.shape)


def _rounded(sums: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(sums / _FINEST), -LARGEST, LARGEST).astype(np.int32)


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
    strong = np.abs(vectors.T @ samples).max(1, initial=0.0) > 0.7 * step
    bits = np.where(strong, np.clip(bits, 3, PRECISION), 0).astype(np.int32)
    return Basis(_quantised(vectors, bits), bits, vectors)


def _quantised(vectors: np.ndarray, bits: np.ndarray) -> np.ndarray:
    units = np.rint(vectors * 2.0**bits) * (bits > 0)
    return (units * 2.0 ** (PRECISION - bits)).astype(np.int32)


def fits_as_well(other: Basis, own: Basis, samples: np.ndarray, step: float) -> bool:
    """Whether a basis that costs nothing is worth as much as one that has to be sent; an encoder's estimate.

    Args:
        other: known to the decoder.
        own: fitted to the samples.
        samples: float [C, n].
        step: as `fitted` has it.
    """
    costs = [_cost(basis, samples / step) for basis in (other, own)]
    return costs[0] <= costs[1] + len(samples) * float(own.bits.sum())


def _cost(basis: Basis, samples: np.ndarray) -> float:
    """Bits of samples [C, n] in steps, about, and what their loss is worth in bits where a plane is absent."""
    planes = basis.planes(samples)
    lost = np.square(samples - basis.vectors / _FINEST @ planes).sum()
    bits = 0.5 * np.log2(1 + 12 * np.square(planes).mean(1)).sum() * planes.shape[1]
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
    falls = None if basis is None else np.diff(basis.bits, prepend=_FIRST_BITS)
    bits = _FIRST_BITS + np.cumsum(side.integers(falls, bands, 1.2).astype(np.int64))
    if bits.min() < 0 or bits.max() > PRECISION:
        raise FormatError(
            f"basis: expected 0..{PRECISION} bits, got {bits.min()}..{bits.max()}; the bytes are damaged"
        )
    vectors = np.zeros((bands, bands), np.int32)
    there = np.flatnonzero(bits)
    shift, unit = PRECISION - bits[there], 1 << bits[there]
    rows = np.array([row_of(_SPREAD * one) for one in unit.tolist()], np.uint8).repeat(bands)
    read = side.rows(None if basis is None else (basis.vectors[:, there] >> shift).T, rows)
    vectors[:, there] = np.clip(read.reshape(-1, bands).T, -unit, unit) << shift
    return Basis(vectors, bits.astype(np.int32))
