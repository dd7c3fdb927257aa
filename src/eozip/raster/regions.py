"""Regions of interest on the grid of a scene: rasters, or vectors as GeoJSON and whatever fiona opens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import is_valid_geom, rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from eozip.errors import InputError
from eozip.lazy import optional
from eozip.raster.open import check_place, open_scene
from eozip.raster.read import SceneReader, open_reader
from eozip.raster.scene import Profile

_GEOJSON = (".geojson", ".json")
_VECTORS = (*_GEOJSON, ".gpkg", ".shp", ".fgb", ".kml", ".gml")
_LON_LAT = "OGC:CRS84"
_ROWS = 1024  # that are looked at together when a region is checked


class Region(Protocol):
    """Which pixels of a scene lie inside, window by window."""

    def read(self, y: slice, x: slice) -> np.ndarray:
        """Bool [h, w] of rows and columns, each with start and stop."""
        ...


def check_region(path: str | Path) -> None:
    """Refuse what is no region on any scene, before there is one.

    Raises:
        InputError: unreadable, no geometries, or a raster of several bands or dates.
    """
    if Path(path).suffix.lower() in _VECTORS:
        _geometries(Path(path))
        return
    shape = open_scene(str(path)).shape
    if shape[0] != 1 or shape[1] != 1:
        raise InputError(f"roi: {path}: expected one raster of one band, got {shape[0]} of {shape[1]}")


@contextmanager
def open_region(path: str | Path, profile: Profile, *, is_checked: bool = False) -> Iterator[Region]:
    """Open a region for reading by windows.

    Args:
        path: a raster on the scene's grid (or of whole multiples of its pixels) that is not 0, nor its nodata, inside; or
            a vector file, whose geometries and all pixels that they touch are inside.
        profile: of the scene.
        is_checked: it was read all over before, and may lie beside the scene.

    Raises:
        InputError: unreadable, another grid, values that are no numbers, or a region without any pixel of the scene.
    """
    if Path(path).suffix.lower() in _VECTORS:
        vector = _Vector(_moved(path, *_geometries(Path(path)), profile), _affine(profile))
        if not is_checked:
            _check(vector, path, profile)
        yield vector
        return
    scene = open_scene(str(path))
    factor = _factor(str(path), scene.shape, scene.profile, profile)
    with open_reader(scene) as reader:
        raster = _Raster(str(path), reader, factor)
        if not is_checked:
            _check(raster, path, profile)
        yield raster


def covers(region: Region, profile: Profile) -> bool:
    """Whether any pixel of a scene lies inside; all of the region is read, and so known to be readable."""
    inside = False
    for top in range(0, profile.height, _ROWS):
        rows = slice(top, min(profile.height, top + _ROWS))
        inside |= bool(region.read(rows, slice(0, profile.width)).any())
    return inside


def _check(region: Region, path: str | Path, profile: Profile) -> None:
    if not covers(region, profile):
        raise InputError(f"roi: {path}: expected a region that covers pixels of the scene, got one beside it")


@dataclass(frozen=True)
class _Raster:
    """A raster whose pixels are `factor` of the scene's, each way."""

    path: str
    reader: SceneReader
    factor: int

    def read(self, y: slice, x: slice) -> np.ndarray:
        k = self.factor
        rows, columns = (slice(part.start // k, -(-part.stop // k)) for part in (y, x))
        values = self.reader.read(slice(0, 1), rows, columns)[0, 0]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(
                f"roi: {self.path}: expected numbers, got NaN or infinity; write 0 outside, 1 inside"
            )
        nodata = self.reader.scene.profile.nodata
        inside = (values != 0) if nodata is None else (values != 0) & (values != nodata)
        top, left = y.start - rows.start * k, x.start - columns.start * k
        whole = inside.repeat(k, 0).repeat(k, 1)
        return whole[top : top + y.stop - y.start, left : left + x.stop - x.start]


@dataclass(frozen=True)
class _Vector:
    """Geometries in the scene's coordinates."""

    geometries: Sequence[dict[str, Any]]
    transform: Affine

    def read(self, y: slice, x: slice) -> np.ndarray:
        shape = (y.stop - y.start, x.stop - x.start)
        moved = self.transform * Affine.translation(x.start, y.start)
        burnt = rasterize(self.geometries, shape, transform=moved, all_touched=True, dtype="uint8")
        return np.asarray(burnt, bool)


def _factor(path: str, shape: Sequence[int], own: Profile, profile: Profile) -> int:
    """How many of the scene's pixels one of the region's is, each way.

    Raises:
        InputError: several bands or dates, or another grid.
    """
    if shape[0] != 1 or shape[1] != 1:
        raise InputError(f"roi: {path}: expected one raster of one band, got {shape[0]} of {shape[1]}")
    factor = max(1, profile.height // own.height)
    expected = -(-profile.height // factor), -(-profile.width // factor)
    if (own.height, own.width) != expected:
        raise InputError(
            f"roi: {path}: wrong size: expected {profile.height} x {profile.width} pixels, or whole multiples of such, got "
            f"{own.height} x {own.width}; resample it to the grid of the scene (nearest neighbour), or give a vector"
        )
    check_place(f"roi: {path}", own, profile, factor)
    return factor


def _affine(profile: Profile) -> Affine:
    """Pixels to coordinates.

    Raises:
        InputError: the scene has no georeference.
    """
    if profile.transform is None:
        raise InputError(
            "roi: expected a georeferenced scene for a vector, got one without; give a raster on its grid"
        )
    return Affine(*profile.transform[:6])


def _geometries(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Those of a file, and their coordinate system.

    Raises:
        InputError: unreadable, or no geometries.
    """
    found, own = _of_geojson(path) if path.suffix.lower() in _GEOJSON else _by_fiona(path)
    if not found or not all(map(_is_geometry, found)):
        raise InputError(f"roi: {path}: expected geometries, got {'some that are none' if found else 'none'}")
    return found, own


def _moved(
    path: str | Path, found: Sequence[dict[str, Any]], own: str, profile: Profile
) -> list[dict[str, Any]]:
    """Geometries in the scene's coordinates.

    Raises:
        InputError: coordinates that cannot be brought into the scene's.
    """
    if profile.crs is None:
        raise InputError(
            f"roi: {path}: expected a scene with coordinates for a vector, got one without; give a raster on its grid"
        )
    try:
        return [
            transform_geom(CRS.from_user_input(own), CRS.from_user_input(profile.crs), one) for one in found
        ]
    except (CRSError, rasterio.errors.RasterioError, ValueError) as error:
        raise InputError(
            f"roi: {path}: expected coordinates that fit the scene's, got {own}: {error}"
        ) from error


def _is_geometry(given: object) -> bool:
    try:
        return bool(is_valid_geom(given))
    except (TypeError, ValueError, LookupError, AttributeError):  # how it says that coordinates are none
        return False


def _of_geojson(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Geometries, and their coordinate system: longitude and latitude unless an old file says another."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"roi: {path}: expected GeoJSON, got {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"roi: {path}: expected a GeoJSON object, got {type(data).__name__}")
    features = data.get("features") if data.get("type") == "FeatureCollection" else [data]
    if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
        raise InputError(f"roi: {path}: expected a list of GeoJSON features, got {features!r:.80}")
    found = [one.get("geometry") if one.get("type") == "Feature" else one for one in features]
    named = data.get("crs")
    properties = named.get("properties") if isinstance(named, dict) else None
    own = properties.get("name", _LON_LAT) if isinstance(properties, dict) else _LON_LAT
    return [one for one in found if one is not None], str(own)


def _by_fiona(path: Path) -> tuple[list[dict[str, Any]], str]:
    fiona = optional(
        "fiona",
        f"roi: {path}: only GeoJSON is read without fiona: pip install fiona, or convert it: ogr2ogr roi.geojson {path}",
    )
    try:
        with fiona.open(path) as opened:
            return [one.geometry.__geo_interface__ for one in opened if one.geometry], opened.crs_wkt
    except (fiona.errors.FionaError, OSError) as error:
        raise InputError(f"roi: {path}: expected a vector file, got {error}") from error
