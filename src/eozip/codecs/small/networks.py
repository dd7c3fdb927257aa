"""The `small` transforms: pixels to latents and back, for two CPU cores.

    x [B, C, H, W] -> unshuffle 8 -> 1x1 (starts as PCA of 8x8xC blocks) --+-> y [B, M, H/8, W/8]
      \\-> unshuffle 4 -> residual blocks -> stride 8 -> 1x1 (starts at 0) --/

Both directions are the best linear block codec plus a nonlinear correction that starts at zero, so that training
starts where a closed form ends. The synthesis refines at strides 8, 4 and 2 and sees the linear picture too, which
lets it remove block edges. Every layer that depends on the quality does so through per-level vectors that are
interpolated at a continuous level t (gain vectors: Cui et al. 2021, "Asymmetric gained deep image compression").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 8  # pixels per latent cell, each way


@dataclass(frozen=True)
class SmallConfig:
    """Sizes of a small codec; saved as JSON beside the weights."""

    entropy: str = "context"  # "context": tec-elic-small; "linear": tec-fp-small; "time": tec-tt-small
    bands: int = 12
    levels: int = 6
    lmbda_min: float = 0.35
    lmbda_max: float = 2800.0
    groups: tuple[int, ...] = (6, 26, 56, 104)
    fine: int = 96  # channels at stride 4
    coarse: int = 192  # channels at stride 8
    pixel: int = 48  # channels at stride 2
    blocks: int = 4  # residual blocks at stride 8, each way
    hyper: int = 96
    hyper_latent: int = 32
    context: int = 128
    time: int = 128  # of the networks over past dates
    # two bands that tell soft classes apart in the map that ends every date; none: it has no classes
    fit_classes: tuple[int, ...] = ()
    # what a squared error of each band weighs in training at the lowest rate (all alike at the highest); empty: alike
    emphasis: tuple[float, ...] = ()

    @property
    def latent(self) -> int:
        return sum(self.groups)

    def lmbda(self, t: Tensor) -> Tensor:
        """Lagrangian of level t (0 .. levels-1): bits per pixel per band against MSE of standardised pixels."""
        ratio = self.lmbda_max / self.lmbda_min
        return self.lmbda_min * ratio ** (t / (self.levels - 1))

    def band_weights(self, t: Tensor) -> Tensor:
        """What a squared error of each band weighs at level t [B], mean 1 -> [B, C]."""
        most = torch.tensor(self.emphasis or (1.0,) * self.bands, dtype=t.dtype, device=t.device)
        weights = most.expand(len(t), -1).lerp(torch.ones_like(most), t[:, None] / (self.levels - 1))
        return weights / weights.mean(1, keepdim=True)


def at_level(table: Tensor, t: Tensor) -> Tensor:
    """Interpolate per-level rows. table [L, K], t [B] in 0 .. L-1 -> [B, K, 1, 1], in the dtype of t."""
    table = table.to(t.dtype)
    low = t.floor().clamp(0, table.shape[0] - 2)
    part = (t - low)[:, None]
    index = low.long()
    return torch.lerp(table[index], table[index + 1], part)[:, :, None, None]


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(conv1x1 x)))) at half width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width // 2, 1)
        self.mix = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.up = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor, settle: Callable[[Tensor], Tensor] = lambda v: v) -> Tensor:
        """settle: applied to each activation; exact forms round them to their grid there."""
        v = settle(F.relu(self.down(x)))
        return x + settle(self.up(settle(F.relu(self.mix(v)))))


def blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def of_blocks(layer: nn.Conv2d, x: Tensor, side: int) -> Tensor:
    """layer(pixel_unshuffle(x, side)), in one pass over the pixels; the layer is 1x1."""
    return F.conv2d(x, layer.weight.unflatten(1, (-1, side, side))[..., 0, 0], layer.bias, stride=side)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class SmallAnalysis(nn.Module):
    """g_a: standardised pixels [B, C, H, W] (H, W multiples of 8) -> y [B, M, H/8, W/8], before gains."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.linear = nn.Conv2d(c.bands * PATCH * PATCH, c.latent, 1, bias=False)
        self.enter = nn.Conv2d(c.bands * 16, c.fine, 1)
        self.fine = blocks(c.fine, 1)
        self.descend = nn.Conv2d(c.fine * 4, c.coarse, 1)
        self.level = nn.Parameter(torch.zeros(c.levels, c.coarse))
        self.coarse = blocks(c.coarse, c.blocks)
        self.leave = zeroed(nn.Conv2d(c.coarse, c.latent, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = of_blocks(self.linear, x, PATCH)
        # which symbols to send is the encoder's own choice, so low precision is safe here
        with training_precision(x, self.training or fast_bfloat16(x.device)):
            v = self.fine(of_blocks(self.enter, x, 4))
            v = F.relu(self.descend(F.pixel_unshuffle(v, 2)) + at_level(self.level, t))
            v = self.leave(F.relu(self.coarse(v)))
        return y + v.float()


class SmallSynthesis(nn.Module):
    """g_s: dequantised latents [B, M, h, w] (gains divided out) -> standardised pixels [B, C, 8h, 8w]."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.linear = nn.Conv2d(c.latent, c.bands * PATCH * PATCH, 1, bias=False)
        self.enter = nn.Conv2d(c.latent, c.coarse, 1)
        self.level = nn.Parameter(torch.zeros(c.levels, c.coarse))
        self.coarse = blocks(c.coarse, c.blocks)
        self.rise4 = nn.Conv2d(c.coarse, c.fine * 4, 1)
        self.fine = blocks(c.fine, 2)
        self.rise2 = nn.Conv2d(c.fine, c.pixel * 4, 1)
        self.look = nn.Conv2d(c.bands * 4, c.pixel, 1)
        self.pixel = blocks(c.pixel, 1)
        self.leave = zeroed(nn.Conv2d(c.pixel, c.bands * 4, 1))

    def forward(self, y: Tensor, t: Tensor, draft: bool = False) -> Tensor:
        """`draft`: in low precision where that is faster."""
        x = F.pixel_shuffle(self.linear(y), PATCH)
        with training_precision(x, self.training or (draft and fast_bfloat16(x.device))):
            v = self.coarse(F.relu(self.enter(y) + at_level(self.level, t)))
            v = self.fine(F.pixel_shuffle(self.rise4(v), 2))
            v = F.pixel_shuffle(self.rise2(v), 2)
            v = self.pixel(F.relu(v + of_blocks(self.look, x, 2)))
            v = self.leave(F.relu(v))
        return F.pixel_shuffle(v.float(), 2).add_(x)


def training_precision(x: Tensor, training: bool) -> torch.autocast:
    """bfloat16 for the nonlinear branches while training: twice the speed; the linear paths stay float32."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=training)


@cache
def fast_bfloat16(device: torch.device) -> bool:
    """Whether this CPU multiplies bfloat16 at twice the speed of float32 (AVX-512 BF16)."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private, so it may go
    return device.type == "cpu" and supported is not None and bool(supported())
