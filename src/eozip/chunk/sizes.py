"""Which quality takes so many bytes: a search over qualities in hundredths, of a chunk or of a whole store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

SLACK = 0.01
"""Share of the bytes asked for that a search leaves at most, where qualities are as fine as that."""
_STEPS = 24
_FINEST = 0.01
_SLOPE = 0.03  # by which the logarithm of bytes typically grows with a point of quality
_OUTWARD = 3  # steps in one direction, before the end of the scale is tried


class _Sized(Protocol):
    """What a search makes at a quality."""

    @property
    def size(self) -> int:
        """Its bytes."""
        ...


_Made = TypeVar("_Made", bound=_Sized)


@dataclass(frozen=True, eq=False)
class _Tried(Generic[_Made]):
    """One quality tried, and what it made."""

    quality: float
    made: _Made

    @property
    def size(self) -> int:
        """Bytes, at least 1."""
        return max(1, self.made.size)


def largest_of_size(
    target: int,
    try_at: Callable[[float], _Made],
    start: float,
    *,
    steps: int = _STEPS,
    slack: float = SLACK,
) -> _Tried[_Made]:
    """What takes at most so many bytes and hardly fewer; the smallest that was made where nothing is so small.

    Only what is written in the end is held: the smaller neighbour of the target, beside the last trial.

    Args:
        target: bytes.
        try_at: quality 0..100, in hundredths -> what came of it.
        start: the quality tried first.
        steps: trials at most; those that look for something small enough are not counted.
        slack: share of the target that may be left.
    """
    low: _Tried[_Made] | None = None
    high: tuple[float, int] | None = None
    quality, count = start, 0
    while True:
        trial = _Tried(quality, try_at(quality))
        count += 1
        if trial.size > target:
            if quality <= 0:
                return trial
            high = quality, trial.size
        else:
            low = trial
        is_near = low is not None and (low.size >= (1 - slack) * target or low.quality >= 100)
        is_narrow = low is not None and high is not None and high[0] - low.quality < 1.5 * _FINEST
        if low is not None and (is_near or is_narrow or count >= steps):
            return low
        quality = _next(target * (1 - slack / 2), low, high, count)


def _next(goal: float, low: _Tried[_Made] | None, high: tuple[float, int] | None, count: int) -> float:
    """The quality to try: between what is too small and what is too large, or beyond the one there is."""
    if low is not None and high is not None:
        rise = math.log(high[1] / low.size)
        share = math.log(goal / low.size) / rise if rise > 0 else 0.5
        # bytes grow about by a factor from quality to quality; every third step halves, whatever they do
        share = 0.5 if count % 3 == 0 else min(0.9, max(0.1, share))
        between = round(low.quality + share * (high[0] - low.quality), 2)
        return round(min(high[0] - _FINEST, max(low.quality + _FINEST, between)), 2)
    quality, size = (low.quality, low.size) if low is not None else high or (0.0, 1)
    if count >= _OUTWARD:
        return 100.0 if low is not None else 0.0
    step = 1.5 * math.log(goal / size) / _SLOPE
    step = math.copysign(max(0.1, abs(step)), step)
    return round(min(100.0, max(0.0, quality + step)), 2)
