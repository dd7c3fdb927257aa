"""eozip stores in xarray without `engine=`: the joint cube as a dataset, native grids as a datatree.

    xr.open_dataset("scene.zarr.zip", resolution=20, bands=["B04", "B08"], dates=["2021-07"], mask_and_scale=True)
    xr.open_datatree("scene.zarr.zip")                                            # r10m, r20m, r60m

Nothing is decoded before values are asked for, and then only the chunks and sections that they lie in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from eozip import arguments
from eozip.errors import EozipError, InputError
from eozip.raster.product import QUANTITY
from eozip.sensors import get, names
from eozip.store.description import BandGrid, Description, choose_bands, choose_dates, described
from eozip.store.documents import RECORD
from eozip.store.files import GROUP, is_url, store_files
from eozip.store.metadata import OFFSET, centres, crs_attributes, group_attributes
from eozip.store.records import lattice_of
from eozip.store.windows import Source, chosen_reduction

_ENDINGS = (".zarr", ".zarr.zip")


@dataclass
class _Handle:
    """A store that is opened when it is needed; travels to other processes without what is open.

    Attributes:
        place: path or URL.
        options: for fsspec.
    """

    place: str
    options: dict[str, Any]

    @cached_property
    def source(self) -> Source:
        """The open store; files are closed with the process, as readers of windows may come at any time."""
        files = store_files(self.place, self.options)
        return Source(described(files), files)

    @property
    def description(self) -> Description:
        """The store without its pixels."""
        return self.source.description

    def __getstate__(self) -> tuple[str, dict[str, Any]]:
        return self.place, self.options

    def __setstate__(self, state: tuple[str, dict[str, Any]]) -> None:
        self.place, self.options = state


@dataclass(frozen=True)
class _View:
    """What was asked for.

    Attributes:
        handle: the store.
        times: positions of dates.
        bands: positions in the array, in the order wanted.
        reduce: pixels of the array, each way, that make one.
        scaled: whether DN become reflectance.
    """

    handle: _Handle
    times: tuple[int, ...]
    bands: tuple[int, ...]
    reduce: int = 1
    scaled: bool = False

    @property
    def is_float(self) -> bool:
        """Whether values are floats: reflectance, or what the source held."""
        return self.scaled

    def values(self, dn: np.ndarray, times: Sequence[int], bands: Sequence[int]) -> np.ndarray:
        """DN [t, c, h, w], or float32 with NaN for missing pixels."""
        if not self.scaled:
            return dn
        found = self.handle.description
        lattice = lattice_of(found.product.lattice if found.product else None)
        if lattice is not None:
            return lattice.values(dn, found.codec.nodata)
        table = np.array(found.offsets, np.float32)
        offsets = table[np.ix_(list(times), list(bands))][:, :, None, None]
        values = (dn.astype(np.float32) - offsets) * np.float32(found.scale)
        if found.codec.nodata is not None:
            values[dn == found.codec.nodata] = np.nan
        return values


class _Pixels(BackendArray):
    """An array of a store that is decoded when it is indexed; the shape is [time, (band,) y, x].

    Args:
        view: what was asked for.
        grid: of which it is one band; None: the joint cube.
    """

    def __init__(self, view: _View, grid: int | None) -> None:
        self.view, self.grid = view, grid
        found = view.handle.description
        if grid is None:
            size = tuple(-(-side // view.reduce) for side in found.grid.shape[2:])
            self.shape: tuple[int, ...] = len(view.times), len(view.bands), *size
        else:
            own = found.grids[grid]
            self.shape = len(view.times), own.height, own.width
        self.dtype = np.dtype(np.float32 if view.is_float else found.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """What lies around an outer indexer is read, and it picks its part of that."""
        picks = [_picked(part, length) for part, length in zip(key, self.shape, strict=True)]
        if any(pick.size == 0 for pick in picks):
            empty = np.empty([pick.size for pick in picks], self.dtype)
            return empty[tuple(0 if np.isscalar(part) else slice(None) for part in key)]
        rows, columns = (slice(int(pick.min()), int(pick.max()) + 1) for pick in picks[-2:])
        times = [self.view.times[i] for i in picks[0]]
        bands = [self.view.bands[i] for i in (picks[1] if self.grid is None else [0])]
        values = self.view.values(self._dn(times, bands, rows, columns), times, bands)
        values = values[..., picks[-2] - rows.start, :][..., picks[-1] - columns.start]
        values = values if self.grid is None else values[:, 0]
        return values[tuple(0 if np.isscalar(part) else slice(None) for part in key)]

    def _dn(self, times: Sequence[int], bands: Sequence[int], rows: slice, columns: slice) -> np.ndarray:
        source = self.view.handle.source
        if self.grid is None:
            return source.pixels(times, bands, rows, columns, self.view.reduce)
        own = source.description.grids[self.grid].bands
        return source.cells(self.grid, times, rows, columns)[:, [own.index(band) for band in bands]]


def _picked(part: Any, length: int) -> np.ndarray:
    if isinstance(part, slice):
        return np.arange(length)[part]
    return np.atleast_1d(np.arange(length)[part])


class EozipBackendEntrypoint(BackendEntrypoint):
    """Opens stores of eozip: directories and zip files, here or wherever fsspec reaches."""

    description: ClassVar[str] = "Stores of eozip: learned compression for Earth-observation imagery"
    url: ClassVar[str] = "https://pypi.org/project/eozip"
    supports_groups: ClassVar[bool] = True
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "mask_and_scale",
        "decode_times",
        "decode_timedelta",
        "use_cftime",
        "concat_characters",
        "decode_coords",
        "group",
        "resolution",
        "bands",
        "dates",
        "storage_options",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether a path or URL is a store of eozip, by its name and its record."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        place = os.fspath(filename_or_obj)
        if not isinstance(place, str) or not place.rstrip("/").lower().endswith(_ENDINGS):
            return False
        try:
            with contextlib.closing(_Closing(place)) as files:
                return files.has_record()
        except (EozipError, OSError, ValueError, ImportError):
            return False

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool | Mapping[str, bool] | None = None,
        decode_times: Any = None,
        decode_timedelta: Any = None,
        use_cftime: Any = None,
        concat_characters: Any = None,
        decode_coords: Any = None,
        group: str | None = None,
        resolution: float | None = None,
        bands: Sequence[str | int] | None = None,
        dates: Sequence[str | int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """The joint cube `reflectance`, or with `group` the bands of one grid.

        Args:
            filename_or_obj: path or URL of a store.
            drop_variables: names that are left out.
            mask_and_scale: True gives float32 reflectance with NaN for missing pixels; False the DN as they are stored;
                None: DN, of sources that held floats their values.
            decode_times: taken, as times are always decoded; so are the next four, for callers that pass them.
            decode_timedelta: see `decode_times`.
            use_cftime: see `decode_times`.
            concat_characters: see `decode_times`.
            decode_coords: see `decode_times`.
            group: "r10m", "r20m", ...: the bands of that grid, exactly on it, and what lies beside them.
            resolution: side of a pixel in units of the CRS, a multiple of the store's: averages of finer bands.
            bands: names or positions, as `eozip decode` takes them.
            dates: ISO dates, their beginnings, or positions.
            storage_options: for fsspec.
        """
        handle = _Handle(os.fspath(filename_or_obj), _for_fsspec(storage_options))
        view = _view(handle, bands, dates, _is_scaled(handle.description, mask_and_scale))
        group = arguments.text("group", group)
        if group is not None and group.strip("/"):
            if resolution is not None:
                raise InputError("give group or resolution, not both: a group has the resolution of its grid")
            dataset = _chosen_group(view, group.strip("/"))
        else:
            view = _View(
                handle, view.times, view.bands, chosen_reduction(handle.description, resolution), view.scaled
            )
            dataset = _joint(view)
        dropped = [] if drop_variables is None else _listed(drop_variables)
        dataset = dataset.drop_vars(dropped, errors="ignore")
        return _named(dataset, handle)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool | Mapping[str, bool] | None = None,
        bands: Sequence[str | int] | None = None,
        dates: Sequence[str | int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> dict[str, xr.Dataset]:
        """Every grid as a group; of a store that is no more than a scene the cube as root, too; see `open_dataset`."""
        handle = _Handle(os.fspath(filename_or_obj), _for_fsspec(storage_options))
        view = _view(handle, bands, dates, _is_scaled(handle.description, mask_and_scale))
        unknown = [name for name, value in others.items() if value is not None and name not in _DECODERS]
        if unknown:
            raise InputError(f"{unknown[0]}: not of a tree; open_dataset takes group and resolution")
        dropped = [] if drop_variables is None else _listed(drop_variables)
        is_scene = handle.description.product is None and not handle.description.codec.grids
        root = _joint(view) if is_scene else xr.Dataset(attrs=_attributes(handle.description))
        root = _named(root.drop_vars(dropped, errors="ignore"), handle)
        groups = _groups(view)
        return {
            "/": root,
            **{f"/{name}": ds.drop_vars(dropped, errors="ignore") for name, ds in groups.items()},
        }

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """See `open_groups_as_dict`."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))


_DECODERS = ("decode_times", "decode_timedelta", "use_cftime", "concat_characters", "decode_coords", "format")


class _Closing:
    """Files of a store, to look whether it is one of eozip's."""

    def __init__(self, place: str) -> None:
        self._files = store_files(place)

    def has_record(self) -> bool:
        return self._files.size(f"{RECORD}/{GROUP}") is not None

    def close(self) -> None:
        self._files.__exit__()


def _view(
    handle: _Handle, bands: Sequence[str | int] | None, dates: Sequence[str | int] | None, scaled: bool
) -> _View:
    found = handle.description
    picks = choose_bands(found, None if bands is None else _listed(bands))
    chosen = (
        tuple(found.band_order[i] for i in picks) if bands is not None else tuple(range(found.grid.shape[1]))
    )
    return _View(
        handle, tuple(choose_dates(found, None if dates is None else _listed(dates))), chosen, 1, scaled
    )


def _listed(values: Iterable[str | int] | str | int) -> list[str | int]:
    return [values] if isinstance(values, str | int) else arguments.listed("bands, dates", values)


def _for_fsspec(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"storage_options: expected a mapping, got {given!r:.80}")
    return dict(given or {})


def _is_scaled(found: Description, asked: bool | Mapping[str, bool] | None) -> bool:
    if asked is None:
        return found.product is not None and found.product.lattice is not None
    return any(asked.values()) if isinstance(asked, Mapping) else bool(asked)


def _chosen_group(view: _View, name: str) -> xr.Dataset:
    found = _groups(view)
    if name not in found:
        raise InputError(
            f"{view.handle.place}: group: expected one of {', '.join(found)}, got {name!r}; without group the joint cube is "
            "opened"
        )
    return found[name]


def _named(dataset: xr.Dataset, handle: _Handle) -> xr.Dataset:
    dataset.encoding["source"] = handle.place
    return dataset


def _attributes(found: Description) -> dict[str, Any]:
    return group_attributes(found.facts)


def _joint(view: _View) -> xr.Dataset:
    found = view.handle.description
    labels = found.labels
    dims = ("time", "band", "y", "x")
    attributes = {"long_name": "reflectance", "units": "1"} if view.scaled else {"comment": "digital numbers"}
    variable = _variable(dims, _Pixels(view, None), attributes, _chunks(found, view, None))
    dataset = xr.Dataset({"reflectance": variable}, _coordinates(view, view.reduce), _attributes(found))
    dataset = dataset.assign_coords(band=("band", [labels[i] for i in view.bands]))
    offsets = np.array(found.offsets)[np.ix_(view.times, view.bands)]
    return _with_offsets(dataset, offsets, ("time", "band"))


def _groups(view: _View) -> dict[str, xr.Dataset]:
    """Bands by grid, with the rasters beside them."""
    found = view.handle.description
    groups = {}
    for index, grid in enumerate(found.grids):
        bands = [band for band in view.bands if band in grid.bands]
        if bands:
            groups[grid.name] = _group(view, index, grid, bands)
    for name, layers in _layers(view).items():
        own = groups.get(name, xr.Dataset(attrs=_attributes(found)))
        groups[name] = own.merge(layers, compat="override", combine_attrs="override")
    return groups


def _group(view: _View, index: int, grid: BandGrid, bands: Sequence[int]) -> xr.Dataset:
    found = view.handle.description
    labels = found.labels
    variables = {}
    for band in bands:
        own = _View(view.handle, view.times, (band,), 1, view.scaled)
        attributes = _band_attributes(found, labels[band], view.scaled)
        chunks = _chunks(found, view, grid)
        variables[found.variables[band]] = _variable(
            ("time", "y", "x"), _Pixels(own, index), attributes, chunks
        )
    dataset = xr.Dataset(variables, _coordinates(view, grid.factor), _attributes(found))
    offsets = np.array(found.offsets)[np.ix_(view.times, bands)]
    if (offsets == offsets[:, :1]).all():
        return _with_offsets(dataset, offsets[:, 0], ("time",))
    for band, values in zip(bands, offsets.T, strict=True):
        dataset[found.variables[band]].attrs[OFFSET] = values.tolist()
    return dataset


def _band_attributes(found: Description, label: str, scaled: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {"long_name": label, "units": "1" if scaled else "DN"}
    if found.codec.nodata is not None and not scaled:
        attributes["nodata"] = found.codec.nodata
    if found.codec.sensor in names():
        known = {band.name: band.wavelength_nm for band in get(found.codec.sensor).bands}
        if label in known:
            attributes["wavelength_nm"] = float(known[label])
    return attributes


def _variable(
    dims: tuple[str, ...], array: _Pixels, attributes: Mapping[str, Any], chunks: Mapping[str, int]
) -> xr.Variable:
    data = indexing.LazilyIndexedArray(array)
    encoding = {"preferred_chunks": dict(chunks), "grid_mapping": "spatial_ref"}
    return xr.Variable(dims, data, dict(attributes), encoding)


def _chunks(found: Description, view: _View, grid: BandGrid | None) -> dict[str, int]:
    """What is decoded together, on the grid of a variable."""
    dates, _, height, width = found.grid.chunk
    factor = view.reduce if grid is None else grid.factor
    whole = len(view.times) == found.grid.shape[0]
    chunks = {
        "time": dates if whole else 1,
        "y": max(1, -(-height // factor)),
        "x": max(1, -(-width // factor)),
    }
    return chunks if grid is not None else {**chunks, "band": len(view.bands)}


def _coordinates(view: _View, factor: int) -> dict[str, xr.Variable]:
    found = view.handle.description
    coordinates: dict[str, xr.Variable] = {"time": _time(found, view.times)}
    transform = found.profile.transform
    if transform is not None and transform[1] == transform[3] == 0:
        x, y = centres(found.profile, factor)
        coordinates["x"] = xr.Variable(("x",), x, {"axis": "X", "standard_name": "projection_x_coordinate"})
        coordinates["y"] = xr.Variable(("y",), y, {"axis": "Y", "standard_name": "projection_y_coordinate"})
    coordinates["spatial_ref"] = xr.Variable((), 0, crs_attributes(found.profile, factor))
    return coordinates


def _time(found: Description, times: Sequence[int]) -> xr.Variable:
    dates = [found.dates[t] for t in times]
    if None in found.dates:
        return xr.Variable(
            ("time",), np.array(times), {"long_name": "index of the date, as not every date is known"}
        )
    values = np.array([datetime.fromisoformat(date) for date in dates if date is not None], "datetime64[ns]")
    return xr.Variable(("time",), values, {"standard_name": "time"})


def _with_offsets(dataset: xr.Dataset, offsets: np.ndarray, dims: tuple[str, ...]) -> xr.Dataset:
    """The DN added to those of reflectance 0, as a coordinate of the dates, and of the bands where they differ."""
    if offsets.ndim == 2 and (offsets == offsets[:, :1]).all():
        offsets, dims = offsets[:, 0], dims[:1]
    attributes = {"long_name": "DN added to those of reflectance 0", "units": "1"}
    return dataset.assign_coords({OFFSET: (dims, offsets, attributes)})


def _layers(view: _View) -> dict[str, dict[str, xr.Variable]]:
    """Rasters beside the bands, by group; read by xarray's own backend for Zarr."""
    found = view.handle.description
    records = found.product.layers if found.product else ()
    groups: dict[str, dict[str, xr.Variable]] = {}
    for folder in dict.fromkeys(layer.path.split("/")[0] for layer in records):
        opened = xr.open_dataset(
            _zarr_name(view.handle.place),
            engine="zarr",
            group=folder,
            chunks=None,
            mask_and_scale=False,
            backend_kwargs=_options(view.handle),
        )
        suffixed = [name for name in (*opened.dims, *opened.coords) if str(name).endswith(f"_{folder}")]
        opened = opened.rename(
            {name: str(name).removesuffix(f"_{folder}") for name in dict.fromkeys(suffixed)}
        )
        named = {layer.path.split("/")[1] for layer in records if layer.path.startswith(f"{folder}/")}
        own: dict[str, xr.Variable] = {}
        for name in sorted(named):
            variable = opened[name].variable
            kept = variable.isel(time=list(view.times)) if len(view.times) < found.grid.shape[0] else variable
            kept.attrs.pop("coordinates", None)
            chunks = variable.encoding.get("preferred_chunks") or {}
            kept.encoding = {"preferred_chunks": dict(chunks), "grid_mapping": "spatial_ref"}
            kept.attrs.pop("grid_mapping", None)
            is_quantity = any(
                layer.path == f"{folder}/{name}" and layer.kind == QUANTITY for layer in records
            )
            own[name] = xr.conventions.decode_cf_variable(name, kept) if is_quantity and view.scaled else kept
        groups[folder] = own
    return groups


def _zarr_name(place: str) -> str:
    is_zip = place.rstrip("/").lower().endswith(".zip")
    return f"zip::{place}" if is_zip and not place.startswith("zip::") else place


def _options(handle: _Handle) -> dict[str, Any]:
    if not handle.options or not is_url(handle.place):
        return {}
    return {"storage_options": handle.options}
