"""Metadata of a store that is there, written again: for more dates, or for those that its record knows.

The keys come in the order in which they must be replaced: all but the group's document suit the dates before and after, and
that one comes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from eozip.errors import FormatError
from eozip.raster import Profile, Scene
from eozip.store.description import Description
from eozip.store.documents import ARRAY, GROUP, RECORD, TIME, TimeDocument, checked, read_raw
from eozip.store.files import StoreFiles
from eozip.store.metadata import DIMENSIONS, DROPPED, dropped_keys, file_names, group_attributes, time_keys


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

    def attributes(self) -> dict[str, Any]:
        """As in eozip/zarr.json."""
        geotiff = {key: value for key, value in asdict(self).items() if key not in ("facts", "masks")}
        if any(self.masks):
            geotiff["masks"] = self.masks
        return {"eozip": dict(self.facts), "geotiff": {**geotiff, "profile": self.profile.to_dict()}}


def same_record(found: Description) -> NewRecord:
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
    )


def grown_record(found: Description, scene: Scene, facts: Mapping[str, Any]) -> NewRecord:
    """The record with the dates of a scene, its bands in the source's order."""
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
    )


def check_arrays(files: StoreFiles) -> None:
    """Refuses arrays of other programs along time: they would be left too short, and the store could not be opened.

    Raises:
        FormatError: there is one; the message names it.
    """
    for name, document in _documents(files):
        if name not in (TIME, ARRAY, DROPPED) and _time_axis(document) is not None:
            raise FormatError(
                f"{files.path}: expected no array along time but {ARRAY} and {DROPPED}, got {name}, whose new dates "
                "nobody knows; take it out of the store first"
            )


def rewritten_keys(files: StoreFiles, record: NewRecord) -> dict[str, bytes]:
    """Keys of metadata and coordinates for the dates of a record; those that are so already are left out.

    Args:
        files: the store before.
        record: what it knows from now on.

    Raises:
        FormatError: metadata that dates cannot be added to.
    """
    count = len(record.dates)
    documents = dict(_documents(files))
    keys = _time_keys(files, documents.get(TIME, {}), record.dates)
    if record.facts.get("date_dropped") is not None:
        keys |= dropped_keys(record.facts["date_dropped"])
    changed = {
        key.removesuffix(f"/{GROUP}"): json.loads(data) for key, data in keys.items() if key.endswith(GROUP)
    }
    for name, document in documents.items():
        axis = _time_axis(document)
        if axis is not None and name not in changed and (name == ARRAY or document["shape"][axis] > count):
            shape = [count if i == axis else length for i, length in enumerate(document["shape"])]
            changed[name] = {**document, "shape": shape}
    changed[RECORD] = {"zarr_format": 3, "node_type": "group", "attributes": record.attributes()}
    keys |= {f"{name}/{GROUP}": _as_bytes(document) for name, document in changed.items()}
    group = read_raw(files, GROUP)
    old = group.get("attributes")
    group["attributes"] = {**(old if isinstance(old, dict) else {}), **group_attributes(record.facts)}
    nodes = {**documents, **changed}
    for name, document in nodes.items():
        if document.get("node_type") == "group":  # as zarr does it
            nodes[name] = {**document, "consolidated_metadata": _consolidated({})}
    keys[GROUP] = _as_bytes({**group, "consolidated_metadata": _consolidated(nodes)})
    return {key: data for key, data in keys.items() if not _is_there(files, key, data)}


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
