"""`eozip choose IN... --for PURPOSE`."""

from __future__ import annotations

import math
import shlex
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eozip.cli.common import (
    RASTER,
    CommaList,
    bytes_text,
    json_option,
    many,
    overwrite_option,
    print_json,
    progress_bar,
    purpose_options,
    tell,
    threads_option,
    use_threads,
)

if TYPE_CHECKING:
    from eozip.choose import Choice, Offer, Point
    from eozip.store.sampling import Estimate

_BAR = 24  # characters
_MOST_INPUTS = 4  # that are named in the command to go on with
_GOP = 6
_REPEATED = ("classes", "bands", "sensor", "offset", "nodata", "chunk", "gop")


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=RASTER, metavar="IN...")
@purpose_options
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="ID",
    help="Codec to compare; may be repeated. Default: the one that encode takes, and of several dates tec-elic-small.",
)
@click.option(
    "--samples",
    "count",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Chunks that are coded at most, spread over the scene.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the curves as PNG or SVG."
)
@click.option("--bands", type=CommaList(), help="As for encode.")
@click.option("--sensor", help="As for encode.")
@click.option("--offset", type=int, help="As for encode.")
@click.option("--nodata", type=int, help="As for encode.")
@click.option("--chunk", type=click.IntRange(min=8, max=4096), help="As for encode.")
@click.option(
    "--gop", type=click.IntRange(min=1, max=64), default=_GOP, show_default=True, help="As for encode."
)
@overwrite_option
@json_option
@threads_option
def choose(
    inputs: tuple[str, ...],
    purposes: tuple[str, ...],
    codecs: tuple[str, ...],
    plot: Path | None,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
    count: int,
    **options: Any,
) -> None:
    """Say which codec and quality serve a purpose, and what that costs, from a sample of chunks.

    Nothing is encoded into a store: `eozip encode IN OUT --for PURPOSE` does that, chunk by chunk.
    """
    from eozip import choose as choices  # rasterio and zarr are slow to import
    from eozip.purpose import parse_purposes  # likewise

    use_threads(threads)
    if plot is not None:
        choices.check_plot(plot, parse_purposes(purposes), overwrite=overwrite)
    if not as_json:
        tell(
            f"Coding up to {many(count, 'chunk')} of the scene at several qualities with each codec", err=True
        )
    with progress_bar("Trying", "chunks", quiet=as_json) as progress:
        found = choices.choose(list(inputs), purposes, codecs, count=count, **options, progress=progress)
    if plot is not None:
        choices.draw(found, plot, overwrite=overwrite)
    if as_json:
        print_json(_finite(asdict(found)))
    else:
        tell(_text(found, _command(found, inputs, options)))


def _finite(value: Any) -> Any:
    """Numbers that JSON has; what is endlessly good or bad is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _command(found: Choice, inputs: tuple[str, ...], options: dict[str, Any]) -> str:
    """What encodes the scene so: all that was said of it is said again."""
    files = inputs if len(inputs) <= _MOST_INPUTS else (inputs[0], "...")
    words = ["eozip", "encode", *files, "OUT.zarr", "--codec", found.best.codec]
    words += [word for purpose in found.purposes for word in ("--for", purpose.text)]
    for name in _REPEATED:
        value = options[name]
        if value is not None and (name, value) != ("gop", _GOP):
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _text(found: Choice, command: str) -> str:
    times, bands, height, width = found.shape
    head = (
        f"{many(times, 'date')} x {bands} bands x {height} x {width} pixels, {bytes_text(found.raw_bytes)}; "
        f"{found.sampled} of {many(found.chunks, 'chunk')} tried\n"
        "  bytes are those of a folder (.zarr), with what it says of itself; a .zarr.zip takes some kB less"
    )
    meanings = [f"  {purpose.text}: {purpose.meaning}" for purpose in found.purposes]
    parts = [line for offer in found.offers for line in _offer_lines(offer, found)]
    best = found.best
    return "\n".join(
        [
            head,
            *meanings,
            *parts,
            f"Choose {best.codec}: {_price(best.bytes, best.ratio)}.",
            f"  {command}",
        ]
    )


def _offer_lines(offer: Offer, found: Choice) -> list[str]:
    texts = list(offer.points[0].values) if offer.points else []
    title = "  quality  " + f"{'store':38}" + "".join(f"{text + ': median, worst':30}" for text in texts)
    title += "serve" if texts else ""
    most = max((point.bytes.value for point in offer.points), default=1)
    rows = [_row(point, texts, found, most) for point in offer.points]
    low, high = min(offer.qualities), max(offer.qualities)
    each = f"quality {low:g}" if low == high else f"qualities {low:g} to {high:g}, chunk by chunk"
    others = f"; {many(offer.without_network, 'chunk')} without the network" if offer.without_network else ""
    reached = "" if offer.is_reached else " (not within what was asked for)"
    served = f"  served by {each}{others}: {_price(offer.bytes, offer.ratio)}{reached}"
    return ["", offer.codec, title.rstrip(), *rows, served]


def _row(point: Point, texts: list[str], found: Choice, most: float) -> str:
    bar = "#" * max(1, round(_BAR * point.bytes.value / most))
    line = f"  {point.quality:7}  {bytes_text(round(point.bytes.value)):>9} {bar:28}"
    rising = {purpose.text: purpose.is_rising for purpose in found.purposes}
    for text in texts:
        values = sorted(point.values[text])
        worst = values[0] if rising[text] else values[-1]
        line += f"{statistics.median(values):.4g}, {worst:.4g}".ljust(30)
    return line + (f"{point.served} of {found.sampled}" if texts else "")


def _price(estimate: Estimate, ratio: float) -> str:
    value, low, high = (bytes_text(round(v)) for v in (estimate.value, estimate.low, estimate.high))
    if estimate.low == estimate.high:
        return f"about {value}, {ratio:.1f} times smaller"
    return f"about {value} ({low} to {high} in 90 of 100 draws), {ratio:.1f} times smaller"
