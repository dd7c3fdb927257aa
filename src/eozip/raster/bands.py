"""Which bands of a file are taken, and what they are; files of one band each joined to dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from eozip.errors import InputError
from eozip.raster.scene import Source
from eozip.sensors.sensor import by_count, canonical_name, file_band, is_band_set

# what products keep beside their bands: aerosol, water vapour, classifications, probabilities, angles, previews
_BESIDE = frozenset(
    re.split(
        " ",
        "AOT WVP SCL TCI PVI CLP CLD SNW CLDPRB SNWPRB QA60 QA20 QA10 FMASK SAA SZA VAA VZA CMASK CLOUD CLOUDS SNOW "
        "DATAMASK VISUAL PREVIEW THUMBNAIL OVERVIEW",
    )
)
_RESOLUTION = re.compile(r"[_-]?(?<![0-9a-z])r?(?:10|20|60)m(?![0-9a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Band:
    """One band of one date as its file describes it.

    Attributes:
        source: where it lies.
        name: its description; None without one.
        code: canonical name of what it is, or None.
        dtype: numpy name; GDAL's where numpy has none.
        nodata: value of missing pixels, or None.
        scale, offset: GDAL's: physical value = DN * scale + offset.
        unit: name, or None.
        colorinterp: GDAL's name, such as "gray".
        tags: metadata of the band.
    """

    source: Source
    name: str | None
    code: str | None
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    unit: str | None
    colorinterp: str
    tags: dict[str, str]


def chosen(
    have: Sequence[Band], wanted: Sequence[str | int] | None, path: str
) -> tuple[list[Band], list[str]]:
    """The bands that a caller wants, in the order wanted.

    Names choose among the bands whose descriptions mean them. Where they do not find them all, they say what the
    file's bands are, in file order. Positions choose, and where the descriptions of those chosen are not those of
    a sensor, 12 or 13 positions stand for the bands of the sensor in its order.

    Args:
        have: every band of the file.
        wanted: names or 1-based positions; None for all but an alpha band.
        path: for messages.

    Returns:
        the bands, and notes where `wanted` overrides what the file says.

    Raises:
        InputError: no such band.
    """
    if wanted is None:
        return without_alpha(have), []
    found = [_found(have, band, path) for band in wanted]
    if None in found:
        return _named_in_order(have, wanted, path)
    bands = [band for band in found if band is not None]
    if all(isinstance(band, int) for band in wanted) and not is_band_set([band.code for band in bands]):
        return _numbered(bands)
    return bands, []


def without_alpha(have: Sequence[Band]) -> list[Band]:
    """The bands that are pixels; an alpha band alone counts as one."""
    return [band for band in have if not is_alpha(band)] or list(have)


def is_alpha(band: Band) -> bool:
    """Whether a band of a DN raster is its mask; not one that its name says to be a band, whatever GDAL tagged it.

    Of 8 bits, GDAL calls any fourth band alpha, one of a mask too.
    """
    return band.colorinterp == "alpha" and band.code is None and band.dtype in ("uint16", "int16")


def _found(have: Sequence[Band], wanted: str | int, path: str) -> Band | None:
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(have):
            raise InputError(f"{path}: no band {wanted}; positions run from 1 to {len(have)}")
        return have[wanted - 1]
    code = canonical_name(wanted)
    for matches in (
        [band for band in have if band.name == wanted],
        [band for band in have if code is not None and band.code == code],
    ):
        if len(matches) == 1:
            return matches[0]
    return None


def _named_in_order(
    have: Sequence[Band], wanted: Sequence[str | int], path: str
) -> tuple[list[Band], list[str]]:
    """The caller's names for bands in file order, where the file's own are none or mean no sensor."""
    bands = without_alpha(have)
    is_described = any(band.name for band in bands)
    means = [canonical_name(str(name)) for name in wanted]
    is_plausible = not is_described or (None not in means and not is_band_set([band.code for band in bands]))
    if len(wanted) != len(bands) or not is_plausible or any(isinstance(name, int) for name in wanted):
        raise InputError(_no_band(bands, wanted, path))
    renamed = [
        replace(band, name=band.name or str(name), code=mean)
        for band, name, mean in zip(bands, wanted, means, strict=True)
    ]
    return renamed, _overridden(bands, renamed)


def _no_band(bands: Sequence[Band], wanted: Sequence[str | int], path: str) -> str:
    missing = next(name for name in wanted if _found(bands, name, path) is None)
    if not any(band.name for band in bands):
        return (
            f"{path}: its {len(bands)} bands have no descriptions, so --bands must name all of them in file order; got "
            f"{len(wanted)} names. Or choose by position, 1 to {len(bands)}, in the sensor's order"
        )
    names = [band.name for band in bands]
    doubled = f"; {names.count(str(missing))} bands have that name" if names.count(str(missing)) > 1 else ""
    return (
        f"{path}: no band {missing!r}; the file has {', '.join(map(str, names))}{doubled}. Choose by position, 1 to "
        f"{len(bands)}, or name all {len(bands)} in file order"
    )


def _numbered(bands: list[Band]) -> tuple[list[Band], list[str]]:
    """Bands by position where their descriptions do not make a sensor."""
    is_described = any(band.name for band in bands)
    try:
        names = by_count(len(bands)).band_names
    except InputError:
        if is_described:  # a choice for something that needs no sensor
            return bands, []
        raise
    renamed = [
        replace(band, name=band.name or name, code=name) for band, name in zip(bands, names, strict=True)
    ]
    renamed = renamed if is_described else [replace(band, name=name) for band, name in zip(renamed, names)]
    return renamed, _overridden(bands, renamed)


def _overridden(before: Sequence[Band], after: Sequence[Band]) -> list[str]:
    changed = [(a.name, b.code) for a, b in zip(before, after) if a.code is not None and a.code != b.code]
    if not changed:
        return []
    said = ", ".join(f"{name!r} is taken for {code}" for name, code in changed)
    return [f"--bands overrides what the file calls its bands: {said}"]


# --- files of one band each ---


@dataclass(frozen=True)
class BandFile:
    """The name of a file of one band, taken apart.

    Attributes:
        code: canonical name of its band; None where the name tells none.
        date: what its path is without the band: equal for the files of one date.
        is_beside: whether it is a layer that products keep beside their bands, such as SCL.
    """

    code: str | None
    date: tuple[str, str]
    is_beside: bool


def band_file(path: str) -> BandFile:
    """What the name of a file says about its band: ..._B04_10m.tif, nir08.tif, or a folder called B04."""
    place = PurePosixPath(path.replace("\\", "/"))
    code, rest = file_band(place.stem)
    folders = [part for part in place.parent.parts if not _RESOLUTION.fullmatch(part)]
    if code is None and folders and re.fullmatch(r"B\d[\dA]", folders[-1], re.IGNORECASE):
        code = canonical_name(folders.pop())
    tokens = {token.upper() for token in re.split(r"[^A-Za-z0-9]+", place.stem)}
    return BandFile(code, ("/".join(folders), _RESOLUTION.sub("", rest)), bool(tokens & _BESIDE))
