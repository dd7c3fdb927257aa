"""From paths to a Scene: find the dates, read their headers, check that they share one grid."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from eozip.errors import InputError
from eozip.raster.dates import date_of
from eozip.raster.scene import Profile, Scene, Source, Tags
from eozip.sensors.sensor import by_count, canonical_name, without_band_code

PathLike = str | os.PathLike[str]

_SUFFIXES = (".tif", ".tiff")
# What GDAL derives from the pixels or the file's layout says nothing about the copy that we write.
_DERIVED_NAMESPACES = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "COLOR_PROFILE")
_DERIVED_TAG = "STATISTICS_"


def open_scene(
    paths: PathLike | Sequence[PathLike],
    bands: Sequence[str | int] | None = None,
    offset: float | None = None,
) -> Scene:
    """Describe one GeoTIFF, several GeoTIFFs as dates, or every GeoTIFF of a folder; reads no pixels.

    Dates come from file names, else from tags. They are put in time order where all are known; else files
    keep the order given (a folder's: by name). Files of one band each whose names hold a band code, such as
    "..._B04.tif", are joined to dates.

    Args:
        paths: a file, a folder, or files.
        bands: names or 1-based positions of the bands to take, in the order wanted. Where the file describes
            no band, names say what its bands are, in file order, and 12 or 13 positions stand for the
            sensor's bands in the sensor's order.
        offset: DN added to the offset-free DN. None takes GDAL's offset tags; pixels are never asked.

    Raises:
        InputError: nothing to read, unreadable, dates on different grids (names the file and what differs),
            or bands that do not exist.
    """
    headers = _in_time_order(_joined_bands([_header(path) for path in _files(paths)]))
    first = headers[0]
    for other in headers[1:]:
        _check_same(first, other)
    scene = Scene(
        sources=tuple(h.sources for h in headers),
        dates=tuple(h.date for h in headers),
        profile=first.profile,
        tags=tuple(h.tags for h in headers),
        band_tags=first.band_tags,
        offset=0.0,
        block_shape=first.block_shape,
    )
    scene = scene if bands is None else _with_bands(scene, bands)
    return replace(scene, offset=_radiometric_offset(scene.profile) if offset is None else float(offset))


@dataclass(frozen=True)
class _Header:
    """One date as its file or files describe it."""

    path: Path
    sources: tuple[Source, ...]
    date: datetime | None
    profile: Profile
    tags: Tags
    band_tags: tuple[dict[str, str], ...]
    block_shape: tuple[int, int]


def _files(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    if not isinstance(paths, (str, os.PathLike)):
        files = [file for path in paths for file in _files(path)]
        if not files:
            raise InputError("no input: expected a GeoTIFF, several GeoTIFFs or a folder of GeoTIFFs")
        return files
    path = Path(paths)
    return _folder(path) if path.is_dir() else [path]


def _folder(folder: Path) -> list[Path]:
    if folder.suffix.upper() == ".SAFE":
        raise InputError(
            f"{folder}: .SAFE products keep bands on grids of 10, 20 and 60 m; expected bands on one grid. "
            "Resample bilinearly to one GeoTIFF first, for example: gdalbuildvrt -separate -resolution "
            "highest -r bilinear bands.vrt BAND_FILES, then gdal_translate bands.vrt scene.tif, and name its "
            "bands with --bands"
        )
    files = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")
    )
    if not files:
        raise InputError(
            f"{folder}: no GeoTIFF in this folder; expected files ending in {' or '.join(_SUFFIXES)}"
        )
    return files


def _header(path: Path) -> _Header:
    with open_dataset(path) as src:
        if src.count == 0:
            raise InputError(
                f"{path}: holds no raster bands of its own; expected a GeoTIFF with 12 or 13 bands"
            )
        tags = _tags(src)
        return _Header(
            path=path,
            sources=tuple(Source(str(path), index) for index in src.indexes),
            date=date_of(path.name, tags.get("", {})),
            profile=_profile(src, path),
            tags=tags,
            band_tags=tuple(_kept(src.tags(index)) for index in src.indexes),
            block_shape=src.block_shapes[0],
        )


def open_dataset(path: PathLike) -> rasterio.DatasetReader:
    """Open a raster for reading; close it after use.

    Raises:
        InputError: missing, or nothing that GDAL can read.
    """
    if not str(path).startswith("/vsi") and not Path(path).exists():
        raise InputError(f"{path}: no such file; expected a GeoTIFF or a folder of GeoTIFFs")
    try:
        with warnings.catch_warnings():
            # A raster without georeference is compressed like any other.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path)
    except RasterioError as error:
        raise InputError(f"{path}: cannot be read as a raster ({error}); expected a GeoTIFF") from error


def _profile(src: rasterio.DatasetReader, path: Path) -> Profile:
    points, points_crs = src.gcps
    return Profile(
        height=src.height,
        width=src.width,
        dtype=_the_one(src.dtypes, path, "data type"),
        crs=_wkt(src.crs),
        transform=None if src.transform.is_identity else tuple(src.transform)[:6],
        gcps=tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
        gcp_crs=_wkt(points_crs),
        nodata=_nodata(_the_one(src.nodatavals, path, "nodata value"), src.dtypes[0], path),
        band_names=tuple(src.descriptions),
        scales=tuple(src.scales),
        offsets=tuple(src.offsets),
        units=tuple(src.units),
        colorinterp=tuple(c.name for c in src.colorinterp),
    )


def _wkt(crs: CRS | None) -> str | None:
    return crs.to_wkt() if crs else None


def _the_one(values: Sequence[Any], path: Path, what: str) -> Any:
    if len({str(value) for value in values}) > 1:
        raise InputError(f"{path}: bands differ in {what} ({values}); expected one for all bands")
    return values[0]


def _nodata(value: float | None, dtype: str, path: Path) -> float | int | None:
    if value is None or np.dtype(dtype).kind not in "iu":
        return value
    limits = np.iinfo(dtype)
    if not (float(value).is_integer() and limits.min <= value <= limits.max):
        raise InputError(
            f"{path}: nodata {value} is no {dtype} and cannot occur; remove it (gdal_edit.py -unsetnodata "
            f"{path}) or set the real one (gdal_edit.py -a_nodata 0 {path})"
        )
    return int(value)


def _tags(src: rasterio.DatasetReader) -> Tags:
    namespaces = [
        n for n in src.tag_namespaces() if n not in _DERIVED_NAMESPACES and not n.startswith("xml:")
    ]
    found = {"": _kept(src.tags()), **{name: src.tags(ns=name) for name in namespaces}}
    rpc = src.tags(ns="RPC")
    return {**found, "RPC": rpc} if rpc else found


def _kept(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_DERIVED_TAG)}


def _joined_bands(headers: list[_Header]) -> list[_Header]:
    """Dates out of files of one band each, told apart by their names without the band code."""
    codes = [canonical_name(h.path.stem) for h in headers]
    if len(headers) < 2 or any(len(h.sources) != 1 for h in headers) or None in codes:
        return headers
    groups: dict[str, list[_Header]] = {}
    for header in headers:
        groups.setdefault(without_band_code(header.path.stem), []).append(header)
    return [_joined(group) for group in groups.values()]


def _joined(group: list[_Header]) -> _Header:
    first = group[0]
    for other in group[1:]:
        _check_same(first, other, but=("band_names", "scales", "offsets", "units", "colorinterp"))

    def flat(name: str) -> tuple[Any, ...]:
        return tuple(value for h in group for value in getattr(h.profile, name))

    names = tuple(canonical_name(h.path.stem) for h in group)
    profile = replace(
        first.profile,
        band_names=names,
        scales=flat("scales"),
        offsets=flat("offsets"),
        units=flat("units"),
        colorinterp=flat("colorinterp"),
    )
    return replace(
        first,
        sources=tuple(source for h in group for source in h.sources),
        profile=profile,
        band_tags=tuple(tags for h in group for tags in h.band_tags),
    )


def _in_time_order(headers: list[_Header]) -> list[_Header]:
    dated = [(h.date, h) for h in headers if h.date is not None]
    if len(dated) < len(headers):
        return headers
    return [h for _, h in sorted(dated, key=lambda pair: pair[0])]


def _check_same(first: _Header, other: _Header, but: tuple[str, ...] = ()) -> None:
    for field in fields(Profile):
        expected, got = getattr(first.profile, field.name), getattr(other.profile, field.name)
        if field.name not in (*but, "colorinterp", "units") and not same_field(field.name, expected, got):
            raise InputError(
                f"{other.path}: {field.name} differs from {first.path}: expected {expected}, got {got}. "
                "Dates of one store share one grid and one set of bands: warp the file onto the others' "
                "grid, or leave it out"
            )


def same_field(name: str, expected: object, got: object) -> bool:
    """Whether a field of two profiles means the same: CRS by meaning, transforms to a millionth of a pixel."""
    if name in ("crs", "gcp_crs") and isinstance(expected, str) and isinstance(got, str):
        return bool(CRS.from_wkt(expected) == CRS.from_wkt(got))
    if name == "transform" and isinstance(expected, tuple) and isinstance(got, tuple):
        pixel = abs(expected[0]) + abs(expected[1])
        return bool(np.allclose(expected, got, rtol=0, atol=1e-6 * pixel))
    return expected == got


def _with_bands(scene: Scene, bands: Sequence[str | int]) -> Scene:
    if not any(scene.band_names):
        scene = _described(scene, bands)
    return scene.select([_position(scene, band) for band in bands])


def _described(scene: Scene, bands: Sequence[str | int]) -> Scene:
    """Names for bands that the file leaves without any, as the caller's `bands` imply them."""
    count = len(scene.band_names)
    by_number = all(isinstance(band, int) for band in bands)
    if not by_number and len(bands) != count:
        raise InputError(
            f"{scene.paths[0]}: its {count} bands have no descriptions, so --bands must name all of them in "
            f"file order; got {len(bands)} names. Or choose by position, 1 to {count}, in the sensor's order"
        )
    named: list[str | None] = [None] * count if by_number else [str(band) for band in bands]
    if by_number:
        for band, name in zip(bands, by_count(len(bands)).band_names, strict=True):
            named[_index(scene, int(band))] = name
    return replace(scene, profile=replace(scene.profile, band_names=tuple(named)))


def _position(scene: Scene, band: str | int) -> int:
    if isinstance(band, int):
        return _index(scene, band)
    wanted = canonical_name(band)
    for position, name in enumerate(scene.band_names):
        if name is not None and (name == band or (wanted is not None and canonical_name(name) == wanted)):
            return position
    have = ", ".join(str(name) for name in scene.band_names)
    raise InputError(f"{scene.paths[0]}: no band {band!r}; the file has {have}")


def _index(scene: Scene, band: int) -> int:
    count = len(scene.band_names)
    if not 1 <= band <= count:
        raise InputError(f"{scene.paths[0]}: no band {band}; positions run from 1 to {count}")
    return band - 1


def _radiometric_offset(profile: Profile) -> float:
    """DN added, out of GDAL's physical = DN * scale + offset; 0 where the file says nothing."""
    if 0.0 in profile.scales:
        raise InputError(
            "a band has GDAL scale 0; give the radiometric offset with --offset (offset= in Python)"
        )
    steps = {round(-o / s, 6) + 0.0 for o, s in zip(profile.offsets, profile.scales)}
    if len(steps) > 1:
        raise InputError(
            f"bands have different radiometric offsets ({sorted(steps)} DN by the file's GDAL tags); "
            "expected one. Give it with --offset (offset= in Python): 1000 for products of baseline 04.00 "
            "and later, else 0"
        )
    return steps.pop()
