"""One acquisition of one place as it was delivered: what every reader of a layout makes, and `open_product` takes; and its
radiometric offset: what each source says of it, and a stop where two contradict each other.

Sentinel-2 products of processing baseline 04.00 and later hold DN = reflectance * 10000 + 1000. The date of acquisition
does not tell the baseline: Collection 1 reprocessed old dates. Pixels are never asked.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from rasterio.errors import RasterioError
from rasterio.windows import Window

from eozip.errors import InputError
from eozip.raster.files import Dating, exists
from eozip.raster.header import Band, Header, open_dataset
from eozip.raster.product import Acquisition

_ADDED = 1000.0  # DN, from baseline 04.00 on
_SINCE = datetime(2022, 1, 25)  # every product processed from this day on is of baseline 04.00 or later
_FIRST = (4, 0)
_NEAR = 0.5  # DN: tags of 32 bits say 1000.00004 for 1000
_BASELINE = re.compile(r"(?<![A-Z0-9])N(\d\d)(\d\d)(?![0-9])")
DECIDE = (
    "Say which: --offset 1000 if the DN are as ESA delivers them (baseline 04.00 and later), --offset 0 if it was taken "
    "off"
)


@dataclass(frozen=True)
class Told:
    """What one source says.

    Attributes:
        dn: DN added to the offset-free DN.
        by: the source, in words.
    """

    dn: float
    by: str


def agreed(told: Sequence[Told], name: str, default: Told) -> Told:
    """The offset that all sources say.

    Args:
        told: sources; the first gives the value.
        name: of the product, for the message.
        default: what holds where no source says anything.

    Raises:
        InputError: two sources that contradict each other; both are shown.
    """
    if not told:
        return default
    first = told[0]
    for other in told[1:]:
        if abs(other.dn - first.dn) > _NEAR:
            raise InputError(
                f"{name}: radiometric offset unclear: {first.by} says {first.dn:g} DN, but {other.by} says {other.dn:g} DN. "
                f"{DECIDE}"
            )
    return Told(first.dn, "; ".join(dict.fromkeys(one.by for one in told)))


def version(text: str | None) -> tuple[int, int] | None:
    """A baseline as numbers: "05.11" > (5, 11); None where it is none. Compared as text, "15" would be before "4"."""
    found = re.fullmatch(r"\s*(\d+)[.](\d+)\s*", text or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def baseline_in(text: str) -> str | None:
    """The baseline in a product's id, "S2B_MSIL2A_20220126T101311_N0400_R022_..." > "04.00"; None without one."""
    found = _BASELINE.search(text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def by_baseline(text: str | None, by: str) -> list[Told]:
    """What a baseline says; nothing where there is none."""
    number = version(text)
    return [] if number is None else [Told(_ADDED if number >= _FIRST else 0.0, f"{by} {text}")]


def by_tags(scale: float, offset: float, by: str) -> list[Told]:
    """What scale and offset of physical = DN * scale + offset say; nothing where they are 1 and 0, which no one wrote."""
    if scale in (0, 1) and offset == 0:
        return []
    if scale == 0 or not all(map(math.isfinite, (scale, offset, offset / scale))):
        raise InputError(
            f"{by}: scale {scale}, offset {offset}, of which none follows; give the radiometric offset with --offset "
            "(offset= in Python)"
        )
    dn = -offset / scale
    return [Told(float(round(dn)) if abs(dn - round(dn)) <= 0.01 else round(dn, 6), by)]


def check_date(date: datetime | None, name: str) -> None:
    """Refuse Sentinel-2 files as delivered whose date says that an offset is in, and of which nothing else tells.

    Raises:
        InputError: acquired when every product had the offset.
    """
    if date is not None and date >= _SINCE:
        raise InputError(
            f"{name}: radiometric offset unclear: its date, {date:%Y-%m-%d}, says 1000 DN (products processed since "
            f"{_SINCE:%Y-%m-%d} are of baseline 04.00 and later), but no tag and no metadata of the files says so. {DECIDE} "
            "(Earth Search's COGs, Sentinel Hub, Theia, sen2r)"
        )


_SAME = 1e-6  # of a pixel
_ROWS = 1024  # read at once when a delivery is looked at for damage


@dataclass(frozen=True)
class BesideFile:
    """A layer of one date: what it is (as in `eozip.raster.Layer`), and where it lies."""

    name: str
    kind: str
    header: Header
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivery:
    """One acquisition of one place.

    Attributes:
        name: for messages: the product's id or the path of its first file.
        headers: its bands, by grid.
        dating: when it was acquired.
        facts: what is known of it.
        beside: layers.
        kind: layout, as in `Product.kind`.
        sensor: id, where the product tells.
        tile: what tells places apart, such as "T32TQM"; None: the grid alone does.
        bytes: of the files of its bands; None: those of the files that its bands name.
        scale: reflectance of one DN where the product tells.
        notes: sentences for a person.
    """

    name: str
    headers: tuple[Header, ...]
    dating: Dating
    facts: Acquisition
    beside: tuple[BesideFile, ...] = ()
    kind: str = "geotiff"
    sensor: str | None = None
    tile: str | None = None
    bytes: int | None = None
    scale: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[Band, ...]:
        """Of all grids, in the order of `headers`."""
        return tuple(band for header in self.headers for band in header.bands)

    @property
    def files_bytes(self) -> int | None:
        """As in `Product`."""
        if self.bytes is not None:
            return self.bytes
        paths = {band.source.path for band in self.bands}
        return sum(os.path.getsize(path) for path in paths) if all(map(exists, paths)) else None


class Bad:
    """What becomes of deliveries that are damaged or incomplete.

    Args:
        skip: whether they are left out; else their error stops all.

    Attributes:
        left_out: a sentence on each that was left out.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.left_out: list[str] = []

    def tried(self, make: Callable[[], Delivery]) -> list[Delivery]:
        """A delivery; none where it is bad. To skip one, all of its pixels are read: damage may lie anywhere."""
        if not self.skip:
            return [make()]
        try:
            found = make()
            for header in found.headers:
                _read_all(header)
        except InputError as error:
            self.left_out.append(f"left out: {error}")
            return []
        return [found]


def _read_all(header: Header) -> None:
    when = "" if header.dating.date is None else f"{header.dating.date:%Y-%m-%d}, "
    for path, group in groupby(header.bands, key=lambda band: band.source.path):
        bands = list(group)
        try:
            with open_dataset(path) as source:
                for row in range(0, source.height, _ROWS):
                    window = Window(0, row, source.width, min(_ROWS, source.height - row))
                    source.read([band.source.index for band in bands], window=window)
        except RasterioError as error:
            names = ", ".join(str(band.name) for band in bands)
            raise InputError(
                f"{path}: {when}band {names}: cannot be read ({error.__cause__ or error})"
            ) from error


def by_grid(headers: Sequence[Header], name: str) -> tuple[Header, ...]:
    """Bands of files of their own, joined where they share a grid; the finest grid first.

    Args:
        headers: of one file each.
        name: of the product, for messages.

    Raises:
        InputError: grids that do not lie on each other, or a band twice.
    """
    groups: list[list[Header]] = []
    for header in headers:
        alike = next((group for group in groups if _same_grid(group[0], header)), None)
        groups.append([header]) if alike is None else alike.append(header)
    joined = [replace(g[0], bands=tuple(band for h in g for band in h.bands)) for g in groups]
    joined.sort(key=lambda header: -header.grid["height"] * header.grid["width"])
    for coarse in joined[1:]:
        _check_nested(joined[0], coarse, name)
    _check_once([band for header in joined for band in header.bands], name)
    return tuple(joined)


def _same_grid(one: Header, other: Header) -> bool:
    a, b = one.grid, other.grid
    if any(a[key] != b[key] for key in ("height", "width", "crs", "gcps", "gcp_crs")):
        return False
    return _close(a["transform"], b["transform"])


def _close(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    pixel = abs(one[0]) + abs(one[1])
    return all(abs(x - y) <= _SAME * pixel for x, y in zip(one, other))


def _check_nested(fine: Header, coarse: Header, name: str) -> None:
    """Cells of a coarse grid are whole blocks of the fine one, from the same corner on."""
    factor = coarse_factor(fine, coarse)
    a, b = fine.grid, coarse.grid
    if factor is not None and a["crs"] == b["crs"]:
        sides = [(b[side], -(-a[side] // factor)) for side in ("height", "width")]
        if all(got == expected for got, expected in sides):
            return
    raise InputError(
        f"{name}: grids do not align: {_grid_text(coarse)} ({coarse.path}) is not made of whole blocks of pixels of "
        f"{_grid_text(fine)} ({fine.path}) from the same corner on. Warp one onto the other (gdalwarp -te -tr), or leave "
        f"out its bands (--bands): {' '.join(str(band.name) for band in coarse.bands)}"
    )


def coarse_factor(fine: Header, coarse: Header) -> int | None:
    """Pixels of a fine grid in one of a coarse grid, each way; None where they do not lie on each other."""
    a, b = fine.grid["transform"], coarse.grid["transform"]
    if a is None or b is None:
        ratio = fine.grid["height"] / coarse.grid["height"]
        factor = round(ratio)
        return factor if a is b and -(-fine.grid["height"] // factor) == coarse.grid["height"] else None
    pixel = abs(a[0]) + abs(a[1])
    if pixel == 0 or not all(map(math.isfinite, (*a, *b))):
        return None
    factor = round((abs(b[0]) + abs(b[1])) / pixel)
    scaled = [value * factor for value in (a[0], a[1], a[3], a[4])]
    steps = [abs(x - y) <= _SAME * factor * pixel for x, y in zip(scaled, (b[0], b[1], b[3], b[4]))]
    corner = all(abs(a[i] - b[i]) <= 1e-3 * pixel for i in (2, 5))
    return factor if factor >= 1 and all(steps) and corner else None


def _grid_text(header: Header) -> str:
    grid = header.grid
    if grid["transform"] is None:
        return f"{grid['height']} x {grid['width']} pixels without georeference"
    a, _, c, _, _, f = grid["transform"]
    return f"{grid['height']} x {grid['width']} pixels of {a:g} from corner ({c:.10g}, {f:.10g})"


def _check_once(bands: Sequence[Band], name: str) -> None:
    seen: dict[str, Band] = {}
    for band in bands:
        key = str(band.code or band.name)
        if key in seen:
            raise InputError(
                f"{name}: band {key} occurs more than once in one date, see {seen[key].source.path} and "
                f"{band.source.path}; leave one out"
            )
        seen[key] = band
