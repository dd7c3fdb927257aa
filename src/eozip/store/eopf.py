"""Plain Zarr in the layout of EOPF products: groups r10m, r20m, r60m with a variable per band, compressed by blosc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rasterio.crs import CRS
from zarr.codecs import BloscCodec

import eozip
from eozip.raster import Profile
from eozip.raster.cog import coarser_profile
from eozip.store.cuts import Cut, layer_profile, layer_values, layers_of, open_layer
from eozip.store.description import BandGrid, Description
from eozip.store.documents import LayerRecord
from eozip.store.geozarr import grid_attributes
from eozip.store.metadata import add_centres, add_crs, consolidate

_HOME = "measurements/reflectance"
_CHUNK = 1024
_PLACES = {
    "scl": "conditions/mask/l2a_classification/{grid}/scl",
    **{name: f"conditions/mask/l1c_classification/{{grid}}/{name}" for name in ("clouds", "cirrus", "snow")},
    "cld": "quality/probability/{grid}/cld",
    "snw": "quality/probability/{grid}/snw",
    "aot": "quality/atmosphere/{grid}/aot",
    "wvp": "quality/atmosphere/{grid}/wvp",
}


def write_eopf(cut: Cut, t: int, target: Path, layers: Any) -> None:
    """Write one date.

    Args:
        cut: what is taken of a store.
        t: position of the date.
        target: a folder to be made.
        layers: store of zarr with the rasters beside the bands.
    """
    found = cut.description
    root = zarr.create_group(target, attributes=_root_attributes(found, t))
    for grid in found.grids:
        picks = [i for i in cut.picks if found.band_order[i] in grid.bands]
        if picks:
            _write_grid(cut, t, root, grid, picks)
    for layer in layers_of(cut):
        _write_layer(cut, t, root, layer, layers, layer_profile(cut, layer, "uint8"))
    consolidate(target)


def _write_grid(cut: Cut, t: int, root: zarr.Group, grid: BandGrid, picks: list[int]) -> None:
    found = cut.description
    profile = cut.band_profile(grid, picks[0])
    group = root.require_group(f"{_HOME}/{grid.name}")
    group.attrs.update(grid_attributes(profile))
    _add_grid(group, profile)
    for pick in picks:
        band = found.band_order[pick]
        label = found.labels[band]
        array = _create(group, found.variables[band], profile, _packing(cut, t, band, label))
        for y in range(0, profile.height, _CHUNK):
            rows = slice(y, min(y + _CHUNK, profile.height))
            array[rows] = cut.cells(grid, t, band, 1, rows, slice(0, profile.width))[0]


def _packing(cut: Cut, t: int, band: int, label: str) -> dict[str, Any]:
    """Attributes by which plain xarray makes reflectance with NaN of the numbers."""
    found = cut.description
    attributes: dict[str, Any] = {"long_name": label, "grid_mapping": "spatial_ref"}
    if cut.lattice is not None:
        return {**attributes, "units": "1"}
    scale = found.scale
    attributes |= {
        "scale_factor": scale,
        "add_offset": -found.offsets[t][band] * scale,
        "units": "digital_counts",
    }
    if found.codec.nodata is not None:
        attributes["_FillValue"] = found.codec.nodata
    return attributes


def _write_layer(
    cut: Cut,
    t: int,
    root: zarr.Group,
    layer: LayerRecord,
    store: Any,
    profile: Profile,
) -> None:
    folder, name = layer.path.split("/")
    path = _PLACES.get(name, f"conditions/mask/{{grid}}/{name}").format(grid=folder)
    home, _, own = path.rpartition("/")
    source = open_layer(cut, layer, store)
    group = root.require_group(home)
    if "x" not in group:
        _add_grid(group, profile)
    others = ("coordinates", "grid_mapping", "_FillValue")
    attributes = {k: v for k, v in dict(source.attrs).items() if k not in others}
    array = _create(group, own, profile, {**attributes, "grid_mapping": "spatial_ref"}, str(source.dtype))
    array[...] = layer_values(cut, layer, source, t)


def _add_grid(group: zarr.Group, profile: Profile) -> None:
    add_centres(group, profile)
    add_crs(group, profile)


def _create(
    group: zarr.Group, name: str, profile: Profile, attributes: dict[str, Any], dtype: str | None = None
) -> zarr.Array[Any]:
    kind = np.dtype(dtype or profile.dtype)
    missing = attributes.get("_FillValue", 0)
    return group.create_array(
        name,
        shape=(profile.height, profile.width),
        dtype=kind.name,
        chunks=(min(_CHUNK, profile.height), min(_CHUNK, profile.width)),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=kind.itemsize),
        filters=None,
        fill_value=float("nan") if kind.kind == "f" else missing,
        dimension_names=("y", "x"),
        attributes={**attributes, **_projected(profile)},
    )


def _projected(profile: Profile) -> dict[str, Any]:
    found: dict[str, Any] = {"proj:shape": [profile.height, profile.width]}
    if profile.transform is not None:
        found["proj:transform"] = [*map(float, profile.transform), 0.0, 0.0, 1.0]
    if profile.crs is not None:
        found["proj:wkt2"] = profile.crs
        code = CRS.from_wkt(profile.crs).to_epsg()
        if code is not None:
            found["proj:epsg"] = code
    return found


def _root_attributes(found: Description, t: int) -> dict[str, Any]:
    product = found.product
    acquired = dict(product.acquisitions[t]) if product else {}
    properties = {
        "datetime": found.dates[t],
        "product:type": acquired.get("level"),
        "eopf:baseline": acquired.get("baseline"),
        **_projected(coarser_profile(found.profile, 1)),
    }
    item = {
        "type": "Feature",
        "id": acquired.get("product") or Path(found.files[t]).stem,
        "properties": {k: v for k, v in properties.items() if v is not None},
    }
    made = {
        "program": f"eozip {eozip.__version__}",
        "codec": found.codec.codec,
        "psnr": found.facts["date_psnr"][t],
    }
    return {"stac_discovery": item, "other_metadata": {"eozip": made, "acquisition": acquired}}
