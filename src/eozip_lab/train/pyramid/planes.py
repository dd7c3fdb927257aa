"""One level's context network over a batch of planes, as it is trained: the numbers of `eozip.codecs.pyramid.context`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.level_map import NOTHING
from eozip.codecs.pyramid.coarseness import Coarse
from eozip.codecs.pyramid.context import (
    BANK,
    FEATURE,
    GATE,
    OUTPUTS,
    PASSES,
    SQUASH_REACH,
    VALUE,
    WEIGHT,
    WINDOW,
    staircases,
)
from eozip_lab.train.pyramid import operations
from eozip_lab.train.pyramid.operations import Told, rounded, value
from eozip_lab.train.pyramid.quantisers import Quantise

BIAS = WEIGHT * FEATURE  # units of biases
DETAILS = 3  # orientations
SIBLINGS = 2 * DETAILS
REFERENCES = (
    3 * DETAILS + 1
)  # predicted details, how much of them references tell, how far off below; their activity
INPUTS = BANK + DETAILS + SIBLINGS + REFERENCES
CONSTANTS = 8
DIFFERENCE = 63.0  # steps, at most
_HALF_OCTAVE = 6 / FEATURE  # in log scales
_NEVER = float(1 << 20)  # what a symbol counts where none is sent


class Staircases(nn.Module):
    """The codec's functions of one integer argument, with the slopes of what they are rounded from."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        stored = {name: torch.from_numpy(v.astype(np.float32)) for name, v in staircases().items()}
        side, steps = stored["squash"], torch.arange(SQUASH_REACH + 1) / VALUE
        slopes = (1.5 * FEATURE) / (1 + steps) * (1.5 * torch.log1p(steps) <= side[-1] / FEATURE)
        outputs = torch.arange(-127, 128) / FEATURE
        buffers = {
            "squash": torch.cat([-side.flip(0)[:-1], side]).to(dtype),
            "slopes": torch.cat([slopes.flip(0)[:-1], slopes]),
            "gates": stored["tanh"] / GATE,
            "gate_slopes": (1 - torch.tanh(outputs + 0.5).square()) / FEATURE,
        }
        for name, table in buffers.items():
            self.register_buffer(name, table, persistent=False)

    def features(self, steps: Tensor) -> Tensor:
        """Values in steps as features, in 1/16."""
        return operations.squashed(steps, self.squash, self.slopes)


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Tensors of one stage, by the names under which they are stored."""
    found: dict[str, tuple[int, ...]] = {
        "window": (BANK + DETAILS, WINDOW**2 - 1),
        "trunk": (width, INPUTS, 3, 3),
        "trunk_bias": (width,),
        "constant": (width, CONSTANTS),
        "known": (width, 2 * DETAILS, 3, 3),
        "known_bias": (width,),
        "neighbours": (DETAILS, DETAILS, 3, 3),
    }
    for k in range(PASSES):
        for name, rows in (("first", width), ("second", width), ("out", OUTPUTS)):
            found |= {f"{name}{k}": (rows, width), f"{name}{k}_bias": (rows,)}
    return found


def _begun(name: str, shape: tuple[int, ...]) -> Tensor:
    """Random layers, and predictions of zero at the scale that the side information says."""
    if name == "window":
        return torch.cat([0.1 * torch.randn(BANK, shape[1]), torch.zeros(DETAILS, shape[1])])
    if name == "neighbours" or name.startswith("out") or name.endswith("_bias"):
        return torch.zeros(shape)
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound) * (0.5 if name in ("trunk", "known") else 1.0)


@dataclass(frozen=True, eq=False)
class Octaves:
    """How much more coarsely the cells of some planes are coded; see `eozip.codecs.pyramid.coarseness`.

    Attributes:
        number: of the octave, int64 [N, h, w].
        factor: 2**-number, float32 [N, h, w].
        unit: what a symbol counts, in the octave.
        odd: 1 where a half octave is left, else 0.
        sent: 1 where there are symbols, else 0.
    """

    number: Tensor
    factor: Tensor
    unit: Tensor
    odd: Tensor
    sent: Tensor

    @classmethod
    def of(cls, coarse: Coarse) -> Self:
        """The codec's, as tensors."""
        sent = torch.from_numpy((coarse.levels != NOTHING).astype(np.float32))
        unit = torch.from_numpy(coarse.units[:, 0].astype(np.float32)) / VALUE
        number = torch.from_numpy(coarse.octaves.astype(np.int64))
        odd = torch.from_numpy((coarse.levels & 1).astype(np.float32))
        return cls(number, torch.exp2(-number.float()), torch.where(sent > 0, unit, _NEVER), odd, sent)

    def some(self, kept: Tensor) -> Self:
        """Those of some planes."""
        return type(self)(*(getattr(self, f.name).index_select(0, kept) for f in fields(self)))

    def seen(self, values: Tensor) -> Tensor:
        """Values in steps [N, ..., h, w], each in its cell's octave and rounded."""
        between = (1,) * (values.dim() - 3)
        n, h, w = self.factor.shape
        return torch.round(values * (self.factor * VALUE).view(n, *between, h, w)).div_(VALUE)


@dataclass(frozen=True, eq=False)
class Planes:
    """What is given of some planes of one level.

    Attributes:
        below: decoded picture, [N, h, w] in steps.
        features: of parents and siblings, with references also theirs: [N, 9 or 19, h, w] in 1/16.
        constant: what is the same for all cells, [N, 8], with a map by octave [N, 8, 8]; the first three are the log
            scales that the side information says.
        wanted: details, [N, 3, h, w] in steps.
        alive: bool [N, 3, h, w], which of them are coded.
        reference: what references predict, [N, 3, h, w] in steps, or None.
        octaves: where cells are coded more coarsely; None: nowhere.
    """

    below: Tensor
    features: Tensor
    constant: Tensor
    wanted: Tensor
    alive: Tensor
    reference: Tensor | None = None
    octaves: Octaves | None = None

    def some(self, kept: Tensor) -> Self:
        """Some of the planes."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = {k: v.index_select(0, kept) for k, v in own.items() if isinstance(v, Tensor)}
        return type(self)(**parts, octaves=None if self.octaves is None else self.octaves.some(kept))

    def told(self) -> tuple[Told, Told]:
        """What is given of the cells of each colour, in the units of their octaves."""
        o, scale = self.octaves, self.constant[..., :DETAILS]
        wanted, reference = self.wanted, self.reference
        if o is not None:
            wanted = wanted * o.factor[:, None]
            reference = None if reference is None else o.seen(reference)
        here = self.alive.float()
        cells: list[Tensor | None] = [
            _flat(wanted),
            _flat(here),
            _flat(here if o is None else here * o.sent[:, None]),
        ]
        cells.append(None if reference is None else _flat(reference))
        cells += [None, None] if o is None else [_flat(self._scale_by_cell(o)), o.unit.flatten(1)]
        board = self.board
        found = []
        for own in board.order:
            w, h, s, r, by_cell, unit = (None if v is None else v.index_select(-1, own) for v in cells)
            found.append(Told(w, h, s, scale.t()[..., None] if by_cell is None else by_cell, r, unit))
        return found[0], found[1]

    def _scale_by_cell(self, o: Octaves) -> Tensor:
        return self.by_octave(self.constant[..., :DETAILS], o) - _HALF_OCTAVE * o.odd[:, None]

    @staticmethod
    def by_octave(values: Tensor, o: Octaves) -> Tensor:
        """From values by octave [N, 8, K] those of the cells: [N, K, h, w]."""
        n, _, k = values.shape
        index = o.number.flatten(1)[..., None].expand(-1, -1, k)
        return values.gather(1, index).transpose(1, 2).view(n, k, *o.number.shape[1:])

    def in_units(self) -> Tensor:
        """Details by what symbols count where they are."""
        o = self.octaves
        return self.wanted if o is None else self.wanted * (o.factor / o.unit)[:, None]

    @property
    def board(self) -> operations.Checkerboard:
        return operations.checkerboard(*self.below.shape[1:])


def _flat(v: Tensor) -> Tensor:
    """[N, 3, h, w] -> [3, N, P]."""
    return v.transpose(0, 1).flatten(2)


class Weights:
    """Those of one stage, as the codec will have them, with layers in the type that they run in."""

    def __init__(self, trained: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        biases = {name: v for name, v in trained.items() if name.endswith("_bias")}
        others = {name: v for name, v in trained.items() if name not in biases}
        self._own = _on_grid(others, WEIGHT, 127 / WEIGHT) | _on_grid(biases, BIAS, 8.0)
        layers = [name for name in biases if name.removesuffix("_bias")[-1].isdigit()]
        self._layers = {name: (self._own[name] * FEATURE).to(dtype) for name in layers}
        self._layers |= {
            name: self._own[name].to(dtype) for name in (bias.removesuffix("_bias") for bias in layers)
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._own[name]

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Weights and biases of a layer whose inputs and outputs are in 1/16."""
        return self._layers[name], self._layers[f"{name}_bias"]


def _on_grid(trained: Mapping[str, Tensor], units: float, most: float) -> dict[str, Tensor]:
    """Tensors rounded to 1 / units within -most .. most, all at once."""
    flat = rounded(torch.cat([v.flatten() for v in trained.values()]), units, -most, most)
    parts = flat.split([v.numel() for v in trained.values()])
    return {name: part.view(v.shape) for (name, v), part in zip(trained.items(), parts, strict=True)}


class Stage(nn.Module):
    """One level's network over a batch of planes."""

    def __init__(self, width: int, functions: Staircases, dtype: torch.dtype) -> None:
        super().__init__()
        self.functions, self.dtype = functions, dtype
        self.w = nn.ParameterDict(
            {name: nn.Parameter(_begun(name, shape)) for name, shape in shapes(width).items()}
        )

    def weights(self) -> Weights:
        """For all levels of a step."""
        return Weights(dict(self.w.items()), self.dtype)

    def code(self, w: Weights, planes: Planes, quantise: Quantise) -> tuple[Tensor, Tensor, Tensor]:
        """Details of some planes in two passes: decoded [N, 3, h, w] in steps, 0 where none is coded; bits and squares [N].

        Args:
            w: what `weights` gave.
            planes: what is given.
            quantise: see there.
        """
        board = planes.board
        sums, below = self.start(w, planes)
        bits, squares, decoded = 0.0, 0.0, []
        for color, told in enumerate(planes.told()):
            known, near = None, None
            if color:
                known, near = self.known(w, planes, decoded[0])
            fixed = self.fixed(w, planes, color)
            out = self.settled(w, color, operations.begun(sums[color], fixed, known))
            tables = (self.functions.gates, self.functions.gate_slopes)
            own, b, s = operations.coded(out, below[color], near, told, tables, quantise)
            bits, squares = bits + b, squares + s
            decoded.append(own.detach())
        found = (
            torch.cat(decoded, 2).index_select(2, board.inverse).transpose(0, 1).reshape(planes.wanted.shape)
        )
        if planes.octaves is not None:
            found = found / planes.octaves.factor[:, None]
        return found, bits, squares

    def start(self, w: Weights, planes: Planes) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Sums that features give, rows [N, P, width], and predictions from the picture below [3, N, P]: of each colour."""
        n, h, width = planes.below.shape
        factor = None if planes.octaves is None else planes.octaves.factor
        filtered = (w["window"] @ _differences(planes.below, factor).flatten(1)).view(-1, n, h, width)
        bank = self.functions.features(filtered[:BANK])
        kernels = w["trunk"][:, : BANK + planes.features.shape[1]].to(self.dtype)
        sums = operations.trunk(bank, planes.features, kernels)
        predicted = value(filtered[BANK:]).flatten(2)
        board = planes.board
        return operations.apart(sums, 1, board), operations.apart(predicted, 2, board)

    def fixed(self, w: Weights, planes: Planes, color: int) -> Tensor:
        """What is the same for all cells of a plane, in 1/16: [N, 1, width]; with a map of each cell of the colour."""
        bias = w["trunk_bias"] + w["known_bias"] if color else w["trunk_bias"]
        fixed = FEATURE * F.linear(planes.constant, w["constant"], bias)
        if planes.octaves is None:
            return fixed[:, None]
        n, count, width = fixed.shape
        own = planes.octaves.number.flatten(1).index_select(1, planes.board.order[color])
        at = own + count * torch.arange(n)[:, None]
        return F.embedding(at, fixed.reshape(n * count, width))

    def known(self, w: Weights, planes: Planes, first: Tensor) -> tuple[Tensor, Tensor]:
        """What details of the first colour [3, N, P0] give to the second: rows [N, P1, width] and predictions [3, N, P1]."""
        board, o = planes.board, planes.octaves
        f = self.functions.features(first)
        around = operations.beside(torch.cat([f, f.abs()]), board)
        n, count = around.shape[1:]
        kernels = operations.of_taps(w["known"]).to(self.dtype)
        rows = (around.flatten(1).t() @ kernels.t()).view(n, count, -1)
        steps = first if o is None else first / o.factor.flatten(1).index_select(1, board.order[0])
        beside = operations.beside(steps.clamp(-DIFFERENCE, DIFFERENCE), board).flatten(1)
        near = value(operations.of_taps(w["neighbours"]) @ beside).view(DETAILS, n, count)
        if o is not None:
            factor = o.factor.flatten(1).index_select(1, board.order[1])
            near = rounded(near * factor, VALUE, -math.inf, math.inf)
        return rows, near

    def settled(self, w: Weights, color: int, v: Tensor) -> Tensor:
        """Outputs [12, N * P] of the first activations."""
        v = v.flatten(0, 1)
        for name in ("first", "second"):
            v = operations.onwards(v, F.linear(v, *w.layer(f"{name}{color}")))
        return operations.outputs(v, *w.layer(f"out{color}"))


def _differences(below: Tensor, factor: Tensor | None) -> Tensor:
    """Of the 24 cells around each from it: [N, h, w] -> [24, N, h, w]; a factor brings them into its octave."""
    n, h, w = below.shape
    reach = WINDOW // 2
    padded = F.pad(below[:, None], (reach, reach, reach, reach), mode="replicate")[:, 0]
    places = [(y, x) for y in range(WINDOW) for x in range(WINDOW) if (y, x) != (reach, reach)]
    out = torch.empty(len(places), n, h, w)
    for own, (y, x) in zip(out, places, strict=True):
        torch.sub(padded[:, y : y + h, x : x + w], below, out=own)
    if factor is not None:
        out.mul_(factor * VALUE).round_().div_(VALUE)
    return out.clamp_(-DIFFERENCE, DIFFERENCE)
