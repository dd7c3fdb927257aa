"""`eozip verify STORE`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from eozip import raster
from eozip import store as stores
from eozip.arguments import Place
from eozip.cli.common import (
    RASTER,
    READ_STORE,
    CommaList,
    coded_psnr,
    date_table,
    json_option,
    print_json,
    progress_bar,
    shares,
    tell,
    threads_option,
    use_threads,
    worst_text,
)

if TYPE_CHECKING:
    from eozip.raster import Product, Scene
    from eozip.store import Description, Repaired, Report

_FAILED = 3


@click.command()
@click.argument("store", type=READ_STORE)
@click.option(
    "--against",
    multiple=True,
    type=RASTER,
    metavar="IN",
    help="The source, to compare pixels: all dates that were encoded. A file or a folder; may be repeated.",
)
@click.option("--bands", type=CommaList(), help="Bands of the source, as given to encode.")
@click.option(
    "--full/--checksums-only",
    default=True,
    show_default=True,
    help="Decode every chunk, or read checksums alone.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="First bring the metadata back that another program (xarray, zarr) changed or left half changed: dates that it "
    "wrote whole are taken into the store, others are cut off. No pixel is touched.",
)
@json_option
@threads_option
@click.pass_context
def verify(
    ctx: click.Context,
    store: Place,
    against: tuple[str, ...],
    bands: list[str | int] | None,
    full: bool,
    repair: bool,
    as_json: bool,
    threads: int | None,
) -> None:
    """Check every chunk of a store: checksums, symbols, and pixels against the source.

    Exit code 3 if any check fails.
    """

    use_threads(threads)
    repaired = stores.repair_store(store) if repair else None
    scene = _source(store, against, bands) if against else None
    with progress_bar("Verifying", "chunks", quiet=as_json) as progress:
        report = stores.verify_store(store, full=full, against=scene, progress=progress)
    if as_json:
        done = {} if repaired is None else {"repaired": asdict(repaired)}
        print_json({"ok": report.ok, **done, **asdict(report)})
    else:
        tell("\n".join([_text(report, stores.describe(store)), *_repaired(repaired)]))
    if not report.ok:
        ctx.exit(_FAILED)


def _source(store: Place, against: tuple[str, ...], bands: list[str | int] | None) -> Product | Scene:
    """The source with the store's own choice of bands, unless another is given."""
    found = stores.describe(store)
    offset = None if found.product else found.codec.offset
    product = raster.open_product(list(against), bands, offset)
    return product.scenes[0] if bands and len(product.scenes) == 1 else product


def _repaired(done: Repaired | None) -> list[str]:
    if done is None:
        return []
    if not done.keys:
        return ["  repair: nothing to do"]
    taken = [f"{_counted(done.taken, 'date')} of another program taken into the store"] if done.taken else []
    cut = [f"{_counted(done.cut, 'date')} without pixels cut off"] if done.cut else []
    return [f"  repaired: {', '.join([*taken, *cut, _counted(len(done.keys), 'key') + ' written again'])}"]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _text(report: Report, store: Description) -> str:
    what = f"{report.stored} of {report.chunks} chunks stored, {report.decoded} decoded"
    psnr = coded_psnr(report.psnr, any(report.date_dropped))
    compared = [] if report.unequal is None else [f"  against the source: PSNR {psnr}"]
    if report.date_psnr:
        _, _, height, width = store.grid.shape
        dropped = shares(report.date_dropped, height * width) if any(report.date_dropped) else []
        compared += date_table(store.dates, report.date_psnr, dropped=dropped)
    compared += [f"  {text}: {worst_text(value)}" for text, value in report.purposes.items()]
    verdict = "verified" if report.ok else f"{len(report.failures)} FAILED"
    return "\n".join(
        [f"{store.path}: {verdict} ({what})", *compared, *(f"  {line}" for line in report.failures)]
    )
