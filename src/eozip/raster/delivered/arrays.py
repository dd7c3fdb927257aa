"""xarray in: Datasets of odc-stac, DataArrays of stackstac, trees of EOPF; read lazily, each dask block once where it fits.

An array is described as files are: a Scene whose sources name planes of memory (`Scene.planes`) instead of paths.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product as all_of
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from eozip.arguments import real
from eozip.errors import InputError
from eozip.raster.delivered.delivery import (
    Bad,
    BesideFile,
    Delivery,
    Told,
    agreed,
    by_baseline,
    by_grid,
    by_tags,
    coarse_factor,
)
from eozip.raster.delivered.names import KNOWN, layer_of
from eozip.raster.delivered.open import Joining, assemble
from eozip.raster.files import Dating, parsed_time
from eozip.raster.header import Band, Header
from eozip.raster.product import Acquisition, Product
from eozip.raster.scene import Source
from eozip.sensors import get
from eozip.sensors.sensor import canonical_name

if TYPE_CHECKING:
    import xarray as xr  # slow to import

_TIME, _BAND = ("time", "t"), ("band", "bands", "variable", "wavelength")
_Y, _X = ("y", "latitude", "lat", "Y"), ("x", "longitude", "lon", "X")
_GROUPS = ("r10m", "r20m", "r60m")
_CACHE = (
    512 * 2**20
)  # bytes of blocks that are kept, so that a block which several windows touch is computed once
_OF_8_BITS = ("scl", "cld", "snw", "fmask", "qa_aerosol")
_EVEN = 1e-3  # of a pixel


def product_of(
    data: xr.Dataset | xr.DataArray | xr.DataTree,
    bands: Sequence[str | int] | None = None,
    offset: float | None = None,
    *,
    nodata: float | None = None,
    lattice: tuple[float, float | None] | None = None,
    harmonise: bool = False,
) -> Product:
    """Describe what xarray holds; compute nothing.

    Args:
        data: a Dataset with a variable for each band (odc-stac) or one array [time, band, y, x], a DataArray
            [time, band, y, x] (stackstac) or [time, y, x], or a DataTree of EOPF.
        bands: names or 1-based positions of the bands to take; None: all.
        offset: DN added to the offset-free DN; None: as attributes and coordinates say.
        nodata: value of missing pixels; None: as attributes say.
        lattice: step, and value of DN 0, of the lattice on which floats are coded; None: as the arrays' encoding says,
            else 1e-4.
        harmonise: as for `open_product`.

    Raises:
        InputError: no bands, dimensions that are none of a raster's, or coordinates that are no grid.
    """
    variables = list(_variables(data))
    if not variables:
        raise InputError(
            "expected an array with dimensions y and x (and time and band), or several, got none"
        )
    pixels, beside, notes = _sorted_out(variables)
    if not _dates(pixels) or 0 in pixels[0].array.shape:
        raise InputError(f"expected at least one date and one pixel, got {dict(pixels[0].array.sizes)}")
    told_lattice = lattice or _own_lattice(pixels)
    planes: dict[str, _Plane] = {}
    cache = _Cache(_CACHE)
    place = _Place(planes, cache, nodata, _attributes(data), offset)
    deliveries = [_delivery(place, pixels, beside, t) for t in range(_dates(pixels))]
    joining = Joining(bands, offset, None, harmonise, told_lattice)
    found = assemble(deliveries, joining, notes, Bad(False))
    scenes = tuple(replace(scene, planes=planes) for scene in found.scenes)
    layers = tuple(replace(layer, scene=replace(layer.scene, planes=planes)) for layer in found.beside)
    return replace(found, scenes=scenes, beside=layers)


# --- what there is ---


@dataclass(frozen=True)
class _Variable:
    """One band or layer as a stack of dates.

    Attributes:
        name: of the variable, or of the band on the band axis.
        array: with dimensions among time, band, y, x.
        dims: what the array calls them: time and band are None where it has none.
        band: position on the band axis; None without one.
    """

    name: str
    array: xr.DataArray
    dims: tuple[Hashable | None, Hashable | None, Hashable, Hashable]
    band: int | None


def _variables(data: Any) -> Iterator[_Variable]:
    import xarray as xr  # slow to import; there already where its arrays are given

    if isinstance(data, xr.DataArray):
        yield from _of_array(data, str(data.name or "band"))
    elif isinstance(data, xr.Dataset):
        yield from _of_dataset(data)
    elif hasattr(data, "subtree"):
        yield from _of_tree(data)
    else:
        raise InputError(f"expected an xarray Dataset, DataArray or DataTree, got {type(data).__name__}")


def _of_dataset(data: xr.Dataset) -> Iterator[_Variable]:
    for name, array in data.data_vars.items():
        if _dim(array, _Y) is not None and _dim(array, _X) is not None:
            yield from _of_array(array, str(name))


def _of_array(array: xr.DataArray, name: str) -> Iterator[_Variable]:
    y, x = _dim(array, _Y), _dim(array, _X)
    if y is None or x is None:
        raise InputError(f"{name}: expected dimensions y and x (and time and band), got {tuple(array.dims)}")
    time, band = _dim(array, _TIME), _dim(array, _BAND)
    others = [dim for dim in array.dims if dim not in (time, band, y, x)]
    if others:
        raise InputError(
            f"{name}: expected dimensions time, band, y and x, got {others} too; choose one of its values"
        )
    if band is None:
        yield _Variable(name, array, (time, None, y, x), None)
        return
    names = _band_names(array, band)
    for i, text in enumerate(names):
        yield _Variable(str(text), array, (time, band, y, x), i)


def _band_names(array: xr.DataArray, band: Hashable) -> Sequence[Any]:
    """Of a band axis: its coordinate; where that only counts, what rioxarray keeps of a file's descriptions."""
    count = array.sizes[band]
    told = array.attrs.get("long_name")
    names = list(array[band].values) if band in array.coords else [f"band_{i + 1}" for i in range(count)]
    is_counted = all(str(name).removeprefix("band_").isdigit() for name in names)
    return list(told) if is_counted and isinstance(told, tuple | list) and len(told) == count else names


def _of_tree(tree: Any) -> Iterator[_Variable]:
    """EOPF: bands of the groups r10m, r20m, r60m, each on its finest grid; classes and probabilities beside."""
    found: dict[str, _Variable] = {}
    nodes = sorted(tree.subtree, key=lambda node: (_metres(node.name), node.path))
    for node in nodes:
        is_known = node.name in _GROUPS and not any(
            part in node.path for part in ("detector_footprint", "quicklook")
        )
        if not is_known or "/quality/mask" in node.path or "/conditions/meteo" in node.path:
            continue
        for variable in _of_dataset(node.to_dataset()):
            key = canonical_name(variable.name) or layer_of(variable.name)
            if key is not None and _is_native(key, node.name, found):
                found[key] = variable
    yield from found.values()


def _metres(name: str) -> int:
    return int(name[1:3]) if name in _GROUPS else 0


def _is_native(key: str, group: str, found: Mapping[str, Any]) -> bool:
    """Whether this is where a band was measured: EOPF holds resampled copies in coarser and finer groups."""
    native = {band.name: band.native_resolution_m for band in get("s2-l1c").bands}.get(key)
    return key not in found or native == _metres(group)


def _dim(array: xr.DataArray, names: Sequence[str]) -> Hashable | None:
    return next((name for name in names if name in array.dims), None)


def _sorted_out(variables: list[_Variable]) -> tuple[list[_Variable], list[_Variable], list[str]]:
    """Bands, layers beside, and notes: where some variables are known as bands, others are left out."""
    layers = [one for one in variables if layer_of(one.name) is not None and canonical_name(one.name) is None]
    rest = [one for one in variables if one not in layers]
    known = [one for one in rest if canonical_name(one.name) is not None]
    out = [one.name for one in rest if one not in known] if known else []
    notes = [f"left out, as no band of the sensor: {', '.join(out)}"] if out else []
    pixels = known or rest
    if not pixels:
        raise InputError(
            f"no bands among {', '.join(one.name for one in variables)}; expected some beside the classes"
        )
    return pixels, layers, notes


def _dates(pixels: Sequence[_Variable]) -> int:
    counts = {one.array.sizes[one.dims[0]] if one.dims[0] is not None else 1 for one in pixels}
    if len(counts) > 1:
        raise InputError(f"expected as many dates in all bands, got {sorted(counts)}")
    return counts.pop()


def _own_lattice(pixels: Sequence[_Variable]) -> tuple[float, float | None] | None:
    """The lattice that floats were decoded from, as their encoding says."""
    found = set()
    for one in pixels:
        encoding = one.array.encoding
        stored = encoding.get("dtype")
        is_decoded = stored is not None and np.dtype(stored).kind in "iu" and one.array.dtype.kind == "f"
        if is_decoded and "scale_factor" in encoding:
            found.add((float(encoding["scale_factor"]), float(encoding.get("add_offset", 0.0))))
    if len(found) != 1:
        return None
    step, base = found.pop()
    return step, base


def _attributes(data: Any) -> dict[str, Any]:
    """Of the whole; a STAC item that EOPF keeps in them is unpacked."""
    found = {str(key): value for key, value in data.attrs.items()}
    item = found.get("stac_discovery")
    properties = item.get("properties") if isinstance(item, dict) else None
    if isinstance(properties, dict):
        found |= properties
        found["product"] = item.get("id") if isinstance(item, dict) else None
    mappings = [one.attrs for one in getattr(data, "data_vars", {}).values() if one.ndim == 0]
    known = [
        table.get(key) for table in mappings for key in ("crs_wkt", "spatial_ref")
    ]  # openEO: a variable "crs"
    return {**found, **next(({"crs": wkt} for wkt in known if wkt), {})}


# --- one date ---


@dataclass(frozen=True)
class _Place:
    """What the dates of one product share.

    Attributes:
        planes: by the path that sources have.
        cache: of computed blocks.
        nodata: that a caller gave.
        attributes: of the whole.
        offset: that a caller gave.
    """

    planes: dict[str, _Plane]
    cache: _Cache
    nodata: float | None
    attributes: Mapping[str, Any]
    offset: float | None


def _delivery(place: _Place, pixels: Sequence[_Variable], layers: Sequence[_Variable], t: int) -> Delivery:
    date = _date(pixels[0], place.attributes, t)
    stamp = f"{date:%Y%m%dT%H%M%S}" if date is not None else f"array_{t + 1}"
    told = _told(place, pixels, t)
    headers = by_grid([_header(place, one, t, date, stamp, told) for one in pixels], stamp)
    attributes = place.attributes
    facts = Acquisition(
        date,
        product=_text(attributes.get("product")),
        level=_text(attributes.get("processing:level")),
        baseline=_text(attributes.get("eopf:baseline", attributes.get("s2:processing_baseline"))),
        offset_source=told.by,
    )
    beside, notes = [], []
    for one in layers:
        name = str(layer_of(one.name))
        header = _header(place, one, t, date, stamp, None)
        factor = coarse_factor(headers[0], header)
        if factor is None:
            notes.append(f"{one.name} is left out: its grid is not that of the bands or coarser")
            continue
        kind, known = KNOWN[name]
        band = replace(header.bands[0], name=name, code=None)
        beside.append(BesideFile(name, kind, replace(header, bands=(band,)), known))
    return Delivery(stamp, headers, Dating(date), facts, tuple(beside), kind="xarray", notes=tuple(notes))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _date(one: _Variable, attributes: Mapping[str, Any], t: int) -> datetime | None:
    time = one.dims[0]
    name = time if time is not None else next((n for n in _TIME if n in one.array.coords), None)
    if name is not None and name in one.array.coords:
        values = np.atleast_1d(one.array[name].values)
        if values.dtype.kind == "M" and not np.isnat(values[t]):
            return values[t].astype("datetime64[us]").item()
    told = attributes.get("datetime") or attributes.get("start_datetime")
    return parsed_time(str(told)) if told else None


def _told(place: _Place, pixels: Sequence[_Variable], t: int) -> Told:
    """The radiometric offset by attributes and coordinates; floats have none of their own."""
    if place.offset is not None:
        return Told(place.offset, "given")
    told: list[Told] = []
    if pixels[0].array.dtype.kind == "f":
        return Told(0.0, "values, not digital numbers")
    for one in pixels:
        known = one.array.attrs
        if "radiometric_offset" in known:
            told.append(Told(real("radiometric_offset", known["radiometric_offset"]), "radiometric_offset"))
        if "scale_factor" in known or "add_offset" in known:
            scale, base = (
                real(name, known.get(name, ordinary))
                for name, ordinary in (("scale_factor", 1.0), ("add_offset", 0.0))
            )
            told += by_tags(scale, base, f"scale_factor {scale:g}, add_offset {base:g}")
    for name in ("s2:processing_baseline", "eopf:baseline"):
        value = _coordinate(pixels[0].array, name, pixels[0].dims[0], t) or place.attributes.get(name)
        told += by_baseline(_text(value), name)
    told = list({(one.dn, one.by): one for one in told}.values())
    return agreed(told, "array", Told(0.0, "no attribute or coordinate says another"))


def _coordinate(array: xr.DataArray, name: str, time: Hashable | None, t: int) -> str | None:
    if name not in array.coords:
        return None
    values = array[name]
    if values.dims == (time,):
        return str(values.values[t])
    return str(values.values) if values.ndim == 0 else None


def _header(
    place: _Place, one: _Variable, t: int, date: datetime | None, stamp: str, told: Told | None
) -> Header:
    path = f"{stamp}_{one.name}.tif"
    path = path if path not in place.planes else f"{stamp}_{t + 1}_{one.name}.tif"
    dtype = one.array.dtype if told is not None else _exact(one)
    place.planes[path] = _Plane(one, t, place.cache, dtype)
    height, width = (one.array.sizes[dim] for dim in one.dims[2:])
    grid = {
        "height": height,
        "width": width,
        "crs": _crs(one.array, place.attributes),
        "transform": _transform(one),
        "gcps": (),
        "gcp_crs": None,
    }
    band = Band(
        source=Source(path, 1),
        name=one.name,
        code=canonical_name(one.name),
        dtype=dtype.name,
        nodata=_nodata(one.array, dtype) if told is None or place.nodata is None else place.nodata,
        scale=1.0,
        offset=0.0,
        unit=None,
        colorinterp="gray",
        tags={},
        radiometric=None if told is None else told.dn,
    )
    return Header(path, (band,), Dating(date), grid, {}, (min(height, 256), min(width, 256)))


def _exact(one: _Variable) -> np.dtype[Any]:
    """Data type of a layer: its own, or the one that holds its classes where it was made float to hold NaN."""
    dtype: np.dtype[Any] = one.array.dtype
    if dtype.kind != "f":
        return dtype
    return np.dtype(np.uint8 if layer_of(one.name) in _OF_8_BITS else np.uint16)


def _nodata(array: xr.DataArray, dtype: np.dtype[Any]) -> float | None:
    """As attributes or encoding say; NaN of floats, 0 of what was made whole numbers again."""
    if array.dtype.kind == "f":
        return math.nan if dtype.kind == "f" else 0
    for table in (array.attrs, array.encoding):
        for name in ("nodata", "_FillValue", "missing_value"):
            value = table.get(name)
            if value is not None and np.ndim(value) == 0 and np.isfinite(float(value)):
                return float(value)
    return None


def _crs(array: xr.DataArray, attributes: Mapping[str, Any]) -> str | None:
    mapping = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", "spatial_ref"))
    told: list[Any] = []
    for name in (mapping, "spatial_ref", "crs"):
        if name in array.coords:
            told += [array[name].attrs.get(key) for key in ("crs_wkt", "spatial_ref")]
    for name in ("epsg", "proj:epsg", "proj:code"):
        if name in array.coords and array[name].ndim == 0:
            told.append(array[name].item())
    told += [
        table.get(key)
        for table in (array.attrs, attributes)
        for key in ("crs", "proj:wkt2", "proj:code", "proj:epsg")
    ]
    for value in told:
        if value is not None and value == value:
            return _wkt(value)
    return None


def _wkt(value: Any) -> str:
    try:
        is_number = isinstance(value, int | float | np.number)
        return str((CRS.from_epsg(int(value)) if is_number else CRS.from_user_input(value)).to_wkt())
    except (CRSError, ValueError) as error:
        raise InputError(f"array: {value!r:.80} is no CRS ({error})") from error


def _transform(one: _Variable) -> tuple[float, ...] | None:
    """Of pixel edges, by the coordinates of pixel centres; where an attribute tells a transform (stackstac), by that it
    shows whether coordinates are centres or corners."""
    array, (y, x) = one.array, one.dims[2:]
    if y not in array.coords or x not in array.coords:
        return None
    known = array.attrs.get("transform", array.attrs.get("proj:transform"))
    origin = [float(v) for v in list(known)[:6]] if known is not None and len(list(known)) >= 6 else None
    a, c = _axis(one, x, None if origin is None else (origin[0], origin[2]))
    e, f = _axis(one, y, None if origin is None else (origin[4], origin[5]))
    return a, 0.0, c, 0.0, e, f


def _axis(one: _Variable, dim: Hashable, known: tuple[float, float] | None) -> tuple[float, float]:
    """Step and first edge of an axis."""
    values = np.asarray(one.array[dim].values, np.float64)
    if len(values) < 2:
        if known is None:
            raise InputError(
                f"{one.name}: {dim} has one value, which tells no pixel size; give arrays of two or more"
            )
        step = known[0]
    else:
        step = (values[-1] - values[0]) / (len(values) - 1)
        if step == 0 or np.max(np.abs(np.diff(values) - step)) > _EVEN * abs(step):
            raise InputError(f"{one.name}: {dim} is not evenly spaced; expected the coordinates of a grid")
    if known is not None and abs(known[0] - step) <= _EVEN * abs(step):
        part = ((values[0] - known[1]) / step) % 1
        if min(part, 1 - part) < 0.1:  # corners
            return step, float(values[0])
    return step, float(values[0] - step / 2)


# --- pixels ---


class _Cache:
    """Computed blocks, those used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._blocks: OrderedDict[Any, np.ndarray] = OrderedDict()

    def get(self, key: Any) -> np.ndarray | None:
        if key not in self._blocks:
            return None
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def put(self, key: Any, block: np.ndarray) -> None:
        self._blocks[key] = block
        self._bytes += block.nbytes
        while self._bytes > self._limit and len(self._blocks) > 1:
            self._bytes -= self._blocks.popitem(last=False)[1].nbytes


class _Plane:
    """One band of one date of an array, read as a file of one band is.

    Args:
        one: the stack that it is in.
        t: its date.
        cache: of computed blocks.
        dtype: of the pixels that are given; NaN become 0 where it holds none.
    """

    def __init__(self, one: _Variable, t: int, cache: _Cache, dtype: np.dtype[Any]) -> None:
        self._one, self._t, self._cache, self._dtype = one, t, cache, dtype

    def read(self, indexes: Sequence[int] | int, window: Any) -> np.ndarray[Any, Any]:
        """Pixels of a window, [1, h, w], or [h, w] for a single index."""
        rows = slice(window.row_off, window.row_off + window.height)
        columns = slice(window.col_off, window.col_off + window.width)
        time, band, y, x = self._one.dims
        place: dict[Hashable, slice | int] = {
            y: rows,
            x: columns,
            **({time: self._t} if time is not None else {}),
        }
        if band is not None and self._one.band is not None:
            place[band] = self._one.band
        array = self._one.array
        if hasattr(array.data, "dask"):
            pixels = self._of_blocks(array, place)
        else:
            pixels = np.array(array.isel(place).transpose(y, x).values)
        if pixels.dtype != self._dtype:
            pixels = np.nan_to_num(pixels, nan=0).astype(self._dtype)
        return pixels if isinstance(indexes, int) else pixels[None]

    def close(self) -> None:
        """Nothing is open."""

    @property
    def dims(self) -> tuple[Hashable | None, Hashable | None, Hashable, Hashable]:
        """What the array calls time, band, y and x."""
        return self._one.dims

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        _, _, y, x = self._one.dims
        return int(self._one.array.sizes[y]), int(self._one.array.sizes[x])

    def lazy(self) -> dict[Hashable, tuple[int, ...]] | None:
        """Blocks of dask along each dimension; None of an array that is in memory."""
        array = self._one.array
        return dict(zip(array.dims, array.data.chunks)) if hasattr(array.data, "dask") else None

    def window(self, rows: slice, columns: slice) -> Any:
        """A window, [h, w], as lazy as the array is."""
        time, band, y, x = self._one.dims
        place: dict[Hashable, slice | int] = {y: rows, x: columns}
        if time is not None:
            place[time] = self._t
        if band is not None and self._one.band is not None:
            place[band] = self._one.band
        pixels = self._one.array.isel(place).transpose(y, x).data
        if pixels.dtype == self._dtype:
            return pixels
        if not hasattr(pixels, "dask"):
            return np.nan_to_num(pixels, nan=0).astype(self._dtype)
        return pixels.map_blocks(np.nan_to_num, nan=0).astype(self._dtype)

    def _of_blocks(self, array: xr.DataArray, place: Mapping[Hashable, slice | int]) -> np.ndarray[Any, Any]:
        """A window out of dask blocks, each of which is computed once while it fits the cache."""
        lazy, dims = array.data, array.dims
        wanted = [place[dim] for dim in dims]
        spans = [_overlapping(chunks, part) for chunks, part in zip(lazy.chunks, wanted)]
        blocks = self._computed(lazy, list(all_of(*([k for k, *_ in span] for span in spans))))
        y, x = self._one.dims[2:]
        rows, columns = place[y], place[x]
        out = np.empty((_length(rows), _length(columns)), lazy.dtype)
        for pieces in all_of(*spans):
            block = blocks[tuple(k for k, *_ in pieces)]
            inner = tuple(piece for _, piece, _ in pieces)
            target = {dim: part for dim, (_, _, part) in zip(dims, pieces)}
            found = block[inner]
            kept = [dim for dim, part in zip(dims, inner) if isinstance(part, slice)]
            out[target[y], target[x]] = found if kept == [y, x] else found.T
        return out

    def _computed(self, lazy: Any, keys: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], np.ndarray]:
        from dask.base import compute  # slow to import; there already where its arrays are given

        found = {key: block for key in keys if (block := self._cache.get((lazy.name, key))) is not None}
        lacking = [key for key in keys if key not in found]
        if lacking:
            for key, block in zip(lacking, compute(*(lazy.blocks[key] for key in lacking))):  # type: ignore[no-untyped-call]
                found[key] = np.asarray(block)
                self._cache.put((lazy.name, key), found[key])
        return found


def _length(part: slice | int) -> int:
    return int(part.stop - part.start) if isinstance(part, slice) else 1


def _overlapping(chunks: Sequence[int], part: slice | int) -> list[tuple[int, slice | int, slice | int]]:
    """Blocks along one axis that a part of it touches: which, what of it, and where that goes in the part."""
    start, stop = (part.start, part.stop) if isinstance(part, slice) else (part, part + 1)
    found: list[tuple[int, slice | int, slice | int]] = []
    edge = 0
    for k, size in enumerate(chunks):
        low, high = max(start, edge), min(stop, edge + size)
        if low < high:
            if isinstance(part, slice):
                found.append((k, slice(low - edge, high - edge), slice(low - start, high - start)))
            else:
                found.append((k, low - edge, 0))
        edge += size
    return found
