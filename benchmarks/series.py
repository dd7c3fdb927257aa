"""What other dates are worth: bytes of tec-tt-small over tec-elic-small at equal PSNR, on series long and short.

    python benchmarks/series.py [--sets seasons series12 finland dense clear] [--triples 0] [--out results]

    seasons   four dates of the places of DATA/val (top left 256 x 256 pixels), as one chunk
    series12  the twelve dates of DATA/val/series12.npz, in chunks of 4, 6, 8, 12
    finland   the five dates of DATA/other/native_finland.npz on their own grids, as one chunk
    dense     118 dates of a field under clouds, 64 x 64 pixels (worldcereal of DATA/train, unpacked in $EOZIP_UNPACKED),
              in chunks of 8, 12, 16, 24
    clear     those of these dates that are clear, in chunks of 12

All bytes count; tec-elic-small has the longest of these chunks for all, as its bytes hardly depend on them. PSNR is that of
`eozip.psnr`, over all samples of all dates together: reflectance beyond 1 counts as 1. Rates at a PSNR lie on a line in the
logarithm between the nearest qualities that are multiples of 2. For `dense` the same is told of clear dates alone: their
PSNR, and the bytes of their own streams. A date is clear where less than 5 % of B02 lies above 1,300 DN.

Besides, at the quality nearest to 40 dB: what the bits of tec-tt-small are of; and with `--triples`, which takes longer, how
its choice of dates that tell of others compares with random ones, bytes at equal PSNR. Writes series.json and series.md;
there is no clock in it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import numpy as np

import eozip
from eozip.codecs import registry
from eozip.codecs.pyramid import codec as pyramid
from eozip.codecs.pyramid.ports import writing_port
from eozip.entropy.range_coder import EstimatePort, Tables
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.rate import rate_at
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

CODECS = ("tec-tt-small", "tec-elic-small")
DENSE = "00002806639B424A"
NEAREST_DB = 40.0
_SPACING, _DB_A_STEP = 2, 0.55  # of qualities that are measured, and about how many dB lie between two
_PEAK = 10_000.0
_TRIED = 12  # dates of a chunk under random anchors, where there is a choice
_CLEAR = (0.05, 1300)  # less than such a share of the first band above so many DN
# functions of the codec whose symbols are of one kind; whatever else is no detail is the layout's
_KINDS = {
    "_code_positions": "places",
    "_code_means": "means",
    "_bases": "bases",
    "_code_top": "top",
    "_code_strengths": "scales",
    "code_prediction": "60 m from 10 m",
}

Pixels = dict[int, np.ndarray]  # resolution > [T, C, h, w]


@dataclass(frozen=True)
class Series:
    """Pixels of some dates and how they are cut.

    Attributes:
        name: as of `--sets`, and what it is.
        grids: resolution > pixels; under 0 a cube of one grid.
        chunks: most dates in a chunk, each to be measured.
        dbs: at which PSNR bytes are compared.
        clear: bool [T], or None where nobody asks.
    """

    name: str
    grids: Pixels
    chunks: tuple[int, ...]
    dbs: tuple[float, ...]
    clear: np.ndarray | None = None

    @property
    def dates(self) -> int:
        """How many."""
        return len(next(iter(self.grids.values())))

    def cut(self, most: int) -> Iterator[tuple[slice, Pixels]]:
        """Its chunks of at most so many dates."""
        for first in range(0, self.dates, most):
            where = slice(first, min(first + most, self.dates))
            yield where, {metres: pixels[where] for metres, pixels in self.grids.items()}


@dataclass(frozen=True)
class Point:
    """One quality: bits and squared errors (of samples, reflectance 1) by date, and all bytes."""

    quality: float
    size: int
    bits: np.ndarray
    errors: np.ndarray

    def at(self, dates: np.ndarray | None) -> tuple[float, float]:
        """Bits and PSNR of some dates; of all bytes if None."""
        where = slice(None) if dates is None else dates
        bits = 8.0 * self.size if dates is None else float(self.bits[where].sum())
        return bits, -10 * math.log10(float(self.errors[where].mean()))


@dataclass
class Curve:
    """Points of one codec on one series in chunks of one length, measured when they are asked for."""

    codec: str
    series: Series
    chunk: int
    _held: dict[int, Point] = field(default_factory=dict)

    def bits_at(self, db: float, dates: np.ndarray | None = None) -> float | None:
        """Bits of some dates at their PSNR; None beyond the codec's qualities."""
        self.nearest(db, dates)
        return rate_at([point.at(dates) for point in self._held.values()], db)

    def nearest(self, db: float, dates: np.ndarray | None = None) -> Point:
        """The point nearest to a PSNR, both of its neighbours measured as well."""
        last, number = 100 // _SPACING, 40 // _SPACING
        for _ in range(2 * last):
            away = db - self._point(number).at(dates)[1]
            beside = number + (1 if away > 0 else -1)
            if not 0 <= beside <= last:
                break
            left = db - self._point(beside).at(dates)[1]
            if away * left <= 0:
                number = number if abs(away) <= abs(left) else beside
                break
            number = min(last, max(0, beside + round(left / _DB_A_STEP)))
        return self._point(number)

    def _point(self, number: int) -> Point:
        if number not in self._held:
            self._held[number] = measured(self.codec, self.series, self.chunk, float(_SPACING * number))
        return self._held[number]


def main() -> None:
    """Measures, prints, writes."""
    options = _options()
    found: list[dict[str, Any]] = []
    for series in all_series(options.data, options.unpacked):
        if series.name.split()[0] in options.sets:
            print(series.name, file=sys.stderr, flush=True)
            image = Curve(CODECS[1], series, max(series.chunks))
            found += [compared(Curve(CODECS[0], series, n), image, options.triples) for n in series.chunks]
    if not found:
        print("no data: set EOZIP_DATA and EOZIP_UNPACKED, or --data; nothing measured", file=sys.stderr)
        return
    weights = {name: registry.get(registry.resolve(name)).weights_hash.hex() for name in CODECS}
    results = {"provenance": provenance(), "weights": weights, "series": found}
    text = page(results)
    print(text)
    write_text(options.out / "series.json", as_json(results))
    write_text(options.out / "series.md", text)


def all_series(data: Path, unpacked: Path) -> Iterator[Series]:
    """Those whose files are there."""
    val, finland, dense = data / "val", data / "other" / "native_finland.npz", unpacked / "worldcereal.npz"
    for place in load_places(val, 256) if val.is_dir() else []:
        yield Series(f"seasons {place.name.rpartition('_')[2]}", {0: place.dn}, (4,), (36.0, 40.0, 44.0))
    if (val / "series12.npz").is_file():
        with np.load(val / "series12.npz") as held:
            yield Series("series12", {0: held["reflectance"]}, (4, 6, 8, 12), (38.0, 40.0, 44.0))
    if finland.is_file():
        with np.load(finland) as held:
            yield Series("finland", {10: held["r10"], 20: held["r20"]}, (5,), (32.0, 36.0, 40.0))
    if dense.is_file():
        with np.load(dense) as held:
            pixels = held[DENSE]
        share, above = _CLEAR
        clear = (pixels[:, 0] > above).mean((1, 2)) < share
        yield Series("dense", {0: pixels}, (8, 12, 16, 24), (NEAREST_DB,), clear)
        yield Series("clear dates of dense", {0: pixels[clear]}, (12,), (NEAREST_DB,))


def measured(codec: str, series: Series, chunk: int, quality: float) -> Point:
    """A series at one quality."""
    size, bits, errors = 0, [], []
    for _, grids in series.cut(chunk):
        if 0 in grids:
            blob, report = eozip.encode_report(grids[0], codec, quality)
            decoded = {0: eozip.decode(blob)}
            bits += list(report.date_bits)
        else:
            blob = eozip.encode_groups(grids, codec, quality)
            decoded = eozip.decode_groups(blob)
            bits += [8.0 * len(blob) / len(grids[min(grids)])] * len(grids[min(grids)])
        size += len(blob)
        errors.append(_errors(grids, decoded))
    return Point(quality, size, np.array(bits), np.concatenate(errors))


def _errors(grids: Pixels, decoded: Pixels) -> np.ndarray:
    """Mean squared error of each date over the samples of all its grids; reflectance 1 is 1."""
    squares, count = np.zeros(len(next(iter(grids.values())))), 0
    for metres, pixels in grids.items():
        off = np.clip(pixels.astype(float), 0, _PEAK) - np.clip(decoded[metres].astype(float), 0, _PEAK)
        squares += np.square(off / _PEAK).sum((1, 2, 3))
        count += pixels[0].size
    return squares / count


def compared(ours: Curve, image: Curve, triples: int) -> dict[str, Any]:
    """Ratios at equal PSNR, what bits are of, and what other anchors would take."""
    series, chunk = ours.series, ours.chunk
    row: dict[str, Any] = {"series": series.name, "chunk": chunk, "dates": series.dates}
    views = {"all": None} if series.clear is None else {"all": None, "clear": series.clear}
    for view, dates in views.items():
        row[view] = {
            f"{db:g}": _ratio(ours.bits_at(db, dates), image.bits_at(db, dates)) for db in series.dbs
        }
    near = ours.nearest(NEAREST_DB)
    row["quality"], row["shares"] = near.quality, shares_of(series, chunk, near.quality)
    if series.clear is not None:
        row["clear_dates"] = int(series.clear.sum())
        row["clear_share_of_bits"] = float(near.bits[series.clear].sum() / near.bits.sum())
        row["clear_share_of_error"] = float(near.errors[series.clear].sum() / near.errors.sum())
    if triples and 0 in series.grids and (chunk == _TRIED or len(series.chunks) == 1):
        row["anchors"] = random_anchors(series, chunk, near.quality, triples, ours)
    return row


def _ratio(ours: float | None, image: float | None) -> dict[str, float | None]:
    ratio = None if ours is None or image is None else ours / image
    return {"bytes": None if ours is None else ours / 8, "ratio": ratio}


class _Counting:
    """A port that writes, and counts what each kind of symbol takes."""

    def __init__(self, counts: Counter[str]) -> None:
        self._port, self._counts, self._told = writing_port(), counts, 0.0

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        one = EstimatePort()
        one.code(symbols, rows, tables)
        self._count(_kind(sys._getframe(1)), one.bits)
        return self._port.code(symbols, rows, tables)

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        one = EstimatePort()
        one.code_trellis(symbols, rows, tables)
        self._count("details", one.bits)
        return self._port.code_trellis(symbols, rows, tables)

    def _count(self, kind: str, bits: float) -> None:
        self._counts[kind] += bits
        self._told += bits

    def finish(self) -> bytes:
        out = self._port.finish()
        self._counts["ends of streams"] += 8 * len(out) - self._told
        return out


def _kind(frame: FrameType | None) -> str:
    """Of symbols that come from here: by the function of the codec that sends them."""
    while frame is not None:
        if frame.f_code.co_name in _KINDS:
            return _KINDS[frame.f_code.co_name]
        frame = frame.f_back
    return "layout"


def shares_of(series: Series, chunk: int, quality: float) -> dict[str, float]:
    """Kind of symbol > share of all bits of tec-tt-small."""
    counts: Counter[str] = Counter()
    size = 0
    with patch.object(pyramid, "writing_port", lambda: _Counting(counts)):
        for _, grids in series.cut(chunk):
            encode = eozip.encode if 0 in grids else eozip.encode_groups
            size += len(encode(grids.get(0, grids), CODECS[0], quality))
    counts["headers, lengths"] = 8 * size - sum(counts.values())
    return {kind: bits / (8 * size) for kind, bits in counts.most_common()}


def random_anchors(series: Series, chunk: int, quality: float, count: int, curve: Curve) -> dict[str, float]:
    """Bytes under random anchors over those under the chosen ones, at equal PSNR by the slope of the curve.

    Each chunk draws its own; `best` takes the best draw of every chunk, `median` the middle one.
    """
    slope = _slope(curve, quality)
    best, middle, chosen = 0.0, 0.0, 0.0
    random = np.random.default_rng(0)
    for _, grids in series.cut(chunk):
        dates = len(grids[0])
        if dates < 2:
            continue
        own = _cost(grids[0], quality, None, slope)
        drawn = [tuple(random.permutation(dates)[: min(3, dates - 1)].tolist()) for _ in range(count)]
        costs = sorted(_cost(grids[0], quality, anchors, slope) for anchors in drawn)
        chosen, best, middle = chosen + own, best + costs[0], middle + costs[len(costs) // 2]
    return {"drawn": count, "best": best / chosen, "median": middle / chosen}


def _slope(curve: Curve, quality: float) -> float:
    """Logarithm of bytes a dB around a quality."""
    points = sorted(point.at(None) for point in curve._held.values() if abs(point.quality - quality) <= 6)
    return float(np.mean([math.log(b / a) / (q - p) for (a, p), (b, q) in pairwise(points)]))


def _cost(dn: np.ndarray, quality: float, anchors: tuple[int, ...] | None, slope: float) -> float:
    """Bytes of a chunk under anchors (None: the encoder's own), less what its PSNR is worth."""
    if anchors is None:
        blob = eozip.encode(dn, CODECS[0], quality)
    else:
        with patch.object(pyramid, "anchors_of", lambda *_: anchors):
            blob = eozip.encode(dn, CODECS[0], quality)
    db = -10 * math.log10(float(_errors({0: dn}, {0: eozip.decode(blob)}).mean()))
    return len(blob) * math.exp(-slope * db)


def page(results: dict[str, Any]) -> str:
    """Markdown; every number comes from `results`."""
    made, rows = results["provenance"], results["series"]
    weights = ", ".join(f"{name} {held}" for name, held in results["weights"].items())
    parts = [
        "# What other dates are worth\n",
        "tec-tt-small: bytes, and these over those of tec-elic-small at equal PSNR over all samples "
        "(`benchmarks/series.py` says of what).\n",
        _ratios(rows, "all"),
    ]
    if any("clear" in row for row in rows):
        parts += [
            "Clear dates alone: PSNR and bytes of these.\n",
            _ratios([r for r in rows if "clear" in r], "clear"),
        ]
    parts += ["What bits of tec-tt-small are of, near 40 dB, percent:\n", _shares(rows)]
    if any("anchors" in row for row in rows):
        parts += [
            "Three random dates that tell of all others in place of those that the encoder chose, bytes over its "
            "at equal PSNR:\n",
            _anchors([row for row in rows if "anchors" in row]),
        ]
    parts.append(
        f"Made by `{made['command']}`, commit {made['commit']}, {made['when']}; weights: {weights}.\n"
    )
    return "\n".join(parts)


def _ratios(rows: Sequence[dict[str, Any]], view: str) -> str:
    lines = [
        [row["series"], str(row["chunk"]), db, _told(one["bytes"], ",.0f"), _told(one["ratio"], ".3f")]
        for row in rows
        for db, one in row[view].items()
    ]
    return markdown(["series", "dates a chunk", "dB", "bytes", "ratio"], lines)


def _shares(rows: Sequence[dict[str, Any]]) -> str:
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["shares"]))
    lines = [
        [row["series"], str(row["chunk"]), *(f"{100 * row['shares'].get(kind, 0):.1f}" for kind in kinds)]
        for row in rows
    ]
    return markdown(["series", "dates a chunk", *kinds], lines)


def _anchors(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        [row["series"], str(row["chunk"]), str(one["drawn"]), f"{one['best']:.3f}", f"{one['median']:.3f}"]
        for row in rows
        if (one := row["anchors"])
    ]
    return markdown(["series", "dates a chunk", "drawn for each chunk", "best", "median"], lines)


def _told(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("seasons", "series12", "finland", "dense", "clear")
    unpacked = Path(os.environ.get("EOZIP_UNPACKED") or "data")
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--triples", type=int, default=0, help="random anchors to try for each chunk")
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/ and other/")
    parser.add_argument("--unpacked", type=Path, default=unpacked, help="folder with worldcereal.npz")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
