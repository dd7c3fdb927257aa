"""What was understood of inputs before anything is read or written: for `--dry-run`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rasterio.crs import CRS

from eozip.raster import Product, Scene
from eozip.raster.files import printable
from eozip.store.grid import GOP, plan
from eozip.store.joined import scene_factors


@dataclass(frozen=True)
class Understood:
    """A product in words and numbers, ready for JSON.

    Attributes:
        kind: layout that was read.
        sensor: whose bands these are, where the product says so.
        dates: [T] date, product, level, baseline, offsets with their source, the first file and how many there are.
        grids: by grid its pixels with their unit (None: unknown), size, CRS and bands.
        dtype: of the pixels that are coded.
        nodata: DN of missing pixels.
        lattice: step and base of float values; None of whole numbers.
        beside: layers: name, kind, size, dates that have it.
        files_bytes: of the files of the bands; None where unknown.
        raw_bytes: of the pixels.
        chunk: [T, C, H, W] of a chunk; `chunks` of them are expected.
        left_out: dates that are left out.
        notes: sentences for a person.
    """

    kind: str
    sensor: str | None
    dates: list[dict[str, Any]]
    grids: list[dict[str, Any]]
    dtype: str
    nodata: float | None
    lattice: dict[str, float] | None
    beside: list[dict[str, Any]]
    files_bytes: int | None
    raw_bytes: int
    chunk: list[int]
    chunks: int
    left_out: list[str]
    notes: list[str]


def understood(product: Product, chunk: int | None = None, gop: int = GOP) -> Understood:
    """Describe a product, and the chunks that it would be cut into; reads no pixels.

    Args:
        product: what `eozip.raster.open_product` found.
        chunk: side of a chunk in pixels; None fits it near 256.
        gop: most dates coded together.

    Raises:
        InputError: chunks that do not suit the grids.
    """
    first = product.scenes[0]
    times, _, height, width = first.shape
    bands = sum(scene.shape[1] for scene in product.scenes)
    grid = plan((times, bands, height, width), chunk, gop, alignment=math.lcm(*scene_factors(product.scenes)))
    lattice = first.lattice
    return Understood(
        kind=product.kind,
        sensor=product.sensor,
        dates=[_date(product, t) for t in range(times)],
        grids=[_grid(scene) for scene in product.scenes],
        dtype=first.dtype.name,
        nodata=first.profile.nodata if first.fill is None else first.fill,
        lattice=None if lattice is None else {"step": lattice.step, "base": lattice.base},
        beside=[
            {"name": one.name, "kind": one.kind, "size": list(one.scene.shape[2:]), "dates": len(one.dates)}
            for one in product.beside
        ],
        files_bytes=product.files_bytes,
        raw_bytes=sum(_raw(scene) for scene in product.scenes),
        chunk=list(grid.chunk),
        chunks=grid.chunk_count,
        left_out=list(product.left_out),
        notes=list(product.notes),
    )


def _raw(scene: Scene) -> int:
    times, bands, height, width = scene.shape
    return times * bands * height * width * scene.dtype.itemsize


def _date(product: Product, t: int) -> dict[str, Any]:
    values = {
        meaning or f"band {i}": offset
        for scene in product.scenes
        for i, (meaning, offset) in enumerate(zip(scene.meanings, scene.band_offsets[t]), start=1)
    }
    commonest = Counter(values.values()).most_common(1)[0][0]
    paths = list(dict.fromkeys(source.path for scene in product.scenes for source in scene.sources[t]))
    return {
        **product.acquisitions[t].to_dict(),
        "offset": commonest,
        "other_offsets": {band: value for band, value in values.items() if value != commonest},
        "harmonised_by": product.scenes[0].shifts[t][0] if product.scenes[0].shifts else 0,
        "file": printable(paths[0]).rpartition("/")[2],
        "files": len(paths),
    }


def _grid(scene: Scene) -> dict[str, Any]:
    transform = scene.profile.transform
    return {
        "pixel": None if transform is None else abs(transform[0]),
        "unit": _unit(scene.profile.crs),
        "size": list(scene.shape[2:]),
        "crs": scene.profile.crs,
        "bands": list(scene.band_names),
        "codes": list(scene.band_codes),
    }


_UNITS = {"metre": "m", "meter": "m", "degree": "degrees"}


def _unit(crs: str | None) -> str | None:
    """Of the coordinates of a CRS."""
    if crs is None:
        return None
    name = CRS.from_wkt(crs).units_factor[0]
    return _UNITS.get(name, name)
