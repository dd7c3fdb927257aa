"""Shards of SSL4EO-S12 v1.1: Zarr (version 2) in .zarr.zip, 64 places a file, four seasons each.

    bands  int16 [sample, time, band, y, x] = [64, 4, 12, 264, 264]; seasons are chunked separately

Layout: README of DLR-MF-DAS/SSL4EO-S12-v1.1 and arXiv 2503.00168. A chunk may hold a season of all 64 places
(107 MB), so that reading one crop costs as much as reading 64: a shard and season serve several steps. An example is
a crop of one season, or (kind "ssl4eo-series") of several seasons of one place in their order: then a step reads as
many chunks as it has dates, the same for all its examples, and the next steps go on with them.
The first release had the +1000 offset in its S2L2A values (its README gave means 1000 higher): set `offset`.
"""

from __future__ import annotations

import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from eozip.errors import InputError
from eozip_lab.train.data import Draw, seen_anywhere, without_nodata
from eozip_lab.train.recipe import DataSource

CACHE_BYTES = 512 << 20
_OPEN_SHARDS = 8

_Key = tuple[Path, int, int]  # shard, season, first sample


class _Blocks:
    """Chunks as read, in common to the threads of a feed: a chunk is unpacked once, and who comes meanwhile waits.

    Attributes:
        limit: bytes to keep; half a GiB for every thread.
    """

    def __init__(self) -> None:
        self.limit = CACHE_BYTES
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Future[np.ndarray]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Of the chunks that are kept."""
        return sum(f.result().nbytes for f in list(self._kept.values()) if f.done() and not f.cancelled())

    def get(self, key: _Key, read: Callable[[], np.ndarray]) -> np.ndarray:
        """A chunk, kept or read."""
        with self._lock:
            is_first = key not in self._kept
            future = self._kept.setdefault(key, Future())
            self._kept.move_to_end(key)
        if is_first:
            self._fill(key, future, read)
        try:
            return future.result()
        except CancelledError:  # reading failed in another thread: here it says why
            return self.get(key, read)

    def _fill(self, key: _Key, future: Future[np.ndarray], read: Callable[[], np.ndarray]) -> None:
        try:
            future.set_result(read())
        finally:
            with self._lock:
                if not future.done():
                    self._kept.pop(key)
                    future.cancel()
                there = [k for k, f in self._kept.items() if f.done()]  # others are being read and waited for
                while len(there) > 1 and self.nbytes > self.limit:
                    self._kept.pop(there.pop(0))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()


class Shards:
    """A source of crops from shards; at most eight are open and half a GiB of chunks is kept (four seasons) for a thread."""

    def __init__(self, paths: Sequence[Path], source: DataSource, band_names: Sequence[str]) -> None:
        if not paths:
            raise InputError(
                f"{source.path}: no shard left; expected *.zarr.zip that only and skip let through"
            )
        self.paths, self.bands = tuple(paths), tuple(band_names)
        self.size, self.offset, self.reuse = source.crop, source.offset or 0, source.steps_per_shard
        self.dates = source.dates if source.kind == "ssl4eo-series" else None  # None: single images
        self._open: OrderedDict[Path, tuple[Any, Any]] = OrderedDict()
        self._blocks = _Blocks()
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
        first = sample // rows * rows
        block = self._blocks.get((path, t, first), lambda: np.asarray(array[first : first + rows, t]))
        return block[sample - first]

    def _array(self, path: Path) -> Any:
        if path not in self._open:
            while len(self._open) >= _OPEN_SHARDS:
                self._open.popitem(last=False)[1][0].close()
            self._open[path] = opened(path, self.size, self.bands, self.dates or 1)
        self._open.move_to_end(path)
        return self._open[path][1]

    def share(self, other: Shards) -> None:
        """Chunks in common with the same source in another thread."""
        self._blocks = other._blocks
        self._blocks.limit += CACHE_BYTES

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
