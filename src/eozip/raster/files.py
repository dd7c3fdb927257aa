"""From what a user names to the files of a scene; what GDAL alone can read passes as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from eozip.errors import InputError

PathLike = str | os.PathLike[str]

# /vsizip//data/s.zip/x.tif, https://..., s3://..., zip:///data/s.zip!x.tif, SENTINEL2_L2A:...:10m:EPSG_32631
_ELSEWHERE = re.compile(r"/vsi[a-z0-9_]+[/?]|[a-z][a-z0-9+.-]*://|[A-Z][A-Z0-9_]+:")
_TIFFS = (".tif", ".tiff")
_JPEG2000 = (".jp2",)
_LARGEST_FOLDER = 100_000  # files looked at, so that a wrong folder does not walk a whole disk


def is_elsewhere(name: str) -> bool:
    """Whether a name is one that GDAL or rasterio resolves: a virtual file system, a URL, a subdataset."""
    return bool(_ELSEWHERE.match(name)) and not exists(name)


def gdal_name(path: PathLike) -> str:
    """A path as GDAL takes it: UTF-8, whatever the locale of this process.

    Raises:
        InputError: the name's bytes are no UTF-8.
    """
    try:
        return _bytes_of(path).decode("utf-8")
    except UnicodeError as error:
        raise InputError(
            f"{printable(path)}: expected a file name in UTF-8, got other bytes; rename the file or its folder"
        ) from error


def printable(path: PathLike) -> str:
    """A path for people and for JSON: bytes that are no UTF-8 become question marks."""
    return _bytes_of(path).decode("utf-8", "replace")


def exists(path: PathLike) -> bool:
    """Whether there is such a file or folder, whatever the locale of this process."""
    return os.path.exists(_bytes_of(path))


def _bytes_of(path: PathLike) -> bytes:
    text = os.fspath(path)
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # in the C locale, of a name that came from `gdal_name`
        return text.encode("utf-8", "surrogateescape")


def files_of(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """The rasters that a user means: files as given; of a folder its GeoTIFFs, else those of the folders in it.

    Raises:
        InputError: nothing to read, or a folder without rasters.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InputError(f"expected the path of a GeoTIFF, or several, got {paths!r}")
    files = [file for path in given for file in _expanded(_checked(path))]
    if not files:
        raise InputError("no input: expected a GeoTIFF, several GeoTIFFs or a folder of GeoTIFFs")
    return files


def _checked(path: object) -> str:
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes) or not os.fspath(path):
        raise InputError(f"expected the path of a GeoTIFF, got {path!r}")
    return os.fspath(path)


def _expanded(path: str) -> list[str]:
    if is_elsewhere(path) or not os.path.isdir(path):
        return [path]
    files = _in_folder(Path(path)) or sorted(_below(Path(path)))
    if not files:
        raise InputError(
            f"{printable(path)}: no GeoTIFF in this folder or those in it; expected files ending in "
            f"{', '.join((*_TIFFS, *_JPEG2000))}"
        )
    return files


def _in_folder(folder: Path) -> list[str]:
    """The GeoTIFFs of one folder by name; without any, its JPEG 2000 files."""
    if folder.suffix.upper() == ".SAFE":
        raise InputError(
            f"{printable(folder)}: .SAFE products keep bands on grids of 10, 20 and 60 m; expected bands on one grid. "
            "Resample bilinearly to one GeoTIFF first, for example: gdalbuildvrt -separate -resolution highest -r "
            "bilinear bands.vrt BAND_FILES (the 12 of B01 to B12 and B8A), then gdal_translate -a_nodata 0 bands.vrt "
            "scene.tif; encode it with --bands to name its bands and, from processing baseline 04.00 on, --offset 1000"
        )
    inner = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    for suffixes in (_TIFFS, _JPEG2000):
        found = [str(p) for p in inner if p.suffix.lower() in suffixes and not p.is_dir()]
        if found:
            return found
    return []


def _below(folder: Path) -> Iterator[str]:
    """The rasters of the folders in a folder; hidden ones and stores aside."""
    seen = 0
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not name.endswith(".zarr"))
        seen += len(files) + len(inner)
        if seen > _LARGEST_FOLDER:
            raise InputError(
                f"{printable(folder)}: more than {_LARGEST_FOLDER} files below this folder; name the folders or files "
                "that hold the scene"
            )
        yield from _in_folder(Path(place))
