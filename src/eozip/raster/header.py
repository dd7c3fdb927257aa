"""What one raster file says about itself: grid, bands, masks, tags; no pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from eozip.errors import InputError
from eozip.raster.bands import Band, is_alpha
from eozip.raster.dates import Dating, dating_of
from eozip.raster.files import PathLike, exists, gdal_name, is_elsewhere, printable
from eozip.raster.scene import Profile, Source, Tags
from eozip.sensors.sensor import canonical_name

# What GDAL derives from the pixels or the file's layout says nothing about the copy that we write.
_DERIVED_NAMESPACES = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "COLOR_PROFILE")
_DERIVED_TAG = "STATISTICS_"


@dataclass(frozen=True)
class Header:
    """One date as its file or files describe it."""

    path: str
    bands: tuple[Band, ...]
    dating: Dating
    grid: dict[str, Any]
    tags: Tags
    block_shape: tuple[int, int]


def header_of(path: PathLike) -> Header:
    """Reads the header of one file.

    Raises:
        InputError: nothing that GDAL can read, or no bands in it.
    """
    with open_dataset(path) as src:
        if src.count == 0:
            raise InputError(
                f"{printable(path)}: holds no raster bands of its own; expected a GeoTIFF with 12 or 13 bands, or one "
                "of the subdatasets that gdalinfo lists"
            )
        tags = _tags(src)
        name = gdal_name(path)
        return Header(
            path=name,
            bands=tuple(_band(src, name, index) for index in src.indexes),
            dating=dating_of(name, tags.get("", {})),
            grid=_grid(src),
            tags=tags,
            block_shape=src.block_shapes[0],
        )


def open_dataset(path: PathLike) -> rasterio.DatasetReader:
    """Open a raster for reading; close it after use.

    Raises:
        InputError: missing, or nothing that GDAL can read.
    """
    name = gdal_name(path)
    if not is_elsewhere(name) and not exists(path):
        raise InputError(f"{printable(path)}: no such file; expected a GeoTIFF or a folder of GeoTIFFs")
    try:
        with warnings.catch_warnings():
            # A raster without georeference is compressed like any other.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(name)
    except (RasterioError, ValueError) as error:
        raise InputError(f"{name}: cannot be read as a raster ({error}); expected a GeoTIFF") from error


def _band(src: rasterio.DatasetReader, path: str, index: int) -> Band:
    i = index - 1
    name = src.descriptions[i]
    return Band(
        source=Source(path, index, _mask(src.mask_flag_enums[i])),
        name=name,
        code=canonical_name(name) if name else None,
        dtype=src.dtypes[i],
        nodata=src.nodatavals[i],
        scale=src.scales[i],
        offset=src.offsets[i],
        unit=src.units[i],
        colorinterp=src.colorinterp[i].name,
        tags=_kept(src.tags(index)),
    )


def _mask(flags: Sequence[MaskFlags]) -> str:
    """As in `Source`; an alpha band is looked at with the bands that are taken."""
    if {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha} & set(flags):
        return ""
    return "dataset" if MaskFlags.per_dataset in flags else "band"


def _grid(src: rasterio.DatasetReader) -> dict[str, Any]:
    points, points_crs = src.gcps
    return {
        "height": src.height,
        "width": src.width,
        "crs": _wkt(src.crs),
        "transform": None if src.transform.is_identity else tuple(src.transform)[:6],
        "gcps": tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
        "gcp_crs": _wkt(points_crs),
    }


def _wkt(crs: CRS | None) -> str | None:
    return crs.to_wkt() if crs else None


def _tags(src: rasterio.DatasetReader) -> Tags:
    namespaces = [
        n for n in src.tag_namespaces() if n not in _DERIVED_NAMESPACES and not n.startswith("xml:")
    ]
    found = {"": _kept(src.tags()), **{name: src.tags(ns=name) for name in namespaces}}
    rpc = src.tags(ns="RPC")
    return {**found, "RPC": rpc} if rpc else found


def _kept(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_DERIVED_TAG)}


def with_masks(header: Header, bands: list[Band]) -> tuple[list[Band], list[str]]:
    """An alpha band that is not taken as pixels is the mask of the others; so are nodata values that differ."""
    if len({str(band.nodata) for band in bands}) > 1:
        note = f"{header.path}: bands have nodata values of their own; decoding writes one for all"
        return [_masked(band, "band", nodata=None) for band in bands], [note]
    alphas = [band.source for band in header.bands if is_alpha(band)]
    if alphas and not any(band.source in alphas for band in bands):
        note = f"{header.path}: its alpha band becomes a mask: 0 is missing, all else valid; decoding writes a mask"
        return [_by_alpha(band, alphas) for band in bands], [note]
    if any(band.source.mask for band in bands) and len({(b.source.mask, b.source.path) for b in bands}) > 1:
        note = f"{header.path}: bands have masks of their own; decoding writes a nodata value instead"
        return [_masked(band, "band") for band in bands], [note]
    return bands, []


def _by_alpha(band: Band, alphas: Sequence[Source]) -> Band:
    alpha = next((source.index for source in alphas if source.path == band.source.path), None)
    return band if alpha is None else replace(band, source=replace(band.source, mask="dataset", alpha=alpha))


def _masked(band: Band, mask: str, **changes: Any) -> Band:
    return replace(band, source=replace(band.source, mask=mask), **changes)


def profile_of(header: Header) -> Profile:
    """What the bands of a file share.

    Raises:
        InputError: they differ in data type or nodata value, or have a data type that numpy does not know.
    """
    bands = header.bands
    dtype = _the_one([band.dtype for band in bands], header.path, "data type")
    try:
        np.dtype(dtype)
    except TypeError as error:
        raise InputError(f"{header.path}: expected uint16 or int16 digital numbers, got {dtype}") from error
    nodata = _the_one([band.nodata for band in bands], header.path, "nodata value")
    return Profile(
        **header.grid,
        dtype=dtype,
        nodata=_nodata(nodata, dtype, header.path),
        band_names=tuple(band.name for band in bands),
        scales=tuple(band.scale for band in bands),
        offsets=tuple(band.offset for band in bands),
        units=tuple(band.unit for band in bands),
        colorinterp=tuple(band.colorinterp for band in bands),
    )


def _the_one(values: Sequence[Any], path: str, what: str) -> Any:
    if len({str(value) for value in values}) > 1:
        raise InputError(
            f"{path}: bands differ in {what} ({values}); expected one for all bands, choose with --bands"
        )
    return values[0]


def _nodata(value: float | None, dtype: str, path: str) -> float | int | None:
    if value is None or np.dtype(dtype).kind not in "iu":
        return value
    limits = np.iinfo(dtype)
    if not (float(value).is_integer() and limits.min <= value <= limits.max):
        raise InputError(
            f"{path}: nodata {value} is no {dtype} and cannot occur; remove it (gdal_edit.py -unsetnodata "
            f"{path}) or set the real one (gdal_edit.py -a_nodata 0 {path})"
        )
    return int(value)
