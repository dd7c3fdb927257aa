"""What the codecs of published checkpoints have in common: padding, check values, names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eozip import hub, sensors
from eozip.bitstream import frame_check
from eozip.entropy.range_coder import Port, Tables
from eozip.errors import WeightsError

_STRIDE = 64  # pixels per block of 4x4 latent cells
LATENT_STRIDE = 16


@dataclass
class Recorder:
    """A port that keeps what passes through another one, for the check value."""

    port: Port
    symbols: list[np.ndarray] = field(default_factory=list)

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        self.symbols.append(self.port.code(symbols, rows, tables))
        return self.symbols[-1]

    def check(self) -> int:
        """Check value of everything coded so far."""
        return frame_check(np.concatenate(self.symbols))

    def take(self) -> int:
        """The check value, and a new beginning."""
        check = self.check()
        self.symbols.clear()
        return check


def pad(x: Tensor, stride: int = _STRIDE) -> Tensor:
    """[B, C, H, W] of any size > sides multiples of `stride`, by reflection, else by repetition."""
    bottom, right = (_ceil_to(side, stride) - side for side in x.shape[-2:])
    x = F.pad(x, (0, right, 0, 0), mode="reflect" if right < x.shape[-1] else "replicate")
    return F.pad(x, (0, 0, 0, bottom), mode="reflect" if bottom < x.shape[-2] else "replicate")


def _ceil_to(size: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def latent_grid(height: int, width: int, stride: int = _STRIDE) -> tuple[int, int]:
    """H, W of pixels > h, w of their latent after padding."""
    return _ceil_to(height, stride) // LATENT_STRIDE, _ceil_to(width, stride) // LATENT_STRIDE


def statistics(sensor_id: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a sensor's bands, float32 [C, 1, 1], DN."""
    sensor = sensors.get(sensor_id)
    mean, std = torch.tensor(sensor.mean), torch.tensor(sensor.std)
    return mean[:, None, None], std[:, None, None]


def sensor_of(weights: hub.Weights) -> str:
    """The sensor that the weights name, else that of eozip which has as many bands as the network.

    Raises:
        WeightsError: None has, or the one that is named has others.
    """
    if "sensor" in weights.config:
        return _named_sensor(weights)
    known = {len(sensors.get(name).bands): name for name in sensors.names()}
    if weights.config["bands"] not in known:
        raise WeightsError(
            f"{weights.source}: expected a network of {' or '.join(map(str, sorted(known)))} bands, got "
            f"{weights.config['bands']}"
        )
    return known[weights.config["bands"]]


def _named_sensor(weights: hub.Weights) -> str:
    name, bands = str(weights.config["sensor"]), weights.config["bands"]
    if len(sensors.get(name).bands) != bands:
        raise WeightsError(
            f"{weights.source}: expected the {len(sensors.get(name).bands)} bands of sensor {name}, got {bands}"
        )
    return name


def codec_id(kind: str, sensor: str, digest: bytes) -> str:
    """Id of a published checkpoint, such as "tec-tt-base-s2l2a-0123456789abcdef"."""
    return f"{kind}-base-{sensor.replace('-', '')}-{digest.hex()}"


def weights_hash(tensors: Mapping[str, Tensor], tables: tuple[Tables, ...], layout: str = "") -> bytes:
    """First 8 bytes of SHA-256 over names, shapes and float32 values, then the tables.

    Args:
        tensors: By name.
        tables: In a fixed order.
        layout: Whatever else decides what bytes mean and no tensor shows, such as the attention heads.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(np.ascontiguousarray(values.numpy(), "<f4"))
    for table in tables:
        for array in (table.freqs, table.first, table.size):
            digest.update(f"{list(array.shape)}\n".encode())
            digest.update(np.ascontiguousarray(array, "<i4"))
    digest.update(layout.encode())
    return digest.digest()[:8]
