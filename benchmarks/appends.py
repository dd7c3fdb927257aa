"""What dates cost that are appended one by one: at once, with a stream each, and joined with those before them.

    python benchmarks/appends.py FILE.tif ... [--npz series12.npz] [--qualities 20,40] [--gops 4,12]

Files are dates in their order; an .npz holds `reflectance` [T, C, H, W] and `dates`. Old pixels are compared after each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import rasterio
from rasterio.transform import Affine

import eozip
from eozip.sensors import get
from eozip.store import describe
from eozip.store.documents import ARRAY
from eozip.store.old_streams import OldStreams
from eozip.store.pixels import read_pixels


def files_of(path: Path, folder: Path) -> list[Path]:
    """One GeoTIFF a date of an .npz."""
    held, found = np.load(path), []
    for dn, date in zip(held["reflectance"], held["dates"], strict=True):
        found.append(folder / f"t_{str(date).replace('-', '')}.tif")
        shape = {"count": len(dn), "height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype}
        with rasterio.open(
            found[-1], "w", crs="EPSG:32631", transform=Affine(10, 0, 0, 0, -10, 0), **shape
        ) as out:
            out.write(dn)
            out.descriptions = get("s2-l2a").band_names
    return found


def pixels_of(store: Path) -> np.ndarray:
    found = describe(store)
    times, _, height, width = found.grid.shape
    return read_pixels(found, slice(0, times), slice(0, height), slice(0, width))


def appended(paths: list[Path], store: Path, quality: float, gop: int) -> tuple[int, float]:
    """Bytes of the shards, and PSNR."""
    shown = None
    for k, path in enumerate(paths):
        if k == 0:
            eozip.encode_store(path, store, "tec-tt-small", quality=quality, gop=gop)
        else:
            eozip.append_store(store, path)
        now = pixels_of(store)
        if shown is not None and not np.array_equal(now[: len(shown)], shown):
            raise SystemExit(f"{path}: old pixels have changed")
        shown = now
    return told(store)


def told(store: Path) -> tuple[int, float]:
    shards = (store / ARRAY / "c").rglob("*")
    return sum(p.stat().st_size for p in shards if p.is_file()), describe(store).facts["psnr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--npz", type=Path)
    parser.add_argument("--qualities", default="20,40")
    parser.add_argument("--gops", default="4")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = files_of(asked.npz, folder) if asked.npz else asked.files
        for quality in map(float, asked.qualities.split(",")):
            for gop in map(int, asked.gops.split(",")):
                run = folder / f"{quality:g}-{gop}"
                run.mkdir()
                eozip.encode_store(paths, run / "one.zarr", "tec-tt-small", quality=quality, gop=gop)
                with patch.object(OldStreams, "last", lambda *place: None):
                    start = time.process_time()
                    apart = appended(paths, run / "apart.zarr", quality, gop)
                middle = time.process_time()
                joined = appended(paths, run / "joined.zarr", quality, gop)
                seconds = middle - start, time.process_time() - middle
                rows = zip(
                    ("at once", "a stream each", "joined"),
                    (told(run / "one.zarr"), apart, joined),
                    strict=True,
                )
                said = ", ".join(f"{what} {size:,} ({psnr:.2f} dB)" for what, (size, psnr) in rows)
                print(
                    f"quality {quality:g}, chunks of {gop}: {said}; {seconds[0]:.1f} and {seconds[1]:.1f} s"
                )


if __name__ == "__main__":
    main()
