"""Which bands lie on which grid, and how groups of bands form ladders whose grids are halves of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid import grids
from eozip.codecs.pyramid.grids import Grid
from eozip.codecs.pyramid.side import Side
from eozip.errors import FormatError

NATIVE = grids.KERNELS  # in place of a kernel: the caller gave the cells themselves
LARGEST_FACTOR = 64
GROUPS = 8


@dataclass(frozen=True)
class Group:
    """Bands of one grid.

    Attributes:
        bands: their positions.
        grid: how pixels come from cells; None: they are the cells.
    """

    bands: tuple[int, ...]
    grid: Grid | None

    @property
    def factor(self) -> int:
        """Pixels of the finest grid per cell, each way."""
        return 1 if self.grid is None else self.grid.factor

    @property
    def is_native(self) -> bool:
        """Whether its cells are what the caller gave, interpolated by nobody."""
        return self.grid is None or self.grid.kernel == NATIVE


@dataclass(frozen=True)
class Canvas:
    """Where a group's cells lie: its pixels begin `before` cells after the first one.

    Attributes:
        before: cells before the first pixel's own cell, down and across.
        shape: cells, down and across.
    """

    before: tuple[int, int]
    shape: tuple[int, int]


def canvas(group: Group, height: int, width: int) -> Canvas:
    """The cells of a group in a chunk of so many pixels of the finest grid."""
    grid = group.grid
    if grid is None:
        return Canvas((0, 0), (height, width))
    if grid.kernel == NATIVE:
        return Canvas((0, 0), (-(-height // grid.factor), -(-width // grid.factor)))
    (top, rows), (left, columns) = grid.cells(height, 0), grid.cells(width, 1)
    return Canvas((-top, -left), (rows, columns))


def ladders(groups: Sequence[Group], height: int, width: int) -> list[list[tuple[Group, Canvas]]]:
    """Groups that are coded together, finest first: factors that double, on grids that begin at the same pixels.

    A finer group's canvas grows to twice that of the next coarser one.
    """
    placed = [(g, canvas(g, height, width)) for g in sorted(groups, key=lambda g: g.factor)]
    out: list[list[tuple[Group, Canvas]]] = []
    for group, own in placed:
        fits = (
            out and group.factor == 2 * out[-1][-1][0].factor and _grown(out[-1][-1], group, own) is not None
        )
        if fits:
            for k in range(len(out[-1])):
                finer = out[-1][k][0]
                out[-1][k] = (finer, _enlarged(group, own, finer))
            out[-1].append((group, own))
        else:
            out.append([(group, own)])
    return out


def _enlarged(group: Group, own: Canvas, finer: Group) -> Canvas:
    """The canvas of a finer group that covers all cells of a coarser one."""
    ratio = group.factor // finer.factor
    if group.grid is not None and group.grid.kernel == NATIVE:
        return Canvas((0, 0), (own.shape[0] * ratio, own.shape[1] * ratio))
    phase = (0, 0) if group.grid is None else (group.grid.rows, group.grid.columns)
    before = tuple(own.before[axis] * ratio - phase[axis] // finer.factor for axis in (0, 1))
    return Canvas((before[0], before[1]), (own.shape[0] * ratio, own.shape[1] * ratio))


def _grown(finest: tuple[Group, Canvas], group: Group, own: Canvas) -> Canvas | None:
    """The finer group's canvas beside a coarser one; None where it would not cover its own cells."""
    finer, old = finest
    new = _enlarged(group, own, finer)
    covers = all(
        new.before[axis] >= old.before[axis]
        and new.shape[axis] - new.before[axis] >= old.shape[axis] - old.before[axis]
        for axis in (0, 1)
    )
    return new if covers and finer.is_native else None


def grouped(found: Sequence[Grid | None]) -> list[Group]:
    """Bands by their grid, in the order of the bands."""
    return [
        Group(tuple(k for k, own in enumerate(found) if own == grid), grid) for grid in dict.fromkeys(found)
    ]


def code_groups(side: Side, groups: Sequence[Group] | None, bands: int) -> list[Group]:
    """Send or read which bands lie on which grid.

    Raises:
        FormatError: a grid that no encoder writes.
    """
    sent = None if groups is None else np.array([len(groups)])
    count = int(side.bounded(sent, 1, spread=1, first=1, last=GROUPS, middle=1)[0])
    owner = None
    if groups is not None:
        owner = np.array([next(i for i, g in enumerate(groups) if band in g.bands) for band in range(bands)])
    owner = (
        side.bounded(owner, bands, spread=0.9, first=0, last=count - 1, middle=count // 2)
        if count > 1
        else np.zeros(bands, int)
    )
    grids_sent = [None] * count if groups is None else [g.grid for g in groups]
    read = [_code_grid(side, grid, groups is not None) for grid in grids_sent]
    out = [Group(tuple(np.flatnonzero(owner == i).tolist()), grid) for i, grid in enumerate(read)]
    if not all(g.bands for g in out):
        raise FormatError("layout: a grid without bands; the bytes are damaged")
    return out


def _code_grid(side: Side, grid: Grid | None, sending: bool) -> Grid | None:
    def one(value: int | None, last: int) -> int:
        sent = np.array([value]) if sending else None
        return int(side.bounded(sent, 1, spread=2, first=0, last=last)[0])

    factor = one(None if not sending else 1 if grid is None else grid.factor, LARGEST_FACTOR)
    if factor < 2:
        return None
    kernel = one(grid.kernel if grid else None, NATIVE)
    if kernel == NATIVE:
        return Grid(NATIVE, factor, 0, 0)
    return Grid(
        kernel,
        factor,
        one(grid.rows if grid else None, factor - 1),
        one(grid.columns if grid else None, factor - 1),
    )
