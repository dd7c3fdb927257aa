"""Sun, clouds, their shadows, and haze of one date."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist

import numpy as np

from eozip_lab.simulate.noise import Array, fractal, salted, smooth, smooth_aniso

_LATITUDE = 47.8
_HOUR_ANGLE = -22.0  # degrees: Sentinel-2 passes about 10:30 local solar time
_CLOUD_CELL = 84
_PIXEL_M = 10.0


@dataclass(frozen=True)
class Day:
    """One acquisition: when, and what the sky is like.

    Attributes:
        index: position in the series.
        date: calendar day.
        cover: share of the scene under cloud, 0 to 1.
        cirrus: reflectance of thin cloud where it is strongest.
        haze: reflectance of haze in the blue.
        cloud_height: metres; throws the shadows.
    """

    index: int
    date: date
    cover: float
    cirrus: float
    haze: float
    cloud_height: float

    @property
    def day_of_year(self) -> int:
        """1 to 366."""
        return self.date.timetuple().tm_yday

    def sun(self) -> tuple[float, float, float]:
        """Unit vector to the sun: east, south, up."""
        declination = math.radians(-23.44) * math.cos(2 * math.pi * (self.day_of_year + 10) / 365.25)
        latitude, hour = math.radians(_LATITUDE), math.radians(_HOUR_ANGLE)
        east = -math.cos(declination) * math.sin(hour)
        north = math.sin(declination) * math.cos(latitude) - math.cos(declination) * math.sin(
            latitude
        ) * math.cos(hour)
        up = math.sin(declination) * math.sin(latitude) + math.cos(declination) * math.cos(
            latitude
        ) * math.cos(hour)
        return east, -north, up


@dataclass(frozen=True)
class _Sky:
    """Sky over a window, float32 [h, w].

    Attributes:
        opaque: share of the ground hidden by cloud.
        white: brightness of the cloud.
        shadow: share of direct sunlight taken by clouds.
        thin: reflectance added by cirrus and haze, in the blue.
    """

    opaque: Array
    white: Array
    shadow: Array
    thin: Array


def sky_of(seed: int, day: Day, rows: Array, columns: Array) -> _Sky:
    """The sky of a day at absolute rows [h] and columns [w]."""
    shape = (len(rows), len(columns))
    thin = _thin(seed, day, rows, columns)
    if day.cover <= 0:
        nothing = np.zeros(shape, np.float32)
        return _Sky(nothing, nothing, nothing, thin)
    depth = _depth(seed, day, rows, columns)
    east, south, up = day.sun()
    reach = day.cloud_height / up / _PIXEL_M
    shaded = _depth(seed, day, rows + round(south * reach), columns + round(east * reach))
    lit = _depth(seed, day, rows + round(south * 9), columns + round(east * 9))
    opaque = _opacity(depth)
    white = np.float32(0.42) + np.float32(0.34) * depth / (depth + np.float32(0.7))
    white += np.clip((depth - lit) * np.float32(0.30), -0.14, 0.20)
    return _Sky(opaque, white, _opacity(shaded), thin)


def _depth(seed: int, day: Day, rows: Array, columns: Array) -> Array:
    """Optical thickness in rough units, 0 where there is no cloud."""
    field = fractal(salted(seed, 101, day.index), _CLOUD_CELL, 6, rows, columns, 0.52)
    field += smooth(salted(seed, 102, day.index), 700, rows, columns) * np.float32(0.5)
    threshold = NormalDist(0, math.sqrt(1.25)).inv_cdf(1 - day.cover)
    return np.maximum(field - np.float32(threshold), np.float32(0)) * np.float32(1.7)


def _opacity(depth: Array) -> Array:
    square = depth * depth
    return square / (square + np.float32(0.16))


def _thin(seed: int, day: Day, rows: Array, columns: Array) -> Array:
    streaks = smooth_aniso(salted(seed, 103, day.index), 70, 330, rows, columns)
    streaks += smooth_aniso(salted(seed, 104, day.index), 23, 120, rows, columns) * np.float32(0.5)
    haze = smooth(salted(seed, 105, day.index), 640, rows, columns) * np.float32(0.25) + 1
    return np.clip(streaks, 0, 3) * np.float32(day.cirrus / 3) + np.clip(haze, 0, 2) * np.float32(day.haze)
