"""From land and sky to digital numbers: mix spectra, sample each band on its own grid, add noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eozip import sensors
from eozip_lab.simulate.land import STATIC, Land, land_of
from eozip_lab.simulate.noise import Array, hash32, salted
from eozip_lab.simulate.sky import Day, sky_of
from eozip_lab.simulate.spectra import BROADLEAF, SHIFTS, phenology, spectrum

SENSOR = "s2-l2a"
_GROWING = ("crop", "broadleaf", "conifer", "flower", "dry", "dark_soil", "pale_soil")
_FACTORS = (1, 2, 6)  # pixels of 10 m across a pixel of each native grid
_HALO = 6  # windows grow to the coarsest grid, and by one of its pixels, which upsampling needs
_SPREAD = np.float32(0.14)  # what a neighbour's light adds to a 10 m pixel: the sensor's point spread
_NOISE_FLOOR, _NOISE_SHARE = np.float32(0.0006), np.float32(0.006)
_BYTES_TO_UNIT_VARIANCE = np.float32(1 / 104.51)  # of the sum of two bytes


def render(seed: int, days: Sequence[Day], rows: range, columns: range) -> np.ndarray[Any, Any]:
    """Render a window of the endless world `seed`; a pixel is the same in every window.

    Args:
        seed: which world.
        days: [T] acquisitions.
        rows: absolute rows; columns: absolute columns; step 1.

    Returns:
        uint16 [T, 12, h, w]: DN = reflectance * 10000, bands of sensor s2-l2a on the 10 m grid, never 0.
    """
    y, x = _grown(rows), _grown(columns)
    land = land_of(seed, y, x)
    fixed = dict(_on_grids(land.fixed))
    top, left = rows.start - int(y[0]) - _HALO, columns.start - int(x[0]) - _HALO
    inner = (slice(top, top + len(rows)), slice(left, left + len(columns)))
    out = np.empty((len(days), 12, len(rows), len(columns)), np.uint16)
    for t, day in enumerate(days):
        living = _living(land, day)
        sky = sky_of(seed, day, y, x)
        fields = np.stack([*living, sky.opaque, sky.opaque * sky.white, sky.shadow, sky.thin])
        for factor, coarse in _on_grids(fields):
            for band, plane in _planes(seed, day, factor, coarse, fixed[factor], int(y[0]), int(x[0])):
                out[t, band] = plane[inner]
    return out


def _grown(part: range) -> Array:
    start = part.start // _HALO * _HALO - _HALO
    stop = -(-part.stop // _HALO) * _HALO + _HALO
    return np.arange(start, stop, dtype=np.int64)


def _living(land: Land, day: Day) -> list[Array]:
    """Sunlit shares [7][h, w] of the materials in _GROWING on one day."""
    light = _light(land, day)
    green, dry, flower = (column[land.crop] for column in phenology(day.day_of_year))
    green = np.minimum(green * land.vigour, 1)
    bare = np.maximum(1 - green - dry - flower, 0)
    farmed = land.farmed * light * land.canopy
    leafy = land.crop >= BROADLEAF * SHIFTS
    nothing = np.float32(0)
    pale = bare * land.soil
    return [
        farmed * np.where(leafy, nothing, green),
        farmed * np.where(leafy, green, nothing),
        land.conifer * light * land.canopy,
        farmed * flower,
        farmed * dry,
        farmed * (bare - pale),
        farmed * pale,
    ]


def _light(land: Land, day: Day) -> Array:
    """Sunlight on the slope over sunlight on the flat, softened by skylight."""
    east, south, up = (np.float32(part) for part in day.sun())
    direct = up - land.slope_x * east - land.slope_y * south
    steepness = np.sqrt(land.slope_x * land.slope_x + land.slope_y * land.slope_y + np.float32(1))
    return np.clip(np.float32(0.2) + np.float32(0.8) * direct / (up * steepness), 0.3, 1.8)


def _on_grids(fields: Array) -> Iterator[tuple[int, Array]]:
    """Factor and [n, h, w] of each native grid, cut to what resampling back to the inner window needs."""
    yield 1, fields[:, _HALO - 1 : 1 - _HALO, _HALO - 1 : 1 - _HALO]
    half = _mean(fields, 2)
    yield 2, half[:, 2:-2, 2:-2]
    yield 6, _mean(half, 3)


def _mean(fields: Array, factor: int) -> Array:
    """Mean of blocks, added in an order that does not depend on the window (np.mean's does)."""
    total = fields[:, ::factor, ::factor].copy()
    for i in range(1, factor * factor):
        total += fields[:, i // factor :: factor, i % factor :: factor]
    return total * np.float32(1 / factor**2)


def _planes(
    seed: int, day: Day, factor: int, fields: Array, fixed: Array, top: int, left: int
) -> Iterator[tuple[int, Array]]:
    """Band index and DN (uint16, inner window grown by less than a 60 m pixel) of the bands on one grid."""
    bands = [
        index
        for index, band in enumerate(sensors.get(SENSOR).bands)
        if band.native_resolution_m == factor * 10
    ]
    noise: list[Array] = []
    for position, band in enumerate(bands):
        if position % 2 == 0:
            rows, columns = _native(top, left, factor, fields.shape[1:])
            noise = _noise_pair(salted(seed, 201, day.index, band), rows, columns)
        reflectance = _reflectance(band, fields, fixed)
        yield band, _digital(_sampled(reflectance, noise[position % 2], factor))


def _native(top: int, left: int, factor: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Absolute coordinates, on the band's own grid, of the pixels that get noise."""
    first_row, first_column = (top + _HALO) // factor, (left + _HALO) // factor
    border = 0 if factor == 1 else 1
    trim = 2 if factor == 1 else 0
    rows = np.arange(first_row - border, first_row - border + shape[0] - trim)
    columns = np.arange(first_column - border, first_column - border + shape[1] - trim)
    return rows, columns


def _noise_pair(salt: int, rows: Array, columns: Array) -> list[Array]:
    """Two float32 [h, w] of unit variance, near enough to normal: sums of two bytes."""
    h = hash32(rows[:, None], columns[None, :], salt)
    byte = np.uint32(255)
    pairs = ((h & byte) + ((h >> np.uint32(8)) & byte), ((h >> np.uint32(16)) & byte) + (h >> np.uint32(24)))
    return [(pair.astype(np.float32) - np.float32(255)) * _BYTES_TO_UNIT_VARIANCE for pair in pairs]


def _reflectance(band: int, fields: Array, fixed: Array) -> Array:
    *living, opaque, white, shadow, thin = fields
    ground = fixed[0] * spectrum(STATIC[0])[band]
    for name, share in zip(STATIC[1:], fixed[1:]):
        ground += share * spectrum(name)[band]
    for name, share in zip(_GROWING, living):
        ground += share * spectrum(name)[band]
    ground *= 1 - shadow * (1 - spectrum("skylight")[band])
    ground *= 1 - opaque
    ground += white * spectrum("cloud")[band]
    ground += thin * spectrum("haze")[band]
    return ground


def _sampled(reflectance: Array, noise: Array, factor: int) -> Array:
    if factor == 1:
        reflectance = _blurred(_blurred(reflectance).T).T
    noisy = reflectance + noise * (_NOISE_FLOOR + _NOISE_SHARE * reflectance)
    return noisy if factor == 1 else _stretched(_stretched(noisy, factor).T, factor).T


def _blurred(plane: Array) -> Array:
    """Point spread down the columns; loses a row at either end."""
    return plane[1:-1] * (1 - 2 * _SPREAD) + (plane[:-2] + plane[2:]) * _SPREAD


def _stretched(plane: Array, factor: int) -> Array:
    """Bilinear upsampling down the columns, centres aligned as in GDAL; loses a coarse row at either end."""
    out = np.empty(((len(plane) - 2) * factor, plane.shape[1]), np.float32)
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        other = plane[:-2] if offset < 0 else plane[2:]
        weight = np.float32(abs(offset))
        out[phase::factor] = plane[1:-1] * (1 - weight) + other * weight
    return out


def _digital(reflectance: Array) -> Array:
    return np.clip(np.rint(reflectance * np.float32(10000)), 1, 65535).astype(np.uint16)
