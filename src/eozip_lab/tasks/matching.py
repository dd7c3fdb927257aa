"""Equal bytes: the setting at which a method needs as many bytes as were given to another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_CLOSE, _TRIES = 0.02, 7  # of the logarithm of bytes; encodings


@dataclass(frozen=True)
class Knob:
    """What a method can be told.

    Attributes:
        coarse, fine: ends of the range.
        step: between two settings.
    """

    coarse: float
    fine: float
    step: float

    def rounded(self, setting: float) -> float:
        """The nearest setting in range."""
        low, high = sorted((self.coarse, self.fine))
        return min(max(round(setting / self.step) * self.step, low), high)


def matched(encode: Callable[[float], bytes], goal: int, knob: Knob, first: float) -> tuple[float, bytes]:
    """The setting, of at most seven tried, whose bytes are nearest to `goal` (by their ratio), and its bytes.

    Args:
        encode: bytes of a setting; finer settings need more.
        goal: bytes.
        knob: range.
        first: where to begin.
    """
    tried: dict[float, bytes] = {}
    setting = knob.rounded(first)
    while len(tried) < _TRIES and setting not in tried:
        tried[setting] = encode(setting)
        gaps = {s: math.log(len(data) / goal) for s, data in tried.items()}
        if abs(gaps[setting]) <= _CLOSE:
            break
        setting = knob.rounded(_next(gaps, knob))
    best = min(tried, key=lambda s: abs(math.log(len(tried[s]) / goal)))
    return best, tried[best]


def _next(gaps: dict[float, float], knob: Knob) -> float:
    """Where a line through the two nearest settings crosses zero; beyond one of them where that is all there is."""
    above = [s for s, gap in gaps.items() if gap > 0]
    below = [s for s, gap in gaps.items() if gap <= 0]
    if above and below:
        a, b = min(above, key=gaps.__getitem__), max(below, key=gaps.__getitem__)
        between = b + (a - b) * -gaps[b] / (gaps[a] - gaps[b])
        inner = math.copysign(knob.step, a - b)
        return min(max(between, min(a, b) + abs(inner)), max(a, b) - abs(inner))
    nearest = min(gaps, key=lambda s: abs(gaps[s]))
    slope = 8 / (knob.fine - knob.coarse)  # bytes grow by e**8 or so over the range
    return nearest - math.copysign(max(1.3 * abs(gaps[nearest] / slope), knob.step), gaps[nearest] * slope)
