"""`eozip simulate OUT`."""

from __future__ import annotations

from pathlib import Path

import click

from eozip.cli.common import json_option, overwrite_option, print_json, progress_bar, tell


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dates", default=4, show_default=True, type=click.IntRange(min=1), help="Acquisitions.")
@click.option(
    "--size", default=512, show_default=True, type=click.IntRange(min=1), help="Side in pixels of 10 m."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Which world and weather."
)
@click.option("--nodata-edge", is_flag=True, help="Leave a slanted edge of the swath empty (DN 0).")
@overwrite_option
@json_option
def simulate(
    out: Path, dates: int, size: int, seed: int, nodata_edge: bool, overwrite: bool, as_json: bool
) -> None:
    """Write a made-up Sentinel-2 season (not measured) into the folder OUT, one GeoTIFF a date."""
    from eozip_lab.simulate import simulate as write_season  # rasterio is slow to import

    with progress_bar("Simulating", "windows", quiet=as_json) as progress:
        paths = write_season(
            out, dates, size, seed, nodata_edge=nodata_edge, overwrite=overwrite, progress=progress
        )
    if as_json:
        print_json({"files": [str(path) for path in paths], "simulated": True})
    else:
        tell("\n".join(f"{path} (simulated)" for path in paths))
