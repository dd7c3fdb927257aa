"""The inputs of an archive: which ones a caller means, what a look at each finds, to which store it belongs."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from eozip import arguments
from eozip.archive.asked import Asked
from eozip.errors import InputError
from eozip.raster import Scene, open_reader
from eozip.raster.delivered.open import solar_day
from eozip.raster.files import PathLike, is_elsewhere, printable
from eozip.raster.header import band_file
from eozip.raster.product import Product
from eozip.store.codec import check_array
from eozip.store.convert import product_and_mask
from eozip.store.joined import joined
from eozip.store.metadata import file_names

_TILE = re.compile(
    r"(?<![A-Za-z0-9])T?((?:0[1-9]|[1-5]\d|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?![A-Za-z0-9])"
)
_TILE_TAGS = ("MGRS_TILE", "S2:MGRS_TILE", "TILE_ID", "SENTINEL2_TILE_ID", "TILE", "GRID:CODE")
_RASTERS = (".tif", ".tiff", ".jp2", ".vrt")
_EDGE = 1 << 16  # bytes at the beginning and the end of a file that its fingerprint holds
_ROWS = 512  # read at once where all pixels of an input are looked at


@dataclass(frozen=True)
class Item:
    """One input, as encode takes it.

    Attributes:
        name: what it is called in reports and in the record.
        paths: files, products, or names that GDAL resolves.
        feature: a STAC item as JSON, where it is one of a collection.
    """

    name: str
    paths: tuple[str, ...]
    feature: str = ""


@dataclass(frozen=True)
class Seen:
    """What a look at one input found.

    Attributes:
        item: the input.
        store: name of the store that it belongs to.
        grid: size, place, data type and bands, as text: equal for inputs that may share a store.
        dates: ISO, None where nothing tells; `days` of local solar time.
        files: a name for each date, as a store has it; `paths` of all files that hold its bands.
        print: fingerprint of the files.
        size: bytes of the files, as far as they are on this machine; `raw` of the pixels.
        marks: sizes and ends of these files, and of those beside the bands, by their names.
    """

    item: Item
    store: str
    grid: str
    dates: tuple[str | None, ...]
    days: tuple[str | None, ...]
    files: tuple[str, ...]
    paths: tuple[str, ...]
    print: str
    size: int
    marks: tuple[tuple[str, str], ...]
    raw: int

    def has_changed(self) -> bool:
        """Whether any of its files is another by now; one that is gone is none."""
        return any(os.path.isfile(path) and _mark(path) != mark for path, mark in self.marks)

    def noted(self) -> dict[str, Any]:
        """What the record keeps of it."""
        names = ("print", "size", "files", "dates", "grid")
        return {name: getattr(self, name) for name in names}


# --- inputs ---


def items_of(inputs: PathLike | Sequence[PathLike]) -> list[Item]:
    """Every input that a caller means, none twice.

    Args:
        inputs: files, folders, globs, names that GDAL resolves, and text files (.txt) with one of these in a line.

    Raises:
        InputError: nothing, or something that is no input.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    found: dict[str, Item] = {}
    known: set[str] = set()
    for one in given:
        for item in _expanded(arguments.text("items", os.fspath(one)) or ""):
            same = _identity(item)
            if same not in known:
                name = f"{item.name}~{same[:8]}" if item.name in found else item.name
                found[name] = replace(item, name=name)
            known.add(same)
    if not found:
        raise InputError(
            "no items: expected GeoTIFFs, folders of them, globs, or a text file with one of these in a line"
        )
    return list(found.values())


def _identity(item: Item) -> str:
    """The same for the same input, however it is spelt."""
    files = [path if is_elsewhere(path) else os.path.realpath(path) for path in item.paths]
    told = item.feature or "\n".join(files)
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def _expanded(name: str) -> Iterator[Item]:
    if is_elsewhere(name):
        yield _single(name)
    elif os.path.isdir(name):
        yield from _in_folder(Path(name))
    elif name.lower().endswith((".json", ".geojson")) and os.path.isfile(name):
        yield from _features(Path(name))
    elif name.lower().endswith(".txt") and os.path.isfile(name):
        for line in Path(name).read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                yield from _expanded(line.strip())
    elif not os.path.exists(name) and glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise InputError(f"{printable(name)}: expected files, got none that fit")
        yield from _grouped([path for path in matches if not os.path.isdir(path)])
        for path in matches:
            if os.path.isdir(path):
                yield from _in_folder(Path(path))
    else:
        yield _single(name)  # one that does not exist is set aside with that reason


def _features(path: Path) -> Iterator[Item]:
    """The items of a STAC item collection; one item stands for itself."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected JSON of STAC, got {error}") from error
    features = table.get("features") if isinstance(table, dict) else None
    if not isinstance(features, list):
        yield _single(str(path))
        return
    for feature in features:
        name = str(feature.get("id")) if isinstance(feature, dict) else "?"
        yield Item(f"{path.name}#{name}", (str(path),), json.dumps(_absolute(feature, path.parent)))


def _absolute(feature: Any, folder: Path) -> Any:
    """A STAC item whose assets are found from everywhere."""
    assets = feature.get("assets") if isinstance(feature, dict) else None
    if not isinstance(assets, dict):
        return feature
    moved = {
        key: {**asset, "href": str((folder / asset["href"]).resolve())}
        if isinstance(asset, dict) and isinstance(asset.get("href"), str) and not is_elsewhere(asset["href"])
        else asset
        for key, asset in assets.items()
    }
    return {**feature, "assets": moved}


def _in_folder(folder: Path) -> Iterator[Item]:
    if folder.suffix.upper() == ".SAFE":
        yield _single(str(folder))
        return
    inner = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    yield from _grouped([str(p) for p in inner if p.suffix.lower() in (*_RASTERS, ".zip") and p.is_file()])
    for path in inner:
        if path.is_dir() and path.suffix.lower() != ".zarr":
            yield from _in_folder(path)


def _grouped(paths: Sequence[str]) -> Iterator[Item]:
    """Files of one band each whose names say so belong together, date by date; all others stand for themselves."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        named = band_file(path)
        groups.setdefault(path if named.code is None else f"{named.date}", []).append(path)
    for group in groups.values():
        yield _single(group[0]) if len(group) == 1 else Item(_longest_common(group), tuple(group))


def _longest_common(paths: Sequence[str]) -> str:
    """What the names of one date's files begin with."""
    folder, names = os.path.dirname(paths[0]), [os.path.basename(path) for path in paths]
    same = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names)))
    return os.path.join(folder, names[0][:same].rstrip("_-. B") or names[0])


def _single(path: str) -> Item:
    return Item(printable(path), (path,))


# --- one input ---


def look_at(item: Item, asked: Asked) -> Seen:
    """Read the headers of an input and all of its pixels once, so that what is broken is known before anything is coded.

    Raises:
        EozipError: it cannot be read; the message says why.
    """
    product, mask = opened([item], asked)
    found = joined(product, asked.nodata)
    scene = found.scene
    check_array(scene.shape, scene.dtype)
    beside = [layer.scene for layer in product.beside]
    for one in (*found.product.scenes, *beside, *(() if mask is None or mask in beside else (mask,))):
        read_all(one)
    return Seen(
        item,
        _store_name(item, scene, asked.by),
        grid_text(scene, found.band_factors),
        tuple(None if date is None else date.isoformat() for date in scene.dates),
        tuple(days_of(scene)),
        tuple(file_names(scene)),
        paths_of(scene),
        *_fingerprint(scene, mask, beside),
        int(np.prod(scene.shape)) * scene.dtype.itemsize,
    )


def opened(
    items: Sequence[Item], asked: Asked, offset: float | None = None, lattice: Sequence[float] | None = None
) -> tuple[Product, Scene | None]:
    """What encode would code of some inputs, described, and what masks it; None where nothing does.

    Args:
        items: the inputs.
        asked: the settings.
        offset: of the store that they are for, instead of the one asked for; likewise `lattice`.
        lattice: see `offset`.

    Raises:
        EozipError: they cannot be read, or not together.
    """
    bands, offset = asked.bands and list(asked.bands), asked.offset if offset is None else offset
    taking = asked.taking if lattice is None else {**asked.taking, "lattice": lattice}
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for item in items if not item.feature for path in item.paths]
        features = [json.loads(item.feature) for item in items if item.feature]
        if features:
            collection = Path(folder, "items.json")
            collection.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
            paths.append(str(collection))
        return product_and_mask(asked.mask, paths if len(paths) > 1 else paths[0], bands, offset, taking)


def paths_of(scene: Scene) -> tuple[str, ...]:
    """Every file that holds bands of a scene, sorted."""
    sources = [source for date in scene.sources for source in date]
    return tuple(sorted({path for one in sources for path in (one.path, *(path for path, _ in one.under))}))


def days_of(scene: Scene) -> list[str | None]:
    """[T] days of local solar time, None where the date is unknown."""
    profile = scene.profile
    place = {
        "height": profile.height,
        "width": profile.width,
        "transform": profile.transform,
        "crs": profile.crs,
    }
    return [None if date is None else solar_day(date, place).isoformat() for date in scene.dates]


def read_all(scene: Scene) -> None:
    """Read every pixel, a few rows at a time, and keep none.

    Raises:
        InputError: some cannot be read.
    """
    dates, _, height, width = scene.shape
    with open_reader(scene) as reader:
        for date in range(dates):
            for row in range(0, height, _ROWS):
                reader.read(slice(date, date + 1), slice(row, min(row + _ROWS, height)), slice(0, width))


def _fingerprint(
    scene: Scene, mask: Scene | None, beside: Sequence[Scene]
) -> tuple[str, int, tuple[tuple[str, str], ...]]:
    """Of the files of bands and mask, which a file that is written again changes; bytes of the bands' files; all marks."""
    digest = hashlib.sha256()
    for one in (scene,) if mask is None else (scene, mask):
        for path in paths_of(one):
            digest.update(os.path.basename(path).encode("utf-8", "surrogateescape"))
        for file in _files_of(one):
            digest.update(_mark(file).encode())
        digest.update(repr((one.profile, one.dates)).encode())
    total = sum(os.path.getsize(file) for file in _files_of(scene))
    every = {file for one in (scene, *beside, *(() if mask is None else (mask,))) for file in _files_of(one)}
    return digest.hexdigest()[:32], total, tuple((file, _mark(file)) for file in sorted(every))


def _files_of(scene: Scene) -> list[str]:
    """Files on this machine that hold bands of a scene, archives that these lie in among them; sorted."""
    found = set()
    for path in paths_of(scene):
        file = re.sub(r"^/vsi(?:zip|tar)/|[{}]", "", path) if path.startswith("/vsi") else path
        while len(file) > 1 and not os.path.isfile(file) and path.startswith("/vsi"):
            file = os.path.dirname(file)
        if os.path.isfile(file):
            found.add(file)
    return sorted(found)


def _mark(path: str) -> str:
    """Size, beginning and end of a file, short."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        digest = hashlib.sha256(f"{size}".encode() + file.read(_EDGE))
        file.seek(max(0, size - _EDGE))
        digest.update(file.read(_EDGE))
    return digest.hexdigest()[:32]


def grid_text(scene: Scene, factors: Sequence[int]) -> str:
    """What all dates of a store share, as text: floats rounded, bands in any order."""
    profile = scene.profile
    crs = None if profile.crs is None else CRS.from_wkt(profile.crs)
    pixel = abs(profile.transform[0]) + abs(profile.transform[1]) if profile.transform else 1.0
    transform = profile.transform and [round(value / (1e-4 * pixel)) for value in profile.transform]
    return json.dumps(
        [
            [profile.height, profile.width],
            None if crs is None else crs.to_epsg() or profile.crs,
            transform,
            profile.dtype,
            profile.nodata,
            sorted(f"{name} {factor}" for name, factor in zip(scene.meanings, factors)),
        ]
    )


def _store_name(item: Item, scene: Scene, by: str) -> str:
    if by == "item":
        return f"{_plain(Path(item.name).stem)}.zarr"
    tile = tile_of(item, scene) if by == "tile" else None
    return f"{tile or _grid_name(scene)}.zarr"


def tile_of(item: Item, scene: Scene) -> str | None:
    """The MGRS tile that tags, or names of files and folders, tell."""
    tags = {name.upper(): value for date in scene.tags for name, value in date.get("", {}).items()}
    texts = [tags[name].upper().removeprefix("MGRS-") for name in _TILE_TAGS if name in tags]
    parts = item.paths[0].replace("\\", "/").split("/")
    for text in (*texts, *reversed(parts[-4:])):
        found = _TILE.findall(re.sub(r"[_.]", " ", text))
        if found:
            return str(found[-1])
    return None


def _grid_name(scene: Scene) -> str:
    """A name by place: CRS, corner, size of a pixel and of the scene."""
    profile = scene.profile
    epsg = None if profile.crs is None else CRS.from_wkt(profile.crs).to_epsg()
    size = f"{profile.height}x{profile.width}"
    if profile.transform is None:
        return f"grid_{size}"
    a, _, c, _, _, f = profile.transform
    return _plain(f"epsg{epsg or 'none'}_{c:.7g}_{f:.7g}_{abs(a):.6g}_{size}")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip(".") or "item"
