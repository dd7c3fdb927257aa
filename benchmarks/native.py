"""Bits at equal PSNR on native grids, each date alone, by kind of data: tec-elic-small against the classical contenders.

    python benchmarks/native.py [--data ../shared/data] [--codec NAME] [--out results] [FILE.npz ...]

FILE.npz holds r10, r20 and perhaps r60, [T, C, h, w] or [C, h, w]; default: DATA/other/native_*.npz and the first date of
each place of DATA/val on its own grids. Writes native.json and native.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import rasterio

from eozip.codecs.pyramid import grids
from eozip_lab.evaluate.native import Groups, bits_at, contenders, curve, learned
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

DECIBELS = (36, 38, 40, 42, 44, 48)
QUALITIES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 82, 92)
BANDS = {10: (1, 2, 3, 7), 20: (4, 5, 6, 8, 10, 11), 60: (0,)}  # of the twelve of Level-2A


def main() -> int:
    """Measures, prints, writes."""
    options = _options()
    sets = {path.stem: _read(path) for path in options.files} or _default(options.data)
    if not sets:
        print(
            f"no native data in {options.data}: set EOZIP_DATA, or name files; nothing measured",
            file=sys.stderr,
        )
        return 0
    ways = [learned(options.codec, QUALITIES), *contenders()]
    found = {}
    for name, groups in sets.items():
        found[name] = {way.name: curve(way, groups) for way in ways}
        print(
            name,
            {way: [round(bits_at(c, d), 4) for d in DECIBELS] for way, c in found[name].items()},
            flush=True,
        )
    write_text(options.out / "native.json", as_json({"made": provenance(), "points": found}))
    write_text(options.out / "native.md", _table(found, options.codec))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=data_root() / "data")
    parser.add_argument("--codec", default="tec-elic-small")
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser.parse_args()


def _read(path: Path) -> Groups:
    with np.load(path) as file:
        arrays = {m: file[f"r{m}"] for m in (10, 20, 60) if f"r{m}" in file}
    stacks = {m: a if a.ndim == 4 else a[None] for m, a in arrays.items()}
    stacks = {m: a[:, :2] if m == 60 else a for m, a in stacks.items()}  # no cirrus band
    sides = [min(a.shape[axis] * m // 10 for m, a in stacks.items()) // 12 * 12 for axis in (2, 3)]
    return {
        m: np.ascontiguousarray(a[:, :, : sides[0] * 10 // m, : sides[1] * 10 // m])
        for m, a in stacks.items()
    }


def _default(data: Path) -> dict[str, Groups]:
    found = {path.stem: _read(path) for path in sorted((data / "other").glob("native_*.npz"))}
    for path in sorted((data / "val").glob("*_0.tif")):
        with rasterio.open(path) as file:
            cells = _cells(file.read()[:, :256, :256].astype(np.float32))
        found |= {path.stem: cells} if cells else {}
    return found


def _cells(cube: np.ndarray) -> Groups | None:
    """The 10 and 20 m bands of a cube of twelve on their own grids, where the 20 m bands share one."""
    grid = grids.found(cube[None][:, BANDS[20]])
    if grid[0] is None or len(set(grid)) != 1:
        return None
    cells = np.rint(grid[0].solved(cube[list(BANDS[20])]))
    skip = [(-grid[0].cells(256, axis)[0], (grid[0].rows, grid[0].columns)[axis]) for axis in (0, 1)]
    size = 250
    fine = cube[list(BANDS[10])][:, skip[0][1] : skip[0][1] + size, skip[1][1] : skip[1][1] + size]
    coarse = cells[:, skip[0][0] : skip[0][0] + size // 2, skip[1][0] : skip[1][0] + size // 2]
    return {10: fine[None].astype(np.uint16), 20: np.clip(coarse, 0, 65535)[None].astype(np.uint16)}


def _table(found: dict[str, dict[str, list[tuple[float, float]]]], codec: str) -> str:
    """Bits over those of KLT + JPEG 2000, group by group; the kind where the codec is worst at 40 dB comes first."""

    def ratio(name: str, way: str, decibels: float) -> float:
        return bits_at(found[name][way], decibels) / bits_at(found[name]["klt+jpeg2000"], decibels)

    order = sorted(found, key=lambda name: -ratio(name, codec, 40))
    rows = [
        [name, way, *(f"{ratio(name, way, d):.3f}" for d in DECIBELS)]
        for name in order
        for way in found[name]
        if way != "klt+jpeg2000"
    ]
    return markdown(["data", "bits over klt+jpeg2000 at", *(f"{d} dB" for d in DECIBELS)], rows)


if __name__ == "__main__":
    sys.exit(main())
