"""A torch-free codec of two progressive layers, for testing what all codecs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from eozip.bitstream import frame_check
from eozip.bitstream.integers import normalised
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.entropy.range_coder import DecodePort, EncodePort, Port, Tables
from eozip.errors import DesyncError, FormatError

TOY = "toy-s2l2a-v1"


def tables() -> Tables:
    """Row 0 for coarse differences, row 1 for the nine fine steps."""
    coarse = [1 + (4096 >> min(12, 2 * abs(k))) for k in range(-128, 129)]
    fine = [64 >> abs(k) for k in range(-4, 5)]
    return normalised([coarse, fine], first=[-128, -4])


@dataclass(frozen=True)
class ToyCodec:
    """Rounds horizontal differences of pixels: multiples of 8 steps first, then single steps."""

    id: str = TOY
    weights_hash: bytes = b"toy-hash"
    sensor: str = "s2-l2a"
    bands: int = 12

    can_skip = has_budgets = False

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        levels = np.rint(x / self.step(quality)).astype(np.int32)
        coarse = (levels + 4) >> 3
        ports = EncodePort(), EncodePort()
        self.traverse(ports[0], np.diff(coarse, axis=3, prepend=0), 0, x.size)
        self.traverse(ports[1], levels - 8 * coarse, 1, x.size)
        return Encoded(tuple(port.finish() for port in ports), tuple(frame_check(f) for f in coarse))

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        if not 1 <= len(coded.sections) <= 2:
            raise FormatError(f"{self.id}: expected 1 or 2 sections, got {len(coded.sections)}")
        layers = [self.layer(data, row, shape) for row, data in enumerate(coded.sections)]
        coarse = np.cumsum(layers[0], axis=3)
        for frame, (got, expected) in enumerate(zip(coarse, coded.checks)):
            if frame_check(got) != expected:
                raise DesyncError(f"frame {frame}: decoded symbols differ from the encoded ones")
        fine = layers[1] if len(layers) == 2 else 0
        return ((8 * coarse + fine) * self.step(quality)).astype(np.float32)

    def layer(self, data: bytes, row: int, shape: tuple[int, int, int, int]) -> np.ndarray:
        port = DecodePort(data)
        symbols = self.traverse(port, None, row, int(np.prod(shape)))
        port.finish()
        return symbols.reshape(shape)

    def traverse(self, port: Port, symbols: np.ndarray | None, row: int, count: int) -> np.ndarray:
        flat = None if symbols is None else symbols.ravel()
        return port.code(flat, np.full(count, row), tables())

    def step(self, quality: float) -> float:
        return 2.0 ** ((120 - quality) / 10)


@contextmanager
def registered(codec: ToyCodec | None = None) -> Iterator[ToyCodec]:
    """The toy codec in the registry, and out of it again."""
    codec = codec or ToyCodec()
    registry.REGISTRY.add(codec.id, lambda: codec)
    try:
        yield codec
    finally:
        registry.REGISTRY.remove(codec.id)
