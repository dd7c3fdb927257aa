"""Cloud-optimised GeoTIFFs whose overviews are given, not computed from the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil

from eozip.raster.scene import Profile, Tags
from eozip.raster.write import create_geotiff

_BLOCK = 512
LARGEST = 32  # pixels, each way, that one of an overview may stand for

_Read = Callable[[int, slice, slice], np.ndarray]
"""Pixels [C, h, w] of a window of the picture that is so many times coarser."""


def _overview_factors(height: int, width: int) -> list[int]:
    """2, 4, ... until the picture fits one tile."""
    factors, times = [], 2
    while times <= LARGEST and max(-(-height // (times // 2)), -(-width // (times // 2))) > _BLOCK:
        factors.append(times)
        times *= 2
    return factors


def write_cog(
    staged: Path,
    profile: Profile,
    read: _Read,
    tags: Tags | None = None,
    band_tags: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write one file into a folder of the caller's, beside temporary ones that are gone at the end.

    Args:
        staged: its name.
        profile: size, dtype, grid, nodata, bands.
        read: gives pixels and overviews.
        tags: metadata by namespace.
        band_tags: [C] metadata per band.

    Raises:
        OutputError: the disk refuses.
    """
    factors = [1, *_overview_factors(profile.height, profile.width)]
    levels = [staged.with_name(f".{staged.stem}.{factor}.tif") for factor in factors]
    source = staged.with_name(f".{staged.stem}.vrt")
    try:
        for factor, level in zip(factors, levels, strict=True):
            _write_level(
                level, coarser_profile(profile, factor), _partial_read(read, factor), tags, band_tags
            )
        rasterio.shutil.copy(str(levels[0]), str(source), driver="VRT")
        _add_overviews(source, levels[1:])
        options: dict[str, Any] = {"BLOCKSIZE": _BLOCK, "COMPRESS": "DEFLATE", "PREDICTOR": "YES"}
        existing = "FORCE_USE_EXISTING" if len(levels) > 1 else "NONE"
        rasterio.shutil.copy(
            str(source), str(staged), driver="COG", OVERVIEWS=existing, BIGTIFF="IF_SAFER", **options
        )
    finally:
        for path in (*levels, source):
            path.unlink(missing_ok=True)


def coarser_profile(profile: Profile, factor: int) -> Profile:
    """The profile of the picture that is so many times coarser."""
    transform = profile.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        transform = a * factor, b * factor, c, d * factor, e * factor, f
    size = -(-profile.height // factor), -(-profile.width // factor)
    return replace(profile, height=size[0], width=size[1], transform=transform)


def _partial_read(read: _Read, factor: int) -> Callable[[slice, slice], np.ndarray]:
    """`read` of one picture."""
    return lambda rows, columns: read(factor, rows, columns)


def _write_level(
    path: Path,
    profile: Profile,
    read: Callable[[slice, slice], np.ndarray],
    tags: Tags | None,
    band_tags: Sequence[Mapping[str, str]],
) -> None:
    with create_geotiff(path, profile, tags, band_tags, block=_BLOCK) as writer:
        for y in range(0, profile.height, _BLOCK):
            rows = slice(y, min(y + _BLOCK, profile.height))
            writer.write(np.ascontiguousarray(read(rows, slice(0, profile.width))), y, 0)


def _add_overviews(source: Path, levels: Sequence[Path]) -> None:
    tree = ElementTree.parse(source)
    for band in tree.getroot().iter("VRTRasterBand"):
        for level in levels:
            overview = ElementTree.SubElement(band, "Overview")
            name = ElementTree.SubElement(overview, "SourceFilename", relativeToVRT="1")
            name.text = level.name
            ElementTree.SubElement(overview, "SourceBand").text = band.get("band")
    tree.write(source)
