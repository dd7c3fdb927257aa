"""From what a caller names to stores and jobs: which inputs there are, which store each belongs to, which shards to code."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from eozip import arguments
from eozip.archive.record import Record
from eozip.bitstream import samples_problem
from eozip.errors import EozipError, InputError
from eozip.keys import PlaceLike
from eozip.raster import Scene, open_product, open_reader
from eozip.raster.files import PathLike, is_elsewhere, printable
from eozip.raster.header import band_file
from eozip.raster.product import Product
from eozip.store.append import NewDates, check_append, new_dates, stored_order
from eozip.store.codec import EozipChunkCodec, check_array
from eozip.store.convert import make_request
from eozip.store.description import Description, describe
from eozip.store.documents import GROUP
from eozip.store.grid import Grid, Shape, plan
from eozip.store.joined import Joined, dates_of, joined
from eozip.store.metadata import file_names
from eozip.store.native import alignment

BY = ("tile", "grid", "item")
_TILE = re.compile(
    r"(?<![A-Za-z0-9])T?((?:0[1-9]|[1-5]\d|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?![A-Za-z0-9])"
)
_TILE_TAGS = ("MGRS_TILE", "S2:MGRS_TILE", "TILE_ID", "SENTINEL2_TILE_ID", "TILE", "GRID:CODE")
_RASTERS = (".tif", ".tiff", ".jp2", ".vrt")
_EDGE = 1 << 16  # bytes at the beginning and the end of a file that its fingerprint holds
_ROWS = 512  # read at once where all pixels of an input are looked at


@dataclass(frozen=True)
class Asked:
    """What an archive is asked for; see `eozip.archive.archive`."""

    by: str = "tile"
    codec: str | None = None
    quality: float | None = None
    target_psnr: float | None = None
    max_error: int | None = None
    bands: tuple[str | int, ...] | None = None
    sensor: str | None = None
    offset: int | None = None
    nodata: int | None = None
    chunk: int | None = None
    gop: int = 4

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InputError(f"by: expected one of {', '.join(BY)}, got {self.by!r}")
        arguments.whole("gop", self.gop, 1)
        if self.chunk is not None:
            arguments.whole("chunk", self.chunk, 8)


@dataclass(frozen=True)
class Item:
    """One input, as encode takes it.

    Attributes:
        name: what it is called in reports and in the record.
        paths: files, products, or names that GDAL resolves.
        feature: a STAC item as JSON, where it is one of a collection.
    """

    name: str
    paths: tuple[str, ...]
    feature: str = ""


@dataclass(frozen=True)
class Seen:
    """What a look at one input found.

    Attributes:
        item: the input.
        store: name of the store that it belongs to.
        grid: size, place, data type and bands, as text: equal for inputs that may share a store.
        dates: ISO, None where nothing tells.
        files: a name for each date, as a store has it.
        print: fingerprint of the files.
        size: bytes of the files, as far as they are on this machine; `raw` of the pixels.
    """

    item: Item
    store: str
    grid: str
    dates: tuple[str | None, ...]
    files: tuple[str, ...]
    print: str
    size: int
    raw: int

    def noted(self) -> dict[str, Any]:
        """What the record keeps of it."""
        return {"print": self.print, "size": self.size, "files": self.files, "dates": self.dates}


# --- inputs ---


def items_of(inputs: PathLike | Sequence[PathLike]) -> list[Item]:
    """Every input that a caller means, none twice.

    Args:
        inputs: files, folders, globs, names that GDAL resolves, and text files (.txt) with one of these in a line.

    Raises:
        InputError: nothing, or something that is no input.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    found: dict[str, Item] = {}
    for one in given:
        for item in _expanded(arguments.text("items", os.fspath(one)) or ""):
            found.setdefault(item.name, item)
    if not found:
        raise InputError(
            "no items: expected GeoTIFFs, folders of them, globs, or a text file with one of these in a line"
        )
    return list(found.values())


def _expanded(name: str) -> Iterator[Item]:
    if is_elsewhere(name):
        yield _single(name)
    elif os.path.isdir(name):
        yield from _in_folder(Path(name))
    elif name.lower().endswith((".json", ".geojson")) and os.path.isfile(name):
        yield from _features(Path(name))
    elif name.lower().endswith(".txt") and os.path.isfile(name):
        for line in Path(name).read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                yield from _expanded(line.strip())
    elif not os.path.exists(name) and glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise InputError(f"{printable(name)}: expected files, got none that fit")
        yield from _grouped([path for path in matches if not os.path.isdir(path)])
        for path in matches:
            if os.path.isdir(path):
                yield from _in_folder(Path(path))
    else:
        yield _single(name)  # one that does not exist is set aside with that reason


def _features(path: Path) -> Iterator[Item]:
    """The items of a STAC item collection; one item stands for itself."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected JSON of STAC, got {error}") from error
    features = table.get("features") if isinstance(table, dict) else None
    if not isinstance(features, list):
        yield _single(str(path))
        return
    for feature in features:
        name = str(feature.get("id")) if isinstance(feature, dict) else "?"
        yield Item(f"{path.name}#{name}", (str(path),), json.dumps(_absolute(feature, path.parent)))


def _absolute(feature: Any, folder: Path) -> Any:
    """A STAC item whose assets are found from everywhere."""
    assets = feature.get("assets") if isinstance(feature, dict) else None
    if not isinstance(assets, dict):
        return feature
    moved = {
        key: {**asset, "href": str((folder / asset["href"]).resolve())}
        if isinstance(asset, dict) and isinstance(asset.get("href"), str) and not is_elsewhere(asset["href"])
        else asset
        for key, asset in assets.items()
    }
    return {**feature, "assets": moved}


def _in_folder(folder: Path) -> Iterator[Item]:
    if folder.suffix.upper() == ".SAFE":
        yield _single(str(folder))
        return
    inner = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    yield from _grouped([str(p) for p in inner if p.suffix.lower() in (*_RASTERS, ".zip") and p.is_file()])
    for path in inner:
        if path.is_dir() and path.suffix.lower() != ".zarr":
            yield from _in_folder(path)


def _grouped(paths: Sequence[str]) -> Iterator[Item]:
    """Files of one band each whose names say so belong together, date by date; all others stand for themselves."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        named = band_file(path)
        groups.setdefault(path if named.code is None else f"{named.date}", []).append(path)
    for group in groups.values():
        yield _single(group[0]) if len(group) == 1 else Item(_longest_common(group), tuple(group))


def _longest_common(paths: Sequence[str]) -> str:
    """What the names of one date's files begin with."""
    folder, names = os.path.dirname(paths[0]), [os.path.basename(path) for path in paths]
    same = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names)))
    return os.path.join(folder, names[0][:same].rstrip("_-. B") or names[0])


def _single(path: str) -> Item:
    return Item(printable(path), (path,))


# --- one input ---


def look_at(item: Item, asked: Asked) -> Seen:
    """Reads the headers of an input and all of its pixels once, so that what is broken is known before anything is coded.

    Raises:
        EozipError: it cannot be read; the message says why.
    """
    found = joined(product_of([item], asked), asked.nodata)
    scene = found.scene
    check_array(scene.shape, scene.dtype)
    for one in found.product.scenes:
        read_all(one)
    return Seen(
        item,
        _store_name(item, scene, asked.by),
        grid_text(scene, found.band_factors),
        tuple(None if date is None else date.isoformat() for date in scene.dates),
        tuple(file_names(scene)),
        *_fingerprint(scene),
        int(np.prod(scene.shape)) * scene.dtype.itemsize,
    )


def product_of(items: Sequence[Item], asked: Asked, offset: float | None = None) -> Product:
    """What encode would code of some inputs, described."""
    bands, offset = asked.bands and list(asked.bands), asked.offset if offset is None else offset
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for item in items if not item.feature for path in item.paths]
        features = [json.loads(item.feature) for item in items if item.feature]
        if features:
            collection = Path(folder, "items.json")
            collection.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
            paths.append(str(collection))
        return open_product(paths if len(paths) > 1 else paths[0], bands, offset)


def read_all(scene: Scene) -> None:
    """Reads every pixel, a few rows at a time, and keeps none.

    Raises:
        InputError: some cannot be read.
    """
    dates, _, height, width = scene.shape
    with open_reader(scene) as reader:
        for date in range(dates):
            for row in range(0, height, _ROWS):
                reader.read(slice(date, date + 1), slice(row, min(row + _ROWS, height)), slice(0, width))


def _fingerprint(scene: Scene) -> tuple[str, int]:
    """Of sizes, beginnings and ends of the files, which a file that is written again changes; and their bytes."""
    digest, total = hashlib.sha256(), 0
    for path in sorted({source.path for date in scene.sources for source in date}):
        digest.update(os.path.basename(path).encode("utf-8", "surrogateescape"))
        if os.path.isfile(path):
            size = os.path.getsize(path)
            total += size
            with open(path, "rb") as file:
                digest.update(f"{size}".encode() + file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                digest.update(file.read(_EDGE))
    digest.update(repr((scene.profile, scene.dates)).encode())
    return digest.hexdigest()[:32], total


def grid_text(scene: Scene, factors: Sequence[int]) -> str:
    """What all dates of a store share, as text: floats rounded, bands in any order."""
    profile = scene.profile
    crs = None if profile.crs is None else CRS.from_wkt(profile.crs)
    pixel = abs(profile.transform[0]) + abs(profile.transform[1]) if profile.transform else 1.0
    transform = profile.transform and [round(value / (1e-4 * pixel)) for value in profile.transform]
    return json.dumps(
        [
            [profile.height, profile.width],
            None if crs is None else crs.to_epsg() or profile.crs,
            transform,
            profile.dtype,
            profile.nodata,
            sorted(f"{name} {factor}" for name, factor in zip(scene.meanings, factors)),
        ]
    )


def _store_name(item: Item, scene: Scene, by: str) -> str:
    if by == "item":
        return f"{_plain(Path(item.name).stem)}.zarr"
    tile = tile_of(item, scene) if by == "tile" else None
    return f"{tile or _grid_name(scene)}.zarr"


def tile_of(item: Item, scene: Scene) -> str | None:
    """The MGRS tile that tags, or names of files and folders, tell."""
    tags = {name.upper(): value for date in scene.tags for name, value in date.get("", {}).items()}
    texts = [tags[name].upper().removeprefix("MGRS-") for name in _TILE_TAGS if name in tags]
    parts = item.paths[0].replace("\\", "/").split("/")
    for text in (*texts, *reversed(parts[-4:])):
        found = _TILE.findall(re.sub(r"[_.]", " ", text))
        if found:
            return str(found[-1])
    return None


def _grid_name(scene: Scene) -> str:
    """A name by place: CRS, corner, size of a pixel and of the scene."""
    profile = scene.profile
    epsg = None if profile.crs is None else CRS.from_wkt(profile.crs).to_epsg()
    size = f"{profile.height}x{profile.width}"
    if profile.transform is None:
        return f"grid_{size}"
    a, _, c, _, _, f = profile.transform
    return _plain(f"epsg{epsg or 'none'}_{c:.7g}_{f:.7g}_{abs(a):.6g}_{size}")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip(".") or "item"


# --- stores ---


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
        items: position among the store's new inputs of each of the dates' inputs.
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
    items: tuple[int, ...]

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
    parts: dict[Shape, dict[str, Any]] = field(default_factory=dict)
    waiting: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    planned: bool = False

    @property
    def first(self) -> int:
        """How many dates the store has."""
        return 0 if self.found is None else self.found.grid.shape[0]

    def shards(self) -> list[Shape]:
        """Those that get new dates."""
        step = self.grid.shard[0]
        return [s for s in self.grid.shards() if min((s[0] + 1) * step, self.grid.shape[0]) > self.first]

    def jobs(self, out: PlaceLike, token: str, installed: Mapping[str, Any]) -> Iterator[Job]:
        """One for each shard; the scenes of a group of dates are shared."""
        owners = self._owners()
        step = self.grid.shard[0]
        for shard in self.shards():
            begin = max(shard[0] * step, self.first)
            stop = min((shard[0] + 1) * step, self.grid.shape[0])
            part = slice(begin - self.first, stop - self.first)
            yield Job(
                str(out),
                self.name,
                self._id(shard, part, installed),
                token,
                installed,
                self.codec.to_dict(),
                dates_of(self.joined, part),
                self.order,
                replace(self.grid, shape=(stop, *self.grid.shape[1:])),
                shard,
                begin,
                begin > shard[0] * step,
                self.found is not None,
                tuple(owners[part]),
            )

    def _owners(self) -> list[int]:
        """[T] which input each new date is of; dates of a scene are in time order, as are inputs."""
        by_file = {
            (file, date): k for k, one in enumerate(self.seen) for file, date in zip(one.files, one.dates)
        }
        dates = [None if date is None else date.isoformat() for date in self.joined.scene.dates]
        return [by_file[file, date] for file, date in zip(file_names(self.joined.scene), dates)]

    def _id(self, shard: Shape, part: slice, installed: Mapping[str, Any]) -> str:
        owners = self._owners()[part]
        told = [
            self.codec.to_dict(),
            self.grid.shape[1:],
            self.grid.chunk,
            self.grid.per_shard,
            shard,
            self.first if shard[0] * self.grid.shard[0] < self.first else 0,
            [self.seen[k].print for k in owners],
            file_names(self.joined.scene)[part],
            dict(installed),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def grouped(seen: Sequence[Seen]) -> dict[str, list[Seen]]:
    """Inputs by store, stores by name."""
    stores: dict[str, list[Seen]] = {}
    for one in seen:
        stores.setdefault(one.store, []).append(one)
    return dict(sorted(stores.items()))


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
    where = record.store(name)
    found = describe(where) if record.keys.get(f"{name}/{GROUP}") is not None else None
    left = _not_held(record, name, seen, found)
    if not left:
        record.forget_jobs(name)
        return None, {}
    fit, failed = _fitting(left, found)
    if not fit:
        return None, failed
    try:
        plan = _settled(name, fit, found, asked)
    except EozipError as error:
        return None, failed | {one.item.name: str(error) for one in fit}
    return plan, failed


def _not_held(record: Record, name: str, seen: Sequence[Seen], found: Description | None) -> list[Seen]:
    """Inputs that a store does not have; those that it has, under another name or by a killed run, are noted."""
    have = set(zip(found.files, found.dates)) if found else set()
    held = [one for one in seen if set(zip(one.files, one.dates)) <= have]
    if held:
        record.hold(name, {one.item.name: one.noted() for one in held})
    return [one for one in seen if one not in held]


def _fitting(seen: list[Seen], found: Description | None) -> tuple[list[Seen], dict[str, str]]:
    """Inputs in the order of their dates, without those that cannot share a store with the others."""
    failed: dict[str, str] = {}
    counts = Counter(one.grid for one in seen)
    common = max(counts, key=lambda grid: counts[grid])  # of equals the first
    last = max((date for date in found.dates if date is not None), default="") if found else ""
    files: dict[tuple[str, str | None], str] = {}
    fit: list[Seen] = []
    for one in sorted(seen, key=lambda one: (one.dates[0] or "", one.item.name)):
        reason = _reason(one, common, len(seen), last, files)
        if reason is None:
            fit.append(one)
            files |= dict.fromkeys(zip(one.files, one.dates), one.item.name)
        else:
            failed[one.item.name] = reason
    return fit, failed


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
    items = [one.item for one in seen]
    if found is not None:
        source = product_of(items, asked, None if found.product else found.codec.offset)
        new = new_dates(found, source)
        check_append(found, new, {})
        grid = replace(found.grid, shape=(found.grid.shape[0] + new.scene.shape[0], *found.grid.shape[1:]))
        order = tuple(new.positions[i] for i in stored_order(found))
        return StorePlan(name, seen, found, new.joined, order, new, found.codec, grid, {})
    product = product_of(items, asked)
    given = joined(product, asked.nodata)
    wanted = make_request(
        given.scene,
        asked.codec,
        quality=asked.quality,
        target_psnr=asked.target_psnr,
        max_error=asked.max_error,
        sensor=asked.sensor,
        nodata=asked.nodata,
        offset=asked.offset,
        gop=asked.gop,
        likely=product.sensor,
    )
    given = joined(given.product, wanted.codec.nodata)
    codec = replace(wanted.codec, grids=given.grids(wanted.order))
    grid = plan(given.scene.shape, asked.chunk, asked.gop, alignment=alignment(codec.grids))
    problem = samples_problem([min(pair) for pair in zip(grid.shape, grid.chunk)])
    if problem:
        raise InputError(
            f"chunks of {grid.chunk}: {problem}; choose smaller ones with --chunk or --gop (chunk=, gop=)"
        )
    return StorePlan(name, seen, None, given, wanted.order, None, codec, grid, dict(wanted.facts))
