"""What `--drop masked` saves: bytes with and without, under made clouds, on real series.

    python benchmarks/dropped.py [--data ../shared/data] [--out results/dropped.json] [--covers ...] [--qualities ...]

Writes results/dropped.md too. An interrupted run goes on where it stopped.

Measured are the places of DATA/val (top left 256 x 256 pixels, four dates as one chunk) and DATA/val/series12.npz in groups
of four dates. Every date, or every one but the first, gets a seeded mask of
`eozip_lab.inpainting.synthetic_clouds` with the cover asked for; shapes take turns. The pixels under these masks are clear
in truth, so bytes without dropping are those of land, not of clouds; in exchange the error of the forecasts is known. PSNR
counts the same pixels with and without: those that are coded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import eozip
from eozip.codecs import registry
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.inpainting.run import Journal
from eozip_lab.inpainting.synthetic_clouds import SHAPES, cloud_mask

CODEC = "tec-tt-small"
SIZE, GROUP = 256, 4
COVERS = (0.1, 0.3, 0.5, 0.8, 1.0)
QUALITIES = (40.0, 60.0, 80.0)


def main() -> None:
    """Measures, prints, writes."""
    options = _options()
    codec = registry.get(registry.resolve(CODEC))
    journal = Journal(options.out.with_suffix(".rows.jsonl"))
    for name, dn in groups(options.data / "val"):
        print(name, file=sys.stderr, flush=True)
        measure(journal, codec.id, name, dn, options.covers, options.qualities)
    document = {
        "provenance": provenance(),
        "codec": codec.id,
        "weights": codec.weights_hash.hex(),
        "summary": summary(journal.rows),
        "rows": journal.rows,
    }
    text = table(document["summary"])
    print(text)
    write_text(options.out, as_json(document))
    write_text(options.out.with_suffix(".md"), page(document, text))
    options.out.with_suffix(".rows.jsonl").unlink()


def groups(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name, pixels [4, C, 256, 256]."""
    for place in load_places(folder, SIZE):
        yield place.name, place.dn[:GROUP]
    with np.load(folder / "series12.npz") as held:
        dn = held["reflectance"]
    for first in range(0, len(dn), GROUP):
        yield f"series12[{first}:{first + GROUP}]", dn[first : first + GROUP]


def measure(
    journal: Journal, codec: str, name: str, dn: np.ndarray, covers: list[float], qualities: list[float]
) -> None:
    """Rows of one stack that the journal lacks: all dates cloudy, and the first clear."""
    for quality in qualities:
        wanted = [
            (cover, first, f"{name} {quality:g} {cover:g} {first}")
            for cover in covers
            for first in ("cloudy", "clear")
        ]
        lacking = [case for case in wanted if not journal.has(case[2], codec)]
        if not lacking:
            continue
        plain = eozip.encode(dn, codec, quality)
        without = eozip.decode(plain)
        for cover, first, key in lacking:
            drop = masks(name, dn, cover)
            drop[0] &= first == "cloudy"
            about = {"key": key, "predictor": codec, "stack": name, "first_date": first, "cover": cover}
            journal.add(about | compare(dn, codec, len(plain), without, drop, quality))


def masks(name: str, dn: np.ndarray, cover: float) -> np.ndarray:
    """Bool [T, H, W], the same every time."""
    random = np.random.default_rng([*name.encode(), round(1000 * cover)])
    kinds = [list(SHAPES)[t % len(SHAPES)] for t in range(len(dn))]
    return np.stack([cloud_mask(dn.shape[2:], cover, random, kind) for kind in kinds])


def compare(
    dn: np.ndarray, codec: str, size: int, without: np.ndarray, drop: np.ndarray, quality: float
) -> dict[str, Any]:
    """Bytes and errors with and without; `size` and `without` are bytes and pixels of the stream that drops nothing."""
    blob, report = eozip.encode_report(dn, codec, quality, drop=drop)
    left = np.broadcast_to(eozip.dropped(blob)[:, None], dn.shape)
    with_drop = eozip.decode(blob)
    return {
        "quality": quality,
        "masked": float(drop.mean()),
        "dropped": report.dropped,
        "bytes": size,
        "bytes_dropped": len(blob),
        "saved": 1 - len(blob) / size,
        "psnr_coded": finite(eozip.psnr(dn, without, ~left)),
        "psnr_coded_dropped": finite(eozip.psnr(dn, with_drop, ~left)),
        "mae_forecast": float(np.abs(with_drop[left].astype(int) - dn[left]).mean()) if left.any() else None,
    }


def finite(db: float) -> float | None:
    """None where nothing is counted."""
    return db if np.isfinite(db) else None


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over stacks of rows of one cover, quality and kind of first date; bytes by their sums."""
    keys = sorted({(row["first_date"], row["quality"], row["cover"]) for row in rows})
    return [
        _mean(key, [r for r in rows if (r["first_date"], r["quality"], r["cover"]) == key]) for key in keys
    ]


def _mean(key: tuple[str, float, float], rows: list[dict[str, Any]]) -> dict[str, Any]:
    fields = ("masked", "dropped", "psnr_coded", "psnr_coded_dropped", "mae_forecast")
    held = {name: [row[name] for row in rows if row[name] is not None] for name in fields}
    means = {name: float(np.mean(values)) if values else None for name, values in held.items()}
    saved = 1 - sum(row["bytes_dropped"] for row in rows) / sum(row["bytes"] for row in rows)
    return {"first_date": key[0], "quality": key[1], "cover": key[2], "saved": saved, **means}


def page(document: dict[str, Any], text: str) -> str:
    """Markdown around the table."""
    about = document["provenance"]
    return "\n".join(
        [
            "# What `eozip encode --mask ... --drop masked` saves",
            "",
            f"{document['codec']} (weights {document['weights']}), 4 dates x 12 bands x 256 x 256 pixels, "
            f"{len({row['stack'] for row in document['rows']})} stacks of data/val; bytes by their sums.",
            "Made clouds and their shadows over land that was clear in truth: saved are bytes of land. "
            "PSNR counts coded pixels alone, the same with and without.",
            "",
            text,
            "",
            f"Made by `{about['command']}`, commit {about['commit']}.",
            "",
        ]
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, for people too."""
    lines = [
        "| first date | quality | hidden | cells dropped | bytes saved | PSNR of coded pixels | error of forecasts, DN |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        change = (
            "-" if row["psnr_coded"] is None else f"{row['psnr_coded_dropped'] - row['psnr_coded']:+.2f} dB"
        )
        error = "-" if row["mae_forecast"] is None else f"{row['mae_forecast']:.0f}"
        lines.append(
            f"| {row['first_date']} | {row['quality']:g} | {100 * row['cover']:.0f} % | {100 * row['dropped']:.1f} % "
            f"| {100 * row['saved']:.1f} % | {change} | {error} |"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    home = Path(__file__).parents[1]
    data = Path(os.environ.get("EOZIP_DATA") or home.parent / "shared") / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=home / "results" / "dropped.json")
    parser.add_argument("--covers", type=float, nargs="+", default=COVERS)
    parser.add_argument("--qualities", type=float, nargs="+", default=QUALITIES)
    return parser.parse_args()


if __name__ == "__main__":
    main()
