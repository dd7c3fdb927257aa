"""NetCDF-4 by CF: a group for each grid of a product, or the root where all bands lie on one."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import eozip
from eozip.lazy import optional
from eozip.raster import Profile
from eozip.store.cuts import Cut, layer_profile, layer_values, layers_of, open_layer
from eozip.store.description import BandGrid, Description
from eozip.store.metadata import OFFSET, centres, crs_attributes, is_geographic, seconds_of
from eozip.store.options import Progress

_CHUNK = 512


def write_netcdf(cut: Cut, target: Path, layers: Any, progress: Progress) -> None:
    """Write all dates of a cut.

    Args:
        cut: what is taken of a store.
        target: a file to be made.
        layers: store of zarr with the rasters beside the bands.
        progress: called with bands done and in all.

    Raises:
        InputError: h5netcdf is not installed.
    """
    h5netcdf = optional(
        "h5netcdf",
        "netcdf: expected h5netcdf and h5py, got none; pip install 'eozip[formats]', or choose another format",
    )
    found = cut.description
    with h5netcdf.File(target, "w") as file:
        file.attrs.update(_global(found))
        file.dimensions["time"] = len(cut.times)
        _add_time(file, cut)
        is_one = len(found.grids) == 1 and not layers_of(cut)
        done = 0
        for grid in found.grids:
            picks = [i for i in cut.picks if found.band_order[i] in grid.bands]
            if not picks:
                continue
            group = file if is_one else file.create_group(grid.name)
            profile = cut.band_profile(grid, picks[0])
            _add_grid(group, profile)
            for pick in picks:
                _add_band(group, cut, grid, found.band_order[pick], profile)
                done += 1
                progress(done, len(cut.picks))
            _add_offsets(group, cut, picks)
        _add_layers(file, cut, layers)


def _global(found: Description) -> dict[str, Any]:
    source = found.product.kind if found.product else "geotiff"
    return {
        "Conventions": "CF-1.11",
        "title": f"reflectance of {', '.join(sorted(set(found.files))[:1])}",
        "source": f"decoded from {found.codec.codec} ({source})",
        "history": f"eozip {eozip.__version__}: decode --format netcdf",
    }


def _add_time(file: Any, cut: Cut) -> None:
    dates = [cut.description.dates[t] for t in cut.times]
    known = [datetime.fromisoformat(date) for date in dates if date is not None]
    values = np.array(
        [seconds_of(date) for date in known] if len(known) == len(dates) else cut.times, np.int64
    )
    variable = file.create_variable("time", ("time",), np.int64, data=values)
    if len(known) == len(dates):
        variable.attrs["standard_name"] = "time"
        variable.attrs["units"] = "seconds since 1970-01-01"
        variable.attrs["calendar"] = "proleptic_gregorian"
        variable.attrs["axis"] = "T"
    else:
        variable.attrs["long_name"] = "index of the date, as not every date is known"


def _add_grid(group: Any, profile: Profile) -> None:
    group.dimensions["y"], group.dimensions["x"] = profile.height, profile.width
    mapping = group.create_variable("spatial_ref", (), np.int64, data=np.int64(0))
    mapping.attrs.update(grid_mapping(profile))
    if profile.transform is None or profile.transform[1] or profile.transform[3]:
        return
    x, y = centres(profile)
    is_degrees = is_geographic(profile)
    for name, values, axis in (("x", x, "X"), ("y", y, "Y")):
        variable = group.create_variable(name, (name,), np.float64, data=values)
        geographic = {"X": "longitude", "Y": "latitude"}[axis]
        variable.attrs["standard_name"] = geographic if is_degrees else f"projection_{name}_coordinate"
        variable.attrs["units"] = ("degrees_east" if axis == "X" else "degrees_north") if is_degrees else "m"
        variable.attrs["axis"] = axis


def grid_mapping(profile: Profile) -> dict[str, Any]:
    """By CF: parameters where a library tells them, and WKT as others read it."""
    attributes = crs_attributes(profile)
    if profile.crs is None:
        return attributes
    try:
        from pyproj import CRS  # optional
    except ImportError:
        return (
            {**attributes, "grid_mapping_name": "latitude_longitude"}
            if is_geographic(profile)
            else attributes
        )
    found = CRS.from_wkt(profile.crs).to_cf()
    plain = {name: value for name, value in found.items() if isinstance(value, str | int | float)}
    return {**plain, **attributes}


def _add_band(group: Any, cut: Cut, grid: BandGrid, band: int, profile: Profile) -> None:
    found = cut.description
    label = found.labels[band]
    chunks = 1, min(_CHUNK, profile.height), min(_CHUNK, profile.width)
    variable = group.create_variable(
        label.lower().replace(" ", "_").replace(",", ""),
        ("time", "y", "x"),
        np.dtype(profile.dtype),
        chunks=chunks,
        compression="gzip",
        shuffle=True,
        fillvalue=_fill(cut),
    )
    variable.attrs.update(_band_attributes(cut, band, label))
    for index, t in enumerate(cut.times):
        for y in range(0, profile.height, _CHUNK):
            rows = slice(y, min(y + _CHUNK, profile.height))
            variable[index, rows] = cut.cells(grid, t, band, 1, rows, slice(0, profile.width))[0]


def _fill(cut: Cut) -> Any:
    return np.float32(np.nan) if cut.lattice is not None else cut.description.codec.nodata


def _band_attributes(cut: Cut, band: int, label: str) -> dict[str, Any]:
    """Packed by CF where all dates have one offset; else DN, with the offset in a variable of its own."""
    found = cut.description
    attributes: dict[str, Any] = {
        "long_name": f"reflectance in {label}",
        "grid_mapping": "spatial_ref",
        "units": "1",
    }
    offsets = {found.offsets[t][band] for t in cut.times}
    if cut.lattice is None and len(offsets) == 1:
        scale = found.scale
        attributes |= {"scale_factor": scale, "add_offset": -next(iter(offsets)) * scale}
    elif cut.lattice is None:
        attributes |= {"long_name": f"digital numbers of {label}", "ancillary_variables": OFFSET}
    return attributes


def _add_offsets(group: Any, cut: Cut, picks: list[int]) -> None:
    found = cut.description
    bands = [found.band_order[i] for i in picks]
    table = np.array(found.offsets)[np.ix_(cut.times, bands)]
    if len(np.unique(table)) == 1 or cut.lattice is not None:
        return
    is_same = bool((table == table[:, :1]).all())
    variable = group.create_variable(OFFSET, ("time",), np.float64, data=table[:, 0])
    variable.attrs["long_name"] = "DN added to those of reflectance 0" + (
        "" if is_same else ", of the first band"
    )


def _add_layers(file: Any, cut: Cut, store: Any) -> None:
    for layer in layers_of(cut):
        folder, name = layer.path.split("/")
        source = open_layer(cut, layer, store)
        profile = layer_profile(cut, layer, str(source.dtype))
        group = file[folder] if folder in file.groups else file.create_group(folder)
        if "y" not in group.dimensions or "y" in file.dimensions:
            _add_grid(group, profile)
        values = np.stack([layer_values(cut, layer, source, t) for t in cut.times])
        variable = group.create_variable(
            name, ("time", "y", "x"), values.dtype, data=values, compression="gzip"
        )
        for key, value in dict(source.attrs).items():
            if key not in ("coordinates", "_FillValue") and _can_hold(key, value, values.dtype):
                variable.attrs[key] = np.array(value, values.dtype) if isinstance(value, list) else value


def _can_hold(key: str, value: object, dtype: np.dtype[Any]) -> bool:
    """Whether an attribute of a layer is text, a number, or a list of values of the layer."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", key):
        return False
    if isinstance(value, list):
        limits = np.iinfo(dtype)
        return bool(value) and all(isinstance(v, int) and limits.min <= v <= limits.max for v in value)
    if isinstance(value, int | float):
        return abs(value) < 1 << 31
    return isinstance(value, str) and bool(value)
