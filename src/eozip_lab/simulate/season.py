"""A season of acquisitions: which days, how cloudy, and the files they become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from eozip import sensors
from eozip.errors import InputError
from eozip.raster import Profile, create_geotiffs
from eozip.raster.scene import Tags
from eozip_lab.simulate.noise import Array, salted
from eozip_lab.simulate.render import SENSOR, render
from eozip_lab.simulate.sky import Day

MAX_SIZE = 10980  # a whole Sentinel-2 tile
MAX_DATES = 146  # two years of acquisitions every five days
_WINDOW = 512
_FIRST = date(2025, 4, 15)
_REPEAT_DAYS = 5
_ORIGIN = (399960.0, 5300040.0)  # upper left corner of a tile, EPSG:32633
_CLOCK = "10:15:59"


def season(dates: int, seed: int) -> tuple[Day, ...]:
    """Plan acquisitions over a year from 15 April 2025, on the satellites' five-day rhythm.

    Cloud cover is spread from clear to about half covered, in an order that the seed decides.

    Args:
        dates: how many, 1 to MAX_DATES.
        seed: which season.

    Raises:
        InputError: `dates` out of range.
    """
    if not 1 <= dates <= MAX_DATES:
        raise InputError(f"dates: expected 1 to {MAX_DATES}, got {dates}")
    step = max(_REPEAT_DAYS, 365 // dates // _REPEAT_DAYS * _REPEAT_DAYS)
    draws = [[salted(seed, index, what) / 2**32 for what in range(5)] for index in range(dates)]
    rank = sorted(range(dates), key=lambda index: draws[index][0])
    return tuple(
        Day(
            index=index,
            date=_FIRST + timedelta(days=index * step),
            cover=_cover((rank.index(index) + draw[1]) / dates),
            cirrus=0.07 * max(0.0, draw[2] - 0.5),
            haze=0.004 + 0.014 * draw[3] ** 2,
            cloud_height=700.0 + 700.0 * draw[4],
        )
        for index, draw in enumerate(draws)
    )


def _cover(draw: float) -> float:
    """Nearly half of the dates are clear, one in ten is half covered."""
    return 0.0 if draw < 0.4 else 0.6 * ((draw - 0.4) / 0.6) ** 2


def simulate(
    out: str | os.PathLike[str],
    dates: int = 4,
    size: int = 512,
    seed: int = 0,
    *,
    nodata_edge: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a simulated Sentinel-2 L2A season: one GeoTIFF per date in folder `out`, tagged `simulated=yes`.

    Deterministic: the same arguments give the same pixels on every machine. Memory does not grow with `size`.

    Args:
        out: folder to make; the folder it lies in exists.
        dates: number of acquisitions.
        size: edge in pixels of 10 m, up to 10980.
        seed: which world and weather.
        nodata_edge: leave a slanted edge of the swath empty (DN 0).
        overwrite: replace a folder of GeoTIFFs that exists.
        progress: called with windows done and windows in all.

    Returns:
        [T] paths of the files.

    Raises:
        InputError: `dates` or `size` out of range.
        OutputError: `out` exists, or cannot be written in full; nothing is left under its name.
    """
    if not 1 <= size <= MAX_SIZE:
        raise InputError(f"size: expected 1 to {MAX_SIZE} pixels, got {size}")
    days = season(dates, seed)
    names = [f"sim_{day.date:%Y%m%d}.tif" for day in days]
    tags = [_tags(day, seed) for day in days]
    with create_geotiffs(out, names, _profile(size), tags, _band_tags(), overwrite=overwrite) as writers:
        for done, total, rows, columns in _windows(size):
            pixels = render(seed, days, rows, columns)
            if nodata_edge:
                pixels *= _swath(days, size, rows, columns)
            for writer, date_pixels in zip(writers, pixels, strict=True):
                writer.write(date_pixels, rows.start, columns.start)
            if progress is not None:
                progress(done, total)
    return [Path(out) / name for name in names]


def _windows(size: int) -> Iterator[tuple[int, int, range, range]]:
    starts = range(0, size, _WINDOW)
    total = len(starts) ** 2
    for index in range(total):
        y, x = starts[index // len(starts)], starts[index % len(starts)]
        yield index + 1, total, range(y, min(y + _WINDOW, size)), range(x, min(x + _WINDOW, size))


def _swath(days: tuple[Day, ...], size: int, rows: range, columns: range) -> Array:
    """uint16 [T, 1, h, w]: 1 inside the swath, 0 beyond its slanted edge, which moves with the date."""
    across = np.array(columns)[None, :] * 4 + np.array(rows)[:, None]
    edges = [int(size * 4.1) + day.index * 7 % 23 for day in days]
    return np.stack([(across < edge)[None] for edge in edges]).astype(np.uint16)


def _profile(size: int) -> Profile:
    names = sensors.get(SENSOR).band_names
    count = len(names)
    return Profile(
        height=size,
        width=size,
        dtype="uint16",
        crs=CRS.from_epsg(32633).to_wkt(),
        transform=(10.0, 0.0, _ORIGIN[0], 0.0, -10.0, _ORIGIN[1]),
        gcps=(),
        gcp_crs=None,
        nodata=0,
        band_names=names,
        scales=(1.0,) * count,
        offsets=(0.0,) * count,
        units=(None,) * count,
        colorinterp=("gray",) + ("undefined",) * (count - 1),
    )


def _tags(day: Day, seed: int) -> Tags:
    own = {
        "simulated": "yes",
        "TIFFTAG_IMAGEDESCRIPTION": "SIMULATED Sentinel-2 like scene by eozip simulate; not a measurement",
        "TIFFTAG_DATETIME": f"{day.date:%Y:%m:%d} {_CLOCK}",
        "eozip_simulator_seed": str(seed),
        "eozip_simulator_cloud_cover": f"{day.cover:.3f}",
    }
    return {"": own}


def _band_tags() -> list[dict[str, str]]:
    bands = sensors.get(SENSOR).bands
    return [
        {"wavelength_nm": str(b.wavelength_nm), "native_resolution_m": str(b.native_resolution_m)}
        for b in bands
    ]
