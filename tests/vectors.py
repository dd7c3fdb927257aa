"""Golden vectors of the published networks: inputs and weights by formula, outputs from a file.

The formulas are those of reference/networks.md ("Vectors"); files lie under EOZIP_DATA (default ../shared).
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

ROOT = Path(os.environ.get("EOZIP_DATA", Path(__file__).parents[2] / "shared"))
FOLDER = ROOT / "reference" / "vectors"
SHAPES = {
    "fp-small": (1, 12, 64, 96),
    "elic-small": (1, 12, 64, 128),
    "fp-base": (1, 12, 64, 64),
    "elic-base": (1, 12, 64, 64),
    "elic-large": (1, 12, 64, 64),
    "tt-small": (1, 3, 12, 128, 128),
    "flextec-small": (1, 3, 12, 128, 128),
    "tt-base": (1, 2, 12, 64, 64),
    "flextec-base": (1, 2, 12, 64, 64),
}


@dataclass(frozen=True)
class Vector:
    """One golden case: the weights by name, the input, and the expected arrays."""

    weights: dict[str, torch.Tensor]
    x: torch.Tensor
    expected: dict[str, np.ndarray]


def load(name: str) -> Vector:
    """The golden case `name`; skips the test where the reference folder is absent."""
    with np.load(FOLDER / f"{name}.npz") if available(name) else pytest.skip(_reason(name)) as arrays:
        expected = dict(arrays)
    return Vector(weights(name), golden_input(name), expected)


def weights(name: str) -> dict[str, torch.Tensor]:
    """The weights of the golden case `name` in the published layout; skips where the reference is absent."""
    if not available(name):
        pytest.skip(_reason(name))
    entries = json.loads((FOLDER / f"{name}.json").read_text())
    return {e["name"]: filled(e["name"], tuple(e["shape"]), e["fill"]) for e in entries}


def available(name: str) -> bool:
    return (FOLDER / f"{name}.npz").exists()


def _reason(name: str) -> str:
    return (
        f"golden vector {name} is not under {FOLDER}: reference data do not come with a clone of eozip; "
        "where you have them, EOZIP_DATA names the folder that holds reference/"
    )


def golden_input(name: str) -> torch.Tensor:
    """Smooth pseudo-random pixels in the shape of the case."""
    shape = SHAPES[name]
    planes = (1.5 * uniform(f"{name}.x", shape)).reshape(-1, 1, *shape[-2:])
    for _ in range(2):
        planes = F.avg_pool2d(F.pad(planes, (4, 4, 4, 4), mode="reflect"), 9, stride=1)
    return (planes * 12).reshape(shape)


def uniform(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Float32 in [-1, 1), a hash of the name and the position."""
    h = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(
        zlib.crc32(name.encode())
    )
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    u = h.astype(np.float64) / 2.0**31 - 1
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def filled(name: str, shape: tuple[int, ...], rule: str) -> torch.Tensor:
    """One parameter by its fill rule."""
    u = uniform(name, shape)
    fan_in = np.prod(shape[1:])
    rules = {
        "0.5u": lambda: 0.5 * u,
        "0.1u": lambda: 0.1 * u,
        "0.05u": lambda: 0.05 * u,
        "1 + 0.1u": lambda: 1 + 0.1 * u,
        "1 + 0.1|u|": lambda: 1 + 0.1 * u.abs(),
        "0.3 I + 0.01|u|": lambda: 0.3 * torch.eye(*shape) + 0.01 * u.abs(),
        "u sqrt(3/fan_in)": lambda: u * np.float32(np.sqrt(3 / fan_in)),
        "u sqrt(3/fan_in) * 2": lambda: u * np.float32(np.sqrt(3 / fan_in) * 2),
        "(-10, u/2, 10)": lambda: torch.stack(
            [torch.full_like(u[..., 0], -10), u[..., 1] / 2, torch.full_like(u[..., 2], 10)], -1
        ),
    }
    return rules[rule]()
