"""Encoding and decoding with a `small` model: the port side of its traversal."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.bitstream import frame_check
from eozip.codecs.base import Encoded
from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP, thrifty
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.linear_entropy import Step, rows
from eozip.codecs.small.native_grid import (
    Group,
    groups_of,
    placings_by_draft,
    put_on_grids,
    read_grids,
    send_grids,
)
from eozip.codecs.small.networks import PATCH
from eozip.codecs.small.post_filter import read_fit, send_fit
from eozip.entropy.fixed_point import ExactArithmetic, FunctionTables, carrier_for, grid_level
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort, Port, Tables
from eozip.errors import DesyncError, FormatError

MULTIPLE = 32  # pixels: the hyper-latent's stride
SECTIONS = 1
# twice that is best on data/val at every rate: 2 to 3.5 % fewer bits at equal PSNR (docs/training-log.md)
THRIFT = 2 * BITS_PER_SQUARED_STEP
SYMBOL_MAX = 2**15  # steps; 20,000 DN need about 5,000 at quality 100


class PortCode:
    """Stands in the traversal as `TrainCode` does in training: rounds, looks up table rows, and codes through a port."""

    def __init__(
        self,
        port: Port,
        tables: Tables,
        arithmetic: ExactArithmetic,
        y: Tensor | None,
        z: Tensor | None,
        thrift: float = math.inf,
        dropped: Tensor | None = None,
    ) -> None:
        """dropped: bool [h*w], cells whose latents are not coded but taken to be what is expected; one frame only."""
        self.port, self.tables, self.arithmetic, self.thrift = port, tables, arithmetic, thrift
        self.dropped = dropped
        self.y, self.z = (None if v is None else rows(v) for v in (y, z))
        self.coded: list[np.ndarray] = []

    def __call__(self, step: Step) -> Tensor:
        if self.dropped is None or step.channels is None:
            return self.code(step)
        kept = ~self.dropped[step.cells]
        mean, log_scale = step.mean[:, kept], step.log_scale[:, kept]
        value = step.mean.clone()
        value[:, kept] = self.code(replace(step, cells=step.cells[kept], mean=mean, log_scale=log_scale))
        return value

    def code(self, step: Step) -> Tensor:
        index = self.arithmetic.rows(step.log_scale).numpy().ravel()
        got = self.port.code(self.symbols(step, index), index, self.tables).reshape(step.mean.shape)
        self.coded.append(got.reshape(len(got), -1))
        return self.arithmetic.place(torch.from_numpy(got).to(step.mean) + step.mean)

    def symbols(self, step: Step, index: np.ndarray) -> np.ndarray | None:
        """The encoder's own choice: any integers decode, so this may be float. None when decoding."""
        target = self.z if step.channels is None else self.y
        if target is None:
            return None
        if step.channels is None:
            residual = target[:, step.cells] - step.mean
            return nearest(residual)
        residual = target[:, step.cells, step.channels] - step.mean
        return thrifty(nearest(residual), residual.numpy().ravel(), index, self.tables, self.thrift)

    def frame_checks(self) -> tuple[int, ...]:
        """One check value per frame over its symbols in coding order."""
        return tuple(frame_check(frame) for frame in np.concatenate(self.coded, 1))


def nearest(residual: Tensor) -> np.ndarray:
    """int32 [n]"""
    return residual.round().clamp(-SYMBOL_MAX, SYMBOL_MAX).to(torch.int32).numpy().ravel()


@dataclass(frozen=True)
class SmallCodec:
    """tec-elic-small or tec-fp-small as a `Codec` (see `eozip.codecs.base`): one section per chunk.

    Attributes:
        model: g_a, g_s, gains and h_a in floats; `model.entropy`, the decoder-side networks, on exact grids.
        functions: their look-up tables.
        tables: the coder's.
        thrift: bits that a squared step of error is worth to the encoder; infinite: round to nearest.
    """

    id: str
    weights_hash: bytes
    model: SmallImageModel
    functions: FunctionTables
    tables: Tables
    sensor: str = "s2-l2a"
    thrift: float = THRIFT

    can_skip = has_budgets = False

    @property
    def has_past(self) -> bool:
        """Whether a date may be foreseen from the one before it."""
        return self.model.config.entropy == "time"

    @property
    def bands(self) -> int:
        return self.model.config.bands

    @torch.inference_mode()
    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """Encodes float32 DN [T, C, H, W] (without offset) at a quality of 0 to 100."""
        port = EncodePort()
        checks, bits = self.send(port, x, quality)
        return Encoded((port.finish(),), checks, bits=bits)

    @torch.inference_mode()
    def estimate(self, x: np.ndarray, quality: float) -> float:
        """Bits that `encode` would write: the same traversal with a counting port."""
        port = EstimatePort()
        self.send(port, x, quality)
        return port.bits

    def send(
        self, port: EncodePort | EstimatePort, x: np.ndarray, quality: float
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """-> check values, bits of every date where the dates follow each other."""
        t = self.level(quality, len(x))
        y = self.model.analyse(self.model.standardise(padded(torch.from_numpy(x))), t)
        checks, y_hat = self.traverse(port, t, tuple(y.shape[2:]), y, self.model.entropy.hyper_latent(y))
        self.send_end(port, x, y_hat, quality)
        return checks, ()

    @property
    def groups(self) -> tuple[Group, ...]:
        """Bands that may lie on a native grid."""
        return groups_of(self.sensor, self.bands)

    def send_end(
        self,
        port: EncodePort | EstimatePort,
        x: np.ndarray,
        y_hat: Tensor,
        quality: float,
        hidden: np.ndarray | None = None,
    ) -> np.ndarray:
        """The native grids, and the closing fit of every date -> bits [T].

        Args:
            port: counts or writes.
            x: DN [T, C, H, W].
            y_hat: as decoded.
            quality: 0 to 100.
            hidden: bool [T, H, W], pixels that do not count.
        """
        ends = [port.bits]
        # the encoder's choice needs no agreement, so low precision is safe here
        x_hat = self.picture(y_hat, x.shape, quality, draft=True)
        wanted, step = torch.from_numpy(x), self.step(quality)
        if hidden is not None:
            wanted = torch.where(torch.from_numpy(hidden)[:, None], x_hat, wanted)
        worth, seen = BITS_PER_SQUARED_STEP / step**2, None if hidden is None else torch.from_numpy(~hidden)
        send_grids(port, self.tables, self.groups, placings_by_draft(wanted, x_hat, self.groups, worth, seen))
        past = None
        for one, decoded in zip(wanted, x_hat, strict=True):
            fit = send_fit(port, self.tables, one, decoded, step, past, self.model.config.fit_classes)
            past = fit.applied(decoded) if self.has_past else None
            ends.append(port.bits)
        return np.diff(ends)

    def picture(self, y_hat: Tensor, shape: Sequence[int], quality: float, draft: bool = False) -> Tensor:
        """Latents -> DN [T, C, H, W] by the network alone."""
        t = self.level(quality, shape[0])
        return self.model.restore(self.model.synthesise(y_hat, t, draft))[:, :, : shape[2], : shape[3]]

    @torch.inference_mode()
    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """Decodes to float32 DN [T, C, H, W].

        Raises:
            DesyncError: a frame's symbols are not those that were encoded.
            FormatError: not exactly one section, or bytes that no encoder writes.
        """
        self.check_sections(coded)
        return self.read(coded, shape, quality)

    def check_sections(self, coded: Encoded) -> None:
        """Refuses streams of another number of sections.

        Raises:
            FormatError: see above.
        """
        if len(coded.sections) != SECTIONS:
            raise FormatError(f"{self.id}: expected {SECTIONS} section, got {len(coded.sections)}")

    def read(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        quality: float,
        *more: np.ndarray | None,
    ) -> np.ndarray:
        """Decodes the first section; `more` goes to `traverse`."""
        t = self.level(quality, shape[0])
        port = DecodePort(coded.sections[0])
        port.expect(self.least_bits(shape, coded.skip))
        checks, y_hat = self.traverse(port, t, padded_size(shape), None, None, *more)
        compare(coded.checks, checks)
        x_hat = self.read_end(port, self.picture(y_hat, shape, quality), quality)
        port.finish()
        return x_hat.numpy()

    def least_bits(self, shape: tuple[int, int, int, int], skip: np.ndarray | None) -> float:
        """What the latents of a chunk cost at the least: each is a symbol, and no row of the tables gives one away.

        Args:
            shape: T, C, H, W of its pixels.
            skip: bool [T, h, w], cells without symbols; None: all have some.
        """
        h, w = padded_size(shape)
        cells = shape[0] * h * w if skip is None else int(np.count_nonzero(~skip))
        return cells * self.model.config.latent * float(self.tables.least_bits.min())

    def read_end(self, port: Port, x_hat: Tensor, quality: float) -> Tensor:
        """What `send_end` sent, applied to decoded pixels [T, C, H, W], which it changes."""
        placings = read_grids(port, self.tables, self.groups, x_hat.shape)
        step, classes = self.step(quality), self.model.config.fit_classes
        for k, one in enumerate(x_hat):
            past = x_hat[k - 1] if self.has_past and k else None
            x_hat[k] = read_fit(port, self.tables, one, step, past, classes)
        put_on_grids(x_hat, placings)
        return x_hat

    def traverse(
        self, port: Port, t: Tensor, size: tuple[int, int], y: Tensor | None, z: Tensor | None
    ) -> tuple[tuple[int, ...], Tensor]:
        """The one walk over all symbols; y and z [T, ., h, w] when encoding. -> check values, y_hat [T, M, h, w]."""
        entropy, arithmetic = self.exact(t.device)
        code = PortCode(port, self.tables, arithmetic, y, z, self.thrift)
        y_hat = entropy.traverse(code, t.double(), size, arithmetic).float()
        return code.frame_checks(), y_hat

    def exact(self, device: torch.device) -> tuple[Any, ExactArithmetic]:
        """The entropy model and its arithmetic, in the carrier that is exact on this device."""
        carrier = carrier_for(device)
        own = self.model.entropy
        entropy = own if carrier == torch.float32 else copy.deepcopy(own).to(carrier)
        return entropy, ExactArithmetic(self.functions, carrier)

    def step(self, quality: float) -> float:
        """Quantisation step of orthonormal block coefficients in DN, as high-rate theory has it: sqrt(6 / (lambda ln 2))."""
        lmbda = float(self.model.config.lmbda(self.level(quality, 1))[0])
        return float(self.model.unit) * math.sqrt(BITS_PER_SQUARED_STEP / lmbda)

    def level(self, quality: float, frames: int) -> Tensor:
        return torch.full((frames,), grid_level(quality / 100 * (self.model.config.levels - 1)))


def compare(expected: tuple[int, ...], got: tuple[int, ...]) -> None:
    wrong = [i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b]
    if wrong:
        raise DesyncError(
            f"frames {wrong}: decoded symbols differ from the encoded ones. The bytes are damaged, or this machine "
            "computes other probabilities than the encoder's did; decode with the eozip and torch version that wrote it"
        )


def padded_size(shape: Sequence[int]) -> tuple[int, int]:
    """Latent h, w of pixels [T, C, H, W] with padding."""
    h, w = (-(-n // MULTIPLE) * (MULTIPLE // PATCH) for n in shape[2:])
    return h, w


def padded(x: Tensor) -> Tensor:
    """Replicate the last row and column until both sides are multiples of 32."""
    height, width = x.shape[2:]
    if height % MULTIPLE == width % MULTIPLE == 0:
        return x
    return F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
