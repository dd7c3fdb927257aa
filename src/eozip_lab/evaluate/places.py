"""Folders of GeoTIFFs as places to measure on: `<place>_<number>.tif`, one file a date."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eozip import sensors
from eozip.chunk.pixels import fill_holes
from eozip.errors import InputError
from eozip.raster import open_scene, read_window

NUMBERED = re.compile(r"(?P<place>.+)_(?P<number>\d+)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """One place to measure on.

    Attributes:
        name: from the file names.
        dn: uint16 or int16 [T, C, H, W].
        bands: [C] band names.
        resolutions: [C] native ground sampling in metres.
        offset: radiometric offset contained in ``dn``.
        dates: [T] ISO 8601, None where not known.
        sensor: sensor id.
        valid: bool [T, H, W], pixels that count: those without nodata in any band. In ``dn`` the others are filled from
            their surroundings, for every method alike. None: all count.
    """

    name: str
    dn: np.ndarray
    bands: tuple[str, ...]
    resolutions: tuple[int, ...]
    offset: int = 0
    dates: tuple[str | None, ...] = ()
    sensor: str = "s2-l2a"
    valid: np.ndarray | None = None

    def filled(self, nodata: int | None) -> Place:
        """The place with its nodata pixels filled and left out of what counts.

        Raises:
            InputError: nothing is left.
        """
        missing = np.zeros(self.dn.shape, bool) if nodata is None else self.dn == nodata
        if not missing.any():
            return self
        valid = ~missing.any(axis=1)
        if not valid.any():
            raise InputError(f"{self.name}: every pixel has nodata ({nodata}) in some band; leave it out")
        return replace(self, dn=fill_holes(self.dn, missing), valid=valid)


def place_files(folder: Path) -> dict[str, list[Path]]:
    """GeoTIFFs of a folder by place, dates in the order of their numbers.

    Raises:
        InputError: there are none.
    """
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("*.tif")):
        match = NUMBERED.fullmatch(path.stem)
        name, number = (match["place"], int(match["number"])) if match else (path.stem, 0)
        found.setdefault(name, []).append((number, path))
    if not found:
        raise InputError(f"{folder}: expected GeoTIFFs named <place>_<number>.tif, found none")
    return {name: [path for _, path in sorted(numbered)] for name, numbered in found.items()}


def load_place(name: str, files: list[Path], size: int | None = None, sensor: str = "s2-l2a") -> Place:
    """Reads a place; of larger frames the top left `size` x `size` pixels.

    Raises:
        InputError: unreadable, other bands, frames smaller than `size`, or an offset that is no whole DN.
    """
    known = sensors.get(sensor)
    scene = open_scene(files, known.band_names)
    height, width = scene.shape[2:]
    if size is not None and min(height, width) < size:
        raise InputError(
            f"{name}: expected at least {size} x {size} pixels, got {height} x {width}; set a smaller size"
        )
    if scene.offset != int(scene.offset):
        raise InputError(f"{name}: expected a whole number of DN as offset, got {scene.offset}")
    window = slice(0, size)
    dn = np.ascontiguousarray(read_window(scene, slice(None), window, window))
    return Place(name, dn, known.band_names, resolutions(sensor), int(scene.offset))


def load_places(folder: Path, size: int | None = None, sensor: str = "s2-l2a") -> list[Place]:
    """Every place of a folder.

    Raises:
        InputError: see `place_files` and `load_place`.
    """
    return [load_place(name, files, size, sensor) for name, files in place_files(folder).items()]


def resolutions(sensor: str = "s2-l2a") -> tuple[int, ...]:
    """[C] native ground sampling of a sensor's bands in metres."""
    return tuple(band.native_resolution_m for band in sensors.get(sensor).bands)
