"""From a store back to GeoTIFFs: one file for one date, a folder for several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip import arguments
from eozip.arguments import PlaceLike
from eozip.errors import InputError
from eozip.raster import GeoTiffWriter, create_geotiff, create_geotiffs
from eozip.store.description import Description, choose_bands, choose_dates, describe, select_bands
from eozip.store.exports import export_store
from eozip.store.options import Progress
from eozip.store.pixels import Strip, check_sections, open_pixels


@dataclass(frozen=True)
class Decoded:
    """What one `decode_store` did.

    Attributes:
        output: the file or folder written.
        files: [T] file names within it.
        shape: (T, C, H, W) written.
        budget: sections of each stream that were decoded at most; None for all.
        bytes_read: of streams and shard indices.
        seconds: wall time; `mpx_per_s` millions of pixels per second.
    """

    output: str
    files: list[str]
    shape: tuple[int, int, int, int]
    budget: int | None
    bytes_read: int
    seconds: float
    mpx_per_s: float


def is_plain_request(form: str, options: dict[str, Any]) -> bool:
    """Say whether whole GeoTIFFs are asked for, which `decode_store` writes; `export_store` writes all else.

    Args:
        form: name of a format.
        options: of `export_store`, by name.
    """
    return form == "geotiff" and all(
        options.get(name) is None for name in ("resolution", "window", "bbox", "crs")
    )


def decode_store(
    store: PlaceLike,
    out: str | Path,
    *,
    bands: Sequence[str | int] | None = None,
    dates: Sequence[str | int] | None = None,
    budget: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Decoded:
    """Write a store's pixels as tiled, compressed GeoTIFFs equal to the source in all but the coding error.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file written by eozip.
        out: a `.tif` file where one date is written, else a folder.
        bands: names or 1-based positions in the source's order; None for all.
        dates: see `choose_dates`.
        budget: sections of each stream to read and decode (progressive codecs); None for all.
        overwrite: whether an existing output may be replaced.
        progress: called with rows of chunks done and in all.

    Returns:
        the summary.

    Raises:
        FormatError: the store is damaged; the message names the chunk.
        InputError: bands or dates that the store has not, several dates for one file, or a budget below 1 or of more
            sections than any of its streams has.
        OutputError: the output exists or cannot be written.
    """
    started = time.perf_counter()
    target = arguments.store_path("out", out)
    description = describe(store)
    check_sections(description, budget)
    if description.product is not None and description.product.lattice is not None:
        if budget is not None:
            raise InputError(
                f"{store}: budget: expected none for a store of values that were floats, got {budget}; leave it out"
            )
        return _decode_floats(store, out, bands, dates, overwrite, progress)
    times = choose_dates(description, arguments.choice("dates", dates))
    picks = choose_bands(description, arguments.choice("bands", bands))
    stored = [description.band_order[i] for i in picks]
    with _outputs(description, target, times, picks, overwrite) as (names, writers):
        fetched = _write(description, times, stored, writers, progress, budget)
    shape = (len(times), len(picks), description.profile.height, description.profile.width)
    seconds = time.perf_counter() - started
    speed = len(times) * shape[2] * shape[3] / 1e6 / seconds
    return Decoded(str(out), names, shape, budget, fetched, seconds, speed)


def _decode_floats(
    store: PlaceLike,
    out: str | Path,
    bands: Sequence[str | int] | None,
    dates: Sequence[str | int] | None,
    overwrite: bool,
    progress: Progress,
) -> Decoded:
    """Of a source that held floats."""
    done = export_store(
        store, out, "geotiff", bands=bands, dates=dates, overwrite=overwrite, progress=progress
    )
    speed = done.shape[0] * done.shape[2] * done.shape[3] / 1e6 / done.seconds
    return Decoded(done.output, done.files, done.shape, None, done.bytes_read, done.seconds, speed)


def _write(
    description: Description,
    times: list[int],
    stored: list[int],
    writers: list[GeoTiffWriter],
    progress: Progress,
    budget: int | None,
) -> int:
    """Returns the bytes read."""
    total = sum(1 for shard in description.grid.shards() for _ in description.grid.strips(shard))
    with open_pixels(description, budget) as pixels:
        for done, strip in enumerate(pixels.strips(times), start=1):
            for t, writer in zip(times, writers):
                if strip.times[0] <= t < strip.times[1]:
                    _write_date(writer, strip, t, stored)
            progress(done, total)
        progress(total, total)
        return pixels.files.bytes_read


def _write_date(writer: GeoTiffWriter, strip: Strip, t: int, stored: list[int]) -> None:
    pixels = np.ascontiguousarray(strip.pixels[t - strip.times[0], stored])
    writer.write(pixels, y=strip.rows[0], x=strip.columns[0])


@contextmanager
def _outputs(
    description: Description, out: Path, times: list[int], picks: list[int], overwrite: bool
) -> Iterator[tuple[list[str], list[GeoTiffWriter]]]:
    profile = select_bands(description.profile, picks)
    band_tags = [description.band_tags[i] for i in picks] if description.band_tags else []
    tags = [description.tags[t] for t in times]
    missing = [description.fill_value if description.masks[t] else None for t in times]
    block = _block(description)
    if out.suffix.lower() in (".tif", ".tiff"):
        if len(times) > 1:
            raise InputError(
                f"expected a folder for {len(times)} dates, got the file name {out}; name a folder, or "
                "choose one date with --dates (dates=)"
            )
        with create_geotiff(
            out, profile, tags[0], band_tags, overwrite=overwrite, block=block, missing=missing[0]
        ) as writer:
            yield [out.name], [writer]
        return
    names = _file_names(description, times)
    with create_geotiffs(
        out, names, profile, tags, band_tags, overwrite=overwrite, block=block, missing=missing
    ) as writers:
        yield names, writers


def _block(description: Description) -> int:
    """Tiles of the GeoTIFF as large as chunks where TIFF allows it: then each tile is compressed once."""
    height, width = description.grid.chunk[2:]
    return height if height == width and height % 16 == 0 else 256


def _file_names(description: Description, times: list[int]) -> list[str]:
    """The source's names, made different by their position where they are not."""
    stems = [description.stem(t) for t in times]
    if len(set(stems)) < len(stems):
        stems = [f"{stem}_{t + 1:03d}" for stem, t in zip(stems, times)]
    return [f"{stem}.tif" for stem in stems]
