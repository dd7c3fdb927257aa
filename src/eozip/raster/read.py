"""Windows of pixels out of a Scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from eozip.errors import InputError
from eozip.raster.open import open_dataset
from eozip.raster.scene import Scene, Source

# In bytes, as rasterio takes it. GDAL's own default is 5 % of the machine's memory, more than all the rest of
# a run; but a row of windows must fit, or a file stored by lines is unpacked again for every window.
CACHE_BYTES = 256 * 2**20
_OPEN_FILES = 128  # common limits are 256 (macOS) and 1024 (Linux)


class SceneReader:
    """Open files of a scene, for many windows; `open_reader` makes and closes it. Use it from one thread."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._datasets: dict[str, rasterio.DatasetReader] = {}

    def read(self, t: slice, y: slice, x: slice) -> np.ndarray:
        """Pixels of a window.

        Args:
            t: dates, y: rows, x: columns; start and stop, no step; None means from the first or to the last.

        Returns:
            [T, C, h, w] in the scene's dtype.

        Raises:
            InputError: the window is empty or reaches outside the scene, or the file is damaged there.
        """
        times, _, height, width = self.scene.shape
        t0, t1 = _bounds(t, times, "dates")
        y0, y1 = _bounds(y, height, "rows")
        x0, x1 = _bounds(x, width, "columns")
        window = Window(x0, y0, x1 - x0, y1 - y0)
        return np.stack([self._date(sources, window) for sources in self.scene.sources[t0:t1]])

    def close(self) -> None:
        """Close every file."""
        with ExitStack() as stack:
            while self._datasets:
                stack.callback(self._datasets.popitem()[1].close)

    def _date(self, sources: tuple[Source, ...], window: Window) -> np.ndarray:
        parts = [
            self._bands(path, [source.index for source in group], window)
            for path, group in groupby(sources, key=lambda source: source.path)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _bands(self, path: str, indexes: list[int], window: Window) -> np.ndarray[Any, Any]:
        try:
            return self._dataset(path).read(indexes, window=window)
        except RasterioError as error:
            where = f"rows {window.row_off}+{window.height}, columns {window.col_off}+{window.width}"
            raise InputError(
                f"{path}: cannot read {where} ({error.__cause__ or error}); the file is cut short or "
                "damaged: fetch it again"
            ) from error

    def _dataset(self, path: str) -> rasterio.DatasetReader:
        if path not in self._datasets:
            while len(self._datasets) >= _OPEN_FILES:
                self._datasets.pop(next(iter(self._datasets))).close()
            self._datasets[path] = open_dataset(path)
        return self._datasets[path]


@contextmanager
def open_reader(scene: Scene) -> Iterator[SceneReader]:
    """A reader whose files are closed at the end; GDAL's block cache is bounded meanwhile."""
    reader = SceneReader(scene)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        try:
            yield reader
        finally:
            reader.close()


def read_window(scene: Scene, t: slice, y: slice, x: slice) -> np.ndarray:
    """One window [T, C, h, w]; opens and closes the files (`open_reader` keeps them open)."""
    with open_reader(scene) as reader:
        return reader.read(t, y, x)


def _bounds(part: slice, size: int, what: str) -> tuple[int, int]:
    start = 0 if part.start is None else int(part.start)
    stop = size if part.stop is None else int(part.stop)
    if part.step not in (None, 1) or not 0 <= start < stop <= size:
        raise InputError(
            f"window {what} {start}:{stop}:{part.step}: expected 0 <= start < stop <= {size}, step 1"
        )
    return start, stop
