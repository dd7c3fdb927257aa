"""Makes the golden streams that are missing. Until a first release new bytes replace old ones.

python tests/golden/make.py [BEGINNING ...]     # those whose names begin so are made again

After other weights of the pyramid codecs: python tests/golden/make.py {tec-{elic,tt,fp},flextec}-small-any
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(folder) for folder in (HERE.parent, *HERE.parent.iterdir()) if folder.is_dir()]

import numpy as np  # noqa: E402

import eozip  # noqa: E402
import pyramidscenes  # noqa: E402
from eozip import bitstream  # noqa: E402
from eozip.codecs import registry  # noqa: E402
from test_bitstream import HEADER  # noqa: E402
from test_lossless import golden_pixels  # noqa: E402
from test_residual import KNOWN, Known, beside  # noqa: E402
from toy_codec import TOY, registered  # noqa: E402


def write(name: str, data: bytes) -> None:
    path = HERE / name
    if not path.exists():
        path.write_bytes(data)
        print(f"{name}: {len(data)} bytes")


def write_bounded(name: str, codec: str, bound: int) -> None:
    """A chunk under a largest error, with nodata and exceptions; its pixels before and after beside it."""
    dn = beside(140, shape=(2, 12, 9, 11))
    dn[:, :, 2, 3:6], dn[0, :, 5, 5] = 0, 60000
    if not (HERE / f"{name}.bin").exists():
        write(f"{name}.bin", eozip.encode(dn, codec, max_error=bound, nodata=0))
        dn_hat = eozip.decode((HERE / f"{name}.bin").read_bytes())
        np.savez_compressed(HERE / f"{name}.npz", dn=dn, dn_hat=dn_hat)


def write_learned(codec: str, chunks: Mapping[str, pyramidscenes.Golden]) -> None:
    """All golden chunks of one codec, with their pixels before and after, in one file."""
    path = HERE / f"{codec}.npz"
    if path.exists():
        return
    table = {}
    for name, made in chunks.items():
        blob = made.encoded()
        table |= {f"{name} blob": np.frombuffer(blob, np.uint8), f"{name} dn": made.dn}
        table[f"{name} decoded"] = eozip.decode(blob)
    np.savez_compressed(path, **table)
    print(f"{path.name}: {len(chunks)} chunks")


def main(again: Sequence[str]) -> None:
    for path in [
        p for p in HERE.iterdir() if p.suffix in (".bin", ".npz") and p.name.startswith(tuple(again))
    ]:
        path.unlink()
    header = replace(HEADER, dtype="int16", nodata=-7, budgets=(9, 0, 255, 1))
    write(
        "chunk-v1.bin",
        bitstream.pack(bitstream.Chunk(header, b"mask", b"exceptions", (b"first", b"", b"third"))),
    )
    for dtype, nodata in (("uint16", 0), ("int16", -32768)):
        pixels = golden_pixels(dtype, nodata)[:, :4]
        write(f"lossless-{dtype}-v1.bin", eozip.encode(pixels, "lossless", nodata=nodata))
        write(f"lossless-{dtype}-1x1-v1.bin", eozip.encode(pixels[0, :, 30:31, 30:31], "lossless"))
    scene = pyramidscenes.goldens()[f"{pyramidscenes.CODEC}-grids"].dn
    write("lossless-grids-v1.bin", eozip.encode(scene, "lossless"))
    learned = pyramidscenes.goldens() | pyramidscenes.flexible_goldens()
    known = {made.codec for made in learned.values()}
    for codec in registry.names():  # one chunk of any other codec, of its own number of bands
        if codec not in known and codec != registry.LOSSLESS:
            bands = registry.get(codec).bands or 12
            learned[codec] = pyramidscenes.Golden(pyramidscenes.cube((2, bands, 24, 40), {}), codec=codec)
    for codec in dict.fromkeys(made.codec for made in learned.values()):
        write_learned(codec, {name: made for name, made in learned.items() if made.codec == codec})
    with registered(), registered(Known()):
        write_bounded("near-lossless-v1", "lossless", 20)
        write_bounded("residual-v1", KNOWN, 100)
        write("toy-v1.bin", eozip.encode(golden_pixels("uint16", 0), TOY, 10, nodata=0, offset=1000))


if __name__ == "__main__":
    main(sys.argv[1:])
