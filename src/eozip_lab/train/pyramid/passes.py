"""Networks of flextec-small's later passes as they are trained: several passes of one crop, each at half the step.

The first pass is coded by the networks of tec-elic-small, which stay as they are. A later one knows intervals of all details
(`narrowing`), and is told what `eozip.codecs.pyramid.earlier` says of the pass before. Masked training: levels of the last
pass may be missing, and are shown by what the levels below let expect of them; references may be coarser than the date.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.pyramid.coarseness import Coarse
from eozip.codecs.pyramid.context import BANK, LEVELS, VALUE
from eozip.codecs.pyramid.earlier import CHANNELS
from eozip.codecs.pyramid.intervals import laws
from eozip.codecs.pyramid.side import DEAD, SIDE_MAX
from eozip.entropy.range_coder import Tables
from eozip_lab.train.pyramid import narrowing, operations
from eozip_lab.train.pyramid.data import Batch
from eozip_lab.train.pyramid.narrowing import Cells
from eozip_lab.train.pyramid.network import Level, Net, References, Traversal
from eozip_lab.train.pyramid.operations import value
from eozip_lab.train.pyramid.planes import (
    DETAILS,
    DIFFERENCE,
    SIBLINGS,
    Planes,
    Stage,
    Staircases,
    Weights,
)
from eozip_lab.train.pyramid.quantisers import Quantised

_OWN = BANK + DETAILS + SIBLINGS  # channels of a trunk before those of the pass before


class LaterStage(Stage):
    """One level's network in later passes: of more features, and a prediction from details of the pass before."""

    def __init__(self, width: int, functions: Staircases, dtype: torch.dtype) -> None:
        super().__init__(width, functions, dtype)
        self.w["trunk"] = nn.Parameter(_wider(self.w["trunk"].detach()))
        self.w["around"] = nn.Parameter(torch.zeros(DETAILS, DETAILS, 3, 3))


class LaterNet(nn.Module):
    """The networks of all levels."""

    def __init__(self, width: int = 32, bfloat16: bool = False) -> None:
        super().__init__()
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.functions = Staircases(dtype)
        self.stages = nn.ModuleList([LaterStage(width, self.functions, dtype) for _ in range(LEVELS)])


def later_of(first: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `LaterNet` that begin as those of the first pass."""
    out = {name: _wider(v) if name.endswith("trunk") else v.clone() for name, v in first.items()}
    return out | {f"stages.{k}.w.around": torch.zeros(DETAILS, DETAILS, 3, 3) for k in range(LEVELS)}


def _wider(trunk: Tensor) -> Tensor:
    """Kernels of a trunk with room for features of the pass before."""
    room = trunk.new_zeros(len(trunk), CHANNELS, 3, 3)
    return torch.cat([trunk[:, :_OWN], room, trunk[:, _OWN:]], 1)


@dataclass(frozen=True, eq=False)
class First:
    """What the first pass is coded with.

    Attributes:
        net: its networks, which are not trained.
        zones: see `zones_of`.
    """

    net: Net
    zones: Tensor


def passes_of(
    first: First,
    net: LaterNet,
    drawn: Batch,
    depth: int,
    missing: frozenset[int] = frozenset(),
    rougher: Tensor | None = None,
) -> list[Pass]:
    """So many later passes over a batch, one after the other, the last one at the batch's step.

    Args:
        first: of the first pass.
        net: of the others.
        drawn: what is coded.
        depth: later passes.
        missing: levels that the last one lacks.
        rougher: by how much references are coarser than the pass, [B, R].
    """

    def references(step: Tensor) -> References | None:
        own = drawn.references
        if own is None:
            return None
        steps = step[:, None].expand_as(own.steps)
        return References(own.groups, steps if rougher is None else steps * rougher)

    step = drawn.step * 2**depth
    before = Pass(first.net, step, _never_asked, references=references(step), zones=first.zones)
    with torch.no_grad():
        before.run(drawn.groups)
    found = []
    for number in range(1, depth + 1):
        lacks = missing if number == depth else frozenset()
        before = before.finer(net, references(before.step / 2), lacks)
        before.run(drawn.groups)
        found.append(before)
    return found


def zones_of(tables: Tables) -> Tensor:
    """How near the mean a symbol of each row is 0, in steps."""
    return torch.from_numpy(laws(tables).zones.astype(np.float32)) / VALUE


def _never_asked(residual: Tensor, scale: Tensor, sent: Tensor) -> Quantised:
    """Passes have intervals, and never ask."""
    raise NotImplementedError


@dataclass
class Pass(Traversal):
    """One pass over a batch of groups.

    Attributes:
        zones: see `zones_of`.
        known: by level, what the pass before left, in this pass's units; None: this is the first.
        scales: by level, log scales that side information of the pass before told, [B, K, 3]; of missing levels they count.
        missing: levels of which nothing is sent.
        cells: by level, what this pass leaves.
    """

    zones: Tensor = field(kw_only=True)
    known: dict[int, Cells] | None = None
    scales: dict[int, Tensor] = field(default_factory=dict)
    missing: frozenset[int] = frozenset()
    cells: dict[int, Cells] = field(default_factory=dict)
    _now: int = 0

    def finer(
        self, net: LaterNet, references: References | None, missing: frozenset[int] = frozenset()
    ) -> Pass:
        """The next pass, not run yet."""
        known = {level: cells.finer() for level, cells in self.cells.items()}
        scales = {i: torch.where(s > DEAD, (s + 2).clamp(max=SIDE_MAX), DEAD) for i, s in self.scales.items()}
        return Pass(
            net,
            self.step / 2,
            self.quantise,
            self.in_turn,
            references,
            zones=self.zones,
            known=known,
            scales=scales,
            missing=missing,
        )

    def _strengths(self, level: int, wanted: Tensor, coded: np.ndarray, coarse: Coarse | None) -> Tensor:
        self._now = level
        if level not in self.missing:
            self.scales[level] = super()._strengths(level, wanted, coded, coarse)
        return self.scales[level]

    def _given(self, level: int, *others: object) -> Tensor:
        given = super()._given(level, *others)
        if self.known is None:
            return given
        features, cells = self.net.functions.features, self.known[level]
        own = features(cells.value)
        ahead, found = torch.zeros_like(own[:, 0]), []
        for k in reversed(range(own.shape[1])):
            found.append(ahead)
            ahead = torch.maximum(torch.round(ahead.float() * 0.75).to(own.dtype), own[:, k].abs())
        told = torch.cat([own, own.abs(), features(cells.off).abs(), torch.stack(found[::-1], 1)], 2)
        end = DETAILS + SIBLINGS
        return torch.cat([given[:, :, :end], told, given[:, :, end:]], 2)

    def _coded(self, one: Level, planes: Planes, number: int | None) -> Tensor:
        level, shape = self._now, one.wanted.shape
        known = Cells.none(shape) if self.known is None else self.known[level]
        before = known.each(lambda v: v.flatten(0, 1) if number is None else v[:, number])
        kept = torch.nonzero(planes.alive.flatten(1).any(1))[:, 0]
        kept = kept if len(kept) else torch.zeros(1, dtype=torch.int64)
        sent = torch.zeros(1, dtype=torch.bool) if level in self.missing else None
        own = before.each(lambda v: v.index_select(0, kept))
        found, bits, squares = _narrowed(one.stage, one.weights, planes.some(kept), own, sent, self.zones)
        left = planes.wanted.square().flatten(1).sum(1)
        self._count(torch.zeros_like(left).index_copy(0, kept, bits).view(len(self.step), -1).sum(1))
        self.squares = self.squares + left.index_copy(0, kept, squares).view(len(self.step), -1).sum(1)
        whole = Cells.none(planes.wanted.shape)
        for name, v in vars(found).items():
            setattr(whole, name, getattr(whole, name).index_copy(0, kept, v))
        if number is None:
            self.cells[level] = whole.each(lambda v: v.view(shape))
        else:
            cells = self.cells.setdefault(level, Cells.none(shape).each(torch.clone))
            for name, v in vars(whole).items():
                getattr(cells, name)[:, number] = v
        return whole.value


def _narrowed(
    stage: Stage, w: Weights, planes: Planes, known: Cells, sent: Tensor | None, zones: Tensor
) -> tuple[Cells, Tensor, Tensor]:
    """As `Stage.code`, in a pass: what is known of details [N, 3, h, w] then, bits and squares [N]."""
    board, around = planes.board, None
    sums, below = stage.start(w, planes)
    if isinstance(stage, LaterStage):
        kernels = w["around"] * _all_but_own()
        told = value(F.conv2d(known.value.clamp(-DIFFERENCE, DIFFERENCE), kernels, padding=1))
        around = operations.apart(told.transpose(0, 1).flatten(2), 2, board)
    tables = (stage.functions.gates, stage.functions.gate_slopes, zones)
    bits, squares, made = 0.0, 0.0, []
    for color, told in enumerate(planes.told()):
        rows, near = stage.known(w, planes, made[0].value) if color else (None, None)
        if around is not None:
            near = around[color] if near is None else near + around[color]
        out = stage.settled(w, color, operations.begun(sums[color], stage.fixed(w, planes, color), rows))
        own = known.each(lambda v, cells=board.order[color]: _flat(v).index_select(2, cells))
        is_sent = None if sent is None else sent.expand_as(told.here)
        found, b, s = narrowing.narrowed(out, below[color], near, told, own, is_sent, tables)
        bits, squares = bits + b, squares + s
        made.append(found.each(torch.detach))
    first, second = made
    whole = [
        torch.cat([getattr(first, name), v], 2).index_select(2, board.inverse).transpose(0, 1)
        for name, v in vars(second).items()
    ]
    return Cells(*(v.reshape(planes.wanted.shape) for v in whole)), bits, squares


def _flat(v: Tensor) -> Tensor:
    """[N, 3, h, w] -> [3, N, P]."""
    return v.transpose(0, 1).flatten(2)


def _all_but_own() -> Tensor:
    around = torch.ones(3, 3)
    around[1, 1] = 0
    return around
