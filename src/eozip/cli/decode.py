"""`eozip decode STORE OUT`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eozip import store as stores
from eozip.arguments import Place
from eozip.cli.common import (
    READ_STORE,
    CommaList,
    NumberList,
    bytes_text,
    json_option,
    many,
    overwrite_option,
    print_json,
    progress_bar,
    speed_text,
    tell,
    threads_option,
    use_threads,
)

if TYPE_CHECKING:
    from eozip.store.exports import Exported


@click.command()
@click.argument("store", type=READ_STORE)
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
@click.option(
    "--format",
    "form",
    type=click.Choice(["geotiff", "cog", "bands", "eopf-zarr", "netcdf"]),
    default="geotiff",
    show_default=True,
    help="geotiff and cog: all bands on one grid; bands: one COG per band on its own grid under the name that it came in; "
    "eopf-zarr: plain Zarr in the layout of EOPF products; netcdf: by CF, a group for each grid.",
)
@click.option(
    "--resolution",
    type=float,
    metavar="UNITS",
    help="Side of a pixel in units of the CRS: of geotiff and cog a multiple of the finest grid's; of other formats that of "
    "the grid whose bands are written.",
)
@click.option(
    "--window", type=NumberList(4), metavar="X,Y,W,H", help="Pixels of the finest grid, as gdal -srcwin."
)
@click.option(
    "--bbox", type=NumberList(4), metavar="X,Y,X,Y", help="From x, y to x, y in the store's CRS, or in --crs."
)
@click.option("--crs", help="CRS of --bbox, such as EPSG:4326.")
@overwrite_option
@json_option
@threads_option
def decode(
    store: Place,
    out: Path,
    budget: int | None,
    form: str,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
    **chosen: Any,
) -> None:
    """Decode a store, or a part of it, into files: OUT is a .tif file for one date, a folder for several.

    OUT of netcdf ends in .nc, of eopf-zarr for one date in .zarr. Only chunks that are touched are read.
    """

    use_threads(threads)
    if not stores.is_plain_request(form, chosen):
        if budget is not None:
            raise click.UsageError(
                "--budget goes with whole GeoTIFFs: without --format, --window, --bbox, --resolution"
            )
        with progress_bar("Decoding", "parts", quiet=as_json) as progress:
            exported = stores.export_store(store, out, form, overwrite=overwrite, progress=progress, **chosen)
        _say_exported(exported, as_json)
        return
    settings = {name: chosen[name] for name in ("bands", "dates")}
    with progress_bar("Decoding", "rows of chunks", quiet=as_json) as progress:
        done = stores.decode_store(
            store, out, budget=budget, overwrite=overwrite, progress=progress, **settings
        )
    if as_json:
        print_json(asdict(done))
        return
    times, count, height, width = done.shape
    speed = f"{done.seconds:.1f} s, {speed_text(done.mpx_per_s)}, {bytes_text(done.bytes_read)} read"
    tell(f"{done.output}: {times} x {count} x {height} x {width}, {speed}")


def _say_exported(done: Exported, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
        return
    times, count, height, width = done.shape
    files = many(len(done.files), "file")
    tell(
        f"{done.output}: {done.format}, {times} x {count} x {height} x {width}, {files}, {done.seconds:.1f} s, "
        f"{bytes_text(done.bytes_read)} read"
    )
