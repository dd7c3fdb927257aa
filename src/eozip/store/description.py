"""What a store says about itself, read from zarr.json with the standard library: quick and torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eozip.bitstream import size_problem
from eozip.errors import EozipError, FormatError, InputError, LimitError
from eozip.raster import Profile
from eozip.raster.scene import Tags
from eozip.store.codec import DTYPES, NAME, EozipChunkCodec
from eozip.store.files import StoreFiles
from eozip.store.grid import Grid, regular_groups
from eozip.store.metadata import ARRAY

_NOT_OURS = "the store was not written by eozip, or was changed after writing"


@dataclass(frozen=True)
class Description:
    """A store without its pixels.

    Attributes:
        path: where it lies.
        grid: shape, chunks, shards.
        dtype: numpy name.
        fill_value: DN of chunks that are not stored.
        codec: codec and configuration.
        facts: provenance, as the writer left it in the attribute `eozip`.
        profile: the source's raster profile, its bands in the source's order.
        band_order: [C] for each band of the source its position in the array.
        tags: [T] metadata by date; `band_tags` [C] by band.
        files: [T] names of the source files.
        dates: [T] ISO dates, None where unknown.
        masks: [T] whether the source file has a mask, which decoding writes again from the nodata pixels.
        bytes: size of everything.
        groups: dates in each group that was encoded together, in order; an append adds groups.
        state: `StoreFiles.state` when it was read.
    """

    path: Path
    grid: Grid
    dtype: str
    fill_value: int
    codec: EozipChunkCodec
    facts: dict[str, Any]
    profile: Profile
    band_order: tuple[int, ...]
    tags: tuple[Tags, ...]
    band_tags: tuple[dict[str, str], ...]
    files: tuple[str, ...]
    dates: tuple[str | None, ...]
    masks: tuple[bool, ...]
    bytes: int
    groups: tuple[int, ...]
    state: bytes


def describe(path: str | Path) -> Description:
    """Reads a store's metadata.

    Raises:
        FormatError: no store, or metadata that this version cannot read.
    """
    with StoreFiles(Path(path)) as files:
        group = _json(files, "zarr.json")
        array = _as_committed(group, _json(files, f"{ARRAY}/zarr.json"))
        size, state = files.total_bytes(), files.state()
    try:
        return _description(Path(path), group["attributes"], array, size, state)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, EozipError):
            raise
        raise FormatError(f"{path}: metadata lacks or misstates {error}; {_NOT_OURS}") from error


def _as_committed(group: dict[str, Any], array: dict[str, Any]) -> dict[str, Any]:
    """The array with as many dates as the group's own document says.

    An append replaces that document last: if it was killed before, the array's own may be ahead.
    """
    try:
        committed = group["consolidated_metadata"]["metadata"][ARRAY]["shape"]
        return {**array, "shape": [min(committed[0], array["shape"][0]), *array["shape"][1:]]}
    except (KeyError, TypeError, IndexError):
        return array  # metadata that nobody consolidated


def _json(files: StoreFiles, key: str) -> dict[str, Any]:
    data = files.get(key)
    if data is None:
        raise FormatError(f"{files.path}: expected the key {key}, got none; {_NOT_OURS}")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise FormatError(f"{files.path}, {key}: expected JSON, got {error}; {_NOT_OURS}") from error
    if not isinstance(document, dict):
        raise FormatError(
            f"{files.path}, {key}: expected a JSON object, got {type(document).__name__}; {_NOT_OURS}"
        )
    return document


def _description(
    path: Path, attributes: dict[str, Any], array: dict[str, Any], size: int, state: bytes
) -> Description:
    grid, codec = _grid_and_codec(array)
    geotiff = attributes["geotiff"]
    profile = Profile.from_dict(geotiff["profile"])
    order = tuple(int(i) for i in geotiff["band_order"])
    counts = (len(geotiff["tags"]), len(order), profile.height, profile.width)
    if (
        counts != grid.shape
        or sorted(order) != list(range(grid.shape[1]))
        or array["data_type"] not in DTYPES
    ):
        raise FormatError(f"{path}: expected GeoTIFF facts for {grid.shape}, got {counts}; {_NOT_OURS}")
    return Description(
        path=path,
        grid=grid,
        dtype=array["data_type"],
        fill_value=int(array["fill_value"]),
        codec=codec,
        facts=dict(attributes["eozip"]),
        profile=profile,
        band_order=order,
        tags=tuple(geotiff["tags"]),
        band_tags=tuple(geotiff["band_tags"]),
        files=tuple(geotiff["files"]),
        dates=tuple(geotiff["dates"]),
        masks=_masks(geotiff, grid),
        bytes=size,
        groups=_groups(attributes["eozip"].get("groups"), grid),
        state=state,
    )


def _masks(geotiff: dict[str, Any], grid: Grid) -> tuple[bool, ...]:
    """Stores of sources without masks say nothing about them."""
    masks = tuple(geotiff.get("masks", [False] * grid.shape[0]))
    if len(masks) != grid.shape[0] or any(not isinstance(mask, bool) for mask in masks):
        raise FormatError(f"expected masks of {grid.shape[0]} dates, got {masks}; {_NOT_OURS}")
    return masks


def _groups(listed: list[int] | None, grid: Grid) -> tuple[int, ...]:
    groups = regular_groups(0, grid.shape[0], grid.chunk[0]) if listed is None else tuple(map(int, listed))
    if sum(groups) != grid.shape[0] or min(groups) < 1:
        raise FormatError(f"expected groups of {grid.shape[0]} dates in all, got {listed}; {_NOT_OURS}")
    return groups


def _grid_and_codec(array: dict[str, Any]) -> tuple[Grid, EozipChunkCodec]:
    sharding = array["codecs"][0]
    inner = sharding["configuration"]
    if sharding["name"] != "sharding_indexed" or [codec["name"] for codec in inner["codecs"]] != [NAME]:
        raise FormatError(f"expected shards of {NAME} chunks, got codecs {array['codecs']}; {_NOT_OURS}")
    shape, chunk = _four(array["shape"]), _four(inner["chunk_shape"])
    shard = _four(array["chunk_grid"]["configuration"]["chunk_shape"])
    if any(s % c for s, c in zip(shard, chunk)):
        raise FormatError(
            f"expected shards that are multiples of chunks, got {shard} and {chunk}; {_NOT_OURS}"
        )
    problem = size_problem(chunk)
    if problem:
        raise LimitError(f"chunks of {chunk}: {problem}; {_NOT_OURS}")
    t, c, h, w = (s // n for s, n in zip(shard, chunk))
    return Grid(shape, chunk, (t, c, h, w)), EozipChunkCodec.from_dict(inner["codecs"][0])


def _four(numbers: Sequence[Any]) -> tuple[int, int, int, int]:
    t, c, h, w = (int(n) for n in numbers)
    if min(t, c, h, w) < 1:
        raise FormatError(f"expected four lengths of at least 1, got {list(numbers)}; {_NOT_OURS}")
    return t, c, h, w


def choose_dates(description: Description, wanted: Sequence[str | int] | None) -> list[int]:
    """Positions of the dates asked for.

    Args:
        description: the store.
        wanted: 1-based positions, or ISO dates or their beginnings ("2021-07"); None for all.

    Raises:
        InputError: no date fits; the message lists those there are.
    """
    if not wanted:
        return list(range(len(description.dates)))
    chosen = [position for item in wanted for position in _matching_dates(description, item)]
    return sorted(set(chosen))


def _matching_dates(description: Description, wanted: str | int) -> list[int]:
    text = str(wanted)
    count = len(description.dates)
    if text.isdigit() and 1 <= int(text) <= count:
        return [int(text) - 1]
    found = [i for i, date in enumerate(description.dates) if date is not None and date.startswith(text)]
    if not found:
        known = ", ".join(date or "unknown" for date in description.dates)
        raise InputError(
            f"expected a date or a position from 1 to {count}, got {text!r}; the store has {known}"
        )
    return found
