"""A STAC item about a store: where it lies, when, at which scale, how good it is, and what it was made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.warp import transform_geom

import eozip
from eozip.arguments import PlaceLike, place
from eozip.errors import InputError
from eozip.lazy import optional
from eozip.outputs import naming, publish, temporary
from eozip.sensors import get, names
from eozip.store.description import Description, describe

_MEDIA = "application/vnd.zarr; version=3"
_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
)


def write_item(store: PlaceLike, overwrite: bool = False) -> Path:
    """Write the item of a store beside it: scene.zarr.zip gets scene.json.

    Args:
        store: a store on this machine.
        overwrite: whether an existing item may be replaced.

    Raises:
        InputError: pystac is not installed, or the store does not say where it lies.
        OutputError: the item exists, or the disk refused.
    """
    where = place("store", store, reading=True)
    if not isinstance(where, Path):
        raise InputError(
            f"{where}: STAC: expected a store on this machine, got a URL; write its item yourself"
        )
    path, item = where, _item_of(describe(where))
    target = path.with_name(path.name.removesuffix(".zip").removesuffix(".zarr") + ".json")
    with naming(target), temporary(target, folder=False) as part:
        part.write_text(json.dumps(item, indent=2) + "\n", encoding="utf-8")
        publish(part, target, overwrite=overwrite)
    return target


def _item_of(found: Description) -> dict[str, Any]:
    """The item of a store, as JSON has it; its asset's href is the store's name, beside the item.

    Raises:
        InputError: see `write_item`.
    """
    pystac = optional("pystac", "STAC: expected the package pystac, got none; pip install 'eozip[formats]'")
    profile = found.profile
    if profile.transform is None or profile.crs is None:
        raise InputError(f"{found.path}: STAC: expected a store with a CRS and a transform, got one without")
    ring = _corners(found)
    geometry = transform_geom(
        CRS.from_wkt(profile.crs), "EPSG:4326", {"type": "Polygon", "coordinates": [ring]}
    )
    xs, ys = zip(*geometry["coordinates"][0], strict=True)
    dates = [datetime.fromisoformat(date).replace(tzinfo=UTC) for date in found.dates if date is not None]
    if not dates:
        raise InputError(f"{found.path}: STAC: expected a store with dates, got one without")
    path = Path(str(found.path))
    item = pystac.Item(
        id=path.name.removesuffix(".zip").removesuffix(".zarr"),
        geometry=json.loads(json.dumps(geometry)),
        bbox=[min(xs), min(ys), max(xs), max(ys)],
        datetime=dates[0] if len(dates) == 1 else None,
        start_datetime=None if len(dates) == 1 else min(dates),
        end_datetime=None if len(dates) == 1 else max(dates),
        properties=_properties(found),
        stac_extensions=list(_EXTENSIONS),
    )
    item.add_asset(
        "data",
        pystac.Asset(
            href=f"./{path.name}", media_type=_MEDIA, roles=["data"], extra_fields={"bands": _bands(found)}
        ),
    )
    return item.to_dict(include_self_link=False)


def _corners(found: Description) -> list[tuple[float, float]]:
    a, b, c, d, e, f = found.profile.transform or (1, 0, 0, 0, 1, 0)
    height, width = found.grid.shape[2:]
    around = [(0, 0), (0, height), (width, height), (width, 0), (0, 0)]
    return [(a * x + b * y + c, d * x + e * y + f) for x, y in around]


def _properties(found: Description) -> dict[str, Any]:
    profile, facts = found.profile, found.facts
    code = CRS.from_wkt(profile.crs or "").to_authority()
    made = {
        name: facts.get(name)
        for name in ("codec", "weights_hash", "quality_used", "target_psnr", "max_error", "psnr")
    }
    known = {f"eozip:{name}": value for name, value in made.items() if value is not None}
    sources = [] if found.product is None else [one.get("product") for one in found.product.acquisitions]
    baselines = [] if found.product is None else [one.get("baseline") for one in found.product.acquisitions]
    extra = {
        "eozip:sources": [source for source in sources if source] or list(found.files),
        "processing:version": next((str(one) for one in baselines if one), None),
    }
    return {
        **({"proj:code": ":".join(code)} if code else {"proj:wkt2": profile.crs}),
        "proj:shape": [profile.height, profile.width],
        "proj:transform": [*map(float, profile.transform or ()), 0.0, 0.0, 1.0],
        "gsd": min(abs(profile.transform[0]), abs(profile.transform[4])) if profile.transform else None,
        "processing:software": {"eozip": eozip.__version__},
        **known,
        **{name: value for name, value in extra.items() if value},
    }


def _bands(found: Description) -> list[dict[str, Any]]:
    """Of each band its name, resolution, and how reflectance follows from its numbers on the first date."""
    sensor = get(found.codec.sensor) if found.codec.sensor in names() else None
    waves = {} if sensor is None else {band.name: band.wavelength_nm / 1000 for band in sensor.bands}
    scale = found.scale
    bands = []
    for grid in found.grids:
        side = None if grid.transform is None else abs(grid.transform[0])
        for position in grid.bands:
            label = found.labels[position]
            band = {
                "name": label,
                "gsd": side,
                "data_type": found.dtype,
                "nodata": found.codec.nodata,
                "raster:scale": scale,
                "raster:offset": -found.offsets[0][position] * scale,
                "eo:center_wavelength": waves.get(label),
            }
            bands.append({name: value for name, value in band.items() if value is not None})
    return bands
