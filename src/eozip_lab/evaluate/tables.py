"""What the settings of each contender span, and tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from eozip_lab.evaluate.sweep import Point


@dataclass(frozen=True)
class _Span:
    """What one contender's settings reach on one place.

    Attributes:
        low, high: lowest and highest PSNR in dB.
        monotone: whether each finer setting gives more bytes and no less PSNR.
    """

    low: float
    high: float
    monotone: bool


def names(points: Sequence[Point]) -> list[str]:
    """Contenders in the order measured."""
    return list(dict.fromkeys(point.contender for point in points))


def _place_names(points: Sequence[Point]) -> list[str]:
    """Places in the order measured."""
    return list(dict.fromkeys(point.place for point in points))


def span_table(points: Sequence[Point]) -> dict[str, dict[str, _Span]]:
    """Contender > place > `_Span`, in the order of the settings measured (coarse to fine)."""
    return {
        name: {place: _span(_of(points, name, place)) for place in _place_names(points)}
        for name in names(points)
    }


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]) + "\n"


def _of(points: Sequence[Point], name: str, place: str) -> list[Point]:
    return [p for p in points if p.contender == name and p.place == place]


def _span(points: Sequence[Point]) -> _Span:
    psnrs, sizes = [p.psnr for p in points], [p.bytes for p in points]
    rising = all(a < b for a, b in pairwise(sizes)) and all(a <= b for a, b in pairwise(psnrs))
    return _Span(min(psnrs), max(psnrs), rising)
