"""Does quality 100 hold on every stack, and what does it take: bright and cloudy scenes, brightened places.

    python benchmarks/floor.py [--codec tec-elic-small] [--json out.json]

Data: EOZIP_DATA (see docs/training.md). Every chunk is decoded and compared; PSNR with peak 10,000 DN.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio

import eozip
from eozip_lab.train.packed import packed_arrays
from eozip_lab.train.recipe import data_root

SIDE = 256
GAINS = (2, 4)  # a brightened place stands for snow and sand


def stacks(root: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and uint16 [T, 12, H, W] of every stack in val, brightened too, and of the cloudy and clear scenes."""
    tiffs = sorted((root / "data/val").glob("*.tif"))
    for place in sorted({path.stem.rpartition("_")[0] for path in tiffs}):
        dates = [_read(path) for path in tiffs if path.stem.startswith(place)]
        dn = np.stack(dates)[..., :SIDE, :SIDE]
        yield place, dn
        for gain in GAINS:
            yield f"{place} x {gain}", np.clip(dn.astype(np.int64) * gain, 0, 65535).astype(np.uint16)
    with np.load(root / "data/val/series12.npz") as series:
        yield "series12", series["reflectance"].astype(np.uint16)
    for name, dn in packed_arrays(root / "data/train")[0]:
        if name.startswith("sen12mscr"):
            yield name, np.asarray(dn)


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read().astype(np.uint16)


def measured(name: str, dn: np.ndarray, codec: str, bound: int | None = None) -> dict[str, object]:
    """One line: asked for quality 100, or for a bound alone."""
    asked = {"quality": 100.0} if bound is None else {"max_error": bound}
    blob, report = eozip.encode_report(dn, codec, nodata=0, **asked)
    dn_hat = eozip.decode(blob)
    return {
        "name": name,
        "max_error_asked": bound,
        "codec": report.codec,
        "residual_bytes": report.residual,
        "bytes": len(blob),
        "bpppb": 8 * len(blob) / dn.size,
        "psnr": eozip.psnr(dn, dn_hat, dn != 0),
        "max_error": int(np.abs(dn.astype(int) - dn_hat).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", default="tec-elic-small")
    parser.add_argument("--max-error", type=int, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("EOZIP_DATA", str(data_root()))
    rows = []
    for name, dn in stacks(data_root()):
        for bound in (None, *options.max_error):
            row = measured(name, dn, options.codec, bound)
            rows.append(row)
            print(
                f"{name:40} {'q100' if bound is None else f'E {bound}':6} {row['codec']:24} {row['bpppb']:7.4f} bpppb "
                f"{row['psnr']:6.2f} dB  layer {row['residual_bytes']:8} B  largest error {row['max_error']}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
