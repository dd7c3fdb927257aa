"""Probabilities of intervals, in integers: what successive refinement codes (flextec-small).

A latent is known to lie in an interval; the entropy model says where in it, by a mean and a row of the logistic law. One
bit then halves the interval, or says whether the latent lies near the mean. Its probability is a quotient of masses, and
masses are differences of one integer table of tails, so that every machine codes with the same numbers. Positions are
integers in 1 / UNITS of a quantisation step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eozip.entropy.logistic_tables import LOG_SCALE_MIN, REACH, ROWS, STEP
from eozip.entropy.range_coder import Tables
from eozip.entropy.tables import pack_tables, packed, unpacked
from eozip.errors import WeightsError

UNITS = 64  # positions per quantisation step: the grid of latents, see `exact`
ZERO = 42  # a latent this near the mean (in positions) counts as the mean: 0.66 steps
TAIL_STEPS = 16  # steps from the mean that tails tell apart
ONE = 2**30  # mass of everything
SHARE_BITS = 20  # of a quotient of masses
BINARY_ROWS = 193  # probabilities that a bit is coded with, evenly spaced in log odds
LOG_ODDS = 10.0


@dataclass(frozen=True)
class Refinement:
    """What the coder needs to refine intervals.

    Attributes:
        tails: int64 [ROWS, n], mass above the mean by 0, 1, 2 ... positions, of every row.
        shares: int64 [BINARY_ROWS - 1], rising bounds between the binary rows, in 2**-SHARE_BITS.
        first: tables of the first symbol of a latent: 0 within ZERO of the mean, then bins one step wide.
        binary: tables of one bit, row by row more likely 1.
    """

    tails: np.ndarray
    shares: np.ndarray
    first: Tables
    binary: Tables

    def mass(self, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Mass between low and high (positions from the mean, int64 [n]), at least 1 unless empty."""
        last = self.tails.shape[1] - 1
        above, beyond = (self.tails[rows, np.minimum(np.abs(v), last)] for v in (low, high))
        left = np.where(low < 0, ONE - above, above)  # mass above low
        right = np.where(high < 0, ONE - beyond, beyond)
        # below the mean both are near ONE; their difference is that of the small tails all the same, being integer
        return np.where(high > low, np.maximum(left - right, 0) + 1, 0)

    def row_of(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Binary row for a bit that is 1 with mass part of whole, int64 [n]."""
        share = (part << SHARE_BITS) // np.maximum(whole, 1)
        return np.searchsorted(self.shares, share, side="right")


def refinement_tensors() -> dict[str, Tensor]:
    """The float > integer crossing, done once at export: tails, bounds and tables as int32."""
    scale = np.exp(LOG_SCALE_MIN + STEP * np.arange(ROWS))[:, None]
    offset = np.arange(TAIL_STEPS * UNITS + 1) / UNITS
    tails = np.rint(ONE * np.exp(-np.logaddexp(0, offset / scale)))
    odds = np.linspace(-LOG_ODDS, LOG_ODDS, BINARY_ROWS)
    between = (odds[1:] + odds[:-1]) / 2
    shares = np.rint(2**SHARE_BITS / (1 + np.exp(-between)))
    ones = 1 / (1 + np.exp(-odds))
    binary = pack_tables([np.array([1 - p, p]) for p in ones], [0] * BINARY_ROWS)
    masses = [first_masses(float(s)) for s in scale[:, 0]]
    first = pack_tables(masses, [-(len(m) // 2) for m in masses])
    found = {"tails": tails, "shares": shares}
    found |= {f"first.{n}": v for n, v in packed(first).items()}
    found |= {f"binary.{n}": v for n, v in packed(binary).items()}
    return {n: torch.from_numpy(np.asarray(v).astype(np.int32)) for n, v in found.items()}


def first_masses(scale: float) -> np.ndarray:
    """P(-n .. n) of a first symbol under a logistic of mean 0, float64."""
    reach = min(REACH, int(np.ceil(12 * scale)) + 1)
    edge = (np.arange(reach + 1) + ZERO / UNITS) / scale
    tail = np.exp(-np.logaddexp(0, edge))
    side = tail[:-1] - tail[1:]
    return np.concatenate([side[::-1], [1 - 2 * tail[0]], side])


def refinement(tensors: Mapping[str, Tensor]) -> Refinement:
    """From tensors as `refinement_tensors` gives them.

    Raises:
        WeightsError: missing or misshapen parts; `Tables` checks their sums.
    """
    expected = {
        "tails",
        "shares",
        *(f"{t}.{n}" for t in ("first", "binary") for n in ("freqs", "first", "size")),
    }
    if set(tensors) != expected or tensors["tails"].shape != (ROWS, TAIL_STEPS * UNITS + 1):
        raise WeightsError(f"refinement tables: expected {sorted(expected)}, got {sorted(tensors)}")
    tables = {
        t: unpacked({n: tensors[f"{t}.{n}"] for n in ("freqs", "first", "size")}) for t in ("first", "binary")
    }
    ints = {n: tensors[n].numpy().astype(np.int64) for n in ("tails", "shares")}
    if len(tables["first"].size) != ROWS or len(tables["binary"].size) != len(ints["shares"]) + 1:
        raise WeightsError("refinement tables: rows do not fit tails and bounds")
    return Refinement(ints["tails"], ints["shares"], tables["first"], tables["binary"])
