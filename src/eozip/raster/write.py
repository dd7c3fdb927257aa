"""Windows of pixels into tiled, compressed GeoTIFFs, under their final names whole or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.drivers import raster_driver_extensions
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from eozip.errors import InputError, OutputError
from eozip.outputs import publish, resolved, temporary
from eozip.raster.files import PathLike, gdal_name
from eozip.raster.read import CACHE_BYTES
from eozip.raster.scene import Profile, Tags

# beside the formats that this machine's GDAL can write
_OTHER_FILES = (
    "nc", "nc4", "cdf", "h5", "hdf", "hdf5", "he5", "zarr", "zip", "tar", "gz", "json", "html", "npy", "npz", "csv", "txt",
    "jp2", "j2k", "jxl", "avif", "heic", "safe", "cog", "geotiff", "kea", "gta", "parquet", "feather",
)  # fmt: skip


class GeoTiffWriter:
    """One GeoTIFF being written, window by window; `create_geotiff` makes and finishes it."""

    def __init__(self, dataset: Any, target: Path, profile: Profile, missing: int | None = None) -> None:
        self._dataset = dataset
        self._target = target
        self._missing = missing
        self.profile = profile

    def write(self, pixels: np.ndarray, y: int, x: int) -> None:
        """Write a window; windows on multiples of the block size are fastest.

        Args:
            pixels: [C, h, w] in the profile's dtype.
            y: row of its upper edge.
            x: column of its left edge.

        Raises:
            InputError: shape or dtype do not fit.
            OutputError: the disk refuses.
        """
        expected = len(self.profile.band_names)
        if pixels.ndim != 3 or pixels.shape[0] != expected or pixels.dtype != self.profile.dtype:
            raise InputError(
                f"window to write: expected [{expected}, h, w] {self.profile.dtype}, "
                f"got {list(pixels.shape)} {pixels.dtype}"
            )
        height, width = pixels.shape[1:]
        if not (0 <= y <= self.profile.height - height and 0 <= x <= self.profile.width - width):
            raise InputError(
                f"window rows {y}+{height}, columns {x}+{width} reaches outside {self.profile.height} x "
                f"{self.profile.width}"
            )
        window = Window(x, y, width, height)
        with _disk_errors(self._target):
            self._dataset.write(pixels, window=window)
            if self._missing is not None:
                self._dataset.write_mask((pixels != self._missing).any(axis=0), window=window)


@contextmanager
def create_geotiff(
    path: PathLike,
    profile: Profile,
    tags: Tags | None = None,
    band_tags: Sequence[Mapping[str, str]] = (),
    *,
    overwrite: bool = False,
    block: int = 256,
    missing: int | None = None,
) -> Iterator[GeoTiffWriter]:
    """Write one GeoTIFF by windows; at the end of the block it is renamed to `path`.

    Args:
        path: final name, in a folder that exists.
        profile: size, dtype, grid, nodata, bands.
        tags: metadata by namespace; `Scene.tags[t]`.
        band_tags: [C] metadata per band; empty for none.
        overwrite: replace a file that exists.
        block: edge of the internal tiles, a multiple of 16.
        missing: DN of missing pixels: a mask inside the file hides those that have it in all bands. None: no mask.

    Raises:
        OutputError: `path` exists, or cannot be written in full; nothing is left under its name.
    """
    gdal_name(path)
    target = resolved(Path(path))
    _check_free(target, overwrite)
    with _staging(target) as folder:
        staged = folder / target.name
        with _dataset(staged, target, profile, tags or {}, band_tags, block, missing) as writer:
            yield writer
        _check_free(target, overwrite)
        with _disk_errors(target):
            _publish_file(staged, target, overwrite)


@contextmanager
def create_geotiffs(
    folder: PathLike,
    names: Sequence[str],
    profile: Profile,
    tags: Sequence[Tags] = (),
    band_tags: Sequence[Mapping[str, str]] = (),
    *,
    overwrite: bool = False,
    block: int = 256,
    missing: Sequence[int | None] = (),
) -> Iterator[list[GeoTiffWriter]]:
    """Write one GeoTIFF per date into a new folder, which is renamed to `folder` at the end of the block.

    Args:
        folder: final name of the folder; its own folder exists.
        names: [T] file names, all different.
        profile: shared by all dates.
        tags: [T] metadata per date; empty for none.
        band_tags: [C] metadata per band; empty for none.
        overwrite: replace a folder that holds nothing but GeoTIFFs.
        block: edge of the internal tiles, a multiple of 16.
        missing: [T] as in `create_geotiff`; empty: no masks.

    Raises:
        InputError: two names are equal, or one is no plain file name.
        OutputError: `folder` exists, or cannot be written in full; nothing is left under its name.
    """
    gdal_name(folder)
    target = resolved(Path(folder))
    _check_folder_name(target)
    _check_names(names)
    _check_free(target, overwrite)
    with _staging(target) as staging:
        staged = staging / "dates"
        staged.mkdir()
        with ExitStack() as stack:
            each = [(tags[i] if tags else {}, missing[i] if missing else None) for i in range(len(names))]
            yield [
                stack.enter_context(_dataset(staged / name, target, profile, own, band_tags, block, hidden))
                for name, (own, hidden) in zip(names, each, strict=True)
            ]
        _check_free(target, overwrite)
        with _disk_errors(target):
            publish(staged, target, overwrite=overwrite)


def _publish_file(staged: Path, target: Path, overwrite: bool) -> None:
    """GDAL may put what TIFF tags cannot hold into a file beside it, which comes first; an old one tells of old pixels."""
    beside, old = _beside(staged), _beside(target)
    if overwrite:
        old.unlink(missing_ok=True)
    if beside.exists():
        publish(beside, old, overwrite=overwrite)
    try:
        publish(staged, target, overwrite=overwrite)
    except OSError:
        if not beside.exists():
            old.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return Path(f"{path}.aux.xml")


def _check_folder_name(folder: Path) -> None:
    """Refuses the name of a file for a folder: who writes `out.nc` wants that format.

    Raises:
        OutputError: see above.
    """
    ending = folder.suffix.lower().removeprefix(".")
    if ending in {*raster_driver_extensions(), *_OTHER_FILES}:
        raise OutputError(
            f"{folder}: expected the name of a folder, got one that means a file of another format, .{ending}; GeoTIFFs "
            "are written unless --format (`form` in Python) says netcdf, eopf-zarr, cog or bands: choose one of these, or "
            "convert GeoTIFFs afterwards (gdal_translate, say)"
        )


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"two dates would be written to one file name: {sorted(names)}; rename the inputs")
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{name!r} is no plain file name")


def _check_free(target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    for path in (target, _beside(target)):
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{path} exists already; choose another name or pass --overwrite")
    if target.is_dir():
        _check_replaceable(target)


def _check_replaceable(folder: Path) -> None:
    endings = (".tif", ".tiff", ".aux.xml")
    kept = [p.name for p in folder.iterdir() if not (p.is_file() and p.name.lower().endswith(endings))]
    if kept:
        raise OutputError(
            f"{folder} holds more than GeoTIFFs ({kept[0]}) and is not replaced; choose another name"
        )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside `target`, so that a rename suffices; gone at the end whatever happens."""
    with ExitStack() as stack:
        with _disk_errors(target):
            folder = stack.enter_context(temporary(target, folder=True))
        yield folder


@contextmanager
def _dataset(
    staged: Path,
    target: Path,
    profile: Profile,
    tags: Tags,
    band_tags: Sequence[Mapping[str, str]],
    block: int,
    missing: int | None,
) -> Iterator[GeoTiffWriter]:
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK=True):
        with _disk_errors(target):
            dataset = _opened(staged, profile, block)
        try:
            with _disk_errors(target):
                _describe(dataset, profile, tags, band_tags)
                if missing is not None:
                    dataset.write_mask(True)  # the mask's place in the file comes before the pixels
            yield GeoTiffWriter(dataset, target, profile, missing)
            with _disk_errors(target):
                dataset.close()
                _check_complete(staged, target)
        finally:
            _discard(dataset)


def _opened(staged: Path, profile: Profile, block: int) -> Any:
    dtype = np.dtype(profile.dtype)
    georeference = {} if profile.transform is None else {"transform": Affine(*profile.transform)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(
            gdal_name(staged),
            "w",
            driver="GTiff",
            height=profile.height,
            width=profile.width,
            count=len(profile.band_names),
            dtype=profile.dtype,
            crs=None if profile.crs is None else CRS.from_wkt(profile.crs),
            nodata=profile.nodata,
            tiled=True,
            blockxsize=block,
            blockysize=block,
            interleave="band",
            compress="deflate",
            predictor=2 if dtype.kind in "iu" else 3,
            bigtiff="IF_SAFER",
            **georeference,
        )


def _describe(dataset: Any, profile: Profile, tags: Tags, band_tags: Sequence[Mapping[str, str]]) -> None:
    # AREA_OR_POINT shifts what GDAL makes of the georeference, so tags come first.
    for namespace, entries in tags.items():
        _tag(dataset, entries, **({"ns": namespace} if namespace else {}))
    if profile.gcps:
        points = [GroundControlPoint(*point) for point in profile.gcps]
        dataset.gcps = (points, CRS.from_wkt(profile.gcp_crs) if profile.gcp_crs else CRS())
    dataset.scales = profile.scales
    dataset.offsets = profile.offsets
    dataset.units = [unit or "" for unit in profile.units]
    dataset.colorinterp = [ColorInterp[name] for name in profile.colorinterp]
    for index, name in enumerate(profile.band_names, start=1):
        if name:
            dataset.set_band_description(index, name)
    for index, own in enumerate(band_tags, start=1):
        _tag(dataset, own, bidx=index)


def _tag(dataset: Any, entries: Mapping[str, str], **where: Any) -> None:
    """Write tags, but for those whose names rasterio takes for its own arguments."""
    left = sorted({"bidx", "ns"} & entries.keys())
    if left:
        warnings.warn(
            f"tags {', '.join(left)}: left out, as rasterio cannot write tags of these names", stacklevel=2
        )
    dataset.update_tags(**where, **{name: value for name, value in entries.items() if name not in left})


def _check_complete(staged: Path, target: Path) -> None:
    """GDAL can lose what is written at closing time without an error, so look at what is there."""
    size = staged.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(gdal_name(staged)) as written:
            for index in written.indexes:
                for (row, column), _ in written.block_windows(index):
                    end = _block_end(written, index, row, column)
                    if end is None or end > size:
                        raise OutputError(f"{target}: could not be written in full; is the disk full?")


def _block_end(dataset: Any, index: int, row: int, column: int) -> int | None:
    start = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=index)
    length = dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=index)
    return None if start is None or length is None else int(start) + int(length)


def _discard(dataset: Any) -> None:
    if dataset.closed:
        return
    try:
        dataset.close()
    except (RasterioError, OSError):
        # The file is thrown away, and the error that led here is the one to report.
        return


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"{target}: cannot be written ({error.__cause__ or error}); nothing is left under that name. "
            "Is the disk full, or the folder read-only?"
        ) from error
