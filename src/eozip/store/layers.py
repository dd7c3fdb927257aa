"""Rasters beside the bands: ordinary arrays of a store, compressed without loss by a general codec, one chunk per date.

They lie in a group named after their grid, such as `r20m/scl`. Axes there have names of their own (`y_r20m`): those of the
store's root belong to the joint cube.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from eozip.errors import InputError
from eozip.raster import Profile, Scene, open_reader
from eozip.raster.open import same_field
from eozip.raster.product import Layer
from eozip.store.documents import LayerRecord
from eozip.store.files import Container
from eozip.store.geozarr import coarser
from eozip.store.grid import Grid
from eozip.store.joined import whole_metres

_DTYPES = ("uint8", "int8", "uint16", "int16")
_LEVEL = 15  # of zstd: class rasters are small, and are written once


@dataclass(frozen=True)
class Placed:
    """A layer and where it lies.

    Attributes:
        layer: what it is.
        record: path and kind.
        chunk: rows and columns of a chunk.
    """

    layer: Layer
    record: LayerRecord
    chunk: tuple[int, int]

    @property
    def folder(self) -> str:
        """The group in which it lies."""
        return self.record.path.split("/")[0]

    @property
    def profile(self) -> Profile:
        """Of its raster."""
        return self.layer.scene.profile

    @property
    def fill(self) -> int:
        """Value of dates and chunks that are not stored."""
        return round(self.profile.nodata or 0)


def grid_name(profile: Profile, factor: int) -> str:
    """Group of a grid `factor` times coarser than that of a profile: "r20m", or "x2" where it has no whole metres."""
    metres = whole_metres(profile)
    return f"x{factor}" if metres is None else f"r{metres * factor}m"


def placed(layers: Sequence[Layer], scene: Scene, grid: Grid, alignment: int) -> tuple[Placed, ...]:
    """Where layers beside a scene lie.

    Args:
        layers: of one product.
        scene: the bands, on the finest grid.
        grid: chunks of the scene.
        alignment: pixels after which coarser grids begin again.

    Raises:
        InputError: two of one name, or values of a kind that no layer has.
    """
    found = tuple(_placed(layer, scene, grid, alignment) for layer in layers)
    paths = [one.record.path for one in found]
    if len(set(paths)) < len(paths):
        raise InputError(f"expected layers beside the bands with names of their own, got {', '.join(paths)}")
    return found


def _placed(layer: Layer, scene: Scene, grid: Grid, alignment: int) -> Placed:
    if layer.scene.dtype.name not in _DTYPES or layer.scene.shape[1] != 1:
        raise InputError(
            f"{layer.scene.paths[0]}: expected one band of {', '.join(_DTYPES)} as a layer beside the bands, got "
            f"{layer.scene.shape[1]} of {layer.scene.dtype}; leave it out"
        )
    factor = _factor(scene, layer.scene)
    group = f"own_{layer.name}" if factor is None else grid_name(scene.profile, factor)
    height, width = layer.scene.shape[2:]
    rows, columns = (side // (factor or 1) for side in grid.shard[2:])
    is_aligned = factor is not None and alignment % factor == 0 and min(rows, columns) > 0
    chunk = (min(height, rows), min(width, columns)) if is_aligned else (height, width)
    return Placed(layer, LayerRecord(path=f"{group}/{layer.name}", kind=layer.kind, factor=factor), chunk)


def _factor(scene: Scene, layer: Scene) -> int | None:
    """Pixels of the scene along a cell of a layer that begins at its corner; None where it is another grid."""
    here, there = scene.profile, layer.profile
    if here.transform is None or there.transform is None:
        factor = max(1, round(here.height / there.height))
    else:
        factor = max(1, round(there.transform[0] / here.transform[0]))
        if not same_field("transform", coarser(here.transform, factor), there.transform):
            return None
    if (there.height, there.width) != (-(-here.height // factor), -(-here.width // factor)):
        return None
    return factor if same_field("crs", here.crs, there.crs) else None


def create(root: zarr.Group, one: Placed, dates: int) -> zarr.Array[Any]:
    """The array of a layer, without values."""
    folder, name = one.record.path.split("/")
    dtype = one.layer.scene.dtype
    compressor = (
        ZstdCodec(level=_LEVEL)
        if dtype.itemsize == 1
        else BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle", typesize=dtype.itemsize)
    )
    height, width = one.layer.scene.shape[2:]
    return root.require_group(folder).create_array(
        name,
        shape=(dates, height, width),
        dtype=dtype.name,
        chunks=(1, *one.chunk),
        compressors=compressor,
        filters=None,
        fill_value=one.fill,
        dimension_names=("time", f"y_{folder}", f"x_{folder}"),
        attributes={**one.layer.attributes, "grid_mapping": "spatial_ref", "coordinates": "spatial_ref"},
    )


def put_values(container: Container, layers: Sequence[Placed], first: int = 0) -> int:
    """Writes the values of layers, a row of chunks of one date at a time.

    Args:
        container: takes their chunks.
        layers: where they lie.
        first: date of the store that is the product's first.

    Returns:
        Bytes written.
    """
    total = 0
    for one in layers:
        with open_reader(one.layer.scene) as reader:
            for index, date in enumerate(one.layer.dates):
                memory = MemoryStore()
                array = create(zarr.create_group(memory), one, first + date + 1)
                height, width = one.layer.scene.shape[2:]
                for y in range(0, height, one.chunk[0]):
                    rows = slice(y, min(y + one.chunk[0], height))
                    values = reader.read(slice(index, index + 1), rows, slice(0, width))
                    array[first + date, rows] = values[0, 0]
                total += _move(memory, container, f"{one.record.path}/c/")
    return total


def _move(memory: MemoryStore, container: Container, prefix: str) -> int:
    total = 0
    for key, value in memory._store_dict.items():
        if key.startswith(prefix):
            data = value.to_bytes()
            container.put(key, data)
            total += len(data)
    return total


def grid_names(profile: Profile, factors: Sequence[int]) -> tuple[str, ...]:
    """Groups of several grids; see `grid_name`."""
    return tuple(grid_name(profile, factor) for factor in factors)
