"""From inputs to jobs: which dates go into which store, in which order, and which shards are to be coded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from eozip.archive.asked import Asked
from eozip.archive.inputs import Seen, days_of, opened, paths_of
from eozip.archive.record import Record
from eozip.arguments import PlaceLike
from eozip.bitstream import samples_problem
from eozip.chunk.encoding import check_levelled
from eozip.errors import EozipError, InputError, OutputError
from eozip.purpose import parse_purposes
from eozip.raster import Scene
from eozip.raster.delivered.open import harmonised_to, solar_day
from eozip.raster.regions import covers, open_region
from eozip.store.append import NewDates, check_append, new_dates, stored_order
from eozip.store.codec import EozipChunkCodec
from eozip.store.convert import as_stored, request_for
from eozip.store.description import Description, describe
from eozip.store.files import GROUP
from eozip.store.grid import Grid, Shape, alignment, plan
from eozip.store.holding import Holding
from eozip.store.joined import Joined, dates_of, joined, scene_dates
from eozip.store.metadata import file_names
from eozip.store.options import NOWHERE, Places
from eozip.store.overviews import Level, levels_for, levels_of
from eozip.store.writer import check_drop, pixels_of


@dataclass(frozen=True)
class Job:
    """One shard to code, whole: the same job gives the same bytes, however often and wherever it is done.

    Attributes:
        out: the archive; `store`: name of the store in it.
        id: fingerprint of settings, inputs and place.
        token: of the run that sent it.
        installed: what the worker must have, as `eozip.archive.run.installed` tells.
        codec: entry of the codec in zarr.json.
        joined: the new dates of the shard.
        order: positions in it of the bands in the order of the store.
        grid: of the store up to these dates.
        shard: index.
        first: position in the store of the first of these dates.
        joins: whether the shard has dates already; `grows`: whether the store has.
        items: for each of the dates, positions among the store's new inputs of those that it is of.
        mask: what hides pixels of these dates, as `mask_text` says; None: nothing does.
        purposes: that every chunk of a new store serves.
        levels: that are stored.
        places: quality by place, and `region`, the fingerprint of its region's file.
    """

    out: str
    store: str
    id: str
    token: str
    installed: Mapping[str, Any]
    codec: Mapping[str, Any]
    joined: Joined
    order: tuple[int, ...]
    grid: Grid
    shard: Shape
    first: int
    joins: bool
    grows: bool
    items: tuple[tuple[int, ...], ...]
    mask: Scene | None = None
    mask_text: str = ""
    purposes: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    places: Places = NOWHERE
    region: str | None = None

    @property
    def raw(self) -> int:
        """Bytes of its pixels."""
        (_, c, h, w), size = self.grid.shape, self.grid.shard
        rows = min(size[2], h - self.shard[2] * size[2])
        columns = min(size[3], w - self.shard[3] * size[3])
        return len(self.joined.scene.sources) * c * rows * columns * self.joined.scene.dtype.itemsize


@dataclass
class StorePlan:
    """What there is to do for one store.

    Attributes:
        name: of the store.
        seen: its new inputs, in the order of their dates.
        found: the store as it is; None: it is new.
        joined: the new dates.
        order: positions in their scene of the bands in the order of the store.
        new: the same as an append sees it; None: the store is new.
        codec: with everything it is asked for.
        grid: of the store with the new dates.
        facts: provenance.
        asked: the settings.
        mask: what hides pixels of the new dates; None: nothing does.
        note: what a person should read.
        parts: what jobs left, by shard.
        waiting: jobs that are being done; `planned`: whether all were given out.
        bad: reasons of inputs that turned out to be unreadable while they were coded.
    """

    name: str
    seen: list[Seen]
    found: Description | None
    joined: Joined
    order: tuple[int, ...]
    new: NewDates | None
    codec: EozipChunkCodec
    grid: Grid
    facts: dict[str, Any]
    asked: Asked
    mask: Scene | None = None
    note: str = ""
    parts: dict[Shape, dict[str, Any]] = field(default_factory=dict)
    waiting: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    planned: bool = False

    @property
    def first(self) -> int:
        """How many dates the store has."""
        return 0 if self.found is None else self.found.grid.shape[0]

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels that are stored."""
        if self.found is not None:
            return levels_of(self.found.facts, self.grid)
        return levels_for(self.grid) if self.asked.overviews else ()

    def shards(self) -> list[Shape]:
        """Those that get new dates."""
        step = self.grid.shard[0]
        return [s for s in self.grid.shards() if min((s[0] + 1) * step, self.grid.shape[0]) > self.first]

    def jobs(self, out: PlaceLike, token: str, installed: Mapping[str, Any]) -> Iterator[Job]:
        """One for each shard; the scenes of a group of dates are shared."""
        owners, files = self.owners(), file_names(self.joined.scene)
        step = self.grid.shard[0]
        for shard in self.shards():
            begin = max(shard[0] * step, self.first)
            stop = min((shard[0] + 1) * step, self.grid.shape[0])
            part = slice(begin - self.first, stop - self.first)
            grid = replace(self.grid, shape=(stop, *self.grid.shape[1:]))
            yield Job(
                str(out),
                self.name,
                self._id(shard, owners[part], files[part], installed),
                token,
                installed,
                self.codec.to_dict(),
                dates_of(self.joined, part),
                self.order,
                grid,
                shard,
                begin,
                begin > shard[0] * step,
                self.found is not None,
                tuple(owners[part]),
                None if self.mask is None else scene_dates(self.mask, part),
                self.asked.mask or "",
                self.asked.purposes or (),
                tuple(replace(level, grid=grid) for level in self.levels),
                self.asked.places,
                self.asked.region,
            )

    def owners(self) -> list[tuple[int, ...]]:
        """[T] which inputs each new date is of: several where they were merged into one."""
        by_path: dict[str, set[int]] = {}
        for k, one in enumerate(self.seen):
            for path in one.paths:
                by_path.setdefault(path, set()).add(k)
        scene, days = self.joined.scene, days_of(self.joined.scene)
        owners = []
        for date, day in enumerate(days):
            held = sorted(
                set().union(*(by_path[path] for path in paths_of(scene_dates(scene, slice(date, date + 1)))))
            )
            when = scene.dates[date]
            is_of = [k for k in held if (None if when is None else when.isoformat()) in self.seen[k].dates]
            merged = [k for k in held if day in self.seen[k].days]
            owners.append(tuple(merged if self.asked.mosaic else is_of))
        return owners

    def holding(self) -> Holding | None:
        """The purposes of a new store; None where there are none."""
        return holding_of(self.asked.purposes, self.joined, self.order, self.codec)

    def _id(
        self,
        shard: Shape,
        owners: Sequence[tuple[int, ...]],
        files: Sequence[str],
        installed: Mapping[str, Any],
    ) -> str:
        told = [
            self.codec.to_dict(),
            self.grid.shape[1:],
            self.grid.chunk,
            self.grid.per_shard,
            shard,
            self.first if shard[0] * self.grid.shard[0] < self.first else 0,
            [[self.seen[k].print for k in of_date] for of_date in owners],
            list(files),
            dict(installed),
            self.asked.mask,
            self.asked.purposes,
            [level.factor for level in self.levels],
            *([asdict(self.asked.places) | {"roi": self.asked.region}] if self.asked.places else []),
            *(["harmonised", self.joined.scene.offset] if self.asked.harmonise else []),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def holding_of(
    purposes: Sequence[str] | None, found: Joined, order: Sequence[int], codec: EozipChunkCodec
) -> Holding | None:
    """What the chunks of a new store serve; None where nothing was asked for.

    Raises:
        InputError: purposes that these bands cannot have.
    """
    if not purposes:
        return None
    hold = Holding(parse_purposes(list(purposes)), pixels_of(found.scene.select(order), codec))
    hold.check()
    return hold


def grouped(seen: Sequence[Seen], held: Mapping[str, Mapping[str, Any]], by: str) -> dict[str, list[Seen]]:
    """Inputs by store, stores by name.

    Args:
        seen: the inputs.
        held: those that are archived already, with their stores.
        by: of the settings; a store for each input gets a name that no other has.
    """
    stores: dict[str, list[Seen]] = {}
    taken = {one["store"] for one in held.values()}
    for one in seen:
        name = one.store
        if by == "item" and (name in stores or name in taken):
            name = (
                f"{name.removesuffix('.zarr')}_{hashlib.sha256(one.item.name.encode()).hexdigest()[:8]}.zarr"
            )
        stores.setdefault(name, []).append(one)
    return dict(sorted(stores.items()))


def finish_published(record: Record) -> None:
    """Note what a run that was killed at the end of a store had published, and remove what its jobs left."""
    for name in record.announced():
        if record.keys.get(f"{name}/{GROUP}") is None:
            continue
        with suppress(EozipError):  # of a damaged one, its plan says so
            items = record.published(name, describe(record.store(name)).grid.shape[0])
            if items:
                record.hold(name, items)
                record.forget_jobs(name)


def plan_store(
    record: Record, name: str, seen: Sequence[Seen], asked: Asked
) -> tuple[StorePlan | None, dict[str, str]]:
    """What there is to do for a store, and which of its inputs are set aside.

    Args:
        record: of the archive.
        name: of the store.
        seen: its inputs that are not in it.
        asked: the settings.

    Returns:
        the plan, None where nothing is left to do; and reasons by the name of the input.
    """
    try:
        found = _stored(record, name)
    except EozipError as error:
        return None, {one.item.name: str(error) for one in seen}
    left = _not_held(record, name, seen, found)
    if not left:
        record.forget_jobs(name)
        return None, {}
    grids = [item["grid"] for item in record.held(name).values() if "grid" in item]
    fit, failed = _fitting(left, found, asked.mosaic is not None, grids[-1] if grids else None)
    try:
        return (_settled(name, fit, found, asked) if fit else None), failed
    except EozipError as error:
        fit, apart = _without_culprits(fit, asked, error)
        failed |= apart
    try:
        return (_settled(name, fit, found, asked) if fit else None), failed
    except EozipError as error:
        return None, failed | {one.item.name: str(error) for one in fit}


def _stored(record: Record, name: str) -> Description | None:
    """A store as it is; None where there is none.

    Raises:
        OutputError: others made it.
        FormatError: it is damaged.
    """
    if record.keys.get(f"{name}/{GROUP}") is None:
        return None
    if not record.held(name):
        raise OutputError(
            f"{record.store(name)} is there, and is not of this archive, whose settings it need not have; move it away, or "
            "archive into another folder"
        )
    return describe(record.store(name))


def _without_culprits(seen: list[Seen], asked: Asked, error: EozipError) -> tuple[list[Seen], dict[str, str]]:
    """Inputs that can share a store with the first of them, and why others cannot; none where that explains nothing."""
    groups: dict[Any, list[Seen]] = {}
    for k, one in enumerate(seen):
        groups.setdefault(one.days if asked.mosaic else k, []).append(one)
    first, *others = groups.values()
    kept = list(first)
    apart: dict[str, str] = {}
    for group in others:
        try:
            opened([one.item for one in (*first, *group)], asked)
            kept += group
        except EozipError as reason:
            apart |= {one.item.name: str(reason) for one in group}
    if len(groups) == 1 or not apart:
        return [], {one.item.name: str(error) for one in seen}
    return kept, apart


def _not_held(record: Record, name: str, seen: Sequence[Seen], found: Description | None) -> list[Seen]:
    """Inputs that a store does not have; those that it has, under another name or by a killed run, are noted."""
    have = set(zip(found.files, found.dates)) if found else set()
    held = [one for one in seen if set(zip(one.files, one.dates)) <= have]
    if held:
        record.hold(name, {one.item.name: one.noted() for one in held})
    return [one for one in seen if one not in held]


def _fitting(
    seen: list[Seen], found: Description | None, merges: bool, grid: str | None
) -> tuple[list[Seen], dict[str, str]]:
    """Inputs in the order of their dates, without those that cannot share a store (of this grid) with the others."""
    failed: dict[str, str] = {}
    counts = Counter(one.grid for one in seen)
    common = grid or max(counts, key=lambda one: counts[one])  # of equals the first
    last = max((date for date in found.dates if date is not None), default="") if found else ""
    day = _last_day(found) if found is not None and merges else ""
    files: dict[tuple[str, str | None], str] = {}
    fit: list[Seen] = []
    for one in sorted(seen, key=lambda one: (one.dates[0] or "", one.item.name)):
        reason = _reason(one, common, len(seen), last, files) or _merged_before(one, day)
        if reason is None:
            fit.append(one)
            files |= dict.fromkeys(zip(one.files, one.dates), one.item.name)
        else:
            failed[one.item.name] = reason
    return fit, failed


def _last_day(found: Description) -> str:
    """The solar day of a store's last date, or "" where that is unknown."""
    profile = found.profile
    place = {
        "height": profile.height,
        "width": profile.width,
        "transform": profile.transform,
        "crs": profile.crs,
    }
    days = [
        solar_day(datetime.fromisoformat(date), place).isoformat() for date in found.dates if date is not None
    ]
    return max(days, default="")


def _merged_before(one: Seen, last: str) -> str | None:
    if not last or min(day or "" for day in one.days) > last:
        return None
    return (
        f"{one.item.name}: expected a solar day after {last}, the last of {one.store}, got {one.days[0]}; a date that is in "
        "a store is never merged again: give all files of a day to one run"
    )


def _reason(
    one: Seen, common: str, count: int, last: str, files: Mapping[tuple[str, str | None], str]
) -> str | None:
    if one.grid != common:
        return (
            f"{one.item.name}: lies on another grid, or has other bands, than most of {one.store}: expected {common}, got "
            f"{one.grid}; warp it onto that grid, or archive with --by grid"
        )
    if None in one.dates and count > 1:
        return f"{one.item.name}: expected a date in its name or tags, got none; rename it, or archive with --by item"
    if last and min(date or "" for date in one.dates) <= last:
        return (
            f"{one.item.name}: expected a date after the last of {one.store}, {last}, got {min(map(str, one.dates))}; what "
            "is in a store is never moved: to insert it, remove that store and its entry in .eozip-archive/stores, and run "
            "again"
        )
    twice = [files[file, date] for file, date in zip(one.files, one.dates) if (file, date) in files]
    return f"{one.item.name}: has the name and date of {twice[0]}; leave one of them out" if twice else None


def _settled(name: str, seen: list[Seen], found: Description | None, asked: Asked) -> StorePlan:
    """A plan of inputs that fit.

    Raises:
        EozipError: they do not fit each other, or the settings do not suit them.
    """
    items = [one.item for one in seen]
    if found is not None:
        offset = None if found.product or asked.harmonise else found.codec.offset
        source, mask = opened(items, asked, offset, as_stored(found).get("lattice"))
        if asked.harmonise:
            source = harmonised_to(source, found.codec.offset)
        new = new_dates(found, source)
        check_append(found, new, {})
        note = _checked_settings(found.codec, new.scene, mask, asked)
        grid = replace(found.grid, shape=(found.grid.shape[0] + new.scene.shape[0], *found.grid.shape[1:]))
        order = tuple(new.positions[i] for i in stored_order(found))
        return StorePlan(name, seen, found, new.joined, order, new, found.codec, grid, {}, asked, mask, note)
    product, mask = opened(items, asked)
    given = joined(product, asked.nodata)
    is_of_values = product.scenes[0].lattice is not None
    options = replace(asked.options, offset=None, nodata=None) if is_of_values else asked.options
    wanted = request_for(given.scene, options, gop=asked.gop, likely=product.sensor)
    given = joined(given.product, wanted.codec.nodata)
    quality = None if asked.purposes else wanted.codec.quality
    codec = replace(wanted.codec, quality=quality, grids=given.grids(wanted.order))
    grid = plan(given.scene.shape, asked.chunk, asked.gop, alignment=alignment(codec.grids))
    problem = samples_problem([min(pair) for pair in zip(grid.shape, grid.chunk)])
    if problem:
        raise InputError(
            f"chunks of {grid.chunk}: {problem}; choose smaller ones with --chunk or --gop (chunk=, gop=)"
        )
    note = _checked_settings(codec, given.scene, mask, asked)
    facts = {**wanted.facts, **asked.places.facts()}
    settled = StorePlan(name, seen, None, given, wanted.order, None, codec, grid, facts, asked, mask, note)
    settled.holding()
    return settled


def _checked_settings(codec: EozipChunkCodec, scene: Scene, mask: Scene | None, asked: Asked) -> str:
    """Holds what a store's places and mask are asked for against its codec and its grid.

    Returns:
        what a person should read of it.

    Raises:
        InputError: the codec cannot do it, or the region is a raster on another grid.
    """
    check_drop(codec, mask if asked.drops else None)
    if not asked.places:
        return ""
    check_levelled(codec.codec)
    asked.places.check(codec.quality, mask is not None)
    if asked.places.roi is None:
        return ""
    with open_region(asked.places.roi, scene.profile, is_checked=True) as region:
        if covers(region, scene.profile):
            return ""
    return f"the region of interest covers none of its pixels: all of it has quality {asked.places.outside_quality}"
