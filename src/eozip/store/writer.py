"""From a scene to a store: windows are read, encoded, checked and written shard by shard.

Every chunk is decoded at once, by the encoder where it must know its pixels, else here: that proves the stream, and gives
the PSNR of what a reader will see.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import zarr

import eozip
from eozip.arguments import Place, PlaceLike, place
from eozip.bitstream import samples_problem
from eozip.chunk.encoding import check_droppable, check_levelled
from eozip.chunk.pixels import REFLECTANCE, unit_of
from eozip.codecs import registry
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError
from eozip.purpose import Classifier, Pixels, Purpose
from eozip.raster import Scene
from eozip.raster.masks import MaskReader
from eozip.raster.product import Product
from eozip.sensors.sensor import canonical_name
from eozip.store.codec import BITSTREAM, EozipChunkCodec, check_array
from eozip.store.coding import PixelReader, Run, encoded_shards, stream_offsets, tally_of
from eozip.store.container import check_target, writing
from eozip.store.documents import ARRAY
from eozip.store.files import Container, store_files
from eozip.store.grid import GOP, Grid, Shape, alignment, band_factors, plan, samples
from eozip.store.holding import Holding
from eozip.store.joined import Joined, Placed, grid_names, joined, open_joined, placed, put_values
from eozip.store.metadata import band_labels, metadata_keys
from eozip.store.options import Places, Progress
from eozip.store.overviews import FACT, overviews_of
from eozip.store.priorities import PlaceReader, open_places
from eozip.store.records import Extras, extras_of
from eozip.store.shards import pack_shard
from eozip.store.spread import check_aligned, cluster_of, write_on_cluster

_ZIP_ENTRY = 200  # bytes that a zip file has for a name, about


@dataclass(frozen=True)
class Summary:
    """What one `encode_store` did.

    Attributes:
        output: path of the store.
        codec: full id.
        shape: (T, C, H, W).
        bands: [C] names as stored.
        grids: names of the grids on which its bands were measured, finest first.
        samples: what was measured, all bands and dates; of bands on coarser grids their own cells.
        chunks: chunks in all; `empty` of them hold nodata only and are not stored.
        bytes: size of everything in the store, of which rasters beside the bands take `beside_bytes`; `raw_bytes` of the
            uncompressed samples.
        ratio: raw_bytes by the bytes that are not beside the bands.
        files_bytes: of the files that held the bands; None where unknown. `files_ratio` likewise.
        bpppb: bits of what is not beside the bands by sample.
        psnr: dB at peak 10,000 DN over all valid pixels that were not dropped; None where they are all equal, or
            there are none.
        band_psnr: [C] dB.
        date_psnr: [T] dB.
        date_bits: [T] bits of each date's chunk streams, estimated as the codec's encoder counted them where a
            stream holds several dates; None where the codec cannot tell.
        quality: lowest and highest quality used by a chunk (lossless counts as 100); None if none is stored.
        target_psnr: dB asked for, or None; `missed` chunks did not reach it.
        max_error: DN promised for every pixel, or None.
        dropped: share of the pixels of all dates that nothing was spent on, and that are forecast; None without a mask.
        date_dropped: [T] such pixels, of H x W; None without a mask.
        layered: chunks with a residual layer; `without_network`: chunks coded losslessly or near-losslessly.
        left_out: sentences about dates that were left out, as they are damaged.
        rounding: of values that were not whole numbers, how far one was from its DN at most; None of whole numbers.
        purposes: what the store was made for, with the worst value of its chunks; None: the best there is.
        seconds: wall time; `mpx_per_s` millions of pixels (H x W of all bands and dates at once) per second.
    """

    output: str
    codec: str
    shape: Shape
    bands: list[str | None]
    grids: list[str]
    samples: int
    chunks: int
    empty: int
    bytes: int
    beside_bytes: int
    raw_bytes: int
    ratio: float
    files_bytes: int | None
    files_ratio: float | None
    bpppb: float
    psnr: float | None
    band_psnr: list[float | None]
    date_psnr: list[float | None]
    date_bits: list[float | None]
    peak: float
    quality: list[float] | None
    target_psnr: float | None
    missed: int
    max_error: int | None
    dropped: float | None
    date_dropped: list[int] | None
    layered: int
    without_network: int
    left_out: list[str]
    rounding: float | None
    purposes: dict[str, float | None]
    seconds: float
    mpx_per_s: float


def encode_store(
    source: Scene | Product,
    out: PlaceLike,
    codec: EozipChunkCodec,
    *,
    order: Sequence[int] | None = None,
    chunk: int | None = None,
    gop: int = GOP,
    overwrite: bool = False,
    drop: MaskReader | None = None,
    places: Places | None = None,
    hidden: MaskReader | None = None,
    purposes: Sequence[Purpose] = (),
    classes: Classifier | None = None,
    overviews: bool = False,
    facts: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Encode a scene or a product into a Zarr v3 store.

    Args:
        source: the source, its bands in any order; those of a product are its scenes' one after the other.
        out: a `.zarr` directory or `.zarr.zip` file; written under another name and renamed at the end.
        codec: the codec with everything it was asked for; grids are the product's.
        order: positions in `source` of the bands in the order of the codec's sensor; None if they are in it.
        chunk: side of a chunk in pixels; None fits it near 256.
        gop: most dates in one chunk.
        overwrite: whether an existing output may be replaced.
        drop: mask on the scene's grid (`eozip.raster.masks.open_mask`); see `eozip.encode`.
        places: quality by place; None: the same everywhere.
        hidden: the mask of which `places` tells, on the scene's grid.
        purposes: that every chunk is to serve, instead of what `codec` asks for; those of the whole store are only recorded.
        classes: for the purpose "agreement".
        overviews: whether reduced pictures are stored (`eozip.store.overviews`), where the scene is large enough for them.
        facts: provenance added to what the store records.
        progress: see `Progress`.

    Returns:
        the summary.

    Raises:
        InputError: pixels the codec cannot take.
        OutputError: the output exists, is misnamed, or cannot be written.
    """
    started = time.perf_counter()
    if not isinstance(codec, EozipChunkCodec):
        raise InputError(
            f"codec: expected an EozipChunkCodec, got {codec!r:.80}; eozip.encode_store takes names of codecs"
        )
    target = place("out", out)
    check_target(target, overwrite)
    found = joined(source, codec.nodata)
    scene = found.scene
    check_array(scene.shape, scene.dtype)
    order = list(range(scene.shape[1])) if order is None else list(order)
    codec = replace(codec, grids=found.grids(order))
    grid = plan(scene.shape, chunk, gop, alignment=alignment(codec.grids))
    problem = samples_problem([min(pair) for pair in zip(grid.shape, grid.chunk)])
    if problem:
        raise InputError(
            f"chunks of {grid.chunk}: {problem}; choose smaller ones with --chunk or --gop (chunk=, gop=)"
        )
    check_drop(codec, drop)
    layers = placed(found.product.beside, scene, grid, alignment(codec.grids))
    extras = _extras(found, order, layers, codec, grid)
    hold = _holding(purposes, classes, scene.select(order), codec) if purposes else None
    settings: dict[str, Any] = {"overwrite": overwrite, "drop": drop, "progress": progress, "extras": extras}
    settings |= {"hold": hold, "overviews": overviews}
    places = places or Places()
    if places:
        check_levelled(codec.codec)
    is_alike = drop is None and hold is None and not places
    client = cluster_of(found) if is_alike and found.product.scenes[0].planes else None
    if client is not None:
        check_aligned(found, grid)
        settings["shards"] = partial(write_on_cluster, client, found, order)
    asked = (places, scene.profile, codec.quality, codec.nodata, unit_of(codec.sensor), hidden)
    with (
        open_joined(found, order) as reader,
        open_places(*asked) if places else nullcontext() as settings["places"],
    ):
        known = {**(facts or {}), **places.facts()}
        run = write_arrays(target, scene, order, reader, codec, grid, facts=known, **settings)
        rounding = None if scene.lattice is None else reader.rounding
    return _summary(run, found, order, target, time.perf_counter() - started, rounding)


def write_arrays(
    target: Place,
    scene: Scene,
    order: Sequence[int],
    reader: PixelReader,
    codec: EozipChunkCodec,
    grid: Grid,
    *,
    facts: Mapping[str, Any],
    overwrite: bool = False,
    drop: MaskReader | None = None,
    progress: Progress = lambda done, total: None,
    check: Callable[[Run], None] = lambda run: None,
    beside: Callable[[zarr.Group], None] = lambda group: None,
    extras: Extras | None = None,
    hold: Holding | None = None,
    places: PlaceReader | None = None,
    overviews: bool = False,
    shards: Callable[[Run, Container], None] | None = None,
) -> Run:
    """Write a store: the pixels of a reader, their coordinates, and what is known of them.

    Args:
        target: see `encode_store`; appears when it is complete.
        scene: what the pixels are, bands in the order of the source.
        order: positions in `scene` of the bands in the order of the array.
        reader: the pixels, bands in the order of the array.
        codec: the codec with everything it was asked for.
        grid: chunks and shards.
        facts: added to what the store records.
        overwrite: whether an existing output may be replaced.
        drop: mask on the scene's grid.
        progress: see `Progress`.
        check: called when all pixels are written; an exception from it leaves nothing behind.
        beside: adds arrays of its own to the store's group.
        extras: what a product has beyond a scene.
        hold: purposes that every chunk is to serve.
        places: quality by place.
        overviews: see `encode_store`.
        shards: writes all shards; None: they are coded here.

    Raises:
        OutputError: the output exists or cannot be written.
    """
    tally, offsets = tally_of(codec, scene, order), stream_offsets(scene)
    run = Run(codec, grid, tally, progress, drop=drop, offsets=offsets, hold=hold, places=places)
    run.levels = overviews_of(codec, grid, scene.dtype) if overviews else None
    with writing(target, overwrite) as container:
        if shards is None:
            _write_shards(run, reader, container)
        else:
            shards(run, container)
        check(run)
        if extras is not None:
            run.beside_bytes = put_values(container, extras.layers)
        known = run_facts(run, dict(facts))
        keys = metadata_keys(scene, order, grid, codec, known, run.date_dropped(), beside, extras)
        for key, data in keys.items():
            container.put(key, data)
    return run


def _extras(
    found: Joined, order: Sequence[int], layers: Sequence[Placed], codec: EozipChunkCodec, grid: Grid
) -> Extras | None:
    """What a store records beyond the pixels of one scene; None where there is nothing."""
    if found.is_plain and not layers:
        return None
    labels = band_labels(found.scene.select(order), codec.sensor)
    return extras_of(found, layers, samples(grid.shape, codec.grids), labels)


def check_drop(codec: EozipChunkCodec, drop: MaskReader | Scene | None) -> None:
    """Refuse a mask for a codec that cannot leave cells out, or for bands on several grids, before anything is encoded.

    Raises:
        InputError: see above.
    """
    if drop is None:
        return
    check_droppable(codec.codec)
    if codec.grids:
        grids = ", ".join(str(grid.resolution) for grid in codec.grids)
        raise InputError(
            f"drop: expected bands on one grid, got several ({grids}); choose those of one with --bands (bands=), or give "
            "--masked-quality 0 instead of --drop"
        )


def _write_shards(run: Run, reader: PixelReader, container: Container) -> None:
    """Every shard of a store's pixels that holds anything."""
    for shard, streams in encoded_shards(run, reader):
        if streams:
            container.put(f"{ARRAY}/{run.grid.key(shard)}", pack_shard(streams, run.grid.per_shard))
        for key, data in run.level_chunks(shard).items():
            container.put(key, data)


def _holding(
    purposes: Sequence[Purpose], classes: Classifier | None, stored: Scene, codec: EozipChunkCodec
) -> Holding:
    """What the chunks of an array hold.

    Raises:
        InputError: purposes that these bands cannot have.
    """
    hold = Holding(tuple(purposes), pixels_of(stored, codec), classes)
    hold.check()
    return hold


def pixels_of(stored: Scene, codec: EozipChunkCodec) -> Pixels:
    """What is known of the pixels of an array, for purposes.

    Args:
        stored: the scene, its bands in the order of the array.
        codec: of the array.
    """
    labels = band_labels(stored, codec.sensor)
    names = tuple(canonical_name(label) or label for label in labels)
    factors = band_factors(codec.grids, len(labels)) if codec.grids else ()
    return Pixels(names, codec.offset, REFLECTANCE / unit_of(codec.sensor), codec.nodata, factors)


def bytes_beside(
    found: Joined, order: Sequence[int], codec: EozipChunkCodec, grid: Grid, *, zipped: bool = False
) -> int:
    """Bytes, to some hundreds, that a store has beside its chunks: what it says of itself, and tables of shards.

    Args:
        found: the source, its bands in any order.
        order: positions in it of the bands in the array.
        codec: of the array.
        grid: of the store.
        zipped: whether it will be a .zarr.zip file, in which what it says of itself is deflated.
    """
    scene = found.scene
    run = Run(codec, grid, tally_of(codec, scene, order), lambda done, total: None)
    extras = _extras(found, order, (), codec, grid)
    keys = metadata_keys(scene, order, grid, codec, run_facts(run, {}), extras=extras)
    tables = sum(len(pack_shard({}, grid.per_shard)) for _ in grid.shards())
    if zipped:
        return sum(_ZIP_ENTRY + len(zlib.compress(body)) for body in keys.values()) + tables
    return sum(map(len, keys.values())) + tables


def run_facts(run: Run, extra: dict[str, Any]) -> dict[str, Any]:
    """What a store knows of the run that wrote it."""
    return {
        "eozip_version": eozip.__version__,
        "weights_hash": _weights_hash(run.codec.codec),
        **extra,
        "codec": run.codec.codec,
        "quality": run.codec.quality,
        "target_psnr": run.codec.target_psnr,
        "max_error": run.codec.max_error,
        "bitstream": BITSTREAM,
        "quality_used": quality_range(run),
        "psnr": run.tally.psnr(),
        "band_psnr": run.tally.band_psnr(),
        "date_psnr": run.tally.date_psnr(),
        "date_bits": run.known_date_bits(),
        "valid_pixels": run.tally.counts.sum(0).tolist(),
        "peak": run.tally.peak,
        "chunks": run.done,
        "empty_chunks": run.empty,
        "chunks_below_target": run.missed,
        "chunks_with_residual_layer": run.layered,
        "chunks_without_network": run.without_network,
        **({"chunks_with_level_map": run.levelled} if run.levelled else {}),
        **({"date_dropped": run.date_dropped()} if run.is_masked else {}),
        **({} if run.levels is None else {FACT: [level.factor for level in run.levels.levels]}),
        **({} if run.hold is None else run.hold.facts()),
    }


def _weights_hash(name: str) -> str | None:
    return None if name == LOSSLESS else registry.get(name).weights_hash.hex()


def quality_range(run: Run) -> list[float] | None:
    """Lowest and highest quality used; None if nothing was encoded."""
    return [min(run.qualities), max(run.qualities)] if run.qualities else None


def _summary(
    run: Run, found: Joined, order: Sequence[int], target: Place, seconds: float, rounding: float | None
) -> Summary:
    with store_files(target) as files:
        size = files.total_bytes()
    scene, product = found.scene, found.product
    times, _, height, width = scene.shape
    measured = samples(scene.shape, run.codec.grids)
    raw, for_bands = measured * scene.dtype.itemsize, size - run.beside_bytes
    delivered = product.files_bytes
    return Summary(
        output=str(target),
        codec=run.codec.codec,
        shape=scene.shape,
        bands=list(band_labels(scene.select(order), run.codec.sensor)),
        grids=list(grid_names(scene.profile, found.factors)),
        samples=measured,
        chunks=run.done,
        empty=run.empty,
        bytes=size,
        beside_bytes=run.beside_bytes,
        raw_bytes=raw,
        ratio=raw / for_bands,
        files_bytes=delivered,
        files_ratio=None if delivered is None else delivered / for_bands,
        bpppb=8 * for_bands / measured,
        psnr=run.tally.psnr(),
        band_psnr=run.tally.band_psnr(),
        date_psnr=run.tally.date_psnr(),
        date_bits=run.known_date_bits(),
        peak=run.tally.peak,
        quality=quality_range(run),
        target_psnr=run.codec.target_psnr,
        missed=run.missed,
        max_error=run.codec.max_error,
        dropped=run.dropped_share(),
        date_dropped=run.date_dropped(),
        layered=run.layered,
        without_network=run.without_network,
        left_out=list(product.left_out),
        rounding=rounding,
        purposes={} if run.hold is None else run.hold.found(),
        seconds=seconds,
        mpx_per_s=times * height * width / 1e6 / seconds,
    )
