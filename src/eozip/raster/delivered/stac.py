"""STAC items and item collections, from a file or a URL: assets by catalogue, `raster:` and `proj:` fields heeded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import urlopen

from rasterio.crs import CRS
from rasterio.errors import CRSError

from eozip.arguments import real
from eozip.errors import InputError
from eozip.raster.delivered.bandfiles import FIXED
from eozip.raster.delivered.delivery import (
    DECIDE,
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
    version,
)
from eozip.raster.delivered.names import KNOWN, L30, NATIVE, layer_of, metres_of
from eozip.raster.files import Dating, parsed_time
from eozip.raster.header import Header, header_of
from eozip.raster.open import same_field
from eozip.raster.product import Acquisition
from eozip.sensors import get
from eozip.sensors.sensor import canonical_name

_LARGEST_JSON = 64 * 2**20
_TIMEOUT = 60  # seconds
_NO_BANDS = re.compile(
    r"visual|thumbnail|preview|overview|tileinfo|metadata|tci|rendered|-jp2$|^info$|^pvi", re.IGNORECASE
)
_RASTERS = (".tif", ".tiff", ".jp2")


def stac_deliveries(
    path: str,
    wanted: Sequence[str] | None = None,
    offset: float | None = None,
    assets: Sequence[str] | None = None,
    bad: Bad | None = None,
) -> tuple[list[Delivery], list[str]]:
    """Describe every item; read headers of its assets, and no pixels.

    Args:
        path: a file or a URL.
        wanted: canonical names of bands; the files of others are not opened; None: all.
        offset: radiometric offset of all bands, whatever the items say.
        assets: keys of the assets to take; None: those that are bands, on their native grids.
        bad: what becomes of damaged items; None: they stop all.

    Raises:
        InputError: no STAC, no usable assets, or sources that contradict each other.
    """
    found = _loaded(path)
    features = found.get("features") if found.get("type") == "FeatureCollection" else [found]
    if not isinstance(features, list) or not features or not all(_is_item(one) for one in features):
        raise InputError(
            f"{path}: expected a STAC item or an item collection (a FeatureCollection of items), got "
            f"{found.get('type', 'no type')!r}; give the items that a search of the catalogue returns"
        )
    more = any(link.get("rel") == "next" for link in _links(found))
    notes = [f"{path}: has a further page of items (rel: next), which is not read"] if more else []
    tried = (bad or Bad(False)).tried
    items = [_Item.of(one, path) for one in features]
    return [one for item in items for one in tried(partial(_delivery, item, wanted, offset, assets))], notes


def _is_item(one: object) -> bool:
    return isinstance(one, dict) and one.get("type") == "Feature" and isinstance(one.get("assets"), dict)


def _links(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = table.get("links")
    return [link for link in found if isinstance(link, dict)] if isinstance(found, list) else []


def _loaded(path: str) -> dict[str, Any]:
    try:
        if re.match(r"https?://", path):
            with urlopen(path, timeout=_TIMEOUT) as answer:
                data = answer.read(_LARGEST_JSON + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_LARGEST_JSON + 1)
        if len(data) > _LARGEST_JSON:
            raise InputError(f"{path}: more than {_LARGEST_JSON} bytes of JSON; give fewer items")
        found = json.loads(data)
    except (OSError, URLError, HTTPException, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a STAC item ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a STAC item or an item collection, got a {type(found).__name__}")
    return found


# --- items ---


@dataclass(frozen=True)
class _Item:
    """One item.

    Attributes:
        id: of the item.
        base: path or URL that relative hrefs begin at.
        table: the item.
        kind: "earth-search", "planetary-computer", "cdse", "landsat", "hls-l30", "hls-s30", or "sentinel-2".
    """

    id: str
    base: str
    table: Mapping[str, Any]
    kind: str

    @classmethod
    def of(cls, table: Mapping[str, Any], path: str) -> _Item:
        own = [link.get("href") for link in _links(table) if link.get("rel") == "self"]
        remote = [href for href in own if isinstance(href, str) and href.startswith("http")]
        is_single = table.get("type") == "Feature" and not remote
        base = path if is_single or not re.match(r"https?://", path) else remote[0]
        return cls(str(table.get("id", "item")), base, table, _kind(table))

    @property
    def properties(self) -> Mapping[str, Any]:
        found = self.table.get("properties")
        return found if isinstance(found, dict) else {}

    def first(self, *names: str) -> Any:
        """The first property there is of several."""
        return next((self.properties[name] for name in names if self.properties.get(name) is not None), None)

    def href(self, href: str) -> str:
        """Where an asset lies, as GDAL takes it."""
        if href.startswith("file://"):
            return unquote(urlsplit(href).path)
        if re.match(r"[a-z][a-z0-9+.-]*://|/", href):
            return href
        if re.match(r"https?://", self.base):
            return urljoin(self.base, href)
        return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(self.base)), href))


def _kind(table: Mapping[str, Any]) -> str:
    collection = str(table.get("collection") or "").lower()
    properties = table.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    text = f"{collection} {str(table.get('id', '')).lower()}"
    keys = set(table["assets"])
    if re.search(r"hls\w*l30|hls\.l30|hls2-l30", text):
        return "hls-l30"
    if re.search(r"hls\w*s30|hls\.s30|hls2-s30", text):
        return "hls-s30"
    if "landsat" in collection or re.match(r"l[ctem]0\d_", str(table.get("id", "")).lower()):
        return "landsat"
    if (
        any(name.startswith(("earthsearch:", "sentinel:")) for name in properties)
        or "sentinel-s2-" in collection
    ):
        return "earth-search"
    if any(re.fullmatch(r"B\d[\dA]_\d\dm", key) for key in keys):
        return "cdse"
    hrefs = " ".join(
        str(asset.get("href", "")) for asset in table["assets"].values() if isinstance(asset, dict)
    )
    return "planetary-computer" if "blob.core.windows.net" in hrefs else "sentinel-2"


@dataclass(frozen=True)
class _Asset:
    """One raster of an item.

    Attributes:
        key: in the item.
        path: where it lies.
        code: canonical name of the band, or None.
        layer: name of the layer, or None.
        metres: resolution that the key or the fields tell.
        nodata, scale, offset: as its fields say; None where they do not.
        projection: its `proj:` fields, those of the item where it has none.
    """

    key: str
    path: str
    code: str | None
    layer: str | None
    metres: float | None
    nodata: float | None
    scale: float | None
    offset: float | None
    projection: Mapping[str, Any]


def _assets(item: _Item) -> Iterator[_Asset]:
    for key, table in item.table["assets"].items():
        if isinstance(table, dict) and isinstance(table.get("href"), str):
            layer = _layer(item, key)
            code = None if layer is not None else _code(item, key, table)
            told = [
                _fields(one) for one in (table, *_listed(table, "raster:bands"), *_listed(table, "bands"))
            ]
            known = {
                name: next((one[name] for one in told if one.get(name) is not None), None) for name in _FIELDS
            }
            gsd = table.get("gsd") or known["spatial_resolution"] or metres_of(key)
            projection = {
                name: value
                for source in (item.properties, table)
                for name, value in source.items()
                if name.startswith("proj:")
            }
            yield _Asset(
                key,
                item.href(table["href"]),
                code,
                layer,
                _number(gsd),
                _nodata(known["nodata"]),
                _number(known["scale"]),
                _number(known["offset"]),
                projection,
            )


_FIELDS = ("nodata", "scale", "offset", "spatial_resolution")


def _fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """Raster fields, with or without the prefix that STAC 1.1 gives them."""
    return {name: table.get(f"raster:{name}", table.get(name)) for name in _FIELDS}


def _listed(table: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = table.get(name)
    return [one for one in found if isinstance(one, dict)][:1] if isinstance(found, list) else []


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _nodata(value: object) -> float | None:
    return float("nan") if value == "nan" else _number(value)


def _layer(item: _Item, key: str) -> str | None:
    if item.kind == "landsat" and re.fullmatch(r"lwir(11)?|ST_B\d+", key, re.IGNORECASE):
        return "surface_temperature"
    if item.kind == "hls-l30" and key.upper() in ("B10", "B11"):
        return f"thermal_{key.lower()}"
    return layer_of(key)


def _code(item: _Item, key: str, table: Mapping[str, Any]) -> str | None:
    """The band that an asset is: by its key, else by what its fields call it."""
    if _NO_BANDS.search(key):
        return None
    plain = re.sub(r"_\d\dm$", "", key)
    if item.kind == "hls-l30":
        return L30.get(plain.upper())
    if item.kind == "landsat":
        found = re.fullmatch(r"(?:SR_)?B(\d)", plain, re.IGNORECASE)
        if found:
            common = next(
                (one.get("common_name", one.get("eo:common_name")) for one in _band_tables(table)), None
            )
            return canonical_name(str(common)) if common else None
        return canonical_name(plain)
    direct = canonical_name(plain)
    if direct is not None:
        return direct
    bands = _band_tables(table)
    names = [
        str(one.get(field))
        for one in bands
        for field in ("name", "common_name", "eo:common_name")
        if one.get(field)
    ]
    return next((code for name in names if (code := canonical_name(name))), None) if len(bands) == 1 else None


def _band_tables(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = table.get("eo:bands", table.get("bands"))
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


# --- deliveries ---


def _delivery(
    item: _Item, wanted: Sequence[str] | None, offset: float | None, keys: Sequence[str] | None
) -> Delivery:
    have = list(_assets(item))
    bands = _chosen(item, have, wanted, keys)
    date = parsed_time(str(item.first("datetime", "start_datetime") or ""))
    headers = [_header(item, asset) for asset in bands]
    told = _told(item, list(zip(bands, headers)), offset, date)
    named = [_as_band(item, asset, header, told) for asset, header in zip(bands, headers)]
    joined = by_grid([_placed(item, asset, header) for asset, header in zip(bands, named)], item.id)
    dating = Dating(date)
    beside, notes = _beside(item, have, joined[0], keys)
    product = item.first("s2:product_uri", "sentinel:product_id", "landsat:scene_id") or item.id
    sensor = _sensor(item, [band.code for header in joined for band in header.bands])
    return Delivery(
        name=item.id,
        headers=tuple(replace(header, dating=dating) for header in joined),
        dating=dating,
        facts=Acquisition(
            date, str(product).removesuffix(".SAFE"), _level(item), _baseline(item), told.by, _specials(item)
        ),
        beside=tuple(beside),
        kind=f"stac ({item.kind})",
        sensor=sensor,
        tile=_tile(item),
        bytes=_bytes(item, bands),
        scale=2.75e-5 if item.kind == "landsat" else 1e-4,
        notes=tuple(notes),
    )


def _chosen(
    item: _Item, have: Sequence[_Asset], wanted: Sequence[str] | None, keys: Sequence[str] | None
) -> list[_Asset]:
    listed = ", ".join(asset.key for asset in have)
    if keys is not None:
        by_key = {asset.key: asset for asset in have}
        unknown = [key for key in keys if key not in by_key]
        if unknown:
            raise InputError(f"{item.id}: no asset {', '.join(map(repr, unknown))}; it has {listed}")
        chosen = [by_key[key] for key in keys if by_key[key].layer is None]
        return _checked(item, chosen, listed)
    bands = [asset for asset in have if asset.code is not None and (wanted is None or asset.code in wanted)]
    by_code: dict[str, list[_Asset]] = {}
    for asset in bands:
        by_code.setdefault(str(asset.code), []).append(asset)
    return _checked(item, [_native(item, code, same) for code, same in by_code.items()], listed)


def _checked(item: _Item, chosen: list[_Asset], listed: str) -> list[_Asset]:
    if not chosen:
        raise InputError(
            f"{item.id}: no usable assets: none is a band of a known sensor. It has {listed or 'none'}; choose some with "
            "--asset (assets=)"
        )
    return chosen


def _native(item: _Item, code: str, same: Sequence[_Asset]) -> _Asset:
    """Of a band's assets the one on its native grid, else the finest; a raster that GDAL reads before others."""
    native = {band.name: band.native_resolution_m for band in get("s2-l1c").bands}.get(code)
    return min(
        same, key=lambda a: (a.metres not in (None, native), a.metres or 0, not _is_raster(a.path), a.key)
    )


def _is_raster(path: str) -> bool:
    return urlsplit(path).path.lower().endswith(_RASTERS)


def _header(item: _Item, asset: _Asset) -> Header:
    try:
        header = header_of(asset.path)
    except InputError as error:
        hint = ""
        if "blob.core.windows.net" in asset.path:
            hint = "; hrefs of the Planetary Computer must be signed first (planetary_computer.sign(item))"
        raise InputError(f"{item.id}: asset {asset.key}: {error}{hint}") from error
    if len(header.bands) != 1:
        raise InputError(
            f"{item.id}: asset {asset.key}: expected one band, got {len(header.bands)}; choose others with --asset"
        )
    return header


def _as_band(item: _Item, asset: _Asset, header: Header, told: Told) -> Header:
    band = header.bands[0]
    known = asset.nodata if asset.nodata is not None else _usual_nodata(item, band.dtype)
    nodata = band.nodata if band.nodata is not None else known
    name = re.sub(r"_\d\dm$", "", asset.key)
    code = asset.code or canonical_name(asset.key)
    return replace(header, bands=(replace(band, name=name, code=code, nodata=nodata, radiometric=told.dn),))


def _usual_nodata(item: _Item, dtype: str) -> float | None:
    """Of products whose files and items may lack it."""
    if item.kind.startswith("hls"):
        return -9999 if dtype == "int16" else None
    return 0 if dtype == "uint16" else None


def _placed(item: _Item, asset: _Asset, header: Header) -> Header:
    """The header with the CRS and transform that the item tells where the file has none.

    Raises:
        InputError: file and item contradict each other.
    """
    told = asset.projection
    grid = dict(header.grid)
    code = told.get("proj:code") or (f"EPSG:{told['proj:epsg']}" if told.get("proj:epsg") else None)
    transform, shape = told.get("proj:transform"), told.get("proj:shape")
    wkt = _wkt(item, code) if code else None
    if grid["crs"] is None:
        grid["crs"] = wkt
    elif wkt is not None and CRS.from_wkt(grid["crs"]) != CRS.from_wkt(wkt):
        raise InputError(_contradiction(item, asset, "CRS", CRS.from_wkt(grid["crs"]).to_string(), str(code)))
    if shape is not None and list(shape) != [grid["height"], grid["width"]]:
        raise InputError(
            _contradiction(item, asset, "shape", f"{grid['height']} x {grid['width']}", f"proj:shape {shape}")
        )
    if isinstance(transform, list) and len(transform) >= 6:
        numbers = tuple(real(f"{item.id}: proj:transform", value) for value in transform[:6])
        if grid["transform"] is None:
            grid["transform"] = numbers
        elif not same_field("transform", grid["transform"], numbers):
            raise InputError(
                _contradiction(
                    item, asset, "transform", str(grid["transform"]), f"proj:transform {transform}"
                )
            )
    return replace(header, grid=grid)


def _wkt(item: _Item, code: str) -> str:
    try:
        return str(CRS.from_user_input(code).to_wkt())
    except (CRSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{item.id}: {code!s:.80} is no CRS ({error})") from error


def _contradiction(item: _Item, asset: _Asset, what: str, of_file: str, of_item: str) -> str:
    return (
        f"{item.id}: asset {asset.key}: the file's {what} is {of_file}, but the item says {of_item}. Fetch the item again, "
        "or give the files themselves"
    )


def _baseline(item: _Item) -> str | None:
    told = item.first(
        "s2:processing_baseline", "sentinel:processing_baseline", "eopf:baseline", "processing:version"
    )
    text = str(told) if told is not None else None
    if text is not None and version(text) is not None:
        return text
    product = item.first("s2:product_uri", "sentinel:product_id") or item.id
    return baseline_in(str(product))


def _told(item: _Item, bands: Sequence[tuple[_Asset, Header]], offset: float | None, date: Any) -> Told:
    """The radiometric offset, by every source that the item and its files have.

    Raises:
        InputError: two of them contradict each other, or none tells where one must.
    """
    if offset is not None:
        return Told(offset, "given")
    tags = [
        told
        for asset, _ in bands
        if asset.scale is not None
        for told in by_tags(
            asset.scale, asset.offset or 0.0, f"raster:scale {asset.scale:g}, offset {asset.offset or 0:g}"
        )
    ]
    tags += [
        told
        for _, header in bands
        for band in header.bands
        for told in by_tags(band.scale, band.offset, f"GDAL scale {band.scale:g}, offset {band.offset:g}")
    ]
    tags = list({(one.dn, one.by): one for one in tags}.values())
    family = item.kind.partition("-")[0]
    if family in FIXED:
        return agreed([FIXED[family], *tags], item.id, FIXED[family])
    baseline = _baseline(item)
    by_version = by_baseline(baseline, "processing baseline")
    flag = item.first("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
    if flag is True:
        return agreed([Told(0.0, "boa_offset_applied true"), *tags], item.id, Told(0.0, ""))
    if flag is False:
        tags.insert(0, Told(by_version[0].dn if by_version else 0.0, "boa_offset_applied false"))
    elif item.kind == "earth-search" and not tags and by_version and by_version[0].dn:
        raise InputError(
            f"{item.id}: radiometric offset unclear: {by_version[0].by} says {by_version[0].dn:g} DN, but this catalogue "
            "has taken it off in a part of its files, and the item has neither boa_offset_applied nor raster:offset. "
            f"{DECIDE}"
        )
    told = [*by_version, *tags]
    if not told:
        check_date(date, item.id)
    return agreed(told, item.id, Told(0.0, "no field of the item: acquired before baseline 04.00"))


def _level(item: _Item) -> str | None:
    text = f"{item.table.get('collection')} {item.first('s2:product_type', 'product:type', 'processing:level')} {item.id}"
    found = re.search(r"l(30)|s(30)|l(1c)|(?:msi)?l?(2a)|l(2sp)|l(2sr)", text.lower())
    return {"hls-l30": "L30", "hls-s30": "S30"}.get(item.kind) or (
        f"L{next(part for part in found.groups() if part).upper()}" if found else None
    )


def _tile(item: _Item) -> str | None:
    told = item.first("s2:mgrs_tile", "grid:code")
    if told is not None:
        return str(told)
    parts = [item.first(name) for name in ("mgrs:utm_zone", "mgrs:latitude_band", "mgrs:grid_square")]
    parts = (
        parts
        if None not in parts
        else [
            item.first(name)
            for name in ("sentinel:utm_zone", "sentinel:latitude_band", "sentinel:grid_square")
        ]
    )
    if None not in parts:
        return "T" + "".join(map(str, parts))
    return None


def _specials(item: _Item) -> dict[str, int]:
    return {} if item.kind == "landsat" or item.kind.startswith("hls") else {"NODATA": 0, "SATURATED": 65535}


def _sensor(item: _Item, codes: Sequence[str | None]) -> str | None:
    if item.kind == "landsat":
        return None
    candidates = ["hls"] if item.kind.startswith("hls") else ["s2-l2a", "s2-l1c"]
    return next((name for name in candidates if set(codes) == set(get(name).band_names)), None)


def _bytes(item: _Item, bands: Sequence[_Asset]) -> int | None:
    """Bytes of the bands' files, where the item tells or they are on this machine."""
    sizes = []
    for asset in bands:
        told = item.table["assets"][asset.key].get("file:size")
        local = Path(asset.path)
        sizes.append(
            int(told) if isinstance(told, int) else local.stat().st_size if local.is_file() else None
        )
    return None if None in sizes else sum(size or 0 for size in sizes)


def _beside(
    item: _Item, have: Sequence[_Asset], finest: Header, keys: Sequence[str] | None
) -> tuple[list[BesideFile], list[str]]:
    by_layer: dict[str, list[_Asset]] = {}
    for asset in have:
        if asset.layer is not None and (keys is None or asset.key in keys) and not asset.key.endswith("-jp2"):
            by_layer.setdefault(asset.layer, []).append(asset)
    found, notes = [], []
    for layer, same in by_layer.items():
        asset = min(same, key=lambda a: (a.metres not in (None, NATIVE), a.metres or 0))
        try:
            header = _placed(item, asset, _header(item, asset))
        except InputError as error:
            notes.append(f"{layer} is left out: {error}")
            continue
        factor = coarse_factor(finest, header)
        if factor is None or any(header.grid[s] != -(-finest.grid[s] // factor) for s in ("height", "width")):
            notes.append(f"{layer} is left out: its grid is not that of the bands or coarser")
            continue
        band = replace(header.bands[0], name=layer, code=None)
        kind, attributes = KNOWN[layer]
        found.append(BesideFile(layer, kind, replace(header, bands=(band,)), attributes))
    return found, notes
