"""Layers that products keep beside their bands: what each is, and what its values mean, by CF."""

from __future__ import annotations

import re
from typing import Any

from eozip.raster.product import CLASSES, FLAGS, PROBABILITY, QUANTITY

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
