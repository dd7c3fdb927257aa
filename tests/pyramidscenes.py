"""Scenes for the pyramid codecs: bands interpolated from coarser cells beside others, and the golden ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from eozip import hub
from eozip.codecs.pyramid import corrections, files
from eozip.codecs.pyramid.appending import SeriesCodec
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.codecs.pyramid.flexible import FlexCodec
from eozip.codecs.pyramid.grids import Grid

CODEC = "tec-elic-small-any-v1"
SERIES = "tec-tt-small-any-v1"
FLEXIBLE = "flextec-small-any-v1"
FAST = "tec-fp-small-any-v1"
BILINEAR, NEAREST, CUBIC = range(3)


def texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth fields that all bands share, and noise of each: float64 [T, C, H, W] DN."""
    rng = np.random.default_rng(seed)
    i, j = np.arange(shape[2])[:, None], np.arange(shape[3])[None, :]
    shared = np.sin(i / 9.0) * np.cos(j / 7.0) + 0.3 * rng.standard_normal(shape[2:])
    gains = rng.uniform(300, 900, (*shape[:2], 1, 1))
    return np.clip(2000 + gains * shared + 15 * rng.standard_normal(shape), 1, 12000)


def cube(shape: tuple[int, ...], grids: Mapping[int, Grid], seed: int = 0) -> np.ndarray:
    """DN uint16 [T, C, H, W] whose bands are `texture`, those named interpolated from cells on their grid."""
    t, _, height, width = shape
    dn = texture(shape, seed)
    for band, grid in grids.items():
        rows, columns = grid.cells(height, 0)[1], grid.cells(width, 1)[1]
        cells = np.rint(texture((t, 1, rows, columns), seed + 100 + band)).astype(np.int64)
        numerator, denominator = grid.interpolated(cells[:, 0], height, width)
        dn[:, band] = numerator / denominator
    return np.clip(np.rint(dn), 0, 65535).astype(np.uint16)


def season(shape: tuple[int, ...], grids: Mapping[int, Grid], seed: int = 0) -> np.ndarray:
    """DN uint16 [T, C, H, W] of one place whose bands change by date, as `cube` has them; each third date has a cloud."""
    t, count, *size = shape
    gains = np.random.default_rng(seed + 1).uniform(0.6, 1.4, (t, count, 1, 1))
    dn = np.empty(shape)
    for band in range(count):
        grid = grids.get(band)
        height, width = size if grid is None else (grid.cells(size[axis], axis)[1] for axis in (0, 1))
        cells = gains[:, band] * texture((1, 1, height, width), seed)[0]
        cells[::3, : height // 3, : width // 2] = 3000
        numerator, denominator = np.rint(cells), 1
        if grid is not None:
            numerator, denominator = grid.interpolated(numerator, size[0], size[1])
        dn[:, band] = numerator / denominator
    return np.clip(np.rint(dn), 0, 65535).astype(np.uint16)


def shipped_tensors(name: str = CODEC) -> dict[str, np.ndarray]:
    """Weights as they come with the package; three codecs have the same."""
    return files.read_folder(hub.shipped_path(CODEC if name in (SERIES, FLEXIBLE) else name))[1]


def wild(tensors: Mapping[str, np.ndarray], most: int = 127) -> dict[str, np.ndarray]:
    """The same tensors full of random weights up to the largest: what is tested with them depends on no training."""
    rng = np.random.default_rng(5)
    out = dict(tensors)
    for name, value in tensors.items():
        if name.removeprefix(files.LATER)[0].isdigit():
            reach = most if value.dtype == np.int8 else 64 * most
            out[name] = rng.integers(-reach, reach + 1, value.shape).astype(value.dtype)
    return out


def wild_corrections(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that sends any numbers, kinds and finenesses, also such as decoders hold within bounds."""
    rng = np.random.default_rng(6)

    def numbers(count: int) -> np.ndarray:
        return (rng.choice([-1, 0, 1], count) * np.exp2(rng.uniform(0, 12, count))).astype(np.int64)

    def best(ground: corrections.Ground, _: corrections.First) -> corrections.Correction:
        bands = 0 if ground.told is None else len(ground.told.here)
        return corrections.Correction(numbers(len(ground.left)), numbers(bands), int(rng.integers(-20, 12)))

    monkeypatch.setattr(corrections.Ground, "_best", best)
    monkeypatch.setattr(corrections, "_kind", lambda _: int(rng.integers(-1, 6)))


def codec_of(tensors: Mapping[str, np.ndarray], name: str) -> PyramidCodec:
    """One of the codecs with any weights."""
    model = files.model_of(dict(tensors))
    if name == FLEXIBLE:
        return FlexCodec(name, bytes(8), model, True, later=files.later_of(dict(tensors), model))
    kind = SeriesCodec if name == SERIES else PyramidCodec
    return kind(name, bytes(8), model, name not in (CODEC, FAST))


def with_holes(dn: np.ndarray, nodata: int) -> np.ndarray:
    """The same with a corner, single pixels, and one whole row without data."""
    out = dn.copy()
    out[..., :3, :4], out[0, 0, -1], out[-1, :, 4, 5] = nodata, nodata, nodata
    return out


@dataclass(frozen=True)
class Golden:
    """A golden stream: pixels and how they are encoded."""

    dn: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    codec: str = CODEC

    def encoded(self) -> bytes:
        import eozip

        return eozip.encode(self.dn, self.codec, **self.options)


def goldens() -> dict[str, Golden]:
    """By the name of their file."""
    tens, sixty = Grid(BILINEAR, 2, 1, 1), Grid(CUBIC, 6, 1, 5)
    twelve = {0: sixty, 4: tens, 5: tens, 6: tens, 8: tens, 9: sixty, 10: tens, 11: tens}
    others = {1: Grid(NEAREST, 3, 2, 0), 2: Grid(CUBIC, 2, 0, 1), 3: Grid(BILINEAR, 6, 3, 3)}
    odd = np.rint(texture((2, 5, 7, 61), 3) - 1500).astype(np.int16)
    negative = season((4, 3, 21, 33), {}, 9).astype(np.int16) - np.int16(2000)
    rgb = np.rint(texture((1, 3, 33, 47), 1)).astype(np.uint16)
    rgb[0, 0, 5:9, 5:9] = 60000
    levels = np.random.default_rng(4).integers(0, 16, (3, 3, 5)).astype(np.uint8)
    return {
        CODEC: Golden(cube((2, 12, 24, 40), twelve), {"quality": 62.0}),
        f"{CODEC}-rgb": Golden(rgb, {"quality": 85.0}),
        f"{CODEC}-odd": Golden(with_holes(odd, -9999), {"quality": 30.0, "nodata": -9999}),
        f"{CODEC}-grids": Golden(cube((1, 5, 37, 50), others, 2), {"quality": 95.0}),
        f"{CODEC}-row": Golden(np.rint(texture((2, 2, 1, 90), 4)).astype(np.uint16), {"quality": 50.0}),
        FAST: Golden(cube((2, 12, 26, 31), twelve, 5), {"quality": 70.0}, FAST),
        SERIES: Golden(season((5, 12, 26, 34), twelve, 6), {"quality": 62.0}, SERIES),
        f"{SERIES}-odd": Golden(with_holes(negative, -9999), {"quality": 80.0, "nodata": -9999}, SERIES),
        f"{SERIES}-grids": Golden(season((3, 5, 37, 50), others, 7), {"quality": 95.0}, SERIES),
        f"{SERIES}-levels": Golden(
            season((3, 4, 37, 70), {1: Grid(BILINEAR, 2, 1, 0)}, 11),
            {"quality": 85.0, "level_map": levels},
            SERIES,
        ),
        f"{SERIES}-row": Golden(season((9, 2, 1, 40), {}, 8), {"quality": 50.0}, SERIES),
    }


def flexible_goldens() -> dict[str, Golden]:
    """Those of passes, by the name of their file."""
    tens, sixty = Grid(BILINEAR, 2, 1, 1), Grid(CUBIC, 6, 1, 5)
    grids = {0: sixty, 2: tens, 4: tens}
    negative = season((4, 3, 21, 33), {}, 9).astype(np.int16) - np.int16(2000)
    return {
        FLEXIBLE: Golden(season((3, 5, 26, 34), grids, 6), {"quality": 62.0}, FLEXIBLE),
        f"{FLEXIBLE}-budgets": Golden(
            with_holes(negative, -9999), {"budgets": (8, 0, 5, 12), "nodata": -9999}, FLEXIBLE
        ),
    }
