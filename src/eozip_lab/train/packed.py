"""Packs: planes of uint16 stacks as lossless JPEG XL in zip files, with index.json (`packing` writes them).

    folder:  index.json, <source>.zip > <site>/<band>.jxl         as in EOZIP_DATA/data/train
    file:    one zip that holds index.json and <source>/<site>/<band>.jxl    as `eozip train --pack` writes

index.json lists items {source, site, shape [N, C, H, W], grid, ...}; a plane shows N tiles, `grid` in a row.
Planes are unpacked once, to .npz files in the user's cache folder, which are mapped from then on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip.lazy import optional
from eozip.outputs import publish
from eozip_lab.train.npz_mmap import stored_arrays

INDEX = "index.json"
VALIDATION = "validation.json"  # like INDEX: items held back, in packs that carry them along
_MAX_ARRAY = 4 << 30  # bytes


def is_pack(path: Path) -> bool:
    """True for a folder or zip file with index.json."""
    if path.is_dir():
        return (path / INDEX).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as zf:
        return INDEX in zf.namelist()


def packed_arrays(
    path: Path, index_name: str = INDEX
) -> tuple[list[tuple[str, np.ndarray]], tuple[Path, ...]]:
    """(source:site, array [N, C, H, W]) of every item of a pack, and its files."""
    index = _read_index(path, index_name)
    named = []
    for source in sorted({item["source"] for item in index}):
        items = [item for item in index if item["source"] == source]
        zip_path, prefix = (path / f"{source}.zip", "") if path.is_dir() else (path, f"{source}/")
        cached = _unpacked(zip_path, prefix, source, items)
        named += [(f"{source}:{name}", a) for name, a in stored_arrays(cached).items()]
    files = sorted(path.glob("*.zip")) if path.is_dir() else [path]
    return named, tuple(files)


def _read_index(path: Path, name: str = INDEX) -> list[dict[str, Any]]:
    """Items of a pack.

    Raises:
        InputError: index.json is no list of items, or declares an array beyond the limit.
    """
    try:
        items = json.loads(_member(path, name))
        for item in items:
            _check_item(item)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {name}: expected a list of packed stacks, got: {error!r}") from error
    return items


def _member(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as zf:
        return zf.read(name)


def _check_item(item: dict[str, Any]) -> None:
    n, c, h, w = item["shape"]
    if min(n, c, h, w) < 1 or 2 * n * c * h * w > _MAX_ARRAY or n % item["grid"]:
        raise ValueError(f"shape {item['shape']} with grid {item['grid']}")
    for key in ("source", "site"):
        if not isinstance(item[key], str) or ".." in Path(item[key]).parts or Path(item[key]).is_absolute():
            raise ValueError(f"{key} {item[key]!r}")


def _unpacked(zip_path: Path, prefix: str, source: str, items: Sequence[dict[str, Any]]) -> Path:
    """The cached .npz of one source, made on first use."""
    if not zip_path.is_file():
        raise InputError(f"{zip_path}: missing, but {INDEX} lists it; fetch the data again")
    with zip_path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256")
    content.update(json.dumps(items).encode())
    target = _cache_folder() / f"{content.hexdigest()[:16]}-{source}.npz"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _unpack(zip_path, prefix, items, target)
    return target


def _cache_folder() -> Path:
    """Folder for unpacked training data, by the XDG habit."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eozip" / "train"


def _unpack(zip_path: Path, prefix: str, items: Sequence[dict[str, Any]], target: Path) -> None:
    decode = jpegxl("decode")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(zip_path) as zf, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as out:
            for item in items:
                stack = np.stack([_plane(zf, prefix, item, k, decode) for k in range(item["shape"][1])], 1)
                with out.open(f"{item['site']}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, stack)
        publish(part, target, overwrite=True)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{zip_path}: expected the planes that {INDEX} lists, got {error}; fetch it again"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _plane(
    zf: zipfile.ZipFile, prefix: str, item: dict[str, Any], band: int, decode: Callable[..., Any]
) -> np.ndarray:
    """One band of all tiles, [N, H, W]."""
    n, _, h, w = item["shape"]
    name = f"{prefix}{item['site']}/{band:02d}.jxl"
    mosaic = decode(zf.read(name))
    if mosaic.shape != (n // item["grid"] * h, item["grid"] * w):
        raise InputError(
            f"{zf.filename}: {name} has shape {mosaic.shape}, not what {INDEX} says; fetch it again"
        )
    return mosaic.reshape(n // item["grid"], h, item["grid"], w).swapaxes(1, 2).reshape(n, h, w)


def mosaics(stack: np.ndarray, grid: int) -> list[np.ndarray]:
    """[N, C, H, W] -> one plane [N/grid*H, grid*W] per band; the inverse of reading."""
    n, c, h, w = stack.shape
    planes = stack.reshape(n // grid, grid, c, h, w).transpose(2, 0, 3, 1, 4)
    return list(planes.reshape(c, n // grid * h, grid * w))


def widest_grid(count: int, most: int = 8) -> int:
    """Largest divisor of `count` up to `most`."""
    return max(k for k in range(1, most + 1) if math.gcd(k, count) == k)


def jpegxl(direction: str) -> Callable[..., Any]:
    """The JPEG XL encoder or decoder of imagecodecs.

    Raises:
        InputError: imagecodecs is not installed.
    """
    imagecodecs = optional(
        "imagecodecs", "packed training data needs imagecodecs: pip install 'eozip[train]'"
    )
    return getattr(imagecodecs, f"jpegxl_{direction}")
