"""From paths to a Scene: find the dates, read their headers, check that they share one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

import numpy as np
from rasterio.crs import CRS

from eozip.arguments import choice, real
from eozip.errors import InputError
from eozip.raster.files import Dating, PathLike, files_of, notes_on, printable, settled
from eozip.raster.header import Header, band_file, chosen, header_of, profile_of, with_masks, without_alpha
from eozip.raster.scene import Profile, Scene

_MAY_DIFFER = ("colorinterp", "units", "band_names")
_NEAR = 1e-3  # of a pixel, by which two grids may be apart
_OFFSET_NOISE = 0.01  # DN: tags of 32 bits say 1000.00004 for 1000
_WARP = "warp it onto the others' grid (gdalwarp), or leave it out"
_REMEDIES = {
    "dtype": "convert it to the others' data type (gdal_translate -ot), or leave it out",
    "nodata": "give all files one nodata value (gdal_edit.py -a_nodata), or leave it out",
    "scales": "mixed products? bring all files to one scale, or leave it out",
    "offsets": "mixed processing baselines? bring all files to one offset, or leave it out",
    "band_names": "name the bands of all with --bands (bands=), say --sensor, or leave it out",
}


def open_scene(
    paths: PathLike | Sequence[PathLike],
    bands: Sequence[str | int] | None = None,
    offset: float | None = None,
) -> Scene:
    """Describe one GeoTIFF, several GeoTIFFs as dates, or every GeoTIFF of a folder; reads no pixels.

    Dates come from file names, else from tags, else from the names of folders. They are put in time order where
    all are known; else files keep the order given (a folder's: by name). Files of one band each whose names hold
    a band, such as "..._B04.tif", are joined to dates. Bands of several dates are matched by what they mean.

    Args:
        paths: a file, a folder, a folder of folders, or files; names that GDAL or rasterio resolves, such as
            "/vsizip/..." and "https://...", are passed on as they are.
        bands: names or 1-based positions of the bands to take, in the order wanted. Where names do not fit those in
            the file, they say what its bands are, in file order; 12 or 13 positions stand for the sensor's
            bands in the sensor's order, unless the file's own names are a sensor's.
        offset: DN added to the offset-free DN. None takes GDAL's offset tags; pixels are never asked.

    Raises:
        InputError: nothing to read, unreadable, dates on different grids (names the file and what differs),
            or bands that do not exist.
    """
    bands = choice("bands", bands)
    known = None if offset is None else real("offset", offset)
    headers, left_out = _joined_bands([header_of(path) for path in files_of(paths)])
    datings = settled([h.dating for h in headers])
    notes = [*left_out, *notes_on(datings, [printable(h.path) for h in headers])]
    order = time_order(datings)
    found = [chosen_date(headers[i], bands) for i in order]
    scene = scene_of(found, [datings[i].date for i in order], notes)
    return replace(scene, offset=_radiometric_offset(scene.profile) if known is None else known)


def scene_of(
    found: Sequence[ChosenDate],
    when: Sequence[datetime | None],
    notes: Sequence[str] = (),
    may_differ: Sequence[str] = (),
) -> Scene:
    """Dates on one grid as a scene; nobody has said yet what its radiometric offset is.

    Args:
        found: [T] dates, the first of which says in which order the bands are.
        when: [T] their times.
        notes: sentences for `Scene.notes`.
        may_differ: fields of `Profile` in which dates may differ.

    Raises:
        InputError: dates that differ in their grid or bands.
    """
    dates, said = _alike(list(found), tuple(may_differ))
    first = dates[0]
    return Scene(
        sources=tuple(tuple(band.source for band in d.header.bands) for d in dates),
        dates=tuple(when),
        profile=first.profile,
        tags=tuple(d.header.tags for d in dates),
        band_tags=tuple(band.tags for band in first.header.bands),
        offset=0.0,
        block_shape=first.header.block_shape,
        codes=tuple(band.code for band in first.header.bands),
        notes=(*notes, *said),
    )


@dataclass(frozen=True)
class ChosenDate:
    """One date with the bands that were chosen, and what a caller should know about the choice."""

    header: Header
    profile: Profile
    notes: list[str]


# --- the bands of one date ---


def chosen_date(header: Header, wanted: Sequence[str | int] | None) -> ChosenDate:
    """One date with the bands that a caller wants, its alpha band or nodata values as masks."""
    bands, notes = chosen(header.bands, wanted, header.path)
    bands, more = with_masks(header, bands)
    dated = replace(header, bands=tuple(bands))
    return ChosenDate(dated, profile_of(dated), notes + more)


# --- dates of files of one band each ---


def _joined_bands(headers: list[Header]) -> tuple[list[Header], list[str]]:
    """Dates out of files of one band each, told apart by folder and name without the band; and notes."""
    names = [band_file(h.path) for h in headers]
    coded = [len(without_alpha(h.bands)) == 1 and n.code is not None for h, n in zip(headers, names)]
    if sum(coded) < 2:
        return headers, []
    rest = [(h.path, n.is_beside) for h, n, is_band in zip(headers, names, coded) if not is_band]
    for path, is_beside in rest:
        if not is_beside:
            example = headers[coded.index(True)].path
            raise InputError(
                f"{path}: is no band that its name tells, among files of one band each such as {example}; leave it out"
            )
    groups: dict[tuple[str, str], list[Header]] = {}
    for header, name, is_band in zip(headers, names, coded):
        if is_band:
            band = replace(
                with_masks(header, without_alpha(header.bands))[0][0], name=name.code, code=name.code
            )
            groups.setdefault(name.date, []).append(replace(header, bands=(band,)))
    left_out = [f"left out, as no band of the sensor: {', '.join(printable(path) for path, _ in rest)}"]
    return [_joined(group) for group in groups.values()], left_out if rest else []


def _joined(group: list[Header]) -> Header:
    first = group[0]
    of_first, seen = profile_of(first), {first.bands[0].code: first.path}
    for other in group[1:]:
        if other.bands[0].code in seen:
            path = seen[other.bands[0].code]
            raise InputError(
                f"{other.path}: band {other.bands[0].code} occurs more than once in one date, see {path}; leave one out"
            )
        seen[other.bands[0].code] = other.path
        _check_same(
            first.path, of_first, other.path, profile_of(other), ("scales", "offsets"), "Bands of one date"
        )
    dated = next((h.dating for h in group if h.dating.date is not None), first.dating)
    return replace(first, bands=tuple(band for h in group for band in h.bands), dating=dated)


# --- several dates ---


def time_order(datings: Sequence[Dating]) -> list[int]:
    """Positions in time order; as they are where a date is unknown."""
    days = [one.date for one in datings]
    known = [day for day in days if day is not None]
    return (
        sorted(range(len(days)), key=lambda i: known[i])
        if len(known) == len(days)
        else list(range(len(days)))
    )


def _alike(dates: list[ChosenDate], may_differ: tuple[str, ...] = ()) -> tuple[list[ChosenDate], list[str]]:
    """Dates with the bands of each in the order of the first; and notes, none twice."""
    first, *others = dates
    found = [first, *(_in_order_of(first, other) for other in others)]
    for other in found[1:]:
        _check_same(first.header.path, first.profile, other.header.path, other.profile, may_differ)
    return found, list(dict.fromkeys(note for date in dates for note in date.notes))


def _in_order_of(first: ChosenDate, other: ChosenDate) -> ChosenDate:
    expected, got = first.header.bands, other.header.bands
    for name in ("code", "name"):
        want, have = [getattr(b, name) for b in expected], [getattr(b, name) for b in got]
        if (
            None not in want
            and len(set(want)) == len(want)
            and sorted(map(str, want)) == sorted(map(str, have))
        ):
            header = replace(other.header, bands=tuple(got[have.index(text)] for text in want))
            return ChosenDate(header, profile_of(header), other.notes)
    if first.profile.band_names != other.profile.band_names:
        raise InputError(
            _differs(
                first.header.path,
                first.profile,
                other.header.path,
                other.profile,
                "band_names",
                "Dates of one store",
            )
        )
    return other


def _check_same(
    first_path: str,
    first: Profile,
    other_path: str,
    other: Profile,
    but: tuple[str, ...] = (),
    what: str = "Dates of one store",
) -> None:
    for field in fields(Profile):
        expected, got = getattr(first, field.name), getattr(other, field.name)
        if field.name not in (*but, *_MAY_DIFFER) and not same_field(field.name, expected, got):
            raise InputError(_differs(first_path, first, other_path, other, field.name, what))


def _differs(first_path: str, first: Profile, other_path: str, other: Profile, name: str, what: str) -> str:
    remedy = _REMEDIES.get(name, _WARP)
    return (
        f"{other_path}: {name} differs from {first_path}: expected {getattr(first, name)}, got {getattr(other, name)}. "
        f"{what} share one grid and one set of bands: {remedy}"
    )


def same_field(name: str, expected: object, got: object) -> bool:
    """Whether a field of two profiles means the same: CRS by meaning, transforms to a millionth of a pixel, NaN as NaN."""
    if name in ("crs", "gcp_crs") and isinstance(expected, str) and isinstance(got, str):
        return bool(CRS.from_wkt(expected) == CRS.from_wkt(got))
    if name == "transform" and isinstance(expected, tuple) and isinstance(got, tuple):
        pixel = abs(expected[0]) + abs(expected[1])
        return bool(np.allclose(expected, got, rtol=0, atol=1e-6 * pixel))
    if name in ("scales", "offsets") and isinstance(expected, tuple) and isinstance(got, tuple):
        return len(expected) == len(got) and bool(np.allclose(expected, got, rtol=1e-6, atol=0))
    both_nan = name == "nodata" and expected != expected and got != got
    return both_nan or expected == got


def check_place(what: str, own: Profile, profile: Profile, factor: int) -> None:
    """Refuse a raster that lies elsewhere than a scene, as far as both say where.

    Args:
        what: names the raster in messages.
        own: of the raster.
        profile: of the scene.
        factor: pixels of the scene in one of the raster, each way.

    Raises:
        InputError: another coordinate system, or another grid than pixels so much larger make.
    """
    if own.crs and profile.crs and not same_field("crs", profile.crs, own.crs):
        raise InputError(f"{what}: expected the coordinate system of the scene, got another; reproject it")
    if own.transform and profile.transform:
        a, b, x, d, e, y = profile.transform[:6]
        coarse = (a * factor, b * factor, x, d * factor, e * factor, y)
        pixel = abs(coarse[0]) + abs(coarse[1])
        apart = max(abs(one - other) for one, other in zip(own.transform[:6], coarse, strict=True))
        if apart > _NEAR * pixel:
            raise InputError(
                f"{what}: expected the grid of the scene, {coarse}, got {tuple(own.transform[:6])}; cut or "
                "resample it"
            )


def _radiometric_offset(profile: Profile) -> float:
    """DN added, out of GDAL's physical = DN * scale + offset; 0 where the file says nothing."""
    odd = [s for s in profile.scales if s == 0 or not math.isfinite(s)]
    odd += [o for o in profile.offsets if not math.isfinite(o)]
    if odd:
        raise InputError(
            f"a band has GDAL scale or offset {odd[0]}; give the radiometric offset with --offset (offset= in Python)"
        )
    steps = {_whole_where_near(-o / s) for o, s in zip(profile.offsets, profile.scales)}
    if len(steps) > 1:
        raise InputError(
            f"bands have different radiometric offsets ({sorted(steps)} DN by the file's GDAL tags); "
            "expected one. Give it with --offset (offset= in Python): 1000 for products of baseline 04.00 "
            "and later, else 0"
        )
    return steps.pop()


def _whole_where_near(dn: float) -> float:
    """Rounded to the nearest whole DN where that is what the tag meant."""
    return float(round(dn)) if abs(dn - round(dn)) <= _OFFSET_NOISE else round(dn, 6)
