"""Level maps that crops are trained under: what users send, and cells set one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eozip.codecs.level_map import CELL, NOTHING

_OUTSIDE = range(4, 13)  # levels around what is wanted as well as the quality says
_LONE = 0.15  # chance of a cell, where lone cells are drawn

_Cells = tuple[int, int]
_Kind = Callable[[_Cells, np.random.Generator], np.ndarray]


def level_maps(count: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Random level maps, uint8 [count, h, w] of pixels, with two levels each at most.

    A third of them have a solid region at level 0 and another level around it, a sixth a solid region of which nothing
    is sent, a quarter lone cells or a line one cell wide at level 0, and the rest any two levels in independent cells.
    """
    cells = (-(-shape[0] // CELL), -(-shape[1] // CELL))
    kinds, chances = zip(*_KINDS.items(), strict=True)
    out = np.stack([kinds[rng.choice(len(kinds), p=chances)](cells, rng) for _ in range(count)])
    return out.astype(np.uint8).repeat(CELL, 1).repeat(CELL, 2)[:, : shape[0], : shape[1]]


def _region(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    return np.where(_solid(cells, rng), 0, rng.choice(_OUTSIDE))


def _clouds(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    return np.where(_solid(cells, rng), NOTHING, 0)


def _narrow(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    inside = _line(cells, rng) if rng.random() < 0.5 else _lone(cells, rng)
    return np.where(inside, 0, rng.choice(_OUTSIDE))


def _scattered(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    low, high = np.sort(rng.integers(0, NOTHING + 1, 2))
    return np.where(rng.random(cells) < rng.random(), high, low)


_KINDS: dict[_Kind, float] = {_region: 1 / 3, _clouds: 1 / 6, _narrow: 1 / 4, _scattered: 1 / 4}
"""Chance of each."""


def _solid(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    """A rectangle or an ellipse, bool [h, w]; it may reach beyond the border, and has a cell at least."""
    centre = rng.random(2) * cells
    half = rng.uniform(0.15, 0.6, 2) * cells
    i, j = (
        np.abs(np.arange(size) + 0.5 - at) / max(reach, 0.5)
        for size, at, reach in zip(cells, centre, half, strict=True)
    )
    far = np.maximum.outer(i, j) if rng.random() < 0.5 else np.hypot.outer(i, j)
    inside = far <= 1
    inside[tuple(centre.astype(int))] = True
    return inside


def _line(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    """From one cell to another, as a road or a river crosses a map."""
    ends = [rng.integers(0, size, 2) for size in cells]
    steps = max(abs(b - a) for a, b in ends) + 1
    inside = np.zeros(cells, bool)
    inside[tuple(np.rint(np.linspace(a, b, steps)).astype(int) for a, b in ends)] = True
    return inside


def _lone(cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    """Cells here and there, one at least."""
    inside = rng.random(cells) < _LONE
    inside[tuple(rng.integers(0, size) for size in cells)] = True
    return inside
