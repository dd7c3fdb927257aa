"""The context model of TEC-ELIC: channel groups, and a two-pass checkerboard inside each group.

Group k of the latent y [B, M, h, w] is coded in two passes: first the positions where row + column is even,
from the hyper parameters and the groups already decoded; then the odd ones, which also see the even ones of
their own group. (He et al. 2022, arXiv 2203.10886, in the simplified form of the published checkpoints.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.terracodec.layers import conv

_FIRST_GROUPS = (16, 16, 32, 64)

# (channels of the group, positions bool [h, w], means, scales [B, size, h, w]) > y_hat [B, size, h, w] there
_Settle = Callable[[slice, Tensor, Tensor, Tensor], Tensor]


def _group_sizes(m: int) -> tuple[int, ...]:
    """Channels of each group of a latent of `m` channels: 16 16 32 64 and the rest."""
    return (*_FIRST_GROUPS, m - sum(_FIRST_GROUPS))


def _checkerboard(h: int, w: int, parity: int) -> Tensor:
    """Bool [h, w], true where (row + column) % 2 == parity."""
    return (torch.arange(h)[:, None] + torch.arange(w)) % 2 == parity


class _CheckerboardConv(nn.Conv2d):
    """5x5 convolution that sees only the other colour: zero where (i + j) is even from the centre."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, 5, padding=2)
        self.register_buffer("colour", _checkerboard(5, 5, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.colour, self.bias, padding=2)


class _GroupContext(nn.Module):
    """Spatial context and aggregation of one group of `size` channels."""

    def __init__(self, size: int, m: int, with_channel: bool):
        super().__init__()
        c_in = 2 * size * (2 if with_channel else 1) + 2 * m
        self.entropy_parameters = nn.Sequential(
            conv(c_in, 2 * m, 1, 1), nn.ReLU(), conv(2 * m, 512, 1, 1), nn.ReLU(), conv(512, 2 * size, 1, 1)
        )
        self.context_prediction = _CheckerboardConv(size, 2 * size)

    def spatial(self, y_hat: Tensor) -> Tensor:
        """Even positions of y_hat [B, size, h, w] > context [B, 2 size, h, w], zero at even positions."""
        odd = _checkerboard(*y_hat.shape[-2:], 1).to(y_hat.device)
        return self.context_prediction(y_hat * ~odd) * odd

    def aggregate(self, spatial: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Spatial context, then `side` = channel and hyper parts > means, scales [B, size, ...].

        The layers are 1x1 convolutions: cells may be a map [h, w], or any of them in a row [1, n].
        """
        means, scales = self.entropy_parameters(torch.cat([spatial, side], 1)).chunk(2, 1)
        return means, scales


class ChannelGroups(nn.Module):
    """The context of all groups; the names of its children are those of the published checkpoints."""

    def __init__(self, m: int):
        super().__init__()
        self.sizes = _group_sizes(m)
        self.channel_context = nn.ModuleDict(
            {f"y{k}": self._channel_context(k) for k in range(1, len(self.sizes))}
        )
        self.latent_codec = nn.ModuleDict(
            {f"y{k}": _GroupContext(size, m, with_channel=k > 0) for k, size in enumerate(self.sizes)}
        )

    def _channel_context(self, k: int) -> nn.Sequential:
        c_in = self.sizes[0] + (self.sizes[k - 1] if k > 1 else 0)
        return nn.Sequential(
            conv(c_in, 224, 5, 1),
            nn.ReLU(),
            conv(224, 128, 5, 1),
            nn.ReLU(),
            conv(128, 2 * self.sizes[k], 5, 1),
        )

    def group(self, k: int) -> _GroupContext:
        """Spatial context and aggregation of group k."""
        return self.latent_codec[f"y{k}"]

    def side(self, k: int, hyper: Tensor, done: list[Tensor]) -> Tensor:
        """What both passes of group k share: channel context (from the groups in `done`) and hyper part.

        Args:
            k: Group, 0 to 4.
            hyper: Hyper parameters [B, 2M, h, w].
            done: y_hat of groups 0 to k - 1, each [B, size, h, w].
        """
        if k == 0:
            return hyper
        known = done[0] if k == 1 else torch.cat([done[0], done[k - 1]], 1)
        return torch.cat([self.channel_context[f"y{k}"](known), hyper], 1)

    def walk(self, hyper: Tensor, settle: _Settle) -> Tensor:
        """The one loop over groups and passes, for likelihoods, encoding and decoding alike.

        Args:
            hyper: Hyper parameters [B, 2M, h, w].
            settle: Turns means and scales of one pass into its y_hat (values outside the pass are ignored).

        Returns:
            y_hat [B, M, h, w].
        """
        done: list[Tensor] = []
        for k in range(len(self.sizes)):
            done.append(self._walk_group(k, self.side(k, hyper, done), settle))
        return torch.cat(done, 1)

    def _walk_group(self, k: int, side: Tensor, settle: _Settle) -> Tensor:
        group, size, start = self.group(k), self.sizes[k], sum(self.sizes[:k])
        b, _, h, w = side.shape
        y_hat = side.new_zeros(b, size, h, w)
        spatial = side.new_zeros(b, 2 * size, h, w)
        for parity in (0, 1):
            now = _checkerboard(h, w, parity).to(side.device)
            if now.any():  # a map of one cell has no odd ones
                here = group.aggregate(spatial[..., now][:, :, None], side[..., now][:, :, None])
                means, scales = (torch.zeros_like(y_hat).masked_scatter(now, part) for part in here)
                y_hat = torch.where(now, settle(slice(start, start + size), now, means, scales), y_hat)
            if parity == 0:
                spatial = group.spatial(y_hat)
        return y_hat
