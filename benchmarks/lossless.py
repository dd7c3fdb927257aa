"""Every pixel as it was, each date alone: bytes of `lossless` over those of picture codecs, and the time both take.

    python benchmarks/lossless.py [--data ../shared/data] [--out results]

On native grids: DATA/other/native_*.npz whole, each group of bands a part of one chunk. On cubes whose 20 and 60 m bands
were interpolated: the first date of each place of DATA/val, beside the same codec without its search for cells. Times are
CPU seconds of one thread for all dates of a row. Then, of the first date on native grids, bits where no sample may be off by
more than so many DN: without a network, by the default codec with corrections, by LERC and by SZ3. Writes lossless.json and
lossless.md.
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
from eozip_lab.evaluate.baselines.error_bounded import Lerc, Sz3
from eozip_lab.evaluate.baselines.lossless import ExactJpeg2000, ExactJpegXl
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

ERRORS = (4, 16, 64, 256)  # DN
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


@dataclass
class Bounded:
    """What a promise costs: bytes of each way, by its name."""

    data: str
    samples: int
    error: int
    bytes: dict[str, int]


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
    bounded = []
    for name, dates in _native(options.data).items():
        bounded += [_promised(name, dates[0], error) for error in ERRORS]
        print(*bounded[-len(ERRORS) :], sep="\n", flush=True)
    held = {
        "made": provenance(),
        "rows": [asdict(row) for row in rows],
        "bounded": [asdict(row) for row in bounded],
    }
    write_text(options.out / "lossless.json", as_json(held))
    write_text(options.out / "lossless.md", f"{_table(rows)}\n{_promises(bounded)}")
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


def _promised(name: str, groups: Groups, error: int) -> Bounded:
    """Bytes of groups [1, C, h, w] where no sample is off by more; ours are decoded and checked."""
    ours = {
        "lossless": eozip.encode_groups(groups, codec="lossless", max_error=error),
        "max-error": eozip.encode_groups(groups, max_error=error),
    }
    for blob in ours.values():
        back = eozip.decode_groups(blob)
        if any(np.abs(back[m].astype(int) - dn).max() > error for m, dn in groups.items()):
            raise SystemExit(f"an error of more than {error} DN came back")
    others = {
        coder.name: sum(len(coder.encode(dn, error)) for dn in groups.values()) for coder in (Lerc(), Sz3())
    }
    sizes = {way: len(blob) for way, blob in ours.items()} | others
    return Bounded(name, sum(dn.size for dn in groups.values()), error, sizes)


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


def _promises(rows: list[Bounded]) -> str:
    ways = list(rows[0].bytes) if rows else []
    return markdown(
        ["data, first date", "no error over, DN", *(f"{way}, bits a sample" for way in ways)],
        [
            [row.data, str(row.error), *(f"{8 * row.bytes[way] / row.samples:.3f}" for way in ways)]
            for row in rows
        ],
    )


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
