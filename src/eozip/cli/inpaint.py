"""`eozip inpaint IN... --mask MASK OUT`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

import eozip.inpaint as filling
from eozip.cli.common import (
    RASTER,
    json_option,
    many,
    overwrite_option,
    print_json,
    progress_bar,
    tell,
    threads_option,
    use_threads,
)

if TYPE_CHECKING:
    from eozip.inpaint.files import Report


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=RASTER, metavar="IN...")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--mask",
    required=True,
    metavar="SPEC",
    help="What is hidden: a raster PATH (not 0 is hidden), scl:3,8,9,10[@PATH], prob:0.4[@PATH] or allclear@PATH; "
    "without @PATH, a band SCL or CLP of the input.",
)
@click.option(
    "--predictor",
    help="regression (default), least-cloudy-filled, nearest-clear, mean-clear, weighted-filled, linear-in-time, "
    "harmonic, kriging, or a published TEC-TT.",
)
@click.option(
    "--dilate", type=click.IntRange(0, 100), default=0, show_default=True, help="Grow the mask, pixels."
)
@click.option(
    "--min-clear",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of clear pixels that some other date needs.",
)
@click.option("--offset", type=int, help="Radiometric offset in DN (1000 from Sentinel-2 baseline 04.00 on).")
@click.option("--nodata", type=int, help="DN of missing pixels; default: the file's.")
@overwrite_option
@json_option
@threads_option
def inpaint(
    inputs: tuple[str, ...],
    out: Path,
    mask: str,
    predictor: str | None,
    dilate: int,
    min_clear: float,
    offset: int | None,
    nodata: int | None,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
) -> None:
    """Fill what clouds hide from the other dates; measured pixels stay as they are.

    IN is several GeoTIFFs (dates), a folder of them, or an eozip store. OUT is a folder: one GeoTIFF per date with
    two more bands, PROVENANCE (0 measured, 1+n predicted with n dates) and SIGMA (standard deviation, DN). Or it is a
    store, *.zarr or *.zarr.zip: all pixels lossless, with arrays `provenance` and `sigma`.
    """

    use_threads(threads)
    with progress_bar("Filling", "parts", quiet=as_json) as progress:
        report = filling.inpaint_files(
            inputs,
            mask,
            out,
            predictor=predictor,
            dilate=dilate,
            min_clear=min_clear,
            offset=offset,
            nodata=nodata,
            overwrite=overwrite,
            progress=progress,
        )
    name = filling.DEFAULT if predictor is None else predictor
    reason = filling.WHY if predictor is None else "as asked for"
    if as_json:
        print_json({**asdict(report), "predictor": name, "reason": reason})
    else:
        tell("\n".join(_lines(report, name, reason)))


def _lines(report: Report, predictor: str, reason: str) -> list[str]:
    times, bands, height, width = report.shape
    lines = [
        f"{report.output}: {many(times, 'date')} x {bands} bands x {height} x {width} pixels in {report.seconds:.1f} s",
        f"  predictor {predictor}: {reason}",
    ]
    for name, method, cover, sigma in zip(report.files, report.methods, report.cover, report.sigma):
        said = (
            f"{100 * cover:.1f} % hidden, by {method}, median sigma {sigma:.0f} DN"
            if sigma
            else "nothing hidden"
        )
        lines.append(f"  {name}: {said}")
    if report.without_reference:
        lines.append(
            f"  {report.without_reference} pixels that no other date shows: from their surroundings alone"
        )
    if report.unfilled:
        lines.append(
            f"  {report.unfilled} hidden pixels left as they came: no other date shows anything near them"
        )
    if not report.calibrated:
        lines.append("  sigma is the predictor's own: it was never calibrated")
    return lines
