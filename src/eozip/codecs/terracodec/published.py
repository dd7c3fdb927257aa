"""Codecs of published checkpoints: `from_weights`, and TEC-FP and TEC-ELIC in the TerraCodec layout.

    DN > standardise, pad > g_a > y > traverse(port) > y_hat > g_s > crop, DN

A frame is one section with one coder state. `traverse` is the only coding loop: estimating, encoding and
decoding differ in the port alone. Everything that decides a symbol is exact (docs/exact.md, section 3): TEC-FP has one table
per channel, and TEC-ELIC's networks add integers in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from eozip import hub
from eozip.codecs.base import Codec, Encoded
from eozip.codecs.terracodec import flextec, tec_tt
from eozip.codecs.terracodec.common import (
    LATENT_STRIDE,
    Recorder,
    codec_id,
    latent_grid,
    pad,
    sensor_of,
    statistics,
    weights_hash,
)
from eozip.codecs.terracodec.context import ChannelGroups
from eozip.codecs.terracodec.exact_convolution import (
    SCALE_UNIT,
    VALUE,
    exact_convolutions,
    scale_thresholds,
    state_hash,
)
from eozip.codecs.terracodec.models import ElicModel, FactorizedModel
from eozip.entropy.factorized_tables import factorized_tables
from eozip.entropy.gaussian import scale_levels
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort, Port, Tables
from eozip.entropy.tables import gaussian_tables
from eozip.errors import DesyncError, FormatError, WeightsError

_EXACT_VERSION = 2  # of docs/exact.md, section 3: another one is another codec
_HYPER_STRIDE = 4  # latent cells per cell of z
_SYMBOL_LIMIT = 1 << 30  # larger latents (pixels far out of range) saturate, so that they fit int32 with room


class _Entropy(Protocol):
    """Entropy model of one network, and its traversal."""

    def traverse(self, y: Tensor | None, port: Port, grid: tuple[int, int]) -> Tensor:
        """Code the latent of one frame.

        Args:
            y: Latent [1, M, h, w], float32, or None when decoding.
            port: Counts, writes or reads the symbols.
            grid: h, w.

        Returns:
            y_hat [1, M, h, w], float64.
        """
        ...

    def tables(self) -> tuple[Tables, ...]:
        """Integer tables, in a fixed order (they are part of the weights hash)."""
        ...

    def layout(self) -> str:
        """What else decides on rows, for the weights hash."""
        ...


class _FactorizedEntropy:
    """TEC-FP: every channel of y under its own table."""

    def __init__(self, model: FactorizedModel):
        self._medians = model.entropy_bottleneck.medians.double()
        self._y_tables = factorized_tables(model.entropy_bottleneck)

    def tables(self) -> tuple[Tables, ...]:
        return (self._y_tables,)

    def layout(self) -> str:
        return f"exact {_EXACT_VERSION}"  # a row is a channel

    def traverse(self, y: Tensor | None, port: Port, grid: tuple[int, int]) -> Tensor:
        return _code_factorized(y, port, self._medians, self._y_tables, grid)


class _ElicEntropy:
    """TEC-ELIC: z, then per channel group the even and the odd positions, under one of 64 Gaussians each."""

    def __init__(self, model: ElicModel):
        self._h_a = model.h_a
        self._medians = VALUE.of(model.prior.medians.double())
        self._h_s = exact_convolutions("h_s", model.h_s)
        self._context: ChannelGroups = exact_convolutions("context", model.context)
        self._thresholds = scale_thresholds()
        self._z_tables = factorized_tables(model.prior)
        self._y_tables = gaussian_tables(scale_levels())

    def tables(self) -> tuple[Tables, ...]:
        return (self._z_tables, self._y_tables)

    def layout(self) -> str:
        digest = state_hash({"h_s": self._h_s, "context": self._context})
        return f"exact {_EXACT_VERSION} {digest} {(self._thresholds * SCALE_UNIT).int().tolist()}"

    def traverse(self, y: Tensor | None, port: Port, grid: tuple[int, int]) -> Tensor:
        z = None if y is None else self._h_a(y)
        cells = (-(-grid[0] // _HYPER_STRIDE), -(-grid[1] // _HYPER_STRIDE))
        z_hat = _code_factorized(z, port, self._medians, self._z_tables, cells)

        def settle(channels: slice, now: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            symbols = None if y is None else _to_symbols(y[:, channels] - means)[:, :, now]
            rows = torch.bucketize(scales[:, :, now], self._thresholds, right=True, out_int32=True)
            decoded = _code_tensor(symbols, port, rows, self._y_tables)
            return means.masked_scatter(now, VALUE.of(decoded.double() + means[:, :, now]))

        hyper = self._h_s(VALUE.of(z_hat))[..., : grid[0], : grid[1]]
        return self._context.walk(hyper, settle)


def _code_factorized(
    values: Tensor | None, port: Port, medians: Tensor, tables: Tables, grid: tuple[int, int]
) -> Tensor:
    """Codes a latent [1, M, h, w] (None when decoding) channel by channel > its quantised form, float64."""
    median = medians[:, None, None]
    symbols = None if values is None else _to_symbols(values - median)
    rows = torch.arange(len(median), dtype=torch.int32)[None, :, None, None].expand(1, -1, *grid)
    return _code_tensor(symbols, port, rows, tables).double() + median


def _code_tensor(symbols: Tensor | None, port: Port, rows: Tensor, tables: Tables) -> Tensor:
    """Codes int32 symbols (None when decoding) under int32 `rows` of the same shape > int32 symbols."""
    flat = None if symbols is None else symbols.reshape(-1).numpy()
    return torch.from_numpy(port.code(flat, rows.reshape(-1).numpy(), tables)).reshape(rows.shape)


def _to_symbols(values: Tensor) -> Tensor:
    """Latent relative to its mean > nearest integers, int32 (saturating at +-2^30)."""
    return torch.round(values).clamp(-_SYMBOL_LIMIT, _SYMBOL_LIMIT).to(torch.int32)


@dataclass(frozen=True, eq=False)
class _PublishedCodec:
    """A published single-rate checkpoint as a codec.

    `quality` is accepted and has no effect: each checkpoint was trained for one lambda, and another rate is
    another checkpoint.

    Attributes:
        id: Kind, sensor and weights hash, such as "tec-elic-base-s2l2a-0123456789abcdef".
        weights_hash: 8 bytes, SHA-256 over tensors and tables.
        sensor: Sensor id; its statistics standardise the pixels.
        bands: C.
        model: Network in evaluation mode, float32.
        entropy: Its entropy model with tables.
    """

    id: str
    weights_hash: bytes
    sensor: str
    bands: int
    model: nn.Module
    entropy: _Entropy

    can_skip = has_budgets = False

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """float32 [T, C, H, W] DN > one section and one check value per frame; `quality` has no effect."""
        coded = [self._encode_frame(y) for y in self._latents(x)]
        return Encoded(tuple(section for section, _ in coded), tuple(check for _, check in coded))

    def estimate(self, x: np.ndarray) -> float:
        """float32 [T, C, H, W] DN > bits of the same traversal by the same tables, without writing them."""
        port = EstimatePort()
        with torch.inference_mode():
            for y in self._latents(x):
                self.entropy.traverse(y, port, tuple(y.shape[-2:]))
        return port.bits

    @torch.inference_mode()
    def reconstruct(self, x: np.ndarray, quality: float) -> tuple[np.ndarray, tuple[float, ...]]:
        """float32 [T, C, H, W] DN > what `decode` would give, and bits of each frame; nothing is coded."""
        pictures, bits = [], []
        for y in self._latents(x):
            port = EstimatePort()
            y_hat = self.entropy.traverse(y, port, tuple(y.shape[-2:]))
            pictures.append(self._pixels(y_hat, x.shape[2:]))
            bits.append(port.bits)
        return np.stack(pictures), tuple(bits)

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """Sections > float32 [T, C, H, W] DN; `quality` has no effect.

        Raises:
            DesyncError: Symbols of a frame differ from the encoded ones.
            FormatError: Sections that no encoder writes.
        """
        if not len(coded.sections) == len(coded.checks) == shape[0]:
            raise FormatError(
                f"expected one section and one check value for each of {shape[0]} frames, got "
                f"{len(coded.sections)} and {len(coded.checks)}; the stream is damaged"
            )
        out = np.empty(shape, np.float32)
        for t, (section, check) in enumerate(zip(coded.sections, coded.checks)):
            out[t] = self._decode_frame(t, section, check, shape[2:])
        return out

    def _latents(self, x: np.ndarray) -> Iterator[Tensor]:
        mean, std = statistics(self.sensor)
        for frame in x:
            with torch.inference_mode():
                pixels = (torch.from_numpy(np.ascontiguousarray(frame, np.float32)) - mean) / std
                yield self.model.g_a(pad(pixels[None], LATENT_STRIDE))

    @torch.inference_mode()
    def _encode_frame(self, y: Tensor) -> tuple[bytes, int]:
        port = EncodePort()
        recorder = Recorder(port)
        self.entropy.traverse(y, recorder, tuple(y.shape[-2:]))
        return port.finish(), recorder.check()

    @torch.inference_mode()
    def _decode_frame(self, t: int, section: bytes, check: int, size: tuple[int, int]) -> np.ndarray:
        h, w = latent_grid(*size, LATENT_STRIDE)
        port = DecodePort(section)
        recorder = Recorder(port)
        y_hat = self.entropy.traverse(None, recorder, (h, w))
        port.finish()
        if recorder.check() != check:
            raise DesyncError(
                f"frame {t}: decoded symbols differ from the encoded ones (expected check {check:08x}, got "
                f"{recorder.check():08x}); decode it on the kind of machine that encoded it, or encode again"
            )
        return self._pixels(y_hat, size)

    def _pixels(self, y_hat: Tensor, size: tuple[int, ...]) -> np.ndarray:
        mean, std = statistics(self.sensor)
        x_hat = self.model.g_s(y_hat.float())[0, :, : size[0], : size[1]]
        return (x_hat * std + mean).numpy()


_MODELS = {"tec-fp": (FactorizedModel, _FactorizedEntropy), "tec-elic": (ElicModel, _ElicEntropy)}


def from_weights(weights: hub.Weights) -> Codec:
    """Tensors in the published layout > a codec.

    Raises:
        WeightsError: Missing, unexpected or misshapen tensors (all listed), or a network without a codec.
    """
    builders = {
        "tec-fp": _image_codec,
        "tec-elic": _image_codec,
        "tec-tt": tec_tt.from_weights,
        "flextec": flextec.from_weights,
    }
    if weights.kind not in builders:
        raise WeightsError(
            f"{weights.source}: expected a network of {', '.join(sorted(builders))}, got {weights.kind}, for "
            "which there is no published codec"
        )
    return builders[weights.kind](weights)


def _image_codec(weights: hub.Weights) -> _PublishedCodec:
    model_type, entropy_type = _MODELS[weights.kind]
    sensor = sensor_of(weights)
    config = weights.config
    with torch.device("meta"):  # shapes first: nothing is allocated for tensors that do not fit
        model = model_type(config["bands"], config["n"], config["m"])
    hub.check_tensors(weights, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    model = model_type(config["bands"], config["n"], config["m"])
    model.load_state_dict(weights.tensors)
    model.eval().requires_grad_(False)
    if weights.kind == "tec-elic":  # its many small convolutions are faster so; GDN's are slower
        model.g_a.to(memory_format=torch.channels_last)
        model.g_s.to(memory_format=torch.channels_last)
    entropy = entropy_type(model)
    digest = weights_hash(weights.tensors, entropy.tables(), entropy.layout())
    name = codec_id(weights.kind, sensor, digest)
    return _PublishedCodec(name, digest, sensor, config["bands"], model, entropy)
