"""What the names of files say in the layouts of those who deliver them: which band or layer, of which product; and what the
values of such layers mean, by CF.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from eozip.raster.header import band_file
from eozip.raster.product import CLASSES, FLAGS, PROBABILITY, QUANTITY
from eozip.sensors.sensor import canonical_name

_SCL = (
    "no_data saturated_or_defective cast_shadow cloud_shadow vegetation not_vegetated water unclassified "
    "cloud_medium_probability cloud_high_probability thin_cirrus snow_or_ice"
)
_PAIR = [0, 1, 2, 3]  # what two bits of a confidence may be


def _classes(meanings: str, **more: Any) -> dict[str, Any]:
    return {"flag_values": list(range(len(meanings.split()))), "flag_meanings": meanings, **more}


def _bits(meanings: str, **more: Any) -> dict[str, Any]:
    return {"flag_masks": [1 << i for i in range(len(meanings.split()))], "flag_meanings": meanings, **more}


def _mixed(single: str, pairs: str, first_pair: int, **more: Any) -> dict[str, Any]:
    """Bits of their own and levels of two bits, as CF tells both with masks and values."""
    names = single.split()
    masks, values = [1 << i for i in range(len(names))], [1 << i for i in range(len(names))]
    for k, name in enumerate(pairs.split()):
        low = first_pair + 2 * k
        masks += [3 << low] * 3
        values += [level << low for level in _PAIR[1:]]
        names += [f"{name}_low", f"{name}_medium", f"{name}_high"]
    return {"flag_masks": masks, "flag_values": values, "flag_meanings": " ".join(names), **more}


_PERCENT = {"units": "percent", "valid_min": 0, "valid_max": 100}
# name in a store > kind, attributes
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "scl": (CLASSES, _classes(_SCL, long_name="scene classification")),
    "cld": (PROBABILITY, {"long_name": "cloud probability", **_PERCENT}),
    "snw": (PROBABILITY, {"long_name": "snow and ice probability", **_PERCENT}),
    "clouds": (CLASSES, _classes("clear opaque_cloud", long_name="opaque clouds of Level-1C")),
    "cirrus": (CLASSES, _classes("clear cirrus_cloud", long_name="cirrus clouds of Level-1C")),
    "snow": (CLASSES, _classes("clear snow_or_ice", long_name="snow and ice of Level-1C")),
    "aot": (QUANTITY, {"long_name": "aerosol optical thickness at 550 nm", "scale_factor": 0.001, "units": "1"}),
    "wvp": (QUANTITY, {"long_name": "water vapour", "scale_factor": 0.001, "units": "cm"}),
    "qa_pixel": (
        FLAGS,
        _mixed(
            "fill dilated_cloud cirrus cloud cloud_shadow snow clear water",
            "cloud_confidence cloud_shadow_confidence snow_confidence cirrus_confidence",
            8,
            long_name="pixel quality, Collection 2",
        ),
    ),
    "qa_radsat": (
        FLAGS,
        _bits(
            "band1 band2 band3 band4 band5 band6 band7 unused band9 unused10 unused11 terrain_occlusion",
            long_name="radiometric saturation and terrain occlusion",
        ),
    ),
    "qa_aerosol": (
        FLAGS,
        _mixed("fill valid_retrieval water unused interpolated", "aerosol", 6, long_name="aerosol quality"),
    ),
    "fmask": (
        FLAGS,
        _mixed("cirrus cloud adjacent_to_cloud cloud_shadow snow_or_ice water", "aerosol", 6, long_name="HLS Fmask"),
    ),
    "saa": (QUANTITY, {"long_name": "sun azimuth angle", "scale_factor": 0.01, "units": "degree"}),
    "sza": (QUANTITY, {"long_name": "sun zenith angle", "scale_factor": 0.01, "units": "degree"}),
    "vaa": (QUANTITY, {"long_name": "view azimuth angle", "scale_factor": 0.01, "units": "degree"}),
    "vza": (QUANTITY, {"long_name": "view zenith angle", "scale_factor": 0.01, "units": "degree"}),
    "surface_temperature": (
        QUANTITY,
        {"long_name": "surface temperature", "scale_factor": 0.00341802, "add_offset": 149.0, "units": "K"},
    ),
    "thermal_b10": (QUANTITY, {"long_name": "brightness temperature, B10", "scale_factor": 0.01, "units": "degree_Celsius"}),
    "thermal_b11": (QUANTITY, {"long_name": "brightness temperature, B11", "scale_factor": 0.01, "units": "degree_Celsius"}),
    "clm": (FLAGS, {"long_name": "cloud mask of MAJA"}),
    "mg2": (FLAGS, {"long_name": "geophysical mask of MAJA"}),
    "edg": (FLAGS, {"long_name": "edge mask of MAJA"}),
}  # fmt: skip
_SPELLINGS = {
    "scl": "scl", "cld": "cld", "cldprb": "cld", "clp": "cld", "cloud": "cld", "snw": "snw", "snwprb": "snw", "snow": "snw",
    "aot": "aot", "wvp": "wvp", "qa_pixel": "qa_pixel", "qa_radsat": "qa_radsat", "qa_aerosol": "qa_aerosol",
    "fmask": "fmask", "saa": "saa", "sza": "sza", "vaa": "vaa", "vza": "vza", "clm": "clm", "mg2": "mg2", "edg": "edg",
}  # fmt: skip
_METRES = re.compile(r"[_-]r?(\d\d)m$|[_-](\d\d)$", re.IGNORECASE)
NATIVE = 20  # metres at which Sentinel-2's processor computes what it keeps beside the bands


def layer_of(stem: str) -> str | None:
    """The layer that a file's name (or an asset's key) ends with: "T32TQM_20220126T101311_SCL_20m" > "scl".

    None where it tells none.
    """
    text = _METRES.sub("", stem).lower()
    text = re.sub(r"[_-]r[12]$", "", text)  # Theia's two resolutions
    for name in sorted(_SPELLINGS, key=len, reverse=True):
        if re.search(rf"(?<![a-z0-9]){re.escape(name)}$", text):
            return _SPELLINGS[name]
    return None


def metres_of(stem: str) -> int | None:
    """Resolution at the end of a name, such as "..._SCL_20m"; None without one."""
    found = _METRES.search(stem)
    return int(found.group(1) or found.group(2)) if found else None


_HLS = re.compile(r"(HLS\.(L30|S30)\.(T\w{5})\.\d{7}T\d{6}\.v\d\.\d)\.(\w+)")
_LANDSAT = re.compile(r"(L[CTEOM]\d\d_L2S[PR]_(\d{6})_\d{8}_\d{8}_\d\d_\w\d)_(\w+)", re.IGNORECASE)
_THEIA = re.compile(
    r"((?:SENTINEL2|VENUS)\w*_\d{8}-\d{6}-\d{3}_L\w\w_(\w+)_[A-Z]_V\d+-\d+)_(?:(FRE|SRE)_)?(\w+)"
)
_SEN2R = re.compile(r"(S2[A-D](2A|1C)_\d{8}_\d{3}_\w*)_([A-Z]{3})_(10|20|60)")
_QUALITY = re.compile(r"MSK_|L1C_PVI|T\w{5}_\d{8}T\d{6}_PVI", re.IGNORECASE)
_TILE = re.compile(r"(?<![A-Z0-9])T?(\d\d[C-HJ-NP-X][A-HJ-NP-Z]{2})(?![A-Z0-9])")
# bands of HLS L30 and of Landsat's OLI by the Sentinel-2 band of the same wavelength
L30 = {
    "B01": "B01",
    "B02": "B02",
    "B03": "B03",
    "B04": "B04",
    "B05": "B8A",
    "B06": "B11",
    "B07": "B12",
    "B09": "B10",
}
_OLI = {"1": "B01", "2": "B02", "3": "B03", "4": "B04", "5": "B8A", "6": "B11", "7": "B12"}
_TM = {"1": "B02", "2": "B03", "3": "B04", "4": "B8A", "5": "B11", "7": "B12"}
_THERMAL = {"B10", "B11"}  # of HLS L30


SAFE_MAIN = re.compile(
    r"MTD_MSI(L1C|L2A)\.xml|S2[A-D]_OPER_MTD_SAFL1C_.*\.xml|S2[A-D]_USER_MTD_SAFL2A_.*\.xml"
)
"""Names of the main XML of a .SAFE product."""
_ITEMS_URL = re.compile(r"\.(geo)?json$|/items(/[^/]+)?/?$|/search/?$", re.IGNORECASE)


def is_safe(path: str) -> bool:
    """Whether a path is a .SAFE product that lies unpacked: its folder, or its main XML."""
    if os.path.isdir(path):
        return any(SAFE_MAIN.fullmatch(name) for name in os.listdir(path))
    return bool(SAFE_MAIN.fullmatch(os.path.basename(path)))


def is_stac(path: str) -> bool:
    """Whether a path or URL is that of a STAC item or item collection, by its name."""
    if re.match(r"https?://", path):
        return bool(_ITEMS_URL.search(urlsplit(path).path))
    return path.lower().endswith((".json", ".geojson")) and os.path.isfile(path)


@dataclass(frozen=True)
class FileName:
    """What a file's name says.

    Attributes:
        layout: "hls", "landsat", "theia", "sen2r", or "" where only a band code tells.
        product: equal for the files of one acquisition.
        band: what the file calls its band; None of other files.
        code: canonical name of it.
        layer: name of the layer that it is; None of other files.
        metres: resolution that the name tells.
        level: such as "L2A", "L30".
        tile: such as "T32TQM".
        variant: of Theia, "FRE" or "SRE".
        is_beside: whether it is known to be no band of the sensor.
        is_stack: whether it holds all bands of one grid.
    """

    layout: str
    product: tuple[str, ...]
    band: str | None = None
    code: str | None = None
    layer: str | None = None
    metres: int | None = None
    level: str | None = None
    tile: str | None = None
    variant: str | None = None
    is_beside: bool = False
    is_stack: bool = False


def named(path: str) -> FileName:
    """What the name of a file, and of the folder that it lies in, says."""
    place = PurePosixPath(path.replace("\\", "/"))
    for pattern, read in ((_HLS, _hls), (_LANDSAT, _landsat), (_THEIA, _theia), (_SEN2R, _sen2r)):
        match = pattern.fullmatch(place.stem)
        if match:
            return read(match)
    return _generic(path, place)


def _hls(match: re.Match[str]) -> FileName:
    product, level, tile, what = match.groups()
    about: dict[str, Any] = {"product": (product,), "level": level, "tile": tile, "metres": 30}
    layer = layer_of(what)
    if layer is not None:
        return FileName("hls", layer=layer, is_beside=True, **about)
    if level == "L30" and what in _THERMAL:
        return FileName("hls", layer=f"thermal_{what.lower()}", is_beside=True, **about)
    code = L30.get(what) if level == "L30" else canonical_name(what)
    return FileName("hls", band=what if code else None, code=code, is_beside=code is None, **about)


def _landsat(match: re.Match[str]) -> FileName:
    product, path_row, what = match.groups()
    about: dict[str, Any] = {
        "product": (product.upper(),),
        "level": "L2SP" if "L2SP" in product.upper() else "L2SR",
        "tile": path_row,
    }
    name = what.upper()
    band = re.fullmatch(r"SR_B(\d)", name)
    if band:
        codes = _OLI if product[2:4] in ("08", "09") else _TM
        return FileName("landsat", band=name, code=codes.get(band.group(1)), metres=30, **about)
    if re.fullmatch(r"ST_B\d+", name):
        return FileName("landsat", layer="surface_temperature", is_beside=True, **about)
    return FileName("landsat", layer=layer_of(name), is_beside=True, **about)


def _theia(match: re.Match[str]) -> FileName:
    product, tile, variant, what = match.groups()
    about: dict[str, Any] = {"product": (product,), "level": "L2A", "tile": tile}
    code = canonical_name(what) if variant else None
    if code is not None:
        return FileName("theia", band=code, code=code, variant=variant, **about)
    metres = {"R1": 10, "R2": 20}.get(what[-2:])
    return FileName("theia", layer=layer_of(what), metres=metres, is_beside=True, **about)


def _sen2r(match: re.Match[str]) -> FileName:
    product, level, what, metres = match.groups()
    about: dict[str, Any] = {"product": (product,), "level": f"L{level}", "metres": int(metres)}
    if what in ("BOA", "TOA"):
        return FileName("sen2r", is_stack=True, **about)
    return FileName("sen2r", layer=layer_of(what), is_beside=True, **about)


def _generic(path: str, place: PurePosixPath) -> FileName:
    """Sentinel-2 and whatever is called like it: ..._B04_10m, nir08, a folder called B04, ..._SCL_20m."""
    found = band_file(path)
    if (
        _QUALITY.match(place.stem) and layer_of(place.stem) is None
    ):  # QI_DATA of ESA's products: MSK_DETFOO_B02
        return FileName("", product=found.date, is_beside=True)
    layer = None if found.code is not None else layer_of(place.stem)
    product = found.date
    if layer is not None:  # the same without the layer's name
        stem = re.sub(r"[_-]r?\d\dm$", "", place.stem.lower(), flags=re.IGNORECASE)
        product = (found.date[0], stem[: len(stem) - len(_spelled(stem, layer))])
    tile = _TILE.search(place.stem.upper()) or _TILE.search(str(place.parent).upper())
    level = re.search(r"L(?:evel-?)?(1C|2A)", str(path))
    return FileName(
        "",
        product=product,
        band=found.code,
        code=found.code,
        layer=layer,
        metres=metres_of(place.stem),
        level=f"L{level.group(1)}" if level else None,
        tile=f"T{tile.group(1)}" if tile else None,
        is_beside=found.is_beside or layer is not None,
    )


def _spelled(stem: str, layer: str) -> str:
    """The end of a stem that names its layer."""
    return next((stem[-n:] for n in range(2, len(stem) + 1) if layer_of(stem[-n:]) == layer), "")
