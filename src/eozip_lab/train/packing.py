"""`eozip train --pack`: the most varied crops of a recipe's data, and its validation places, in one file.

For a machine that can be reached with tens of megabytes only. Tiles are ordered by farthest-point sampling on
band statistics, then packed (lossless JPEG XL planes, see `packed`) until the limit is reached. A tile is an image, or
a series of dates of one place. What a pack holds of a source bears the names of its files, so that `only` and `skip`
choose there as here; or, where files do not say it (series, single arrays, drawn crops), a label of the source.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError, OutputError
from eozip.outputs import publish, temporary
from eozip_lab.train import validate
from eozip_lab.train.data import Draw, Source, Stacks
from eozip_lab.train.data_sources import check_apart, open_sources
from eozip_lab.train.kinds import kind_for
from eozip_lab.train.packed import INDEX, VALIDATION, jpegxl, mosaics, widest_grid
from eozip_lab.train.recipe import DataSource, Place, Recipe, load
from eozip_lab.train.series import REACH, SeriesStacks, twelve_bands

GROUP = 64  # tiles of one shape per mosaic
_RANDOM_TILES = 4000  # candidates from sources too large to be cut up whole
_EFFORT, _QUICK = 7, 3  # of JPEG XL: as written; to see how much is going to fit
_MARGIN = 2500  # bytes of names and index entries, were a tile alone


@dataclass(frozen=True)
class _Tile:
    """A candidate: where it belongs, its shape N C h w (N dates, 1 of an image), and how to read it (uint16)."""

    source: str
    shape: tuple[int, int, int, int]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _Packed:
    """What a pack holds: tiles taken, of how many, and its size in bytes."""

    path: Path
    tiles: int
    candidates: int
    bytes: int


def pack(recipe: Path | str, out: Path, limit_mib: float = 60.0, seed: int = 0) -> _Packed:
    """Pack a recipe's data for another machine; `run(recipe, data=out)` trains from it.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        out: file to write; must not exist.
        limit_mib: largest size in MiB.
        seed: of random crops and of the first tile.

    Raises:
        InputError: a recipe or data that cannot be used, or a limit below the size of the validation places.
        OutputError: `out` exists.
    """
    if out.exists():
        raise OutputError(f"{out}: exists already; choose another name")
    if limit_mib <= 0:
        raise InputError(f"limit: expected more than 0 MiB, got {limit_mib}")
    chosen = load(recipe)
    names = kind_for(chosen).band_names
    sources = open_sources(chosen, names)
    try:
        check_apart([f for s in sources for f in s.files()], validate.place_files(chosen))
        tiles = candidates(chosen, sources, seed)
        order = _most_varied(np.stack([features(tile.read()) for tile in tiles]), seed)
        places = validate.load_places(chosen, names)
        taken = _write(out, [tiles[k] for k in order], places, round(limit_mib * 2**20))
    finally:
        for source in sources:
            source.close()
    return _Packed(out, taken, len(tiles), out.stat().st_size)


def with_pack(recipe: Recipe, path: Path) -> Recipe:
    """The recipe, reading a pack made from it instead of its own data and validation places."""
    here = str(path.absolute())
    labels = {k: label(s.kind, k) for k, s in enumerate(recipe.data) if not _is_named_by_files(s)}
    data = tuple(
        _from_pack(s, here, labels.get(k), tuple(labels.values())) for k, s in enumerate(recipe.data)
    )
    places = tuple(Place(p.name, (here,), p.name) for p in recipe.validation.places)
    return replace(recipe, data=data, validation=replace(recipe.validation, places=places))


def _from_pack(source: DataSource, path: str, own: str | None, labels: tuple[str, ...]) -> DataSource:
    kinds = {"geotiff": "npz", "ssl4eo": "npz", "ssl4eo-series": "series"}
    moved = replace(source, kind=kinds.get(source.kind, source.kind), path=path, offset=0)
    if own is None:
        return replace(moved, skip=(*source.skip, *labels))
    return replace(moved, only=(own,), skip=())


def _is_named_by_files(source: DataSource) -> bool:
    """Whether names of files tell what belongs to a source."""
    return source.kind == "npz" and not any(":" in p for p in (*source.only, *source.skip))


def label(kind: str, k: int) -> str:
    """Name of source k of a recipe in a pack, where it is not a file's."""
    return f"{kind}-{k}"


def candidates(recipe: Recipe, sources: Sequence[Source], seed: int) -> list[_Tile]:
    """Every tile of every stack, once, and random crops of what is not a stack.

    A stack is cut into tiles of about twice the crop, so that training still draws shifted crops.
    """
    found: dict[str, list[_Tile]] = {}
    by_crop = sorted(range(len(sources)), key=lambda k: -recipe.data[k].crop)
    for k in by_crop:
        for name, tiles in _tiles_of(recipe.data[k], label(recipe.data[k].kind, k), sources[k], seed):
            if name not in found:
                found[name] = list(tiles)
    tiles = [tile for group in found.values() for tile in group]
    if not tiles:
        raise InputError("nothing to pack: every tile of the recipe's data holds nodata")
    return tiles


def _tiles_of(data: DataSource, own: str, source: Source, seed: int) -> Iterator[tuple[str, Iterator[_Tile]]]:
    """Tiles of a source, by what must not be packed twice."""
    stacks = source.stacks if isinstance(source, SeriesStacks) else source
    if not isinstance(stacks, Stacks):
        yield own, _drawn(own, source, data.crop, seed)
        return
    dates = source.dates if isinstance(source, SeriesStacks) else None
    for name, array in zip(stacks.names, stacks.arrays, strict=True):
        if _is_named_by_files(data):
            yield name, _cut(name.partition(":")[0], array, stacks, dates)
        else:
            yield f"{own}/{name}", _cut(own, array, stacks, dates)


def _cut(name: str, array: np.ndarray, source: Stacks, dates: int | None) -> Iterator[_Tile]:
    """Tiles without nodata: single images, or (dates: the least) runs of as many dates as an example may span."""
    _, channels, height, width = array.shape
    rows, columns = (max(1, round(side / (2 * source.size))) for side in (height, width))
    h, w = height // rows, width // columns
    for i in range(rows):
        for j in range(columns):
            part = array[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w]
            for chosen in _runs([d for d, date in enumerate(part) if date.all()], dates):
                shape = (len(chosen), channels, h, w)
                yield _Tile(name, shape, _reader(part, chosen, source.offset))


def _runs(valid: list[int], dates: int | None) -> Iterator[list[int]]:
    if dates is None:
        yield from ([d] for d in valid)
        return
    for first in range(0, len(valid), REACH * dates):
        run = valid[first : first + REACH * dates]
        if len(run) >= dates:
            yield run


def _reader(part: np.ndarray, dates: list[int], offset: int) -> Callable[[], np.ndarray]:
    return lambda: _as_uint16(part[dates].astype(np.int32) - offset)


def _drawn(name: str, source: Source, crop: int, seed: int) -> Iterator[_Tile]:
    def read(step: int) -> np.ndarray:
        draw = Draw(seed, step)
        return _as_uint16(_in_time(next(source.crops(draw, draw.rng()))))

    shape = (*read(0).shape[:2], crop, crop)
    for step in range(_RANDOM_TILES):
        yield _Tile(name, shape, lambda step=step: read(step))


def _in_time(crop: np.ndarray) -> np.ndarray:
    """[T, C, s, s] of a crop; an image is one date."""
    return crop if crop.ndim == 4 else crop[None]


def _as_uint16(dn: np.ndarray) -> np.ndarray:
    """Training clips to 1 and above anyway; 0 stays free for nodata."""
    return np.clip(dn, 1, 65535).astype(np.uint16)


def features(dn: np.ndarray) -> np.ndarray:
    """What varies between tiles [N, C, h, w]: level, contrast, roughness of every band, mean of their logs, float [3 C]."""
    x = twelve_bands(dn).astype(np.float32)
    rough = np.abs(np.diff(x, axis=2)).mean((2, 3))
    return np.log1p(np.concatenate([x.mean((2, 3)), x.std((2, 3)), rough], 1)).mean(0)


def _most_varied(points: np.ndarray, seed: int) -> list[int]:
    """Farthest-point order of rows: each next one is the farthest from all before it (Gonzalez 1985)."""
    z = (points - points.mean(0)) / (points.std(0) + 1e-6)
    order = [int(np.random.default_rng(seed).integers(len(z)))]
    distance = np.full(len(z), np.inf)
    for _ in range(len(z) - 1):
        distance = np.minimum(distance, np.square(z - z[order[-1]]).sum(1))
        distance[order[-1]] = -1.0
        order.append(int(distance.argmax()))
    return order


@dataclass
class _Archive:
    """A pack being written, and the bytes it has so far."""

    zf: zipfile.ZipFile
    limit: int
    encode: Callable[..., bytes]
    used: int = 0
    items: list[dict[str, Any]] = field(default_factory=list)

    def add(self, source: str, site: str, stack: np.ndarray) -> bool:
        """Add a stack [N, C, H, W] if it fits."""
        grid = widest_grid(len(stack))
        planes = [self.encode(p, lossless=True, effort=_EFFORT) for p in mosaics(stack, grid)]
        names = [f"{source}/{site}/{k:02d}.jxl" for k in range(len(planes))]
        item = {"source": source, "site": site, "shape": list(stack.shape), "grid": grid}
        size = sum(len(p) + 2 * len(n) + 100 for p, n in zip(planes, names)) + len(json.dumps(item)) + 2
        if self.used + size > self.limit:
            return False
        for name, plane in zip(names, planes, strict=True):
            self.zf.writestr(name, plane)
        self.used += size
        self.items.append(item)
        return True

    def close_index(self, name: str) -> None:
        self.zf.writestr(name, json.dumps(self.items))
        self.used += 200
        self.items = []


def _write(out: Path, tiles: Sequence[_Tile], places: Sequence[validate.Stack], limit: int) -> int:
    with temporary(out, folder=False) as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as zf:
            archive = _Archive(zf, limit, jpegxl("encode"))
            for place in places:
                if not archive.add("validation", place.name, _as_uint16(place.dn)):
                    raise InputError(f"limit {limit / 2**20:.1f} MiB: the validation places alone are larger")
            archive.close_index(VALIDATION)
            taken = _fill(archive, tiles)
            if taken == 0:
                raise InputError(f"limit {limit / 2**20:.1f} MiB: no tile fits beside the validation places")
            archive.close_index(INDEX)
        publish(part, out, overwrite=False)
    return taken


def _fill(archive: _Archive, tiles: Sequence[_Tile]) -> int:
    """As many tiles as fit, in order; returns their number.

    Tiles of one source and shape share mosaics, which come out smaller than the sum of their tiles: what that
    saves is filled in further rounds.
    """
    taken, rest = 0, list(tiles)
    while rest:
        chosen = _prefix(rest, archive)
        rest = rest[len(chosen) :]
        for (source, shape), group in _by_shape(chosen).items():
            together = GROUP if shape[0] == 1 else 1  # the first axis of a series is time alone
            for first in range(0, len(group), together):
                some = group[first : first + together]
                stack = np.concatenate([tile.read() for tile in some])
                if not archive.add(source, f"tiles-{len(archive.items):04d}", stack):
                    return taken
                taken += len(some)
        if not chosen:
            break
    return taken


def _prefix(tiles: Sequence[_Tile], archive: _Archive) -> list[_Tile]:
    """The first tiles, as long as each packed for itself would fit."""
    room, chosen = archive.limit - archive.used, []
    for tile in tiles:
        planes = tile.read().reshape(-1, *tile.shape[2:])
        room -= sum(len(archive.encode(plane, lossless=True, effort=_QUICK)) for plane in planes) + _MARGIN
        if room < 0:
            break
        chosen.append(tile)
    return chosen


def _by_shape(tiles: Sequence[_Tile]) -> dict[tuple[str, tuple[int, ...]], list[_Tile]]:
    groups: dict[tuple[str, tuple[int, ...]], list[_Tile]] = {}
    for tile in tiles:
        groups.setdefault((tile.source, tile.shape), []).append(tile)
    return groups
