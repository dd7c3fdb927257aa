"""TEC-TT and FlexTEC of published layout, as kinds that can be trained on series of dates: one network per lambda.

    x [B, T, C, H, W] > g_a > y > rounded, straight through > the two dates before > T_sep, T_joint > T_cur > mean, scale
    loss = R + lambda MSE    R in bits per pixel per band under uniform noise, MSE on bands standardised each by itself

As far as the authors' training is known: all dates of a series together, and the first date's latent is detached before it
serves as context. FlexTEC sends k of 16 tokens, one k per batch with P(k) proportional to k: learned tokens stand
for the others before the synthesis, rates count the first k alone, and the context of later dates stays whole.
Sources: VCT (Mentzer et al. 2022, arXiv 2206.07307), TerraCodec (arXiv 2510.12670); the training code is not public.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eozip.codecs.budgets import budget_of
from eozip.codecs.terracodec.temporal import TemporalModel
from eozip.codecs.terracodec.transformer import (
    BLOCK,
    TOKENS,
    WINDOW,
    KeyValue,
    Position,
    Prediction,
    TokenModel,
)
from eozip.entropy.gaussian import GRID_SCALE_MIN
from eozip.errors import InputError
from eozip_lab.train.kind import Kind
from eozip_lab.train.kinds_published import (
    FILES,
    SENSOR,
    Standardised,
    begin,
    noisy,
    straight_through,
)

HEADS = 16  # no shape tells them, and `eozip.load` takes the published number
MULTIPLE = 64  # pixels of a block of 4x4 latent cells
SPREAD = 0.02  # of learned positions and tokens to begin with, as customary for transformers


@dataclass(frozen=True)
class TemporalConfig:
    """Sizes of one published temporal network, and its one lambda.

    Attributes:
        bands: C.
        widths: of the four stages of g_a; the last is M.
        d: width of the transformer.
        depths: layers of T_sep, T_joint, T_cur.
        one_lmbda: weight of the distortion.
        levels: how many validation asks for; alike for TEC-TT, and for FlexTEC budgets of 1 to 16 tokens.
        flexible: FlexTEC (the recipe's `kind` says it).

    Raises:
        InputError: sizes that no such network has.
    """

    bands: int = 12
    widths: tuple[int, ...] = (128, 160, 192, 192)
    d: int = 768
    depths: tuple[int, ...] = (6, 4, 5)
    one_lmbda: float = 20.0
    levels: int = 2
    flexible: bool = False
    sensor: str = SENSOR

    def __post_init__(self) -> None:
        faults = []
        if len(self.widths) != 4 or any(width < 2 or width % 2 for width in self.widths):
            faults.append(f"widths: expected four even numbers, got {list(self.widths)}")
        elif self.flexible and self.widths[-1] % WINDOW**2:
            faults.append(f"widths: expected a multiple of {WINDOW**2} at the end, got {self.widths[-1]}")
        if self.d < HEADS or self.d % HEADS:
            faults.append(f"d: expected a multiple of {HEADS}, got {self.d}")
        if len(self.depths) != 3 or min(self.depths) < 1:
            faults.append(f"depths: expected three numbers from 1 on, got {list(self.depths)}")
        if self.levels < 2:
            faults.append(f"levels: expected 2 or more, got {self.levels}")
        if faults:
            raise InputError("network: " + "; ".join(faults))


class TemporalTraining(Standardised):
    """TEC-TT or FlexTEC with its differentiable pass; `network` holds the names of the checkpoints."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__(config.sensor)
        self.config = config
        self.network = TemporalModel(
            config.bands, config.widths, config.d, config.depths, HEADS, config.flexible
        )
        _spread(self.network.entropy_model)

    @property
    def g_a(self) -> nn.Module:
        return self.network.transform.analysis_transform["transforms"]

    @property
    def g_s(self) -> nn.Module:
        return self.network.transform.synthesis_transform["transforms"]

    def forward(self, x: Tensor, t: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """x [T, C, H, W] as one series, t [T] > x_hat like x, bits [T]; `hard`: the published estimate of rounded values.

        FlexTEC, hard: the level of t is a budget, as quality is for `eozip.encode`, and what is not sent is forecast.
        """
        if not hard:
            x_hat, bits = self.series(x[None])
            return x_hat[0], bits[0]
        check_sides(x)
        y, sent = self.network.g_a(x[None]), self.budget(float(t[0]))
        frames = self.network.estimate(y) if sent == TOKENS else self.network.forecast(y, sent)
        x_hat = self.g_s(torch.cat([frame.dequantised for frame in frames]))
        return x_hat, torch.stack([frame.bits for frame in frames])

    def budget(self, level: float) -> int:
        """Tokens sent at a level of validation."""
        return budget_of(100 * level / (self.config.levels - 1), TOKENS) if self.config.flexible else TOKENS

    def series(self, x: Tensor, sent: int = TOKENS) -> tuple[Tensor, Tensor]:
        """The differentiable pass.

        Args:
            x: Standardised [B, T, C, H, W], sides multiples of 64.
            sent: FlexTEC: tokens that count and are synthesised.

        Returns:
            x_hat like x, bits [B, T].

        Raises:
            InputError: other sides.
        """
        check_sides(x)
        y = self.network.g_a(x)
        dates = [self._date(*date, sent) for date in zip(y.unbind(1), self._memories(y))]
        dequantised, bits = (torch.stack(part, 1) for part in zip(*dates))
        return self.g_s(dequantised.flatten(0, 1)).unflatten(0, x.shape[:2]), bits

    def _memories(self, y: Tensor) -> Iterator[list[KeyValue]]:
        """What T_cur attends to, date by date: dates are known beforehand, so nothing waits for predictions."""
        yield self._first_memories(y[:, 0])
        past: list[Tensor] = []
        for t, before in enumerate(straight_through(y[:, :-1]).unbind(1)):
            past = [*past[-1:], self._past(before.detach() if t == 0 else before)]
            yield self._attended(past[0], past[-1])

    def _first_memories(self, y: Tensor) -> list[KeyValue]:
        """The learned past is the same everywhere: one block is computed for all."""
        one = self._past(self.network._temporal_pad_token_maker(y[:1, :, :BLOCK, :BLOCK]))
        count = y.shape[0] * (y.shape[2] // BLOCK) * (y.shape[3] // BLOCK)
        return [tuple(part.expand(count, -1, -1, -1) for part in kept) for kept in self._attended(one, one)]

    def _past(self, y_hat: Tensor) -> Tensor:
        with torch.autocast(y_hat.device.type, torch.bfloat16, enabled=self.training):
            return self.network.entropy_model.past(y_hat).float()

    def _attended(self, older: Tensor, newer: Tensor) -> list[KeyValue]:
        """Four fifths of all operations lie before this point, in bfloat16 while training; T_cur stays float32."""
        tokens_of = self.network.entropy_model
        with torch.autocast(older.device.type, torch.bfloat16, enabled=self.training):
            memories = tokens_of.memories(tokens_of.context(older, newer))
        return [(k.float(), v.float()) for k, v in memories]

    def _date(self, y: Tensor, memories: list[KeyValue], sent: int) -> tuple[Tensor, Tensor]:
        """One date [B, M, h, w] > what the synthesis receives, like it, and bits [B]."""
        tokens_of = self.network.entropy_model
        tokens = tokens_of.tokens(y)
        rounded = straight_through(tokens)
        said = tokens_of.predict(rounded, memories)
        residual = noisy(tokens[:, :sent]) - said.mean[:, :sent]
        # as the grid of scales gives them back
        counted = gaussian_bits(residual, said.scale[:, :sent] + GRID_SCALE_MIN)
        return self._dequantised(rounded, said, y, sent), counted.reshape(len(y), -1).sum(1)

    def _dequantised(self, tokens: Tensor, said: Prediction, y: Tensor, sent: int) -> Tensor:
        tokens_of, shape = self.network.entropy_model, (len(y), *y.shape[2:])
        features = said.features
        if sent < TOKENS:
            tokens = masked(tokens, sent, tokens_of.mask_token)
            features = masked(features, sent, tokens_of.z_cur_mask_token)
        return self.network._dequantizer(tokens_of.grid(tokens, shape), tokens_of.grid(features, shape))


@torch.no_grad()
def _spread(tokens_of: TokenModel) -> None:
    """Learned positions and tokens start apart: from zero, all tokens of a window would start alike."""
    for module in tokens_of.modules():
        if isinstance(module, Position):
            nn.init.normal_(module._pos, std=SPREAD)
    nn.init.normal_(tokens_of.learned_zero.sym, std=SPREAD)
    if tokens_of.flexible:
        nn.init.normal_(tokens_of.mask_token, std=SPREAD)
        nn.init.normal_(tokens_of.z_cur_mask_token, std=SPREAD)


def check_sides(x: Tensor) -> None:
    """Refuse pixels [..., H, W] that blocks of the latent would not cover.

    Raises:
        InputError: a side that is no multiple of 64.
    """
    if any(side % MULTIPLE for side in x.shape[-2:]):
        raise InputError(
            f"expected crops and validation places with sides that are multiples of {MULTIPLE} pixels, got "
            f"{x.shape[-2]} x {x.shape[-1]}; change crop or size in the recipe"
        )


def masked(tokens: Tensor, sent: int, token: Tensor) -> Tensor:
    """Tokens or features [n, 16, width], from number `sent` on replaced by a learned one [width]."""
    return torch.cat([tokens[:, :sent], token.expand(len(tokens), tokens.shape[1] - sent, -1)], 1)


def gaussian_bits(residual: Tensor, scale: Tensor) -> Tensor:
    """Information of the unit bin around `residual` under a zero-mean Gaussian, by logarithms.

    In the far tails, where a likelihood would be 0 and its gradient too, bits still grow with the distance: while transforms
    and transformer begin together, many latents lie there.

    Args:
        residual: Value minus mean, any shape.
        scale: Standard deviations like it, positive.

    Returns:
        Bits like it, at least 0.
    """
    distance = residual.abs()
    upper = torch.special.log_ndtr((0.5 - distance) / scale)
    lower = torch.special.log_ndtr((-0.5 - distance) / scale)
    return -(upper + torch.log(-torch.expm1(lower - upper))) / math.log(2)


def sampled_tokens() -> int:
    """k in 1 .. 16 with a chance proportional to k, from torch's generator: the loop seeds it for every step."""
    return 1 + int(torch.multinomial(torch.arange(1.0, TOKENS + 1), 1))


def temporal_loss(model: TemporalTraining, dn: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R + lambda D of a batch of series.

    Args:
        model: the network.
        dn: float32 [B, T, C, H, W] digital numbers.
        t: levels [B]; all mean the one lambda.

    Returns:
        loss, bpppb [B], MSE [B] of standardised pixels.

    Raises:
        InputError: single images, or sides that are no multiples of 64.
    """
    if dn.ndim != 5:
        raise InputError(
            f"expected series [B, T, C, H, W], got a batch of shape {list(dn.shape)}; take data of kind series "
            "or ssl4eo-series"
        )
    x = model.standardise(dn)
    x_hat, bits = model.series(x, sampled_tokens() if model.config.flexible else TOKENS)
    rate, mse = bits.sum(1) / x[0].numel(), (x_hat - x).square().flatten(1).mean(1)
    return (rate + model.config.one_lmbda * mse).mean(), rate, mse


def _temporal(flexible: bool) -> Kind:
    head = (TemporalConfig, TemporalTraining, begin)
    return Kind(*head, *FILES, temporal_loss, {"flexible": flexible}, SENSOR)


TEMPORAL: dict[str, Kind] = {"tec-tt": _temporal(False), "flextec": _temporal(True)}
