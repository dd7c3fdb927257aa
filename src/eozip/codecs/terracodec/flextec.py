"""Codec of published FlexTEC checkpoints: one set of weights for 1 to 16 tokens, and streams that may be cut.

One section with one coder state per token index, each over all dates of the chunk, in token order. Cut behind
any section k >= 1 the stream decodes, as if only k tokens had been sent: the others are forecast.

What may the past of a date be, when nobody knows where the stream will be cut? Token i is only read where at
least i + 1 sections are there, so its probabilities may rest on the past as i + 1 sections give it, and on no
more. There are a few `levels`, 1 the first; for each, both sides keep the past as so many sections give it
(later tokens forecast), and token i is predicted from the highest level that is not above i + 1. More levels
cost time (each its own T_sep, T_joint and forecasts), fewer cost bits. At any cut both sides have the same.

Arithmetic is that of `eozip.codecs.terracodec.tec_tt`. As a cut stream cannot be held against the check values of its
header, each date's part of a section also ends in one byte, the last of the check value of its symbols so
far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from eozip import hub
from eozip.bitstream import frame_check
from eozip.codecs.base import Encoded
from eozip.codecs.budgets import budget_of, check_asked, check_stream
from eozip.codecs.terracodec import temporal
from eozip.codecs.terracodec.common import codec_id, latent_grid, sensor_of, weights_hash
from eozip.codecs.terracodec.tec_tt import (
    Grid,
    Past,
    TokenPath,
    block_count,
    compare,
    grid_of,
    latents,
    pixels,
    read_date,
)
from eozip.codecs.terracodec.temporal import TemporalModel
from eozip.codecs.terracodec.transformer import TOKENS, KeyValue, Walked
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort, Port, Tables
from eozip.entropy.tables import pack_tables
from eozip.errors import DesyncError, InputError

LEVELS = (1, 4, 8)
_CHECK_TABLES = pack_tables([np.full(256, 1 / 256)], [0])
_Show = Callable[[], Walked]
_CHECK_ROW = np.zeros(1, np.int32)


@dataclass
class _Sections:
    """One port per token index; each date's part of a section ends in a byte that checks it.

    Attributes:
        ports: Of the sections there are.
        symbols: Of the current date so far.
        date: Its number.
    """

    ports: Sequence[Port]
    symbols: list[np.ndarray] = field(default_factory=list)
    date: int = 0

    def code(self, token: int, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Code a token of all blocks through its port, and the check byte.

        Raises:
            DesyncError: The decoded symbols are not the encoded ones.
        """
        self.symbols.append(self.ports[token].code(symbols, rows, tables))
        expected = self.check() & 0xFF
        got = int(self.ports[token].code(np.array([expected], np.int32), _CHECK_ROW, _CHECK_TABLES)[0])
        if got != expected:
            raise DesyncError(
                f"date {self.date}: symbols of token {token} differ from the encoded ones; they are damaged, "
                "or this machine computes otherwise than the one that encoded: decode there, or encode again"
            )
        return self.symbols[-1]

    def check(self) -> int:
        """Check value of the date so far (of no symbols where it has no tokens)."""
        return frame_check(np.concatenate([np.zeros(0, np.int32), *self.symbols]))

    def take(self) -> int:
        """The check value of the date that is finished; the next begins."""
        check = self.check()
        self.symbols.clear()
        self.date += 1
        return check


@dataclass(frozen=True)
class _Progressive:
    """The traversal.

    Attributes:
        path: Probabilities.
        levels: Numbers of sections from which pasts are kept; the first is 1.
        grid: B, h, w of the latents; h and w multiples of 4.
    """

    path: TokenPath
    levels: tuple[int, ...]
    grid: Grid

    def traverse(self, y: Tensor | None, sections: _Sections, budgets: Sequence[int]) -> Iterator[_Show]:
        """Code the latents of a chunk, date by date; the next date starts when the caller comes back.

        Args:
            y: Latents [B, T, M, h, w], or None when decoding.
            sections: Those of the stream, or as many as are there of a cut one.
            budgets: Tokens sent of each date.

        Yields:
            For each date, what gives all its 16 tokens as the sections give them, the others forecast.
        """
        there = len(sections.ports)
        pasts = {level: Past() for level in self.levels if level <= there}
        for t, budget in enumerate(budgets):
            memories = {c: self.path.memories(past, block_count(self.grid)) for c, past in pasts.items()}
            known = None if y is None else self.path.known(y[:, t])
            sent = self._read(memories, known, sections, min(budget, there))
            seen = cache(partial(self._forecast, sent, memories))
            yield partial(seen, there)
            if t + 1 < len(budgets):
                pasts = {c: self.path.then(past, seen(c), self.grid) for c, past in pasts.items()}

    def _read(
        self, memories: dict[int, list[KeyValue]], known: Tensor | None, sections: _Sections, sent: int
    ) -> Walked:
        """Codes the tokens that are sent, each from the past of its level."""
        walked = Walked()
        for level, stop in zip(memories, [*list(memories)[1:], TOKENS + 1]):
            end = min(stop - 1, sent)  # token stop - 1 is the first that may rest on the next level
            if end > len(walked.tokens):
                code_of = partial(partial, sections.code)
                walked = self.path.advance(walked, end, memories[level], known, code_of)
        return walked

    def _forecast(self, sent: Walked, memories: dict[int, list[KeyValue]], count: int) -> Walked:
        """The date as the first `count` sections give it: what they do not hold is round(mean)."""
        level = max(c for c in memories if c <= count)
        start = sent.first(min(count, len(sent.tokens)))
        return self.path.exact.walk(memories[level], lambda _i, mean, _scale: torch.round(mean), start)


@dataclass(frozen=True, eq=False)
class FlexibleCodec:
    """A published FlexTEC checkpoint as a codec.

    Attributes:
        id: Kind, sensor and weights hash, such as "flextec-base-s2l2a-0123456789abcdef".
        weights_hash: 8 bytes, SHA-256 over tensors, tables, attention heads and levels.
        sensor: Sensor id; its statistics standardise the pixels.
        bands: C.
        model: Network in evaluation mode, float32.
        path: Its probabilities.
        levels: See the module.
    """

    id: str
    weights_hash: bytes
    sensor: str
    bands: int
    model: TemporalModel
    path: TokenPath
    levels: tuple[int, ...]

    can_skip, has_budgets = False, True

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """float32 [T, C, H, W] DN > a section per token; quality 0 to 100 is a budget of 1 to 16 tokens."""
        return self.encode_budgets(x, [_tokens_of(quality)] * len(x))

    @torch.inference_mode()
    def encode_budgets(self, x: np.ndarray, budgets: Sequence[int]) -> Encoded:
        """The same with a budget for each date: 0 to 16 tokens, at least 1 for the first date.

        Raises:
            InputError: Budgets out of range, or another number of them than of dates.
        """
        check_asked(budgets, len(x), TOKENS, "tokens")
        ports = tuple(EncodePort() for _ in range(max(budgets)))
        sections = _Sections(ports)
        y = latents(self.model, x[None], self.sensor)
        frames = self._over(grid_of(y)).traverse(y, sections, budgets)
        checks, ends = zip(*((sections.take(), sum(port.bits for port in ports)) for _ in frames))
        bits = tuple(np.diff(ends, prepend=0).tolist())
        return Encoded(tuple(port.finish() for port in ports), checks, tuple(budgets), bits)

    @torch.inference_mode()
    def estimate(self, x: np.ndarray, budgets: Sequence[int]) -> tuple[float, ...]:
        """float32 [T, C, H, W] or [B, T, C, H, W] DN > bits of each section, without writing them.

        Raises:
            InputError: As `encode_budgets`.
        """
        check_asked(budgets, x.shape[-4], TOKENS, "tokens")
        y = latents(self.model, x.reshape(-1, *x.shape[-4:]), self.sensor)
        ports = tuple(EstimatePort() for _ in range(max(budgets)))
        sections = _Sections(ports)
        for _ in self._over(grid_of(y)).traverse(y, sections, budgets):
            sections.take()
        return tuple(port.bits for port in ports)

    @torch.inference_mode()
    def reconstruct(self, x: np.ndarray, quality: float) -> tuple[np.ndarray, tuple[float, ...]]:
        """float32 [T, C, H, W] DN > what `decode` would give at a quality, and bits of each date; nothing is coded."""
        budgets = [_tokens_of(quality)] * len(x)
        y, ports = (
            latents(self.model, x[None], self.sensor),
            tuple(EstimatePort() for _ in range(max(budgets))),
        )
        sections, grid = _Sections(ports), grid_of(y)
        out, ends = np.empty(x.shape, np.float32), [0.0]
        for t, show in enumerate(self._over(grid).traverse(y, sections, budgets)):
            sections.take()
            ends.append(sum(port.bits for port in ports))
            out[t] = pixels(self.model, show(), grid, self.sensor)[0, :, : x.shape[2], : x.shape[3]]
        return out, tuple(np.diff(ends).tolist())

    @torch.inference_mode()
    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """All sections, or the first few > float32 [T, C, H, W] DN; the budgets of the stream count.

        Raises:
            DesyncError: Symbols of a date differ from the encoded ones; nothing after it can be decoded.
            FormatError: Sections that no encoder writes, or another number of dates.
        """
        check_stream(coded, shape[0], TOKENS, "tokens")
        sections = _Sections(tuple(DecodePort(section) for section in coded.sections))
        grid = (1, *latent_grid(*shape[2:]))
        frames = self._over(grid).traverse(None, sections, coded.budgets)
        whole = len(coded.sections) == max(coded.budgets)
        out = np.empty(shape, np.float32)
        for t, expected in enumerate(coded.checks):
            show = read_date(frames, t)
            got = sections.take()
            compare(t, expected if whole else got, got)
            out[t] = pixels(self.model, show(), grid, self.sensor)[0, :, : shape[2], : shape[3]]
        for port in sections.ports:
            port.finish()
        return out

    def _over(self, grid: Grid) -> _Progressive:
        return _Progressive(self.path, self.levels, grid)


def _tokens_of(quality: float) -> int:
    """Quality 0 to 100 > tokens sent, 1 to 16, in equal steps."""
    return budget_of(quality, TOKENS)


def from_weights(weights: hub.Weights, heads: int = 16, levels: tuple[int, ...] = LEVELS) -> FlexibleCodec:
    """Tensors in the published layout > a codec.

    Args:
        weights: As `eozip.hub.load` gives them.
        heads: Attention heads, which no shape tells; 16 in everything published.
        levels: Rising numbers of sections from which pasts are kept, the first 1; part of the codec's id.

    Raises:
        WeightsError: Not a temporal network, or missing, unexpected or misshapen tensors, all listed.
        InputError: Levels that no stream could be cut by.
    """
    if levels[:1] != (1,) or sorted(set(levels)) != list(levels) or levels[-1] > TOKENS:
        raise InputError(f"levels: expected rising numbers from 1 to at most {TOKENS}, got {levels}")
    sensor = sensor_of(weights)
    model = temporal.from_weights(weights, heads)
    path = TokenPath(model)
    digest = weights_hash(weights.tensors, (path.tables,), f"heads {heads} levels {levels} {path.layout()}")
    name = codec_id(weights.kind, sensor, digest)
    return FlexibleCodec(name, digest, sensor, weights.config["bands"], model, path, levels)
