"""Which quality reaches a PSNR: a search on real decodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eozip.codecs.base import Encoded

TOLERANCE = 0.15  # dB
STEPS = 8
CAP = 200.0  # dB; what an exact reconstruction counts as


@dataclass(frozen=True)
class Try:
    """One quality tried: the PSNR in dB that it reached, at most `CAP`, and what the codec made."""

    quality: float
    psnr: float
    coded: Encoded


def quality_for(target: float, try_at: Callable[[float], Try], start: float) -> Try:
    """The try whose PSNR is nearest the target; the one at 100 if none reaches it.

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
    if tries[-1].quality == 100.0:  # it stayed the last one, so even it falls short
        return tries[-1]
    return min(tries, key=lambda one: abs(one.psnr - target))


def _near(one: Try, target: float) -> bool:
    return abs(one.psnr - target) <= TOLERANCE


def _between(low: Try, high: Try, target: float) -> float:
    """Where a straight line meets the target, kept off the ends so that the bracket always shrinks."""
    share = min(0.85, max(0.15, (target - low.psnr) / (high.psnr - low.psnr)))
    return round(low.quality + share * (high.quality - low.quality), 2)
