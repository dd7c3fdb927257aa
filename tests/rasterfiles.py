"""GeoTIFFs for tests, made and read with rasterio alone, so that our code is not tested against itself."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from eozip import raster

NAMES = ("B02", "B03", "B04")
UTM = Affine(10, 0, 399960, 0, -10, 5300040)


def pixels(seed: int = 0, dtype: str = "uint16", shape: tuple[int, int, int] = (3, 37, 53)) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def write_tif(path, data: np.ndarray, names=NAMES, tags=None, gcps=None, **profile) -> np.ndarray:
    """A GeoTIFF made with rasterio; returns `data`."""
    options = {"crs": "EPSG:32633", "transform": UTM, "nodata": 0} | profile
    shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=data.dtype, **shape, **options) as dst:
        dst.update_tags(**(tags or {}))
        if gcps:
            dst.gcps = gcps
        for index, name in enumerate(names, start=1):
            dst.set_band_description(index, name)
        dst.write(data)
    return data


def copy(source, target, step: int = 16, **options) -> None:
    """Source to target through a Scene, window by window."""
    scene = raster.open_scene(source)
    _, _, height, width = scene.shape
    with (
        raster.open_reader(scene) as reader,
        raster.create_geotiff(target, scene.profile, scene.tags[0], scene.band_tags, **options) as writer,
    ):
        for y in range(0, height, step):
            for x in range(0, width, step):
                rows, columns = slice(y, min(y + step, height)), slice(x, min(x + step, width))
                writer.write(reader.read(slice(0, 1), rows, columns)[0], y, x)


def everything(path) -> dict:
    """All that a GeoTIFF says, but for the layout of the file."""
    with rasterio.open(path) as src:
        gcps, gcp_crs = src.gcps
        return {
            "pixels": src.read().tolist(),
            "header": (src.dtypes, src.crs, tuple(src.transform), src.nodatavals, src.descriptions),
            "physics": (src.scales, src.offsets, src.units, src.colorinterp),
            "gcps": ([(p.row, p.col, p.x, p.y, p.z) for p in gcps], gcp_crs),
            "tags": (src.tags(), src.tags(ns="mine"), [src.tags(i) for i in src.indexes]),
        }


def source(folder: Path) -> Path:
    """A small GeoTIFF in `folder`."""
    write_tif(folder / "in.tif", pixels())
    return folder / "in.tif"


def limit_files(size: int) -> None:
    """Let every file of this process end at `size` bytes: what a full disk looks like from inside."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
