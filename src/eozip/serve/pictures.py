"""Values of a layer on a tile or on its own grid, and pictures of them.

A view is three bands in colour, or a formula of bands in a colour table; its error is its difference from the original's.
rio-tiler knows the tiles of a map, stretches and packs; rasterio warps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from morecantile import Tile, TileMatrixSet, tms
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_bounds
from rasterio.warp import reproject, transform, transform_bounds
from rio_tiler.colormap import cmap
from rio_tiler.models import ImageData

from eozip.errors import InputError
from eozip.purpose import INDICES, Formula, parse_formula
from eozip.serve.layers import Facts, Layer, overview, reduction_for

TILE = 256
_MAX_ZOOM = 24
FORMATS = {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}
MEDIA = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"}
_MERCATOR = tms.get("WebMercatorQuad")
_MARGIN = 2  # reduced pixels around a window, which interpolation looks at
_SAMPLED_DATES = 3
_OVERVIEW = 256  # pixels of the pictures that stretches and histograms are made of
_TABLES = {"index": "rdylgn", "error": "magma", "difference": "rdbu"}


@dataclass(frozen=True)
class View:
    """What is drawn of a layer.

    Attributes:
        bands: positions of red, green and blue; empty: a formula is drawn.
        formula: of bands; None: colours are drawn.
    """

    bands: tuple[int, ...] = ()
    formula: Formula | None = None

    @property
    def is_colour(self) -> bool:
        """Whether three bands are drawn."""
        return self.formula is None

    def values(self, dn: np.ndarray, facts: Facts, t: int) -> np.ndarray:
        """What is drawn, before it is stretched.

        Args:
            dn: [C, h, w].
            facts: of the layer that it is from.
            t: the date that it is of.

        Returns:
            float32 reflectance [3, h, w] or the formula's values [1, h, w]; NaN where there is nothing.
        """
        if self.formula is None:
            return np.stack([reflectance(dn[i], facts, facts.offsets[t][i]) for i in self.bands])
        places = {name: facts.bands.index(name) for name in self.formula.bands}
        named = {name: reflectance(dn[i], facts, facts.offsets[t][i]) for name, i in places.items()}
        return self.formula(named).astype(np.float32)[None]


def parse_view(facts: Facts, bands: str | None, formula: str | None) -> View:
    """A view from what an address says: three bands by name, or a formula; the layer's own colours where it says nothing.

    Raises:
        InputError: bands that the layer has not, no formula, or both.
    """
    if formula and bands:
        raise InputError(f"expected bands or formula, got both: {bands!r:.80} and {formula!r:.80}")
    if formula:
        return View(formula=parse_formula(formula, facts.bands))
    if not bands:
        return View(bands=natural_colour(facts.bands))
    names = [name.strip() for name in bands.split(",")]
    found = [parse_formula(name, facts.bands).bands for name in names if name]
    if len(found) != 3 or any(len(one) != 1 for one in found):
        raise InputError(f"bands: expected three names such as B04,B03,B02, got {bands!r:.80}")
    return View(bands=tuple(facts.bands.index(one[0]) for one in found))


def natural_colour(bands: Sequence[str]) -> tuple[int, ...]:
    """Positions of red, green and blue; of the first three bands where they are not known."""
    try:
        names = [parse_formula(name, bands).bands[0] for name in ("red", "green", "blue")]
    except InputError:
        return tuple(min(i, len(bands) - 1) for i in range(3))
    return tuple(bands.index(name) for name in names)


def known_indices(bands: Sequence[str]) -> dict[str, str]:
    """The indices that these bands allow, with their formulas."""

    def is_known(name: str) -> bool:
        try:
            parse_formula(name, bands)
        except InputError:
            return False
        return True

    return {name: text for name, text in INDICES.items() if is_known(name)}


def reflectance(dn: np.ndarray, facts: Facts, offset: float | np.ndarray) -> np.ndarray:
    """DN as reflectance, float32; NaN where there is no data.

    Args:
        dn: any shape.
        facts: of the layer that it is from.
        offset: radiometric offset of its band and date, or of each of its values.
    """
    found = (dn.astype(np.float32) - np.asarray(offset, np.float32)) * np.float32(facts.scale)
    return found if facts.nodata is None else np.where(dn == facts.nodata, np.float32(np.nan), found)


@dataclass(frozen=True)
class Place:
    """Where a layer lies on the map.

    Attributes:
        facts: of the layer.
    """

    facts: Facts

    @cached_property
    def crs(self) -> CRS | None:
        """None where the layer cannot be put on a map."""
        return (
            None if self.facts.crs is None or self.facts.transform is None else CRS.from_wkt(self.facts.crs)
        )

    @cached_property
    def transform(self) -> Affine:
        """Of its pixels; rows and columns themselves where it has none."""
        return Affine(*(self.facts.transform or (1, 0, 0, 0, 1, 0)))

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees.

        Raises:
            InputError: the layer cannot be put on a map.
        """
        crs = self._known_crs()
        _, _, height, width = self.facts.shape
        corners = [self.transform * at for at in ((0, 0), (width, 0), (0, height), (width, height))]
        xs, ys = zip(*corners)
        return transform_bounds(crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys))

    def _known_crs(self) -> CRS:
        if self.crs is None:
            raise InputError(
                f"{self.facts.name}: expected a layer with a coordinate reference system, got one without; ask for "
                "image.png, and give places as rows and columns (row=, column=)"
            )
        return self.crs

    def zooms(self) -> tuple[int, int]:
        """The zoom at which all of it is about one tile, and the one at which a pixel is at least one of the screen."""
        west, _, east, _ = self.bounds
        span = max(east - west, 1e-9)
        _, _, height, width = self.facts.shape
        least = math.floor(math.log2(360 / span))
        most = math.ceil(math.log2(360 / span * max(height, width) / TILE)) + 1
        return max(0, min(least, _MAX_ZOOM)), max(0, min(most, _MAX_ZOOM))

    def pixel_at(self, longitude: float, latitude: float) -> tuple[int, int]:
        """Row and column under a place on the map; may lie outside.

        Raises:
            InputError: the layer cannot be put on a map.
        """
        xs, ys = transform("EPSG:4326", self._known_crs(), [longitude], [latitude])
        column, row = ~self.transform * (xs[0], ys[0])
        if not (math.isfinite(column) and math.isfinite(row)):
            return -1, -1
        return math.floor(row), math.floor(column)

    @cached_property
    def _on_mercator(self) -> tuple[float, float, float, float]:
        _, _, height, width = self.facts.shape
        corners = [self.transform * at for at in ((0, 0), (width, 0), (0, height), (width, height))]
        xs, ys = zip(*corners)
        return transform_bounds(self._known_crs(), "EPSG:3857", min(xs), min(ys), max(xs), max(ys))

    def window(self, tile: Tile) -> tuple[slice, slice, float] | None:
        """Rows and columns under a tile, and pixels of the layer for one of the tile; None where they do not meet."""
        whole, own = _MERCATOR.xy_bounds(tile), self._on_mercator
        left, right = max(whole.left, own[0]), min(whole.right, own[2])
        bottom, top = max(whole.bottom, own[1]), min(whole.top, own[3])
        if not (left < right and bottom < top):
            return None
        box = transform_bounds("EPSG:3857", self._known_crs(), left, bottom, right, top)
        corners = [~self.transform * at for at in ((box[i], box[j]) for i in (0, 2) for j in (1, 3))]
        columns, rows = zip(*corners)
        if not all(math.isfinite(value) for value in (*columns, *rows)):
            return None
        _, _, height, width = self.facts.shape
        scale = (
            max(
                (max(rows) - min(rows)) * (whole.top - whole.bottom) / (top - bottom),
                (max(columns) - min(columns)) * (whole.right - whole.left) / (right - left),
            )
            / TILE
        )
        margin = math.ceil(_MARGIN * max(1.0, scale))
        y = slice(max(0, math.floor(min(rows)) - margin), min(height, math.ceil(max(rows)) + margin))
        x = slice(max(0, math.floor(min(columns)) - margin), min(width, math.ceil(max(columns)) + margin))
        return (y, x, scale) if y.start < y.stop and x.start < x.stop else None


def web_mercator() -> TileMatrixSet:
    """The tiles of the map."""
    return _MERCATOR


def checked_tile(z: int, x: int, y: int) -> Tile:
    """A tile of the map.

    Raises:
        InputError: there is no such tile.
    """
    if not (0 <= z <= _MAX_ZOOM and 0 <= x < 1 << z and 0 <= y < 1 << z):
        raise InputError(f"tile: expected z up to {_MAX_ZOOM}, x and y below 2^z, got {z}/{x}/{y}")
    return Tile(x, y, z)


def _aligned(part: slice, reduce: int, length: int) -> slice:
    """A window whose edges are edges of reduced pixels."""
    return slice(part.start // reduce * reduce, min(length, -(-part.stop // reduce) * reduce))


def tile_values(
    layer: Layer, t: int, view: View, tile: Tile, minus: tuple[Layer, int] | None = None
) -> np.ndarray:
    """Values of a view on a tile of the map.

    Args:
        layer: the layer; `t` its date.
        t: see `layer`.
        view: what is drawn.
        tile: of the map.
        minus: another layer on the same grid, and its date, whose values are taken away.

    Returns:
        float32 [k, 256, 256], NaN where there is nothing.
    """
    place = Place(layer.facts)
    count = 3 if view.is_colour else 1
    out = np.full((count, TILE, TILE), np.nan, np.float32)
    found = place.window(tile)
    if found is None:
        return out
    y, x, scale = found
    reduce = reduction_for(layer, scale)
    _, _, height, width = layer.facts.shape
    y, x = _aligned(y, reduce, height), _aligned(x, reduce, width)
    values = view.values(layer.read(t, y, x, reduce), layer.facts, t)
    if minus is not None:
        other, at = minus
        values = values - view.values(other.read(at, y, x, reduce), other.facts, at)
    here = place.transform * Affine.translation(x.start, y.start) * Affine.scale(reduce)
    many = scale / reduce > 2
    reproject(
        values,
        out,
        src_transform=here,
        src_crs=place.crs,
        src_nodata=np.nan,
        dst_transform=from_bounds(*_MERCATOR.xy_bounds(tile), TILE, TILE),
        dst_crs="EPSG:3857",
        dst_nodata=np.nan,
        resampling=Resampling.average if many else Resampling.nearest if scale < 1 else Resampling.bilinear,
    )
    return out


def whole_values(
    layer: Layer, t: int, view: View, side: int, minus: tuple[Layer, int] | None = None
) -> tuple[np.ndarray, int]:
    """Values of a view on the layer's own grid, all of it, and how many pixels one of them is."""
    dn, step = overview(layer, t, side)
    values = view.values(dn, layer.facts, t)
    if minus is not None:
        other, at = minus
        values = values - view.values(overview(other, at, side)[0], other.facts, at)
    return values, step


def error_of(values: np.ndarray) -> np.ndarray:
    """How far a view is off: the mean of its bands, without sign, [1, h, w]."""
    return np.abs(values).mean(axis=0, keepdims=True)


def stretch_of(
    layer: Layer, view: View, dates: Sequence[int], minus: Mapping[int, tuple[Layer, int]] | None = None
) -> tuple[float, float]:
    """Values that are drawn first and last: the 2nd and 98th percentile of some dates, the median of these.

    Args:
        layer: the layer.
        view: what is drawn.
        dates: those that may be looked at.
        minus: for an error, the original and its date by date of the layer.
    """
    picked = [dates[i] for i in sorted({round(k * (len(dates) - 1) / 2) for k in range(_SAMPLED_DATES)})]
    found = []
    for t in picked:
        values, _ = whole_values(layer, t, view, _OVERVIEW, None if minus is None else minus.get(t))
        values = values if minus is None else error_of(values)
        valid = values[np.isfinite(values)]
        if valid.size:
            found.append(np.percentile(valid, (0 if minus is not None else 2, 98)))
    if not found:
        return 0.0, 1.0
    low, high = np.median(found, axis=0)
    return float(low), float(max(high, low + 1e-6))


def histogram_of(values: np.ndarray, bins: int = 64) -> dict[str, list[float] | list[list[int]]]:
    """How often values are: edges, and counts of each band."""
    valid = values[np.isfinite(values)]
    low, high = np.percentile(valid, (0.5, 99.5)) if valid.size else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    counts = [np.histogram(band[np.isfinite(band)], edges)[0].tolist() for band in values]
    return {"edges": [round(float(edge), 6) for edge in edges], "counts": counts}


def picture(values: np.ndarray, stretch: tuple[float, float], ending: str, table: str | None = None) -> bytes:
    """Pack values as a picture; transparent where there are none.

    Args:
        values: [3, h, w] in colour, or [1, h, w] for a colour table.
        stretch: values drawn black and white, or first and last of the table.
        ending: "png", "webp" or "jpg".
        table: which colour table: "index" or "error".
    """
    missing = ~np.isfinite(values)
    masked = np.ma.MaskedArray(np.nan_to_num(values), mask=np.broadcast_to(missing.any(axis=0), values.shape))
    image = ImageData(masked).rescale(in_range=(stretch,) * len(values))
    colours = cmap.get(_TABLES[table or "index"]) if len(values) == 1 else None
    return image.render(img_format=FORMATS[ending], colormap=colours, add_mask=ending != "jpg")
