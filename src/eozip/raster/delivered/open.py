"""From what someone holds to a Product: each input is read by the reader of its layout; of the deliveries bands are chosen,
dates put in order and made alike, tiles of one day merged, and offsets told by band and date.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from eozip.arguments import choice, listed, real
from eozip.errors import InputError
from eozip.raster.delivered.bandfiles import file_deliveries
from eozip.raster.delivered.delivery import Bad, BesideFile, Delivery, by_tags
from eozip.raster.delivered.names import is_safe, is_stac
from eozip.raster.delivered.safe import is_safe_zip, safe_delivery
from eozip.raster.delivered.stac import stac_deliveries
from eozip.raster.files import PathLike, is_elsewhere, notes_on, printable, settled
from eozip.raster.header import Band, Header, profile_of, with_masks, without_alpha
from eozip.raster.open import ChosenDate, chosen_date, same_field, scene_of, time_order
from eozip.raster.product import Layer, Product
from eozip.raster.scene import Lattice, Scene
from eozip.sensors.sensor import canonical_name

SOLAR_DAY = "solar-day"
STEP = 1e-4  # of reflectance
_BASE = -1000  # DN of value 0 is 1000, as in Sentinel-2's products: values down to -0.0999 are told, and 0 is kept for NaN
_DATES_MAY_DIFFER = ("offsets",)  # each date keeps its own


@dataclass(frozen=True)
class Joining:
    """How dates become one product.

    Attributes:
        bands: names or 1-based positions, in the order wanted; None: all.
        offset: DN added, of all bands and dates; None: as each delivery says.
        mosaic: "solar-day" merges what one place has of one solar day; None: nothing is merged.
        harmonise: whether all dates are brought to one offset, the largest.
        lattice: step, or step and base, of the lattice on which floats are coded; None: `STEP`, and `_BASE` steps below 0.
    """

    bands: Sequence[str | int] | None = None
    offset: float | None = None
    mosaic: str | None = None
    harmonise: bool = False
    lattice: tuple[float, float | None] | None = None


def assemble(deliveries: Sequence[Delivery], how: Joining, notes: Sequence[str], bad: Bad) -> Product:
    """Join deliveries as the dates of one product.

    Args:
        deliveries: at least one.
        how: what is asked for.
        notes: sentences for a person.
        bad: what becomes of dates that lack bands which most have.

    Raises:
        InputError: bands that a date lacks, grids that differ, or offsets that cannot be told.
    """
    datings = settled([one.dating for one in deliveries])
    said = [*notes, *notes_on(datings, [printable(one.name) for one in deliveries])]
    order = time_order(datings)
    dated = [replace(deliveries[i], dating=datings[i]) for i in order]
    picked = [_chosen(one, how) for one in dated]
    merged = _merged(picked) if how.mosaic == SOLAR_DAY else picked
    if bad.skip:
        merged = _complete(merged, bad)
    _check_bands(merged)
    when = [one.delivery.dating.date for one in merged]
    scenes = [_scene(merged, grid, when, how) for grid in range(len(merged[0].grids))]
    scenes = [_harmonised(scene) for scene in scenes] if how.harmonise else scenes
    first = merged[0].delivery
    sensors = {one.delivery.sensor for one in merged}
    sizes = [one.files_bytes for one in deliveries]
    kinds = dict.fromkeys(one.delivery.kind for one in merged)
    said += [note for one in merged for note in one.delivery.notes]
    said += [note for scene in scenes for note in scene.notes]
    layers, more = _layers(merged)
    return Product(
        scenes=tuple(replace(scene, notes=()) for scene in scenes),
        acquisitions=tuple(replace(one.delivery.facts, sensing=day) for one, day in zip(merged, when)),
        beside=tuple(layers),
        kind=" + ".join(kinds),
        sensor=first.sensor if len(sensors) == 1 else None,
        files_bytes=None if None in sizes else sum(size or 0 for size in sizes),
        scale=first.scale if len({one.delivery.scale for one in merged}) == 1 else None,
        notes=tuple(dict.fromkeys([*said, *more])),
    )


# --- bands of one date ---


@dataclass(frozen=True)
class _Picked:
    """One delivery with the bands that are taken.

    Attributes:
        delivery: what was delivered.
        grids: chosen bands, the finest grid first.
    """

    delivery: Delivery
    grids: tuple[ChosenDate, ...]

    @property
    def bands(self) -> list[Band]:
        return [band for grid in self.grids for band in grid.header.bands]


def _chosen(delivery: Delivery, how: Joining) -> _Picked:
    headers = delivery.headers
    if len(headers) == 1:
        grids = [chosen_date(headers[0], how.bands)]
    else:
        wanted = None if how.bands is None else _named(delivery, how.bands)
        grids = [grid for header in headers if (grid := _of_grid(header, wanted)) is not None]
    if how.offset is not None:
        grids = [_given(grid, how.offset) for grid in grids]
    return _Picked(delivery, tuple(grids))


def _named(delivery: Delivery, wanted: Sequence[str | int]) -> list[Band]:
    """Bands of several grids by name, or by position in the order in which they are listed, the finest grid first."""
    have = list(delivery.bands)
    found = []
    for one in wanted:
        if isinstance(one, int):
            matches = have[one - 1 : one] if one >= 1 else []
        else:
            matches = [b for b in have if b.name == one] or [b for b in have if _means(b, one)]
        if len(matches) != 1:
            names = ", ".join(str(band.name) for band in have)
            raise InputError(f"{delivery.name}: no band {one!r}; it has {names}")
        found.append(matches[0])
    return found


def _means(band: Band, name: str) -> bool:
    code = canonical_name(name)
    return code is not None and code == band.code


def _of_grid(header: Header, wanted: Sequence[Band] | None) -> ChosenDate | None:
    bands = without_alpha(header.bands) if wanted is None else [b for b in wanted if b in header.bands]
    if not bands:
        return None
    masked, notes = with_masks(header, bands)
    dated = replace(header, bands=tuple(masked))
    return ChosenDate(dated, profile_of(dated), notes)


def _given(grid: ChosenDate, offset: float) -> ChosenDate:
    bands = tuple(replace(band, radiometric=offset) for band in grid.header.bands)
    return replace(grid, header=replace(grid.header, bands=bands))


# --- several dates ---


def _check_bands(dates: Sequence[_Picked]) -> None:
    """Every date has the bands of the first, on as many grids.

    Raises:
        InputError: names the date and the band.
    """
    first = dates[0]
    expected = _keys(first)
    for other in dates[1:]:
        got = _keys(other)
        lacking, more = expected - got, got - expected
        if lacking or more:
            one, two = (first, other) if more else (other, first)
            names = " ".join(sorted(map(str, more or lacking)))
            common = ",".join(sorted(map(str, expected & got)))
            hint = f"choose those that all dates have, --bands {common}" if common else "leave it out"
            raise InputError(
                f"{_when(one)}: no band {names}, which {_when(two)} has; {hint}, or fetch what is missing"
            )
        if len(other.grids) != len(first.grids):
            raise InputError(
                f"{_when(other)}: its bands are on {len(other.grids)} grids, those of {_when(first)} on {len(first.grids)}; "
                "dates of one store share their grids: leave one out, or warp it (gdalwarp)"
            )


def _complete(dates: Sequence[_Picked], bad: Bad) -> list[_Picked]:
    """The dates that have every band which most dates have."""
    counts = Counter(key for one in dates for key in _keys(one))
    usual = {key for key, count in counts.items() if 2 * count > len(dates)}
    lacking = {i: usual - _keys(one) for i, one in enumerate(dates) if usual - _keys(one) and _keys(one)}
    for i, bands in lacking.items():
        bad.left_out.append(f"left out: {_when(dates[i])}: no band {' '.join(sorted(map(str, bands)))}")
    return [one for i, one in enumerate(dates) if i not in lacking]


def _keys(one: _Picked) -> set[str | None]:
    codes = {band.code or band.name for band in one.bands}
    return codes if len(codes) == len(one.bands) and None not in codes else set()


def _when(one: _Picked) -> str:
    day = one.delivery.dating.date
    return printable(one.delivery.name) + ("" if day is None else f" ({day:%Y-%m-%d})")


def _scene(dates: Sequence[_Picked], grid: int, when: Sequence[datetime | None], how: Joining) -> Scene:
    chosen = [one.grids[grid] for one in dates]
    scene = scene_of(chosen, when, may_differ=_DATES_MAY_DIFFER)
    table = tuple(_offsets(one, scene) for one in chosen)
    counts = Counter(value for of_date in table for value in of_date)
    commonest = max(counts, key=lambda value: (counts[value], value))
    is_one = len(counts) == 1
    if scene.dtype.kind == "f":
        return _on_lattice(scene, how)
    specials = {dn for one in dates for dn in one.delivery.facts.specials.values()}
    return replace(
        scene,
        offset=commonest,
        offsets=None if is_one else table,
        specials=tuple(sorted(specials)),
    )


def _on_lattice(scene: Scene, how: Joining) -> Scene:
    """Floats as DN: value = DN * step + base, NaN and nodata as DN 0."""
    step, base = how.lattice or (STEP, None)
    low = _BASE * step if base is None else base
    nodata = scene.profile.nodata
    if nodata is not None and math.isinf(nodata):
        raise InputError(
            f"{scene.paths[0]}: nodata {nodata} cannot be kept; set another (gdal_edit.py -a_nodata nan)"
        )
    lattice = Lattice(step, low, scene.profile.dtype, math.nan if nodata is None else float(nodata))
    offset = float(round(-low / step)) + (how.offset or 0.0)
    profile = replace(scene.profile, dtype="uint16", nodata=0)
    note = (
        f"values of {lattice.dtype} are coded on a lattice of step {step:g}, from {low + step:g} on: each comes back within "
        f"{step / 2:g} of what it was before any loss of the codec, as float32; NaN exactly"
    )
    return replace(
        scene,
        profile=profile,
        lattice=lattice,
        fill=0,
        offset=offset,
        offsets=None,
        notes=(*scene.notes, note),
    )


def _offsets(one: ChosenDate, scene: Scene) -> tuple[float, ...]:
    """[C] of one date, in the order of the scene's bands."""
    codes, names = [b.code for b in one.header.bands], [b.name for b in one.header.bands]
    found = [_offset(band) for band in one.header.bands]
    for have, want in ((codes, scene.codes or ()), (names, scene.band_names)):
        if (
            None not in have
            and len(set(have)) == len(have)
            and sorted(map(str, have)) == sorted(map(str, want))
        ):
            return tuple(found[have.index(key)] for key in want)
    return tuple(found)


def _offset(band: Band) -> float:
    if band.radiometric is not None:
        return band.radiometric
    told = by_tags(band.scale, band.offset, f"{band.source.path}: GDAL offset")
    return told[0].dn if told else 0.0


def harmonised_to(product: Product, offset: float) -> Product:
    """All dates and bands of a product brought to one radiometric offset: that of a store which they are to join."""
    return replace(product, scenes=tuple(_harmonised(scene, offset) for scene in product.scenes))


def _harmonised(scene: Scene, target: float | None = None) -> Scene:
    """All dates and bands brought to one offset, the largest unless told: dark pixels stay above 0, and nothing is lost."""
    known = scene.band_offsets
    if scene.lattice is not None or (scene.offsets is None and target in (None, scene.offset)):
        return scene
    target = max(value for of_date in known for value in of_date) if target is None else target
    before = scene.shifts or ((0,) * scene.shape[1],) * scene.shape[0]
    shifts = tuple(
        tuple(shift + round(target - value) for shift, value in zip(*of_date, strict=True))
        for of_date in zip(before, known, strict=True)
    )
    return replace(scene, offset=target, offsets=None, shifts=shifts)


# --- several files of one solar day ---


def _merged(dates: Sequence[_Picked]) -> list[_Picked]:
    groups: dict[Any, list[_Picked]] = {}
    for i, one in enumerate(dates):
        day = one.delivery.dating.date
        key = (i,) if day is None else (solar_day(day, one.grids[0].header.grid), one.delivery.tile)
        groups.setdefault(key, []).append(one)
    return [_mosaic(group) for group in groups.values()]


def solar_day(when: datetime, grid: Mapping[str, Any]) -> date:
    """The day of local solar time in the middle of a raster, of which `grid` has height, width, transform and crs."""
    return (when + timedelta(hours=_longitude(grid) / 15)).date()


def _longitude(grid: Mapping[str, Any]) -> float:
    if grid["transform"] is None or grid["crs"] is None:
        return 0.0
    a, b, c, d, e, f = grid["transform"]
    x, y = grid["width"] / 2, grid["height"] / 2
    try:
        found = transform(CRS.from_wkt(grid["crs"]), "EPSG:4326", [c + a * x + b * y], [f + d * x + e * y])
    except (CRSError, RasterioError):
        return 0.0
    return float(found[0][0])


def _mosaic(group: list[_Picked]) -> _Picked:
    """One date out of several: the first delivery's pixels, and where it has nodata, those of the next."""
    first, *others = group
    if not others:
        return first
    _check_bands(group)
    for other in others:
        _check_mergeable(first, other)
    grids = [_over(grid, [other.grids[k] for other in others]) for k, grid in enumerate(first.grids)]
    products = [one.delivery.facts.product for one in group]
    facts = replace(
        first.delivery.facts, product=" + ".join(dict.fromkeys(name for name in products if name)) or None
    )
    note = f"merged into one date: {', '.join(_when(one) for one in group)}"
    beside = _beside_over([one.delivery for one in group])
    delivery = replace(first.delivery, facts=facts, beside=beside, notes=(*first.delivery.notes, note))
    return _Picked(delivery, tuple(grids))


def _check_mergeable(first: _Picked, other: _Picked) -> None:
    for one, two in zip(first.grids, other.grids):
        for field in ("height", "width", "crs", "transform", "dtype", "nodata"):
            expected, got = getattr(one.profile, field), getattr(two.profile, field)
            if not same_field(field, expected, got):
                raise InputError(
                    f"{_when(other)} and {_when(first)} are of one solar day, but differ in {field}: {got} and {expected}; "
                    "only files of one tile can be merged: leave one out, or encode without --mosaic"
                )
        if one.profile.nodata is None:
            raise InputError(
                f"{_when(first)}: --mosaic needs a nodata value that says where a file has no pixels; set it with "
                "gdal_edit.py -a_nodata 0"
            )
        if [_offset(b) for b in _matched(one, two)] != [_offset(b) for b in one.header.bands]:
            raise InputError(
                f"{_when(other)} and {_when(first)} are of one solar day, but differ in their radiometric offsets; encode "
                "without --mosaic"
            )


def _matched(one: ChosenDate, two: ChosenDate) -> list[Band]:
    """The bands of the second in the order of the first."""
    by_key = {band.code or band.name: band for band in two.header.bands}
    return [by_key[band.code or band.name] for band in one.header.bands]


def _over(grid: ChosenDate, below: Sequence[ChosenDate]) -> ChosenDate:
    matched = [_matched(grid, other) for other in below]
    bands = tuple(_with_under(band, [m[i] for m in matched]) for i, band in enumerate(grid.header.bands))
    return replace(grid, header=replace(grid.header, bands=bands))


def _with_under(band: Band, below: Sequence[Band]) -> Band:
    under = tuple((other.source.path, other.source.index) for other in below)
    return replace(band, source=replace(band.source, under=under))


def _beside_over(group: Sequence[Delivery]) -> tuple[BesideFile, ...]:
    """Layers that all have, one over the other where they have a nodata value."""
    found = []
    for layer in group[0].beside:
        below = [other for one in group[1:] for other in one.beside if other.name == layer.name]
        band = layer.header.bands[0]
        if len(below) == len(group) - 1:
            band = _with_under(
                replace(band, nodata=band.nodata or 0), [other.header.bands[0] for other in below]
            )
        found.append(replace(layer, header=replace(layer.header, bands=(band,))))
    return tuple(found)


# --- layers ---


def _layers(dates: Sequence[_Picked]) -> tuple[list[Layer], list[str]]:
    """Layers by name, of the dates that have them."""
    names = dict.fromkeys(layer.name for one in dates for layer in one.delivery.beside)
    found, notes = [], []
    for name in names:
        having = [
            (t, layer, one.delivery)
            for t, one in enumerate(dates)
            for layer in one.delivery.beside
            if layer.name == name
        ]
        headers = [_layer_date(layer.header) for _, layer, _ in having]
        when = [delivery.dating.date for *_, delivery in having]
        try:
            scene = scene_of(headers, when)
        except InputError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        first = having[0][1]
        found.append(Layer(name, first.kind, scene, tuple(t for t, *_ in having), dict(first.attributes)))
    return found, notes


def _layer_date(header: Header) -> ChosenDate:
    return ChosenDate(header, profile_of(header), [])


_DEPTH = 4  # folders that are looked into for products: place/year/month/product.SAFE


def open_product(
    inputs: PathLike | Sequence[PathLike],
    bands: Sequence[str | int] | None = None,
    offset: float | None = None,
    *,
    mosaic: str | None = None,
    harmonise: bool = False,
    lattice: float | Sequence[float] | None = None,
    assets: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> Product:
    """Describe what someone holds; reads no pixels.

    Args:
        inputs: GeoTIFFs (dates), folders of them, files of one band each, .SAFE products (folder, zip or their XML),
            STAC items or item collections (file or URL).
        bands: names or 1-based positions of the bands to take; see `eozip.raster.open_scene`.
        offset: DN added to the offset-free DN, of all bands and dates; None takes what the products say.
        mosaic: "solar-day" merges several deliveries of one tile and one solar day into one date.
        skip_bad: leave out what is damaged or incomplete, which is told in the product; all pixels are read for that.
        lattice: step, or step and value of DN 0, of the lattice on which floats are coded; None: 1e-4, from -0.0999 on.
        assets: keys of the assets of STAC items to take; None: the bands, and what is known to lie beside.
        harmonise: bring all dates to one radiometric offset, the largest; else each keeps its own.

    Raises:
        InputError: nothing to read, or something that cannot be kept; the message says what and what to do.
    """
    bands = choice("bands", bands)
    known = None if offset is None else real("offset", offset)
    if known is not None and not math.isfinite(known):
        raise InputError(f"expected a whole number of DN for offset, got {offset}")
    keys = check_taking(mosaic, harmonise, lattice, assets, skip_bad)
    bad = Bad(skip_bad)
    deliveries, notes = _deliveries(inputs, bands, known, keys, bad)
    if not deliveries:
        raise InputError(f"every date is damaged or incomplete: {'; '.join(bad.left_out)}")
    product = assemble(deliveries, Joining(bands, known, mosaic, harmonise, lattice_of(lattice)), notes, bad)
    return replace(product, left_out=tuple(bad.left_out), notes=(*product.notes, *bad.left_out))


def check_taking(
    mosaic: object, harmonise: object, lattice: object, assets: object, skip_bad: object
) -> list[str] | None:
    """Refuse what says nothing about how inputs are taken; see `open_product`.

    Returns:
        the keys of the assets, None for all.

    Raises:
        InputError: see above.
    """
    if mosaic not in (None, SOLAR_DAY):
        raise InputError(f"mosaic: expected {SOLAR_DAY!r}, got {mosaic!r}")
    if not isinstance(skip_bad, bool) or not isinstance(harmonise, bool):
        raise InputError(
            f"skip_bad, harmonise: expected True or False, got {skip_bad!r:.80}, {harmonise!r:.80}"
        )
    lattice_of(lattice)  # type: ignore[arg-type]
    return None if assets is None else [str(key) for key in listed("assets", assets)]


def lattice_of(asked: float | Sequence[float] | None) -> tuple[float, float | None] | None:
    """Step and base of a lattice as a caller asks for it.

    Raises:
        InputError: no numbers, or a step that is not above 0.
    """
    if asked is None:
        return None
    given = [asked] if isinstance(asked, int | float) else listed("lattice", asked)
    numbers = [real("lattice", value) for value in given]
    if not 1 <= len(numbers) <= 2 or not all(map(math.isfinite, numbers)) or numbers[0] <= 0:
        raise InputError(f"lattice: expected a step above 0, or a step and the value of DN 0, got {asked!r}")
    return numbers[0], (numbers[1] if len(numbers) == 2 else None)


def _deliveries(
    inputs: PathLike | Sequence[PathLike],
    bands: Sequence[str | int] | None,
    offset: float | None,
    assets: Sequence[str] | None,
    bad: Bad,
) -> tuple[list[Delivery], list[str]]:
    given: list[Any] = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    found: list[Delivery] = []
    plain: list[PathLike] = []
    notes: list[str] = []
    for path in given:
        products = _products(path)
        if isinstance(path, str | os.PathLike) and is_stac(printable(path)):
            items, said = stac_deliveries(os.fspath(path), _codes(bands), offset, assets, bad)
            found, notes = [*found, *items], [*notes, *said]
        elif products:
            for product in products:
                found += bad.tried(partial(safe_delivery, product, _codes(bands), offset))
        else:
            plain.append(path)
    if not plain and (found or bad.left_out):
        return found, notes
    more, said = file_deliveries(plain if found or bad.left_out else inputs, offset, bad)
    return [*found, *more], [*notes, *said]


def _products(path: PathLike) -> list[str]:
    """The .SAFE products that a path names: itself, or those in a folder."""
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes) or is_elsewhere(os.fspath(path)):
        return []
    name = os.fspath(path)
    if not os.path.exists(name):
        return []
    if _is_safe(name):
        return [name]
    if not os.path.isdir(name):
        return []
    return [str(p) for p in sorted(_below(Path(name), _DEPTH)) if _is_safe(str(p))]


def _is_safe(path: str) -> bool:
    return is_safe(path) or (path.lower().endswith(".zip") and is_safe_zip(path))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """What may be a .SAFE product, in a folder or the folders in it."""
    for inner in folder.iterdir():
        if inner.suffix.upper() in (".SAFE", ".ZIP"):
            yield inner
        elif depth > 1 and inner.is_dir() and not inner.name.startswith(".") and inner.suffix != ".zarr":
            yield from _below(inner, depth - 1)


def _codes(bands: Sequence[str | int] | None) -> list[str] | None:
    """Canonical names of the bands wanted; None where they are not all known by name."""
    codes = [canonical_name(one) if isinstance(one, str) else None for one in bands or ()]
    return [code for code in codes if code is not None] if codes and None not in codes else None
