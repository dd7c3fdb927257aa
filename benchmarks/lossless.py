"""Every pixel as it was, each date alone: bytes of `lossless` over those of picture codecs, and the time both take.

    python benchmarks/lossless.py [--data ../shared/data] [--out results]

On native grids: DATA/other/native_*.npz whole, each group of bands a part of one chunk. On cubes whose 20 and 60 m bands
were interpolated: the first date of each place of DATA/val, beside the same codec without its search for cells. Times are
CPU seconds of one thread for all dates of a row. Writes lossless.json and lossless.md.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio

import eozip
from eozip.bitstream import lossless as without_cells
from eozip_lab.evaluate.baselines.lossless import ExactJpeg2000, ExactJpegXl
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

Groups = dict[int, np.ndarray]  # resolution in m > [T, C, h, w]


@dataclass
class Row:
    """What one set of pixels costs, in bytes and CPU seconds."""

    data: str
    samples: int
    eozip: int = 0
    without_cells: int = 0
    jpeg2000: int = 0
    jpegxl: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0
    jpeg2000_s: float = 0.0
    jpegxl_s: float = 0.0


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    sets = _native(options.data) | _cubes(options.data)
    if not sets:
        print(f"no data in {options.data}: set EOZIP_DATA; nothing measured", file=sys.stderr)
        return 0
    rows = []
    for name, dates in sets.items():
        rows.append(_measured(name, dates))
        print(rows[-1], flush=True)
    write_text(
        options.out / "lossless.json", as_json({"made": provenance(), "rows": [asdict(row) for row in rows]})
    )
    write_text(options.out / "lossless.md", _table(rows))
    return 0


def _native(data: Path) -> dict[str, list[Groups]]:
    found = {}
    for path in sorted((data / "other").glob("native_*.npz")):
        with np.load(path) as file:
            groups = {m: file[f"r{m}"] for m in (10, 20, 60) if f"r{m}" in file}
        found[path.stem] = [{m: a[t : t + 1] for m, a in groups.items()} for t in range(len(groups[10]))]
    return found


def _cubes(data: Path) -> dict[str, list[Groups]]:
    found = {}
    for path in sorted((data / "val").glob("*_0.tif")):
        with rasterio.open(path) as file:
            found[f"{path.stem} (interpolated)"] = [{10: file.read()[None, :, :256, :256]}]
    return found


def _measured(name: str, dates: list[Groups]) -> Row:
    row = Row(name, sum(dn.size for groups in dates for dn in groups.values()))
    for groups in dates:
        blob, seconds = _timed(functools.partial(_encoded, groups))
        row.eozip, row.encode_s = row.eozip + len(blob), row.encode_s + seconds
        back, seconds = _timed(functools.partial(eozip.decode, blob))
        row.decode_s += seconds
        _check(groups, back)
        for dn in groups.values():
            row.without_cells += len(without_cells.encode_array(dn))
            picture, seconds = _timed(functools.partial(ExactJpeg2000().encode, dn, 0))
            row.jpeg2000, row.jpeg2000_s = row.jpeg2000 + len(picture), row.jpeg2000_s + seconds
            picture, seconds = _timed(functools.partial(ExactJpegXl().encode, dn, 0))
            row.jpegxl, row.jpegxl_s = row.jpegxl + len(picture), row.jpegxl_s + seconds
    return row


def _encoded(groups: Groups) -> bytes:
    if len(groups) == 1:
        return eozip.encode(next(iter(groups.values())), "lossless")
    return eozip.encode_groups(groups, codec="lossless")


def _check(groups: Groups, back: np.ndarray | Groups) -> None:
    pairs = back if isinstance(back, dict) else {next(iter(groups)): back}
    if not all((pairs[m] == dn).all() for m, dn in groups.items()):
        raise SystemExit("lossless pixels came back changed")


def _timed(work: Callable[[], object]) -> tuple:
    begun = time.process_time()
    return work(), time.process_time() - begun


def _table(rows: list[Row]) -> str:
    head = ["data", "bits a sample", "over JPEG 2000", "over JPEG XL", "over itself without cells"]
    head += ["s encode", "s decode", "s JPEG 2000", "s JPEG XL"]
    return markdown(
        head,
        [
            [
                row.data,
                f"{8 * row.eozip / row.samples:.3f}",
                *(f"{row.eozip / other:.3f}" for other in (row.jpeg2000, row.jpegxl, row.without_cells)),
                *(f"{s:.2f}" for s in (row.encode_s, row.decode_s, row.jpeg2000_s, row.jpegxl_s)),
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
