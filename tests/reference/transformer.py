"""What the token model of TEC-TT says about every token: section 2 of docs/exact.md in numpy integers, without torch.

Every number is an int64 that counts units of 2**-b of its grid. The only floats are the operations that the page names: two
products and a root and a division in a LayerNorm, a division in attention, a product in LeakyReLU, and what leads
into and out of the 8-bit integers of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# bits and range of the grids
NORMED, HIDDEN, ACTIVATION, QUERY = (10, 2**10), (8, 2**9), (10, 2**9), (8, 2**6)
STREAM, EMBEDDED, TOKEN, HEAD, MEAN = (8, 2**8), (16, 2**5), (10, 2**20), (10, 2**13), (10, 2**22)
GAIN_BITS, TABLE_REACH, EPS = 12, 8, 1e-6
Pair = tuple[np.ndarray, np.ndarray]


def rounded(v: np.ndarray, bits: np.ndarray | int, grid: tuple[int, int]) -> np.ndarray:
    """v in units of 2**-bits > the grid: ties to even, then clamped."""
    times = np.asarray(bits) - grid[0]
    v = v << np.maximum(-times, 0)
    times = np.maximum(times, 0)
    whole, rest, half = v >> times, v & ((1 << times) - 1), (1 << times) >> 1
    up = (times > 0) & ((rest > half) | ((rest == half) & (whole & 1 == 1)))
    limit = grid[1] << grid[0]
    return np.clip(whole + up, -limit, limit)


def to_grid(v: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Floats > the grid."""
    limit = grid[1] << grid[0]
    return np.clip(np.rint(v * v.dtype.type(2.0 ** grid[0])), -limit, limit).astype(np.int64)


@dataclass(frozen=True)
class Linear:
    """Integer weights.

    Attributes:
        weight: [out, in] in units of 2**-bits of its row.
        bias: [out] in units of 2**-(bits + bits of the inputs).
        bits: [out].
    """

    weight: np.ndarray
    bias: np.ndarray
    bits: np.ndarray

    def __call__(self, v: np.ndarray, entering: tuple[int, int], leaving: tuple[int, int]) -> np.ndarray:
        return rounded(v @ self.weight.T + self.bias, self.bits + entering[0], leaving)


@dataclass(frozen=True)
class Scaled:
    """A layer on 8-bit integers.

    Attributes:
        weight: [pieces, out, in], -127 .. 127; of two pieces the first counts 128 of the second.
        unit: float32 [out], what 1 of the last piece means in each row.
        bias: float32 [out].
        pieces: of the inputs, 1 or 2.
    """

    weight: np.ndarray
    unit: np.ndarray
    bias: np.ndarray
    pieces: int

    def __call__(self, v: np.ndarray, entering: tuple[int, int], leaving: tuple[int, int]) -> np.ndarray:
        x = (v / 2.0 ** entering[0]).astype(np.float32)
        most = np.float32(127 if self.pieces == 1 else 127 * 128)
        largest = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(2.0**-100))
        whole = np.rint(x * (most / largest)).astype(np.int64)
        first = whole if self.pieces == 1 else np.rint(whole / 128).astype(np.int64)
        second, high = whole - 128 * first, self.weight[0]
        total = (first @ high.T).astype(np.float32)
        if len(self.weight) == 2:
            cross = first @ self.weight[1].T + second @ high.T
            total = (total * np.float32(128) + cross.astype(np.float32)) * np.float32(128)
        elif self.pieces == 2:
            total = total * np.float32(128) + (second @ high.T).astype(np.float32)
        total = total * self.unit * (largest / most) + self.bias
        assert total.dtype == np.float32
        return to_grid(total, leaving)


@dataclass(frozen=True)
class Tokens:
    """The token model.

    Attributes:
        linear: Layers by name.
        vectors: Positions (stream), gain and shift of the embedding (1/4096), by name.
        heads: Of attention.
        depths: Layers of encoder_sep, encoder_joint, decoder.
    """

    linear: Mapping[str, Linear | Scaled]
    vectors: Mapping[str, np.ndarray]
    heads: int
    depths: tuple[int, int, int]

    def past(self, cells: np.ndarray) -> np.ndarray:
        """Cells [n, 64, M] (tokens) > [n, 64, d] (stream)."""
        return self.encode("encoder_sep", self.depths[0], self.embed(cells, "encoder") + self.vectors["sep"])

    def context(self, older: np.ndarray, newer: np.ndarray) -> np.ndarray:
        both = np.concatenate([older, newer], 1) + self.vectors["joint"]
        return self.encode("encoder_joint", self.depths[1], both)

    def predict(self, tokens: np.ndarray, context: np.ndarray) -> Pair:
        """Tokens [n, 16, M] and context > mean, s (before it is made positive), [n, 16, M]."""
        first = np.broadcast_to(self.vectors["start"], (len(tokens), 1, tokens.shape[2]))
        x = self.embed(np.concatenate([first, tokens[:, :-1]], 1), "decoder") + self.vectors["cur"]
        for i in range(self.depths[2]):
            x = self.layer(f"decoder.layers.encoder_layer_{i}", x, context)
        return self.head("mean_head", x, MEAN), self.head("scale_head", x, HEAD)

    def encode(self, stack: str, depth: int, x: np.ndarray) -> np.ndarray:
        for i in range(depth):
            x = self.layer(f"{stack}.layers.encoder_layer_{i}", x, None)
        return x

    def embed(self, tokens: np.ndarray, side: str) -> np.ndarray:
        v = self.linear[f"{side}_embedding"](tokens, TOKEN, EMBEDDED)
        return rounded(
            norm(v, EMBEDDED[0]) * self.vectors["gain"] + (self.vectors["shift"] << NORMED[0]),
            NORMED[0] + GAIN_BITS,
            STREAM,
        )

    def layer(self, name: str, x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
        n = norm(x, STREAM[0])
        x = x + self.attention(f"{name}.self_attention", n, n, NORMED, causal=context is not None)
        x = x + self.mlp(f"{name}.mlp1", norm(x, STREAM[0]))
        n = norm(x, STREAM[0])
        memory, grid = (n, NORMED) if context is None else (context, STREAM)
        x = x + self.attention(f"{name}.cross_attention", n, memory, grid, causal=False)
        return x + self.mlp(f"{name}.mlp2", norm(x, STREAM[0]))

    def attention(
        self, name: str, n: np.ndarray, memory: np.ndarray, grid: tuple[int, int], causal: bool
    ) -> np.ndarray:
        q = self.split(self.linear[f"{name}.q"](n, NORMED, QUERY))
        k, v = (self.split(self.linear[f"{name}.{part}"](memory, grid, ACTIVATION)) for part in "kv")
        logits = q @ k.swapaxes(2, 3)
        seen = np.tril(np.ones(logits.shape[2:], bool)) if causal else np.ones(logits.shape[2:], bool)
        largest = np.where(seen, logits, logits.min() - 1).max(3, keepdims=True)
        below = rounded(largest - logits, QUERY[0] + ACTIVATION[0], (6, 16))
        weight = np.where(seen, EXPONENTIAL[np.maximum(below, 0)], 0)
        share = (weight @ v).astype(np.float64) / weight.sum(3, keepdims=True).astype(np.float64)
        attended = to_grid(share / 2.0 ** ACTIVATION[0], ACTIVATION)
        flat = attended.swapaxes(1, 2).reshape(*attended.shape[0:1], attended.shape[2], -1)
        return self.linear[f"{name}.proj"](flat, ACTIVATION, STREAM)

    def split(self, v: np.ndarray) -> np.ndarray:
        return v.reshape(*v.shape[:2], self.heads, -1).swapaxes(1, 2)

    def mlp(self, name: str, n: np.ndarray) -> np.ndarray:
        u = self.linear[f"{name}.fc1"](n, NORMED, HIDDEN)
        reach = TABLE_REACH << HIDDEN[0]
        beyond = np.maximum(u - reach, 0) << (ACTIVATION[0] - HIDDEN[0])
        h = rounded(GELU[np.clip(u, -reach, reach) + reach] + beyond, ACTIVATION[0], ACTIVATION)
        return self.linear[f"{name}.fc2"](h, ACTIVATION, STREAM)

    def head(self, name: str, x: np.ndarray, leaving: tuple[int, int]) -> np.ndarray:
        v = leaky(self.linear[f"{name}.0"](x, STREAM, HEAD))
        return self.linear[f"{name}.4"](leaky(self.linear[f"{name}.2"](v, HEAD, HEAD)), HEAD, leaving)


INPUTS = [v / 256 for v in range(-2048, 2049)]
GELU = np.array([round(1024 * v * 0.5 * math.erfc(-v * math.sqrt(0.5)) - 1e-9) for v in INPUTS])
EXPONENTIAL = np.array([round(2**20 * math.exp(-i / 64)) for i in range(1025)])


def norm(x: np.ndarray, bits: int) -> np.ndarray:
    """LayerNorm without gain and shift, of units of 2**-bits > normed."""
    share = 1 / x.shape[-1]
    mean = np.rint(x.sum(-1, keepdims=True).astype(np.float64) * share).astype(np.int64)
    off = x - mean
    variance = (off**2).sum(-1, keepdims=True).astype(np.float64) * share
    scale = (1 / np.sqrt(variance + EPS * 2.0 ** (2 * bits))).astype(np.float32)
    return to_grid(off.astype(np.float32) * scale, NORMED)


def leaky(v: np.ndarray) -> np.ndarray:
    return np.where(v > 0, v, to_grid(v * 2.0 ** -HEAD[0] * 0.01, HEAD))
