"""A store brought back after another program added dates to it, or was refused while it tried.

xarray and zarr make a store longer before they write its pixels, and know nothing of eozip's record. Dates whose pixels are
all there are taken into the record; where they are not, the arrays get the lengths back that the record says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from eozip.errors import FormatError, InputError
from eozip.store.container import changing, updating
from eozip.store.description import Description, describe
from eozip.store.documents import ARRAY, TIME
from eozip.store.files import StoreFiles
from eozip.store.grid import Grid, Shape, regular_groups
from eozip.store.pixels import StorePixels, open_pixels
from eozip.store.rewriting import NewRecord, lengths_along_time, rewritten_keys, same_record

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


def repair_store(store: str | Path) -> Repaired:
    """Makes the metadata of a store agree with its pixels and with each other; no pixel is touched.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file.

    Raises:
        FormatError: no store, or metadata that are damaged.
        OutputError: another program is changing the store, or the disk refused; the store is as it was.
    """
    with changing(Path(store)) as path:
        found = describe(path)
        with StoreFiles(path) as files:
            shown = max([found.shown, *lengths_along_time(files).values()])
            ends = _foreign(found)
            taken = found.shown - found.grid.shape[0] if ends and min(ends) >= 0 else 0
            record = _with_dates(found, taken) if taken else same_record(found)
            keys = rewritten_keys(files, record)
        if keys:
            with updating(path, found.state) as container:
                for key, data in keys.items():
                    container.put(key, data)
    return Repaired(tuple(keys), taken, max(0, shown - found.grid.shape[0] - taken))


def check_foreign(found: Description) -> None:
    """Refuses a store with pixels of another program behind its last date: an append would write over them.

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
    old, first = same_record(found), found.grid.shape[0]
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
    )


def _stored(pixels: StorePixels, grid: Grid, shard: Shape) -> int:
    opened = pixels.shard(shard)
    inside = [w for strip in grid.strips(shard) for w in strip if w.times[0] < w.times[1]]
    return sum(opened is not None and opened.holds(window.position) for window in inside)


def _dates_shown(found: Description, count: int) -> list[str | None]:
    """Dates of the coordinate behind the record's last; None where the store counts its dates by an index."""
    if None in found.dates:
        return [None] * count
    path = found.path
    store = ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
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
