"""`eozip encode IN... OUT`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eozip import raster
from eozip import store as stores
from eozip.arguments import Place, place
from eozip.cli.common import (
    RASTER,
    CommaList,
    Size,
    bytes_text,
    check_drop_options,
    coded_psnr,
    day,
    drop_options,
    dropped_lines,
    json_option,
    many,
    numbers_of,
    overwrite_option,
    place_options,
    print_json,
    progress_bar,
    purpose_options,
    say,
    speed_text,
    tell,
    threads_option,
    use_threads,
    worst_text,
)

if TYPE_CHECKING:
    from eozip.store import Summary
    from eozip.store.understood import Understood

LEFT_OUT = 4
_BEST, _NEAR = 100, 0.99  # quality; share of the bytes asked for that is as near as a quality comes


@click.command()
@click.argument("inputs", nargs=-1, type=RASTER, metavar="IN...")
@click.argument("name", type=RASTER, metavar="OUT")
@click.option(
    "--codec",
    metavar="ID|PATH",
    help="Full id or short name (`eozip models` lists them), a weights folder or checkpoint, or a published name such as "
    "embed2scale/TerraCodec-1.0-ELIC-S2L2A@lambda-10. Default: tec-tt-small, or tec-elic-small for --gop 1.",
)
@click.option(
    "--quality", type=click.FloatRange(0, 100), help="One scale for every codec; 60 if nothing is asked for."
)
@click.option(
    "--target-psnr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="DB",
    help="Reach this PSNR (peak 10,000 DN) in every chunk.",
)
@click.option(
    "--target-size",
    type=Size(),
    metavar="SIZE",
    help="Instead of --quality: the whole store has at most so many bytes (200kB, 1.5MB) and hardly fewer.",
)
@click.option(
    "--max-error",
    type=click.IntRange(0, 65535),
    metavar="DN",
    help="No pixel is further off than this, on any machine; with --quality or --target-psnr, or alone.",
)
@click.option(
    "--bands",
    type=CommaList(),
    help="Bands to take, by name or position, such as B02,B03,B04 or 1,2,3. Names that the file has not say what its "
    "bands are, in file order; 12 or 13 positions stand for the sensor's bands in its order.",
)
@click.option(
    "--sensor",
    help="Sensor whose bands these are, in its order, whatever the file calls them: s2-l2a, s2-l1c, or a TOML file.",
)
@click.option("--offset", type=int, help="Radiometric offset in DN (1000 from Sentinel-2 baseline 04.00 on).")
@click.option("--nodata", type=int, help="DN of missing pixels; default: the file's.")
@click.option(
    "--chunk", type=click.IntRange(min=8, max=4096), help="Side of a chunk in pixels; default: near 256."
)
@click.option(
    "--gop",
    type=click.IntRange(min=1, max=64),
    default=6,
    show_default=True,
    help="Group of pictures: most dates coded together, and so read together.",
)
@click.option(
    "--budgets",
    type=CommaList(),
    metavar="K|K,K,...",
    help="Instead of --quality, of flextec codecs: sections (tokens) to send of every date, or of each date of a group.",
)
@click.option(
    "--asset",
    "assets",
    type=CommaList(),
    metavar="KEY,...",
    help="Assets of STAC items to take; default: the bands.",
)
@click.option(
    "--mosaic",
    type=click.Choice(["solar-day"]),
    help="Merge several inputs of one tile and one solar day into one date; the first given to time shows on top.",
)
@click.option(
    "--harmonise",
    is_flag=True,
    help="Bring all dates to one radiometric offset; else each date keeps its own.",
)
@click.option(
    "--lattice",
    type=CommaList(),
    metavar="STEP[,BASE]",
    help="Of float inputs: values are coded as BASE + STEP * DN; default 0.0001, from -0.0999 on. NaN is kept exactly.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave damaged or incomplete dates out, and exit with 4; all pixels are read for that.",
)
@click.option("--dry-run", is_flag=True, help="Say what was understood of the inputs, and write nothing.")
@purpose_options
@click.option(
    "--stac",
    is_flag=True,
    help="Write a STAC item beside the store: scene.zarr.zip gets scene.json (needs pystac).",
)
@click.option(
    "--overviews",
    is_flag=True,
    help="Store reduced pictures too, from 1/16 on, as arrays that every reader of Zarr knows; of 1,024 pixels and more.",
)
@drop_options
@place_options
@overwrite_option
@json_option
@threads_option
def encode(
    inputs: tuple[str, ...], name: str, quality: float | None, target_psnr: float | None, **options: Any
) -> None:
    """Encode what you hold into a Zarr store.

    IN is a GeoTIFF, several (dates), files of one band each, a folder of them, a .SAFE product (folder or zip), or a STAC
    item or item collection (file or URL). OUT is a .zarr directory or a .zarr.zip file; --dry-run needs none.
    """
    options["lattice"] = numbers_of(options["lattice"], "--lattice")
    has_item = options.pop("stac")
    if options.pop("dry_run"):
        is_store = bool(inputs) and name.rstrip("/").endswith((".zarr", ".zarr.zip"))
        _dry_run(inputs if is_store else (*inputs, name), options)
        return
    if not inputs:
        raise click.UsageError(f"Expected IN... and OUT, got {name} alone.")
    out = place("out", name)
    if quality is not None and target_psnr is not None:
        raise click.UsageError(
            "--quality and --target-psnr are two ways of asking for quality; give one of them."
        )
    if options["budgets"] is not None and (quality, target_psnr) != (None, None):
        raise click.UsageError("--budgets is another way of asking for quality; give one of them.")
    if options["classes"] is not None and not options["purposes"]:
        raise click.UsageError("--classes is for a purpose: --for 'agreement>=99%'.")
    _check_size(quality, target_psnr, options)
    check_drop_options(options["mask"], options["drop"], options["masked_quality"])
    summary = _run(inputs, out, quality, target_psnr, options)
    item = _write_item(out, options["overwrite"]) if has_item else None
    if options["as_json"]:
        print_json({**asdict(summary), **({} if item is None else {"stac": str(item)})})
    else:
        lines = [_report(summary), *_sized_lines(summary, options["target_size"])]
        tell("\n".join(lines + ([] if item is None else [f"  STAC item: {item}"])))
    if summary.left_out:
        click.get_current_context().exit(LEFT_OUT)


def _check_size(quality: float | None, target_psnr: float | None, options: dict[str, Any]) -> None:
    if options["target_size"] is None:
        return
    others = {"--quality": quality, "--target-psnr": target_psnr}
    others |= {"--max-error": options["max_error"], "--budgets": options["budgets"]}
    others |= {"--for": options["purposes"] or None}
    said = [name for name, value in others.items() if value is not None]
    if said:
        raise click.UsageError(
            f"--target-size is another way of asking for quality than {said[0]}; give one of them."
        )


def _write_item(out: Place, overwrite: bool) -> Path:
    return stores.write_item(out, overwrite)


def _dry_run(inputs: tuple[str, ...], options: dict[str, Any]) -> None:
    names = ("assets", "mosaic", "harmonise", "lattice", "skip_bad")
    taking = {name: options[name] for name in names}
    product = raster.open_product(list(inputs), options["bands"], options["offset"], **taking)
    found = stores.understand(product, options["chunk"], options["gop"])
    if options["as_json"]:
        print_json(asdict(found))
    else:
        tell("\n".join(_understood_lines(found)))
    if found.left_out:
        click.get_current_context().exit(LEFT_OUT)


def _understood_lines(found: Understood) -> list[str]:
    sensor = f", {found.sensor}" if found.sensor else ""
    lines = [f"{found.kind}{sensor}: {many(len(found.dates), 'date')}, nothing written"]
    for date in found.dates:
        lines.append(f"  {day(date['sensing']) or 'unknown date'}: {_date_words(date)}")
    for grid in found.grids:
        bands = " ".join(name or "-" for name in grid["bands"])
        lines.append(f"  {grid['size'][0]} x {grid['size'][1]} pixels{_pixel_words(grid)}: {bands}")
    nodata = "no nodata value" if found.nodata is None else f"nodata {found.nodata:g}"
    held = f" of values {found.lattice['base']:g} + {found.lattice['step']:g} * DN" if found.lattice else ""
    lines.append(f"  {found.dtype}{held}, {nodata}; {bytes_text(found.raw_bytes)} of pixels")
    for layer in found.beside:
        lines.append(
            f"  beside: {layer['name']} ({layer['kind']}), {layer['size'][0]} x {layer['size'][1]}, "
            f"{many(layer['dates'], 'date')}"
        )
    t, _, h, w = found.chunk
    together = many(min(t, len(found.dates)), "date")
    lines.append(f"  {many(found.chunks, 'chunk')} expected, of {together} x {h} x {w} pixels")
    return [*lines, *(f"  note: {note}" for note in found.notes)]


def _pixel_words(grid: dict[str, Any]) -> str:
    if grid["pixel"] is None:
        return ", no georeference"
    return f" of {grid['pixel']:g} {grid['unit'] or 'units of no known CRS'}"


def _date_words(date: dict[str, Any]) -> str:
    more = f" and {date['files'] - 1} more" if date["files"] > 1 else ""
    known = [str(date[name]) for name in ("product", "level") if date[name]]
    baseline = f", baseline {date['baseline']}" if date["baseline"] else ""
    others = "".join(f", {band} {value:g}" for band, value in date["other_offsets"].items())
    shifted = f", {date['harmonised_by']:+d} DN on reading" if date["harmonised_by"] else ""
    source = f" ({date['offset_source']})" if date["offset_source"] else ""
    named = " ".join(known if date["product"] else [date["file"] + more, *known])
    return f"{named}{baseline}; offset {date['offset']:g} DN{others}{shifted}{source}"


def _run(
    inputs: tuple[str, ...],
    out: Place,
    quality: float | None,
    target_psnr: float | None,
    options: dict[str, Any],
) -> Summary:

    use_threads(options["threads"])
    settings = {name: value for name, value in options.items() if name not in ("as_json", "drop", "threads")}
    with progress_bar("Encoding", "chunks", quiet=options["as_json"]) as progress:
        return stores.encode_files(
            list(inputs),
            out,
            quality=quality,
            target_psnr=target_psnr,
            **settings,
            progress=progress,
            note=say,
        )


def _report(summary: Summary) -> str:
    times, bands, height, width = summary.shape
    lines = [
        f"{summary.output}: {many(times, 'date')} x {bands} bands x {height} x {width} pixels, {summary.codec}",
        *_size_lines(summary),
        f"  PSNR {coded_psnr(summary.psnr, summary.dropped)} (peak {summary.peak:,.0f} DN); by band: {_by_band(summary)}",
        *(
            []
            if summary.rounding is None
            else [f"  values were rounded by at most {summary.rounding:.3g} to the lattice"]
        ),
        *[f"  {text}" for text in summary.left_out],
        *dropped_lines(summary.dropped),
        f"  {summary.seconds:.1f} s, {speed_text(summary.mpx_per_s)}, every chunk decoded and compared",
    ]
    is_tree = len(summary.grids) > 1 or summary.beside_bytes > 0
    end = f'  open with xarray.open_{"datatree" if is_tree else "dataset"}("{summary.output}")'
    return "\n".join([*lines, *_target_lines(summary), *_kept_lines(summary), *_purpose_lines(summary), end])


def _size_lines(summary: Summary) -> list[str]:
    """What the bands took, by what was measured, and what lies beside them."""
    for_bands = summary.bytes - summary.beside_bytes
    unit = "bits per pixel and band"
    lines = []
    if len(summary.grids) > 1:
        unit = f"bits per sample on {', '.join(summary.grids)}"
    lines.append(
        f"  {bytes_text(summary.raw_bytes)} > {bytes_text(for_bands)}: {summary.ratio:.1f} times "
        f"smaller, {summary.bpppb:.4f} {unit}"
    )
    if summary.files_bytes is not None and summary.files_ratio is not None:
        lines.append(
            f"  {summary.files_ratio:.1f} times smaller than the files it came in ({bytes_text(summary.files_bytes)})"
        )
    if summary.beside_bytes:
        lines.append(f"  {bytes_text(summary.beside_bytes)} beside the bands, exact (classes, probabilities)")
    return lines


def _sized_lines(summary: Summary, target_size: int | None) -> list[str]:
    """How near a size came to what was asked for."""
    if target_size is None:
        return []
    low, high = summary.quality or (0, 0)
    at = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    is_end = low >= _BEST and summary.bytes < _NEAR * target_size
    end = ", the best there is: only --codec lossless keeps more" if is_end else ""
    return [
        f"  {summary.bytes:,} of {target_size:,} bytes ({summary.bytes / target_size:.1%}), at quality {at}{end}"
    ]


def _by_band(summary: Summary) -> str:
    none = "-" if summary.dropped else "exact"
    values = (none if value is None else f"{value:.1f}" for value in summary.band_psnr)
    return ", ".join(
        f"{name or i} {value}" for i, (name, value) in enumerate(zip(summary.bands, values), start=1)
    )


def _kept_lines(summary: Summary) -> list[str]:
    """What was promised beyond the codec's own working, and what that took."""
    if summary.codec == "lossless" and not summary.max_error:
        return []
    bound = [] if summary.max_error is None else [f"no pixel is off by more than {summary.max_error} DN"]
    counts = {"with a residual layer": summary.layered, "coded without a network": summary.without_network}
    took = [f"{count} of {summary.chunks} chunks {how}" for how, count in counts.items() if count]
    return [f"  {'; '.join(bound + took)}"] if bound + took else []


def _target_lines(summary: Summary) -> list[str]:
    if summary.target_psnr is None:
        return []
    if summary.missed:
        return [
            f"  target {summary.target_psnr:g} dB not reached in {summary.missed} of {summary.chunks} chunks"
        ]
    return [f"  target {summary.target_psnr:g} dB reached in every chunk"]


def _purpose_lines(summary: Summary) -> list[str]:
    """What every chunk was held to."""
    if not summary.purposes:
        return []
    low, high = summary.quality or (0, 0)
    held = [f"  {text}: {worst_text(value)}" for text, value in summary.purposes.items()]
    return [*held, f"  qualities {low:g} to {high:g} of the chunks"]
