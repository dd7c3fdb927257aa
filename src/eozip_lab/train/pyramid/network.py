"""The context network of the pyramid codecs as it is trained: the codec's numbers, with gradients.

On the way forward every value is rounded to its grid as `eozip.codecs.pyramid.context` defines it, so that in float32 the
means and table rows are those of the codec bit for bit; on the way back rounding is let through (straight-through).

The transform, the order of levels and planes, and the two checkerboard passes are those of `eozip.codecs.pyramid.traverse`.
What is sent beside the details (bases, means, strengths) is counted by a rough rule, the same for any weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.context import (
    BANK,
    FEATURE,
    GATE,
    LEVELS,
    OUTPUTS,
    PASSES,
    SQUASH_REACH,
    VALUE,
    WEIGHT,
    WINDOW,
    staircases,
)
from eozip.codecs.pyramid.side import ROWS, ROWS_PER_NAT, SCALE_MIN, SIDE_MAX, SIDE_MIN
from eozip_lab.train.pyramid.transforms import along, analyse, analysed, back, principal, synthesise

BIAS = WEIGHT * FEATURE  # units of biases
DETAILS = 3  # orientations
SIBLINGS = 2 * DETAILS
REFERENCES = 3 * DETAILS  # predicted details, magnitudes, how far the prediction was off below
INPUTS = BANK + DETAILS + SIBLINGS + REFERENCES
CONSTANTS = 8
DIFFERENCE, PREDICTION = 63.0, 256.0  # steps, at most
ACTIVATION, SMALL = 255 / FEATURE, 127 / FEATURE  # largest activation, largest feature or output
DEAD_ZONE = 0.38  # a residual of so much less than a step more than a whole one becomes that whole one
DEAD = 0.6  # steps: a plane none of whose details reaches it is not coded
LARGEST_BITS = 40.0
RIDGE, RIDGE_FIXED = 0.1, 60.0  # squared steps, a sample and in all, of the fit to references
DOUBT = 6.0  # squared steps around a cell that speak for what they predict as it is

Quantise = Callable[[Tensor, Tensor], Tensor]


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, units: float, low: float, high: float) -> Tensor:
        ctx.save_for_backward((x >= low) & (x <= high))
        return torch.round(x * units).div_(units).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


class _Replaced(torch.autograd.Function):
    """The values of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def rounded(x: Tensor, units: float, low: float, high: float) -> Tensor:
    """To the nearest multiple of 1 / units, halves to even, within low .. high."""
    return _Rounded.apply(x, units, low, high)


def _value(x: Tensor) -> Tensor:
    return rounded(x, VALUE, -PREDICTION, PREDICTION)


class Staircases(nn.Module):
    """The codec's functions of one integer argument, with the gradients of what they are rounded from."""

    def __init__(self) -> None:
        super().__init__()
        stored = {name: torch.from_numpy(v.astype(np.float32)) for name, v in staircases().items()}
        side = stored["squash"] / FEATURE
        self.register_buffer("squash", torch.cat([-side.flip(0)[:-1], side]), persistent=False)
        self.register_buffer("tanh", stored["tanh"] / GATE, persistent=False)

    def features(self, steps: Tensor) -> Tensor:
        """Values in steps, squashed to 8 bits."""
        reach = SQUASH_REACH / VALUE
        clipped = steps.float().clamp(-reach, reach)
        units = torch.round(clipped.detach() * VALUE).long() + SQUASH_REACH
        smooth = torch.sign(clipped) * (1.5 * torch.log1p(clipped.abs()))
        return _Replaced.apply(smooth.clamp(-SMALL, SMALL), self.squash[units])

    def gates(self, outputs: Tensor) -> Tensor:
        """Outputs of the network, squashed to -1 .. 1."""
        units = torch.round(outputs.detach() * FEATURE).long() + round(SMALL * FEATURE)
        return _Replaced.apply(torch.tanh(outputs + 0.5), self.tanh[units])


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


class Stage(nn.Module):
    """One level's network over a batch of planes; values in steps, [N, channels, h, w]."""

    def __init__(self, width: int, functions: Staircases) -> None:
        super().__init__()
        self.functions = functions
        self.w = nn.ParameterDict(
            {name: nn.Parameter(_begun(name, shape)) for name, shape in shapes(width).items()}
        )

    def grid(self, name: str) -> Tensor:
        """A tensor as the codec will have it."""
        if name.endswith("_bias"):
            return rounded(self.w[name], BIAS, -8.0, 8.0)
        return rounded(self.w[name], WEIGHT, -127 / WEIGHT, 127 / WEIGHT)

    def start(self, below: Tensor, features: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
        """Sums that both passes share, and the predictions [N, 3, h, w] from the picture below [N, 1, h, w]."""
        with torch.autocast(below.device.type, enabled=False):
            filtered = F.conv2d(_window(below), self.grid("window")[:, :, None, None])
            fixed = F.linear(constant, self.grid("constant"))[:, :, None, None]
        seen = torch.cat([self.functions.features(filtered[:, :BANK]), features], 1)
        trunk = self.grid("trunk")[:, : seen.shape[1]]
        shared = F.conv2d(seen, trunk, self.grid("trunk_bias"), padding=1).float() + fixed
        return shared, _value(filtered[:, BANK:])

    def step(
        self, shared: Tensor, predicted: Tensor, known: Tensor | None, reference: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Means [N, 3, h, w] and corrections of log scales of one pass.

        Args:
            shared, predicted: what `start` gave.
            known: details of the first colour, 0 elsewhere; None in the first pass.
            reference: what references predict [N, 3, h, w], or None.
        """
        number, v, near = 0, shared, None
        if known is not None:
            number, f = 1, self.functions.features(known)
            both = torch.cat([f, f.abs()], 1)
            v = v + F.conv2d(both, self.grid("known"), self.grid("known_bias"), padding=1).float()
            near = self._near(known)
        activation = partial(rounded, units=FEATURE, low=0.0, high=ACTIVATION)
        v = activation(v)
        for name in ("first", "second"):
            v = activation(v + activation(self._dense(f"{name}{number}", v)))
        out = rounded(self._dense(f"out{number}", v), FEATURE, -SMALL, SMALL)
        mean = self.functions.gates(out[:, 3:6]) * predicted
        if near is not None:
            mean = mean + self.functions.gates(out[:, 6:9]) * near
        if reference is not None:
            mean = mean + self.functions.gates(out[:, :3]) * reference
        return _value(mean), out[:, 9:]

    def _near(self, known: Tensor) -> Tensor:
        with torch.autocast(known.device.type, enabled=False):
            clipped = known.clamp(-DIFFERENCE, DIFFERENCE)
            return _value(F.conv2d(clipped, self.grid("neighbours"), padding=1))

    def _dense(self, name: str, v: Tensor) -> Tensor:
        return F.conv2d(v, self.grid(name)[:, :, None, None], self.grid(f"{name}_bias")).float()


def _window(below: Tensor) -> Tensor:
    """Differences of the 24 cells around each from it: [N, 1, h, w] -> [N, 24, h, w]."""
    h, w = below.shape[-2:]
    reach = WINDOW // 2
    padded = F.pad(below, (reach, reach, reach, reach), mode="replicate")
    places = [(y, x) for y in range(WINDOW) for x in range(WINDOW) if (y, x) != (reach, reach)]
    around = torch.cat([padded[:, :, y : y + h, x : x + w] for y, x in places], 1)
    return (around - below).clamp(-DIFFERENCE, DIFFERENCE)


class Net(nn.Module):
    """The networks of all levels."""

    def __init__(self, width: int = 32, bfloat16: bool = False) -> None:
        super().__init__()
        self.bfloat16 = bfloat16
        self.functions = Staircases()
        self.stages = nn.ModuleList([Stage(width, self.functions) for _ in range(LEVELS)])

    def planes(
        self,
        level: int,
        below: Tensor,
        features: Tensor,
        constant: Tensor,
        wanted: Tensor,
        alive: Tensor,
        reference: Tensor | None,
        quantise: Quantise,
    ) -> tuple[Tensor, Tensor]:
        """Details of some planes of one level, in two passes.

        Args:
            level: 0 for the finest grid.
            below: decoded picture [N, 1, h, w].
            features: of parents and siblings [N, 9, h, w]; with references 9 more.
            constant: [N, 8]; the first three are the log scales that the side information says.
            wanted: details [N, 3, h, w].
            alive: bool, which of them are coded.
            reference: what references predict [N, 3, h, w], or None.
            quantise: residuals and log scales to symbols.

        Returns:
            Decoded details, 0 where none is coded, and bits [N].
        """
        stage, known, decoded = self.stages[min(level, LEVELS - 1)], None, torch.zeros_like(wanted)
        bits = wanted.new_zeros(len(wanted))
        with torch.autocast(below.device.type, torch.bfloat16, enabled=self.bfloat16):
            shared, predicted = stage.start(below, features, constant)
            for color in range(PASSES):
                mean, correction = stage.step(shared, predicted, known, reference)
                scale = (correction + constant[:, :DETAILS, None, None]).clamp(SCALE_MIN, 7.9)
                here = alive & _color(*wanted.shape[-2:], color)
                with torch.no_grad():
                    symbols = quantise(wanted - mean, scale)
                bits = bits + (bits_of(symbols, scale) * here).sum((1, 2, 3))
                decoded = decoded + (mean + symbols) * here
                known = decoded.detach()
        return decoded, bits


def _color(h: int, w: int, color: int) -> Tensor:
    return (torch.arange(h)[:, None] + torch.arange(w)) % 2 == color


def in_dead_zone(residual: Tensor, scale: Tensor) -> Tensor:
    """The symbols of training: towards zero where it is about as near."""
    return torch.sign(residual) * torch.floor(residual.abs() + DEAD_ZONE)


def rows_of(scale: Tensor) -> Tensor:
    """The table rows of log scales, int64."""
    return torch.floor((scale - SCALE_MIN) * ROWS_PER_NAT).long().clamp(0, ROWS - 1)


def bits_of(symbols: Tensor, scale: Tensor) -> Tensor:
    """Bits of symbols under logistic laws of mean 0."""
    a, s = symbols.abs(), torch.exp(scale)
    upper, lower = F.logsigmoid(-(a + 0.5) / s), F.logsigmoid(-(a - 0.5) / s)
    share = lower + torch.log(-torch.expm1((upper - lower).clamp(max=-1e-7)))
    return (-share / math.log(2)).clamp(max=LARGEST_BITS)


@dataclass(frozen=True)
class References:
    """Pictures that are known where others are coded: other dates of the same place, or a coarser quality of the same.

    Attributes:
        groups: DN [B, R, C, h, w], finest first, as the groups to code.
        steps: quantisation steps in DN that they were coded with, [B, R].
    """

    groups: Sequence[Tensor]
    steps: Tensor

    def details(self, count: int) -> list[Tensor]:
        """Decoded details, about, of all levels [B, R, C, 3, h, w] in DN, finest first; of `count` coarse levels more."""
        b, r = self.steps.shape
        below, found, _ = analysed([g.flatten(0, 1) for g in self.groups])
        for _ in range(count):
            below, own = analyse(below)
            found.append(own)
        unit = self.steps.flatten()[:, None, None, None, None]
        bases = [principal(d) for d in found]  # each level is quantised under a basis of its own
        planes = [along(basis, d) / unit for basis, d in zip(bases, found, strict=True)]
        made = [back(basis, in_dead_zone(p, p) * unit) for basis, p in zip(bases, planes, strict=True)]
        return [d.unflatten(0, (b, r)) for d in made]


@dataclass(frozen=True)
class Reference:
    """What references say of one level, in the planes that are coded.

    Attributes:
        predicted: details in steps [B, K, 3, h, w].
        missed: how far the same prediction was off one level below, in steps, [B, K, 3, h / 2, w / 2].
    """

    predicted: Tensor
    missed: Tensor


def predicted(parents: Tensor, below: Tensor, here: Tensor) -> Reference:
    """The details that references predict: the linear map that fits one level below, applied here.

    Args:
        parents: decoded details one level below [B, K, 3, h, w], in steps.
        below: those of the references [B, R, C, 3, h, w].
        here: the references' at this level [B, R, C, 3, H, W].
    """
    x, y = below.flatten(1, 2).flatten(2).double(), parents.flatten(2).double()
    ridge = RIDGE * x.shape[2] + RIDGE_FIXED
    gram = x @ x.transpose(1, 2) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    fit = torch.linalg.solve(gram, x @ y.transpose(1, 2)).transpose(1, 2)
    fit = torch.round(fit * 256).clamp(-2048, 2048) / 256
    seen = (fit @ x).float().view_as(parents)
    there = (fit.float() @ here.flatten(1, 2).flatten(2)).view(*parents.shape[:3], *here.shape[-2:])
    share = _share(parents, seen)
    return Reference(_value(there * _above(share, there.shape[-2:])), parents - seen * share)


def _above(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Each cell's value for the 2 x 2 above it."""
    return cells.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : shape[0], : shape[1]]


def _share(parents: Tensor, seen: Tensor) -> Tensor:
    """How much of what references tell holds around each cell of the level below: [B, K, 1, h, w]."""
    y, s = parents.clamp(-PREDICTION, PREDICTION), seen.clamp(-PREDICTION, PREDICTION)
    both, own = (9 * F.avg_pool2d((v * s).sum(2), 3, 1, 1) for v in (y, s))
    return (torch.round((both + DOUBT) / (own + DOUBT) * 256) / 256).clamp(0, 1.5)[:, :, None]


@dataclass
class Traversal:
    """One pass over a batch of groups.

    Attributes:
        net: the network.
        step: quantisation steps in DN, [B].
        quantise: residuals in steps and log scales to symbols.
        in_turn: planes one after the other, each seeing the decoded ones before it, as the codec does; else all at
            once, seeing roundings of the true ones.
        references: what is known already; None: each example by itself.
        bits, squares: bits and squared errors in steps, [B], as the levels go by.
    """

    net: Net
    step: Tensor
    quantise: Quantise = in_dead_zone
    in_turn: bool = False
    references: References | None = None
    bits: Tensor | float = 0.0
    squares: Tensor | float = 0.0

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
        """Details of references in steps, finest level first; none without references."""
        if self.references is None:
            return []
        unit = self.step[:, None, None, None, None, None]
        return [d / unit for d in self.references.details(len(haar.sizes((below[-2], below[-1]))))]

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
        coded = torch.from_numpy(haar.coded(size))
        reference = self._reference(level, parents)
        constant = self._constant(_strengths(wanted, coded), level, reference is not None)
        alive = coded & (wanted * coded).abs().amax((-1, -2), keepdim=True).ge(DEAD)
        lifted = torch.zeros_like(wanted) if parents is None else self._lifted(parents, wanted.shape[-2:])
        parts = (below, lifted, constant, wanted, alive, reference)
        decoded, bits = self._planes_in_turn(level, *parts) if self.in_turn else self._planes(level, *parts)
        self._count(bits + 1.5 * DETAILS * wanted.shape[1])
        self.squares = self.squares + ((wanted - decoded) * coded).square().sum((1, 2, 3, 4))
        return decoded.detach()

    @torch.no_grad()
    def _reference(self, level: int, parents: Tensor | None) -> Reference | None:
        if self.references is None or parents is None:
            return None
        here, below = self._known[level : level + 2]
        return predicted(parents, below[:, :, : here.shape[2]], here)

    def _lifted(self, parents: Tensor, shape: Sequence[int]) -> Tensor:
        return self.net.functions.features(_above(parents, shape))

    def _told(self, lifted: Tensor, reference: Reference | None) -> Tensor:
        """Features of references [B, K, 9, h, w], as wide as those of the parents; none without."""
        if reference is None:
            return lifted[:, :, :0]
        own = self.net.functions.features(reference.predicted)
        return torch.cat([own, own.abs(), self._lifted(reference.missed, own.shape[-2:]).abs()], 2)

    def _planes(
        self,
        level: int,
        below: Tensor,
        lifted: Tensor,
        constant: Tensor,
        wanted: Tensor,
        alive: Tensor,
        reference: Reference | None,
    ) -> tuple[Tensor, Tensor]:
        """All planes at once; siblings are known by what they would be rounded to by themselves."""
        now = self.net.functions.features(in_dead_zone(wanted, wanted) * alive)
        strongest = last = torch.zeros_like(now[:, 0])
        siblings = []
        for k in range(wanted.shape[1]):
            siblings.append(torch.cat([strongest, last], 1))
            strongest, last = _strongest(strongest, now[:, k]), now[:, k]
        features = torch.cat([lifted, torch.stack(siblings, 1), self._told(lifted, reference)], 2)
        flat = [v.flatten(0, 1) for v in (below[:, :, None], features, constant, wanted, alive)]
        told = None if reference is None else reference.predicted.flatten(0, 1)
        decoded, bits = self.net.planes(level, *flat, told, self.quantise)
        return decoded.view_as(wanted), bits.view(wanted.shape[:2]).sum(1)

    def _planes_in_turn(
        self,
        level: int,
        below: Tensor,
        lifted: Tensor,
        constant: Tensor,
        wanted: Tensor,
        alive: Tensor,
        reference: Reference | None,
    ) -> tuple[Tensor, Tensor]:
        """Plane after plane, as the codec goes."""
        strongest = last = torch.zeros_like(wanted[:, 0])
        planes, total = [], wanted.new_zeros(len(wanted))
        told = self._told(lifted, reference)
        for k in range(wanted.shape[1]):
            features = torch.cat([lifted[:, k], strongest, last, told[:, k]], 1)
            own = (below[:, k, None], features, constant[:, k], wanted[:, k], alive[:, k])
            says = None if reference is None else reference.predicted[:, k]
            decoded, bits = self.net.planes(level, *own, says, self.quantise)
            planes.append(decoded)
            total = total + bits
            last = self.net.functions.features(decoded.detach())
            strongest = _strongest(strongest, last)
        return torch.stack(planes, 1), total

    def _constant(self, strengths: Tensor, level: int, is_told: bool) -> Tensor:
        """What is the same for all cells of a plane: [B, K, 3] -> [B, K, 8]."""
        b, k = strengths.shape[:2]
        brightness = rounded((torch.log(self.step) - 4) / 2, FEATURE, -4.0, 4.0)
        flags = [
            torch.full((b, k), float(is_told)),
            (torch.arange(k) / 4).expand(b, k),
            brightness[:, None].expand(b, k),
            torch.ones(b, k),
            torch.full((b, k), min(level, 6) / 2),
        ]
        scales = rounded(strengths * (math.log(2) / 2), FEATURE, -8.0, 8.0)
        return torch.cat([scales, torch.stack(flags, -1)], -1)


def _strengths(wanted: Tensor, coded: Tensor) -> Tensor:
    """2 log2 of the rms of each plane's details, rounded: [B, K, 3, h, w] -> [B, K, 3]."""
    squares = (wanted * coded).double().square().sum((-1, -2))
    rms = (squares / coded.sum((1, 2)).clamp(min=1)).sqrt()
    return torch.round(2 * torch.log2(rms.clamp(min=0.2))).clamp(SIDE_MIN, SIDE_MAX).float()


def _strongest(before: Tensor, now: Tensor) -> Tensor:
    return torch.maximum(torch.round(before * (0.75 * FEATURE)) / FEATURE, now.abs())


def _on_grid(x: Tensor) -> Tensor:
    return torch.floor(x * VALUE + 0.5) / VALUE
