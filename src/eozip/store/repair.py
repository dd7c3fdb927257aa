"""Metadata of a finished store, written again: for appended dates, or after another program changed the store.

Rewritten keys come in the order in which they must be replaced: all but the group's document suit the dates before and
after, and that document comes last.

xarray and zarr make a store longer before they write its pixels, and know nothing of eozip's record. `repair_store` takes
those dates into the record whose pixels are all there; where some are missing, the arrays get the recorded lengths back."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import zarr

from eozip.arguments import PlaceLike, place
from eozip.errors import FormatError, InputError
from eozip.raster import Profile, Scene
from eozip.store.container import changing, updating
from eozip.store.description import Description, describe
from eozip.store.documents import ARRAY, RECORD, TIME, ProductRecord, TimeDocument, checked, read_raw
from eozip.store.files import GROUP, StoreFiles, plain_store, store_files
from eozip.store.grid import Grid, Shape, regular_groups
from eozip.store.metadata import (
    DIMENSIONS,
    DROPPED,
    OFFSET,
    dropped_keys,
    file_names,
    group_attributes,
    offset_keys,
    time_keys,
)
from eozip.store.overviews import level_paths
from eozip.store.pixels import StorePixels, open_pixels
from eozip.store.records import with_unknown_dates


@dataclass(frozen=True)
class NewRecord:
    """What the record of a store says from now on; see `Description` for the fields."""

    facts: Mapping[str, Any]
    profile: Profile
    band_order: tuple[int, ...]
    tags: tuple[Any, ...]
    band_tags: tuple[dict[str, str], ...]
    files: tuple[str, ...]
    dates: tuple[str | None, ...]
    masks: tuple[bool, ...]
    product: ProductRecord | None = None

    def attributes(self) -> dict[str, Any]:
        """As in eozip/zarr.json."""
        names = ("band_order", "tags", "band_tags", "files", "dates")
        geotiff = {"profile": self.profile.to_dict(), **{name: getattr(self, name) for name in names}}
        if any(self.masks):
            geotiff["masks"] = self.masks
        product = {} if self.product is None else {"product": self.product.model_dump(mode="json")}
        return {"eozip": dict(self.facts), "geotiff": geotiff, **product}

    @property
    def along_time(self) -> set[str]:
        """Arrays of eozip along time, by name, whose lengths are those of the record."""
        layers = () if self.product is None else self.product.layers
        return {ARRAY, *(layer.path for layer in layers), *level_paths(self.facts)}

    def offsets(self) -> np.ndarray | None:
        """[T, C] radiometric offsets in the order of the array's bands; None where it is one value."""
        if self.product is None or len(set(sum(self.product.offsets, ()))) <= 1:
            return None
        places = [self.band_order.index(position) for position in range(len(self.band_order))]
        return np.array(self.product.offsets, np.float64)[:, places]


def _same_record(found: Description) -> NewRecord:
    """The record as it is."""
    return NewRecord(
        found.facts,
        found.profile,
        found.band_order,
        found.tags,
        found.band_tags,
        found.files,
        found.dates,
        found.masks,
        found.product,
    )


def grown_record(
    found: Description, scene: Scene, facts: Mapping[str, Any], product: ProductRecord | None = None
) -> NewRecord:
    """The record with the dates of a scene, its bands in the source's order, and what is known of the product then."""
    dates = tuple(None if date is None else date.isoformat() for date in scene.dates)
    return NewRecord(
        facts,
        found.profile,
        found.band_order,
        (*found.tags, *scene.tags),
        found.band_tags,
        (*found.files, *file_names(scene)),
        (*found.dates, *dates),
        (*found.masks, *scene.masks),
        product,
    )


def check_arrays(files: StoreFiles, own: Collection[str] = ()) -> None:
    """Refuse arrays of other programs along time: they would be left too short, and the store could not be opened.

    Args:
        files: the store.
        own: names of arrays that eozip recorded beside the pixels.

    Raises:
        FormatError: there is one; the message names it.
    """
    for name, document in _documents(files):
        if name not in (TIME, ARRAY, DROPPED, OFFSET, *own) and _time_axis(document) is not None:
            raise FormatError(
                f"{files.path}: expected no array along time but {ARRAY} and {DROPPED}, got {name}, whose new dates "
                "nobody knows; take it out of the store first"
            )


def rewritten_keys(
    files: StoreFiles, record: NewRecord, more: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Keys of metadata and coordinates for the dates of a record; those that are so already are left out.

    Args:
        files: the store before.
        record: what it knows from now on.
        more: keys of nodes that are new.

    Raises:
        FormatError: metadata that dates cannot be added to.
    """
    count = len(record.dates)
    documents = dict(_documents(files))
    keys = {**(more or {}), **_time_keys(files, documents.get(TIME, {}), record.dates)}
    offsets = record.offsets()
    if offsets is not None:
        keys |= offset_keys(offsets)
    if record.facts.get("date_dropped") is not None:
        keys |= dropped_keys(record.facts["date_dropped"])
    changed = {
        key.removesuffix(f"/{GROUP}"): json.loads(data) for key, data in keys.items() if key.endswith(GROUP)
    }
    for name, document in documents.items():
        axis = _time_axis(document)
        if (
            axis is not None
            and name not in changed
            and (name in record.along_time or document["shape"][axis] > count)
        ):
            shape = [count if i == axis else length for i, length in enumerate(document["shape"])]
            changed[name] = {**document, "shape": shape}
    if offsets is not None and ARRAY in documents:
        changed[ARRAY] = _with_offsets(changed.get(ARRAY, documents[ARRAY]))
    changed[RECORD] = {"zarr_format": 3, "node_type": "group", "attributes": record.attributes()}
    keys |= {f"{name}/{GROUP}": _as_bytes(document) for name, document in changed.items()}
    group = read_raw(files, GROUP)
    old = group.get("attributes")
    group["attributes"] = {**(old if isinstance(old, dict) else {}), **group_attributes(record.facts)}
    # zarr wants groups before what is in them
    nodes = dict(sorted({**documents, **changed}.items(), key=lambda node: (node[0].count("/"), node[0])))
    for name, document in nodes.items():
        if document.get("node_type") == "group":  # as zarr does it
            nodes[name] = {**document, "consolidated_metadata": _consolidated({})}
    keys[GROUP] = _as_bytes({**group, "consolidated_metadata": _consolidated(nodes)})
    return {key: data for key, data in keys.items() if not _is_there(files, key, data)}


def _with_offsets(document: Mapping[str, Any]) -> dict[str, Any]:
    """The pixels' document where the offset is a coordinate, and no longer one number."""
    attributes = {name: v for name, v in document.get("attributes", {}).items() if name != OFFSET}
    return {**document, "attributes": {**attributes, "coordinates": f"spatial_ref {OFFSET}"}}


def _consolidated(nodes: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": nodes}


def _is_there(files: StoreFiles, key: str, data: bytes) -> bool:
    if not key.endswith(GROUP) or files.size(key) is None:
        return data == files.get(key)
    try:
        return read_raw(files, key) == json.loads(data)
    except FormatError:
        return False


def lengths_along_time(files: StoreFiles) -> dict[str, int]:
    """How many dates each array along time has, by name: what readers of plain Zarr see.

    Consolidated metadata say so where there are any: an append that was killed has changed the arrays' own already.
    """
    consolidated = (read_raw(files, GROUP).get("consolidated_metadata") or {}).get("metadata")
    documents = dict(_documents(files)) if consolidated is None else consolidated
    axes = {name: _time_axis(document) for name, document in documents.items()}
    return {name: documents[name]["shape"][axis] for name, axis in axes.items() if axis is not None}


def _time_keys(
    files: StoreFiles, document: Mapping[str, Any], dates: Sequence[str | None]
) -> dict[str, bytes]:
    """The coordinate in chunks as it has them: what they held before comes first, so that they suit old readers too."""
    where = f"{files.path}, {TIME}/{GROUP}"
    room = checked(TimeDocument, document, where).chunk_grid.configuration.chunk_shape[0]
    keys = time_keys([None if date is None else datetime.fromisoformat(date) for date in dates], room)
    fresh = json.loads(keys[f"{TIME}/{GROUP}"])
    fresh["attributes"] = {**document.get("attributes", {}), **fresh["attributes"]}
    return {**keys, f"{TIME}/{GROUP}": _as_bytes({**document, **fresh})}


def _documents(files: StoreFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of the hierarchy but its root and the record, which is never needed: it is written anew."""
    for key in files.names():
        if key.endswith(f"/{GROUP}") and key != f"{RECORD}/{GROUP}":
            yield key.removesuffix(f"/{GROUP}"), read_raw(files, key)


def _time_axis(document: Mapping[str, Any]) -> int | None:
    """Position of the time axis of an array; None where it has none, or is no array."""
    names, shape = document.get("dimension_names"), document.get("shape")
    if not isinstance(names, list) or not isinstance(shape, list) or DIMENSIONS[0] not in names:
        return None
    axis = names.index(DIMENSIONS[0])
    return axis if len(names) == len(shape) and isinstance(shape[axis], int) else None


def _as_bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


_SHARD = re.compile(rf"{ARRAY}/c/(\d{{1,9}})/0/(\d{{1,9}})/(\d{{1,9}})")


@dataclass(frozen=True)
class Repaired:
    """What `repair_store` did.

    Attributes:
        keys: documents and coordinates that were written again, in order; none if nothing was wrong.
        taken: dates that another program wrote whole, and that are part of the store now.
        cut: dates without pixels of their own that readers of plain Zarr no longer see.
    """

    keys: tuple[str, ...]
    taken: int
    cut: int


def repair_store(store: PlaceLike) -> Repaired:
    """Make the metadata of a store agree with its pixels and with each other; no pixel is touched.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file.

    Raises:
        FormatError: no store, or metadata that are damaged.
        OutputError: another program is changing the store, or the disk refused; the store is as it was.
    """
    with changing(place("store", store)) as path:
        found = describe(path)
        with store_files(path) as files:
            shown = max([found.shown, *lengths_along_time(files).values()])
            ends = _foreign(found)
            taken = found.shown - found.grid.shape[0] if ends and min(ends) >= 0 else 0
            record = _with_dates(found, taken) if taken else _same_record(found)
            keys = rewritten_keys(files, record)
        if keys:
            with updating(path, found.state) as container:
                for key, data in keys.items():
                    container.put(key, data)
    return Repaired(tuple(keys), taken, max(0, shown - found.grid.shape[0] - taken))


def check_foreign(found: Description) -> None:
    """Refuse a store with pixels of another program behind its last date: an append would write over them.

    Raises:
        InputError: see above.
    """
    ends = _foreign(found)
    if ends:
        what = (
            "takes them into the store"
            if min(ends) >= 0
            else "cuts them off, as some of their chunks are missing"
        )
        raise InputError(
            f"{found.path}: expected {found.grid.shape[0]} dates, as eozip recorded, got {found.shown} with pixels that "
            f"another program wrote: `eozip verify --repair` {what}; then append again"
        )


def _foreign(found: Description) -> list[int]:
    """For each chunk with pixels behind the record's last date: how many more dates it holds than the store shows.

    What an append of eozip left that was killed is none: the group's document does not show its dates.
    """
    first = found.grid.shape[0]
    if found.shown <= first:
        return []
    grid = replace(found.grid, shape=(found.shown, *found.grid.shape[1:]))
    with open_pixels(replace(found, grid=grid)) as pixels:
        ends = [_ends(pixels, grid, shard, first) for shard in _shards(pixels)]
    has_pixels = any(last > first for each in ends for last, _ in each)
    return [more for each in ends for _, more in each] if has_pixels else []


def _shards(pixels: StorePixels) -> list[Shape]:
    """The shards there are: a store may say that it has more dates than could ever be counted."""
    found = [match for name in pixels.files.names() if (match := _SHARD.fullmatch(name))]
    return [(int(m[1]), 0, int(m[2]), int(m[3])) for m in found]


def _ends(pixels: StorePixels, grid: Grid, shard: Shape, first: int) -> list[tuple[int, int]]:
    """For each stored chunk that reaches behind date `first`: where its streams end, and how far behind what is shown."""
    found = []
    for window in (w for strip in grid.strips(shard) for w in strip):
        opened = pixels.shard(shard) if window.times[0] < window.times[1] > first else None
        if opened is not None and opened.holds(window.position):
            with pixels.naming(shard, window):
                stop = window.times[0] + opened.streams(window.position)[-1].dates.stop
            found.append((stop, stop - window.times[1]))
    return found


def _with_dates(found: Description, count: int) -> NewRecord:
    """The record with dates whose pixels nobody measured while they were encoded."""
    old, first = _same_record(found), found.grid.shape[0]
    dates = _dates_shown(found, count)
    grid = replace(found.grid, shape=(first + count, *found.grid.shape[1:]))
    with open_pixels(replace(found, grid=grid)) as pixels:
        stored = sum(_stored(pixels, grid, shard) for shard in _shards(pixels))
    none = [None] * count
    facts: dict[str, Any] = {
        **found.facts,
        "date_psnr": [*found.facts["date_psnr"], *none],
        "date_bits": [*found.facts["date_bits"], *none],
        "chunks": grid.chunk_count,
        "empty_chunks": grid.chunk_count - stored,
        "groups": [*found.groups, *regular_groups(first, first + count, grid.chunk[0])],
        "unmeasured": [*found.facts.get("unmeasured", ()), *range(first, first + count)],
    }
    if "date_dropped" in facts:
        facts["date_dropped"] = [*facts["date_dropped"], *[0] * count]
    names = [f"{date[:10]}.tif" if date else f"date_{first + i}.tif" for i, date in enumerate(dates, start=1)]
    return replace(
        old,
        facts=facts,
        tags=(*old.tags, *[{} for _ in names]),
        files=(*old.files, *names),
        dates=(*old.dates, *dates),
        masks=(*old.masks, *[False for _ in names]),
        product=with_unknown_dates(found, dates, names),
    )


def _stored(pixels: StorePixels, grid: Grid, shard: Shape) -> int:
    opened = pixels.shard(shard)
    inside = [w for strip in grid.strips(shard) for w in strip if w.times[0] < w.times[1]]
    return sum(opened is not None and opened.holds(window.position) for window in inside)


def _dates_shown(found: Description, count: int) -> list[str | None]:
    """Dates of the coordinate behind the record's last; None where the store counts its dates by an index."""
    if None in found.dates:
        return [None] * count
    path, store = found.path, plain_store(found.path)
    try:
        array = zarr.open_array(store, path=TIME, mode="r")
        values = np.asarray(array[found.grid.shape[0] : found.grid.shape[0] + count])
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise FormatError(
            f"{path}: expected the coordinate {TIME} of {count} more dates, got {error}"
        ) from error
    finally:
        store.close()
    if array.attrs.get("units") != "seconds since 1970-01-01" or len(values) != count:
        raise FormatError(
            f"{path}: expected {count} more dates in seconds since 1970, got {len(values)} in {array.attrs.get('units')!r}"
        )
    return [datetime.fromtimestamp(int(v), UTC).replace(tzinfo=None).isoformat() for v in values]
