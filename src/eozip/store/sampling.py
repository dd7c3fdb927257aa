"""A few chunks of a scene, spread over it, from which the size of the whole is told with an interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio import windows
from rasterio.errors import RasterioError

from eozip.errors import InputError
from eozip.purpose import Classifier, Pixels, fit_classes, reflectances, valid_pixels
from eozip.purpose.classes import MAX_SAMPLES
from eozip.raster import Profile
from eozip.store.coding import PixelReader
from eozip.store.grid import Grid, Window

_SEED = 20
_CLASS_CHUNKS = 16
_DRAWS = 2000
_SHARE = (5, 95)  # percentiles of the interval


@dataclass(frozen=True, eq=False)
class Sample:
    """One chunk of a scene.

    Attributes:
        window: its place.
        dn: [T, C, h, w], bands in the order of the store.
    """

    window: Window
    dn: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """Bytes of a whole, told from a part.

    Attributes:
        value: the best guess.
        low: 5 of 100 resamplings of the chunks lie below.
        high: 5 of 100 lie above.
    """

    value: float
    low: float
    high: float


def sampled(reader: PixelReader, grid: Grid, count: int, nodata: int | None) -> Iterator[Sample]:
    """Chunks with data, spread evenly over places and dates; all of them where there are not more.

    Args:
        reader: the pixels.
        grid: of the store.
        count: how many at most.
        nodata: DN without data, or None.
    """
    windows = [w for shard in grid.shards() for strip in grid.strips(shard) for w in strip]
    order = np.random.default_rng(_SEED).permutation(len(windows))
    chosen = order if len(windows) <= count else _spread(len(windows), count)
    rest = [i for i in order if i not in set(chosen)]
    found = 0
    for i in [*chosen, *rest]:
        if found == count:
            return
        window = windows[i]
        dn = reader.read(slice(*window.times), slice(*window.rows), slice(*window.columns))
        if not np.all(dn == (nodata or 0)):
            found += 1
            yield Sample(window, np.ascontiguousarray(dn))


def _spread(total: int, count: int) -> np.ndarray:
    """Positions one in each of so many equal parts, by chance within it."""
    edges = np.linspace(0, total, count + 1)
    inside = np.random.default_rng(_SEED).random(count)
    return np.minimum(total - 1, edges[:-1] + inside * np.diff(edges)).astype(int)


def whole_bytes(sizes: Sequence[float], pixels: Sequence[int], total: int) -> Estimate:
    """Bytes of all chunks from those of some, in proportion to their pixels, with a bootstrap over the chunks.

    Args:
        sizes: bytes of each sampled chunk.
        pixels: of each.
        total: of all.
    """
    size, area = np.asarray(sizes, float), np.asarray(pixels, float)
    value = float(size.sum() / area.sum() * total)
    if area.sum() >= total:
        return Estimate(value, value, value)
    draws = np.random.default_rng(_SEED).integers(0, len(size), (_DRAWS, len(size)))
    spread = size[draws].sum(axis=1) / area[draws].sum(axis=1) * total
    low, high = np.percentile(spread, _SHARE)
    return Estimate(value, float(low), float(high))


def pixels_in(grid: Grid) -> int:
    """Pixels of all chunks, all dates."""
    t, _, h, w = grid.shape
    return t * h * w


def learned_classes(
    path: str | Path, profile: Profile, reader: PixelReader, grid: Grid, pixels: Pixels
) -> Classifier:
    """A classifier fitted to original pixels of a few chunks, under a raster of classes.

    Args:
        path: one band of whole numbers on the scene's grid; its nodata is no class.
        profile: of the scene on its finest grid.
        reader: its pixels.
        grid: its chunks.
        pixels: what they are.

    Raises:
        InputError: no such raster, another grid, or fewer than two classes.
    """
    spectra, labels = [], []
    try:
        with rasterio.open(path) as raster:
            _check_raster(raster, path, profile)
            for sample in sampled(reader, grid, _CLASS_CHUNKS, pixels.nodata):
                rows, columns = sample.window.rows, sample.window.columns
                found = raster.read(1, window=windows.Window.from_slices(rows, columns), masked=True)
                valid = valid_pixels(sample.dn, pixels) & ~np.ma.getmaskarray(found)[None]
                spectra.append(reflectances(sample.dn, valid, pixels))
                labels.append(np.broadcast_to(found.data, valid.shape)[valid])
    except RasterioError as error:
        raise InputError(f"classes: expected a raster, got {path}: {error}") from error
    joint, names = np.concatenate(spectra, axis=1), np.concatenate(labels)
    step = max(1, -(-joint.shape[1] // MAX_SAMPLES))
    return fit_classes(joint[:, ::step], names[::step])


def _check_raster(raster: rasterio.DatasetReader, path: str | Path, profile: Profile) -> None:
    size = (profile.height, profile.width)
    if raster.count != 1 or np.dtype(raster.dtypes[0]).kind not in "iu" or raster.shape != size:
        raise InputError(
            f"classes: expected one band of whole numbers with {size[0]} x {size[1]} pixels, as the scene has them, got "
            f"{raster.count} of {raster.dtypes[0]} with {raster.shape[0]} x {raster.shape[1]}: {path}"
        )
    if profile.transform is not None and not np.allclose(
        raster.transform[:6], profile.transform, rtol=0, atol=1e-3
    ):
        raise InputError(
            f"classes: expected a raster on the scene's grid, got one elsewhere: {path}; warp it onto the scene"
        )
