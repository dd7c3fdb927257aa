"""What is shown: a store, or its original, as pixels by date, window and reduction.

Pixels come in blocks (a chunk of a store; a square of an original's date), decoded at the reduction that is wanted: of
codecs whose sections are scales only the first bytes are read. Blocks are kept in one cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from eozip import sensors
from eozip.arguments import Place, PlaceLike, place
from eozip.chunk import api
from eozip.codecs.scales import REDUCTIONS, all_over, averaged, ratio, size_at
from eozip.errors import FormatError, InputError
from eozip.raster import open_product
from eozip.store import Description, describe
from eozip.store.description import band_codes, band_positions, check_same_grids, check_same_pixels
from eozip.store.grid import Shape, Window
from eozip.store.joined import joined, open_joined
from eozip.store.overviews import Level, Overviews, level_for, levels_of, read_level
from eozip.store.pixels import open_pixels
from eozip.threads import ArrayCache

_BLOCK = 256  # side of an original's block
_SCALE = 1e-4  # reflectance of a DN where the sensor is not known


@dataclass(frozen=True)
class Facts:
    """What a layer says about itself.

    Attributes:
        name: for people; unique among the layers.
        kind: "store" or "original".
        shape: (T, C, H, W).
        bands: [C] names in the order of its pixels.
        dates: [T] ISO dates, None where unknown.
        tags: [T] text by name, as the source had it.
        crs: WKT, or None.
        transform: six affine coefficients, or None.
        nodata: DN without data, or None.
        offsets: [T][C] radiometric offsets in DN; reflectance = (DN - offset) * scale.
        scale: reflectance of a DN.
    """

    name: str
    kind: str
    shape: Shape
    bands: tuple[str, ...]
    dates: tuple[str | None, ...]
    tags: tuple[dict[str, str], ...]
    crs: str | None
    transform: tuple[float, ...] | None
    nodata: int | None
    offsets: tuple[tuple[float, ...], ...]
    scale: float


class Layer(Protocol):
    """Pixels of one source, and what they are."""

    @property
    def facts(self) -> Facts:
        """What it is."""
        ...

    def reductions(self) -> tuple[int, ...]:
        """Reductions that fit its blocks, 1 first."""
        ...

    def read(self, t: int, rows: slice, columns: slice, reduce: int = 1) -> np.ndarray:
        """DN [C, h, w] of a window of one date; at 1 / reduce, start and stop are multiples of `reduce` or the edge."""
        ...


def _fitting(side: int, length: int) -> tuple[int, ...]:
    """Reductions at which the edges of blocks are edges of reduced pixels."""
    return tuple(r for r in REDUCTIONS if side >= length or side % r == 0)


def _paste(out: np.ndarray, block: np.ndarray, at: tuple[int, int], rows: slice, columns: slice) -> None:
    """Copies what a block [C, h, w] whose corner is `at` shares with a window, all of it in reduced pixels."""
    y0, y1 = max(at[0], rows.start), min(at[0] + block.shape[1], rows.stop)
    x0, x1 = max(at[1], columns.start), min(at[1] + block.shape[2], columns.stop)
    if y0 < y1 and x0 < x1:
        part = block[:, y0 - at[0] : y1 - at[0], x0 - at[1] : x1 - at[1]]
        out[:, y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = part


def _reduced(part: slice, reduce: int) -> slice:
    return slice(part.start // reduce, -(-part.stop // reduce))


class StoreLayer:
    """A store of eozip; safe to use from many threads.

    Args:
        path: the store.
        name: for people.
        cache: shared by all layers.
    """

    def __init__(self, path: Place, name: str, cache: ArrayCache) -> None:
        self._path, self._name, self._cache = path, name, cache
        self._lock = threading.Lock()
        self.description = describe(path)
        self._facts = _store_facts(self.description, name)
        self._windows = _by_place(self.description)

    @property
    def facts(self) -> Facts:
        """What it is."""
        return self._facts

    def refresh(self) -> None:
        """Read the metadata again: dates may have been appended."""
        found = describe(self._path)
        with self._lock:
            if found.state == self.description.state:
                return
            self.description = found
            self._facts, self._windows = _store_facts(found, self._name), _by_place(found)
        self._cache.drop(lambda key: isinstance(key, tuple) and key[0] == self._name)

    def reductions(self) -> tuple[int, ...]:
        """Reductions that fit its chunks."""
        (_, _, h, w), (_, _, height, width) = self.description.grid.chunk, self.description.grid.shape
        made = [r for r in _fitting(h, height) if r in _fitting(w, width)]
        stored = [level.factor for level in levels_of(self.description.facts, self.description.grid)]
        finer = [r for r in REDUCTIONS if stored and r % stored[0] == 0]
        return tuple(sorted({*made, *finer, *stored}))

    def _stored(self, level: Level, t: int, rows: slice, columns: slice, reduce: int) -> np.ndarray:
        """DN [C, h, w] of a window of one date, from a level that is stored."""
        found = self.description
        like = Overviews((level,), found.codec, np.dtype(found.dtype))
        with open_pixels(found) as pixels:
            return read_level(pixels.files.get, level, like, [t], rows, columns, reduce)[0]

    def read(self, t: int, rows: slice, columns: slice, reduce: int = 1) -> np.ndarray:
        """DN [C, h, w] of a window of one date."""
        description = self.description
        y, x = _reduced(rows, reduce), _reduced(columns, reduce)
        level = level_for(levels_of(description.facts, description.grid), reduce)
        if level is not None:
            return self._stored(level, t, y, x, reduce)
        bands = description.grid.shape[1]
        out = np.full((bands, y.stop - y.start, x.stop - x.start), description.fill_value, description.dtype)
        for shard, window in self._touched(t, rows, columns):
            block = self.block(shard, window, reduce)
            at = window.rows[0] // reduce, window.columns[0] // reduce
            _paste(out, block[t - window.times[0]], at, y, x)
        return out

    def _touched(self, t: int, rows: slice, columns: slice) -> list[tuple[Shape, Window]]:
        gop, _, h, w = self.description.grid.chunk
        places = (
            (t // gop, y, x)
            for y in range(rows.start // h, -(-rows.stop // h))
            for x in range(columns.start // w, -(-columns.stop // w))
        )
        return [self._windows[place] for place in places]

    def block(self, shard: Shape, window: Window, reduce: int) -> np.ndarray:
        """DN [T, C, h, w] of one chunk at a reduction."""
        key = (self._name, self.description.state, shard, window.position, reduce)
        try:
            return self._cache.get(key, partial(self._decoded, shard, window, reduce))
        except FormatError as error:
            raise type(error)(f"{self._name}, {error}") from error

    def _decoded(self, shard: Shape, window: Window, reduce: int) -> np.ndarray:
        description = self.description
        dates = window.times[1] - window.times[0]
        extent = window.rows[1] - window.rows[0], window.columns[1] - window.columns[0]
        shape = (dates, description.grid.shape[1], *size_at(extent, reduce))
        out = np.full(shape, description.fill_value, description.dtype)
        with open_pixels(description) as pixels:
            opened = pixels.shard(shard)
            if opened is None or not opened.holds(window.position):
                return out
            with pixels.naming(shard, window):
                for stream in opened.streams(window.position):
                    needed = api.inspect(stream.head).reduced[reduce] if reduce > 1 else stream.total
                    data = opened.read(stream.start, stream.start + needed)
                    _fill(out, self._joined(api.decode(data, reduce=reduce), reduce, extent), stream.first)
        return out

    def _joined(
        self, made: np.ndarray | dict[int, np.ndarray], reduce: int, extent: tuple[int, int]
    ) -> np.ndarray:
        """One array on the finest grid at a reduction; the cells of coarser bands are repeated."""
        if not isinstance(made, dict):
            return made
        finest = next(iter(made.values()))
        size = size_at(extent, reduce)
        out = np.empty((len(finest), self.description.grid.shape[1], *size), finest.dtype)
        for grid, cells in zip(self.description.grids, made.values(), strict=True):
            side = grid.factor * ratio(reduce, grid.factor)  # pixels of the store along one of these cells
            rows, columns = (
                np.minimum((np.arange(n) * reduce + reduce // 2) // side, have - 1)
                for n, have in zip(size, cells.shape[2:])
            )
            out[:, list(grid.bands)] = cells[:, :, rows[:, None], columns]
        return out

    def chunk_at(self, t: int, row: int, column: int) -> tuple[Window, int]:
        """The chunk that holds a pixel, and the bytes of its streams."""
        shard, window = self._touched(t, slice(row, row + 1), slice(column, column + 1))[0]
        with open_pixels(self.description) as pixels:
            opened = pixels.shard(shard)
            if opened is None or not opened.holds(window.position):
                return window, 0
            start, stop = opened.span(window.position)
        return window, stop - start


def _fill(out: np.ndarray, dn: np.ndarray, first: int) -> None:
    """Puts the dates of one stream into a chunk; a stream of plain zarr has the whole chunk's extent."""
    count = max(0, min(len(dn), len(out) - first))
    if dn.shape[1] != out.shape[1] or dn.shape[2] < out.shape[2] or dn.shape[3] < out.shape[3]:
        raise FormatError(
            f"expected a stream of {out.shape}, got {dn.shape}; the store was changed after writing"
        )
    out[first : first + count] = dn[:count, :, : out.shape[2], : out.shape[3]]


def _paired(dates: Sequence[str | None], own: tuple[str | None, ...], is_whole: bool) -> dict[int, int]:
    """Positions in an original by position in its store: by time, and by place where one of the two dates is unknown.

    Args:
        dates: of the store.
        own: of the original.
        is_whole: whether the original has as many dates as the store had at first; else places tell nothing.
    """
    found = {
        t: t if own[t : t + 1] == (date,) else own.index(date)  # a date may be there twice
        for t, date in enumerate(dates)
        if date is not None and date in own
    }
    taken = set(found.values())
    for t, (date, other) in enumerate(zip(dates, own)):
        if is_whole and None in (date, other) and t not in found and t not in taken:
            found[t] = t
    return found


def _check_count(paths: Sequence[str], own: Sequence[str | None], kept: Facts) -> None:
    """Refuse originals that neither times nor places put to the dates of a store."""
    if len(own) == kept.shape[0] or (None not in own and any(kept.dates)):
        return
    whose = "theirs" if None in own else "the store's"
    raise InputError(
        f"{paths[0]}: expected as many dates as {kept.name} has, {kept.shape[0]}, as {whose} are not known, got {len(own)}; "
        "give all files that were encoded, in the same order, or files whose names tell dates that the store knows"
    )


def _no_pair(path: str, own: Sequence[str | None], kept: Facts) -> str:
    def span(dates: Sequence[str | None]) -> str:
        known = sorted(date for date in dates if date is not None)
        return f"{len(dates)}" + (f" from {known[0]} to {known[-1]}" if known else "")

    return (
        f"{path}: expected dates that {kept.name} has, {span(kept.dates)}, got none of them, {span(own)}; give the files "
        "that were encoded, or leave --original out"
    )


def _by_place(description: Description) -> dict[tuple[int, int, int], tuple[Shape, Window]]:
    """Every chunk by its place among all chunks: (group of dates, row, column)."""
    grid = description.grid
    gop, _, h, w = grid.chunk
    return {
        (window.times[0] // gop, window.rows[0] // h, window.columns[0] // w): (shard, window)
        for shard in grid.shards()
        for strip in grid.strips(shard)
        for window in strip
    }


def _store_facts(found: Description, name: str) -> Facts:
    bands = tuple(_band_names(found))
    tags = tuple(
        {key: value for space in by_date.values() for key, value in space.items()} for by_date in found.tags
    )
    return Facts(
        name=name,
        kind="store",
        shape=found.grid.shape,
        bands=bands,
        dates=found.dates,
        tags=tags,
        crs=found.profile.crs,
        transform=found.profile.transform,
        nodata=found.codec.nodata,
        offsets=found.offsets,
        scale=_scale(found),
    )


def _band_names(found: Description) -> list[str]:
    """[C] in the order of the array: as the sensor calls them, else as the source does."""
    codes = band_codes(found) or tuple(name or "" for name in found.profile.band_names)
    stored = {place: codes[i] for i, place in enumerate(found.band_order)}
    return [stored[i] or f"band_{i + 1}" for i in range(len(stored))]


def _scale(found: Description) -> float:
    if found.product is not None and found.product.lattice is not None:
        return found.product.lattice.step
    try:
        return sensors.get(found.codec.sensor).scale
    except InputError:  # a sensor of one's own that is not here, or none
        return _SCALE


class OriginalLayer:
    """What was encoded, read from its files; safe to use from many threads.

    Args:
        paths: GeoTIFFs, as for `eozip encode`.
        store: the layer that it is compared with: bands come in its order.
        cache: shared by all layers.

    Raises:
        InputError: other pixels than the store's, or dates that cannot be told apart.
    """

    def __init__(self, paths: Sequence[str], store: StoreLayer, cache: ArrayCache) -> None:
        found = store.description
        self._source = joined(open_product(list(paths)), found.codec.nodata)
        scene = self._source.scene
        positions = band_positions(scene, found)
        check_same_pixels(found, scene.select(positions))
        check_same_grids(found, tuple(self._source.band_factors[i] for i in positions))
        self._order = [positions[found.band_order.index(i)] for i in range(len(found.band_order))]
        self._cache = cache
        kept = store.facts
        self._own = tuple(None if date is None else date.isoformat() for date in scene.dates)
        _check_count(scene.paths, self._own, kept)
        self._is_whole = len(self._own) == kept.shape[0]
        places = {at: t for t, at in self.pairs(kept.dates).items()}
        if not places:
            raise InputError(_no_pair(scene.paths[0], self._own, kept))
        last = kept.shape[0] - 1
        self._facts = Facts(
            name=f"{kept.name}, original",
            kind="original",
            shape=(scene.shape[0], *kept.shape[1:]),
            bands=kept.bands,
            dates=tuple(
                kept.dates[places[at]] if date is None and at in places else date
                for at, date in enumerate(self._own)
            ),
            tags=({},) * scene.shape[0],
            crs=kept.crs,
            transform=kept.transform,
            nodata=kept.nodata,
            offsets=tuple(kept.offsets[places.get(at, min(at, last))] for at in range(len(self._own))),
            scale=kept.scale,
        )

    @property
    def facts(self) -> Facts:
        """What it is."""
        return self._facts

    def pairs(self, dates: Sequence[str | None]) -> dict[int, int]:
        """Positions of its dates by position in the store, whose dates (with those appended since) are given."""
        return _paired(dates, self._own, self._is_whole)

    def reductions(self) -> tuple[int, ...]:
        """All there are."""
        return REDUCTIONS

    def read(self, t: int, rows: slice, columns: slice, reduce: int = 1) -> np.ndarray:
        """DN [C, h, w] of a window of one date."""
        y, x = _reduced(rows, reduce), _reduced(columns, reduce)
        shape = (self._facts.shape[1], y.stop - y.start, x.stop - x.start)
        out = np.zeros(shape, self._source.scene.dtype)
        for top in range(rows.start // _BLOCK * _BLOCK, rows.stop, _BLOCK):
            for left in range(columns.start // _BLOCK * _BLOCK, columns.stop, _BLOCK):
                key = (self._facts.name, t, top, left, reduce)
                block = self._cache.get(key, partial(self._block, t, top, left, reduce))
                _paste(out, block, (top // reduce, left // reduce), y, x)
        return out

    def _block(self, t: int, top: int, left: int, reduce: int) -> np.ndarray:
        _, _, height, width = self._facts.shape
        rows, columns = slice(top, min(top + _BLOCK, height)), slice(left, min(left + _BLOCK, width))
        with open_joined(self._source, self._order) as reader:  # of this thread
            dn = reader.read(slice(t, t + 1), rows, columns)[0]
        if reduce == 1:
            return dn
        small = averaged(dn.astype(np.int64), reduce).astype(dn.dtype)
        nodata = self._facts.nodata
        return (
            small
            if nodata is None
            else np.where(all_over(dn == nodata, reduce), dn.dtype.type(nodata), small)
        )


@dataclass
class Layers:
    """All that is shown, by the number under which the outside asks for it.

    Attributes:
        cache: of their blocks.
        stores: in the order given.
        originals: of stores, by the store's number.
    """

    cache: ArrayCache
    stores: list[StoreLayer] = field(default_factory=list)
    originals: dict[int, OriginalLayer] = field(default_factory=dict)

    @property
    def all(self) -> list[Layer]:
        """Stores, then originals; positions are the numbers of their addresses."""
        return [*self.stores, *self.originals.values()]

    def get(self, number: int) -> Layer:
        """A layer by its number.

        Raises:
            InputError: there is none.
        """
        found = self.all
        if not 0 <= number < len(found):
            raise InputError(f"layer: expected a number from 0 to {len(found) - 1}, got {number}")
        return found[number]


def open_layers(
    stores: Sequence[PlaceLike],
    originals: Sequence[str] = (),
    *,
    cache_bytes: int = 512 * 2**20,
) -> Layers:
    """Open stores, and the original of every store that it fits.

    Args:
        stores: `.zarr` directories or `.zarr.zip` files of eozip, or URLs of `.zarr` on object stores and web servers.
        originals: GeoTIFFs that were encoded (dates of one scene), or none.
        cache_bytes: decoded pixels that are kept at most.

    Raises:
        InputError: no stores, or originals that fit no store.
        FormatError: one of them is no store of eozip.
    """
    if not stores:
        raise InputError("serve: expected at least one store, got none")
    layers = Layers(ArrayCache(cache_bytes))
    paths = [place("store", store, reading=True) for store in stores]
    for path, name in zip(paths, _names(paths)):
        layers.stores.append(StoreLayer(path, name, layers.cache))
    faults = []
    for i, store in enumerate(layers.stores if originals else []):
        try:
            layers.originals[i] = OriginalLayer(originals, store, layers.cache)
        except InputError as error:
            faults.append(str(error))
    if originals and not layers.originals:
        raise InputError(f"original: expected what one of the stores was made of; {faults[0]}")
    return layers


def _names(paths: Sequence[Place]) -> list[str]:
    """A short name of each store; where two are alike, with a number."""
    short = [path.name.removesuffix(".zip").removesuffix(".zarr") for path in paths]
    return [name if short.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(short, start=1)]


def reduction_for(layer: Layer, most: float) -> int:
    """The largest reduction of a layer that is not larger than wanted.

    Args:
        layer: the layer.
        most: pixels of the layer for one that is shown.
    """
    return max((r for r in layer.reductions() if r <= max(1.0, most)), default=1)


def overview(layer: Layer, t: int, side: int) -> tuple[np.ndarray, int]:
    """All of one date, at most about `side` pixels each way.

    Returns:
        DN [C, h, w], and how many pixels of the layer one of them is.
    """
    _, _, height, width = layer.facts.shape
    wanted = max(height, width) / side
    reduce = reduction_for(layer, 1 << max(0, math.ceil(math.log2(max(1.0, wanted)))))
    dn = layer.read(t, slice(0, height), slice(0, width), reduce)
    step = max(1, math.ceil(max(dn.shape[1:]) / side))
    return dn[:, ::step, ::step], reduce * step
