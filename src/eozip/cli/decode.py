"""`eozip decode STORE OUT`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from eozip.cli.common import (
    STORE,
    CommaList,
    bytes_text,
    json_option,
    overwrite_option,
    print_json,
    progress_bar,
    speed_text,
    tell,
    threads_option,
    use_threads,
)
from eozip.keys import Place


@click.command()
@click.argument("store", type=STORE)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bands", type=CommaList(), help="Bands to write, by name or position; default: all.")
@click.option(
    "--dates", type=CommaList(), help="Dates to write: 2021-07-15, 2021-07, or positions; default: all."
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="K",
    help="Read and decode only the first K sections of each chunk: a coarser picture from fewer bytes, for codecs with "
    "several (flextec). `eozip info` lists their sizes.",
)
@overwrite_option
@json_option
@threads_option
def decode(
    store: Place,
    out: Path,
    bands: list[str | int] | None,
    dates: list[str | int] | None,
    budget: int | None,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
) -> None:
    """Decode a store into GeoTIFFs: OUT is a .tif file for one date, a folder for several."""
    from eozip.store import decode_store

    use_threads(threads)
    with progress_bar("Decoding", "rows of chunks", quiet=as_json) as progress:
        done = decode_store(
            store, out, bands=bands, dates=dates, budget=budget, overwrite=overwrite, progress=progress
        )
    if as_json:
        print_json(asdict(done))
        return
    times, count, height, width = done.shape
    speed = f"{done.seconds:.1f} s, {speed_text(done.mpx_per_s)}, {bytes_text(done.bytes_read)} read"
    tell(f"{done.output}: {times} x {count} x {height} x {width}, {speed}")
