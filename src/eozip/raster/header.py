"""What one raster file says about itself: grid, bands, masks, tags; no pixels.

Bands are named by their description, their file's name or their number. Files that hold one band each (as Sentinel-2
products do) are recognised here, so that they can be joined to one date."""

from __future__ import annotations

import math
import re
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from eozip.errors import InputError
from eozip.raster.files import Dating, PathLike, dating_of, exists, gdal_name, is_elsewhere, printable
from eozip.raster.scene import Profile, Source, Tags
from eozip.sensors.sensor import by_count, canonical_name, file_band, is_band_set

# what products keep beside their bands: aerosol, water vapour, classifications, probabilities, angles, previews
_BESIDE = frozenset(
    re.split(
        " ",
        "AOT WVP SCL TCI PVI CLP CLD SNW CLDPRB SNWPRB QA60 QA20 QA10 FMASK SAA SZA VAA VZA CMASK CLOUD CLOUDS SNOW "
        "DATAMASK VISUAL PREVIEW THUMBNAIL OVERVIEW",
    )
)
_RESOLUTION = re.compile(r"[_-]?(?<![0-9a-z])r?(?:10|20|60)m(?![0-9a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Band:
    """One band of one date as its file describes it.

    Attributes:
        source: where it lies.
        name: its description; None without one.
        code: canonical name of what it is, or None.
        dtype: numpy name; GDAL's where numpy has none.
        nodata: value of missing pixels, or None.
        scale, offset: GDAL's: physical value = DN * scale + offset.
        unit: name, or None.
        colorinterp: GDAL's name, such as "gray".
        tags: metadata of the band.
        radiometric: DN added to the offset-free DN, where the product says so; None: as the GDAL offset does.
    """

    source: Source
    name: str | None
    code: str | None
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    unit: str | None
    colorinterp: str
    tags: dict[str, str]
    radiometric: float | None = None


def chosen(
    have: Sequence[Band], wanted: Sequence[str | int] | None, path: str
) -> tuple[list[Band], list[str]]:
    """The bands that a caller wants, in the order wanted.

    Names choose among the bands whose descriptions mean them. Where they do not find them all, they say what the
    file's bands are, in file order. Positions choose, and where the descriptions of those chosen are not those of
    a sensor, 12 or 13 positions stand for the bands of the sensor in its order.

    Args:
        have: every band of the file.
        wanted: names or 1-based positions; None for all but an alpha band.
        path: for messages.

    Returns:
        the bands, and notes where `wanted` overrides what the file says.

    Raises:
        InputError: no such band.
    """
    if wanted is None:
        return without_alpha(have), []
    found = [_found(have, band, path) for band in wanted]
    if None in found:
        return _named_in_order(have, wanted, path)
    bands = [band for band in found if band is not None]
    if all(isinstance(band, int) for band in wanted) and not is_band_set([band.code for band in bands]):
        return _numbered(bands)
    return bands, []


def without_alpha(have: Sequence[Band]) -> list[Band]:
    """The bands that are pixels; an alpha band alone counts as one."""
    return [band for band in have if not _is_alpha(band)] or list(have)


def _is_alpha(band: Band) -> bool:
    """Whether a band of a DN raster is its mask; not one that its name says to be a band, whatever GDAL tagged it.

    Of 8 bits, GDAL calls any fourth band alpha, one of a mask too.
    """
    return band.colorinterp == "alpha" and band.code is None and band.dtype in ("uint16", "int16")


def _found(have: Sequence[Band], wanted: str | int, path: str) -> Band | None:
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(have):
            raise InputError(f"{path}: no band {wanted}; positions run from 1 to {len(have)}")
        return have[wanted - 1]
    code = canonical_name(wanted)
    for matches in (
        [band for band in have if band.name == wanted],
        [band for band in have if code is not None and band.code == code],
    ):
        if len(matches) == 1:
            return matches[0]
    return None


def _named_in_order(
    have: Sequence[Band], wanted: Sequence[str | int], path: str
) -> tuple[list[Band], list[str]]:
    """The caller's names for bands in file order, where the file's own are none or mean no sensor."""
    bands = without_alpha(have)
    is_described = any(band.name for band in bands)
    means = [canonical_name(str(name)) for name in wanted]
    is_plausible = not is_described or (None not in means and not is_band_set([band.code for band in bands]))
    if len(wanted) != len(bands) or not is_plausible or any(isinstance(name, int) for name in wanted):
        raise InputError(_no_band(bands, wanted, path))
    renamed = [
        replace(band, name=band.name or str(name), code=mean)
        for band, name, mean in zip(bands, wanted, means, strict=True)
    ]
    return renamed, _overridden(bands, renamed)


def _no_band(bands: Sequence[Band], wanted: Sequence[str | int], path: str) -> str:
    missing = next(name for name in wanted if _found(bands, name, path) is None)
    if not any(band.name for band in bands):
        return (
            f"{path}: its {len(bands)} bands have no descriptions, so --bands must name all of them in file order; got "
            f"{len(wanted)} names. Or choose by position, 1 to {len(bands)}, in the sensor's order"
        )
    names = [band.name for band in bands]
    doubled = f"; {names.count(str(missing))} bands have that name" if names.count(str(missing)) > 1 else ""
    return (
        f"{path}: no band {missing!r}; the file has {', '.join(map(str, names))}{doubled}. Choose by position, 1 to "
        f"{len(bands)}, or name all {len(bands)} in file order"
    )


def _numbered(bands: list[Band]) -> tuple[list[Band], list[str]]:
    """Bands by position where their descriptions do not make a sensor."""
    is_described = any(band.name for band in bands)
    try:
        names = by_count(len(bands)).band_names
    except InputError:
        if is_described:  # a choice for something that needs no sensor
            return bands, []
        raise
    renamed = [
        replace(band, name=band.name or name, code=name) for band, name in zip(bands, names, strict=True)
    ]
    renamed = renamed if is_described else [replace(band, name=name) for band, name in zip(renamed, names)]
    return renamed, _overridden(bands, renamed)


def _overridden(before: Sequence[Band], after: Sequence[Band]) -> list[str]:
    changed = [(a.name, b.code) for a, b in zip(before, after) if a.code is not None and a.code != b.code]
    if not changed:
        return []
    said = ", ".join(f"{name!r} is taken for {code}" for name, code in changed)
    return [f"--bands overrides what the file calls its bands: {said}"]


# --- files of one band each ---


@dataclass(frozen=True)
class _BandFile:
    """The name of a file of one band, taken apart.

    Attributes:
        code: canonical name of its band; None where the name tells none.
        date: what its path is without the band: equal for the files of one date.
        is_beside: whether it is a layer that products keep beside their bands, such as SCL.
    """

    code: str | None
    date: tuple[str, str]
    is_beside: bool


def band_file(path: str) -> _BandFile:
    """What the name of a file says about its band: ..._B04_10m.tif, nir08.tif, or a folder called B04."""
    place = PurePosixPath(path.replace("\\", "/"))
    code, rest = file_band(place.stem)
    folders = [part for part in place.parent.parts if not _RESOLUTION.fullmatch(part)]
    if code is None and folders and re.fullmatch(r"B\d[\dA]", folders[-1], re.IGNORECASE):
        code = canonical_name(folders.pop())
    tokens = {token.upper() for token in re.split(r"[^A-Za-z0-9]+", place.stem)}
    return _BandFile(code, ("/".join(folders), _RESOLUTION.sub("", rest)), bool(tokens & _BESIDE))


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
    """Read the header of one file.

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
        nodata=_nodata_tag(src, i, path),
        scale=src.scales[i],
        offset=src.offsets[i],
        unit=src.units[i],
        colorinterp=src.colorinterp[i].name,
        tags=_kept(src.tags(index)),
    )


def _nodata_tag(src: rasterio.DatasetReader, i: int, path: str) -> float | None:
    """The nodata value of a band.

    Raises:
        InputError: NaN of whole numbers, which rasterio keeps to itself: nobody could say which pixels are missing.
    """
    value = src.nodatavals[i]
    is_whole = src.dtypes[i] in ("uint8", "uint16", "int16", "uint32", "int32")
    if value is not None or not is_whole or src.driver != "GTiff":
        return value
    if _says_nan(src):
        raise InputError(_no_value(math.nan, src.dtypes[i], path))
    return None


def _no_value(value: float, dtype: str, path: str) -> str:
    return (
        f"{path}: nodata {value} is no {dtype} and cannot occur; remove it (gdal_edit.py -unsetnodata "
        f"{path}) or set the real one (gdal_edit.py -a_nodata 0 {path})"
    )


def _says_nan(src: rasterio.DatasetReader) -> bool:
    """Whether GDAL has NaN as a nodata value of any band, by what it writes into a virtual copy."""
    name = f"/vsimem/eozip-{uuid.uuid4().hex}.vrt"
    try:
        rasterio.shutil.copy(src, name, driver="VRT")
        with rasterio.open(name) as copy:
            return "<nodatavalue>nan<" in copy.tags(ns="xml:VRT").get("xml:VRT", "").lower()
    except (RasterioError, ValueError):
        return False
    finally:
        if rasterio.shutil.exists(name):
            rasterio.shutil.delete(name)


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
    alphas = [band.source for band in header.bands if _is_alpha(band)]
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
        raise InputError(_no_value(value, dtype, path))
    return int(value)
