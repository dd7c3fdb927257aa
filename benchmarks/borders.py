"""Error at chunk borders: MSE of the outermost pixels of each chunk over that of the interior, through the store.

    python benchmarks/borders.py [--chunks 128 256] [--qualities 20 40 60 80] [--size 768] [--limit 1.5]

A simulated scene, and the places of DATA/val (top left 256 x 256 pixels), are encoded with `encode_store` and read
back. Writes results/borders.json. Exit code 1 if a ratio is over the limit.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eozip.errors import InputError
from eozip.raster import Scene, create_geotiffs, open_scene, read_window
from eozip.sensors import get
from eozip.store import describe, encode_store, make_request
from eozip.store.pixels import read_pixels
from eozip_lab.evaluate.inputs import place_files
from eozip_lab.evaluate.methods import learned
from eozip_lab.evaluate.metrics import outermost, reflected, to_db
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.simulate import simulate
from eozip_lab.train.recipe import data_root

DEPTH = 4  # pixels
CROP = 256
EVERYTHING = slice(None)


@dataclass(frozen=True)
class Row:
    """One scene, codec, chunk and quality; squared errors as in PSNR (clip to 0..10000), all bands and dates.

    Attributes:
        scene: "simulated" or the place.
        chunk: side in pixels; `chunks`: how many there are.
        border: MSE of the outermost 4 pixels of each chunk, DN squared; `interior`: of the rest.
        ratio: border / interior.
        psnr: of the scene, dB.
    """

    scene: str
    codec: str
    chunk: int
    chunks: int
    quality: float
    border: float
    interior: float
    ratio: float
    psnr: float


def main() -> int:
    """Measures, prints, writes."""
    options = _options()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scenes = {"simulated": _simulated(Path(folder, "sim"), options.size)}
        scenes |= _real(options.data / "val", Path(folder))
        for name, scene in scenes.items():
            for chunk in options.chunks:
                rows += _measured(name, scene, chunk, options, Path(folder))
    results = {"provenance": provenance(), "depth": DEPTH, "limit": options.limit, "rows": rows}
    write_text(options.out / "borders.json", as_json(results))
    for row in rows:
        print(
            f"{row.scene:24} {row.codec} {row.chunks} chunks of {row.chunk}, quality {row.quality:g} "
            f"({row.psnr:.1f} dB): border / interior {row.ratio:.2f}"
        )
    worst = max(row.ratio for row in rows)
    print(f"worst {worst:.2f}, limit {options.limit:.2f}: {'kept' if worst <= options.limit else 'EXCEEDED'}")
    return int(worst > options.limit)


def _measured(name: str, scene: Scene, chunk: int, options: argparse.Namespace, folder: Path) -> list[Row]:
    shape = scene.shape[2:]
    border = outermost(shape, chunk, DEPTH)
    original = reflected(read_window(scene, EVERYTHING, EVERYTHING, EVERYTHING), int(scene.offset))
    rows = []
    for codec in options.codecs:
        for quality in options.qualities:
            print(f"{name}: {codec} chunk {chunk} quality {quality:g}", file=sys.stderr, flush=True)
            back = reflected(_through_store(scene, codec, chunk, quality, folder), int(scene.offset))
            square = np.square(original - back, dtype=np.float64).mean((0, 1))
            at_border, inside = float(square[border].mean()), float(square[~border].mean())
            count, db = math.prod(shape) // chunk**2, to_db(float(square.mean()))
            ratio = at_border / inside if inside else math.inf
            rows.append(Row(name, codec, chunk, count, quality, at_border, inside, ratio, db))
    return rows


def _through_store(scene: Scene, codec: str, chunk: int, quality: float, folder: Path) -> np.ndarray:
    """Pixels [T, C, H, W] in the scene's band order as a reader of the store sees them."""
    request = make_request(scene, codec, quality=quality)
    out = folder / "scene.zarr"
    encode_store(scene, out, request.codec, order=request.order, chunk=chunk, overwrite=True)
    description = describe(out)
    times, _, height, width = description.grid.shape
    stored = read_pixels(description, slice(0, times), slice(0, height), slice(0, width))
    return stored[:, np.argsort(request.order)]


def _simulated(folder: Path, size: int) -> Scene:
    return open_scene(simulate(folder, dates=4, size=size))


def _real(val: Path, folder: Path) -> dict[str, Scene]:
    """Copies of the places of a folder, cropped to whole chunks, by name; {} where there are none."""
    try:
        found = place_files(val)
    except InputError as error:
        print(f"{error}; only the simulated scene is measured", file=sys.stderr)
        return {}
    return {name: _cropped(files, folder / name) for name, files in found.items()}


def _cropped(files: list[Path], folder: Path) -> Scene:
    bands = get("s2-l2a").band_names
    scene = open_scene(files, bands)
    pixels = read_window(scene, EVERYTHING, slice(0, CROP), slice(0, CROP))
    profile = replace(scene.profile, height=CROP, width=CROP)
    names = [path.name for path in files]
    with create_geotiffs(folder, names, profile, [{} for _ in files], []) as writers:
        for writer, frame in zip(writers, pixels, strict=True):
            writer.write(frame, 0, 0)
    return open_scene([folder / name for name in names], bands)


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/")
    parser.add_argument("--codecs", nargs="+", default=learned())
    parser.add_argument("--chunks", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--qualities", nargs="+", type=float, default=[20.0, 40.0, 60.0, 80.0])
    parser.add_argument("--size", type=int, default=768, help="of the simulated scene")
    parser.add_argument("--limit", type=float, default=1.5)
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
