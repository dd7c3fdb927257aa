"""A point or a polygon through the dates: values, and how far they may be off."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from eozip.errors import InputError
from eozip.purpose import Formula, parse_formula
from eozip.serve.layers import Facts, Layer, StoreLayer
from eozip.serve.pictures import Place, reflectance
from eozip.store import Description

_MAX_POINTS = 10_000  # of a polygon
MAX_SAMPLES = 1 << 26  # pixels under a polygon, of all bands and dates
_PEAK = 1.0  # reflectance that a PSNR counts from, with the sensors' scales
_STEP = 1e-5  # of reflectance, for slopes of formulas


@dataclass(frozen=True)
class _Bound:
    """How far a store's reflectance may be off.

    Attributes:
        kind: "exact", "largest" (promised for every pixel), or "typical" (root mean square, measured by the writer).
        by_date: reflectance, [T, C].
    """

    kind: str
    by_date: np.ndarray


def _bound_of(found: Description, facts: Facts) -> _Bound:
    """What the store promised, else what its writer measured."""
    times, bands = facts.shape[:2]
    if found.codec.codec == "lossless" or found.codec.max_error == 0:
        return _Bound("exact", np.zeros((times, bands)))
    if found.codec.max_error is not None:
        return _Bound("largest", np.full((times, bands), found.codec.max_error * facts.scale))
    by_band = np.array([_rms(value) for value in found.facts["band_psnr"]])
    by_date = np.array([_rms(value) for value in found.facts["date_psnr"]])
    over_all = max(_rms(found.facts["psnr"]), 1e-12)
    return _Bound("typical", by_date[:, None] * by_band[None] / over_all)


def _rms(psnr: float | None) -> float:
    return 0.0 if psnr is None else _PEAK * 10 ** (-psnr / 20)


def _formula_bound(
    formula: Formula, values: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray], kind: str
) -> np.ndarray:
    """How far a formula's value may be off where its bands are off by so much, to first order.

    Args:
        formula: of bands.
        values: reflectance [T] of each of its bands.
        errors: [T] likewise.
        kind: as in `_Bound`; largest errors add up, typical ones in squares.
    """
    slopes = []
    for name in formula.bands:
        up = formula({**values, name: values[name] + _STEP})
        down = formula({**values, name: values[name] - _STEP})
        slopes.append(np.abs(up - down) / (2 * _STEP) * errors[name])
    return np.sum(slopes, axis=0) if kind == "largest" else np.sqrt(np.sum(np.square(slopes), axis=0))


def point_series(layer: Layer, row: int, column: int, formula: Formula | None = None) -> dict[str, Any]:
    """One pixel through the dates.

    Args:
        layer: the layer.
        row: of the pixel.
        column: of the pixel.
        formula: added to the bands' values.

    Raises:
        InputError: outside the layer.
    """
    times, _, height, width = layer.facts.shape
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"point: expected a place within {height} rows and {width} columns, got row {row}, column {column}"
        )
    window = slice(row, row + 1), slice(column, column + 1)
    dn = np.stack([layer.read(t, *window)[:, 0, 0] for t in range(times)])
    table = _table(layer, dn, formula)
    return {"layer": layer.facts.name, "row": row, "column": column, **table}


def _table(layer: Layer, dn: np.ndarray, formula: Formula | None) -> dict[str, Any]:
    """Values of pixels [T, C] and of a formula, ready for JSON."""
    facts = layer.facts
    values = reflectance(dn, facts, np.array(facts.offsets)).astype(np.float64)
    missing = np.zeros(dn.shape, bool) if facts.nodata is None else dn == facts.nodata
    bound = _bound_of(layer.description, facts) if isinstance(layer, StoreLayer) else None
    out: dict[str, Any] = {
        "dates": list(facts.dates),
        "bands": list(facts.bands),
        "dn": [[None if gone else int(v) for v, gone in zip(*rows)] for rows in zip(dn, missing)],
        "reflectance": [_listed(row, 6) for row in values],
        "bound": None
        if bound is None
        else {"kind": bound.kind, "reflectance": [_listed(r, 6) for r in bound.by_date]},
    }
    if formula is not None:
        named = {name: values[:, facts.bands.index(name)] for name in formula.bands}
        out |= {"formula": formula.text, "values": _listed(formula(named), 6), "value_bound": None}
        if bound is not None:
            errors = {name: bound.by_date[:, facts.bands.index(name)] for name in formula.bands}
            out["value_bound"] = _listed(_formula_bound(formula, named, errors, bound.kind), 6)
    return out


def _listed(values: np.ndarray, digits: int) -> list[float | None]:
    return [round(float(v), digits) if math.isfinite(v) else None for v in values]


def parse_geometry(text: str) -> dict[str, Any]:
    """A polygon from GeoJSON, in degrees; of a Feature its geometry, of a FeatureCollection all its polygons as one.

    Raises:
        InputError: no polygon, or too many points.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"geometry: expected GeoJSON, got something else: {error}") from error
    found = _bare(found)
    if not isinstance(found, dict) or found.get("type") not in ("Polygon", "MultiPolygon"):
        raise InputError(
            "geometry: expected a Polygon or MultiPolygon of GeoJSON in degrees, or features of them, got something else"
        )
    parts = found.get("coordinates")
    rings = (parts if isinstance(parts, list) else []) if found["type"] == "Polygon" else _flat(parts)
    points = _flat(rings)
    if not points or len(points) > _MAX_POINTS or not all(_is_point(point) for point in points):
        raise InputError(
            f"geometry: expected rings of up to {_MAX_POINTS} points [longitude, latitude] in degrees, got others"
        )
    if not all(isinstance(ring, list) and len(ring) >= 4 for ring in rings):
        raise InputError(
            "geometry: expected rings of at least 4 points, the first again at the end, got others"
        )
    return {"type": found["type"], "coordinates": parts}


def _bare(found: object) -> object:
    """The geometry of features, of several the polygons as one; None where one of them is no polygon."""
    if not isinstance(found, dict):
        return found
    if found.get("type") == "Feature":
        return found.get("geometry")
    if found.get("type") != "FeatureCollection":
        return found
    features = found.get("features")
    polygons: list[Any] = []
    for one in map(_bare, features if isinstance(features, list) else []):
        if not isinstance(one, dict) or one.get("type") not in ("Polygon", "MultiPolygon"):
            return None
        parts = one.get("coordinates")
        polygons += [parts] if one["type"] == "Polygon" else parts if isinstance(parts, list) else [parts]
    return {"type": "MultiPolygon", "coordinates": polygons}


def _flat(nested: object) -> list[Any]:
    if not isinstance(nested, list) or not all(isinstance(part, list) for part in nested):
        return []
    return [item for part in nested for item in part]


def _is_point(point: object) -> bool:
    return (
        isinstance(point, list)
        and len(point) in (2, 3)
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in point)
        and abs(point[0]) <= 180
        and abs(point[1]) <= 90
    )


def polygon_series(
    layer: Layer, geometry: Mapping[str, Any], formula: Formula | None = None
) -> dict[str, Any]:
    """The valid pixels within a polygon through the dates: those whose centres lie in it.

    Args:
        layer: the layer.
        geometry: of `parse_geometry`.
        formula: instead of the bands.

    Raises:
        InputError: it holds no pixel's centre, or more pixels than are looked at, or the layer has no place on the map.
    """
    facts, place = layer.facts, Place(layer.facts)
    if place.crs is None:
        raise InputError(
            f"{facts.name}: expected a layer with a coordinate reference system, got one without"
        )
    try:
        here = transform_geom("EPSG:4326", place.crs, dict(geometry))
    except (RasterioError, ValueError) as error:
        raise InputError(f"geometry: {error}") from error
    rows, columns = _window(here, place.transform, facts)
    samples = (rows.stop - rows.start) * (columns.stop - columns.start) * facts.shape[0] * facts.shape[1]
    if samples > MAX_SAMPLES:
        raise InputError(
            f"geometry: expected at most {MAX_SAMPLES} samples under it, got {samples}; ask for a smaller one"
        )
    shape = rows.stop - rows.start, columns.stop - columns.start
    corner = place.transform * Affine.translation(columns.start, rows.start)
    inside = geometry_mask([here], shape, corner, invert=True)
    if not inside.any():
        raise InputError("geometry: expected a polygon with the centre of a pixel in it, got one without")
    names = [formula.text] if formula else list(facts.bands)
    stats = [_stats(layer.read(t, rows, columns), inside, facts, t, formula) for t in range(facts.shape[0])]
    return {
        "layer": facts.name,
        "pixels": int(inside.sum()),
        "dates": list(facts.dates),
        "names": names,
        **{key: [one[key] for one in stats] for key in ("count", "mean", "std", "min", "max")},
    }


def _window(geometry: Mapping[str, Any], transform: Affine, facts: Facts) -> tuple[slice, slice]:
    rings = geometry["coordinates"] if geometry["type"] == "Polygon" else _flat(list(geometry["coordinates"]))
    pixels = [~transform * (point[0], point[1]) for ring in rings for point in ring]
    columns, rows = zip(*pixels)
    if not all(math.isfinite(v) for v in (*columns, *rows)):
        raise InputError("geometry: expected a polygon near the layer, got one elsewhere")
    _, _, height, width = facts.shape
    y = slice(max(0, math.floor(min(rows))), min(height, math.ceil(max(rows))))
    x = slice(max(0, math.floor(min(columns))), min(width, math.ceil(max(columns))))
    if y.start >= y.stop or x.start >= x.stop:
        raise InputError(f"geometry: expected a polygon that meets {facts.name}, got one beside it")
    return y, x


def _stats(
    dn: np.ndarray, inside: np.ndarray, facts: Facts, t: int, formula: Formula | None
) -> dict[str, list[Any]]:
    picked = dn[:, inside]
    reflected = reflectance(picked, facts, np.array(facts.offsets[t])[:, None])
    if formula is None:
        values = reflected.astype(np.float64)
    else:
        named = {name: reflected[facts.bands.index(name)] for name in formula.bands}
        values = formula(named)[None]
    found: dict[str, list[Any]] = {key: [] for key in ("count", "mean", "std", "min", "max")}
    for band in values:
        valid = band[np.isfinite(band)]
        found["count"].append(int(valid.size))
        for key in ("mean", "std", "min", "max"):
            found[key].append(round(float(getattr(valid, key)()), 6) if valid.size else None)
    return found


def as_csv(series: Mapping[str, Any]) -> str:
    """A series as a table: one line a date, and a date and band for a polygon."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if "names" in series:
        writer.writerow(["date", "name", "count", "mean", "std", "min", "max"])
        for t, date in enumerate(series["dates"]):
            for i, name in enumerate(series["names"]):
                writer.writerow(
                    [date, name, *(series[key][t][i] for key in ("count", "mean", "std", "min", "max"))]
                )
        return text.getvalue()
    has_formula = "values" in series
    head = ["date", *series["bands"], *([series["formula"], "bound"] if has_formula else [])]
    writer.writerow(head)
    for t, date in enumerate(series["dates"]):
        more = [series["values"][t], (series["value_bound"] or [None] * (t + 1))[t]] if has_formula else []
        writer.writerow([date, *series["reflectance"][t], *more])
    return text.getvalue()


def parse_optional(text: str | None, bands: Sequence[str]) -> Formula | None:
    """A formula, or None where nothing was asked for."""
    return parse_formula(text, bands) if text else None
