"""The one place where float probabilities become the integer tables of the coder.

Everything before this module is float and may differ in the last bit between machines; everything after
it is integer. Tables are built once per model, and their bytes are part of the model's hash: a machine on
which a table comes out different refuses the stream by name instead of decoding it wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eozip.entropy.range_coder import PRECISION, Tables
from eozip.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_TOTAL = 1 << PRECISION
GAUSSIAN_REACH = 4.0  # standard deviations covered by a row; the 6e-5 beyond goes to the escape


def gaussian_tables(scales: Sequence[float]) -> Tables:
    """Tables of zero-mean Gaussians over integer bins, one row per standard deviation.

    Args:
        scales: Standard deviations, positive, at most 4096 (a row covers 4 of them on either side).
    """
    masses = [_gaussian_masses(scale) for scale in scales]
    return pack_tables(masses, [-(len(m) // 2) for m in masses])


def pack_tables(masses: Sequence[np.ndarray], first: Sequence[int]) -> Tables:
    """Probabilities per row > integer tables; what a row leaves of 1 goes to its escape.

    Args:
        masses: Per row, float64 [n] probabilities of the symbols first[r], first[r] + 1, ..., sum at most 1.
        first: Per row, its first symbol.
    """
    rows = [_integer_frequencies(np.append(m, max(0.0, 1.0 - float(m.sum())))) for m in masses]
    size = np.array([len(row) for row in rows], np.int32)
    freqs = np.zeros((len(rows), int(size.max())), np.uint32)
    for r, row in enumerate(rows):
        freqs[r, : len(row)] = row
    return Tables(freqs=freqs, first=np.array(first, np.int32), size=size)


def _integer_frequencies(masses: np.ndarray) -> np.ndarray:
    """Probabilities [n] > uint32 [n], each at least 1, sum exactly 2**16, else nearly proportional."""
    scaled, small = masses * (_TOTAL / masses.sum()), np.zeros(len(masses), bool)
    while (scaled[~small] < 1).any():  # what is raised to 1 is taken from the others in proportion
        small |= scaled < 1
        scaled = masses * ((_TOTAL - small.sum()) / masses[~small].sum())
    scaled[small] = 1
    freqs = np.floor(scaled)
    # stable order: equal remainders (a symmetric row has many) are settled by index, not by rounding noise
    order = np.argsort(freqs - scaled, kind="stable")
    freqs[order[: _TOTAL - int(freqs.sum())]] += 1
    return freqs.astype(np.uint32)


def _gaussian_masses(scale: float) -> np.ndarray:
    """Bin probabilities [2 n + 1] of symbols -n .. n, exactly symmetric."""
    reach = math.ceil(GAUSSIAN_REACH * scale)
    upper_tail = [0.5 * math.erfc((k - 0.5) / (scale * math.sqrt(2))) for k in range(1, reach + 2)]
    side = -np.diff(upper_tail)
    return np.concatenate([side[::-1], [1 - 2 * upper_tail[0]], side])


def packed(tables: Tables) -> dict[str, np.ndarray]:
    """Tables without their padding: all rows' entries in one vector."""
    used = np.arange(tables.freqs.shape[1]) < tables.size[:, None]
    return {"freqs": tables.freqs[used], "first": tables.first, "size": tables.size}


def unpacked(stored: Mapping[str, Tensor]) -> Tables:
    """Raise WeightsError where the parts do not fit; `Tables` checks the sums."""
    if set(stored) != {"freqs", "first", "size"} or int(stored["size"].sum()) != len(stored["freqs"]):
        raise WeightsError(f"tables: expected freqs, first, size that fit together, got {sorted(stored)}")
    first, size = stored["first"].numpy(), stored["size"].numpy()
    freqs = np.zeros((len(size), int(size.max())), np.uint32)
    freqs[np.arange(freqs.shape[1]) < size[:, None]] = stored["freqs"].numpy()
    return Tables(freqs=freqs, first=first, size=size)
