"""The token model of TEC-TT and FlexTEC on integers: the same network with exact layers in the place of plain ones."""

from __future__ import annotations

import copy
import hashlib
import math

import numpy as np
import torch
from torch import nn

from eozip.codecs.terracodec import exact_transformer as ex
from eozip.codecs.terracodec.transformer import TOKEN_SCALE, Attention, Layer, TokenModel
from eozip.entropy.fixed_point import WIDE
from eozip.errors import WeightsError

_ADDS = 4  # a layer adds four times to the stream
# T_sep and T_joint, nine tenths of all work: 8 bits for all in their MLPs, 15 for what enters their attention. T_cur, which
# says the means, has 15 bits for weights too.
SHORT, LONG, FULL = ex.Pieces(1, 1), ex.Pieces(1, 2), ex.Pieces(2, 2)


@torch.no_grad()
def exact_tokens(model: TokenModel) -> TokenModel:
    """A twin of a token model whose every step is exact; it gives the same numbers in one pass and token by token.

    Raises:
        WeightsError: Weights too large, or a network too deep or wide, for exact sums.
    """
    _check_stream(model)
    # shells of the modules; tensors that are not replaced below are shared with the model
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for part in ("encoder_sep", "encoder_joint"):
        for i, layer in enumerate(getattr(twin, part).layers.values()):
            _encoder(f"{part}.{i}", layer)
    for i, layer in enumerate(twin.decoder.layers.values()):
        _decoder(f"decoder.{i}", layer)
    _embeddings(twin)
    for head, leaving in (("mean_head", ex.MEAN), ("scale_head", ex.HEAD)):
        setattr(twin, head, _head(head, getattr(twin, head), leaving))
    return twin.eval().requires_grad_(False)


def _check_stream(model: TokenModel) -> None:
    """The residual stream, which no step clamps, stays within what its LayerNorms hold exactly.

    Raises:
        WeightsError: Too many layers for such a width.
    """
    depths = [len(stack.layers) for stack in (model.encoder_sep, model.encoder_joint, model.decoder)]
    d = model.post_embedding_layernorm.normalized_shape[0]
    adds = _ADDS * max(depths[0] + depths[1], depths[2]) + 3  # and the embedding, and two positions
    if d * (adds * ex.STREAM.largest) ** 2 >= WIDE or adds * ex.STREAM.largest >= 2.0**23:
        raise WeightsError(
            f"expected a transformer whose width times squared depth stays below {WIDE / ex.STREAM.largest**2 / 16:.3g}, "
            f"got width {d} and depths {depths}; its sums cannot be computed exactly"
        )


def units_hash(twin: TokenModel) -> str:
    """Hash of what export chose from float norms: a machine that chose otherwise must have another codec id."""
    digest = hashlib.sha256()
    for name, tensor in sorted(twin.named_buffers()):
        if name.endswith(".unit"):
            digest.update(f"{name}\n".encode())
            digest.update(np.ascontiguousarray(tensor.numpy(), "<f8"))
    for table in (ex.gelu_table(), ex.exponential_table()):
        digest.update(np.array(table, "<i4"))
    return digest.hexdigest()


def _encoder(name: str, layer: Layer) -> None:
    _attention(f"{name}.self_attention", layer.self_attention, layer.norm1a, layer.norm1a, LONG)
    _mlp(f"{name}.mlp1", layer.mlp1, layer.norm1b, SHORT)
    _attention(f"{name}.cross_attention", layer.cross_attention, layer.norm2a, layer.norm2a, LONG)
    _mlp(f"{name}.mlp2", layer.mlp2, layer.norm2b, SHORT)
    _norms(layer)


def _decoder(name: str, layer: Layer) -> None:
    _attention(f"{name}.self_attention", layer.self_attention, layer.norm1a, layer.norm1a, FULL)
    _mlp(f"{name}.mlp1", layer.mlp1, layer.norm1b, FULL)
    _attention(f"{name}.cross_attention", layer.cross_attention, layer.norm2a, None, FULL)
    _mlp(f"{name}.mlp2", layer.mlp2, layer.norm2b, FULL)
    _norms(layer)


def _norms(layer: Layer) -> None:
    for norm in ("norm1a", "norm1b", "norm2a", "norm2b"):
        d = getattr(layer, norm).normalized_shape[0]
        setattr(layer, norm, ex.ExactNorm(d, ex.STREAM.unit))


def _attention(
    name: str, attention: Attention, before: nn.LayerNorm, context: nn.LayerNorm | None, pieces: ex.Pieces
) -> None:
    """`context`: the LayerNorm before keys and values; None if they read the stream."""
    factor = 1 / math.sqrt(attention.q.in_features // attention.heads)
    query = ex.folded(f"{name}.q", attention.q, before, factor)
    attention.q = ex.scaled_linear(f"{name}.q", *query, pieces, ex.QUERY, torch.float64)
    for part in ("k", "v"):
        linear, full = getattr(attention, part), f"{name}.{part}"
        weights = (linear.weight, linear.bias) if context is None else ex.folded(full, linear, context)
        setattr(attention, part, ex.scaled_linear(full, *weights, pieces, ex.ACTIVATION, torch.float64))
    proj = attention.proj
    attention.proj = ex.scaled_linear(f"{name}.proj", proj.weight, proj.bias, pieces, ex.STREAM)
    attention.attend = ex.ExactAttend()


def _mlp(name: str, mlp: nn.Module, before: nn.LayerNorm, pieces: ex.Pieces) -> None:
    mlp.fc1 = ex.scaled_linear(f"{name}.fc1", *ex.folded(f"{name}.fc1", mlp.fc1, before), pieces, ex.HIDDEN)
    mlp.fc2 = ex.scaled_linear(f"{name}.fc2", mlp.fc2.weight, mlp.fc2.bias, pieces, ex.STREAM)
    mlp.act = ex.ExactGelu()


def _embeddings(twin: TokenModel) -> None:
    for name in ("encoder_embedding", "decoder_embedding"):
        plain = getattr(twin, name)
        # a division of every element, so no sum
        weight = plain.weight.double() / torch.full_like(plain.weight, TOKEN_SCALE, dtype=torch.float64)
        setattr(twin, name, ex.exact_linear(name, weight, plain.bias, ex.TOKEN, ex.EMBEDDED))
    norm = twin.post_embedding_layernorm
    twin.post_embedding_layernorm = ex.ExactAffine(norm.weight, norm.bias, ex.EMBEDDED.unit)
    for name in ("enc_position_sep", "enc_position_joint", "dec_position"):
        position = getattr(twin, name)
        position._pos = nn.Parameter(ex.STREAM.of(position._pos.detach()), requires_grad=False)
    sym = twin.learned_zero.sym.detach().double()
    twin.learned_zero.sym = nn.Parameter(ex.TOKEN.of(sym), requires_grad=False)


def _head(name: str, head: nn.Sequential, leaving: ex.Grid) -> nn.Sequential:
    layers, reads = [], _STREAM_SUM
    for i, part in enumerate(head):
        if isinstance(part, nn.Linear):
            last = i + 1 == len(head)
            grid = leaving if last else ex.HEAD
            layers.append(ex.exact_linear(f"{name}.{i}", part.weight, part.bias, reads, grid, torch.float64))
            reads = ex.HEAD
        else:
            layers.append(ex.ExactLeaky(part.negative_slope, ex.HEAD))
    return nn.Sequential(*layers)


_STREAM_SUM = ex.Grid(ex.STREAM.unit, 2.0**15)  # the residual stream itself: `_check_stream` holds it below
