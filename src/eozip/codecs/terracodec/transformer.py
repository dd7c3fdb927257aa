"""The temporal transformer of TEC-TT and FlexTEC: one frame's latent predicted from the two before it.

    older y_hat > 8x8 windows > embed > T_sep --+
    newer y_hat > 8x8 windows > embed > T_sep --+-- T_joint > context of each 4x4 block
    start token, finished tokens of the block > embed > T_cur(context) > features > mean, scale of the next

T_sep runs once per frame and is kept. A block of 4x4 latent cells is 16 tokens: in TEC-TT a token is one cell
with all channels; in FlexTEC, after Latent Repacking, a sixteenth of the channels over the whole block. Axes:
B batch, M channels, h w latent cells (multiples of 4), n = B h/4 w/4 blocks, d width.

Sources: VCT, Mentzer et al. 2022 (arXiv 2206.07307); TerraCodec (arXiv 2510.12670).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 4
WINDOW = 8
TOKENS = BLOCK * BLOCK
TOKEN_SCALE = 35.0
_NORM_EPS = 1e-6
TILE = 16  # blocks that an accelerator takes at a time
_TILE_ROWS = 512  # tokens that a CPU takes at a time: at full size 6 MB between the layers of an MLP, which stay in cache

KeyValue = tuple[Tensor, Tensor]  # each [n, heads, length, d / heads]
_Settle = Callable[[int, Tensor, Tensor], Tensor]  # (token, mean [n, M], scale [n, M]) > its value [n, M]


@dataclass(frozen=True)
class Prediction:
    """What the decoder says about every token of every block.

    Attributes:
        features: [n, 16, d], for the dequantiser.
        mean: [n, 16, M].
        scale: [n, 16, M], positive.
    """

    features: Tensor
    mean: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Walked:
    """The finished tokens of every block, and what the next one needs of them.

    Attributes:
        tokens: Each [n, M].
        predictions: What was said about each, [n, 1, ...].
        kept: Per layer, keys and values of the finished tokens; None before the first.
    """

    tokens: tuple[Tensor, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    kept: list[KeyValue] | None = None

    def first(self, count: int) -> Walked:
        """The state after `count` of the tokens."""
        if not count:
            return Walked()
        kept = [(k[:, :, :count], v[:, :, :count]) for k, v in self.kept or ()]
        return Walked(self.tokens[:count], self.predictions[:count], kept)

    def stacked(self) -> tuple[Tensor, Prediction]:
        """Tokens [n, 16, M] and their predictions in one piece."""
        parts = [(p.features, p.mean, p.scale) for p in self.predictions]
        return torch.stack(self.tokens, 1), Prediction(*(torch.cat(part, 1) for part in zip(*parts)))


# Latents and tokens


def blocks(y: Tensor) -> Tensor:
    """[B, M, h, w] > [n, 16, M]: blocks in raster order, the cells of each in raster order."""
    return _cut(y, BLOCK)


def _unblocks(tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """[n, 16, M] > [B, M, h, w], the inverse of `blocks`; `shape` is B, h, w."""
    b, h, w = shape
    cells = tokens.reshape(b, h // BLOCK, w // BLOCK, BLOCK, BLOCK, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)


def windows(y: Tensor) -> Tensor:
    """[B, M, h, w] > [n, 64, M]: around each block the 8x8 window, reflected at the border."""
    return _cut(F.pad(y, (2, 2, 2, 2), mode="reflect"), WINDOW)


def _cut(y: Tensor, size: int) -> Tensor:
    cells = y.unfold(2, size, BLOCK).unfold(3, size, BLOCK)  # [B, M, h/4, w/4, size, size]
    return cells.permute(0, 2, 3, 4, 5, 1).reshape(-1, size * size, y.shape[1])


def _tiled(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """A function of single blocks, on a few at a time: memory stays bounded and activations stay in cache."""
    tile = (
        max(1, _TILE_ROWS // sum(part.shape[1] for part in parts)) if parts[0].device.type == "cpu" else TILE
    )
    return torch.cat([function(*some) for some in zip(*(part.split(tile) for part in parts))])


def _repack(tokens: Tensor) -> Tensor:
    """Latent Repacking, its own inverse: [n, t, M] > the same shape; token i = slice i (M / t) of all t."""
    n, t, m = tokens.shape
    return tokens.reshape(n, t, t, m // t).transpose(1, 2).reshape(n, t, m)


# Layers


class _Attend(nn.Module):
    """Softmax attention without weights; a module, so that an exact form can take its place."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q [n, heads, t, d / heads] over keys and values, visible where `mask` [t, length] is true."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class _Embedding(nn.Linear):
    """Tokens in units of `TOKEN_SCALE` > d."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens / TOKEN_SCALE)


class Attention(nn.Module):
    """Multi-head attention whose keys and values are made apart, so that they can be kept."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(d, d) for _ in range(4))
        self.attend = _Attend()

    def keys_values(self, context: Tensor) -> KeyValue:
        """[n, length, d] > keys and values."""
        return self._split(self.k(context)), self._split(self.v(context))

    def forward(self, x: Tensor, memory: KeyValue, causal: bool = False) -> Tensor:
        """Queries from x [n, t, d] over `memory` > [n, t, d].

        Causal: x are the last t tokens of `memory`, and each sees those up to itself.
        """
        length, t = memory[0].shape[2], x.shape[1]
        mask = None
        if causal and t > 1:
            mask = torch.ones(t, length, dtype=torch.bool, device=x.device).tril(length - t)
        attended = self.attend(self._split(self.q(x)), *memory, mask)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _MLP(nn.Module):
    """d > 4 d > GELU > d."""

    def __init__(self, d: int):
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Layer(nn.Module):
    """Pre-norm: self-attention, MLP, second attention, MLP, each added to its input.

    The second attention looks at `memory` in a decoder and at the tokens themselves in an encoder.
    """

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.norm1a, self.norm1b, self.norm2a, self.norm2b = (nn.LayerNorm(d, _NORM_EPS) for _ in range(4))
        self.self_attention, self.cross_attention = Attention(d, heads), Attention(d, heads)
        self.mlp1, self.mlp2 = _MLP(d), _MLP(d)

    def forward(self, x: Tensor) -> Tensor:
        """Encoder form: [n, t, d] > [n, t, d]."""
        normed = self.norm1a(x)
        x = x + self.self_attention(normed, self.self_attention.keys_values(normed))
        x = x + self.mlp1(self.norm1b(x))
        normed = self.norm2a(x)
        return self._finish(x, normed, self.cross_attention.keys_values(normed))

    def decode(self, x: Tensor, memory: KeyValue, past: KeyValue | None = None) -> tuple[Tensor, KeyValue]:
        """Decoder form.

        Args:
            x: The next tokens [n, t, d] after those in `past`.
            memory: Keys and values of the joint context.
            past: Keys and values of the finished tokens.

        Returns:
            [n, t, d], and keys and values of the finished tokens with these.
        """
        normed = self.norm1a(x)
        own = self.self_attention.keys_values(normed)
        if past is not None:
            own = (torch.cat([past[0], own[0]], 2), torch.cat([past[1], own[1]], 2))
        x = x + self.self_attention(normed, own, causal=True)
        x = x + self.mlp1(self.norm1b(x))
        return self._finish(x, self.norm2a(x), memory), own

    def _finish(self, x: Tensor, normed: Tensor, memory: KeyValue) -> Tensor:
        x = x + self.cross_attention(normed, memory)
        return x + self.mlp2(self.norm2b(x))


class _Stack(nn.Module):
    """Layers under the published names."""

    def __init__(self, depth: int, d: int, heads: int):
        super().__init__()
        self.layers = nn.ModuleDict({f"encoder_layer_{i}": Layer(d, heads) for i in range(depth)})

    def forward(self, x: Tensor) -> Tensor:
        """Encoder: [n, t, d] > [n, t, d]."""
        for layer in self.layers.values():
            x = layer(x)
        return x

    def memories(self, context: Tensor) -> list[KeyValue]:
        """Per layer, keys and values of the context [n, length, d] for the second attention."""
        return [layer.cross_attention.keys_values(context) for layer in self.layers.values()]

    def decode(
        self, x: Tensor, memories: list[KeyValue], past: list[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """Decoder: as `Layer.decode`, through all layers."""
        kept = []
        for i, layer in enumerate(self.layers.values()):
            x, own = layer.decode(x, memories[i], None if past is None else past[i])
            kept.append(own)
        return x, kept


class Position(nn.Module):
    """A learned vector per token, added."""

    def __init__(self, length: int, d: int):
        super().__init__()
        self._pos = nn.Parameter(torch.zeros(1, length, d))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x [n, t, d], whose first token is number `start`."""
        return x + self._pos[:, start : start + x.shape[1]]


class _Start(nn.Module):
    """The learned token before the first one."""

    def __init__(self, m: int):
        super().__init__()
        self.sym = nn.Parameter(torch.zeros(m))


# The model


class TokenModel(nn.Module):
    """Distribution of every token of a frame, given the two past frames and the finished tokens of its block.

    Args:
        m: Latent channels.
        d: Width.
        heads: Attention heads.
        depths: Layers of T_sep, T_joint and T_cur.
        flexible: FlexTEC: tokens are channel groups, and learned tokens stand in for masked ones in training.
    """

    def __init__(self, m: int, d: int, heads: int, depths: tuple[int, int, int], flexible: bool):
        super().__init__()
        self.flexible = flexible
        self.encoder_sep = _Stack(depths[0], d, heads)
        self.encoder_joint = _Stack(depths[1], d, heads)
        self.decoder = _Stack(depths[2], d, heads)
        self.learned_zero = _Start(m)
        self.enc_position_sep = Position(WINDOW * WINDOW, d)
        self.enc_position_joint = Position(2 * WINDOW * WINDOW, d)
        self.dec_position = Position(TOKENS, d)
        self.post_embedding_layernorm = nn.LayerNorm(d, _NORM_EPS)
        self.encoder_embedding, self.decoder_embedding = _Embedding(m, d), _Embedding(m, d)
        self.mean_head, self.scale_head = _head(d, m), _head(d, m)
        if flexible:
            self.mask_token = nn.Parameter(torch.zeros(m))
            self.z_cur_mask_token = nn.Parameter(torch.zeros(d))

    def tokens(self, y: Tensor) -> Tensor:
        """Latent [B, M, h, w] > tokens in coding order [n, 16, M]."""
        return _repack(blocks(y)) if self.flexible else blocks(y)

    def grid(self, tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Tokens or features [n, 16, width] > [B, width, h, w]; `shape` is B, h, w."""
        return _unblocks(_repack(tokens) if self.flexible else tokens, shape)

    def past(self, y_hat: Tensor) -> Tensor:
        """A finished frame [B, M, h, w] > its part of the context [n, 64, d], computed once and kept."""
        cells = _repack(windows(y_hat)) if self.flexible else windows(y_hat)
        return _tiled(self._separate, cells)

    def context(self, older: Tensor, newer: Tensor) -> Tensor:
        """`past` of the last frame but one and of the last (the same twice if there is one) > [n, 128, d]."""
        return _tiled(self._joint, older, newer)

    def memories(self, context: Tensor) -> list[KeyValue]:
        """Context [n, 128, d] > what T_cur attends to, per layer; made once per frame."""
        return self.decoder.memories(context)

    def predict(self, tokens: Tensor, memories: list[KeyValue]) -> Prediction:
        """The parallel pass: all tokens known, [n, 16, M], each predicted from those before it."""
        return self._next(Walked(), tokens, memories)[0]

    def extend(self, walked: Walked, tokens: Tensor, memories: list[KeyValue]) -> Walked:
        """The same for the next tokens [n, t, M] after those of `walked`."""
        said, kept = self._next(walked, tokens, memories)
        parts = zip(*(part.split(1, 1) for part in (said.features, said.mean, said.scale)))
        predictions = tuple(Prediction(*part) for part in parts)
        return Walked((*walked.tokens, *tokens.unbind(1)), (*walked.predictions, *predictions), kept)

    def walk(
        self, memories: list[KeyValue], settle: _Settle, walked: Walked | None = None, stop: int = TOKENS
    ) -> Walked:
        """The one loop over tokens where they are not known beforehand: decoding, forecasting, inpainting.

        Finished tokens are never computed again: their keys and values are kept; the context's are made once.

        Args:
            memories: Of the context.
            settle: Gives token i of all blocks from its mean and scale: read, forecast, or known.
            walked: Tokens that are finished already; none if not given.
            stop: How many shall be finished.

        Returns:
            Those tokens.
        """
        walked = walked or Walked()
        for i in range(len(walked.tokens), stop):
            said, kept = self._next(walked, None, memories)
            token = settle(i, said.mean[:, 0], said.scale[:, 0])
            walked = Walked((*walked.tokens, token), (*walked.predictions, said), kept)
        return walked

    def _next(
        self, walked: Walked, known: Tensor | None, memories: list[KeyValue]
    ) -> tuple[Prediction, list[KeyValue]]:
        """Predicts the tokens after those of `walked`: as many as `known` [n, t, M] has, else one."""
        last = walked.tokens[-1] if walked.tokens else self._start(memories)
        given = last[:, None] if known is None else torch.cat([last[:, None], known[:, :-1]], 1)
        x = self.dec_position(self._embed(given, self.decoder_embedding), len(walked.tokens))
        x, kept = self.decoder.decode(x, memories, walked.kept)
        return Prediction(x, *self._heads(x)), kept

    def _start(self, memories: list[KeyValue]) -> Tensor:
        return self.learned_zero.sym.expand(len(memories[0][0]), -1)

    def _separate(self, cells: Tensor) -> Tensor:
        return self.encoder_sep(self.enc_position_sep(self._embed(cells, self.encoder_embedding)))

    def _joint(self, older: Tensor, newer: Tensor) -> Tensor:
        return self.encoder_joint(self.enc_position_joint(torch.cat([older, newer], 1)))

    def _embed(self, tokens: Tensor, embedding: nn.Module) -> Tensor:
        return self.post_embedding_layernorm(embedding(tokens))

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean_head(features), _positive(self.scale_head(features))


def _positive(s: Tensor) -> Tensor:
    """Any real > positive: 1 + s above 0, 1 / (1 - s) below."""
    return torch.where(s > 0, 1 + s, torch.ones_like(s) / (1 - s.clamp_max(0)))


def _head(d: int, m: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, m))
