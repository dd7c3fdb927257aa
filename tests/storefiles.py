"""Scenes, stores and a lossy codec for the tests of store and command line."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.errors import FormatError
from eozip.raster import open_scene
from eozip.sensors import get
from eozip.store import encode_store, make_request
from rasterfiles import write_tif

NAMES = get("s2-l2a").band_names
ENDINGS = (".zarr", ".zarr.zip")
DATES = ("20210715", "20210701", "20210802")


class Coarse:
    """A codec that rounds to a step and deflates: lossy, tiny, exact about its own output."""

    id = "coarse-s2l2a-v1"
    weights_hash = b"coarse!!"
    sensor = "s2-l2a"
    bands = 12

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        step = float(np.float32(400 * 0.98**quality))
        symbols = np.rint(x / step).astype("<i4")
        section = struct.pack("<f", step) + zlib.compress(symbols.tobytes())
        return Encoded((section,), (0,) * len(x))

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        section = coded.sections[0]
        symbols = np.frombuffer(zlib.decompress(section[4:]), "<i4")
        if symbols.size != np.prod(shape):
            raise FormatError(f"expected {shape}, got {symbols.size} symbols")
        return symbols.reshape(shape).astype(np.float32) * np.float32(struct.unpack("<f", section[:4])[0])


@contextmanager
def coarse_codec() -> Iterator[str]:
    """Registers `Coarse` while the block runs."""
    registry.REGISTRY.add(Coarse.id, Coarse)
    try:
        yield Coarse.id
    finally:
        registry.REGISTRY.remove(Coarse.id)


def scene_pixels(
    seed: int = 0, shape: tuple[int, int, int] = (12, 50, 41), dtype: str = "uint16"
) -> np.ndarray:
    """Smooth DN [C, H, W] with a corner of nodata, some noise and one pixel beyond every range."""
    rng = np.random.default_rng(seed)
    bands, height, width = shape
    y, x = np.mgrid[:height, :width]
    dn = 1500 + 300 * np.sin(y / 9 + seed) * np.cos(x / 7) + 40 * np.arange(bands)[:, None, None]
    dn = (dn + rng.normal(0, 8, shape)).astype(dtype)
    dn[:, : height // 5, : width // 4] = 0
    dn[0, -1, -1] = 30_000
    return dn


def write_dates(folder: Path, names=NAMES, dates=DATES, **options) -> list[Path]:
    """One GeoTIFF a date; returns the paths in the order of `dates`."""
    paths = [folder / f"tile_{date}.tif" for date in dates]
    for seed, path in enumerate(paths):
        order = [NAMES.index(name) for name in names] if set(names) <= set(NAMES) else range(len(names))
        write_tif(path, scene_pixels(seed)[list(order)], names, tags={"SEEN": path.stem}, **options)
    return paths


def make_store(inputs, out: Path, codec: str = "lossless", *, quality=None, target_psnr=None, **options):
    """Encodes files into `out`; returns the summary."""
    scene = open_scene(inputs)
    wanted = make_request(scene, codec, quality=quality, target_psnr=target_psnr)
    settings = {"chunk": 16, "gop": 2, **options}
    return encode_store(scene, out, wanted.codec, order=wanted.order, facts=wanted.facts, **settings)


def change_record(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what eozip recorded of a store in a directory, in both places."""
    own, group = store / "eozip" / "zarr.json", store / "zarr.json"
    document = json.loads(own.read_text())
    change(document["attributes"])
    own.write_text(json.dumps(document))
    root = json.loads(group.read_text())
    root["consolidated_metadata"]["metadata"]["eozip"]["attributes"] = document["attributes"]
    group.write_text(json.dumps(root))


def opened(path: Path) -> xr.Dataset:
    """The store as a plain user of xarray opens it."""
    return xr.open_zarr(f"zip::{path}" if path.suffix == ".zip" else path)


def listed(folder: Path) -> list[str]:
    """Names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def codes_exactly(name: str) -> bool:
    """Whether a codec is free of loss."""
    return name == registry.LOSSLESS
