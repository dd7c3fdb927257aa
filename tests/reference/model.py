"""Grids, weights and functions of the small codecs: sections 1 and 2 of docs/exact.md. See `reference.small` for units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from eozip.bitstream import Chunk
from eozip.entropy.range_coder import Tables

# --- 1. Grids ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """Multiples of 2**-bits within +-most; `of` gives them as counts of 2**-bits."""

    bits: int
    most: int

    def of(self, v: np.ndarray, bits: int) -> np.ndarray:
        """Round v, in units of 2**-bits, to this grid: ties to even, then clamped."""
        limit = self.most << self.bits
        return np.clip(halved(v, bits - self.bits), -limit, limit)


PLACE, SETTLE, FINE, COARSE = Grid(6, 2**14), Grid(5, 32), Grid(8, 256), Grid(4, 64)
LEVEL_BITS, WEIGHT_BITS = 12, 20
AT_LEVEL_BITS = WEIGHT_BITS + LEVEL_BITS
NARROW_BITS = SETTLE.bits + WEIGHT_BITS  # of a sum of weights times activations
WIDE_BITS = PLACE.bits + WEIGHT_BITS  # of a sum of weights times latents


def halved(v: np.ndarray, times: int) -> np.ndarray:
    """v / 2**times, rounded to the nearest integer, ties to even."""
    if times == 0:
        return v
    whole, rest, half = v >> times, v & ((1 << times) - 1), 1 << (times - 1)
    return whole + ((rest > half) | ((rest == half) & (whole & 1 == 1)))


def settled(v: np.ndarray) -> np.ndarray:
    """settle(relu v) of a narrow sum."""
    return SETTLE.of(np.maximum(v, 0), NARROW_BITS)


def settled_fine(v: np.ndarray) -> np.ndarray:
    """settle(relu v) of numbers on the fine grid."""
    return SETTLE.of(np.maximum(v, 0), FINE.bits)


def level_of(hundredths: int, levels: int) -> int:
    """t of a quality in hundredths, in units of 2**-12. The quotient has an odd divisor, so it never ties."""
    return (2 * 256 * hundredths * (levels - 1) + 625) // (2 * 625)


@dataclass(frozen=True)
class Model:
    """Weights at one quality.

    Attributes:
        network: sizes, from config.json.
        tensors: int64 weights of the entropy model and its functions.
        tables: the coder's.
        t: level, in units of 2**-12.
    """

    network: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    tables: Tables
    t: int

    @property
    def refined(self) -> bool:
        """elic and tt, not fp."""
        return self.network["entropy"] != "linear"

    def weight(self, name: str) -> np.ndarray:
        return self.tensors[f"entropy.{name}"]

    def at_level(self, name: str, which: int = 0) -> np.ndarray:
        """Per-level vectors at t, units of 2**-32; `which` of several sets stored one after the other."""
        levels = self.network["levels"]
        rows = self.weight(name)[which * levels :][:levels]
        i = min(self.t >> LEVEL_BITS, levels - 2)
        return (rows[i] << LEVEL_BITS) + (self.t - (i << LEVEL_BITS)) * (rows[i + 1] - rows[i])

    def bias_at_level(self, name: str, which: int = 0) -> np.ndarray:
        """fine(per-level vector at t)."""
        return FINE.of(self.at_level(name, which), AT_LEVEL_BITS)


def read_model(folder: Path, chunk: Chunk) -> Model:
    """The model in a folder with model.safetensors and config.json, at the quality of a chunk."""
    m, config = stored_model(folder), json.loads((folder / "config.json").read_text())
    if bytes.fromhex(config["sha256"]) != chunk.header.weights_hash:
        raise ValueError(
            f"weights: the chunk has hash {chunk.header.weights_hash.hex()}, got {config['sha256']}"
        )
    return replace(m, t=level_of(round(100 * chunk.header.quality), m.network["levels"]))


def stored_model(folder: Path) -> Model:
    """The model in a folder, at level 0."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {n: v.astype(np.int64) for n, v in stored_tensors(folder).items() if v.dtype == np.int32}
    return Model(config["network"], tensors, read_tables(tensors, "tables."), 0)


def stored_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Tensors of a folder, and those that it shares with another beside it."""
    with safe_open(folder / "model.safetensors", "np") as file:
        shared = file.metadata() or {}
        own = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    if not shared:
        return own
    other = stored_tensors(folder.parent / shared["other"])
    return {**own, **{name: other[name] for name in shared["names"].split()}}


def read_tables(tensors: Mapping[str, np.ndarray], prefix: str) -> Tables:
    """Rows of frequencies, stored one after the other."""
    freqs, first, size = (tensors[f"{prefix}{name}"] for name in ("freqs", "first", "size"))
    rows = np.zeros((len(size), size.max()), np.int64)
    rows[np.arange(size.max()) < size[:, None]] = freqs
    return Tables(freqs=rows, first=first, size=size)


# --- 2. Functions -----------------------------------------------------------------------------------------------------

TABLE_MAX = 2**18
LOG_START, ROW_START = -1065, 1588


def stairs(m: Model, name: str, argument: np.ndarray) -> np.ndarray:
    """How many entries of a staircase are at most the argument."""
    return np.searchsorted(m.tensors[f"functions.{name}"], argument, side="right")


def squash(m: Model, v: np.ndarray) -> np.ndarray:
    """Latents to activations."""
    return np.sign(v) * stairs(m, "squash", np.minimum(np.abs(v), TABLE_MAX))


def log(m: Model, v: np.ndarray) -> np.ndarray:
    """Spreads to log scales (fine)."""
    return LOG_START + stairs(m, "log", np.minimum(v, TABLE_MAX))


def table_row(m: Model, log_scale: np.ndarray) -> np.ndarray:
    return stairs(m, "rows", np.maximum(log_scale + ROW_START, 0))
