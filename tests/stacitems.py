"""STAC items as each catalogue writes them, with the files that their assets name, made from pixels on their own grids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from products import CORNER, Grids, classes, write_raster

COMMON = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2", "B07": "rededge3",
    "B08": "nir", "B8A": "nir08", "B09": "nir09", "B10": "cirrus", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]
DAY = "2023-07-15T10:10:31.024000Z"


def projection(shape: tuple[int, ...], metres: float) -> dict[str, Any]:
    """`proj:shape` and `proj:transform` of an asset."""
    return {
        "proj:shape": list(shape[-2:]),
        "proj:transform": [metres, 0, CORNER[0], 0, -metres, CORNER[1], 0, 0, 1],
    }


def item(
    collection: str, assets: dict[str, Any], properties: dict[str, Any], id_: str, day: str = DAY
) -> dict[str, Any]:
    """An item with a footprint that no one looks at."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": EXTENSIONS,
        "id": id_,
        "collection": collection,
        "bbox": [9, 47, 10, 48],
        "geometry": {"type": "Polygon", "coordinates": [[[9, 47], [10, 47], [10, 48], [9, 48], [9, 47]]]},
        "links": [],
        "properties": {"datetime": day, **properties},
        "assets": assets,
    }


def _save(folder: Path, found: dict[str, Any]) -> Path:
    path = folder / f"{found['id']}.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def _each(
    folder: Path, grids: Grids, name: Callable[[str, int], str], asset: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Files of all bands, and the table of their assets by key (the name without its ending)."""
    assets = {}
    for metres, bands in grids.items():
        for band, plane in bands.items():
            file = name(band, metres)
            write_raster(folder / file, plane, metres)
            key, _, ending = file.rpartition(".")
            kind = (
                "image/jp2" if ending == "jp2" else "image/tiff; application=geotiff; profile=cloud-optimized"
            )
            assets[key] = {"href": f"./{file}", "type": kind, "roles": ["data"], **asset(band, plane, metres)}
    return assets


def earth_search(
    folder: Path,
    grids: Grids,
    *,
    applied: bool | None = False,
    offset: float | None = -0.1,
    baseline: str = "05.09",
    day: str = DAY,
) -> Path:
    """earth-search v1 `sentinel-2-l2a`: common names, `raster:bands`, `earthsearch:boa_offset_applied`."""  # fmt: skip

    def asset(band: str, plane: np.ndarray, metres: int) -> dict[str, Any]:
        raster = {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15, "spatial_resolution": metres}
        raster |= {} if offset is None else {"scale": 0.0001, "offset": offset}
        eo = {"name": COMMON[band], "common_name": COMMON[band]}
        return {"eo:bands": [eo], "gsd": metres, "raster:bands": [raster], **projection(plane.shape, metres)}

    assets = _each(folder, grids, lambda band, metres: f"{COMMON[band]}.tif", asset)
    assets |= {
        f"{key}-jp2": {**value, "href": f"s3://elsewhere/{key}.jp2"} for key, value in list(assets.items())
    }
    scl = classes(len(next(iter(grids[20].values()))))
    write_raster(folder / "scl.tif", scl, 20)
    assets["scl"] = {
        "href": "./scl.tif",
        "roles": ["data", "reflectance"],
        "gsd": 20,
        "raster:bands": [{"nodata": 0}],
    }
    assets["visual"] = {
        "href": "./TCI.tif",
        "roles": ["visual"],
        "eo:bands": [{"name": "red"}, {"name": "green"}],
    }
    assets["thumbnail"] = {"href": "./preview.jpg", "roles": ["thumbnail"]}
    properties = {"proj:epsg": 32632, "s2:processing_baseline": baseline, "mgrs:utm_zone": 32}
    properties |= {"mgrs:latitude_band": "T", "mgrs:grid_square": "QM", "s2:product_type": "S2MSI2A"}
    properties |= {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    return _save(
        folder,
        item("sentinel-2-l2a", assets, properties, f"S2B_32TQM_{day[:10].replace('-', '')}_0_L2A", day),
    )


def earth_search_v0(
    folder: Path, grids: Grids, baseline: str, flag: bool | None = None, day: str = DAY
) -> Path:
    """earth-search v0 `sentinel-s2-l2a-cogs`: names of bands, nothing on scale or offset."""

    def asset(band: str, plane: np.ndarray, metres: int) -> dict[str, Any]:
        eo = {"name": band, "common_name": COMMON[band]}
        return {"eo:bands": [eo], "gsd": metres, **projection(plane.shape, metres)}

    assets = _each(folder, grids, lambda band, metres: f"{band}.tif", asset)
    digits = baseline.replace(".", "")
    properties = {
        "proj:epsg": 32632,
        "sentinel:utm_zone": 32,
        "sentinel:latitude_band": "T",
        "sentinel:grid_square": "QM",
    }
    properties["sentinel:product_id"] = f"S2B_MSIL2A_20230715T101031_N{digits}_R022_T32TQM_20230715T130000"
    properties |= {} if flag is None else {"sentinel:boa_offset_applied": flag}
    return _save(folder, item("sentinel-s2-l2a-cogs", assets, properties, "S2B_32TQM_20230715_0_L2A", day))


def planetary_computer(folder: Path, grids: Grids, baseline: str = "05.09", day: str = DAY) -> Path:
    """Planetary Computer: neither scale nor offset, and the offset left in."""

    def asset(band: str, plane: np.ndarray, metres: int) -> dict[str, Any]:
        eo = {"name": band, "common_name": COMMON[band], "description": f"Band {band}"}
        return {"eo:bands": [eo], "gsd": float(metres), **projection(plane.shape, metres)}

    assets = _each(folder, grids, lambda band, metres: f"{band}.tif", asset)
    stamp = day[:19].replace("-", "").replace(":", "")
    uri = f"S2B_MSIL2A_{stamp}_N{baseline.replace('.', '')}_R022_T32TQM_{stamp}.SAFE"
    properties = {
        "proj:epsg": 32632,
        "s2:processing_baseline": baseline,
        "s2:product_uri": uri,
        "s2:mgrs_tile": "32TQM",
    }
    return _save(folder, item("sentinel-2-l2a", assets, properties, uri.removesuffix(".SAFE"), day))


def cdse(folder: Path, grids: Grids, offset: float = -0.1, baseline: str = "05.09") -> Path:
    """CDSE, STAC 1.1: keys with resolutions, `raster:` fields of the asset, copies on other grids."""

    def asset(band: str, plane: np.ndarray, metres: int) -> dict[str, Any]:
        name = {"name": band, "eo:common_name": COMMON[band]}
        fields = {
            "data_type": "uint16",
            "nodata": 0,
            "raster:scale": 0.0001,
            "raster:offset": offset,
            "gsd": metres,
        }
        place = {"proj:code": "EPSG:32632", **projection(plane.shape, metres)}
        place["proj:transform"] = place["proj:transform"][:6]
        return {"bands": [name], **fields, **place, "roles": ["data", "reflectance", "sampling:original"]}

    assets = _each(folder, grids, lambda band, metres: f"{band}_{metres}m.jp2", asset)
    half = grids[10]["B02"][::2, ::2].copy()
    write_raster(folder / "B02_20m.jp2", half, 20)
    assets["B02_20m"] = {
        "href": "./B02_20m.jp2",
        **asset("B02", half, 20),
        "roles": ["data", "sampling:downsampled"],
    }
    write_raster(folder / "AOT_20m.jp2", np.full(half.shape, 143, np.uint16), 20)
    wrong = {"raster:scale": 0.0001, "raster:offset": -0.1}  # as this catalogue has it
    assets["AOT_20m"] = {"href": "./AOT_20m.jp2", "gsd": 20, **wrong}
    write_raster(folder / "SCL_20m.jp2", classes(len(half)), 20)
    assets["SCL_20m"] = {"href": "./SCL_20m.jp2", "gsd": 20, "nodata": 0}
    properties = {"processing:version": baseline, "product:type": "S2MSI2A", "grid:code": "MGRS-32TQM"}
    found = item(
        "sentinel-2-l2a", assets, properties, "S2B_MSIL2A_20230715T101031_N0509_R022_T32TQM_20230715T130000"
    )
    return _save(folder, {**found, "stac_version": "1.1.0"})


def landsat(folder: Path, bands: dict[str, np.ndarray]) -> Path:
    """Planetary Computer's `landsat-c2-l2`: common names, scale and offset in `raster:bands`, qa_pixel."""
    names = {"coastal": 1, "blue": 2, "green": 3, "red": 4, "nir08": 5, "swir16": 6, "swir22": 7}
    stem = "LC08_L2SP_193029_20230715_20230725_02_T1"
    assets: dict[str, Any] = {}
    for key, number in names.items():
        plane = bands[f"SR_B{number}"]
        write_raster(folder / f"{stem}_SR_B{number}.TIF", plane, 30, nodata=0)
        raster = {
            "scale": 2.75e-05,
            "offset": -0.2,
            "nodata": 0,
            "data_type": "uint16",
            "spatial_resolution": 30,
        }
        eo = {"name": f"OLI_B{number}", "common_name": key}
        href = f"./{stem}_SR_B{number}.TIF"
        assets[key] = {"href": href, "eo:bands": [eo], "raster:bands": [raster], "roles": ["data"]}
    for key, file in (("qa_pixel", "QA_PIXEL"), ("lwir11", "ST_B10")):
        write_raster(folder / f"{stem}_{file}.TIF", np.full_like(bands["SR_B1"], 21824), 30)
        assets[key] = {"href": f"./{stem}_{file}.TIF", "roles": ["data"]}
    shape = list(bands["SR_B1"].shape)
    properties = {"proj:epsg": 32632, "proj:shape": shape, "platform": "landsat-8", "landsat:wrs_path": "193"}
    properties["proj:transform"] = [30, 0, CORNER[0], 0, -30, CORNER[1]]
    return _save(folder, item("landsat-c2-l2", assets, properties, "LC08_L2SP_193029_20230715_02_T1"))


def hls(folder: Path, bands: dict[str, np.ndarray], level: str) -> Path:
    """LP CLOUD's HLS: names of the sensor's own bands, Fmask, no raster fields."""
    stem = f"HLS.{level}.T32TQM.2023196T101031.v2.0"
    assets: dict[str, Any] = {}
    for band, plane in bands.items():
        write_raster(folder / f"{stem}.{band}.tif", plane, 30, nodata=-9999)
        assets[band] = {"href": f"./{stem}.{band}.tif", "roles": ["data"]}
    write_raster(folder / f"{stem}.Fmask.tif", np.full(plane.shape, 64, np.uint8), 30, nodata=255)
    assets["Fmask"] = {"href": f"./{stem}.Fmask.tif", "roles": ["data"]}
    return _save(folder, item(f"HLS{level}_2.0", assets, {"eo:cloud_cover": 3}, stem))
