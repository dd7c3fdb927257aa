"""What a user hands to `eozip evaluate` as places: GeoTIFFs, folders of them, folders of places, .npz stacks."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eozip import sensors
from eozip.chunk.pixels import fill_holes
from eozip.errors import InputError
from eozip.raster import Scene, open_reader, open_scene, read_window, with_fill

_NUMBERED = re.compile(r"(?P<place>.+)_(?P<number>\d+)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """One place to measure on.

    Attributes:
        name: from the file names.
        dn: uint16 or int16 [T, C, H, W].
        bands: [C] band names.
        resolutions: [C] native ground sampling in metres.
        offset: radiometric offset contained in ``dn``.
        dates: [T] ISO 8601, None where not known.
        sensor: sensor id.
        valid: bool [T, H, W], pixels that count: those without nodata in any band. In ``dn`` the others are filled from
            their surroundings, for every method alike. None: all count.
    """

    name: str
    dn: np.ndarray
    bands: tuple[str, ...]
    resolutions: tuple[int, ...]
    offset: int = 0
    dates: tuple[str | None, ...] = ()
    sensor: str = "s2-l2a"
    valid: np.ndarray | None = None

    def filled(self, nodata: int | None) -> Place:
        """The place with its nodata pixels filled and left out of what counts.

        Raises:
            InputError: nothing is left.
        """
        missing = np.zeros(self.dn.shape, bool) if nodata is None else self.dn == nodata
        if not missing.any():
            return self
        valid = ~missing.any(axis=1)
        if not valid.any():
            raise InputError(f"{self.name}: every pixel has nodata ({nodata}) in some band; leave it out")
        return replace(self, dn=fill_holes(self.dn, missing), valid=valid)


def place_files(folder: Path) -> dict[str, list[Path]]:
    """GeoTIFFs of a folder by place, dates in the order of their numbers.

    Raises:
        InputError: there are none.
    """
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("*.tif")):
        match = _NUMBERED.fullmatch(path.stem)
        name, number = (match["place"], int(match["number"])) if match else (path.stem, 0)
        found.setdefault(name, []).append((number, path))
    if not found:
        raise InputError(f"{folder}: expected GeoTIFFs named <place>_<number>.tif, found none")
    return {name: [path for _, path in sorted(numbered)] for name, numbered in found.items()}


def load_place(name: str, files: list[Path], size: int | None = None, sensor: str = "s2-l2a") -> Place:
    """Read a place; of larger frames the top left `size` x `size` pixels.

    Raises:
        InputError: unreadable, other bands, frames smaller than `size`, or an offset that is no whole DN.
    """
    known = sensors.get(sensor)
    scene = open_scene(files, known.band_names)
    height, width = scene.shape[2:]
    if size is not None and min(height, width) < size:
        raise InputError(
            f"{name}: expected at least {size} x {size} pixels, got {height} x {width}; set a smaller size"
        )
    if scene.offset != int(scene.offset):
        raise InputError(f"{name}: expected a whole number of DN as offset, got {scene.offset}")
    window = slice(0, size)
    dn = np.ascontiguousarray(read_window(scene, slice(None), window, window))
    return Place(name, dn, known.band_names, resolutions(sensor), int(scene.offset))


def load_places(folder: Path, size: int | None = None, sensor: str = "s2-l2a") -> list[Place]:
    """Every place of a folder.

    Raises:
        InputError: see `place_files` and `load_place`.
    """
    return [load_place(name, files, size, sensor) for name, files in place_files(folder).items()]


def resolutions(sensor: str = "s2-l2a") -> tuple[int, ...]:
    """[C] native ground sampling of a sensor's bands in metres."""
    return tuple(band.native_resolution_m for band in sensors.get(sensor).bands)


_MAX_VALUES = 1 << 28  # of one place, as the baselines' own streams allow
_SIDE = ("bands", "dates")  # arrays of an .npz that describe the others
_TIFFS = (".tif", ".tiff")


@dataclass(frozen=True)
class Reading:
    """How inputs are read.

    Attributes:
        size: side of the window taken from larger frames; None takes whole frames.
        grid: so many windows a side, evenly spread, each a place; 1 is the top left one.
        bands: names or 1-based positions, as `eozip encode --bands`.
        sensor: sensor id where the files do not name their bands.
        offset: radiometric offset in DN; None takes the file's.
        nodata: DN of missing pixels; None takes the file's, and the sensor's for .npz stacks.
    """

    size: int | None = 256
    grid: int = 1
    bands: tuple[str | int, ...] | None = None
    sensor: str | None = None
    offset: int | None = None
    nodata: int | None = None


def gather(
    paths: Sequence[Path],
    reading: Reading = Reading(),
    left_out: Callable[[str], None] = lambda why: None,
) -> list[Place]:
    """Every place of what was given.

    A folder of folders is one place a folder. Files named <place>_<number>.tif are dates of that place; where
    no file is, all files together are the dates of one place, as for `eozip encode`. Each array [T, C, H, W] or
    [C, H, W] of an .npz is a place; its arrays `bands` and `dates` describe them. What cannot be used in a folder is
    left out, and `left_out` is told its name and why.

    Raises:
        InputError: nothing there, or nothing of it can be used, or what was named itself: unreadable, bands of no sensor,
            too large, all pixels equal; or two places of one name.
    """
    places: list[Place] = []
    faults: list[str] = []
    for one in _sorted_inputs(paths):
        try:
            places += _read(one, reading)
        except InputError as error:
            fault = str(error) if str(error).startswith(str(one.files[0])) else f"{one.files[0]}: {error}"
            if not one.is_found:
                raise InputError(fault) from error
            faults.append(fault)
    if not places:
        raise InputError(faults[0])
    for fault in faults:
        left_out(fault)
    names = [place.name for place in places]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(
            f"two places are called {', '.join(doubled)}; expected a name for each: rename a file or folder"
        )
    return places


def pixel_hash(dn: np.ndarray) -> str:
    """SHA-256 (hex) of dtype, shape and pixels of an array, whatever the machine's byte order."""
    little = np.ascontiguousarray(dn, dn.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{dn.dtype.name} {dn.shape}".encode() + little.tobytes()).hexdigest()


@dataclass(frozen=True)
class _Input:
    """One .npz, or the files of one place, with the name the place gets; found in a folder, or named itself."""

    name: str
    files: tuple[Path, ...]
    is_found: bool = False


def _sorted_inputs(paths: Sequence[Path]) -> list[_Input]:
    if not paths:
        raise InputError("no input: expected GeoTIFFs, folders of GeoTIFFs, or .npz stacks")
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file or folder")
    found = [_Input(p.stem, (p,)) for p in paths if p.suffix.lower() == ".npz"]
    for path in paths:
        found += [replace(one, is_found=True) for one in _folder(path)] if path.is_dir() else []
    tiffs = [p for p in paths if p.is_file() and p.suffix.lower() != ".npz"]
    return found + (_by_name(tiffs) if tiffs else [])


def _folder(folder: Path) -> list[_Input]:
    inner = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in inner if p.suffix.lower() in _TIFFS]
    stacks = [_Input(p.stem, (p,)) for p in inner if p.suffix.lower() == ".npz"]
    below = [p for p in inner if p.is_dir() and any(f.suffix.lower() in _TIFFS for f in p.iterdir())]
    found = (_by_name(files, folder.name) if files else []) + stacks
    found += [_Input(p.name, (p,)) for p in below]
    if not found:
        raise InputError(f"{folder}: expected GeoTIFFs, .npz stacks or folders of GeoTIFFs in it, found none")
    return found


def _by_name(files: Sequence[Path], name: str | None = None) -> list[_Input]:
    matches = {path: _NUMBERED.fullmatch(path.stem) for path in files}
    if not any(matches.values()):
        return [_Input(name or files[0].stem, tuple(files))]
    grouped: dict[str, list[tuple[int, Path]]] = {}
    for path, match in matches.items():
        key, number = (match["place"], int(match["number"])) if match else (path.stem, 0)
        grouped.setdefault(key, []).append((number, path))
    return [_Input(key, tuple(path for _, path in sorted(found))) for key, found in grouped.items()]


def _read(one: _Input, reading: Reading) -> list[Place]:
    is_stack = one.files[0].suffix.lower() == ".npz"
    places = _from_npz(one.files[0], reading) if is_stack else _from_scene(one, reading)
    for place in places:
        if place.dn.min() == place.dn.max():
            raise InputError(
                f"{place.name}: every pixel is {place.dn.min()}: nothing to compare; leave it out"
            )
    return places


def _nodata(scene: Scene, reading: Reading) -> int | None:
    value = next((v for v in (reading.nodata, scene.fill, scene.profile.nodata) if v is not None), None)
    return None if value is None else int(value)


def _from_scene(one: _Input, reading: Reading) -> list[Place]:
    scene = open_scene(one.files, reading.bands, reading.offset)
    if scene.dtype.name not in ("uint16", "int16"):
        raise InputError(f"{one.name}: expected uint16 or int16 DN, got {scene.dtype}")
    scene = with_fill(scene, reading.nodata)
    sensor, order = sensors.match_bands(scene.meanings, _sensor_of_scene(scene, reading.sensor))
    height, width = scene.shape[2:]
    windows = _windows(height, width, reading)
    _check_size(one.name, (*scene.shape[:2], *windows[0][2:]))
    if scene.offset != int(scene.offset):
        raise InputError(f"{one.name}: expected a whole number of DN as offset, got {scene.offset}")
    dates = tuple(date.isoformat() if date else None for date in scene.dates)
    common = Place(
        one.name, np.empty(0), sensor.band_names, resolutions(sensor.id), int(scene.offset), dates, sensor.id
    )
    with open_reader(scene) as reader:
        stacks = [
            reader.read(slice(None), slice(y, y + h), slice(x, x + w))[:, list(order)]
            for y, x, h, w in windows
        ]
    return [
        replace(common, name=_tile_name(one.name, window, len(windows)), dn=_checked(dn, one.name)).filled(
            _nodata(scene, reading)
        )
        for window, dn in zip(windows, stacks)
    ]


def _sensor_of_scene(scene: Scene, wanted: str | None) -> sensors.Sensor | None:
    """As asked for; of bands without any names, by their number; else None: names tell."""
    if wanted is not None:
        return sensors.named(wanted)
    return None if any(scene.meanings) else sensors.by_count(scene.shape[1])


def _from_npz(path: Path, reading: Reading) -> list[Place]:
    arrays = _arrays(path)
    stacks = {name: a for name, a in arrays.items() if name not in _SIDE}
    if not stacks:
        raise InputError(
            f"{path}: expected arrays [T, C, H, W] or [C, H, W], got {', '.join(arrays) or 'none'}"
        )
    found = []
    for name, dn in stacks.items():
        stack = dn[None] if dn.ndim == 3 else dn
        label = path.stem if len(stacks) == 1 else f"{path.stem}:{name}"
        found += _tiles(label, stack, arrays, reading)
    return found


def _tiles(name: str, dn: np.ndarray, arrays: dict[str, np.ndarray], reading: Reading) -> list[Place]:
    if dn.ndim != 4:
        raise InputError(f"{name}: expected an array [T, C, H, W] or [C, H, W], got {dn.shape}")
    sensor, order = _sensor_of(name, dn, arrays, reading.sensor)
    dates = tuple(str(day) for day in arrays["dates"]) if "dates" in arrays else ()
    dates = dates if len(dates) == len(dn) else (None,) * len(dn)
    windows = _windows(*dn.shape[2:], reading)
    found = []
    for y, x, h, w in windows:
        pixels = _checked(dn[:, order, y : y + h, x : x + w], name)
        label = _tile_name(name, (y, x, h, w), len(windows))
        metres = resolutions(sensor.id)
        place = Place(label, pixels, sensor.band_names, metres, reading.offset or 0, dates, sensor.id)
        found.append(place.filled(sensor.nodata if reading.nodata is None else reading.nodata))
    return found


def _sensor_of(
    name: str, dn: np.ndarray, arrays: dict[str, np.ndarray], wanted: str | None
) -> tuple[sensors.Sensor, list[int]]:
    if "bands" in arrays and len(arrays["bands"]) == dn.shape[1]:
        found, order = sensors.match_bands([str(text) for text in arrays["bands"]])
        return found, list(order)
    found = sensors.get(wanted) if wanted else sensors.by_count(dn.shape[1])
    if len(found.bands) != dn.shape[1]:
        raise InputError(f"{name}: expected {len(found.bands)} bands for {found.id}, got {dn.shape[1]}")
    return found, list(range(dn.shape[1]))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz, sizes checked from their headers before any is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if m.endswith(".npy")]
            return {m.removesuffix(".npy"): _array(path, archive, m) for m in members}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected an .npz of plain arrays, got: {error}") from error


def _array(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as file:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in read:
            raise InputError(f"{path}: {member}: expected .npy version 1 or 2, got {version}")
        shape, _, dtype = read[version](file)
    if dtype.hasobject or math.prod(shape) > 4 * _MAX_VALUES:
        raise InputError(f"{path}: {member}: expected plain numbers, at most 2^30, got {dtype} {shape}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _windows(height: int, width: int, reading: Reading) -> list[tuple[int, int, int, int]]:
    """(y, x, h, w) of the windows to take, rows first."""
    sides = [length if reading.size is None else min(reading.size, length) for length in (height, width)]
    starts = [
        sorted({int(at) for at in np.linspace(0, length - side, reading.grid)})
        for length, side in zip((height, width), sides)
    ]
    return [(y, x, *sides) for y in starts[0] for x in starts[1]]  # type: ignore[misc]


def _tile_name(name: str, window: tuple[int, int, int, int], count: int) -> str:
    return name if count == 1 else f"{name}@{window[0]},{window[1]}"


def _check_size(name: str, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > _MAX_VALUES:
        raise InputError(
            f"{name}: expected at most 2^28 values of a place, got {shape}; set a smaller --size"
        )


def _checked(dn: np.ndarray, name: str) -> np.ndarray:
    _check_size(name, dn.shape)
    if dn.dtype.name not in ("uint16", "int16") or dn.size == 0:
        raise InputError(f"{name}: expected uint16 or int16 DN, not empty, got {dn.dtype} {dn.shape}")
    return np.ascontiguousarray(dn)
