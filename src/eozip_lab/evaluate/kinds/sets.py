"""Sets of scenes as a TOML file lists them, each of one kind of data.

    [[set]]
    name = "Vietnam, fine fields"          # unique
    kind = "native L1C"
    sensor = "s2-l1c"
    files = ["$EOZIP_DATA/data/other/native_vietnam_l1c.npz"]

Files: an .npz of r10, r20, r60 (native groups, [T, C, h, w] or [C, h, w], names in bands10, ..), one of stacks (`array`),
or GeoTIFFs, one a date. Every other key is an attribute of `Listed`.
"""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
import rasterio

from eozip import sensors
from eozip.codecs.pyramid import grids
from eozip.errors import InputError

Groups = Mapping[int, np.ndarray]  # resolution in m > uint16 [T, C, h, w]
_NATIVE = (10, 20, 60)
_MOST_FILES, _MOST_SAMPLES = 1000, 1 << 28


class Listed(pydantic.BaseModel, extra="forbid", frozen=True):
    """A set as the TOML file has it.

    Attributes:
        name, kind: for tables; names are unique.
        files: paths, environment variables expanded.
        sensor: whose bands these are.
        array: of an .npz of stacks, which one; else the only one.
        bands: names, where the file has none; else the sensor's, by number.
        take: bands kept, by name; None keeps all.
        axis: what axis 0 of an array is: dates are coded together, places each alone.
        pick: positions along axis 0; None takes all.
        window: y, x, height, width in pixels of the finest grid.
        cells: a cube's 20 m bands are put back onto the grid that they were interpolated from.
        cut: side of the tiles that are coded each alone, in pixels of the finest grid.
        edge: a slanting part of the scene has no data.
        against: the set with which this one is compared, of the same pixels; such sets meet no baselines.
        compare: bits per sample at equal PSNR, or all bytes at equal PSNR of what both have.
        limit: at most so many times as much as the other, as asked for.
        baselines: whether others than codecs of eozip code it.
        report: a report.json of `eozip evaluate` that has what others need on the very same pixels.
    """

    name: str
    kind: str
    files: tuple[str, ...] = pydantic.Field(min_length=1, max_length=_MOST_FILES)
    sensor: str = "s2-l2a"
    array: str | None = None
    bands: tuple[str, ...] | None = None
    take: tuple[str, ...] | None = None
    axis: Literal["date", "place"] = "date"
    pick: tuple[int, ...] | None = None
    window: tuple[int, int, int, int] | None = None
    cells: bool = False
    cut: int | None = pydantic.Field(None, ge=12)
    edge: bool = False
    against: str | None = None
    compare: Literal["rate", "bytes"] = "rate"
    limit: float | None = None
    baselines: bool = True
    report: str | None = None

    def missing(self) -> list[str]:
        """Files that are not there."""
        return [text for text in self.files if not Path(os.path.expandvars(text)).is_file()]


@dataclass(frozen=True)
class Scene:
    """What is coded at once.

    Attributes:
        groups: pixels of each grid.
        bands: their names.
        nodata: DN that counts nowhere; None: every sample counts.
    """

    groups: Groups
    bands: Mapping[int, tuple[str, ...]]
    nodata: int | None = None

    @property
    def dates(self) -> int:
        return len(next(iter(self.groups.values())))


@dataclass(frozen=True)
class KindSet:
    """A set with its pixels."""

    listed: Listed
    scenes: tuple[Scene, ...]

    def digest(self) -> str:
        """Hex digits of pixels, bands, sensor and nodata."""
        found = hashlib.sha256(self.listed.sensor.encode())
        for scene in self.scenes:
            found.update(repr((sorted(scene.bands.items()), scene.nodata)).encode())
            for metres, pixels in sorted(scene.groups.items()):
                found.update(
                    f"{metres} {pixels.shape}".encode() + np.ascontiguousarray(pixels, "<u2").tobytes()
                )
        return found.hexdigest()[:16]


def listed(path: Path) -> list[Listed]:
    """The sets of a TOML file.

    Raises:
        InputError: unreadable, a key or value that no set has, two sets of one name, or `against` none of them.
    """
    try:
        table = tomllib.loads(path.read_text())
        found = [Listed(**one) for one in table["set"]]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a TOML file of [[set]] tables, got {error}") from error
    names = [one.name for one in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    strange = [one.against for one in found if one.against is not None and one.against not in names]
    if doubled or strange:
        raise InputError(
            f"{path}: expected sets of different names, compared with sets there are, got {doubled or strange}"
        )
    return found


def read(one: Listed) -> KindSet:
    """A set's pixels.

    Raises:
        InputError: files, bands, positions or windows that do not fit.
    """
    whole = _read(one)
    scenes = _split(_picked(whole, one), one)
    scenes = [_windowed(scene, one.window) for scene in scenes]
    scenes = [_cells(scene) if one.cells else scene for scene in scenes]
    scenes = [_taken(scene, one.take) if one.take else scene for scene in scenes]
    scenes = [_edged(scene) if one.edge else scene for scene in scenes]
    scenes = [tile for scene in scenes for tile in (_tiles(scene, one.cut) if one.cut else [scene])]
    if not scenes:
        raise InputError(f"{one.name}: expected a scene with data, got none")
    return KindSet(one, tuple(scenes))


def counted(scene: Scene, metres: int) -> np.ndarray:
    """bool [T, C, h, w]: the samples of a group that count."""
    pixels = scene.groups[metres]
    return np.ones(pixels.shape, bool) if scene.nodata is None else pixels != scene.nodata


def metres_of(scene: Scene, metres: int, sensor: str) -> tuple[int, ...]:
    """Native resolution of each band of a group: the grid's, or of a cube's bands the sensor's."""
    if len(scene.groups) > 1:
        return (metres,) * len(scene.bands[metres])
    known = {band.name: band.native_resolution_m for band in sensors.get(sensor).bands}
    return tuple(known.get(name, metres) for name in scene.bands[metres])


def _read(one: Listed) -> Scene:
    paths = [Path(os.path.expandvars(text)) for text in one.files]
    names = one.bands or tuple(sensors.get(one.sensor).band_names)
    if paths[0].suffix != ".npz":
        return _from_tiffs(paths, names)
    try:
        with np.load(paths[0]) as file:
            if "r10" in file:
                return _from_groups(file)
            stacks = [name for name in file.files if file[name].ndim == 4]
            array = file[one.array or stacks[0]]
            inner = tuple(map(str, file["bands"])) if "bands" in file else names
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{paths[0]}: expected r10 or stacks [N, C, H, W], got {error}") from error
    return _checked(Scene({10: array}, {10: one.bands or inner}), one.name)


def _from_groups(file: Mapping[str, np.ndarray]) -> Scene:
    arrays = {m: file[f"r{m}"] for m in _NATIVE if f"r{m}" in file}
    names = {m: tuple(map(str, file[f"bands{m}"])) for m in arrays}
    stacks = {m: a if a.ndim == 4 else a[None] for m, a in arrays.items()}
    kept = {m: [k for k, name in enumerate(names[m]) if name != "B10"] for m in stacks}  # cirrus, no surface
    whole = Scene(
        {m: a[:, kept[m]] for m, a in stacks.items()},
        {m: tuple(names[m][k] for k in kept[m]) for m in stacks},
    )
    sides = [min(a.shape[axis] * m // 10 for m, a in whole.groups.items()) // 12 * 12 for axis in (2, 3)]
    return _windowed(whole, (0, 0, *sides))


def _from_tiffs(paths: Sequence[Path], names: tuple[str, ...]) -> Scene:
    dates = []
    for path in paths:
        with rasterio.open(path) as file:
            dates.append(file.read())
    stack = np.stack(dates)
    if stack.dtype == np.int16 and stack.min() >= 0:
        stack = stack.astype(np.uint16)
    return _checked(Scene({10: stack}, {10: names}), str(paths[0]))


def _checked(scene: Scene, name: str) -> Scene:
    (pixels,), (bands,) = scene.groups.values(), scene.bands.values()
    if pixels.ndim != 4 or pixels.dtype != np.uint16 or pixels.shape[1] != len(bands):
        raise InputError(
            f"{name}: expected uint16 [N, {len(bands)}, H, W], got {pixels.dtype} {pixels.shape}; name its bands"
        )
    if math.prod(pixels.shape) > _MOST_SAMPLES:
        raise InputError(f"{name}: expected at most 2^28 samples, got {pixels.shape}; take a window")
    return scene


def _mapped(scene: Scene, groups: Groups) -> Scene:
    return replace(scene, groups={m: np.ascontiguousarray(a) for m, a in groups.items()})


def _picked(scene: Scene, one: Listed) -> Scene:
    if one.pick is None:
        return scene
    if not all(-scene.dates <= k < scene.dates for k in one.pick):
        raise InputError(f"{one.name}: expected positions below {scene.dates}, got {one.pick}")
    return _mapped(scene, {m: a[list(one.pick)] for m, a in scene.groups.items()})


def _split(scene: Scene, one: Listed) -> list[Scene]:
    if one.axis == "date":
        return [scene]
    return [_mapped(scene, {m: a[k : k + 1] for m, a in scene.groups.items()}) for k in range(scene.dates)]


def _windowed(scene: Scene, window: Sequence[int] | None) -> Scene:
    if window is None:
        return scene
    y, x, h, w = window
    finest = min(scene.groups)
    cut = {}
    for m, a in scene.groups.items():
        f = m // finest
        cut[m] = a[:, :, y // f : -(-(y + h) // f), x // f : -(-(x + w) // f)]
    if cut[finest].shape[2:] != (h, w):
        raise InputError(f"expected a window within {scene.groups[finest].shape[2:]}, got {tuple(window)}")
    return _mapped(scene, cut)


def _taken(scene: Scene, take: Sequence[str]) -> Scene:
    kept = {m: [k for k, name in enumerate(names) if name in take] for m, names in scene.bands.items()}
    if sum(map(len, kept.values())) != len(take):
        raise InputError(f"expected some of {dict(scene.bands)}, got {tuple(take)}")
    groups = {m: scene.groups[m][:, positions] for m, positions in kept.items() if positions}
    bands = {m: tuple(scene.bands[m][k] for k in kept[m]) for m in groups}
    return _mapped(replace(scene, bands=bands), groups)


def _edged(scene: Scene) -> Scene:
    """No data (0) left of a slanting line."""
    cut, finest = {}, min(scene.groups)
    for m, a in scene.groups.items():
        h, w = a.shape[2:]
        rows, columns = np.mgrid[:h, :w] * (m // finest)
        width, height = w * (m // finest), h * (m // finest)
        cut[m] = np.where(columns < 0.2 * width + 0.3 * width * rows / height, 0, np.maximum(a, 1))
    return replace(_mapped(scene, cut), nodata=0)


def _tiles(scene: Scene, side: int) -> list[Scene]:
    """Whole tiles, those without any data left out."""
    height, width = scene.groups[min(scene.groups)].shape[2:]
    found = [
        _windowed(scene, (y, x, min(side, height - y), min(side, width - x)))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    return [tile for tile in found if all(counted(tile, m).any() for m in tile.groups)]


def _cells(scene: Scene) -> Scene:
    """The 10 and 20 m bands of a cube on their own grids; 60 m bands are left out.

    Raises:
        InputError: its 20 m bands share no grid.
    """
    cube, names = scene.groups[10].astype(np.float32), scene.bands[10]
    known = {band.name: band.native_resolution_m for band in sensors.get("s2-l2a").bands}
    at = {m: [k for k, name in enumerate(names) if known[name] == m] for m in (10, 20)}
    grid = grids.found(cube[:, at[20]])
    if grid[0] is None or len(set(grid)) != 1:
        raise InputError("expected 20 m bands interpolated from one grid, found none")
    # float64, and halves made exact first: in float32 cells differ by 1 DN from machine to machine, and points with them
    solved = np.stack([np.rint(np.round(grid[0].solved(date[at[20]].astype(float)), 4)) for date in cube])
    sides = cube.shape[2:]
    skip = [(-grid[0].cells(sides[axis], axis)[0], (grid[0].rows, grid[0].columns)[axis]) for axis in (0, 1)]
    size = [(side - 6) // 12 * 12 for side in sides]
    fine, coarse = (
        a[:, :, y : y + h, x : x + w]
        for a, (y, h), (x, w) in (
            (cube[:, at[10]], (skip[0][1], size[0]), (skip[1][1], size[1])),
            (solved, (skip[0][0], size[0] // 2), (skip[1][0], size[1] // 2)),
        )
    )
    groups = {10: fine.astype(np.uint16), 20: np.clip(coarse, 0, 65535).astype(np.uint16)}
    return _mapped(replace(scene, bands={m: tuple(names[k] for k in at[m]) for m in groups}), groups)
