"""`eozip archive ITEMS OUT`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from eozip import archive as archiving
from eozip.arguments import Place
from eozip.cli.common import (
    RASTER,
    STORE,
    CommaList,
    bytes_text,
    check_drop_options,
    decibels,
    drop_options,
    for_option,
    json_option,
    many,
    numbers_of,
    place_options,
    print_json,
    progress_bar,
    say,
    tell,
)

if TYPE_CHECKING:
    from eozip.archive import Archived, Status

SET_ASIDE = 4


@click.command()
@click.argument("items", nargs=-1, type=RASTER, metavar="ITEMS...")
@click.argument("out", type=STORE)
@click.option(
    "--by",
    type=click.Choice(["tile", "grid", "item"]),
    default="tile",
    show_default=True,
    help="One store for each tile (or place, where no tile is known), for each grid, or for each item.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes on this machine. Default: as many as cores."
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of each process. Default: the cores shared out.",
)
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler instead, such as tcp://host:8786.")
@click.option("--retry-failed", is_flag=True, help="Try items again that a run before set aside.")
@click.option(
    "--status", is_flag=True, help="Say where the run of OUT stands, and do nothing; takes no ITEMS."
)
@click.option("--codec", metavar="ID", help="As for encode, and so are the options below.")
@click.option("--quality", type=click.FloatRange(0, 100))
@click.option("--target-psnr", type=click.FloatRange(min=0, min_open=True), metavar="DB")
@click.option("--max-error", type=click.IntRange(0, 65535), metavar="DN")
@click.option("--bands", type=CommaList())
@click.option("--sensor")
@click.option("--offset", type=int)
@click.option("--nodata", type=int)
@click.option("--chunk", type=click.IntRange(min=8, max=4096))
@click.option("--gop", type=click.IntRange(min=1, max=64), default=6, show_default=True)
@click.option("--budgets", type=CommaList())
@click.option("--asset", "assets", type=CommaList(), metavar="KEY,...")
@click.option("--mosaic", type=click.Choice(["solar-day"]))
@click.option("--harmonise", is_flag=True)
@click.option("--lattice", type=CommaList(), metavar="STEP[,BASE]")
@click.option(
    "--overviews/--no-overviews",
    default=True,
    show_default=True,
    help="Store reduced pictures of large scenes.",
)
@for_option
@drop_options
@place_options
@json_option
@click.pass_context
def archive(
    ctx: click.Context, /, items: tuple[str, ...], out: Place, status: bool, as_json: bool, **options: Any
) -> None:
    """Archive many inputs into a tree of stores, on the workers of a Dask cluster.

    ITEMS are inputs that encode takes, each for itself: files, folders, globs, STAC items and collections, .txt files with
    one in a line. OUT is a folder or a URL such as s3://bucket/archive. The same command again continues a run that was
    killed, or adds new items.

    Exit code 4 if items were set aside; the others are archived.
    """
    if status:
        if items:
            raise click.UsageError("--status takes OUT alone.")
        _show_status(out, as_json)
        return
    if not items:
        raise click.UsageError("Missing argument 'ITEMS...'.")
    check_drop_options(options["mask"], options.pop("drop"), options["masked_quality"])
    options["lattice"] = numbers_of(options["lattice"], "--lattice")
    report = _run(items, out, as_json, options)
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
    else:
        tell(_text(report))
    if not report.ok:
        ctx.exit(SET_ASIDE)


def _run(items: tuple[str, ...], out: Place, quiet: bool, options: dict[str, Any]) -> Archived:
    with progress_bar("Archiving", "bytes of pixels", quiet=quiet) as progress:
        return archiving.archive(list(items), out, progress=progress, note=say, **options)


def _show_status(out: Place, as_json: bool) -> None:
    found: Status = archiving.read_status(out)
    if as_json:
        print_json(asdict(found))
        return
    share = (
        f"{100 * found.bytes_in / found.bytes_planned:.0f} %"
        if found.bytes_planned
        else "nothing planned yet"
    )
    lines = [
        f"{out}: {found.state}, {found.seconds:.0f} s",
        f"  items: {found.done} of {found.items} archived ({found.skipped} before), {found.failed} set aside",
        f"  stores: {found.published} of {found.stores} published; shards: {found.jobs_done} of {found.jobs} planned",
        f"  pixels: {bytes_text(found.bytes_in)} of {bytes_text(found.bytes_planned)} ({share}) > "
        f"{bytes_text(found.bytes_out)}",
        *([f"  dashboard: {found.dashboard}"] if found.dashboard and found.state == "running" else []),
        *([f"  {found.message}"] if found.message else []),
    ]
    tell("\n".join(lines))


def _text(report: Archived) -> str:
    new = report.done - report.skipped
    lines = [
        f"{report.output}: {report.done} of {many(report.items, 'item')} archived, {new} by this run, in "
        f"{many(len(report.stores), 'store')}",
        f"  {bytes_text(report.raw_bytes)} of pixels ({bytes_text(report.bytes_in)} of files) > "
        f"{bytes_text(report.bytes_out)}; "
        f"{many(report.jobs, 'shard')} coded, {report.reused} finished by a run before",
        *(
            [
                f"  PSNR lowest {decibels(report.psnr_lowest)}, mean {decibels(report.psnr_mean)} (peak 10,000 DN)"
            ]
            if new
            else []
        ),
        f"  {report.seconds:.1f} s",
    ]
    if report.failed:
        lines.append(f"  {many(len(report.failed), 'item')} set aside (--retry-failed tries again):")
        lines += [
            f"    {reason if name in reason else f'{name}: {reason}'}"
            for name, reason in report.failed.items()
        ]
    return "\n".join(lines)
