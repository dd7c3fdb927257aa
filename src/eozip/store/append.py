"""New dates for a store that is there: more groups, and not a pixel of the old ones changed.

Dates are cut into groups where Zarr's chunks begin; what does not fill a group forms a shorter one. Where the store's
last group is such a short one, the next dates take the rest of its chunk: they join the old dates' stream, where the codec
can code them knowing these (`eozip.chunk.growing`), or have a stream of their own behind it, which is copied byte for byte.
All else of the store is not even read. Every key but the metadata suits the old dates too, and the group's document is
replaced last: a killed append leaves the store as it was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from eozip.arguments import PlaceLike, place
from eozip.chunk.encoding import check_levelled
from eozip.chunk.pixels import unit_of
from eozip.codecs import registry
from eozip.codecs.base import GrowingCodec
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError, WeightsError
from eozip.raster import Scene
from eozip.raster.masks import MaskReader
from eozip.raster.product import Product
from eozip.store.coding import Run, encoded_shards, psnr_of, squares_of, stream_offsets, tally_of
from eozip.store.container import changing, updating
from eozip.store.description import (
    Description,
    band_positions,
    check_same_grids,
    check_same_source,
    describe,
    described,
)
from eozip.store.documents import ARRAY, LayerDocument, read
from eozip.store.files import GROUP, Container, StoreFiles, store_files
from eozip.store.grid import Shape, Window, alignment, regular_groups, samples
from eozip.store.holding import held_by
from eozip.store.joined import Joined, Placed, as_product, joined, open_joined, placed, put_values
from eozip.store.metadata import layer_keys
from eozip.store.old_streams import OldStreams
from eozip.store.options import Places, Progress
from eozip.store.overviews import Overviews, level_paths, levels_of
from eozip.store.pixels import StorePixels, open_pixels
from eozip.store.priorities import open_places
from eozip.store.records import grown, lattice_record
from eozip.store.repair import check_arrays, check_foreign, grown_record, rewritten_keys
from eozip.store.shards import pack_shard, split
from eozip.store.writer import check_drop, quality_range


def put_shard(
    run: Run, old: OldStreams, container: Container, shard: Shape, new: Mapping[Shape, bytes]
) -> int:
    """Write one shard: the streams it has, and the new ones behind them or in place of those that they joined.

    Args:
        run: the append.
        old: streams of the store before.
        container: takes the shard.
        shard: its index.
        new: streams of the new dates by position; none for chunks where these hold nothing.

    Returns:
        how many of its chunks had nothing stored before.

    Raises:
        FormatError: the shard is damaged, has fewer dates than the store shows, or more which those need.
    """
    windows = {window.position: window for strip in run.windows(shard) for window in strip}
    held = [position for position, window in windows.items() if old.holds(shard, window)]
    fresh = [position for position in new if position not in held]
    chunks = {p: _chunk(old, shard, windows[p], new.get(p)) for p in (*held, *fresh)}
    if chunks:
        container.put(f"{ARRAY}/{run.grid.key(shard)}", pack_shard(chunks, run.grid.per_shard))
    for key, data in run.level_chunks(shard, old.pixels.files.get).items():
        container.put(key, data)
    return len(fresh)


def _chunk(old: OldStreams, shard: Shape, window: Window, new: bytes | None) -> bytes:
    """Bytes of one chunk; streams of a chunk lie date behind date, so a gap takes a stream of nothing."""
    if new is None:
        new = _nothing(old.pixels, window, window.times[1] - window.times[0])
    stop = old.dates_in(shard, window.position) + window.times[1] - window.times[0]
    first = stop - sum(len(piece.dates) for piece in split(new))
    before = old.until(shard, window, first)
    if first and not before:
        before = _nothing(old.pixels, window, first)
    return before + new


def _nothing(pixels: StorePixels, window: Window, dates: int) -> bytes:
    found = pixels.description
    (y0, y1), (x0, x1) = window.rows, window.columns
    empty = np.full((dates, found.grid.shape[1], y1 - y0, x1 - x0), found.fill_value, found.dtype)
    asked = {"quality": None, "target_psnr": None, "max_error": None, "budgets": None}
    return replace(found.codec, codec=LOSSLESS, **asked).encoded(empty).blob  # type: ignore[arg-type]


@dataclass(frozen=True)
class Appended:
    """What one `append_store` did.

    Attributes:
        output: path of the store.
        codec: full id.
        shape: (T, C, H, W) of the store now.
        dates: [t] ISO dates that are new, None where unknown.
        groups: dates in each new group.
        chunks: chunks encoded; `empty` of them hold nodata only.
        bytes: size of the store now; `bytes_before` before.
        beside_bytes: of them, rasters beside the bands of the new dates.
        bpppb: bits by which the store grew, without those rasters, by new sample.
        psnr: dB at peak 10,000 DN over the new valid pixels that were not dropped; None where they are all equal.
        date_psnr: [t] dB.
        date_bits: [t] as in `Summary`.
        dropped: as in `Summary`, of the new dates.
        date_dropped: [t] likewise.
        missed: chunks that did not reach the store's target PSNR.
        joined: chunks whose new dates know those that were there, of the group that was not full.
        apart: chunks whose new dates do not, although there is room for them in one stream.
        why_apart: what keeps dates of this store apart; None: nothing does, or other chunks and dates would join.
        seconds: wall time.
    """

    output: str
    codec: str
    shape: Shape
    dates: list[str | None]
    groups: list[int]
    chunks: int
    empty: int
    bytes: int
    bytes_before: int
    beside_bytes: int
    bpppb: float
    psnr: float | None
    date_psnr: list[float | None]
    date_bits: list[float | None]
    dropped: float | None
    date_dropped: list[int] | None
    missed: int
    joined: int
    apart: int
    why_apart: str | None
    seconds: float


def append_store(
    store: PlaceLike,
    source: Scene | Product,
    *,
    asked: Mapping[str, Any] | None = None,
    drop: MaskReader | None = None,
    places: Places | None = None,
    hidden: MaskReader | None = None,
    progress: Progress = lambda done, total: None,
) -> Appended:
    """Encode the dates of a scene or a product into a store, behind those that are there.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file written by eozip.
        source: the new dates, on the store's grids and with its bands (in any order where they have names). Dates of a
            product keep the radiometric offset that it says; of a scene it is the store's.
        asked: fields of `EozipChunkCodec` that the caller expects of the store; None and missing ones are not
            compared.
        drop: mask of the new dates, as in `encode_store`; may be given whether the dates before had one or not.
        places: quality by place of the new dates, as in `encode_store`; errors in proportion to brightness stay so.
        hidden: as in `encode_store`.
        progress: called with chunks done and chunks in all.

    Returns:
        the summary.

    Raises:
        InputError: dates that do not lie behind the store's, another grid, other bands, or another encoding.
        FormatError: the store is damaged, or not one that dates can be appended to.
        WeightsError: the store was encoded with other weights than the installed ones.
        OutputError: another program is changing the store, or the disk refused; the store is as it was.
    """
    started = time.perf_counter()
    with changing(place("store", store)) as path:
        found = describe(path)
        before = found.bytes
        settled = continued(found, places or Places())
        run = _append(found, source, asked or {}, drop, progress, settled, hidden)
    return _summary(found, before, run, str(store), time.perf_counter() - started)


def _append(
    found: Description,
    source: Scene | Product,
    asked: Mapping[str, Any],
    drop: MaskReader | None,
    progress: Progress,
    places: Places,
    hidden: MaskReader | None,
) -> Run:
    """Encodes and writes; the store is locked."""
    new = new_dates(found, source)
    check_append(found, new, asked)
    check_drop(found.codec, drop)
    if places:
        check_levelled(found.codec.codec)
    run = append_run(found, new, progress, drop)
    order = [new.positions[i] for i in stored_order(found)]
    layers = placed(new.joined.product.beside, new.joined.scene, run.grid, alignment(found.codec.grids))
    codec, unit = found.codec, unit_of(found.codec.sensor)
    with (
        open_places(places, new.scene.profile, codec.quality, codec.nodata, unit, hidden) as run.places,
        updating(found.path, found.state) as container,
        open_pixels(found) as pixels,
        open_joined(new.joined, order) as reader,
    ):
        check_layers(pixels.files, layers)
        old = OldStreams(pixels, run.grid, run.first)
        more = sum(
            put_shard(run, old, container, shard, streams)
            for shard, streams in encoded_shards(run, reader, old)
        )
        run.beside_bytes = put_values(container, layers, run.first)
        product = grown(found, new.joined, new.positions, new.offsets, layers)
        record = grown_record(found, new.scene, grown_facts(found, run, more), product)
        nodes = new_nodes(found, new, layers, run.grid.shape[0])
        for key, data in rewritten_keys(pixels.files, record, nodes).items():
            container.put(key, data)
    return run


def continued(found: Description, places: Places) -> Places:
    """With what holds for every date of a store that was encoded so: errors in proportion to brightness.

    Raises:
        InputError: another power than the store's.
    """
    known = found.facts.get("places", {}).get("relative", 0.0)
    if places.relative not in (0.0, known):
        raise InputError(
            f"{found.path}: relative: expected {known:g}, as the store was encoded, got {places.relative:g}; leave it out, "
            "or encode the dates into a store of their own"
        )
    return replace(places, relative=known)


@dataclass(frozen=True)
class NewDates:
    """Dates that are to be appended.

    Attributes:
        joined: what was given.
        positions: in its scene of the store's bands, in the order of the store's source.
        scene: these bands.
        offsets: [t][C] radiometric offsets of these bands.
    """

    joined: Joined
    positions: list[int]
    scene: Scene
    offsets: tuple[tuple[float, ...], ...]


def new_dates(found: Description, source: Scene | Product) -> NewDates:
    product = as_product(source)
    for scene in product.scenes:
        if scene.is_masked and found.codec.nodata is None:
            raise InputError(
                f"{found.path}: expected files without a mask, as the store has no nodata value, got {scene.paths[0]} "
                "with one; encode all dates into a new store"
            )
    given = joined(product, found.codec.nodata)
    positions = band_positions(given.scene, found)
    scene = given.scene.select(positions)
    check_same_grids(found, tuple(given.band_factors[i] for i in positions))
    own = (float(found.codec.offset),) * scene.shape[1]
    offsets = scene.band_offsets if isinstance(source, Product) else (own,) * scene.shape[0]
    return NewDates(given, positions, scene, offsets)


def new_nodes(found: Description, new: NewDates, layers: Sequence[Placed], dates: int) -> dict[str, bytes]:
    """Documents and coordinates of layers that the store did not have."""
    known = {layer.path for layer in (found.product.layers if found.product else ())}
    more = [layer for layer in layers if layer.record.path not in known]
    return layer_keys(new.joined.scene.profile, new.joined.factors, more, dates)


def check_layers(files: StoreFiles, layers: Sequence[Placed]) -> None:
    """Refuse values of another kind or size than the store's array of that name has."""
    for one in layers:
        key = f"{one.record.path}/{GROUP}"
        if files.size(key) is None:
            continue
        array = read(files, key, LayerDocument)
        expected = array.shape[1:], array.data_type, array.chunk_grid.configuration.chunk_shape[1:]
        got = one.layer.scene.shape[2:], one.layer.scene.dtype.name, one.chunk
        if expected != got or array.fill_value != one.fill:
            raise InputError(
                f"{files.path}: {one.record.path}: expected (size, type, chunks) {expected} with {array.fill_value} for "
                f"missing values, as the store has it, got {got} with {one.fill}; leave that layer out, or encode the "
                "dates into a store of their own"
            )


# --- what may be appended ---


def check_append(found: Description, new: NewDates, asked: Mapping[str, Any]) -> None:
    """Everything is compared before anything is encoded."""
    scene = new.scene
    check_same_source(found.profile, scene.profile, found.path)
    if lattice_record(scene.lattice) != (found.product.lattice if found.product else None):
        raise InputError(
            f"{found.path}: expected values of {found.product and found.product.lattice}, as the store has them, got "
            f"{scene.lattice}; encode the dates into a store of their own"
        )
    for name, value in asked.items():
        have = getattr(found.codec, name)
        if value is not None and value != have:
            raise InputError(
                f"{found.path}: {name}: expected {have!r}, as the store was encoded, got {value!r}; leave it out, or "
                "encode the dates into a store of their own"
            )
    check_foreign(found)
    _check_dates(found, scene.dates)
    with store_files(found.path) as files:
        layers = [layer.path for layer in (found.product.layers if found.product else ())]
        check_arrays(files, [*layers, *level_paths(found.facts)])
    _check_weights(found)


def _check_dates(found: Description, dates: Sequence[datetime | None]) -> None:
    known = [date for date in found.dates if date is not None]
    if len(known) < len(found.dates):
        return  # the store counts its dates by an index, in the order in which they came
    last = max(datetime.fromisoformat(date) for date in known)
    for date in dates:
        if date is None or date <= last:
            got = (
                "one whose date neither its file name nor its tags tell" if date is None else date.isoformat()
            )
            raise InputError(
                f"{found.path}: expected dates after the store's last, {last.isoformat()}, got {got}; what is in "
                "the store is never moved: to insert dates, encode all of them into a new store"
            )


def unchecked(found: Description) -> list[str]:
    """A note where new dates cannot be compared with those of the store, as some of these are not known."""
    if None not in found.dates:
        return []
    return [
        f"{found.path}: not all of its dates are known, so whether the new ones are later, or there already, cannot be "
        "checked; they follow in the order given"
    ]


def _check_weights(found: Description) -> None:
    expected = found.facts.get("weights_hash")
    got = (
        None if found.codec.codec == registry.LOSSLESS else registry.get(found.codec.codec).weights_hash.hex()
    )
    if expected != got:
        raise WeightsError(
            f"{found.path}: expected weights {expected} of {found.codec.codec}, got {got}; install the weights that "
            "the store was encoded with"
        )


def stored_order(found: Description) -> list[int]:
    """Positions in the source of the array's bands: the inverse of `band_order`."""
    return [found.band_order.index(position) for position in range(len(found.band_order))]


def append_run(found: Description, new: NewDates, progress: Progress, drop: MaskReader | None) -> Run:
    first, bands, height, width = found.grid.shape
    grid = replace(found.grid, shape=(first + new.scene.shape[0], bands, height, width))
    scene = replace(new.scene, offsets=new.offsets)
    tally = tally_of(found.codec, scene, stored_order(found))
    hold = held_by(found)
    levels = levels_of(found.facts, grid)
    gathered = Overviews(levels, found.codec, np.dtype(found.dtype)) if levels else None
    return Run(found.codec, grid, tally, progress, first, drop, stream_offsets(scene), hold, levels=gathered)


def grown_facts(found: Description, run: Run, more: int) -> dict[str, Any]:
    """What the store knows with its new dates.

    Args:
        found: the store before.
        run: after the last chunk.
        more: chunks that are stored now and were not.
    """
    old = found.facts
    counts = np.array(old["valid_pixels"]) + run.tally.counts.sum(0)
    peak = float(old["peak"])
    squares = squares_of(old["band_psnr"], np.array(old["valid_pixels"]), peak) + run.tally.squares.sum(0)
    chunks = run.grid.chunk_count
    used = [*(old["quality_used"] or []), *(quality_range(run) or [])]
    by_date = {"date_psnr": run.tally.date_psnr(), "date_bits": run.known_date_bits()}
    return {
        **old,
        "quality_used": [min(used), max(used)] if used else None,
        "psnr": psnr_of(float(squares.sum()), int(counts.sum()), peak),
        "band_psnr": [psnr_of(float(s), int(n), peak) for s, n in zip(squares, counts)],
        **{name: [*old[name], *new] for name, new in by_date.items()},
        **_dropped(found, run),
        "valid_pixels": counts.tolist(),
        "chunks": chunks,
        "empty_chunks": chunks - (old["chunks"] - old["empty_chunks"] + more),
        **{name: old.get(name, 0) + more for name, more in _counts(run).items()},
        "groups": [*found.groups, *_new_groups(run)],
        **({} if run.hold is None else run.hold.facts(old)),
    }


def _dropped(found: Description, run: Run) -> dict[str, Any]:
    """Of dates without a mask nothing was dropped."""
    old = found.facts.get("date_dropped")
    if old is None and not run.is_masked:
        return {}
    return {"date_dropped": [*(old or [0] * run.first), *run.tally.dropped.tolist()]}


def _counts(run: Run) -> dict[str, int]:
    return {
        "chunks_below_target": run.missed,
        "chunks_with_residual_layer": run.layered,
        "chunks_without_network": run.without_network,
        **({"chunks_with_level_map": run.levelled} if run.levelled else {}),
    }


def _new_groups(run: Run) -> tuple[int, ...]:
    return regular_groups(run.first, run.grid.shape[0], run.grid.chunk[0])


def _summary(found: Description, before: int, run: Run, output: str, seconds: float) -> Appended:
    with store_files(found.path) as files:
        size = files.total_bytes()
        now = described(files)
    measured = samples((now.grid.shape[0] - run.first, *now.grid.shape[1:]), now.codec.grids)
    return Appended(
        output=output,
        codec=run.codec.codec,
        shape=run.grid.shape,
        dates=list(now.dates[run.first :]),
        groups=list(_new_groups(run)),
        chunks=run.done,
        empty=run.empty,
        bytes=size,
        bytes_before=before,
        beside_bytes=run.beside_bytes,
        bpppb=8 * (size - before - run.beside_bytes) / measured,
        psnr=run.tally.psnr(),
        date_psnr=run.tally.date_psnr(),
        date_bits=run.known_date_bits(),
        dropped=run.dropped_share(),
        date_dropped=run.date_dropped(),
        missed=run.missed,
        joined=run.joined,
        apart=run.apart,
        why_apart=_why_apart(found) if run.apart else None,
        seconds=seconds,
    )


def _why_apart(found: Description) -> str | None:
    """What keeps new dates of a store from joining old ones, whatever they are."""
    codec, hold = found.codec, held_by(found)
    if codec.codec == LOSSLESS or not isinstance(registry.get(codec.codec), GrowingCodec):
        return f"dates cannot join those of {codec.codec}"
    if hold is not None and hold.by_chunk:
        return "purposes give each group a quality of its own"
    kept = {
        "a largest error corrects each group by itself": codec.max_error is not None,
        "the quality of those misses the target PSNR, or takes more bytes": codec.target_psnr is not None,
    }
    return next((why for why, is_so in kept.items() if is_so), None)
