"""Shards of SSL4EO-S12 v1.1: Zarr (version 2) in .zarr.zip, 64 places a file, four seasons each.

    bands  int16 [sample, time, band, y, x] = [64, 4, 12, 264, 264]; seasons are chunked separately

Layout: README of DLR-MF-DAS/SSL4EO-S12-v1.1 and arXiv 2503.00168. A chunk may hold a season of all 64 places
(107 MB), so that reading one crop costs as much as reading 64: a shard and season serve several steps. An example is
a crop of one season, or (kind "ssl4eo-series") of several seasons of one place in their order: then a step reads as
many chunks as it has dates, the same for all its examples, and the next steps go on with them.
The first release had the +1000 offset in its S2L2A values (its README gave means 1000 higher): set `offset`.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from eozip.errors import InputError
from eozip.train.data import Draw, seen_anywhere, without_nodata
from eozip.train.recipe import DataSource

CACHE_BYTES = 512 << 20
OPEN_SHARDS = 8


class Shards:
    """A source of crops from shards; at most eight are open and half a GiB of chunks is kept: four seasons."""

    def __init__(self, paths: Sequence[Path], source: DataSource, band_names: Sequence[str]) -> None:
        if not paths:
            raise InputError(
                f"{source.path}: no shard left; expected *.zarr.zip that only and skip let through"
            )
        self.paths, self.bands = tuple(paths), tuple(band_names)
        self.size, self.offset, self.reuse = source.crop, source.offset or 0, source.steps_per_shard
        self.dates = source.dates if source.kind == "ssl4eo-series" else None  # None: single images
        self._open: OrderedDict[Path, tuple[Any, Any]] = OrderedDict()
        self._blocks: OrderedDict[tuple[Path, int, int], np.ndarray] = OrderedDict()
        self._array(self.paths[0])  # a wrong folder fails before training starts
        self.facts = {"kind": source.kind, "files": [p.name for p in paths], "offset": self.offset}
        self.facts |= {} if self.dates is None else {"dates": self.dates}

    @staticmethod
    def list(path: Path) -> Sequence[Path]:
        """Shards of a folder (at any depth), sorted, or the file itself."""
        return sorted(path.rglob("*.zarr.zip")) if path.is_dir() else (path,)

    def files(self) -> tuple[Path, ...]:
        return self.paths

    def crops(self, draw: Draw, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """[C, s, s], or series [T, C, s, s]."""
        turn = Draw(draw.seed, draw.step // self.reuse).rng(1)
        path = self.paths[turn.integers(len(self.paths))]
        seasons = self._seasons(self._array(path).shape[1], turn)
        while True:
            found = without_nodata(lambda: self._crop(path, seasons, rng), seen_anywhere, self.offset)
            yield found[0] if self.dates is None else found

    def _seasons(self, count: int, turn: np.random.Generator) -> np.ndarray:
        """Rising indices of those that the steps of a turn draw from."""
        if self.dates is None:
            return turn.integers(count, size=1)
        return np.sort(turn.choice(count, self.dates, replace=False))

    def _crop(self, path: Path, seasons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        samples, _, _, height, width = self._array(path).shape
        sample = int(rng.integers(samples))
        i, j = (int(rng.integers(n - self.size + 1)) for n in (height, width))
        window = (slice(None), slice(i, i + self.size), slice(j, j + self.size))
        return np.stack([self._sample(path, int(t), sample)[window] for t in seasons])

    def _sample(self, path: Path, t: int, sample: int) -> np.ndarray:
        array = self._array(path)
        rows = array.chunks[0]
        key = (path, t, sample // rows)
        if key not in self._blocks:
            first = key[2] * rows
            self._blocks[key] = np.asarray(array[first : first + rows, t])
            while len(self._blocks) > 1 and sum(b.nbytes for b in self._blocks.values()) > CACHE_BYTES:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key][sample % rows]

    def _array(self, path: Path) -> Any:
        if path not in self._open:
            while len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1][0].close()
            self._open[path] = opened(path, self.size, self.bands, self.dates or 1)
        self._open.move_to_end(path)
        return self._open[path][1]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1][0].close()
        self._blocks.clear()


def opened(path: Path, size: int, band_names: Sequence[str], least: int = 1) -> tuple[Any, Any]:
    """Store and `bands` array of one shard, its layout checked.

    Raises:
        InputError: not a shard, one of another layout, or with fewer than `least` dates.
    """
    try:
        store = zarr.storage.ZipStore(path, mode="r")
        group = zarr.open_group(store, mode="r")
        array = group["bands"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected an SSL4EO-S12 v1.1 shard with an array `bands`, got {error}"
        ) from error
    fits = array.ndim == 5 and array.shape[2] == len(band_names) and min(array.shape[3:]) >= size
    if not fits or array.dtype.kind not in "iu":
        raise InputError(
            f"{path}: expected integer bands [sample, time, {len(band_names)}, y, x] of at least {size} x "
            f"{size} pixels, got {array.dtype} {array.shape}; take the S2L2A shards"
        )
    if array.shape[1] < least:
        raise InputError(
            f"{path}: expected at least {least} dates (dates of the recipe), got {array.shape[1]}"
        )
    names = [str(name) for name in group["band"][:]] if "band" in group else list(band_names)
    if names != list(band_names):
        raise InputError(f"{path}: expected bands {' '.join(band_names)}, got {' '.join(names)}")
    return store, array
