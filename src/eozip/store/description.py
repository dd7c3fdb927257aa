"""What a store says about itself, read from its metadata alone (without torch), and whether other pixels lie on its grid."""

from __future__ import annotations

import builtins
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from eozip import arguments
from eozip.arguments import Place, PlaceLike, counted, place
from eozip.bitstream import fits, size_problem
from eozip.codecs.registry import ANY_SENSOR
from eozip.errors import FormatError, InputError, LimitError
from eozip.raster import Profile, Scene
from eozip.raster.open import same_field
from eozip.raster.scene import Tags
from eozip.sensors import get
from eozip.sensors import names as sensor_names
from eozip.sensors.sensor import canonical_name
from eozip.store.codec import NAME, EozipChunkCodec
from eozip.store.documents import (
    ARRAY,
    NOT_OURS,
    RECORD,
    ArrayDocument,
    GroupDocument,
    ProductRecord,
    Record,
    RecordDocument,
    checked,
    read,
)
from eozip.store.files import GROUP, SELF, StoreFiles, store_files
from eozip.store.geozarr import coarser
from eozip.store.grid import (
    Grid,
    NativeGrid,
    Shape,
    alignment,
    band_factors,
    factors,
    regular_groups,
    samples,
)
from eozip.store.joined import grid_name
from eozip.store.metadata import labels_of

_EOPF = ("s2-l2a", "s2-l1c")  # sensors whose bands EOPF has names for
_MAX_STEM = 200  # of the 255 bytes that a file name may have
_DEFAULT_SCALE = 1e-4  # reflectance of a DN where nothing tells
_PER_BAND = ("band_names", "scales", "offsets", "units", "colorinterp")
_MAX_CHUNKS = 1 << 24  # of a store: every one is looked at
_MAX_PER_SHARD = 1 << 20  # chunks


@dataclass(frozen=True)
class BandGrid:
    """Bands of a store that lie on one grid.

    Attributes:
        name: "r10m", "r20m", ... where its cells have whole metres, else such as "x2".
        resolution: as streams have it; 0 in a store of one grid.
        factor: pixels of the array along one of its cells.
        bands: positions in the array.
        height: rows of cells.
        width: columns of cells.
        transform: affine, or None.
    """

    name: str
    resolution: int
    factor: int
    bands: tuple[int, ...]
    height: int
    width: int
    transform: tuple[float, ...] | None


@dataclass(frozen=True)
class Description:
    """A store without its pixels.

    Attributes:
        path: where it lies.
        grid: shape, chunks, shards.
        dtype: numpy name.
        fill_value: DN of chunks that are not stored.
        codec: codec and configuration.
        facts: what the writer measured and promised, ready for JSON; docs/store.md says what each is.
        profile: the source's raster profile, its bands in the source's order.
        band_order: [C] for each band of the source its position in the array.
        tags: [T] metadata by date; `band_tags` [C] by band.
        files: [T] names of the source files.
        dates: [T] ISO dates, None where unknown.
        masks: [T] whether the source file has a mask, which decoding writes again from the nodata pixels.
        groups: dates in each group that came together, in order; an append adds groups.
        shown: dates that readers of plain Zarr see; more than there are here where another program added some, or began to.
        state: `StoreFiles.state` when it was read.
        product: what is recorded of a product beside its pixels; None: it was no more than a scene.
    """

    path: Place
    grid: Grid
    dtype: str
    fill_value: int
    codec: EozipChunkCodec
    facts: dict[str, Any]
    profile: Profile
    band_order: tuple[int, ...]
    tags: tuple[Tags, ...]
    band_tags: tuple[dict[str, str], ...]
    files: tuple[str, ...]
    dates: tuple[str | None, ...]
    masks: tuple[bool, ...]
    groups: tuple[int, ...]
    shown: int
    state: builtins.bytes

    @property
    def bytes(self) -> int:
        """Size of everything in the store at this moment."""
        with store_files(self.path) as files:
            if isinstance(self.path, Path) or self.path.is_listed:
                return files.total_bytes()
            shards = (f"{ARRAY}/{self.grid.key(shard)}" for shard in self.grid.shards())
            return sum(files.size(key) or 0 for key in (*SELF, *shards))

    product: ProductRecord | None = None

    @property
    def grids(self) -> tuple[BandGrid, ...]:
        """The grids on which its bands were measured, finest first."""
        bands = self.grid.shape[1]
        native = self.codec.grids or (NativeGrid(1, tuple(range(bands))),)
        return tuple(
            BandGrid(
                name=grid_name(self.profile, factor),
                resolution=one.resolution if self.codec.grids else 0,
                factor=factor,
                bands=one.bands,
                height=-(-self.profile.height // factor),
                width=-(-self.profile.width // factor),
                transform=None if self.profile.transform is None else coarser(self.profile.transform, factor),
            )
            for one, factor in zip(native, factors(native), strict=True)
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """[C] what its bands are called, in the array's order."""
        if self.product is not None:
            return self.product.labels
        places = [self.band_order.index(position) for position in range(len(self.band_order))]
        names = [self.profile.band_names[i] for i in places]
        codes = [canonical_name(name) if name else None for name in names]
        try:
            return labels_of(names, codes, self.codec.sensor)
        except InputError:  # a sensor of one's own that is not here
            return labels_of(names, codes, ANY_SENSOR)

    @property
    def variables(self) -> tuple[str, ...]:
        """[C] names of variables for its bands: as EOPF has them ("b02") where they are Sentinel-2's, else its labels'."""
        is_known = self.codec.sensor in _EOPF
        names = [(canonical_name(label) if is_known else None) or label for label in self.labels]
        return tuple(name.lower() for name in names)

    def stem(self, t: int) -> str:
        """What a file of all bands of a date is called: as its product, its file, or what names of its files share."""
        named = None if self.product is None else self.product.acquisitions[t].get("product")
        if not isinstance(named, str) or not named.strip(" ."):
            stems = {Path(name).stem for name in (self.product.names[t] if self.product else ())}
            alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*stems, strict=False))
            shared = re.sub(r"[^A-Za-z0-9]*[A-Za-z]*0?$", "", "".join(letters[0] for letters in alike))
            day = (self.dates[t] or "").partition("T")[0]
            return Path(self.files[t]).stem if len(stems) < 2 else shared or day or Path(self.files[t]).stem
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", named.replace(" + ", "+")).removesuffix(".SAFE")[:_MAX_STEM]

    @property
    def scale(self) -> float:
        """Reflectance of one DN."""
        if self.product is not None and self.product.scale is not None:
            return float(self.product.scale)
        sensor = self.codec.sensor
        return float(get(sensor).scale) if sensor in sensor_names() else _DEFAULT_SCALE

    @property
    def samples(self) -> int:
        """What was measured, all bands and dates."""
        return samples(self.grid.shape, self.codec.grids)

    @property
    def offsets(self) -> tuple[tuple[float, ...], ...]:
        """[T][C] radiometric offsets, bands in the array's order."""
        if self.product is None:
            return ((float(self.codec.offset),) * self.grid.shape[1],) * self.grid.shape[0]
        places = [self.band_order.index(position) for position in range(len(self.band_order))]
        return tuple(tuple(of_date[i] for i in places) for of_date in self.product.offsets)

    @property
    def source_factors(self) -> tuple[int, ...]:
        """[C] the factor of each band, in the source's order; empty where all lie on one grid."""
        if not self.codec.grids:
            return ()
        by_position = band_factors(self.codec.grids, self.grid.shape[1])
        return tuple(by_position[position] for position in self.band_order)


def describe(path: PlaceLike) -> Description:
    """Read a store's metadata.

    Dates that another program added, or began to add, are not among those described: see `eozip.store.repair_store`.

    Raises:
        FormatError: no store, or metadata that this version cannot read.
    """
    with store_files(place("store", path, reading=True)) as files:
        return described(files)


def described(files: StoreFiles) -> Description:
    """As `describe`, of an open store."""
    group = read(files, GROUP, GroupDocument)
    array = read(files, f"{ARRAY}/{GROUP}", ArrayDocument)
    record = _record(files, group)
    geotiff, facts = record.geotiff, record.eozip
    grid = _grid(files.path, array, len(geotiff.dates))
    _check_record(files.path, record, grid, array.data_type)
    codec = EozipChunkCodec.from_dict(array.codecs[0].configuration.codecs[0])
    _check_grids(files.path, codec, grid)
    for name in ("nodata", "fill_value"):
        value = codec.nodata if name == "nodata" else array.fill_value
        if value is not None and not fits(value, array.data_type):
            raise FormatError(
                f"{files.path}: expected {name} to be a value of {array.data_type}, got {value}; {NOT_OURS}"
            )
    return Description(
        path=files.path,
        grid=grid,
        dtype=array.data_type,
        fill_value=array.fill_value,
        codec=codec,
        facts=facts.model_dump(mode="json", exclude_unset=True),
        profile=Profile(**{field.name: getattr(geotiff.profile, field.name) for field in fields(Profile)}),
        band_order=geotiff.band_order,
        tags=geotiff.tags,
        band_tags=geotiff.band_tags,
        files=geotiff.files,
        dates=geotiff.dates,
        masks=geotiff.masks or (False,) * grid.shape[0],
        groups=facts.groups or regular_groups(0, grid.shape[0], grid.chunk[0]),
        shown=_shown(files.path, group, array),
        state=files.state(),
        product=record.product,
    )


def _record(files: StoreFiles, group: GroupDocument) -> Record:
    """The record that the group's document commits; its own file where that was replaced by another program.

    An append replaces the group's document last: if it was killed before, the record's own file may be ahead.
    """
    key = f"{RECORD}/{GROUP}"
    committed = group.consolidated_metadata.metadata.get(RECORD) if group.consolidated_metadata else None
    if committed is None:
        return read(files, key, RecordDocument).attributes
    return checked(RecordDocument, committed, f"{files.path}, {key} within {GROUP}").attributes


def _shown(path: Place, group: GroupDocument, array: ArrayDocument) -> int:
    consolidated = group.consolidated_metadata.metadata if group.consolidated_metadata else {}
    if ARRAY not in consolidated:
        return array.shape[0]
    return checked(ArrayDocument, consolidated[ARRAY], f"{path}, {ARRAY}/{GROUP} within {GROUP}").shape[0]


def _grid(path: Place, array: ArrayDocument, dates: int) -> Grid:
    """Chunks and shards of so many dates: those that the record knows.

    Raises:
        FormatError: shapes that contradict each other.
        LimitError: more than any store has.
    """
    inner = array.codecs[0].configuration
    chunk, shard = inner.chunk_shape, array.chunk_grid.configuration.chunk_shape
    if [codec.get("name") for codec in inner.codecs] != [NAME]:
        raise FormatError(f"{path}: expected chunks of {NAME}, got {inner.codecs!r:.80}; {NOT_OURS}")
    if [codec.get("name") for codec in inner.index_codecs] != ["bytes", "crc32c"]:
        raise FormatError(
            f"{path}: expected an index of bytes and crc32c, got {inner.index_codecs!r:.80}; {NOT_OURS}"
        )
    if any(s % c for s, c in zip(shard, chunk)) or not array.shape[1] == chunk[1] == shard[1]:
        raise FormatError(
            f"{path}: expected shards that are multiples of chunks, with all {array.shape[1]} bands, got {shard} and "
            f"{chunk}; {NOT_OURS}"
        )
    if array.shape[0] < dates:
        raise FormatError(f"{path}: expected {dates} dates, got {array.shape[0]}; {NOT_OURS}")
    grid = Grid((dates, *array.shape[1:]), chunk, _divided(shard, chunk))
    problem = size_problem(chunk)
    if problem:
        raise LimitError(f"{path}: chunks of {chunk}: {problem}; {NOT_OURS}")
    if grid.chunk_count > _MAX_CHUNKS or math.prod(grid.per_shard) > _MAX_PER_SHARD:
        raise LimitError(
            f"{path}: expected at most {_MAX_CHUNKS} chunks, {_MAX_PER_SHARD} in a shard, got {grid.chunk_count}, "
            f"{math.prod(grid.per_shard)}; {NOT_OURS}"
        )
    return grid


def _check_grids(path: Place, codec: EozipChunkCodec, grid: Grid) -> None:
    """Chunks must not cut cells of coarser grids."""
    bands, unit = sum(len(one.bands) for one in codec.grids), alignment(codec.grids)
    is_cut = any(
        side % unit and side < length for side, length in zip(grid.chunk[2:], grid.shape[2:], strict=True)
    )
    if codec.grids and (bands != grid.shape[1] or is_cut):
        raise FormatError(
            f"{path}: expected grids of {grid.shape[1]} bands and chunks of whole cells, multiples of {unit} pixels, got "
            f"{bands} bands and chunks of {grid.chunk}; {NOT_OURS}"
        )


def _divided(shard: Shape, chunk: Shape) -> Shape:
    t, c, h, w = (s // n for s, n in zip(shard, chunk))
    return t, c, h, w


def _check_record(path: Place, record: Record, grid: Grid, dtype: str) -> None:
    """Lists as long as there are dates or bands, on the array's grid."""
    dates, bands, height, width = grid.shape
    geotiff, facts, profile = record.geotiff, record.eozip, record.geotiff.profile
    expected = {"height": height, "width": width, "dtype": dtype}
    wrong = [
        f"{name}: expected {value}" for name, value in expected.items() if getattr(profile, name) != value
    ]
    by_band = ("band_names", "scales", "offsets", "units", "colorinterp")
    lists = [(name, getattr(profile, name), bands) for name in by_band]
    lists += [(name, getattr(facts, name), bands) for name in ("band_psnr", "valid_pixels")]
    lists += [(name, getattr(facts, name), dates) for name in ("date_psnr", "date_bits")]
    lists += [(name, getattr(geotiff, name), dates) for name in ("tags", "files")]
    lists += [(name, found, count) for name, found, count in _optional(record, dates, bands) if found]
    wrong += [
        f"{name}: expected {count} of them, got {len(found)}"
        for name, found, count in lists
        if len(found) != count
    ]
    if sorted(geotiff.band_order) != list(range(bands)):
        wrong.append(f"band_order: expected the numbers below {bands}, got {geotiff.band_order}")
    if facts.groups and sum(facts.groups) != dates:
        wrong.append(f"groups: expected {dates} dates in all, got {facts.groups}")
    if profile.nodata is not None and not fits(int(profile.nodata), dtype):
        wrong.append(f"nodata: expected a value of {dtype}, got {profile.nodata}")
    wrong += _product_faults(record, grid)
    if wrong:
        raise FormatError(f"{path}, {RECORD}/{GROUP}: {'; '.join(wrong[:3])}; {NOT_OURS}")


def _product_faults(record: Record, grid: Grid) -> list[str]:
    dates, bands = grid.shape[:2]
    if record.product is None:
        return []
    product = record.product
    lists = {name: getattr(product, name) for name in ("acquisitions", "offsets", "names")}
    wrong = [
        f"product.{name}: expected {dates} of them" for name, found in lists.items() if len(found) != dates
    ]
    by_band = [*product.offsets, *product.names]
    if any(len(found) != bands for found in [*by_band, product.labels]):
        wrong.append(f"product: expected offsets and names of {bands} bands for each date")
    return wrong


def _optional(record: Record, dates: int, bands: int) -> list[tuple[str, Sequence[Any] | None, int]]:
    return [
        ("band_tags", record.geotiff.band_tags, bands),
        ("masks", record.geotiff.masks, dates),
        ("date_dropped", record.eozip.date_dropped, dates),
    ]


def choose_dates(description: Description, wanted: Sequence[str | int] | None) -> list[int]:
    """Find the positions of the dates asked for.

    Args:
        description: the store.
        wanted: 1-based positions, or ISO dates or their beginnings ("2021-07"); None for all.

    Raises:
        InputError: no date fits; the message lists those there are.
    """
    if not wanted:
        return list(range(len(description.dates)))
    chosen = [position for item in wanted for position in _matching_dates(description, item)]
    return sorted(set(chosen))


def _matching_dates(description: Description, wanted: str | int) -> list[int]:
    text = str(wanted)
    count = len(description.dates)
    position = counted(wanted)
    if position is not None and 1 <= position <= count:
        return [position - 1]
    found = [i for i, date in enumerate(description.dates) if date is not None and date.startswith(text)]
    if not found:
        known = ", ".join(date or "a date that is unknown" for date in description.dates)
        dated = f"the store has {known}" if any(description.dates) else "the store's dates are unknown"
        raise InputError(f"expected a date or a position from 1 to {count}, got {text!r:.80}; {dated}")
    return found


_MAY_DIFFER = ("colorinterp", "units", "band_names")  # say nothing about pixels or place


def in_band_order(scene: Scene, found: Description) -> Scene:
    """Select the bands of a scene that a store has.

    Args:
        scene: with these bands, in any order.
        found: the store.

    Returns:
        The scene with the store's bands alone, in the order of the store's source; see `band_positions`.

    Raises:
        InputError: a band is missing.
    """
    positions = band_positions(scene, found)
    return scene if positions == list(range(scene.shape[1])) else scene.select(positions)


def band_positions(scene: Scene, found: Description) -> list[int]:
    """Positions in a scene of the bands that a store has, in the order of the store's source.

    They are matched by what they mean, else by equal names; where neither tells, as many bands as the store has are
    taken to be its bands in their order.

    Raises:
        InputError: bands that are others than the store's.
    """
    codes, own = band_codes(found), found.profile.band_names
    for expected, have in ((codes, scene.band_codes), (own, scene.band_names)):
        if expected and None not in expected and all(have.count(name) == 1 for name in expected):
            return [have.index(name) for name in expected]
    alike = [code in (None, mean) for code, mean in zip(scene.band_codes, codes)]
    if len(own) != scene.shape[1] or not (own == scene.band_names or all(alike)):
        raise InputError(
            f"{found.path}: band_names: expected {_listed(codes or own)} ({len(own)} bands), as the store has them, got "
            f"{_listed(scene.band_names)} ({scene.shape[1]} bands); choose or name bands with --bands (bands=)"
        )
    return list(range(len(own)))


def band_codes(found: Description) -> tuple[str, ...]:
    """[C] canonical names of a store's bands in the source's order; empty where its sensor is not known."""
    known = _sensor_names(found)
    return tuple(known[i] for i in found.band_order) if len(known) == len(found.band_order) else ()


def _sensor_names(found: Description) -> tuple[str, ...]:
    try:
        return get(found.codec.sensor).band_names
    except InputError:  # a sensor of one's own that is not here
        return ()


def check_same_pixels(found: Description, scene: Scene) -> None:
    """Compare what pixels to be held against each other must share: size, data type, place.

    Args:
        found: the store.
        scene: pixels to compare with it.

    Raises:
        InputError: they differ; the message names what.
    """
    for name in ("height", "width", "dtype", "crs", "transform"):
        expected, got = getattr(found.profile, name), getattr(scene.profile, name)
        if not same_field(name, expected, got):
            raise InputError(
                f"{scene.paths[0]}: {name}: expected {expected}, as {found.path} has it, got {got}; give the files that "
                "were encoded"
            )


def check_same_grids(found: Description, factors: tuple[int, ...]) -> None:
    """Compare the grids of bands with those of a store.

    Args:
        found: the store.
        factors: [C] of the bands, in the order of the store's source.

    Raises:
        InputError: they differ.
    """
    expected = found.source_factors or (1,) * len(factors)
    if factors != expected:
        raise InputError(
            f"{found.path}: expected bands on grids {list(expected)} times coarser than the finest, as the store has them, "
            f"got {list(factors)}; give the bands on the grids that they were encoded on"
        )


def check_same_source(expected: Profile, got: Profile, store: Place) -> None:
    """Compare what all dates of one store share.

    Args:
        expected: profile of the store's source.
        got: profile of the new dates, their bands in the same order.
        store: for the message.

    Raises:
        InputError: they differ; the message names what, expected and got.
    """
    for field in fields(Profile):
        here, there = getattr(expected, field.name), getattr(got, field.name)
        if field.name not in _MAY_DIFFER and not same_field(field.name, here, there):
            raise InputError(
                f"{store}: {field.name}: expected {here}, as the store has it, got {there}. Dates of one store share "
                "one grid and one set of bands: warp the new ones onto the store's grid, or encode them into a store "
                "of their own"
            )


def _listed(names: Sequence[str | None]) -> str:
    return " ".join(name or "-" for name in names)


def choose_bands(description: Description, wanted: Sequence[str | int] | None) -> list[int]:
    """Positions in the source's order of the bands asked for; None for all.

    Raises:
        InputError: no such band; the message lists those there are.
    """
    names, codes = description.profile.band_names, band_codes(description)
    return list(range(len(names))) if not wanted else [_band(names, codes, band) for band in wanted]


def _band(names: Sequence[str | None], codes: Sequence[str], wanted: str | int) -> int:
    code = canonical_name(str(wanted))
    if wanted not in names and code in codes:
        return codes.index(code)
    for i, name in enumerate(names):
        if name is not None and (name == wanted or (code is not None and canonical_name(name) == code)):
            return i
    position = arguments.counted(wanted)
    if position is not None and 1 <= position <= len(names):
        return position - 1
    raise InputError(
        f"expected a band of this store or a position from 1 to {len(names)}, got {wanted!r}; it has {names}"
    )


def select_bands(profile: Profile, picks: Sequence[int]) -> Profile:
    """The profile with bands `picks` (positions), in that order."""
    chosen: dict[str, Any] = {name: tuple(getattr(profile, name)[i] for i in picks) for name in _PER_BAND}
    return replace(profile, **chosen)
