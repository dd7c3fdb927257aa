"""What other programs read: what layers there are, TileJSON, and WMTS by which QGIS adds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import numpy as np

from eozip.errors import EozipError, InputError
from eozip.purpose import parse_formula
from eozip.serve.layers import Layer, StoreLayer, overview
from eozip.serve.pictures import TILE, Place, known_indices, natural_colour, reflectance, web_mercator
from eozip.store.holding import recorded

_CLOUD_TAGS = (
    "cloud_coverage_assessment",
    "cloudy_pixel_percentage",
    "cloud_coverage",
    "cloud_cover",
    "eo:cloud_cover",
)
_COMBINATIONS = {
    "near infrared": ("nir", "red", "green"),
    "short-wave infrared": ("swir2", "nir", "red"),
    "burns and snow": ("swir1", "nir", "green"),
}
_BRIGHT = 0.3  # reflectance of blue above which clear land hardly ever lies
_OWS = "http://www.opengis.net/ows/1.1"
_WMTS = "http://www.opengis.net/wmts/1.0"
_XLINK = "http://www.w3.org/1999/xlink"
_ATTRIBUTE_NAMES = {"href": f"{{{_XLINK}}}href"}
_PIXEL = 0.00028  # metres, by which WMTS counts scales


def layer_document(number: int, layer: Layer, cloud: list[dict[str, Any]]) -> dict[str, Any]:
    """All that the page needs to know of one layer.

    Args:
        number: its number in addresses.
        layer: the layer.
        cloud: of `cloud_cover`.
    """
    facts, place = layer.facts, Place(layer.facts)
    on_map: dict[str, Any] = {"bounds": None, "zooms": None}
    if place.crs is not None and all(math.isfinite(v) for v in place.bounds):
        on_map = {"bounds": list(place.bounds), "zooms": list(place.zooms())}
    return {
        "number": number,
        "name": facts.name,
        "kind": facts.kind,
        "shape": list(facts.shape),
        "bands": list(facts.bands),
        "colour": [facts.bands[i] for i in natural_colour(facts.bands)],
        "combinations": combinations(facts.bands),
        "indices": known_indices(facts.bands),
        "dates": list(facts.dates),
        "cloud": cloud,
        "crs": place.crs.to_string() if place.crs is not None else None,
        **on_map,
        **(_store_document(layer) if isinstance(layer, StoreLayer) else {}),
    }


def _store_document(layer: StoreLayer) -> dict[str, Any]:
    found = layer.description
    raw = found.samples * np.dtype(found.dtype).itemsize
    return {
        "codec": found.codec.codec,
        "bytes": found.bytes,
        "ratio": round(raw / max(1, found.bytes), 2),
        "psnr": found.facts["psnr"],
        "quality": found.facts["quality_used"],
        "max_error": found.codec.max_error,
        "date_psnr": found.facts["date_psnr"],
        "purposes": list(recorded(found.facts)),
    }


def combinations(bands: Sequence[str]) -> list[dict[str, Any]]:
    """Three bands at a time that people look at, as far as these bands allow them."""
    found = [{"name": "natural colour", "bands": [bands[i] for i in natural_colour(bands)]}]
    for name, wanted in _COMBINATIONS.items():
        try:
            named = [parse_formula(band, bands).bands[0] for band in wanted]
        except InputError:  # not of these bands
            continue
        found.append({"name": name, "bands": named})
    return found


def cloud_cover(layer: Layer) -> list[dict[str, Any]]:
    """Of each date, in percent: what the source's tags say, else what was dropped as hidden, else how much is bright.

    Returns:
        [T] of {"percent", "source"}; "source" is "tags", "mask", "bright", or "unreadable" where a date cannot be decoded:
        other dates and layers are shown all the same.
    """
    facts = layer.facts
    dropped = layer.description.facts.get("date_dropped") if isinstance(layer, StoreLayer) else None
    pixels = facts.shape[2] * facts.shape[3]
    found: list[dict[str, Any]] = []
    for t, tags in enumerate(facts.tags):
        said = _tagged(tags)
        if said is not None:
            found.append({"percent": said, "source": "tags"})
        elif dropped:
            found.append({"percent": round(100 * dropped[t] / pixels, 1), "source": "mask"})
        else:
            found.append(_bright(layer, t))
    return found


def _tagged(tags: Mapping[str, str]) -> float | None:
    for key, text in tags.items():
        if key.lower() in _CLOUD_TAGS:
            try:
                value = float(text)
            except ValueError:
                continue
            if 0 <= value <= 100:
                return round(value, 1)
    return None


def _bright(layer: Layer, t: int) -> dict[str, Any]:
    """Percent of the valid pixels of one date that are bright in blue; None without valid pixels."""
    try:
        dn, _ = overview(layer, t, 64)
    except EozipError:  # damaged, or of weights that are not here: its pictures will say so
        return {"percent": None, "source": "unreadable"}
    band = natural_colour(layer.facts.bands)[2]
    blue = reflectance(dn[band], layer.facts, layer.facts.offsets[t][band])
    valid = blue[np.isfinite(blue)]
    percent = round(100 * float((valid > _BRIGHT).mean()), 1) if valid.size else None
    return {"percent": percent, "source": "bright"}


def _tile_template(base: str, number: int, asked: Mapping[str, str], ending: str = "png") -> str:
    """The address of a layer's tiles, with {z}, {x} and {y} to be filled in."""
    query = f"?{urlencode(asked)}" if asked else ""
    return f"{base}/layers/{number}/tiles/{{z}}/{{x}}/{{y}}.{ending}{query}"


def tilejson(base: str, number: int, layer: Layer, asked: Mapping[str, str]) -> dict[str, Any]:
    """TileJSON 3.0 of a view of a layer."""
    place = Place(layer.facts)
    west, south, east, north = place.bounds
    least, most = place.zooms()
    return {
        "tilejson": "3.0.0",
        "name": layer.facts.name,
        "scheme": "xyz",
        "tiles": [_tile_template(base, number, asked)],
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, least + 1],
        "minzoom": least,
        "maxzoom": most,
        "attribution": "",
        "vector_layers": [],
    }


def wmts_capabilities(base: str, layers: list[tuple[int, Layer]]) -> bytes:
    """WMTS 1.0.0: each layer in its colours and in every index its bands allow, with its dates as a dimension.

    Args:
        base: address of the server.
        layers: those that lie on the map, with their numbers.
    """
    for prefix, name in (("", _WMTS), ("ows", _OWS), ("xlink", _XLINK)):
        ElementTree.register_namespace(prefix, name)
    root = ElementTree.Element(f"{{{_WMTS}}}Capabilities", version="1.0.0")
    _ows(
        _child(root, "ows:ServiceIdentification"),
        Title="eozip",
        ServiceType="OGC WMTS",
        ServiceTypeVersion="1.0.0",
    )
    _operations(root, base)
    contents = _child(root, "Contents")
    for number, layer in layers:
        views: dict[str, dict[str, str]] = {"colour": {}} | {
            name: {"formula": name} for name in known_indices(layer.facts.bands)
        }
        for view, asked in views.items():
            _layer(contents, base, number, layer, view, asked)
    _matrices(contents)
    _child(root, "ServiceMetadataURL", href=f"{base}/wmts/1.0.0/WMTSCapabilities.xml")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _child(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    space, _, local = tag.rpartition(":")
    found = ElementTree.SubElement(parent, f"{{{_OWS if space else _WMTS}}}{local}")
    found.text = text
    for key, value in attributes.items():
        found.set(_ATTRIBUTE_NAMES.get(key, key), value)
    return found


def _ows(parent: ElementTree.Element, **texts: str) -> None:
    for name, text in texts.items():
        _child(parent, f"ows:{name}", text)


def _operations(root: ElementTree.Element, base: str) -> None:
    metadata = _child(root, "ows:OperationsMetadata")
    for name in ("GetCapabilities", "GetTile"):
        operation = _child(metadata, "ows:Operation", name=name)
        http = _child(_child(operation, "ows:DCP"), "ows:HTTP")
        get = _child(http, "ows:Get", href=f"{base}/wmts?")
        allowed = _child(_child(get, "ows:Constraint", name="GetEncoding"), "ows:AllowedValues")
        _child(allowed, "ows:Value", "KVP")


def _layer(
    contents: ElementTree.Element, base: str, number: int, layer: Layer, view: str, asked: Mapping[str, str]
) -> None:
    west, south, east, north = Place(layer.facts).bounds
    element = _child(contents, "Layer")
    _ows(element, Title=f"{layer.facts.name}, {view}", Identifier=_wmts_identifier(number, view))
    box = _child(element, "ows:WGS84BoundingBox")
    _ows(box, LowerCorner=f"{west} {south}", UpperCorner=f"{east} {north}")
    style = _child(element, "Style", isDefault="true")
    _child(style, "ows:Identifier", "default")
    _child(element, "Format", "image/png")
    dimension = _child(element, "Dimension")
    _child(dimension, "ows:Identifier", "Time")
    _child(dimension, "Default", time_value(layer, 0))
    for t in range(layer.facts.shape[0]):
        _child(dimension, "Value", time_value(layer, t))
    link = _child(element, "TileMatrixSetLink")
    _child(link, "TileMatrixSet", "WebMercatorQuad")
    query = urlencode(asked)
    template = f"{base}/layers/{number}/tiles/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png?date={{Time}}"
    template += f"&{query}" if query else ""
    _child(element, "ResourceURL", format="image/png", resourceType="tile", template=template)


def _wmts_identifier(number: int, view: str) -> str:
    """A layer's name in WMTS."""
    return f"{number}-{view}"


def time_value(layer: Layer, t: int) -> str:
    """A date as an address says it: ISO, else its position from 1."""
    dates = layer.facts.dates
    date = dates[t]
    return date if date is not None and dates.count(date) == 1 else str(t + 1)


def _matrices(contents: ElementTree.Element) -> None:
    mercator = web_mercator()
    matrices = _child(contents, "TileMatrixSet")
    _ows(matrices, Identifier="WebMercatorQuad", SupportedCRS="urn:ogc:def:crs:EPSG::3857")
    for z in range(mercator.maxzoom + 1):
        matrix = mercator.matrix(z)
        element = _child(matrices, "TileMatrix")
        _child(element, "ows:Identifier", str(z))
        _child(element, "ScaleDenominator", repr(matrix.cellSize / _PIXEL))
        left, top = (float(v) for v in matrix.pointOfOrigin)
        _child(element, "TopLeftCorner", f"{left} {top}")
        for name, value in (
            ("TileWidth", TILE),
            ("TileHeight", TILE),
            ("MatrixWidth", matrix.matrixWidth),
            ("MatrixHeight", matrix.matrixHeight),
        ):
            _child(element, name, str(value))
