"""Attributes by the Zarr conventions spatial, proj and multiscales (GeoZarr); those of CF stand beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasterio.crs import CRS

from eozip.raster import Profile

_HOME = "https://github.com/zarr-conventions"
_RAW = "https://raw.githubusercontent.com/zarr-conventions"
_CONVENTIONS = (
    (
        "multiscales",
        "multiscales",
        "d35379db-88df-4056-af3a-620245f8e347",
        "Multiscale layout of zarr datasets",
    ),
    (
        "proj:",
        "proj",
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "Coordinate reference system of geospatial data",
    ),
    ("spatial:", "spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
)


def coarser(transform: tuple[float, ...], factor: int) -> tuple[float, ...]:
    """The affine transform of a grid with cells so many times larger, which begins at the same corner."""
    a, b, c, d, e, f = transform
    return a * factor, b * factor, c, d * factor, e * factor, f


def grid_attributes(profile: Profile, factor: int = 1, suffix: str = "") -> dict[str, Any]:
    """What says where a group's arrays lie; nothing where the source does not tell.

    Args:
        profile: of the finest grid.
        factor: its pixels along a cell of the group's.
        suffix: behind the names of the axes, such as "_r20m".
    """
    if profile.transform is None:
        return {}
    shape = -(-profile.height // factor), -(-profile.width // factor)
    transform = coarser(profile.transform, factor)
    found = {
        "spatial:dimensions": [f"y{suffix}", f"x{suffix}"],
        "spatial:transform": [float(v) for v in transform],
        "spatial:transform_type": "affine",
        "spatial:shape": list(shape),
        "spatial:bbox": _bounds(transform, shape),
        "spatial:registration": "pixel",
        **_projection(profile),
    }
    return declared(found)


def declared(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes with a declaration of the conventions that they follow."""
    kept = {name: value for name, value in attributes.items() if name != "zarr_conventions"}
    used = [
        {
            "name": name,
            "uuid": uuid,
            "schema_url": f"{_RAW}/{home}/refs/tags/v1/schema.json",
            "spec_url": f"{_HOME}/{home}/blob/v1/README.md",
            "description": what,
        }
        for name, home, uuid, what in _CONVENTIONS
        if any(key.startswith(name) for key in kept)
    ]
    return {"zarr_conventions": used, **kept} if used else kept


def multiscales(names: Sequence[str], factors: Sequence[int], profile: Profile) -> dict[str, Any]:
    """The layout of groups that hold other bands of one scene at other resolutions, finest first; none is derived."""
    layout = [
        {
            "asset": name,
            "transform": {"scale": [float(f), float(f)], "translation": [0.0, 0.0]},
            "spatial:shape": [-(-profile.height // f), -(-profile.width // f)],
        }
        for name, f in zip(names, factors, strict=True)
    ]
    return {"multiscales": {"layout": layout}}


def pyramid(names: Sequence[str], factors: Sequence[int], shapes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The layout of pictures of which each is made from the one before it by averaging, finest first."""
    layout: list[dict[str, Any]] = []
    for k, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        step = factors[k] / factors[k - 1] if k else 1.0
        entry: dict[str, Any] = {
            "asset": name,
            "transform": {"scale": [step, step], "translation": [0.0, 0.0]},
        }
        layout.append(
            {**entry, **({"derived_from": names[k - 1]} if k else {}), "spatial:shape": list(shape)}
        )
    return {"multiscales": {"layout": layout, "resampling_method": "average"}}


def _projection(profile: Profile) -> dict[str, Any]:
    if profile.crs is None:
        return {}
    authority = CRS.from_wkt(profile.crs).to_authority()
    return {"proj:code": ":".join(authority)} if authority else {"proj:wkt2": profile.crs}


def _bounds(transform: tuple[float, ...], shape: tuple[int, int]) -> list[float]:
    """Of all four corners: x from, y from, x to, y to."""
    a, b, c, d, e, f = transform
    corners = [(x, y) for x in (0, shape[1]) for y in (0, shape[0])]
    xs = [a * x + b * y + c for x, y in corners]
    ys = [d * x + e * y + f for x, y in corners]
    return [float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))]
