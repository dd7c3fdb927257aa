"""Which quality reaches a PSNR: a search on real decodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eozip.chunk.candidates import Candidate

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
