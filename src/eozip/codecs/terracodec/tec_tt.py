"""Codec of published TEC-TT checkpoints: each date's latent predicted from the two before it.

    DN > standardise, pad > g_a > y > traverse(port) > y_hat, features > dequantise > g_s > crop, DN

One section with one coder state for all dates of a chunk; per date its 16 token indices in order, per token
index all blocks at once. `traverse` is the only coding loop: estimating, encoding and decoding differ in the
port.

Everything that decides a symbol is exact (`exact_tokens`, docs/exact.md): one pass over all tokens in the encoder
and one token after the other in the decoder give the same numbers, on any machine. g_a, g_s and the dequantiser
stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from eozip import hub
from eozip.codecs.base import Encoded
from eozip.codecs.terracodec import temporal
from eozip.codecs.terracodec.common import (
    Recorder,
    codec_id,
    latent_grid,
    pad,
    sensor_of,
    statistics,
    weights_hash,
)
from eozip.codecs.terracodec.exact_tokens import exact_tokens, units_hash
from eozip.codecs.terracodec.exact_transformer import TOKEN
from eozip.codecs.terracodec.temporal import TemporalModel
from eozip.codecs.terracodec.transformer import TOKENS, KeyValue, TokenModel, Walked
from eozip.entropy.gaussian_grid import GaussianGrid
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort, Port, Tables
from eozip.errors import DesyncError, FormatError

_VALUE_LIMIT = 1 << 20  # latents beyond (pixels far out of range) saturate: the end of the grid of tokens
_EXACT_VERSION = 2  # of docs/exact.md, section 2: another one is another codec

Item = TypeVar("Item")
Grid = tuple[int, int, int]  # B, h, w
_Code = Callable[[np.ndarray | None, np.ndarray, Tables], np.ndarray]  # as Port.code
_CodeOf = Callable[[int], _Code]  # of a token index


@dataclass(frozen=True)
class Past:
    """What the finished dates leave for the next: T_sep's output of the last two; none before the first."""

    processed: tuple[Tensor, ...] = ()


class TokenPath:
    """From finished dates and tokens to the distribution of the next token, and through a port.

    Args:
        model: The network; its token model is copied to exact arithmetic.

    Attributes:
        exact: That copy.

    Raises:
        WeightsError: Weights that cannot be computed exactly.
    """

    def __init__(self, model: TemporalModel):
        self.exact: TokenModel = exact_tokens(model.entropy_model)
        self._pad = TOKEN.of(model._temporal_pad_token_maker.weight.double())
        self._grid = GaussianGrid()

    def layout(self) -> str:
        """All that decides on rows and is not in tensors and tables, for the hash."""
        return f"exact {_EXACT_VERSION} {units_hash(self.exact)} {self._grid.crossing().hex()}"

    @property
    def tables(self) -> Tables:
        return self._grid.tables

    def known(self, y: Tensor) -> Tensor:
        """Latent [B, M, h, w] > the integers to code, [n, 16, M] float64."""
        return self.exact.tokens(torch.round(y).clamp(-_VALUE_LIMIT, _VALUE_LIMIT).double())

    def memories(self, past: Past, count: int) -> list[KeyValue]:
        """What T_cur attends to in `count` blocks."""
        if not past.processed:
            return [(k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in self._first]
        return self._memories(past.processed[0], past.processed[-1])

    def then(self, past: Past, walked: Walked, grid: Grid) -> Past:
        """The past of the next date, after all tokens of this one."""
        y_hat = self.exact.grid(torch.stack(walked.tokens, 1), grid)
        return Past((*past.processed[-1:], self.exact.past(y_hat)))

    def advance(
        self, walked: Walked, stop: int, memories: list[KeyValue], known: Tensor | None, code_of: _CodeOf
    ) -> Walked:
        """Code the tokens from where `walked` ends up to `stop`.

        Args:
            walked: The finished tokens.
            stop: How many shall be finished.
            memories: Of the context.
            known: The values of all tokens [n, 16, M]: one parallel pass; None when decoding: token by token.
            code_of: What codes token i.
        """
        if known is None:
            return self.exact.walk(
                memories, lambda i, *said: self.code(code_of(i), None, *said), walked, stop
            )
        start = len(walked.tokens)
        walked = self.exact.extend(walked, known[:, start:stop], memories)
        for i in range(start, stop):
            said = walked.predictions[i]
            self.code(code_of(i), known[:, i], said.mean[:, 0], said.scale[:, 0])
        return walked

    def inpaint(
        self, y: Tensor, cloudy: Tensor, finished: Sequence[Tensor], propagate_from_first_cloud: bool = False
    ) -> Walked:
        """One date whose cloudy cells are forecast as round(mean), from clear ones in their block and from the past.

        Args:
            y: Latent [B, M, h, w]; cloudy cells have no influence.
            cloudy: Bool [B, h, w].
            finished: y_hat of the one or two dates before, [B, M, h, w] each, the newest last; may be empty.
            propagate_from_first_cloud: Forecast all tokens of a block from its first cloudy one on.
        """
        processed = tuple(self.exact.past(y_hat.double()) for y_hat in finished[-2:])
        memories = self.memories(Past(processed), block_count(grid_of(y[:, None])))
        hidden = temporal.hidden_tokens(self.exact, y, cloudy, propagate_from_first_cloud)
        known = self.known(y)
        return self.exact.walk(
            memories, lambda i, mean, _scale: torch.where(hidden[:, i], torch.round(mean), known[:, i])
        )

    def code(self, code: _Code, known: Tensor | None, mean: Tensor, scale: Tensor) -> Tensor:
        """Code one token of all blocks, [n, M] (None when decoding) > its values, float64 integers."""
        rows, centre, sign = self._grid.rows(mean, scale)
        symbols = None if known is None else ((known - centre) * sign).to(torch.int32).reshape(-1).numpy()
        coded = code(symbols, rows.reshape(-1).numpy(), self.tables)
        return torch.from_numpy(coded).reshape(mean.shape) * sign + centre

    @cached_property
    def _first(self) -> list[KeyValue]:
        """Of the first date: its past is one value per channel, so all blocks are alike and one is enough."""
        block = self.exact.past(self._pad.expand(-1, -1, 4, 4))
        return self._memories(block, block)

    def _memories(self, older: Tensor, newer: Tensor) -> list[KeyValue]:
        return self.exact.memories(self.exact.context(older, newer))


def block_count(grid: Grid) -> int:
    """Blocks of 4x4 latent cells."""
    return grid[0] * grid[1] * grid[2] // TOKENS


def traverse(path: TokenPath, y: Tensor | None, port: Port, dates: int, grid: Grid) -> Iterator[Walked]:
    """Code the latents of a chunk, date by date; the next date starts when the caller comes back.

    Args:
        path: Probabilities.
        y: Latents [B, T, M, h, w], or None when decoding.
        port: Counts, writes or reads the symbols.
        dates: T.
        grid: B, h, w; h and w multiples of 4.
    """
    past = Past()
    for t in range(dates):
        memories = path.memories(past, block_count(grid))
        known = None if y is None else path.known(y[:, t])
        walked = path.advance(Walked(), TOKENS, memories, known, lambda _token: port.code)
        yield walked
        if t + 1 < dates:
            past = path.then(past, walked, grid)


@dataclass(frozen=True, eq=False)
class TemporalCodec:
    """A published TEC-TT checkpoint as a codec.

    `quality` is accepted and has no effect: each checkpoint was trained for one lambda.

    Attributes:
        id: Kind, sensor and weights hash, such as "tec-tt-base-s2l2a-0123456789abcdef".
        weights_hash: 8 bytes, SHA-256 over tensors, tables and the number of attention heads.
        sensor: Sensor id; its statistics standardise the pixels.
        bands: C.
        model: Network in evaluation mode, float32.
        path: Its probabilities.
    """

    id: str
    weights_hash: bytes
    sensor: str
    bands: int
    model: TemporalModel
    path: TokenPath

    can_skip = has_budgets = False

    @torch.inference_mode()
    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """float32 [T, C, H, W] DN > one section, and one check value per date; `quality` has no effect."""
        y = latents(self.model, x[None], self.sensor)
        port = EncodePort()
        recorder = Recorder(port)
        dates = [(recorder.take(), port.bits) for _ in traverse(self.path, y, recorder, len(x), grid_of(y))]
        checks, ends = zip(*dates)
        return Encoded((port.finish(),), checks, bits=tuple(np.diff(ends, prepend=0).tolist()))

    @torch.inference_mode()
    def estimate(self, x: np.ndarray) -> float:
        """float32 [T, C, H, W] or [B, T, C, H, W] DN > bits of the same traversal, without writing them."""
        y = latents(self.model, x.reshape(-1, *x.shape[-4:]), self.sensor)
        port = EstimatePort()
        for _ in traverse(self.path, y, port, y.shape[1], grid_of(y)):
            pass
        return port.bits

    @torch.inference_mode()
    def reconstruct(self, x: np.ndarray, quality: float) -> tuple[np.ndarray, tuple[float, ...]]:
        """float32 [T, C, H, W] DN > what `decode` would give, and bits of each date; nothing is coded."""
        y, port = latents(self.model, x[None], self.sensor), EstimatePort()
        out, ends = np.empty(x.shape, np.float32), [0.0]
        for t, walked in enumerate(traverse(self.path, y, port, len(x), grid_of(y))):
            out[t] = pixels(self.model, walked, grid_of(y), self.sensor)[0, :, : x.shape[2], : x.shape[3]]
            ends.append(port.bits)
        return out, tuple(np.diff(ends).tolist())

    @torch.inference_mode()
    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """The section > float32 [T, C, H, W] DN; `quality` has no effect.

        Raises:
            DesyncError: Symbols of a date differ from the encoded ones; nothing after it can be decoded.
            FormatError: A section that no encoder writes, or another number of dates.
        """
        if len(coded.sections) != 1 or len(coded.checks) != shape[0] or coded.budgets:
            raise FormatError(
                f"expected one section, {shape[0]} check values and no budgets, got {len(coded.sections)}, "
                f"{len(coded.checks)} and {len(coded.budgets)}; the stream is damaged or a date is missing"
            )
        port = DecodePort(coded.sections[0])
        recorder = Recorder(port)
        grid = (1, *latent_grid(*shape[2:]))
        frames = traverse(self.path, None, recorder, shape[0], grid)
        out = np.empty(shape, np.float32)
        for t, expected in enumerate(coded.checks):
            walked = read_date(frames, t)
            compare(t, expected, recorder.take())
            out[t] = pixels(self.model, walked, grid, self.sensor)[0, :, : shape[2], : shape[3]]
        port.finish()
        return out


def latents(model: TemporalModel, x: np.ndarray, sensor: str) -> Tensor:
    """float32 [B, T, C, H, W] DN > latents [B, T, M, h, w]."""
    mean, std = statistics(sensor)
    frames = torch.from_numpy(np.ascontiguousarray(x, np.float32)).flatten(0, 1)
    y = [model.g_a(pad((frame[None] - mean) / std)) for frame in frames]
    return torch.cat(y).unflatten(0, x.shape[:2])


def pixels(model: TemporalModel, walked: Walked, grid: Grid, sensor: str) -> np.ndarray:
    """One date after the traversal > DN [B, C, 16 h, 16 w], float32."""
    tokens, said = walked.stacked()
    y_hat, features = (model.entropy_model.grid(t, grid).float() for t in (tokens, said.features))
    mean, std = statistics(sensor)
    return (model.g_s(model._dequantizer(y_hat, features)) * std + mean).numpy()


def grid_of(y: Tensor) -> Grid:
    """B, h, w of latents [B, T, M, h, w]."""
    return y.shape[0], y.shape[-2], y.shape[-1]


def read_date(frames: Iterator[Item], t: int) -> Item:
    """The next date of a traversal that decodes.

    Raises:
        FormatError: Its bytes are ones that no encoder writes; the message names the date.
    """
    try:
        return next(frames)
    except DesyncError:
        raise  # it names its date
    except FormatError as error:
        raise FormatError(f"date {t}: {error}") from error


def compare(t: int, expected: int, got: int) -> None:
    """Hold the check value of a date against the one in the stream.

    Raises:
        DesyncError: They differ.
    """
    if expected != got:
        raise DesyncError(
            f"date {t}: decoded symbols differ from the encoded ones (expected check {expected:08x}, got "
            f"{got:08x}); a date is missing or damaged, or this machine computes otherwise than the one that "
            "encoded: decode there, or encode again"
        )


def from_weights(weights: hub.Weights, heads: int = 16) -> TemporalCodec:
    """Tensors in the published layout > a codec.

    Args:
        weights: As `eozip.hub.load` gives them.
        heads: Attention heads, which no shape tells; 16 in everything published.

    Raises:
        WeightsError: Not a temporal network, or missing, unexpected or misshapen tensors, all listed.
    """
    sensor = sensor_of(weights)
    model = temporal.from_weights(weights, heads)
    path = TokenPath(model)
    digest = weights_hash(weights.tensors, (path.tables,), f"heads {heads} {path.layout()}")
    return TemporalCodec(
        codec_id(weights.kind, sensor, digest), digest, sensor, weights.config["bands"], model, path
    )
