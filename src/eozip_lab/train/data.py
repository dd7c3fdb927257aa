"""Sources of training crops: stacks in .npz or packs, folders of GeoTIFFs, SSL4EO-S12 v1.1 shards.

A source gives crops of digital numbers [C, s, s], or series [T, C, s, s], for a step; which ones depends on
(seed, step) alone, so that a resumed run sees the data that an uninterrupted one sees. Pixels are read when asked
for: memory does not grow with the data. One thread, one set of sources (files are not shared between threads).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from eozip import raster
from eozip.errors import InputError
from eozip_lab.train.npz_mmap import stored_arrays
from eozip_lab.train.packed import is_pack, packed_arrays
from eozip_lab.train.recipe import DataSource, located

_TRIES = 100
_OPEN_SCENES = 64  # GeoTIFFs kept open per thread
SPREAD = 0.75  # chance of a stack grows with pixels**0.75: large ones do not drown the rest


@dataclass(frozen=True)
class Draw:
    """Which random numbers a batch is made of."""

    seed: int
    step: int

    def rng(self, *more: int) -> np.random.Generator:
        """A fresh generator for (seed, step, more ...)."""
        return np.random.default_rng((self.seed, self.step % 2**32, *more))  # steps below 0 too


class Source(Protocol):
    """What every kind of data fulfils."""

    facts: dict[str, Any]  # for the log and the model card

    def files(self) -> tuple[Path, ...]:
        """Every file that pixels may come from."""
        ...

    def crops(self, draw: Draw, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Endless crops [C, s, s], or series [T, C, s, s], without nodata; only `rng` and `draw` decide which."""
        ...

    def share(self, other: Any) -> None:
        """Take what threads may have in common from `other`, the same source in another thread."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Stacks:
    """Arrays [N, C, H, W], in memory or mapped from files; zero in any band is nodata."""

    names: list[str]
    arrays: list[np.ndarray]
    chances: np.ndarray
    size: int
    offset: int
    paths: tuple[Path, ...]
    facts: dict[str, Any]

    def files(self) -> tuple[Path, ...]:
        return self.paths

    def crops(self, draw: Draw, rng: np.random.Generator) -> Iterator[np.ndarray]:
        while True:
            yield without_nodata(lambda: self._crop(rng), lambda c: bool(c.all()), self.offset)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        stack = self.arrays[rng.choice(len(self.arrays), p=self.chances)]
        n, _, h, w = stack.shape
        i, j = rng.integers(h - self.size + 1), rng.integers(w - self.size + 1)
        return stack[rng.integers(n), :, i : i + self.size, j : j + self.size]

    def share(self, other: Any) -> None:
        """Maps are in common as it is."""

    def close(self) -> None:
        """Nothing is held open but the maps, which go with the arrays."""


def without_nodata(crop: Any, is_valid: Any, offset: int) -> np.ndarray:
    for _ in range(_TRIES):
        found = crop()
        if is_valid(found):
            return found if offset == 0 else found.astype(np.int32) - offset
    raise InputError(
        f"no crop without nodata in {_TRIES} tries: expected mostly valid pixels, got mostly nodata"
    )


def seen_anywhere(crop: np.ndarray) -> bool:
    """[..., C, s, s]: nodata is zero in every band (one dark band alone is a measurement)."""
    return bool(crop.any(axis=-3).all())


def open_stacks(source: DataSource, bands: int, least: int = 1) -> Stacks:
    """Every [N >= least, bands, H, W] array of an .npz, a folder of them, or packs; `facts` lists those left out."""
    named, paths = named_arrays(located(source.path))
    chosen = [(name, a) for name, a in named if is_chosen(name, source)]
    fit = [(name, a) for name, a in chosen if _fits(a, bands, source.crop, least)]
    if not fit:
        raise InputError(
            f"{source.path}: expected arrays [N, {bands}, H, W] of at least {source.crop} x {source.crop} "
            f"pixels, got {len(chosen)} others; check path, only, skip and crop"
        )
    left_out = sorted({name for name, _ in chosen} - {name for name, _ in fit})
    arrays = [a for _, a in fit]
    chances = _chances([a.shape[0] * a.shape[2] * a.shape[3] for a in arrays])
    facts = {
        "kind": "npz",
        "files": sorted({name.partition(":")[0] for name, _ in fit}),
        "arrays": len(arrays),
    }
    facts |= {"pixels": _total(arrays), "left_out": left_out}
    return Stacks([name for name, _ in fit], arrays, chances, source.crop, source.offset or 0, paths, facts)


def _fits(a: np.ndarray, bands: int, crop: int, least: int) -> bool:
    return a.ndim == 4 and a.shape[0] >= least and a.shape[1] == bands and min(a.shape[2:]) >= crop


def _total(arrays: Sequence[np.ndarray]) -> int:
    return sum(a.shape[0] * a.shape[2] * a.shape[3] for a in arrays)


def _chances(pixels: Sequence[int]) -> np.ndarray:
    chance = np.array(pixels, float) ** SPREAD
    return chance / chance.sum()


def named_arrays(path: Path) -> tuple[list[tuple[str, np.ndarray]], tuple[Path, ...]]:
    """(file:array, array) of every array of an .npz, a folder of them, or packs; and the files."""
    if is_pack(path):
        return packed_arrays(path)
    paths = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path}: expected .npz files, or index.json with .zip files; got neither")
    return [(f"{p.stem}:{name}", a) for p in paths for name, a in stored_arrays(p).items()], tuple(paths)


def is_chosen(name: str, source: DataSource) -> bool:
    """name: of a file, or file:array; a pattern without a colon is for files."""
    taken = not source.only or any(_fits_pattern(name, pattern) for pattern in source.only)
    return taken and not any(_fits_pattern(name, pattern) for pattern in source.skip)


def _fits_pattern(name: str, pattern: str) -> bool:
    return fnmatchcase(name if ":" in pattern else name.partition(":")[0], pattern)


class Scenes:
    """GeoTIFFs, each a scene by itself; random windows are read, never a whole file.

    Nothing else of training needs rasterio, which `eozip.raster` imports when it is first used.
    """

    def __init__(self, source: DataSource, band_names: Sequence[str]) -> None:
        self.size = source.crop
        self.paths = tuple(p for p in _geotiffs(located(source.path)) if is_chosen(p.stem, source))
        if not self.paths:
            raise InputError(
                f"{source.path}: no GeoTIFF left; expected .tif files that only and skip let through"
            )
        self._scenes = [raster.open_scene(p, band_names, source.offset) for p in self.paths]
        self._check_sizes(self._scenes)
        self._readers: OrderedDict[int, Any] = OrderedDict()
        pixels = [scene.profile.height * scene.profile.width for scene in self._scenes]
        self.chances = _chances(pixels)
        self.facts = {"kind": "geotiff", "files": [p.name for p in self.paths], "pixels": sum(pixels)}

    def _check_sizes(self, scenes: Sequence[Any]) -> None:
        for path, scene in zip(self.paths, scenes, strict=True):
            height, width = scene.profile.height, scene.profile.width
            if min(height, width) < self.size:
                raise InputError(
                    f"{path}: expected at least {self.size} x {self.size} pixels (crop), got {height} x "
                    f"{width}; put it into skip or take smaller crops"
                )

    def files(self) -> tuple[Path, ...]:
        return self.paths

    def crops(self, draw: Draw, rng: np.random.Generator) -> Iterator[np.ndarray]:
        while True:
            k = int(rng.choice(len(self._scenes), p=self.chances))
            offset = int(self._scenes[k].offset)
            yield without_nodata(lambda k=k: self._window(k, rng), seen_anywhere, offset)

    def _window(self, k: int, rng: np.random.Generator) -> np.ndarray:
        profile = self._scenes[k].profile
        i = int(rng.integers(profile.height - self.size + 1))
        j = int(rng.integers(profile.width - self.size + 1))
        return self._reader(k).read(slice(0, 1), slice(i, i + self.size), slice(j, j + self.size))[0]

    def _reader(self, k: int) -> Any:
        if k not in self._readers:
            while len(self._readers) >= _OPEN_SCENES:
                self._readers.popitem(last=False)[1].close()
            # not `open_reader`: its GDAL settings must end in the thread and order they began in
            self._readers[k] = raster.SceneReader(self._scenes[k])
        self._readers.move_to_end(k)
        return self._readers[k]

    def share(self, other: Any) -> None:
        """Nothing: readers belong to their thread."""

    def close(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()


def _geotiffs(path: Path) -> list[Path]:
    return (
        sorted(p for p in path.rglob("*") if p.suffix.lower() in (".tif", ".tiff"))
        if path.is_dir()
        else [path]
    )
