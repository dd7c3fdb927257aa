"""`eozip append STORE IN...`."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import click

from eozip import store as stores
from eozip.arguments import Place
from eozip.cli.common import (
    RASTER,
    STORE,
    CommaList,
    bytes_text,
    check_drop_options,
    coded_psnr,
    date_table,
    drop_options,
    dropped_lines,
    json_option,
    many,
    place_options,
    print_json,
    progress_bar,
    say,
    shares,
    tell,
    threads_option,
    use_threads,
)
from eozip.codecs import registry

if TYPE_CHECKING:
    from eozip.store import Appended, Description


@click.command()
@click.argument("store", type=STORE)
@click.argument("inputs", nargs=-1, required=True, type=RASTER, metavar="IN...")
@click.option("--bands", type=CommaList(), help="Bands of the new dates, as given to encode.")
@click.option("--codec", help="Only checked: the store's codec is used.")
@click.option("--quality", type=click.FloatRange(0, 100), help="Only checked: the store's is used.")
@click.option("--target-psnr", type=float, metavar="DB", help="Only checked: the store's is used.")
@click.option("--offset", type=int, help="Radiometric offset of the new dates in DN; must be the store's.")
@drop_options
@place_options
@json_option
@threads_option
def append(
    store: Place, inputs: tuple[str, ...], bands: list[str | int] | None, as_json: bool, **options: Any
) -> None:
    """Add new dates to a store, behind those it has, whose pixels stay as they are.

    IN is a GeoTIFF, several (dates), or a folder of them, on the grid of the store and with its bands, later than
    its last date. Codec, quality and the rest are the store's.
    """
    summary = _run(store, inputs, bands, as_json, options)
    if as_json:
        print_json(asdict(summary))
    else:
        tell(_report(summary))


def _run(
    store: Place,
    inputs: tuple[str, ...],
    bands: list[str | int] | None,
    quiet: bool,
    options: dict[str, Any],
) -> Appended:

    check_drop_options(options["mask"], options["drop"], options["masked_quality"])
    use_threads(options["threads"])
    with progress_bar("Appending", "chunks", quiet=quiet) as progress:
        return stores.append_files(
            store,
            list(inputs),
            bands=bands,
            mask=options["mask"],
            places=stores.Places(**{one.name: options[one.name] for one in fields(stores.Places)}),
            asked=_asked(stores.describe(store), options),
            progress=progress,
            note=say,
        )


def _asked(found: Description, options: dict[str, Any]) -> dict[str, Any]:
    asked = {name: options[name] for name in ("codec", "quality", "target_psnr", "offset")}
    if asked["codec"] is not None:
        asked["codec"] = registry.resolve(asked["codec"], found.codec.sensor)
    return asked


def _report(summary: Appended) -> str:
    times, bands, height, width = summary.shape
    groups = ", ".join(map(str, summary.groups))
    lines = [
        f"{summary.output}: {many(len(summary.dates), 'date')} more, in groups of {groups}; now {times}, {summary.codec}",
        f"  {bytes_text(summary.bytes_before)} > {bytes_text(summary.bytes)}: {summary.bpppb:.4f} bits per new pixel "
        "and band",
        f"  PSNR of the new dates {coded_psnr(summary.psnr, summary.dropped)} (peak 10,000 DN)",
        *dropped_lines(summary.dropped),
        *date_table(
            summary.dates,
            summary.date_psnr,
            summary.date_bits,
            bands * height * width,
            shares(summary.date_dropped, height * width),
            times - len(summary.dates),
        ),
        f"  {summary.seconds:.1f} s; nothing that was there was encoded again",
    ]
    missed = [f"  the store's target was not reached in {summary.missed} chunks"] if summary.missed else []
    return "\n".join([*lines, *_joining(summary), *missed])


def _joining(summary: Appended) -> list[str]:
    """Whether new dates know those of the group that was not full."""
    if not summary.apart:
        return []
    where = (
        ""
        if not summary.joined
        else f" in {summary.apart} of {many(summary.apart + summary.joined, 'chunk')}"
    )
    why = summary.why_apart or "they differ in quality by place, offset or grids, or are smaller alone"
    return [f"  coded without knowledge of the dates before them{where}: {why}"]
