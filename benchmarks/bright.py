"""Bright scenes, clouds and snow among them, at quality 100: is 46 dB reached, and as what are they stored?

    python benchmarks/bright.py [--data ../shared/data] [--codecs NAME ...] [--out results]

Measured are the scenes of DATA/train/sen12mscr.zip, and the brightest of them with DN times 4. Writes bright.json and
bright.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eozip.chunk import api
from eozip.chunk.options import FLOOR_PSNR
from eozip.chunk.pixels import psnr
from eozip_lab.evaluate.methods import learned
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.rate import bpppb
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.packed import packed_arrays
from eozip_lab.train.recipe import data_root

SOURCE, BRIGHTENED = "sen12mscr", 4


@dataclass(frozen=True)
class Bright:
    """One bright scene at quality 100.

    Attributes:
        scene, codec: names; `stored_as`: the codec in the stream (lossless where that was smaller).
        mean_dn: mean of the scene; `above_peak`: share of pixels over 10,000 DN.
        psnr: dB, infinite if exact.
    """

    scene: str
    codec: str
    stored_as: str
    mean_dn: float
    above_peak: float
    bpppb: float
    psnr: float
    reached_46_db: bool


def main() -> int:
    """Measures, prints, writes; 1 if a scene stays below 46 dB."""
    options = _options()
    folder = options.data / "train"
    if not (folder / f"{SOURCE}.zip").is_file() or not (folder / "index.json").is_file():
        print(f"no {folder}/{SOURCE}.zip: set EOZIP_DATA, or give --data; nothing measured", file=sys.stderr)
        return 0
    found = [measured(codec, name, dn) for name, dn in scenes(folder).items() for codec in options.codecs]
    made = provenance()
    text = "\n".join(
        [
            "# Bright scenes at quality 100\n",
            f"`{made['command']}`, commit {made['commit']}, {made['when']}\n",
            table(found),
        ]
    )
    print(text)
    write_text(options.out / "bright.json", as_json({"provenance": made, "scenes": found}))
    write_text(options.out / "bright.md", text)
    return int(not all(one.reached_46_db for one in found))


def scenes(folder: Path) -> dict[str, np.ndarray]:
    """Every scene of the source, and its brightest with DN times `BRIGHTENED`."""
    found = {name: np.array(a) for name, a in packed_arrays(folder)[0] if name.startswith(SOURCE)}
    brightest = max(found, key=lambda name: found[name].mean())
    limit = np.iinfo(np.uint16).max // BRIGHTENED
    found[f"{brightest}, DN x {BRIGHTENED}"] = np.minimum(found[brightest], limit) * np.uint16(BRIGHTENED)
    return found


def measured(codec: str, name: str, dn: np.ndarray) -> Bright:
    """One scene by one codec."""
    blob = api.encode(dn, codec, 100.0)
    db = psnr(dn, api.decode_array(blob))
    return Bright(
        name,
        codec,
        api.inspect(blob).header.codec,
        float(dn.mean()),
        float((dn > 10_000).mean()),
        bpppb(len(blob), dn.shape),
        db,
        db >= FLOOR_PSNR,
    )


def table(found: list[Bright]) -> str:
    """Markdown."""
    head = ["scene", "codec", "stored as", "mean DN", "over 10,000", "bpppb", "PSNR, dB", "46 dB"]
    rows = [
        [
            b.scene,
            b.codec,
            b.stored_as,
            f"{b.mean_dn:.0f}",
            f"{b.above_peak:.1%}",
            f"{b.bpppb:.3f}",
            f"{b.psnr:.2f}",
            "yes" if b.reached_46_db else "no",
        ]
        for b in found
    ]
    return markdown(head, rows)


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with train/")
    parser.add_argument("--codecs", nargs="*", default=learned(), help="default: all that are registered")
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
