"""Plain files: GeoTIFFs of all bands, and files of one band each, joined to dates on as many grids as they have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from eozip.errors import InputError
from eozip.raster.delivered.delivery import (
    Bad,
    BesideFile,
    Delivery,
    Told,
    agreed,
    baseline_in,
    by_baseline,
    by_grid,
    by_tags,
    check_date,
    coarse_factor,
)
from eozip.raster.delivered.names import KNOWN, NATIVE, FileName, named
from eozip.raster.files import PathLike, files_of, printable
from eozip.raster.header import Band, Header, header_of, with_masks, without_alpha
from eozip.raster.product import Acquisition
from eozip.sensors import get
from eozip.sensors.sensor import Sensor

_LANDSAT = Told(round(0.2 / 2.75e-5, 2), "USGS Collection 2 Level-2: reflectance = DN * 0.0000275 - 0.2")
FIXED = {
    "landsat": _LANDSAT,
    "hls": Told(0.0, "HLS v2.0: DN = reflectance * 10000"),
    "theia": Told(0.0, "MAJA (Theia): DN = reflectance * 10000"),
}
_SENSORS = {"hls": "hls", "landsat": "landsat-c2-l2"}
_SCALES = {"landsat": 2.75e-5}
_THEIA_NODATA = -10000
_SEN2R = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B11", "B12")
_SENTINEL2 = re.compile(
    r"S2[A-D]|MSIL[12]|SENTINEL-?2|(?<![A-Z0-9])T?\d\d[C-X][A-Z]{2}_|[\\/_.-]B\d[\dA][\\/_.]", re.IGNORECASE
)


@dataclass(frozen=True)
class _File:
    """One file: its header, and what its name says."""

    header: Header
    name: FileName


def file_deliveries(
    inputs: PathLike | Sequence[PathLike], offset: float | None, bad: Bad
) -> tuple[list[Delivery], list[str]]:
    """Describe plain files; read no pixels.

    Args:
        inputs: files or folders.
        offset: radiometric offset of all bands; None: as the files say.
        bad: what becomes of damaged dates.

    Returns:
        one delivery for each date, and notes.

    Raises:
        InputError: a file that is no band among files of one band each, or an offset that cannot be told.
    """
    files = _files([*files_of(inputs), *_theia_masks(inputs)], bad)
    bands = [file for file in files if _is_band(file)]
    if len(bands) < 2 and not any(file.name.is_stack for file in files):
        return [one for file in files for one in bad.tried(partial(_stack, file.header, offset))], []
    notes = _check_rest(files)
    groups: dict[tuple[str, ...], list[_File]] = {}
    for file in files:
        if _is_band(file) or file.name.is_stack:
            groups.setdefault(file.name.product, []).append(file)
    layers = [file for file in files if file.name.layer is not None and len(file.header.bands) == 1]
    deliveries = []
    for key, group in groups.items():
        deliveries += bad.tried(partial(_delivery, key, group, layers, len(groups), offset))
    return deliveries, notes


def _theia_masks(inputs: PathLike | Sequence[PathLike]) -> list[str]:
    """What Theia keeps in the folder MASKS of a product that is given by its folder."""
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    folders = [Path(path, "MASKS") for path in given if os.path.isdir(path)]
    return [
        str(path)
        for folder in folders
        for path in sorted(folder.glob("*.tif"))
        if named(str(path)).layout == "theia"
    ]


def _files(paths: Sequence[str], bad: Bad) -> list[_File]:
    """Headers of files; without all files of a date of which one cannot be opened, where those are skipped."""
    found, broken = [], set()
    for path in paths:
        name = named(path)
        try:
            found.append(_File(header_of(path), name))
        except InputError as error:
            if not bad.skip:
                raise
            if name.product not in broken:
                bad.left_out.append(f"left out: {error}")
            broken.add(name.product)
    return [file for file in found if file.name.product not in broken]


def _is_band(file: _File) -> bool:
    return file.name.band is not None and len(without_alpha(file.header.bands)) == 1


def _check_rest(files: Sequence[_File]) -> list[str]:
    """A note on what is left out.

    Raises:
        InputError: a file that is nothing known.
    """
    used = [file for file in files if _is_band(file) or file.name.is_stack]
    rest = [file for file in files if file not in used]
    for file in rest:
        if not file.name.is_beside:
            raise InputError(
                f"{file.header.path}: is no band that its name tells, among files of one band each such as "
                f"{used[0].header.path}; leave it out"
            )
    out = [file.header.path for file in rest if file.name.layer is None or len(file.header.bands) != 1]
    return [f"left out, as no band of the sensor: {', '.join(map(printable, out))}"] if out else []


def _stack_told(header: Header, offset: float | None) -> Told:
    """What tells the offset of a file of all bands: its tags; the bands keep what each of them says.

    Raises:
        InputError: the baseline in the product's name says another.
    """
    if offset is not None:
        return Told(offset, "given")
    tags = [one for band in header.bands for one in by_tags(band.scale, band.offset, _tag(band))]
    baseline = by_baseline(baseline_in(header.path), "the baseline in the product's name,")
    if tags:
        return agreed([tags[0], *baseline], header.path, tags[0])
    none = Told(0.0, "no tag of the file, which")
    return (
        agreed([none, *baseline], header.path, none)
        if baseline
        else replace(none, by="no tag of the file says another")
    )


def _stack(header: Header, offset: float | None) -> Delivery:
    told = _stack_told(header, offset)
    level = re.search(r"L(?:evel-?)?(1C|2A)", header.path)
    facts = Acquisition(
        header.dating.date,
        level=f"L{level.group(1)}" if level else None,
        baseline=baseline_in(header.path),
        offset_source=told.by,
    )
    return Delivery(header.path, (header,), header.dating, facts)


# --- files of one band each ---


def _delivery(
    key: tuple[str, ...], group: list[_File], layers: Sequence[_File], dates: int, offset: float | None
) -> Delivery:
    layout, name = group[0].name.layout, group[0].header.path
    files, notes = _one_variant(group)
    files, more = _native(files)
    dating = next(
        (f.header.dating for f in files if f.header.dating.date is not None), files[0].header.dating
    )
    told = _told(files, layout, dating.date, offset)
    headers = [_with_offset(_band_header(file), told) for file in files]
    joined = [replace(header, dating=dating) for header in by_grid(headers, name)]
    own = [file for file in layers if file.name.product == key or (dates == 1 and not layout)]
    beside, said = _beside(own, joined[0], layout)
    levels = {file.name.level for file in files} - {None}
    facts = Acquisition(
        dating.date,
        product=key[0] if layout else None,
        level=levels.pop() if len(levels) == 1 else None,
        baseline=baseline_in(name),
        offset_source=told.by,
    )
    return Delivery(
        name=key[0] if layout else name,
        headers=tuple(joined),
        dating=dating,
        facts=facts,
        beside=tuple(beside),
        kind="bands" if not layout else f"bands ({layout})",
        sensor=_sensor(layout, [band for header in joined for band in header.bands]),
        tile=next((file.name.tile for file in files if file.name.tile), None),
        scale=_SCALES.get(layout, 1e-4 if layout or _is_sentinel2(files) else None),
        notes=(*notes, *more, *said),
    )


def _one_variant(group: list[_File]) -> tuple[list[_File], list[str]]:
    """Of Theia's two reflectances the one that is corrected for slopes, where both are there."""
    flat = [file for file in group if file.name.variant == "FRE"]
    if not flat or len(flat) == len(group):
        return group, []
    return flat, [
        f"{group[0].name.product[0]}: SRE is left out, FRE (slopes corrected) is taken; name SRE files to take these"
    ]


def _native(group: list[_File]) -> tuple[list[_File], list[str]]:
    """One file of each band: that of its native resolution, else the finest."""
    by_code: dict[str | None, list[_File]] = {}
    for file in group:
        by_code.setdefault(file.name.code or file.header.path, []).append(file)
    kept, out = [], []
    for code, files in by_code.items():
        best = files[0]
        if len(files) > 1:
            sizes = [file.name.metres for file in files]
            if None in sizes or len(set(sizes)) < len(sizes):
                raise InputError(
                    f"{files[1].header.path}: band {code} occurs more than once in one date, see {files[0].header.path}; "
                    "leave one out"
                )
            wanted = _native_metres(code)
            best = min(files, key=lambda file: (file.name.metres != wanted, file.name.metres))
        kept.append(best)
        out += [file.header.path for file in files if file is not best]
    said = ", ".join(printable(path).rpartition("/")[2] for path in out)
    return kept, [f"left out, as copies of bands on other grids: {said}"] if out else []


def _native_metres(code: str | None) -> int | None:
    known: dict[str, int] = {b.name: b.native_resolution_m for s in _sentinel2() for b in s.bands}
    return known.get(str(code))


def _sentinel2() -> tuple[Sensor, ...]:
    return get("s2-l1c"), get("s2-l2a")


def _band_header(file: _File) -> Header:
    header = file.header
    if file.name.is_stack:
        return replace(header, bands=tuple(_sen2r_bands(file)))
    band = with_masks(header, without_alpha(header.bands))[0][0]
    nodata = band.nodata
    if nodata is None and file.name.layout == "theia" and band.dtype == "int16":
        nodata = _THEIA_NODATA
    named_as = file.name.band if file.name.layout else file.name.code
    return replace(header, bands=(replace(band, name=named_as, code=file.name.code, nodata=nodata),))


def _sen2r_bands(file: _File) -> Iterator[Band]:
    """The bands of a stack of sen2r: by its descriptions, else in its own order, where B08 at 20 m is B8A."""
    bands = without_alpha(file.header.bands)
    names = list(_SEN2R)
    if file.name.metres == 20:
        names[names.index("B08")] = "B8A"
    if all(band.code for band in bands):
        yield from bands
        return
    if len(bands) != len(names):
        raise InputError(
            f"{file.header.path}: expected the {len(names)} bands of sen2r ({' '.join(names)}) or descriptions, got "
            f"{len(bands)} bands without; name them with --bands, in file order, and give this file alone"
        )
    for band, name in zip(bands, names):
        yield replace(band, name=name, code=name)


# --- radiometric offset ---


def _told(files: Sequence[_File], layout: str, date: datetime | None, offset: float | None) -> Told:
    if offset is not None:
        return Told(offset, "given")
    name = files[0].header.path
    bands = [band for file in files for band in file.header.bands]
    told = [one for band in bands for one in by_tags(band.scale, band.offset, _tag(band))]
    if layout in FIXED:
        return agreed([FIXED[layout], *told], name, FIXED[layout])
    told += by_baseline(baseline_in(name), "the baseline in the product's name,")
    told = list({(one.dn, one.by): one for one in told}.values())
    if not told and _is_sentinel2(files):
        check_date(date, name)
    return agreed(told, name, Told(0.0, "no tag and no metadata: acquired before baseline 04.00"))


def _tag(band: Band) -> str:
    return f"GDAL scale {band.scale:g} and offset {band.offset:g}"


def _is_sentinel2(files: Sequence[_File]) -> bool:
    codes = {file.name.code for file in files}
    by_name = any(_SENTINEL2.search(file.header.path) for file in files)
    return (
        by_name or bool(codes & {"B05", "B06", "B07", "B8A"}) or any(f.name.layout == "sen2r" for f in files)
    )


def _with_offset(header: Header, told: Told) -> Header:
    return replace(header, bands=tuple(replace(band, radiometric=told.dn) for band in header.bands))


def _sensor(layout: str, bands: Sequence[Band]) -> str | None:
    """A sensor whose bands these are, all of them."""
    known = _SENSORS.get(layout)
    if known is None:
        return None
    codes = {band.code for band in bands} if known == "hls" else {band.name for band in bands}
    return known if codes == set(get(known).band_names) else None


# --- layers ---


def _beside(files: Sequence[_File], finest: Header, layout: str) -> tuple[list[BesideFile], list[str]]:
    by_name: dict[str, list[_File]] = {}
    for file in files:
        by_name.setdefault(str(file.name.layer), []).append(file)
    found, notes = [], []
    for name, same in by_name.items():
        file = min(same, key=lambda one: (one.name.metres not in (None, NATIVE), one.name.metres or 0))
        header = _layer_header(file.header, name)
        if not _fits(finest, header):
            notes.append(
                f"left out, as its grid is not that of the bands or coarser: {printable(header.path)}"
            )
            continue
        kind, attributes = KNOWN[name]
        found.append(BesideFile(name, kind, header, attributes))
    return found, notes


def _fits(finest: Header, header: Header) -> bool:
    factor = coarse_factor(finest, header)
    if factor is None or finest.grid["crs"] != header.grid["crs"]:
        return False
    return all(header.grid[side] == -(-finest.grid[side] // factor) for side in ("height", "width"))


def _layer_header(header: Header, name: str) -> Header:
    band = header.bands[0]
    return replace(header, bands=(replace(band, name=name, code=None, source=replace(band.source, mask="")),))
