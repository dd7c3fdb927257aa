"""CPU seconds of one tile of a whole-scene view (zoom 8, a pixel of 320 m) of 10,980 x 10,980 pixels and 12 bands.

    python benchmarks/overviews.py [--codec tec-elic-small] [--side 10980]

The scene repeats 2,048 pixels, and chunks of equal pixels are coded once, so that the store costs a minute of CPU; it is as
large and as deep as a real one. CPU seconds are those of the process, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import eozip
from archive import write_items
from eozip.store import coding
from eozip.store.windows import open_source

TILE, REDUCE, RGB = 2048, 32, [3, 2, 1]
_VRT = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32631</SRS>
<GeoTransform>399960, 10, 0, 5300040, 0, -10</GeoTransform>{bands}</VRTDataset>"""
_BAND = '<VRTRasterBand dataType="UInt16" band="{band}"><NoDataValue>0</NoDataValue>{sources}</VRTRasterBand>'
_SOURCE = (
    '<SimpleSource><SourceFilename>{path}</SourceFilename><SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" '
    'xSize="{w}" ySize="{h}"/><DstRect xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/></SimpleSource>'
)


def scene(folder: Path, side: int) -> Path:
    """A scene that repeats one tile, as a VRT."""
    tile = write_items(folder, 1, TILE)[0]
    places = [
        {"x": x, "y": y, "w": min(TILE, side - x), "h": min(TILE, side - y), "path": tile}
        for y in range(0, side, TILE)
        for x in range(0, side, TILE)
    ]
    bands = "".join(
        _BAND.format(band=b, sources="".join(_SOURCE.format(band=b, **place) for place in places))
        for b in range(1, 13)
    )
    (folder / "S2_T31TCJ_20210701.vrt").write_text(_VRT.format(side=side, bands=bands))
    return folder / "S2_T31TCJ_20210701.vrt"


def coded_once(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Codes chunks at one place of their shard, and of one size, once."""
    known: dict[Any, Any] = {}

    def cached(codec: Any, hold: Any, chunk: Any) -> Any:
        key = chunk.window.position, chunk.dn.shape
        if key not in known:
            known[key] = encode(codec, hold, chunk)[1]
        return chunk, known[key]

    return cached


def cpu(work: Callable[[], object]) -> float:
    """Seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def figures(codec: str, side: int) -> dict[str, Any]:
    """CPU seconds of a tile with stored levels; of one made from streams, as far as 64 chunks tell; bytes."""
    coding._encode_chunk = coded_once(coding._encode_chunk)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "a.zarr")
        path = scene(Path(folder), side)
        encoding = cpu(lambda: eozip.encode_store(path, out, codec, chunk=256, gop=1, overviews=True))
        stored = sum(p.stat().st_size for p in (out / "levels").rglob("*") if p.is_file())
        whole = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
        view = slice(0, -(-side // REDUCE))
        with open_source(out) as source:
            first = cpu(lambda: source.pixels([0], RGB, view, view, REDUCE))
        with open_source(out) as source:
            source.description.facts["levels"] = []
            part = slice(0, TILE // REDUCE)
            streams = cpu(lambda: source.pixels([0], RGB, part, part, REDUCE))
        chunks = np.ceil(side / 256) ** 2
        return {
            "codec": codec,
            "side": side,
            "encode_cpu_s": encoding,
            "tile_from_levels_cpu_s": first,
            "tile_from_streams_cpu_s": streams * chunks / 64,
            "level_bytes": stored,
            "store_bytes": whole,
            "levels_share": stored / whole,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", default="tec-elic-small")
    parser.add_argument("--side", type=int, default=10980)
    asked = parser.parse_args()
    print(json.dumps(figures(asked.codec, asked.side), indent=1))


if __name__ == "__main__":
    main()
