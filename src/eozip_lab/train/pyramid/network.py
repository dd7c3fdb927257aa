"""The context network of the pyramid codecs as it is trained: the codec's numbers, with gradients.

On the way forward every value is rounded to its grid as `eozip.codecs.pyramid.context` defines it, so that in float32 the
means and table rows are those of the codec bit for bit; on the way back rounding is let through (straight-through).

The transform, the order of levels and planes, and the two checkerboard passes are those of `eozip.codecs.pyramid.traverse`.
What is sent beside the details (bases, means, strengths) is counted by a rough rule, the same for any weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.level_map import lowest
from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.coarseness import OCTAVES, Coarse
from eozip.codecs.pyramid.context import FEATURE, LEVELS, VALUE
from eozip.codecs.pyramid.side import DEAD, SIDE_MIN, strengths_of
from eozip_lab.train.pyramid.operations import PREDICTION, bits_and_slopes, rounded, value
from eozip_lab.train.pyramid.planes import (
    DETAILS,
    SIBLINGS,
    Octaves,
    Planes,
    Stage,
    Staircases,
    Weights,
)
from eozip_lab.train.pyramid.quantisers import Quantise, in_dead_zone, in_steps
from eozip_lab.train.pyramid.transforms import along, analyse, analysed, back, principal, synthesise

RIDGE, RIDGE_FIXED = 0.1, 60.0  # squared steps, a sample and in all, of the fit to references
_LARGEST = float(1 << 27)
DOUBT = 6.0  # squared steps around a cell that speak for what they predict as it is


class Net(nn.Module):
    """The networks of all levels."""

    def __init__(self, width: int = 32, bfloat16: bool = False) -> None:
        super().__init__()
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.functions = Staircases(dtype)
        self.stages = nn.ModuleList([Stage(width, self.functions, dtype) for _ in range(LEVELS)])


_LN2_HALF = math.log(2) / 2


def bits_of(symbols: Tensor, scale: Tensor) -> Tensor:
    """Bits of symbols under logistic laws of mean 0."""
    return bits_and_slopes(in_steps(symbols), scale)[0]


@dataclass(frozen=True)
class References:
    """Pictures that are known where others are coded: other dates of the same place, or a coarser quality of the same.

    Attributes:
        groups: DN [B, R, C, h, w], finest first, as the groups to code.
        steps: quantisation steps in DN that they were coded with, [B, R].
    """

    groups: Sequence[Tensor]
    steps: Tensor

    def remainders(self, count: int, step: Tensor) -> list[Tensor]:
        """Remainders of decoded pictures, about, of all levels: int32 [B, R, C, 3, h, w] in 1/64 step, finest first.

        Args:
            count: of coarse levels beyond the groups'.
            step: of the pictures to code, [B].
        """
        b, r = self.steps.shape
        picture, found, sizes = analysed([g.flatten(0, 1) for g in self.groups])
        for _ in range(count):
            sizes.append((picture.shape[-2], picture.shape[-1]))
            picture, own = analyse(picture)
            found.append(own)
        own_unit = self.steps.flatten()[:, None, None, None, None]
        unit = step.repeat_interleave(r)[:, None, None, None] / VALUE
        made = []
        for details, size in zip(found[::-1], sizes[::-1], strict=True):
            basis = principal(details)  # each level is quantised under a basis of its own
            decoded = back(basis, in_dead_zone(along(basis, details) / own_unit) * own_unit)
            picture = synthesise(picture[:, : details.shape[1]], decoded, size)
            made.append(torch.round(picture / unit).clamp(-_LARGEST, _LARGEST).int())
        return [torch.from_numpy(haar.remainders(p.numpy())).unflatten(0, (b, r)) for p in made[::-1]]


@dataclass(frozen=True)
class Reference:
    """What references say of one level, in the planes that are coded.

    Attributes:
        predicted: details in steps [B, K, 3, h, w].
        remainders: what of it references tell beyond what the picture below does, alike.
        missed: how far the same prediction was off one level below, in steps, [B, K, 3, h / 2, w / 2].
        activity: how much there is in the references, in steps, [B, 1, 1, h, w].
    """

    predicted: Tensor
    remainders: Tensor
    missed: Tensor
    activity: Tensor


def predicted(picture: Tensor, below: Tensor, here: Tensor) -> Reference:
    """The details that references predict: the linear map that fits one level below, applied here.

    Args:
        picture: decoded picture below [B, K, h, w], multiples of 1/64 step.
        below: remainders of the references' pictures of its size, int32 [B, R, C, 3, h / 2, w / 2] in 1/64 step.
        here: those of the references' pictures at this level, [B, R, C, 3, h, w].
    """
    units = (picture * VALUE).int().numpy()
    expected = torch.from_numpy(haar.interpolated(units)).float() / VALUE
    own = torch.from_numpy(haar.remainders(units)).float() / VALUE
    below, here = (v.flatten(1, 2).float() / VALUE for v in (below, here))
    x, y = below.flatten(2).double(), own.flatten(2).double()
    ridge = RIDGE * x.shape[2] + RIDGE_FIXED
    gram = x @ x.transpose(1, 2) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    fit = torch.linalg.solve(gram, x @ y.transpose(1, 2)).transpose(1, 2)
    fit = torch.round(fit * 256).clamp(-2048, 2048) / 256
    seen = (fit @ x).float().view_as(own)
    there = (fit.float() @ here.flatten(2)).view_as(expected)
    share = _share(own, seen)
    told = value(there * _above(share, there.shape[-2:]))
    activity = torch.floor(here.abs().sum((1, 2)) * (4 * VALUE / here.shape[1])) / VALUE
    return Reference(expected + told, told, own - seen * share, activity[:, None, None])


def _above(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Each cell's value for the 2 x 2 above it."""
    return cells.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : shape[0], : shape[1]]


def _share(own: Tensor, seen: Tensor) -> Tensor:
    """How much of what references tell holds around each cell of the level below: [B, K, 1, h, w]."""
    y, s = own.clamp(-PREDICTION, PREDICTION), seen.clamp(-PREDICTION, PREDICTION)
    both, own = (9 * F.avg_pool2d((v * s).sum(2), 3, 1, 1) for v in (y, s))
    return (torch.round((both + DOUBT) / (own + DOUBT) * 256) / 256).clamp(0, 1.5)[:, :, None]


@dataclass
class Traversal:
    """One pass over a batch of groups.

    Attributes:
        net: the network.
        step: quantisation steps in DN, [B].
        quantise: residuals to what is decoded.
        in_turn: planes one after the other, each seeing the decoded ones before it, as the codec does; else all at
            once, seeing roundings of the true ones.
        references: what is known already; None: each example by itself.
        levels: uint8 [B, h, w] of the finest group's cells, how much more coarsely they are coded; None: nowhere.
        bits, squares: bits and squared errors in steps, with a map in its cells' steps, [B], as the levels go by.
    """

    net: Net
    step: Tensor
    quantise: Quantise
    in_turn: bool = False
    references: References | None = None
    levels: np.ndarray | None = None
    bits: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    _weights: dict[int, Weights] = field(default_factory=dict)

    def run(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """Decoded groups [B, C, h, w] in DN of groups in DN, finest first, each on half the grid of the one before."""
        below, details, sizes = analysed(groups)
        depth, unit = len(groups), self.step[:, None, None, None]
        self._known = self._of_references(depth, below.shape)
        mean = below.mean((-1, -2), keepdim=True)
        basis = principal(below - mean)
        planes = along(basis, below - mean) / unit
        self._count(10 * below.shape[1] + self._basis_bits(planes.square().mean((-1, -2))))
        picture, parents = self._pyramid(planes, depth)
        bands = back(basis, picture * unit) + mean
        parents = None if parents is None else back(basis, parents * unit[..., None])
        done = []
        for level in reversed(range(depth)):
            count = details[level].shape[1]
            done.append(bands[:, count:])
            parents = None if parents is None else parents[:, :count]
            bands, parents = self._own_basis(level, bands[:, :count], parents, details[level], sizes[level])
        return [*done[1:], bands][::-1]

    @torch.no_grad()
    def _of_references(self, depth: int, below: torch.Size) -> list[Tensor]:
        """Remainders of references, finest level first; none without references."""
        if self.references is None:
            return []
        return self.references.remainders(len(haar.sizes((below[-2], below[-1]))), self.step)

    def _count(self, bits: Tensor) -> None:
        self.bits = self.bits + bits

    def _basis_bits(self, variance: Tensor) -> Tensor:
        """About what the columns [B, C] of a basis cost, from the planes' variances in steps squared."""
        bits = torch.log2((4 * variance.clamp(min=0).sqrt()).clamp(min=1) + 1)
        return variance.shape[1] * bits.sum(1)

    def _pyramid(self, planes: Tensor, depth: int) -> tuple[Tensor, Tensor | None]:
        """All bands together, from one level below the coarsest grid down to a few cells, and up again."""
        sizes, details = haar.sizes(tuple(planes.shape[-2:])), []
        for _ in sizes:
            planes, found = analyse(planes)
            details.append(found)
        picture, parents = self._top(planes), None
        for j in reversed(range(len(sizes))):
            parents = self.details(depth + j, picture, parents, details[j], sizes[j])
            picture = _on_grid(synthesise(picture, parents, sizes[j]))
        return picture, parents

    @torch.no_grad()
    def _top(self, planes: Tensor) -> Tensor:
        mean = torch.round(planes.mean((-1, -2), keepdim=True))
        symbols = torch.round(planes - mean)
        scale = (0.7 * symbols.abs().mean((-1, -2), keepdim=True) + 0.1).log()
        self._count(bits_of(symbols, scale).sum((1, 2, 3)) + 10 * planes.shape[1])
        self.squares = self.squares + (planes - mean - symbols).square().sum((1, 2, 3))
        return mean + symbols

    def _own_basis(
        self, level: int, bands: Tensor, parents: Tensor | None, details: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """One level up under a basis of its own, all in DN."""
        unit = self.step[:, None, None, None]
        basis = principal(details)
        planes = along(basis, details) / unit[..., None]
        self._count(self._basis_bits(planes.square().mean((-1, -2, -3))))
        below = _on_grid(along(basis, bands) / unit)
        above = None if parents is None else along(basis, parents) / unit[..., None]
        found = back(basis, self.details(level, below, above, planes, size) * unit[..., None])
        return synthesise(bands, found, size), found

    def details(
        self, level: int, below: Tensor, parents: Tensor | None, wanted: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Details of one level in steps, [B, K, 3, h, w], where those of the picture of this height and width are wanted.

        Args:
            level: 0 for the finest grid.
            below: decoded planes of the level below, [B, K, h, w], multiples of 1/64.
            parents: decoded details of the level below, or None.
            wanted: [B, K, 3, h, w].
            size: H, W.
        """
        one = self._level(level, below, parents, wanted, haar.coded(size))
        self._count((1.5 if self.references is None else 0.8) * DETAILS * wanted.shape[1])
        decoded = self._planes_in_turn(one) if self.in_turn else self._planes(one)
        return decoded.detach()

    def _level(
        self, level: int, below: Tensor, parents: Tensor | None, wanted: Tensor, coded: np.ndarray
    ) -> Level:
        coarse = self._coarse(level)
        octaves = None if coarse is None else Octaves.of(coarse)
        strengths = self._strengths(level, wanted, coded, coarse)
        alive = (strengths > DEAD)[..., None, None] & torch.from_numpy(coded)
        reference = None if parents is None else self._reference(level, below)
        constant = self._constant(strengths, level, reference is not None, coarse is not None)
        return Level(
            self.net.stages[min(level, LEVELS - 1)],
            self._weights_at(min(level, LEVELS - 1)),
            below,
            self._given(level, parents, reference, octaves, wanted.shape),
            constant,
            wanted,
            alive,
            None if reference is None else reference.predicted,
            octaves,
        )

    def _strengths(self, level: int, wanted: Tensor, coded: np.ndarray, coarse: Coarse | None) -> Tensor:
        """What side information says of a level's planes, int32 [B, K, 3]."""
        exists = np.broadcast_to(coded.any((1, 2)), wanted.shape[:3])
        counts = None if coarse is None else coarse.inverse
        return torch.from_numpy(strengths_of(wanted.numpy(), coded, exists, counts))

    def _weights_at(self, stage: int) -> Weights:
        """Rounded once a step, whatever number of levels shares them."""
        if stage not in self._weights:
            self._weights[stage] = self.net.stages[stage].weights()
        return self._weights[stage]

    def _coarse(self, level: int) -> Coarse | None:
        return None if self.levels is None else Coarse(lowest(self.levels, 2 << level))

    @torch.no_grad()
    def _reference(self, level: int, picture: Tensor) -> Reference | None:
        if self.references is None:
            return None
        here, below = self._known[level : level + 2]
        return predicted(picture, below[:, :, : here.shape[2]], here)

    def _given(
        self,
        level: int,
        parents: Tensor | None,
        reference: Reference | None,
        octaves: Octaves | None,
        shape: Sequence[int],
    ) -> Tensor:
        """Features [B, K, 9 or 19, h, w] of parents, with room for siblings, and of references."""
        functions, size = self.net.functions, shape[-2:]
        above = None if octaves is None else Octaves.of(Coarse(lowest(self.levels, 4 << level)))
        out = torch.zeros(*shape[:2], 9 if reference is None else 19, *size, dtype=functions.squash.dtype)
        if parents is not None:
            out[:, :, :DETAILS] = _above(functions.features(_seen(parents, above)), size)
        if reference is not None:
            told = out[:, :, DETAILS + SIBLINGS :]
            told[:, :, :DETAILS] = functions.features(_seen(reference.predicted, octaves))
            told[:, :, DETAILS : 2 * DETAILS] = functions.features(
                _seen(reference.remainders, octaves)
            ).abs_()
            missed = functions.features(_seen(reference.missed, above)).abs_()
            told[:, :, 2 * DETAILS : 3 * DETAILS] = _above(missed, size)
            told[:, :, 3 * DETAILS :] = functions.features(_seen(reference.activity, octaves))
        return out

    def _planes(self, one: Level) -> Tensor:
        """All planes at once; siblings are known by what they would be rounded to by themselves."""
        now = self.net.functions.features(one.alone()).float()
        strongest = last = torch.zeros_like(now[:, 0])
        for k in range(now.shape[1]):
            one.tell(k, strongest, last)
            strongest, last = _strongest(strongest, now[:, k]), now[:, k]
        return self._coded(one, one.all_planes(), None).view_as(one.wanted)

    def _planes_in_turn(self, one: Level) -> Tensor:
        """Plane after plane, as the codec goes."""
        strongest = last = torch.zeros_like(one.wanted[:, 0])
        found = []
        for k in range(one.wanted.shape[1]):
            one.tell(k, strongest, last)
            found.append(self._coded(one, one.plane(k), k))
            last = self.net.functions.features(_seen(found[-1], one.octaves)).float()
            strongest = _strongest(strongest, last)
        return torch.stack(found, 1)

    def _coded(self, one: Level, planes: Planes, number: int | None) -> Tensor:
        """Decoded details of planes, [N, 3, h, w]; those that are not coded cost nothing, and their squares count.

        `number`: of the plane, if it is one.
        """
        is_alive = planes.alive.flatten(1).any(1)
        kept = torch.nonzero(is_alive)[:, 0]
        kept = kept if len(kept) else torch.zeros(1, dtype=torch.int64)
        found, bits, squares = one.stage.code(one.weights, planes.some(kept), self.quantise)
        left = planes.in_units().square().flatten(1).sum(1)
        self._count(torch.zeros_like(left).index_copy(0, kept, bits).view(len(self.step), -1).sum(1))
        self.squares = self.squares + left.index_copy(0, kept, squares).view(len(self.step), -1).sum(1)
        return torch.zeros_like(planes.wanted).index_copy_(0, kept, found)

    def _constant(self, strengths: Tensor, level: int, is_told: bool, has_map: bool) -> Tensor:
        """What is the same for all cells of a plane: [B, K, 3] -> [B, K, 8]; with a map by octave, [B, K, 8, 8]."""
        b, k = strengths.shape[:2]
        brightness = rounded((torch.log(self.step) - 4) / 2, FEATURE, -4.0, 4.0).view(b, 1, 1)
        known = strengths.float()
        if has_map:
            octaves = torch.from_numpy(OCTAVES).float()
            known = known[:, :, None] - 2 * octaves[:, None]
            darker = torch.round(octaves * (_LN2_HALF * FEATURE)) / FEATURE
            brightness = (brightness + darker).clamp(max=4.0)
        known = torch.round(known.clamp(min=SIDE_MIN) * (_LN2_HALF * FEATURE)) / FEATURE
        number = (torch.arange(k) / 4).view(1, k, 1)
        flags = (float(is_told), number, brightness, 1.0, min(level, 6) / 2)
        shape = known.shape[:-1] if has_map else (b, k, 1)
        parts = [torch.as_tensor(v).expand(shape) for v in flags]
        told = torch.stack(parts, -1)
        return torch.cat([known, told if has_map else told[:, :, 0]], -1)


@dataclass(frozen=True, eq=False)
class Level:
    """What is given of all planes of a level, [B, K, ...]; see `Planes`. `octaves`: of the pictures, [B, h, w]."""

    stage: Stage
    weights: Weights
    below: Tensor
    features: Tensor
    constant: Tensor
    wanted: Tensor
    alive: Tensor
    reference: Tensor | None
    octaves: Octaves | None

    def alone(self) -> Tensor:
        """What each detail would be rounded to by itself, in its octave."""
        o = self.octaves
        if o is None:
            return in_dead_zone(self.wanted) * self.alive
        own = self.wanted * (o.factor / o.unit)[:, None, None]
        return in_dead_zone(own) * (o.unit[:, None, None] * self.alive)

    def tell(self, k: int, strongest: Tensor, last: Tensor) -> None:
        """Plane k what is known of those before it."""
        room = self.features[:, k, DETAILS : DETAILS + SIBLINGS]
        room[:, :DETAILS], room[:, DETAILS:] = strongest, last

    def all_planes(self) -> Planes:
        """[B * K, ...]."""
        b, k = self.wanted.shape[:2]
        octaves = None if self.octaves is None else self.octaves.some(torch.arange(b).repeat_interleave(k))
        return Planes(**{name: v.flatten(0, 1) for name, v in self._parts().items()}, octaves=octaves)

    def plane(self, k: int) -> Planes:
        """[B, ...]."""
        return Planes(**{name: v[:, k] for name, v in self._parts().items()}, octaves=self.octaves)

    def _parts(self) -> dict[str, Tensor]:
        own = {f.name: getattr(self, f.name) for f in fields(Planes)}
        return {name: v for name, v in own.items() if isinstance(v, Tensor)}


def _seen(values: Tensor, octaves: Octaves | None) -> Tensor:
    return values if octaves is None else octaves.seen(values)


def _strongest(before: Tensor, now: Tensor) -> Tensor:
    return torch.maximum(torch.round(before * 0.75), now.abs())


def _on_grid(x: Tensor) -> Tensor:
    return torch.floor(x * VALUE + 0.5) / VALUE
