"""Windows of pixels out of a Scene."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from eozip.arguments import whole
from eozip.errors import InputError
from eozip.raster.header import open_dataset
from eozip.raster.scene import Scene, Source

# In bytes, as rasterio takes it. GDAL's own default is 5 % of the machine's memory, more than all the rest of
# a run; but a row of windows must fit, or a file stored by lines is unpacked again for every window.
CACHE_BYTES = 256 * 2**20
# Tiles of JPEG 2000 cost much to decode, and chunks of bands on several grids do not end where tiles do: a row of
# tiles of one date of a whole product must fit until the row of windows below it is read.
JPEG2000_CACHE_BYTES = 512 * 2**20
_ROWS = 256  # read at once when a masked scene is searched for values
_OPEN_FILES = 128  # common limits are 256 (macOS) and 1024 (Linux)


class SceneReader:
    """Open files of a scene, for many windows; `open_reader` makes and closes it. Use it from one thread.

    Attributes:
        scene: what is read.
        rounding: of a scene with a lattice, the largest distance of a value read so far from that lattice.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rounding = 0.0
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
        return np.stack([self._shifted(t, self._date(t, window)) for t in range(t0, t1)])

    def close(self) -> None:
        """Close every file."""
        with ExitStack() as stack:
            while self._datasets:
                stack.callback(self._datasets.popitem()[1].close)

    def _shifted(self, t: int, pixels: np.ndarray) -> np.ndarray:
        """One date brought to the scene's offset; nodata and other special DN stay."""
        if self.scene.shifts is None or not any(self.scene.shifts[t]):
            return pixels
        limits = np.iinfo(pixels.dtype)
        kept = [*self.scene.specials, self.scene.profile.nodata, self.scene.fill]
        is_kept = np.isin(pixels, [dn for dn in kept if dn is not None])
        moved = pixels.astype(np.int32) + np.array(self.scene.shifts[t], np.int32)[:, None, None]
        moved[is_kept] = pixels[is_kept]
        if moved.min() < limits.min or moved.max() > limits.max:
            raise InputError(
                f"{self.scene.paths[t]}: DN of {pixels[~is_kept].min()} to {pixels[~is_kept].max()} cannot be harmonised by "
                f"{self.scene.shifts[t]} DN within {pixels.dtype} (dark pixels that wrapped around when an offset was taken "
                "off?); encode without --harmonise"
            )
        return moved.astype(pixels.dtype)

    def _date(self, t: int, window: Window) -> np.ndarray:
        sources = self.scene.sources[t]
        parts = []
        for path, group in groupby(enumerate(sources), key=lambda one: one[1].path):
            bands = list(group)
            with _damage(path, window, self._what(t, [i for i, _ in bands])):
                parts.append(self._bands(path, [source for _, source in bands], window))
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.scene.lattice is None:
            return whole
        with _named(sources[0].path, window):
            dn, error = self.scene.lattice.dn(whole)
        self.rounding = max(self.rounding, error)
        return dn

    def _what(self, t: int, bands: Sequence[int]) -> str:
        """Date and bands, for messages."""
        date = self.scene.dates[t]
        names = ", ".join(str(self.scene.band_names[i]) for i in bands if self.scene.band_names[i])
        parts = [f"{date:%Y-%m-%d}" if date is not None else "", f"band {names}" if names else ""]
        return ", ".join(part for part in parts if part)

    def missing(self, t: int, y: slice, x: slice) -> np.ndarray:
        """Which pixels of one date the masks of its files hide: bool [C, h, w]."""
        sources = self.scene.sources[t]
        window = Window(x.start, y.start, x.stop - x.start, y.stop - y.start)
        parts = [
            self._hidden(path, list(group), window)
            for path, group in groupby(sources, key=lambda source: source.path)
        ]
        return np.concatenate(parts)

    def _bands(self, path: str, sources: list[Source], window: Window) -> np.ndarray[Any, Any]:
        pixels = self._dataset(path).read([source.index for source in sources], window=window)
        for i, source in enumerate(sources):
            self._show_under(pixels[i], source, window)
        if self.scene.fill is not None and any(source.mask for source in sources):
            fill = self.scene.fill if self.scene.lattice is None else math.nan
            pixels[self._hidden(path, sources, window)] = fill
        return pixels

    def _show_under(self, pixels: np.ndarray[Any, Any], source: Source, window: Window) -> None:
        """Where a file of a mosaic has nodata, the pixels of those below it."""
        lattice = self.scene.lattice
        known = self.scene.profile.nodata if lattice is None else lattice.nodata
        nodata = 0 if known is None else known
        for path, index in source.under:
            missing = np.isnan(pixels) if np.isnan(nodata) else pixels == nodata
            if not missing.any():
                return
            with _damage(path, window):
                pixels[missing] = self._dataset(path).read(index, window=window)[missing]

    def _hidden(self, path: str, sources: list[Source], window: Window) -> np.ndarray[Any, Any]:
        masks = {source.mask for source in sources}
        shape = len(sources), window.height, window.width
        if masks == {""}:
            return np.zeros(shape, bool)
        shared = sources[0] if masks == {"dataset"} else None
        with _damage(path, window):
            if shared is not None and shared.alpha is not None:
                hidden = self._dataset(path).read([shared.alpha], window=window) == 0
            else:
                indexes = [source.index for source in ([shared] if shared else sources)]
                hidden = self._dataset(path).read_masks(indexes, window=window) == 0
        return np.broadcast_to(hidden, shape)

    def _dataset(self, path: str) -> Any:
        if self.scene.planes is not None:
            return self.scene.planes[path]
        if path not in self._datasets:
            while len(self._datasets) >= _OPEN_FILES:
                self._datasets.pop(next(iter(self._datasets))).close()
            self._datasets[path] = open_dataset(path)
        return self._datasets[path]


@contextmanager
def _named(path: str, window: Window) -> Iterator[None]:
    """Errors of the block say in which file and where."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: rows {window.row_off}+{window.height}: {error}") from error


@contextmanager
def _damage(path: str, window: Window, what: str = "") -> Iterator[None]:
    """Errors of GDAL in the block say where the file is damaged."""
    try:
        yield
    except RasterioError as error:
        where = f"rows {window.row_off}+{window.height}, columns {window.col_off}+{window.width}"
        raise InputError(
            f"{path}: {what}{': ' if what else ''}cannot read {where} ({error.__cause__ or error}); the file is cut short "
            "or damaged: fetch it again"
        ) from error


def with_fill(scene: Scene, nodata: int | None = None) -> Scene:
    """Choose a DN for the pixels that a scene's masks hide; the scene stays as it is without masks, or if it has one.

    The value is `nodata`, else the files' nodata value, else one that no valid pixel has: for that, masked scenes are
    read once. Where bands have masks of their own, the profile gets the value as its nodata.

    Args:
        scene: what was opened.
        nodata: DN that a caller wants for missing pixels.

    Raises:
        InputError: the masks call pixels of that DN valid; or every DN occurs.
    """
    if not scene.is_masked or scene.fill is not None:
        return scene
    known = scene.profile.nodata if nodata is None else whole("nodata", nodata)
    if scene.dtype.kind == "f":
        return replace(scene, fill=math.nan if known is None else known)
    fill = _unused(scene) if known is None else int(known)
    if known is not None and known != scene.profile.nodata:
        _check_unused(scene, fill)
    together = all(source.mask in ("", "dataset") for date in scene.sources for source in date)
    kept = scene.profile.nodata if together and any(scene.masks) else fill
    return replace(scene, fill=fill, profile=replace(scene.profile, nodata=kept))


def _unused(scene: Scene) -> int:
    """A DN for missing pixels: 0 if no valid pixel has it, else the largest that none has."""
    used = _values_in_use(scene)
    limits = np.iinfo(scene.dtype)
    free = [limits.min + int(i) for i in np.flatnonzero(~used)]
    if not free:
        raise InputError(
            f"{scene.paths[0]}: every DN occurs among valid pixels; name one that means missing: --nodata"
        )
    return 0 if 0 in free else free[-1] if limits.min == 0 else free[0]


def _check_unused(scene: Scene, fill: int) -> None:
    limits = np.iinfo(scene.dtype)
    if not limits.min <= fill <= limits.max:
        raise InputError(f"nodata: expected a value of {scene.dtype}, got {fill}")
    if _values_in_use(scene, is_masked_only=True)[fill - limits.min]:
        raise InputError(
            f"{scene.paths[0]}: nodata {fill} would stand for what the mask hides, but the mask calls pixels of that DN "
            "valid; give another --nodata (nodata=), or none to have one chosen"
        )


def _values_in_use(scene: Scene, is_masked_only: bool = False) -> np.ndarray:
    """Which values valid pixels have: bool, from the dtype's least value on."""
    if scene.dtype.kind not in "iu" or scene.dtype.itemsize > 2:
        raise InputError(
            f"{scene.paths[0]}: a mask of pixels of {scene.dtype} cannot be kept; expected uint16 or int16 DN, or a "
            "nodata value"
        )
    limits = np.iinfo(scene.dtype)
    used = np.zeros(limits.max - limits.min + 1, bool)
    height, width = scene.shape[2:]
    with _opened(scene) as reader:
        for t, date in enumerate(scene.sources):
            if is_masked_only and not any(source.mask for source in date):
                continue
            for y in range(0, height, _ROWS):
                rows, columns = slice(y, min(y + _ROWS, height)), slice(0, width)
                pixels = reader.read(slice(t, t + 1), rows, columns)[0]
                used[pixels[~reader.missing(t, rows, columns)].astype(np.int64) - limits.min] = True
    return used


@contextmanager
def open_reader(scene: Scene) -> Iterator[SceneReader]:
    """Open a scene for reading; its files are closed at the end, and GDAL's block cache is bounded meanwhile.

    What masks hide is read as `Scene.fill`; as `with_fill` chooses it where nobody did.
    """
    with _opened(with_fill(scene)) as reader:
        yield reader


@contextmanager
def _opened(scene: Scene) -> Iterator[SceneReader]:
    reader = SceneReader(scene)
    is_costly = any(source.path.lower().endswith(".jp2") for date in scene.sources for source in date)
    with rasterio.Env(GDAL_CACHEMAX=JPEG2000_CACHE_BYTES if is_costly else CACHE_BYTES):
        try:
            yield reader
        finally:
            reader.close()


def read_window(scene: Scene, t: slice, y: slice, x: slice) -> np.ndarray:
    """Read one window; opens and closes the files (`open_reader` keeps them open).

    Args:
        scene: what is read.
        t: dates.
        y: rows.
        x: columns.

    Returns:
        [t, C, h, w] in the scene's dtype.
    """
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
