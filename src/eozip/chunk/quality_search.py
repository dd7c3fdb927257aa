"""Which quality reaches a PSNR: a search on real decodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eozip.codecs.base import Encoded

TOLERANCE = 0.15  # dB above a target that a search is content with; it never falls short
STEPS = 8
CAP = 200.0  # dB; what an exact reconstruction counts as


@dataclass(frozen=True)
class Try:
    """One quality tried: the PSNR in dB that it reached, at most `CAP`, and what the codec made."""

    quality: float
    psnr: float
    coded: Encoded


def quality_for(target: float, try_at: Callable[[float], Try], start: float) -> Try:
    """The try that reaches the target with the least to spare; the one at 100 if none reaches it.

    Args:
        target: dB.
        try_at: quality 0..100, in hundredths > what came of it.
        start: the quality tried first.
    """
    tries = [try_at(start)]
    if not _near(tries[0], target):
        tries.append(try_at(100.0 if tries[0].psnr < target else 0.0))
    low, high = (tries[0], tries[-1]) if tries[0].psnr < target else (tries[-1], tries[0])
    while len(tries) < STEPS and not _near(tries[-1], target) and low.psnr < target < high.psnr:
        tries.append(try_at(_between(low, high, target)))
        low, high = (tries[-1], high) if tries[-1].psnr < target else (low, tries[-1])
    reached = [one for one in tries if one.psnr >= target]
    return min(reached, key=lambda one: one.psnr) if reached else max(tries, key=lambda one: one.quality)


def _near(one: Try, target: float) -> bool:
    return target <= one.psnr <= target + TOLERANCE


def _between(low: Try, high: Try, target: float) -> float:
    """Where a straight line meets the middle of what is near, kept off the ends so that the bracket always shrinks."""
    share = min(0.85, max(0.15, (target + TOLERANCE / 2 - low.psnr) / (high.psnr - low.psnr)))
    return round(low.quality + share * (high.quality - low.quality), 2)
