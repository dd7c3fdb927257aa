"""Exact layers for transformers: every sum is one of integers, so that it is the same on every machine.

Most layers multiply 8-bit integers: rows of weights and input vectors each count in a unit of their own, an input in one
or two pieces (`products`). Where what enters lies on a fixed grid and what leaves must be fine (embeddings, heads), float64
adds multiples of powers of two, and holds them exactly.

Between sums there are only operations that IEEE 754 rounds correctly, element by element, and tables. docs/exact.md,
section 5, defines each step. `eozip.codecs.terracodec.exact_tokens` puts these layers in the place of the plain ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.entropy import fixed_point, products
from eozip.entropy.fixed_point import WIDE
from eozip.errors import WeightsError


@dataclass(frozen=True)
class Grid:
    """Multiples of 1 / unit within -most .. most; both are powers of two."""

    unit: float
    most: float

    def of(self, v: Tensor) -> Tensor:
        """The nearest of them, ties to even; exact."""
        return fixed_point.on_grid(v, self.unit, self.most)

    @property
    def largest(self) -> float:
        """In units."""
        return self.unit * self.most


_NORMED = Grid(2.0**10, 2.0**10)  # behind a LayerNorm; never reaches its end
HIDDEN = Grid(2.0**8, 2.0**9)  # before GELU
ACTIVATION = Grid(2.0**10, 2.0**9)  # behind GELU, keys and values of attention and what it gives
QUERY = Grid(2.0**8, 2.0**6)  # already divided by the root of the head's width
STREAM = Grid(2.0**8, 2.0**8)  # what a layer adds to the residual stream
EMBEDDED = Grid(2.0**16, 2.0**5)  # before the LayerNorm of the embedding: small where tokens are small
TOKEN = Grid(2.0**10, 2.0**20)  # latents; integers but for the learned tokens
HEAD = Grid(2.0**10, 2.0**13)  # between the layers of a head, and what enters the scale
MEAN = Grid(2.0**10, 2.0**22)
_GAIN = Grid(2.0**12, 2.0**10)  # gains and shifts of a LayerNorm
_WEIGHT = 2.0**20  # the grid on which gains and shifts are folded into weights
_WIDE_WEIGHT = 2.0**24  # the finest grid of float64 weights
LARGEST = 2.0**40  # weights of layers on 8-bit integers
_NORM_EPS = 1e-6

_TIE = 1e-9
_GELU_REACH = 8  # identity above, zero below its negative
SOFTMAX_UNIT, SOFTMAX_REACH = 2.0**6, 2.0**4  # differences of logits from the largest
_SOFTMAX_ONE = 2.0**20  # exp(0)


@cache
def gelu_table() -> list[int]:
    """1024 gelu(i / 256), i = -2048 .. 2048, to the nearest integer.

    For large inputs the exact value lies so little below half way that libm would decide on the side: it is rounded
    down, by a share of a unit that no other entry notices.
    """
    reach = int(_GELU_REACH * HIDDEN.unit)
    inputs = [i / HIDDEN.unit for i in range(-reach, reach + 1)]
    return [round(ACTIVATION.unit * _gelu(v) - _TIE) for v in inputs]


def _gelu(v: float) -> float:
    """v Phi(v)"""
    return v * 0.5 * math.erfc(-v * math.sqrt(0.5))


@cache
def exponential_table() -> list[int]:
    """round(2**20 exp(-i / 64)), i = 0 .. 1024."""
    reach = int(SOFTMAX_REACH * SOFTMAX_UNIT)
    return [round(_SOFTMAX_ONE * math.exp(-i / SOFTMAX_UNIT)) for i in range(reach + 1)]


class ExactGelu(nn.Module):
    """GELU by table."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor(gelu_table()).float() / ACTIVATION.unit, persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        reach = _GELU_REACH * HIDDEN.unit
        index = (v * HIDDEN.unit).clamp_(-reach, reach).add_(reach).int()
        return ACTIVATION.of(fixed_point.looked_up(self.table, index) + (v - _GELU_REACH).clamp_min_(0))


class ExactAttend(nn.Module):
    """Softmax attention: exact logits, an exponential by table, exact sums, one division."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor(exponential_table()).double(), persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q, k, v float64 [n, heads, length, d / heads] > float32 like q."""
        logits = q @ k.transpose(-1, -2)
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)  # as far below as the table reaches, where it is 0
        below = (logits.amax(-1, keepdim=True) - logits).mul_(SOFTMAX_UNIT).round_()
        weight = fixed_point.looked_up(self.table, below.clamp_(0, SOFTMAX_UNIT * SOFTMAX_REACH).int())
        return ACTIVATION.of((weight @ v) / weight.sum(-1, keepdim=True)).float()


class ExactNorm(nn.Module):
    """LayerNorm without gain and shift, which the layers behind it have taken over.

    Args:
        d: Width.
        unit: Of the grid of its input.
    """

    def __init__(self, d: int, unit: float) -> None:
        super().__init__()
        self.unit, self.share, self.eps = unit, 1 / d, _NORM_EPS * unit**2

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., d] on the grid of `unit` > float32 on `_NORMED`."""
        units = x * self.unit
        mean = (units.sum(-1, keepdim=True, dtype=torch.float64) * self.share).round_()
        off = units.sub_(mean.float())  # below 2**24, so exact
        variance = off.double().square_().sum(-1, keepdim=True) * self.share
        scale = torch.ones_like(variance) / (variance + self.eps).sqrt_()
        return _NORMED.of(off.mul_(scale.float()))


class ExactAffine(nn.Module):
    """ExactNorm with its gain and shift, for an output that is added to the stream.

    Args:
        gain: [d].
        shift: [d].
        unit: Of the grid of the input.
    """

    def __init__(self, gain: Tensor, shift: Tensor, unit: float) -> None:
        super().__init__()
        self.norm = ExactNorm(len(gain), unit)
        self.register_buffer("gain", _GAIN.of(gain.double()))
        self.register_buffer("shift", _GAIN.of(shift.double()))

    def forward(self, x: Tensor) -> Tensor:
        return STREAM.of(self.norm(x).double() * self.gain + self.shift).float()


class _ExactLinear(nn.Module):
    """A linear layer whose sums are exact in float64, and whose output is rounded to a grid.

    Attributes:
        weight: float64 [out, in], each row on a grid of its own.
        bias: float64 [out], on the grid of its row's sums.
        unit: float64 [out], units of the rows' grids.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, unit: Tensor, entering: Grid, leaving: Grid, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.entering, self.leaving, self.dtype = entering, leaving, dtype
        self.register_buffer("unit", unit)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] on `entering` > [..., out] on `leaving`."""
        return self.leaving.of(F.linear(x.double(), self.weight, self.bias)).to(self.dtype)


@dataclass(frozen=True)
class Pieces:
    """How many 8-bit integers stand for a number: 1 for 8 bits, 2 for 15.

    Attributes:
        weights: Of each weight.
        inputs: Of each input; at least as many.
    """

    weights: int
    inputs: int


class _ScaledLinear(nn.Module):
    """A linear layer on 8-bit integers: each row of weights and each input vector counts in a unit of its own.

    Inputs need no bound, as their largest value sets their unit. Sums are exact; a few IEEE roundings lead from them to the
    grid of what leaves.

    Args:
        weight: [out, in], float64.
        bias: [out], float64.
        pieces: Of weights and inputs; the product of both second pieces is left out.
        leaving: Grid of what leaves.
        dtype: Of what leaves.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, pieces: Pieces, leaving: Grid, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.pieces, self.leaving, self.dtype = pieces, leaving, dtype
        whole, unit = products.counted(weight, pieces.weights)
        self.register_buffer("weight", whole)
        self.register_buffer("unit", unit[:, 0].float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] > [..., out] on `leaving`."""
        whole, unit = products.counted(x.flatten(0, -2), self.pieces.inputs)
        total = self._sums(whole, len(unit)).mul_(self.unit).mul_(unit).add_(self.bias)
        return self.leaving.of(total).to(self.dtype).view(*x.shape[:-1], -1)

    def _sums(self, whole: Tensor, n: int) -> Tensor:
        """float32 [n, out], in units of rows and inputs."""
        m = len(self.unit)
        if self.pieces.weights == 2:
            high, cross = products.multiply(whole[:n], self.weight).split(m, 1)
            cross = cross + products.multiply(whole[n:], self.weight[:m])
            return high.float().mul_(2.0**products.BITS).add_(cross.float()).mul_(2.0**products.BITS)
        sums = products.multiply(whole, self.weight)
        if self.pieces.inputs == 1:
            return sums.float()
        return sums[:n].float().mul_(2.0**products.BITS).add_(sums[n:].float())


class ExactLeaky(nn.Module):
    """LeakyReLU: a product that IEEE 754 rounds, then the grid again."""

    def __init__(self, slope: float, grid: Grid) -> None:
        super().__init__()
        self.slope, self.grid = slope, grid

    def forward(self, v: Tensor) -> Tensor:
        return torch.where(v > 0, v, self.grid.of(v * self.slope))


def scaled_linear(
    name: str, weight: Tensor, bias: Tensor, pieces: Pieces, leaving: Grid, dtype: torch.dtype = torch.float32
) -> _ScaledLinear:
    """Float weights > a layer on 8-bit integers.

    Args:
        name: For messages.
        weight: [out, in].
        bias: [out].
        pieces: Of weights and inputs.
        leaving: Grid of what leaves.
        dtype: Of what leaves.

    Raises:
        WeightsError: Weights that are no numbers of float32.
    """
    weight, bias = weight.double(), bias.double()
    largest = max(float(weight.abs().max()), float(bias.abs().max()))
    if not largest < LARGEST:
        raise WeightsError(
            f"{name}: expected weights below {LARGEST:g}, got {largest:.3g}; these weights cannot be computed exactly"
        )
    return _ScaledLinear(weight, bias, pieces, leaving, dtype)


def exact_linear(
    name: str,
    weight: Tensor,
    bias: Tensor,
    entering: Grid,
    leaving: Grid,
    dtype: torch.dtype = torch.float32,
) -> _ExactLinear:
    """Float weights > a layer whose sums are exact in float64, whatever enters within its grid.

    Args:
        name: For messages.
        weight: [out, in].
        bias: [out].
        entering: Grid of what enters.
        leaving: Grid of what leaves.
        dtype: Of what leaves.

    Raises:
        WeightsError: Weights so large that float64 cannot hold the sums.
    """
    weight, bias = weight.double(), bias.double()
    unit = wide_units(name, weight, bias, entering)
    products = unit * entering.unit
    placed = torch.round(weight * unit[:, None]) / unit[:, None]
    return _ExactLinear(placed, torch.round(bias * products) / products, unit, entering, leaving, dtype)


def wide_units(name: str, weight: Tensor, bias: Tensor, entering: Grid) -> Tensor:
    """Per row the finest grid on which no partial sum reaches 2**53 units, whatever enters within its grid.

    Raises:
        WeightsError: Coarser than 2**-10.
    """
    largest = weight.abs().sum(1) * entering.largest + bias.abs() * entering.unit
    unit = _powers(WIDE / 4 / largest.clamp_min(2.0**-20), _WIDE_WEIGHT)
    if not bool(torch.isfinite(largest).all()) or float(unit.min()) < 2.0**10:
        raise WeightsError(
            f"{name}: expected rows of finite weights whose absolute sum allows a grid of 1/1024, got one of "
            f"{float(weight.abs().sum(1).max()):.3g}; these weights cannot be computed exactly"
        )
    return unit


def _powers(v: Tensor, most: float) -> Tensor:
    """The largest power of two at most v, and at most `most`."""
    mantissa, exponent = torch.frexp(v)  # v = mantissa 2**exponent, mantissa in [1/2, 1): exact
    return torch.ldexp(torch.ones_like(mantissa), exponent - 1).clamp_max(most)


def folded(name: str, linear: nn.Linear, norm: nn.LayerNorm, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of a layer that has taken over gain and shift of the LayerNorm before it.

    The sums over shifts are exact, so every machine gets the same numbers.

    Args:
        name: For messages.
        linear: The layer.
        norm: The LayerNorm.
        factor: On all of it.

    Raises:
        WeightsError: Weights or shifts too large for that.
    """
    weight = torch.round(linear.weight.double() * _WEIGHT) / _WEIGHT
    gain, shift = (_GAIN.of(p.double()) for p in (norm.weight, norm.bias))
    if not float((weight.abs() @ shift.abs()).max()) * _WEIGHT * _GAIN.unit < WIDE / 2:
        raise WeightsError(
            f"{name}: expected smaller weights behind a LayerNorm with such shifts; they cannot be folded exactly"
        )
    return weight * gain * factor, (linear.bias.double() + weight @ shift) * factor
