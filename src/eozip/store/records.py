"""What a store records of a product beside its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from eozip.raster import Scene
from eozip.raster.product import Acquisition
from eozip.raster.scene import Lattice
from eozip.store.description import Description
from eozip.store.documents import LatticeRecord, ProductRecord
from eozip.store.grid import samples
from eozip.store.joined import Joined, Placed
from eozip.store.metadata import file_name


@dataclass(frozen=True)
class Extras:
    """What a product has beyond the pixels of one scene.

    Attributes:
        record: what is known of it.
        layers: rasters beside its bands.
        factors: of its grids, finest first.
    """

    record: ProductRecord
    layers: tuple[Placed, ...]
    factors: tuple[int, ...]


def extras_of(found: Joined, layers: Sequence[Placed], samples: int, labels: Sequence[str]) -> Extras | None:
    """See `Extras`; None for what is no more than a scene, of which a store records nothing else."""
    if found.is_plain and not layers:
        return None
    product = found.product
    record = ProductRecord(
        kind=product.kind,
        acquisitions=tuple(one.to_dict() for one in product.acquisitions),
        offsets=found.scene.band_offsets,
        names=_names_of(found.scene),
        layers=tuple(one.record for one in layers),
        lattice=lattice_record(found.scene.lattice),
        files_bytes=product.files_bytes,
        samples=samples,
        labels=tuple(labels),
        sensor=product.sensor,
        scale=product.scale,
    )
    return Extras(record, tuple(layers), found.factors)


def _names_of(scene: Scene) -> tuple[tuple[str, ...], ...]:
    """[T][C] names of the files that bands came in, without folders."""
    return tuple(tuple(file_name(source.path) for source in date) for date in scene.sources)


def lattice_record(lattice: Lattice | None) -> LatticeRecord | None:
    """As JSON can hold it."""
    if lattice is None:
        return None
    nodata = lattice.nodata
    return LatticeRecord.model_validate(
        {
            "step": float(lattice.step),
            "base": float(lattice.base),
            "dtype": lattice.dtype,
            "nodata": "nan" if nodata is not None and math.isnan(nodata) else nodata,
        }
    )


def lattice_of(record: LatticeRecord | None) -> Lattice | None:
    """The inverse of `lattice_record`."""
    if record is None:
        return None
    nodata = math.nan if record.nodata == "nan" else record.nodata
    return Lattice(record.step, record.base, record.dtype, nodata)


def grown(
    found: Description,
    new: Joined,
    positions: Sequence[int],
    offsets: Sequence[Sequence[float]],
    layers: Sequence[Placed],
) -> ProductRecord | None:
    """The record of a store with more dates; None where it is still no more than a scene.

    Args:
        found: the store before.
        new: the new dates.
        positions: in their scene of the store's bands, in the order of its source.
        offsets: [t][C] of the new dates, bands in the order of the store's source.
        layers: those of the new dates.
    """
    old_offsets = [[of_date[p] for p in found.band_order] for of_date in found.offsets]
    values = {value for of_date in [*old_offsets, *offsets] for value in of_date}
    if found.product is None and not layers and len(values) == 1:
        return None
    old = found.product or _plain_record(found, old_offsets)
    scene = new.scene.select(positions)
    paths = {layer.path for layer in old.layers}
    known = old.files_bytes, new.product.files_bytes
    return old.model_copy(
        update={
            "acquisitions": (*old.acquisitions, *(one.to_dict() for one in new.product.acquisitions)),
            "offsets": tuple(tuple(map(float, of_date)) for of_date in [*old.offsets, *offsets]),
            "names": (*old.names, *_names_of(scene)),
            "layers": (*old.layers, *(one.record for one in layers if one.record.path not in paths)),
            "files_bytes": None if None in known else sum(known),
            "samples": old.samples + samples((scene.shape[0], *found.grid.shape[1:]), found.codec.grids),
        }
    )


def _plain_record(found: Description, offsets: Sequence[Sequence[float]]) -> ProductRecord:
    """The record of a store that was no more than a scene so far."""
    bands = found.grid.shape[1]
    dates = [None if date is None else datetime.fromisoformat(date) for date in found.dates]
    return ProductRecord(
        kind="geotiff",
        acquisitions=tuple(Acquisition(date).to_dict() for date in dates),
        offsets=tuple(tuple(map(float, of_date)) for of_date in offsets),
        names=tuple((name,) * bands for name in found.files),
        samples=found.samples,
        labels=found.labels,
    )


def with_unknown_dates(
    found: Description, dates: Sequence[str | None], names: Sequence[str]
) -> ProductRecord | None:
    """The record with dates that another program wrote; None where there is none."""
    if found.product is None:
        return None
    old, bands = found.product, found.grid.shape[1]
    known = [None if date is None else datetime.fromisoformat(date) for date in dates]
    return old.model_copy(
        update={
            "acquisitions": (*old.acquisitions, *(Acquisition(date).to_dict() for date in known)),
            "offsets": (*old.offsets, *[(float(found.codec.offset),) * bands] * len(dates)),
            "names": (*old.names, *[(name,) * bands for name in names]),
            "samples": old.samples + samples((len(dates), *found.grid.shape[1:]), found.codec.grids),
        }
    )
