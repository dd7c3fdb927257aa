"""Small products of three grids in memory and on disk, for tests of stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from affine import Affine

from eozip.raster import Scene, open_scene
from eozip.raster.product import Acquisition, Layer, Product
from eozip.store import encode_store, make_request
from eozip.store.joined import joined
from rasterfiles import write_tif

BANDS = {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12"), 60: ("B01", "B09")}
CORNER = (600_000, 5_300_040)
DATES = ("20210701", "20220315")
SIZE = (96, 78)  # at 10 m: whole cells of 60 m
SCL = {
    "long_name": "scene classification",
    "flag_values": [0, 4, 8],
    "flag_meanings": "no_data vegetation cloud",
}


def pixels(resolution: int, seed: int, size: tuple[int, int] = SIZE, offset: int = 0) -> np.ndarray:
    """Smooth DN [C, h, w] of one grid with a corner of nodata."""
    height, width = (-(-side * 10 // resolution) for side in size)
    y, x = np.mgrid[:height, :width] * (resolution / 10)
    rng = np.random.default_rng(seed + resolution)
    bands = len(BANDS[resolution])
    dn = 1200 + 250 * np.sin(y / 17 + seed) * np.cos(x / 13) + 60 * np.arange(bands)[:, None, None]
    dn = np.rint(dn + rng.normal(0, 6, (bands, height, width))).astype(np.uint16) + np.uint16(offset)
    dn[:, : height // 8, : width // 6] = 0
    return dn


def classes(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [h, w] at 20 m."""
    y, x = np.mgrid[: size[0] // 2, : size[1] // 2]
    return np.array([0, 4, 8], np.uint8)[((y // 9 + x // 7 + seed) % 3)]


def write_grid(folder: Path, name: str, dn: np.ndarray, bands, resolution: int, **options) -> Path:
    path = folder / f"{name}_{resolution}m.tif"
    transform = Affine(resolution, 0, CORNER[0], 0, -resolution, CORNER[1])
    write_tif(path, dn, bands, transform=transform, **options)
    return path


def a_scene(folder: Path, resolution: int, dates=DATES, size=SIZE, offsets=None) -> Scene:
    """One grid of a product, on disk."""
    added = offsets or (0,) * len(dates)
    paths = [
        write_grid(
            folder,
            f"t_{date}",
            pixels(resolution, k, size, added[k]),
            BANDS[resolution],
            resolution,
            nodata=0,
        )
        for k, date in enumerate(dates)
    ]
    scene = open_scene(paths)
    if offsets is None:
        return scene
    table = tuple((float(offset),) * len(BANDS[resolution]) for offset in offsets)
    return replace(scene, offsets=table, offset=float(offsets[0]))


def a_layer(folder: Path, dates=DATES, size=SIZE, first: int = 0) -> Layer:
    """SCL at 20 m."""
    paths = [
        write_grid(folder, f"scl_{date}", classes(first + k, size)[None], ("SCL",), 20)
        for k, date in enumerate(dates)
    ]
    return Layer("scl", "classes", open_scene(paths), tuple(range(len(dates))), SCL)


def a_product(
    folder: Path, dates=DATES, size=SIZE, offsets=None, grids=(10, 20, 60), has_scl: bool = True
) -> Product:
    """A product of several grids with a classification beside."""
    folder.mkdir(exist_ok=True)
    scenes = tuple(a_scene(folder, r, dates, size, offsets) for r in grids)
    beside = (a_layer(folder, dates, size),) if has_scl else ()
    acquired = tuple(
        Acquisition(date, f"product {k}", "L2A", "05.11", "made up") for k, date in enumerate(scenes[0].dates)
    )
    return Product(scenes, acquired, beside, kind="safe", sensor="s2-l2a", files_bytes=1_000_000)


def store_product(
    product: Product, out: Path, codec: str | None = "tec-elic-small", *, chunk=48, gop=4, **asked
):
    """Encodes a product; returns the summary."""
    found = joined(product)
    wanted = make_request(found.scene, codec, sensor=product.sensor, gop=gop, **asked)
    return encode_store(
        product, out, wanted.codec, order=wanted.order, facts=wanted.facts, chunk=chunk, gop=gop
    )
