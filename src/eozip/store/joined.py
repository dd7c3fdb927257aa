"""Products of several grids as one scene on the finest of them, whose coarse bands are repeated samples; and the rasters
beside the bands: ordinary arrays of a store, compressed without loss by a general codec, one chunk per date.

Those lie in a group named after their grid, such as `r20m/scl`. Axes there have names of their own (`y_r20m`): those of the
store's root belong to the joint cube.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from eozip.errors import InputError
from eozip.raster import Profile, Scene, SceneReader, open_reader, with_fill
from eozip.raster.open import same_field
from eozip.raster.product import Acquisition, Layer, Product
from eozip.store.documents import LayerRecord
from eozip.store.files import Container
from eozip.store.geozarr import coarser
from eozip.store.grid import Grid, NativeGrid, repeated

_MUST_EQUAL = ("dtype", "nodata", "crs")
_PER_BAND = ("band_names", "scales", "offsets", "units", "colorinterp")
_LARGEST_RESOLUTION = 65535


@dataclass(frozen=True)
class Joined:
    """A product as one scene.

    Attributes:
        product: what it is, missing pixels filled.
        scene: its bands on the finest grid, those of the finest first; its sources cannot be read as they are.
        factors: of each of the product's scenes, pixels of the finest grid along one of its cells.
    """

    product: Product
    scene: Scene
    factors: tuple[int, ...]

    @property
    def is_one_grid(self) -> bool:
        """Whether all bands lie on one grid, so that `scene` is an ordinary one."""
        return len(self.factors) == 1

    @property
    def is_plain(self) -> bool:
        """Whether it is no more than the pixels of one scene, beside which a store has nothing to record."""
        scene, dates = self.scene, self.product.acquisitions
        has_facts = any(one.product or one.level or one.baseline or one.specials for one in dates)
        is_uniform = scene.offsets is None or len(set(sum(scene.offsets, ()))) == 1
        is_stacked = all(len({source.path for source in date}) == 1 for date in scene.sources)
        return self.is_one_grid and scene.lattice is None and is_uniform and is_stacked and not has_facts

    @property
    def band_factors(self) -> tuple[int, ...]:
        """[C] of each band of `scene`, pixels along one of its cells."""
        pairs = zip(self.factors, self.product.scenes, strict=True)
        return sum(((factor,) * scene.shape[1] for factor, scene in pairs), ())

    def grids(self, order: Sequence[int]) -> tuple[NativeGrid, ...]:
        """The grids of an array whose bands are those of `scene` in another order; none where all lie on one.

        Args:
            order: positions in `scene` of the bands of the array.
        """
        if self.is_one_grid:
            return ()
        counts = [scene.shape[1] for scene in self.product.scenes]
        ends = list(accumulate(counts))
        sizes = _resolutions(self.scene.profile, self.factors)
        return tuple(
            NativeGrid(size, tuple(i for i, band in enumerate(order) if end - count <= band < end))
            for size, count, end in zip(sizes, counts, ends, strict=True)
        )


def joined(source: Product | Scene, nodata: int | None = None) -> Joined:
    """A product, or a scene alone, as one scene; masks of its files are looked at.

    Args:
        source: scenes that lie on each other.
        nodata: DN that a caller wants for missing pixels.

    Raises:
        InputError: grids that do not fit each other, or that differ in what one array shares.
    """
    product = as_product(source)
    scenes = [with_fill(product.scenes[0], nodata)]
    chosen, fill = nodata, scenes[0].fill
    if nodata is None and fill is not None and scenes[0].dtype.kind != "f":
        chosen = int(fill)
    scenes += [with_fill(scene, chosen) for scene in product.scenes[1:]]
    factors = scene_factors(scenes)
    if sorted(set(factors)) != list(factors):
        raise InputError(
            f"{scenes[0].paths[0]}: expected scenes of rising cell sizes, got factors {list(factors)}"
        )
    product = replace(product, scenes=tuple(scenes))
    return Joined(product, scenes[0] if len(scenes) == 1 else _one_scene(scenes), factors)


def as_product(source: Scene | Product) -> Product:
    """A scene as a product of one grid."""
    if isinstance(source, Product):
        return source
    return Product((source,), tuple(Acquisition(date) for date in source.dates))


def scene_factors(scenes: Sequence[Scene]) -> tuple[int, ...]:
    """Of each scene of a product, pixels of the finest grid along one of its cells.

    Raises:
        InputError: scenes that do not lie on each other.
    """
    return tuple(_factor(scenes[0], scene) for scene in scenes)


def _factor(finest: Scene, scene: Scene) -> int:
    """Pixels of the finest grid along a cell of a scene's, which must begin at the same corner and cover it."""
    height, width = finest.shape[2:]
    factor = _cell_ratio(finest.profile, scene.profile)
    expected = -(-height // factor), -(-width // factor)
    problems = [
        f"{name}: expected {getattr(finest.profile, name)}, got {getattr(scene.profile, name)}"
        for name in _MUST_EQUAL
        if not same_field(name, getattr(finest.profile, name), getattr(scene.profile, name))
    ]
    if scene.shape[2:] != expected:
        problems.append(f"size: expected {expected} cells at factor {factor}, got {scene.shape[2:]}")
    own = finest.profile.transform
    expected_transform = None if own is None else coarser(own, factor)
    if not same_field("transform", expected_transform, scene.profile.transform):
        problems.append(f"transform: expected {expected_transform}, got {scene.profile.transform}")
    if scene.dates != finest.dates or scene.lattice != finest.lattice:
        problems.append("dates or value lattice: expected those of the finest grid")
    if problems:
        raise InputError(
            f"{scene.paths[0]}: its grid does not fit that of {finest.paths[0]}: {'; '.join(problems)}; bring the bands "
            "onto aligned grids, or leave some out with --bands (bands=)"
        )
    return factor


def _cell_ratio(finest: Profile, coarse: Profile) -> int:
    if finest.transform is None or coarse.transform is None:
        return max(1, round(finest.height / coarse.height))
    return max(1, round(coarse.transform[0] / finest.transform[0]))


def _resolutions(profile: Profile, factors: Sequence[int]) -> tuple[int, ...]:
    """Metres of a cell of each grid where they are whole, else its factor."""
    metres = whole_metres(profile)
    sizes = tuple(f * (metres or 1) for f in factors)
    return sizes if sizes[-1] <= _LARGEST_RESOLUTION else tuple(factors)


def whole_metres(profile: Profile) -> int | None:
    """The side of a pixel in whole metres; None where it has none, or the CRS is one of degrees or unknown."""
    crs = (profile.crs or "").upper()
    if profile.transform is None or not crs.startswith(("PROJCS", "PROJCRS")):
        return None
    side = abs(profile.transform[0])
    return round(side) if side >= 1 and abs(side - round(side)) < 1e-6 * side else None


def _one_scene(scenes: Sequence[Scene]) -> Scene:
    """Bands of all scenes, on the grid of the first."""
    finest = scenes[0]
    per_band: dict[str, Any] = {
        name: sum((getattr(s.profile, name) for s in scenes), ()) for name in _PER_BAND
    }
    fills = {scene.fill for scene in scenes}
    return replace(
        finest,
        sources=tuple(sum(bands, ()) for bands in zip(*(scene.sources for scene in scenes), strict=True)),
        profile=replace(finest.profile, **per_band),
        band_tags=sum((scene.band_tags for scene in scenes), ()),
        codes=sum((scene.band_codes for scene in scenes), ()),
        offsets=tuple(sum(of, ()) for of in zip(*(s.band_offsets for s in scenes), strict=True)),
        fill=next((fill for fill in fills if fill is not None), None),
        shifts=None,
    )


def scene_dates(scene: Scene, part: slice) -> Scene:
    """Some dates of a scene."""
    return replace(
        scene,
        sources=scene.sources[part],
        dates=scene.dates[part],
        tags=scene.tags[part],
        notes=(),
        offsets=None if scene.offsets is None else scene.offsets[part],
        shifts=None if scene.shifts is None else scene.shifts[part],
    )


def dates_of(found: Joined, part: slice) -> Joined:
    """Some dates of a product, without what lies beside its bands."""
    product = replace(
        found.product,
        scenes=tuple(scene_dates(scene, part) for scene in found.product.scenes),
        acquisitions=found.product.acquisitions[part],
        beside=(),
        notes=(),
    )
    return Joined(product, scene_dates(found.scene, part), found.factors)


class JoinedReader:
    """Windows of a joined scene, bands in its order; `open_joined` makes and closes it."""

    def __init__(self, readers: Sequence[SceneReader], factors: Sequence[int], order: Sequence[int]) -> None:
        self._readers, self._factors, self._order = readers, factors, list(order)

    @property
    def rounding(self) -> float:
        """As of a `SceneReader`, of all grids."""
        return max(reader.rounding for reader in self._readers)

    def read(self, t: slice, y: slice, x: slice) -> np.ndarray:
        """[T, C, h, w] of a window of the finest grid; samples of coarser grids are repeated."""
        parts = [
            _window(reader, factor, (t, y, x))
            for reader, factor in zip(self._readers, self._factors, strict=True)
        ]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return whole if self._order == list(range(whole.shape[1])) else whole[:, self._order]


def _window(reader: SceneReader, factor: int, where: tuple[slice, slice, slice]) -> np.ndarray:
    t, *sides = where
    rows, columns = (slice(side.start // factor, -(-side.stop // factor)) for side in sides)
    cells = reader.read(t, rows, columns)
    if factor == 1:
        return cells
    (top, bottom), (left, right) = (
        (side.start - cut.start * factor, side.stop - cut.start * factor)
        for side, cut in zip(sides, (rows, columns), strict=True)
    )
    return repeated(cells, factor, (bottom, right))[..., top:, left:]


@contextmanager
def open_joined(found: Joined, order: Sequence[int] | None = None) -> Iterator[JoinedReader]:
    """A reader of a joined scene, its bands in another order."""
    positions: Sequence[int] = range(found.scene.shape[1]) if order is None else order
    scenes = found.product.scenes
    if found.is_one_grid:
        scenes, positions = (scenes[0].select(positions),), range(len(positions))
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(scene)) for scene in scenes]
        yield JoinedReader(readers, found.factors, positions)


_DTYPES = ("uint8", "int8", "uint16", "int16")
_LEVEL = 15  # of zstd: class rasters are small, and are written once


@dataclass(frozen=True)
class Placed:
    """A layer and where it lies.

    Attributes:
        layer: what it is.
        record: path and kind.
        chunk: rows and columns of a chunk.
    """

    layer: Layer
    record: LayerRecord
    chunk: tuple[int, int]

    @property
    def folder(self) -> str:
        """The group in which it lies."""
        return self.record.path.split("/")[0]

    @property
    def profile(self) -> Profile:
        """Of its raster."""
        return self.layer.scene.profile

    @property
    def fill(self) -> int:
        """Value of dates and chunks that are not stored."""
        return round(self.profile.nodata or 0)


def grid_name(profile: Profile, factor: int) -> str:
    """Group of a grid `factor` times coarser than that of a profile: "r20m", or "x2" where it has no whole metres."""
    metres = whole_metres(profile)
    return f"x{factor}" if metres is None else f"r{metres * factor}m"


def placed(layers: Sequence[Layer], scene: Scene, grid: Grid, alignment: int) -> tuple[Placed, ...]:
    """Where layers beside a scene lie.

    Args:
        layers: of one product.
        scene: the bands, on the finest grid.
        grid: chunks of the scene.
        alignment: pixels after which coarser grids begin again.

    Raises:
        InputError: two of one name, or values of a kind that no layer has.
    """
    found = tuple(_placed(layer, scene, grid, alignment) for layer in layers)
    paths = [one.record.path for one in found]
    if len(set(paths)) < len(paths):
        raise InputError(f"expected layers beside the bands with names of their own, got {', '.join(paths)}")
    return found


def _placed(layer: Layer, scene: Scene, grid: Grid, alignment: int) -> Placed:
    if layer.scene.dtype.name not in _DTYPES or layer.scene.shape[1] != 1:
        raise InputError(
            f"{layer.scene.paths[0]}: expected one band of {', '.join(_DTYPES)} as a layer beside the bands, got "
            f"{layer.scene.shape[1]} of {layer.scene.dtype}; leave it out"
        )
    factor = _layer_factor(scene, layer.scene)
    group = f"own_{layer.name}" if factor is None else grid_name(scene.profile, factor)
    height, width = layer.scene.shape[2:]
    rows, columns = (side // (factor or 1) for side in grid.shard[2:])
    is_aligned = factor is not None and alignment % factor == 0 and min(rows, columns) > 0
    chunk = (min(height, rows), min(width, columns)) if is_aligned else (height, width)
    return Placed(layer, LayerRecord(path=f"{group}/{layer.name}", kind=layer.kind, factor=factor), chunk)


def _layer_factor(scene: Scene, layer: Scene) -> int | None:
    """Pixels of the scene along a cell of a layer that begins at its corner; None where it is another grid."""
    here, there = scene.profile, layer.profile
    if here.transform is None or there.transform is None:
        factor = max(1, round(here.height / there.height))
    else:
        factor = max(1, round(there.transform[0] / here.transform[0]))
        if not same_field("transform", coarser(here.transform, factor), there.transform):
            return None
    if (there.height, there.width) != (-(-here.height // factor), -(-here.width // factor)):
        return None
    return factor if same_field("crs", here.crs, there.crs) else None


def create(root: zarr.Group, one: Placed, dates: int) -> zarr.Array[Any]:
    """The array of a layer, without values."""
    folder, name = one.record.path.split("/")
    dtype = one.layer.scene.dtype
    compressor = (
        ZstdCodec(level=_LEVEL)
        if dtype.itemsize == 1
        else BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle", typesize=dtype.itemsize)
    )
    height, width = one.layer.scene.shape[2:]
    return root.require_group(folder).create_array(
        name,
        shape=(dates, height, width),
        dtype=dtype.name,
        chunks=(1, *one.chunk),
        compressors=compressor,
        filters=None,
        fill_value=one.fill,
        dimension_names=("time", f"y_{folder}", f"x_{folder}"),
        attributes={**one.layer.attributes, "grid_mapping": "spatial_ref", "coordinates": "spatial_ref"},
    )


def put_values(container: Container, layers: Sequence[Placed], first: int = 0) -> int:
    """Write the values of layers, a row of chunks of one date at a time.

    Args:
        container: takes their chunks.
        layers: where they lie.
        first: date of the store that is the product's first.

    Returns:
        Bytes written.
    """
    total = 0
    for one in layers:
        with open_reader(one.layer.scene) as reader:
            for index, date in enumerate(one.layer.dates):
                memory = MemoryStore()
                array = create(zarr.create_group(memory), one, first + date + 1)
                height, width = one.layer.scene.shape[2:]
                for y in range(0, height, one.chunk[0]):
                    rows = slice(y, min(y + one.chunk[0], height))
                    values = reader.read(slice(index, index + 1), rows, slice(0, width))
                    array[first + date, rows] = values[0, 0]
                total += _move(memory, container, f"{one.record.path}/c/")
    return total


def _move(memory: MemoryStore, container: Container, prefix: str) -> int:
    total = 0
    for key, value in memory._store_dict.items():
        if key.startswith(prefix):
            data = value.to_bytes()
            container.put(key, data)
            total += len(data)
    return total


def grid_names(profile: Profile, factors: Sequence[int]) -> tuple[str, ...]:
    """Groups of several grids; see `grid_name`."""
    return tuple(grid_name(profile, factor) for factor in factors)
