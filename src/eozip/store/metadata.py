"""zarr.json of a store: arrays, coordinates, CRS and provenance by CF and GeoZarr habits.

The metadata is written with zarr into memory and copied into the container as the last step: it then holds
what is known only at the end (the PSNR reached), and every key is written once, which a zip file needs.

Values are never scaled on opening: nodata and radiometric offset are attributes of our own (`nodata`,
`radiometric_offset`), as CF's `_FillValue` and `scale_factor` would turn integers into floats.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from eozip.codecs.registry import ANY_SENSOR
from eozip.raster import Profile, Scene
from eozip.raster.files import printable
from eozip.sensors import get, own_order
from eozip.sensors.sensor import canonical_name
from eozip.store.codec import EozipChunkCodec
from eozip.store.documents import ARRAY, RECORD, TIME
from eozip.store.geozarr import coarser, declared, grid_attributes, multiscales
from eozip.store.grid import Grid
from eozip.store.joined import Placed, create, grid_name
from eozip.store.overviews import FACT, Level, add_levels, layout_of, levels_of

if TYPE_CHECKING:
    from eozip.store.records import Extras

DROPPED = "dropped"
OFFSET = "radiometric_offset"
_TIME_CHUNK = 512  # appended dates stay within one small key
DIMENSIONS = ("time", "band", "y", "x")
_SHOWN = (
    "codec",
    "quality",
    "target_psnr",
    "max_error",
    "psnr",
    "peak",
    "weights_hash",
    "eozip_version",
    "inpainted",
)


def metadata_keys(
    scene: Scene,
    order: Sequence[int],
    grid: Grid,
    codec: EozipChunkCodec,
    facts: Mapping[str, Any],
    dropped: Sequence[int] | None = None,
    beside: Callable[[zarr.Group], None] = lambda group: None,
    extras: Extras | None = None,
) -> dict[str, bytes]:
    """Every key of the store but the shards of pixels.

    Args:
        scene: the source's description, its bands in the source's order.
        order: positions in the source of the bands in the array.
        grid: chunks and shards.
        codec: codec with its configuration.
        facts: what the writer measured and promised, ready for JSON.
        dropped: [T] forecast pixels of each date, for the array `dropped`; None: no such array.
        beside: adds arrays of its own to the group.
        extras: what a product has beyond a scene.

    Returns:
        bytes by key, the group's zarr.json (with consolidated metadata) among them.
    """
    with zarr.config.set({"json_indent": None}):  # indentation would double the bytes of a small store
        memory = MemoryStore()
        levels = levels_of(facts, grid) if facts.get(FACT) else ()
        placed = _root_attributes(scene, extras, levels)
        group = zarr.create_group(memory, attributes={**group_attributes(facts), **placed})
        product = {} if extras is None else {"product": extras.record.model_dump(mode="json")}
        record = {"eozip": dict(facts), "geotiff": _geotiff(scene, order), **product}
        group.create_group(RECORD, attributes=record)
        offsets = _own_offsets(scene, order)
        _add_pixels(group, scene, grid, codec, has_offsets=offsets is not None)
        _add_coordinates(group, scene.select(order), codec.sensor)
        add_crs(group, scene.profile)
        if offsets is not None:
            _add_offsets(group, offsets)
        if extras is not None:
            _add_grids(group, scene.profile, extras.factors, extras.layers, len(scene.dates))
        if levels:
            add_levels(group, levels, scene.profile, scene.dtype, codec.nodata or 0)
        if dropped is not None:
            _add_dropped(group, dropped)
        beside(group)
        return _consolidated(memory)


def consolidate(store: MemoryStore | Path) -> None:
    """Put the metadata of all arrays into that of the root, an extension of zarr-python, without its warning."""
    with warnings.catch_warnings():
        # xarray opens faster with it and quietly
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store)


def _consolidated(memory: MemoryStore) -> dict[str, bytes]:
    consolidate(memory)
    return {key: value.to_bytes() for key, value in memory._store_dict.items()}


def group_attributes(facts: Mapping[str, Any]) -> dict[str, str]:
    """For people: xarray may replace them, and NetCDF can hold them."""
    shown = {name: facts[name] for name in _SHOWN if facts.get(name) is not None}
    return {"Conventions": "CF-1.11", "eozip": json.dumps(shown)}


def _root_attributes(scene: Scene, extras: Extras | None, levels: Sequence[Level]) -> dict[str, Any]:
    """Where the array lies, and which groups hold the bands of coarser grids, or reduced pictures where there are any."""
    found = grid_attributes(scene.profile)
    if levels:
        return declared({**found, **layout_of(levels, scene.shape[2:])})
    if not found or extras is None or len(extras.factors) == 1:
        return found
    names = [grid_name(scene.profile, factor) for factor in extras.factors]
    return declared({**found, **multiscales(names, extras.factors, scene.profile)})


def _add_grids(
    group: zarr.Group, profile: Profile, grid_factors: Sequence[int], layers: Sequence[Placed], dates: int
) -> None:
    """A group for each grid: where it lies, and the arrays beside the bands.

    Args:
        group: of the store.
        profile: of the finest grid.
        grid_factors: of the grids, finest first.
        layers: beside the bands.
        dates: of the store.
    """
    places = {grid_name(profile, f): (profile, f) for f in grid_factors}
    for layer in layers:
        places.setdefault(layer.folder, (layer.profile, 1))
    for name, (own, factor) in places.items():
        suffix = f"_{name}"
        made = group.create_group(name, attributes=grid_attributes(own, factor, suffix))
        if any(layer.folder == name for layer in layers):
            add_centres(made, own, factor, suffix)
            add_crs(made, own, factor)
    for layer in layers:
        create(group, layer, dates)


def layer_keys(
    profile: Profile, grid_factors: Sequence[int], layers: Sequence[Placed], dates: int
) -> dict[str, bytes]:
    """Documents and coordinates of layers, their groups' too, by key of the store; see `_add_grids`."""
    if not layers:
        return {}
    memory = MemoryStore()
    with zarr.config.set({"json_indent": None}):
        _add_grids(zarr.create_group(memory), profile, grid_factors, layers, dates)
    found = {key: value.to_bytes() for key, value in memory._store_dict.items() if "/" in key}
    return dict(sorted(found.items()))


def _own_offsets(scene: Scene, order: Sequence[int]) -> np.ndarray | None:
    """[T, C] radiometric offsets in the order of an array's bands; None where it is one value."""
    if scene.offsets is None or len(set(sum(scene.offsets, ()))) <= 1:
        return None
    return np.array(scene.offsets, np.float64)[:, list(order)]


def _add_offsets(group: zarr.Group, offsets: np.ndarray) -> None:
    """The coordinate `radiometric_offset`: DN added to those of reflectance, by date and band."""
    is_whole = bool((offsets == np.rint(offsets)).all())
    array = group.create_array(
        OFFSET,
        shape=offsets.shape,
        chunks=(_TIME_CHUNK, offsets.shape[1]),  # whatever the number of dates, as `dropped`
        dtype=np.int64 if is_whole else np.float64,
        dimension_names=DIMENSIONS[:2],
        attributes={"long_name": "DN added to those of reflectance 0", "units": "1"},
        fill_value=0,
    )
    array[...] = offsets


def offset_keys(offsets: np.ndarray) -> dict[str, bytes]:
    """The coordinate `radiometric_offset` alone, by key of the store: its chunk, then its zarr.json."""
    return _keys_of(OFFSET, lambda group: _add_offsets(group, offsets))


def _geotiff(scene: Scene, order: Sequence[int]) -> dict[str, Any]:
    """All that is needed to write the source's GeoTIFFs again."""
    return {
        "profile": scene.profile.to_dict(),
        "band_order": [list(order).index(band) for band in range(len(order))],
        "tags": list(scene.tags),
        "band_tags": list(scene.band_tags),
        "files": file_names(scene),
        "dates": [None if date is None else date.isoformat() for date in scene.dates],
        **({"masks": list(scene.masks)} if any(scene.masks) else {}),
    }


def file_names(scene: Scene) -> list[str]:
    """[T] names without folders, as text that JSON can hold."""
    return [file_name(path) for path in scene.paths]


def file_name(path: str) -> str:
    """A name without folders, as text that JSON can hold."""
    return printable(path).replace("\\", "/").rsplit("/", 1)[-1]


def _add_pixels(
    group: zarr.Group, scene: Scene, grid: Grid, codec: EozipChunkCodec, has_offsets: bool
) -> None:
    group.create_array(
        ARRAY,
        shape=grid.shape,
        dtype=scene.dtype.name,
        chunks=grid.chunk,
        shards=grid.shard,
        serializer=codec,
        compressors=None,
        filters=None,
        fill_value=codec.nodata or 0,
        dimension_names=DIMENSIONS,
        attributes=_pixel_attributes(codec, has_offsets),
    )


def _pixel_attributes(codec: EozipChunkCodec, has_offsets: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "comment": "digital numbers, as in the source",  # not long_name: rioxarray names bands by that
        "grid_mapping": "spatial_ref",
        "coordinates": f"spatial_ref {OFFSET}" if has_offsets else "spatial_ref",
        **({} if has_offsets else {OFFSET: codec.offset}),
    }
    if codec.nodata is not None:
        attributes["nodata"] = codec.nodata
    return attributes


def _add_dropped(group: zarr.Group, pixels: Sequence[int]) -> None:
    """How many pixels of each date are forecast; the streams say which."""
    array = group.create_array(
        DROPPED,
        shape=(len(pixels),),
        chunks=(_TIME_CHUNK,),  # whatever the number of dates: what an append rewrites suits old metadata
        dtype=np.int64,
        dimension_names=[DIMENSIONS[0]],
        attributes={"long_name": "pixels of a date that are forecast, not coded"},
        fill_value=0,
    )
    array[...] = np.array(pixels, np.int64)


def dropped_keys(pixels: Sequence[int]) -> dict[str, bytes]:
    """The array `dropped` alone, by key of the store: its chunk, then its zarr.json."""
    return _keys_of(DROPPED, lambda group: _add_dropped(group, pixels))


def _keys_of(name: str, add: Callable[[zarr.Group], None]) -> dict[str, bytes]:
    """The keys of one array, in the order in which they are to be replaced."""
    memory = MemoryStore()
    with zarr.config.set({"json_indent": None}):
        add(zarr.create_group(memory))
    found = {k: v.to_bytes() for k, v in memory._store_dict.items() if k.startswith(f"{name}/")}
    return dict(sorted(found.items()))  # "dropped/c/0" before "dropped/zarr.json"


def band_labels(scene: Scene, sensor: str) -> tuple[str, ...]:
    """[C] what to call the bands of an array: as the source does where its names mean them, else as the sensor does.

    Args:
        scene: the source, its bands in the order of the array.
        sensor: id of the sensor whose bands these are.
    """
    return labels_of(scene.band_names, scene.band_codes, sensor)


def labels_of(names: Sequence[str | None], said: Sequence[str | None], sensor: str) -> tuple[str, ...]:
    """As `band_labels`, of names as the source has them, and canonical names."""
    known = () if sensor == ANY_SENSOR else get(sensor).band_names
    if known and own_order(names, get(sensor)) == tuple(range(len(known))):
        return tuple(str(name) for name in names)
    if None not in said and len(known) > len(said) and set(said) <= set(known):
        return tuple(map(str, said))
    codes = tuple(canonical_name(name) if name else None for name in names)
    if len(known) == len(codes) and codes != known:
        return known
    return tuple(name or f"band_{i}" for i, name in enumerate(names, start=1))


def time_keys(dates: Sequence[datetime | None], room: int) -> dict[str, bytes]:
    """The coordinate `time` alone, by key of the store, in chunks of `room` dates; its zarr.json last."""
    return _keys_of(TIME, lambda group: _add_time(group, dates, room))


def _add_coordinates(group: zarr.Group, scene: Scene, sensor: str) -> None:
    _add_time(group, scene.dates, max(_TIME_CHUNK, len(scene.dates)))
    names = band_labels(scene, sensor)
    band = group.create_array("band", shape=(len(names),), dtype=str, dimension_names=["band"])
    band[:] = np.array(names, dtype=object)
    add_centres(group, scene.profile)


def _add_time(group: zarr.Group, dates: Sequence[datetime | None], room: int) -> None:
    """Seconds since 1970 by CF; plain indices where any date is unknown (the record keeps the others)."""
    known = [date for date in dates if date is not None]
    attributes: dict[str, Any] = {"long_name": "index of the date, as not every date is known"}
    values = list(range(len(dates)))
    if len(known) == len(dates):
        attributes = {
            "units": "seconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
            "standard_name": "time",
        }
        values = [seconds_of(date) for date in known]
    _add_array(group, TIME, np.array(values, dtype=np.int64), [TIME], attributes, room)


def seconds_of(date: datetime) -> int:
    """Since 1970, of a UTC date without tzinfo."""
    return int(date.replace(tzinfo=UTC).timestamp())


def _is_north_up(transform: tuple[float, ...]) -> bool:
    return transform[1] == 0 and transform[3] == 0


def add_centres(group: zarr.Group, profile: Profile, factor: int = 1, suffix: str = "") -> None:
    """1-D coordinates of a grid `factor` times coarser than a profile's.

    They exist only for grids that are not rotated; others have the GeoTransform alone.
    """
    if profile.transform is None or not _is_north_up(profile.transform):
        return
    kinds = (
        ("longitude", "latitude")
        if is_geographic(profile)
        else ("projection_x_coordinate", "projection_y_coordinate")
    )
    x, y = centres(profile, factor)
    _add_array(group, f"x{suffix}", x, [f"x{suffix}"], {"standard_name": kinds[0], "axis": "X"})
    _add_array(group, f"y{suffix}", y, [f"y{suffix}"], {"standard_name": kinds[1], "axis": "Y"})


def centres(profile: Profile, factor: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the centres of cells of a grid that is not rotated, `factor` times coarser than a profile's."""
    a, _, c, _, e, f = coarser(profile.transform or (1, 0, 0, 0, 1, 0), factor)
    width, height = -(-profile.width // factor), -(-profile.height // factor)
    return c + a * (np.arange(width) + 0.5), f + e * (np.arange(height) + 0.5)


def is_geographic(profile: Profile) -> bool:
    return (profile.crs or "").upper().startswith(("GEOGCS", "GEOGCRS"))


def add_crs(group: zarr.Group, profile: Profile, factor: int = 1) -> None:
    """The CF grid mapping of a grid `factor` times coarser than a profile's."""
    _add_array(group, "spatial_ref", np.array(0, dtype=np.int64), [], crs_attributes(profile, factor))


def crs_attributes(profile: Profile, factor: int = 1) -> dict[str, Any]:
    """As GDAL and rioxarray read it: WKT and GDAL's order of the transform."""
    attributes: dict[str, Any] = {}
    if profile.crs is not None:
        attributes |= {"crs_wkt": profile.crs, "spatial_ref": profile.crs}
    if profile.transform is not None:
        a, b, c, d, e, f = coarser(profile.transform, factor)
        attributes["GeoTransform"] = " ".join(repr(float(v)) for v in (c, a, b, f, d, e))
    return attributes


def _add_array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dimensions: list[str],
    attributes: dict[str, Any],
    room: int | None = None,
) -> None:
    """Adds a small array, in one chunk (opening a store reads every coordinate) or in chunks of `room` values."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape if room is None else (room,),
        dtype=values.dtype,
        dimension_names=dimensions or None,
        attributes=attributes,
        fill_value=0,
    )
    array[...] = values
