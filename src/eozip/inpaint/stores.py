"""A filled series as an eozip store: every pixel exact, and beside the pixels which of them were measured.

reflectance  [time, band, y, x]   codec `lossless`: what was measured comes back to the bit, as in GeoTIFFs
provenance   [time, y, x] uint8   see `eozip.inpaint.fill.MEASURED`
sigma        [time, y, x] uint16  DN, root mean square over the bands, rounded up; 0 where measured
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import eozip
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError, OutputError
from eozip.inpaint.fill import Filled
from eozip.inpaint.record import (
    PROVENANCE_MEANING,
    SIGMA_MEANING,
    Stack,
    date_tags,
    predicted_pixels,
    rounded_sigma,
)
from eozip.raster.masks import MaskSpec
from eozip.raster.scene import Scene, Source
from eozip.store.codec import EozipChunkCodec
from eozip.store.coding import Tally
from eozip.store.container import check_target
from eozip.store.convert import match_scene
from eozip.store.grid import Grid, plan
from eozip.store.options import Progress
from eozip.store.writer import write_arrays

if TYPE_CHECKING:
    import zarr

PROVENANCE, SIGMA = "provenance", "sigma"
_PLANES = ("time", "y", "x")


@dataclass(frozen=True)
class Plan:
    """A store to be: everything but what will have been filled.

    Attributes:
        codec: lossless, with nodata and offset.
        order: [C] positions in the series of the bands in the order of the sensor.
        grid: chunks and shards.
    """

    codec: EozipChunkCodec
    order: tuple[int, ...]
    grid: Grid


@dataclass(frozen=True)
class _ArrayReader:
    """Pixels in memory, where a store's writer expects open files."""

    dn: np.ndarray

    def read(self, t: slice, y: slice, x: slice) -> np.ndarray:
        return self.dn[t, :, y, x]


def plan_store(stack: Stack, target: Path, nodata: int | None, overwrite: bool) -> Plan:
    """Settle what a store of this series would be, before anything is predicted.

    Args:
        stack: the series.
        target: a `.zarr` directory or a `.zarr.zip` file.
        nodata: DN of missing pixels.
        overwrite: whether an existing store may be replaced.

    Raises:
        InputError: the bands are no sensor's.
        OutputError: the target cannot be written.
    """
    check_target(target, overwrite)
    try:
        sensor, order = match_scene(_described(stack, stack.tags), stack.sensor)
    except InputError as error:
        raise InputError(f"{error}; or name a folder as output: GeoTIFFs take any bands") from error
    codec = EozipChunkCodec(LOSSLESS, sensor=sensor, nodata=nodata, offset=stack.offset)
    return Plan(codec, order, plan(stack.dn.shape))


def write_store(
    stack: Stack,
    filled: Filled,
    target: Path,
    wanted: Plan,
    spec: MaskSpec,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write the store; every chunk is decoded again and compared.

    Args:
        stack: the series.
        filled: what became of it.
        target: a `.zarr` directory or a `.zarr.zip` file; appears when it is complete.
        wanted: see `plan_store`.
        spec: what was hidden.
        overwrite: whether an existing store may be replaced.
        progress: called with chunks done and in all.

    Raises:
        OutputError: the target exists, is misnamed, or cannot be written, or a chunk did not come back as it was.
    """
    tags = tuple(date_tags(own, filled, t) for t, own in enumerate(stack.tags))
    write_arrays(
        target,
        _described(stack, tags),
        wanted.order,
        _ArrayReader(filled.dn[:, list(wanted.order)]),
        wanted.codec,
        wanted.grid,
        facts={"eozip_version": eozip.__version__, "weights_hash": None, **_facts(filled, spec)},
        overwrite=overwrite,
        progress=progress,
        check=lambda run: _check_exact(run.tally, target),
        beside=lambda group: _add_record(group, filled, wanted.grid),
    )


def _check_exact(tally: Tally, target: Path) -> None:
    if tally.unequal:
        raise OutputError(
            f"{target}: {tally.unequal} values did not come back as they were; nothing was written. This is a "
            "defect of eozip: please report it"
        )


def _facts(filled: Filled, spec: MaskSpec) -> dict[str, Any]:
    """For the store's record."""
    return {
        "inpainted": {
            "mask": spec.kind,
            "methods": list(filled.methods),
            "cover": [round(cover, 6) for cover in filled.cover],
            "predicted": int(predicted_pixels(filled).sum()),
            "sigma_calibrated": filled.calibrated,
        }
    }


def _described(stack: Stack, tags: tuple[Any, ...]) -> Scene:
    """The series as a scene whose pixels are in memory: its files are names alone."""
    bands = stack.dn.shape[1]
    return Scene(
        tuple(tuple(Source(name, index) for index in range(1, bands + 1)) for name in stack.names),
        tuple(None if date is None else datetime.fromisoformat(date) for date in stack.dates),
        stack.profile,
        tags,
        stack.band_tags,
        stack.offset,
        (1, stack.profile.width),
    )


def _add_record(group: zarr.Group, filled: Filled, grid: Grid) -> None:
    provenance = {"long_name": "where a pixel comes from", "meaning": PROVENANCE_MEANING}
    sigma = {"long_name": "standard deviation of predicted pixels", "units": "DN", "meaning": SIGMA_MEANING}
    _add_planes(group, PROVENANCE, filled.provenance, grid, provenance)
    _add_planes(group, SIGMA, rounded_sigma(filled.sigma, np.uint16), grid, sigma)


def _add_planes(
    group: zarr.Group, name: str, values: np.ndarray, grid: Grid, attributes: dict[str, str]
) -> None:
    """One number per pixel and date, in the chunks and shards of the pixels; compressed as zarr does by default."""
    chunk, shard = ((sides[0], *sides[2:]) for sides in (grid.chunk, grid.shard))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunk,
        shards=shard,
        fill_value=0,
        dimension_names=_PLANES,
        attributes={**attributes, "grid_mapping": "spatial_ref", "coordinates": "spatial_ref"},
    )
    array[...] = values
