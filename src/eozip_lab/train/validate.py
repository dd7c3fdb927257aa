"""Rate-distortion points on places never trained on: estimates while training, real bytes at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from eozip import raster
from eozip.chunk import api
from eozip.chunk.pixels import PEAK, psnr
from eozip.errors import InputError
from eozip_lab.train.npz_mmap import stored_arrays
from eozip_lab.train.packed import VALIDATION, is_pack, packed_arrays
from eozip_lab.train.recipe import Place, Recipe, located

PSNRS = (36.0, 40.0, 44.0, 48.0)  # dB at which rates are compared


@dataclass(frozen=True)
class Stack:
    """One place: name and digital numbers [T, C, H, W], cropped, offset taken off."""

    name: str
    dn: np.ndarray


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        place: name of the place; "mean" for the mean over places.
        quality: 0 .. 100.
        bpppb: bits per pixel per band.
        psnr: dB, peak 10,000 DN, over all bands and dates.
    """

    place: str
    quality: float
    bpppb: float
    psnr: float


def load_places(recipe: Recipe, band_names: Sequence[str]) -> list[Stack]:
    """The stacks of a recipe's [validation].

    Raises:
        InputError: missing, of other bands, or smaller than `size`.
    """
    size = recipe.validation.size
    return [Stack(p.name, _cropped(_pixels(p, band_names), size, p)) for p in recipe.validation.places]


def place_files(recipe: Recipe) -> tuple[Path, ...]:
    """Every file that validation reads; packs aside, whose held-back part has an index of its own."""
    paths = {located(path) for place in recipe.validation.places for path in place.paths}
    return tuple(sorted(path for path in paths if not is_pack(path)))


def _pixels(place: Place, band_names: Sequence[str]) -> np.ndarray:
    paths = [located(path) for path in place.paths]
    if not place.array:
        scene = raster.open_scene(paths, band_names)
        dn = raster.read_window(scene, slice(None), slice(None), slice(None))
        return dn if scene.offset == 0 else dn.astype(np.int32) - int(scene.offset)
    arrays = _held_back(paths[0]) if is_pack(paths[0]) else stored_arrays(paths[0])
    if place.array not in arrays:
        raise InputError(f"{paths[0]}: no array {place.array!r}; it has {', '.join(arrays)}")
    dn = arrays[place.array]
    if dn.ndim != 4 or dn.shape[1] != len(band_names):
        raise InputError(f"{paths[0]}: {place.array}: expected [T, {len(band_names)}, H, W], got {dn.shape}")
    return dn


def _held_back(pack: Path) -> dict[str, np.ndarray]:
    return {name.partition(":")[2]: a for name, a in packed_arrays(pack, VALIDATION)[0]}


def _cropped(dn: np.ndarray, size: int, place: Place) -> np.ndarray:
    if min(dn.shape[2:]) < size:
        raise InputError(
            f"validation place {place.name}: expected at least {size} x {size} pixels, got "
            f"{dn.shape[2]} x {dn.shape[3]}; set validation.size smaller"
        )
    return np.ascontiguousarray(dn[:, :, :size, :size])


@torch.no_grad()
def estimates(model: nn.Module, stacks: Sequence[Stack], device: torch.device) -> list[Point]:
    """Estimated rates and PSNR of every place at every level, each date coded alone; model in eval mode."""
    levels = model.config.levels
    return [_estimate(model, stack, level, levels, device) for level in range(levels) for stack in stacks]


def _estimate(model: nn.Module, stack: Stack, level: int, levels: int, device: torch.device) -> Point:
    x = torch.from_numpy(stack.dn.astype(np.float32)).to(device)
    t = torch.full((len(x),), float(level), device=device)
    x_hat, bits = model(model.standardise(x), t, hard=True)
    error = model.restore(x_hat).clamp(0, PEAK) - x.clamp(0, PEAK)
    db = 10 * math.log10(PEAK**2 / float(error.square().mean()))
    return Point(stack.name, 100 * level / (levels - 1), float(bits.sum()) / x.numel(), db)


def real_bytes(
    codec: Any, stacks: Sequence[Stack], qualities: Sequence[float], done: Callable[[], None] = lambda: None
) -> list[Point]:
    """Rates of the bytes `eozip.encode` writes, headers included, and PSNR of what `eozip.decode` returns.

    Args:
        codec: a `Codec`.
        stacks: places; all dates of one are one chunk.
        qualities: 0 .. 100.
        done: called after each measurement.
    """
    points = []
    for quality in qualities:
        for stack in stacks:
            dn = _as_int16(stack.dn)
            blob = api.encode(dn, codec, quality)
            points.append(
                Point(stack.name, quality, 8 * len(blob) / dn.size, psnr(dn, api.decode_array(blob)))
            )
            done()
    return points


def _as_int16(dn: np.ndarray) -> np.ndarray:
    """Pixels with the offset taken off may be negative, which eozip takes as int16."""
    return dn if dn.dtype in (np.uint16, np.int16) else np.clip(dn, -(2**15), 2**15 - 1).astype(np.int16)


def means(points: Sequence[Point]) -> list[Point]:
    """Mean over places of rate and PSNR, per quality, in rising order."""
    found = []
    for quality in sorted({p.quality for p in points}):
        same = [p for p in points if p.quality == quality]
        rate, db = (float(np.mean([getattr(p, key) for p in same])) for key in ("bpppb", "psnr"))
        found.append(Point("mean", quality, rate, db))
    return found


def at_psnr(points: Sequence[Point], db: float) -> float | None:
    """bpppb at a PSNR, by interpolation of its logarithm; None outside the curve."""
    ordered = sorted(points, key=lambda p: p.psnr)
    x, y = [p.psnr for p in ordered], np.log([p.bpppb for p in ordered])
    return float(np.exp(np.interp(db, x, y))) if x[0] <= db <= x[-1] else None


def mean_at_psnr(points: Sequence[Point], db: float) -> float | None:
    """Mean over places of the bpppb that each needs for a PSNR; None where one does not reach it."""
    rates = [at_psnr([p for p in points if p.place == place], db) for place in {p.place for p in points}]
    return None if None in rates else float(np.mean(rates))  # type: ignore[arg-type]
