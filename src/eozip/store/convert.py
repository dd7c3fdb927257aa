"""Files to stores in one call, as the command line does: names resolved, bands matched, then written or appended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import eozip
from eozip import arguments
from eozip.arguments import PlaceLike, place, real
from eozip.chunk.encoding import check_budgeted, default_codec
from eozip.chunk.options import DEFAULT_QUALITY, EncodeOptions
from eozip.codecs import registry
from eozip.codecs.base import Codec
from eozip.codecs.registry import ANY_SENSOR, LOSSLESS
from eozip.errors import InputError
from eozip.purpose import Classifier
from eozip.raster import Product, Scene, open_product, open_scene, with_fill
from eozip.raster.delivered.arrays import product_of
from eozip.raster.delivered.open import lattice_of
from eozip.raster.files import PathLike
from eozip.raster.masks import MaskReader, MaskSpec, open_mask, parse_mask, split_mask
from eozip.sensors import get, match_bands, named, overridden, own_order
from eozip.store import fitting
from eozip.store.append import Appended, append_store, unchecked
from eozip.store.codec import MAX_BUDGET, EozipChunkCodec, check_array
from eozip.store.container import check_target
from eozip.store.description import Description, describe
from eozip.store.files import is_zip_name
from eozip.store.fitting import SampleSizes, encode_fitting
from eozip.store.grid import GOP, alignment, plan, samples
from eozip.store.holding import Holding
from eozip.store.joined import Joined, as_product, joined, open_joined
from eozip.store.options import Places, Progress, StoreOptions, warn
from eozip.store.sampling import learned_classes, pixels_in, sampled
from eozip.store.writer import Summary, bytes_beside, encode_store, pixels_of

_SAMPLED = 12  # chunks from which the size of a store is told


@dataclass(frozen=True)
class Request:
    """What `encode_store` needs beside the scene.

    Attributes:
        codec: codec and its configuration.
        order: positions in the scene of the bands in the sensor's order.
        facts: provenance of the weights and of the program.
        notes: sentences that a person should read: bands that are taken for others than their names say.
    """

    codec: EozipChunkCodec
    order: tuple[int, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


def make_request(
    scene: Scene,
    codec: str | Path | Codec | None = None,
    *,
    quality: float | None = None,
    target_psnr: float | None = None,
    max_error: int | None = None,
    sensor: str | None = None,
    nodata: int | None = None,
    offset: int | None = None,
    gop: int = GOP,
    budgets: int | Sequence[int] | None = None,
    likely: str | None = None,
) -> Request:
    """Settle everything an encoding of `scene` depends on.

    Args:
        scene: the source.
        codec: full id or short name, a path of weights, a published name, or a codec; None:
            `eozip.chunk.encoding.default_codec` of the dates that a group has room for, as more may be appended.
        quality: 0 to 100; 60 where neither this nor `target_psnr` nor `max_error` is given.
        target_psnr: dB at peak 10,000 DN for each chunk.
        max_error: largest absolute error of any pixel, DN.
        sensor: whose bands these are, whatever the file calls them (an id, or a TOML file); None recognises them, and
            takes the sensor of a codec of one's own.
        nodata: DN of missing pixels; None takes the file's.
        offset: radiometric offset in DN; None takes the scene's.
        gop: most dates in a group, as given to `encode_store`.
        budgets: sections to send of each date, one for all or one for each date of a group; see `eozip.encode`.
        likely: whose bands a product says that these are, all or some of them; None where it says nothing.

    Raises:
        InputError: bands of no sensor for a codec that has one, both ways of asking for quality, or values out of range.
        UnknownCodecError: no such codec for the sensor.
        WeightsError: its weights are missing.
    """
    options = EncodeOptions(
        codec=codec,
        quality=quality,
        target_psnr=target_psnr,
        max_error=max_error,
        budgets=budgets,
        sensor=sensor,
        offset=offset,
        nodata=nodata,
    )
    return request_for(scene, options, gop=gop, likely=likely)


def request_for(
    scene: Scene, options: EncodeOptions, *, gop: int = GOP, likely: str | None = None
) -> Request:
    """`make_request`, of options that are one object.

    Raises:
        InputError: as for `make_request`.
    """
    check_array(scene.shape, scene.dtype)
    codec, sensor = options.codec, options.sensor
    sensor = named(sensor).id if sensor else _sensor_of(codec)
    known, order = _matched(scene, sensor, codec, likely)
    nodata, offset = _whole("nodata", options.nodata), _whole("offset", options.offset)
    scene = with_fill(scene, nodata)
    full_id = registry.resolve(codec, known) if codec else default_codec(gop, known, scene.shape[1])
    configured = EozipChunkCodec(
        codec=full_id,
        quality=options.quality if options.said or full_id == LOSSLESS else DEFAULT_QUALITY,
        target_psnr=options.target_psnr,
        max_error=options.max_error,
        budgets=_budgets(options.budgets, gop, full_id),
        sensor=known,
        nodata=_whole("nodata", _first(nodata, scene.fill, scene.profile.nodata)),
        offset=round(scene.offset) if offset is None else offset,
    )
    return Request(configured, order, _provenance(full_id), tuple(_notes(scene, known, order)))


def _matched(
    scene: Scene, sensor: str | None, codec: str | Path | Codec | None, likely: str | None
) -> tuple[str, tuple[int, ...]]:
    """As `match_scene`; bands of no sensor, or not all of one, stay as they are where the codec takes any."""
    if sensor is None and likely is not None:
        order = own_order(scene.band_names, get(likely))
        if order is not None:
            return likely, order
        own = get(likely).band_names
        positions = {name: scene.meanings.index(name) for name in own if scene.meanings.count(name) == 1}
        is_whole = len(positions) == scene.shape[1]
        if is_whole and (len(own) == len(positions) or _takes_any(codec)):
            return likely, tuple(positions.values())
    try:
        return match_scene(scene, sensor)
    except InputError:
        if sensor is not None or not _takes_any(codec):
            raise
    return match_scene(scene, ANY_SENSOR)


def _takes_any(codec: str | Path | Codec | None) -> bool:
    if codec is None or codec == LOSSLESS:
        return True
    if isinstance(codec, str) and not registry.knows(codec, ANY_SENSOR):
        return False
    return registry.get(registry.resolve(codec, ANY_SENSOR)).bands is None


def match_scene(scene: Scene, sensor: str | None) -> tuple[str, tuple[int, ...]]:
    """The sensor and the positions in the scene of its bands.

    Args:
        scene: the source.
        sensor: id; `ANY_SENSOR` takes all bands in their order; None recognises them.

    Raises:
        InputError: the bands are no sensor's; the message lists what is supported.
    """
    if sensor == ANY_SENSOR:
        return sensor, tuple(range(scene.shape[1]))
    known = get(sensor) if sensor else None
    order = None if known is None else own_order(scene.band_names, known)
    if known is not None and order is not None:
        return known.id, order
    found, order = match_bands(scene.meanings, known)
    return found.id, order


def _budgets(asked: int | Sequence[int] | None, gop: int, full_id: str) -> tuple[int, ...] | None:
    """One for all dates, or one for each date of a group.

    Raises:
        InputError: another number of them, no whole numbers, or a codec without budgets.
    """
    if asked is None:
        return None
    check_budgeted(full_id)
    found = (asked,) if isinstance(asked, int) else tuple(asked)
    if not all(isinstance(k, int) and 0 <= k <= MAX_BUDGET for k in found) or found[:1] < (1,):
        raise InputError(
            f"budgets: expected whole numbers up to {MAX_BUDGET}, the first from 1, got {list(found)}"
        )
    if len(found) not in (1, gop):
        raise InputError(
            f"budgets: expected one for all dates, or one for each of the {gop} dates of a group (gop), got {list(found)}"
        )
    return found


def _notes(scene: Scene, sensor: str, order: tuple[int, ...]) -> list[str]:
    if sensor == ANY_SENSOR or len(order) < len(get(sensor).bands):
        return []
    by_own_names = own_order(scene.band_names, get(sensor)) is not None
    return [] if by_own_names else overridden(scene.meanings, get(sensor), order)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _sensor_of(codec: str | Path | Codec | None) -> str | None:
    """The sensor of a codec of one's own; None of listed ones, which exist for several."""
    if codec is None or (isinstance(codec, str) and registry.is_listed(codec)):
        return None
    own = registry.get(registry.resolve(codec)).sensor
    return None if own == ANY_SENSOR else own


def _whole(name: str, value: float | None) -> int | None:
    if value is not None and not (math.isfinite(real(name, value)) and value == int(value)):
        raise InputError(f"expected a whole number of DN for {name}, got {value}")
    return None if value is None else int(value)


def _provenance(full_id: str) -> dict[str, Any]:
    weights = None if full_id == LOSSLESS else registry.get(full_id).weights_hash.hex()
    return {"eozip_version": eozip.__version__, "weights_hash": weights}


if TYPE_CHECKING:
    import xarray as xr

Bands = Sequence[str | int] | None
_MASK_LAYERS = {"SCL": "scl", "CLP": "cld"}  # by the band of an input that would hold the same


def encode_files(
    inputs: PathLike | Sequence[PathLike],
    out: PlaceLike,
    codec: str | Path | Codec | None = None,
    *,
    quality: float | None = None,
    target_psnr: float | None = None,
    max_error: int | None = None,
    bands: Bands = None,
    sensor: str | None = None,
    offset: int | None = None,
    nodata: int | None = None,
    chunk: int | None = None,
    gop: int = GOP,
    mask: str | None = None,
    budgets: int | Sequence[int] | None = None,
    assets: Sequence[str] | None = None,
    mosaic: str | None = None,
    harmonise: bool = False,
    lattice: float | Sequence[float] | None = None,
    skip_bad: bool = False,
    target_size: int | None = None,
    purposes: str | Sequence[str] = (),
    classes: str | Path | None = None,
    roi: str | Path | None = None,
    outside_quality: float | str | None = None,
    masked_quality: float | str | None = None,
    relative: float = 0.0,
    overviews: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = warn,
) -> Summary:
    """Encode what someone holds into a Zarr v3 store: `eozip.encode_store("in.tif", "out.zarr", quality=60)`.

    Args:
        inputs: GeoTIFFs (dates), files of one band each, folders of them, .SAFE products, STAC items; see
            `eozip.raster.open_product`.
        out: a `.zarr` directory or `.zarr.zip` file to be made.
        codec: full id or short name, the path of own or published weights, or a loaded codec; None: tec-tt-small,
            or tec-elic-small where `gop` is 1.
        quality: 0 to 100; 60 where neither this nor `target_psnr` nor `max_error` is given.
        target_psnr: dB at peak 10,000 DN that each chunk reaches.
        max_error: largest absolute error of any pixel, DN.
        bands: names or 1-based positions; see `eozip.raster.open_scene`.
        sensor: whose bands these are, in its order, whatever the files call them; an id or a TOML file.
        offset: radiometric offset in DN; None takes the files'.
        nodata: DN of missing pixels; None takes the files'.
        chunk: side of a chunk in pixels; None fits it near 256.
        gop: most dates coded together.
        mask: what clouds hide, on which nothing is spent, as text for `eozip.raster.masks.parse_mask`.
        budgets: sections to send of each date, one for all or one for each date of a group; see `eozip.encode`.
        assets: as for `eozip.raster.open_product`, and so are `mosaic`, `harmonise`, `lattice`, `skip_bad`.
        mosaic: see `assets`.
        harmonise: see `assets`.
        lattice: see `assets`.
        skip_bad: see `assets`; what was left out is in the summary.
        target_size: bytes of the whole store, instead of a quality: at most so many, mostly within 1 %; takes several tries.
        purposes: what the store must be good for, instead of a quality: "ndvi<0.02", "size<100MB"; see docs/purposes.md.
            Every chunk is decoded and gets the lowest quality that serves them.
        classes: GeoTIFF of whole numbers on the scene's grid, for the purpose "agreement>=99%".
        roi: region of interest, a raster on the scene's grid or a vector file, at `quality`; the rest at `outside_quality`.
        outside_quality: see `roi`; 0..`quality`, or "none": the coarsest averages alone.
        masked_quality: likewise of what `mask` hides, instead of nothing.
        relative: errors in proportion to this power (1, say) of brightness: dark pixels finer, bright ones coarser.
        overviews: whether reduced pictures are stored, from 1/16 on, as arrays that every reader of Zarr knows; of scenes of
            1,024 pixels and more.
        overwrite: whether an existing store may be replaced.
        progress: called with chunks done and in all.
        note: takes sentences that a person should read: unknown dates, files left out; by default a warning.

    Returns:
        the summary.

    Raises:
        EozipError: the message says what was expected, what was found, and what to do; nothing was written.
    """
    target = place("out", out)
    check_target(target, overwrite)  # before weights are loaded
    if chunk is not None:
        arguments.whole("chunk", chunk, 8)
    options = StoreOptions(
        codec=codec,
        quality=quality,
        target_psnr=target_psnr,
        max_error=max_error,
        budgets=budgets,
        target_size=target_size,
        sensor=sensor,
        offset=offset,
        nodata=nodata,
        chunk=chunk,
        gop=gop,
        purposes=purposes,
        classes=classes,
        places=Places(
            roi=roi, outside_quality=outside_quality, masked_quality=masked_quality, relative=relative
        ),
        overviews=overviews,
        overwrite=overwrite,
        progress=progress,
        note=note,
    )
    taking = {
        "assets": assets,
        "mosaic": mosaic,
        "harmonise": harmonise,
        "lattice": lattice,
        "skip_bad": skip_bad,
    }
    product, band = product_and_mask(mask, inputs, bands, offset, taking)
    if product.scenes[0].lattice:  # its values say both
        options = replace(options, offset=None, nodata=None)
    with opened_mask(mask, product.scenes[0], band) as drop:
        return encode_product(product, target, options, drop)


def to_zarr(
    data: xr.Dataset | xr.DataArray | xr.DataTree,
    out: PlaceLike,
    codec: str | Path | Codec | None = None,
    *,
    bands: Bands = None,
    offset: int | None = None,
    nodata: int | None = None,
    lattice: float | Sequence[float] | None = None,
    harmonise: bool = False,
    **options: Any,
) -> Summary:
    """Encode what xarray holds into a Zarr v3 store: `eozip.to_zarr(ds, "out.zarr", quality=60)`.

    Arrays of dask are computed block by block, as they are needed.

    Args:
        data: a Dataset with a variable for each band (odc-stac) or one array [time, band, y, x], a DataArray
            [time, band, y, x] (stackstac), or a DataTree of EOPF.
        out: a `.zarr` directory or `.zarr.zip` file to be made.
        codec: as for `encode_files`.
        bands: names or 1-based positions; None takes all.
        offset: radiometric offset in DN; None takes what attributes and coordinates say, else 0.
        nodata: value of missing pixels; None takes what attributes say.
        lattice: of floats, step, or step and value of DN 0; None: as the arrays' encoding says, else 1e-4.
        harmonise: bring all dates to one radiometric offset.
        **options: as for `encode_files`: `quality`, `target_psnr`, `max_error`, `budgets`, `target_size`, `sensor`,
            `chunk`, `gop`, `purposes`, `classes`, `places`, `overwrite`, `progress` and `note`.

    Returns:
        The summary.

    Raises:
        EozipError: as for `encode_files`.
    """
    target = place("out", out)
    asked = StoreOptions(codec=codec, offset=offset, nodata=nodata, **options)
    check_target(target, asked.overwrite)
    bands = arguments.choice("bands", bands)
    for name, value in (("offset", offset), ("nodata", nodata)):
        if value is not None:
            arguments.real(name, value)
    product = product_of(data, bands, offset, nodata=nodata, lattice=lattice_of(lattice), harmonise=harmonise)
    return encode_product(product, target, asked)


def encode_product(
    product: Product, out: PlaceLike, options: StoreOptions, drop: MaskReader | None = None
) -> Summary:
    """Encode a product, its bands on the grids on which they were measured, into a Zarr v3 store.

    Args:
        product: what `eozip.raster.open_product` found.
        out: a `.zarr` directory or `.zarr.zip` file to be made.
        options: what is asked for; a PSNR counts what was measured, and an offset None takes what the product says.
        drop: mask on the finest grid; see `eozip.encode`.

    Raises:
        EozipError: as for `encode_files`.
    """
    _tell(product.notes, options.note)
    found = joined(product, options.nodata)
    wanted = request_for(found.scene, options, gop=options.gop, likely=product.sensor)
    _tell(wanted.notes, options.note)
    if options.parsed:
        return _encode_for(found, out, wanted, options, drop)
    if options.target_size is not None:
        return _encode_sized(found, out, wanted, options, drop)
    return encode_store(found.product, out, wanted.codec, **_settings(wanted, options, drop))


def _settings(wanted: Request, options: StoreOptions, drop: MaskReader | None) -> dict[str, Any]:
    """What `encode_store` takes besides the pixels and the codec."""
    names = ("chunk", "gop", "places", "overviews", "overwrite", "progress")
    asked = {name: getattr(options, name) for name in names}
    own = {"hidden": drop} if options.places.masked_quality is not None else {"drop": drop}
    return {"order": wanted.order, "facts": wanted.facts, **own, **asked}


def _encode_for(
    found: Joined, out: PlaceLike, wanted: Request, options: StoreOptions, drop: MaskReader | None
) -> Summary:
    """Encodes for purposes: those of each chunk while it is coded, those of the whole store on the whole store."""
    purposes = options.parsed
    codec = replace(wanted.codec, quality=None, grids=found.grids(wanted.order))
    pixels = pixels_of(found.scene.select(wanted.order), codec)
    whole = [purpose for purpose in purposes if purpose.is_whole]
    target = place("out", out)
    if whole:
        fitting.check_here(target, whole[0].text)
    learned: Classifier | None = None
    sizes: SampleSizes | None = None
    with open_joined(found, wanted.order) as reader:
        grid = plan(found.scene.shape, options.chunk, options.gop, alignment=alignment(codec.grids))
        if options.classes is not None:
            learned = learned_classes(options.classes, found.scene.profile, reader, grid, pixels)
        Holding(purposes, pixels, learned).check()  # before anything is encoded
        if len(whole) == len(purposes):
            taken = list(sampled(reader, grid, _SAMPLED, codec.nodata))
            beside = bytes_beside(found, wanted.order, codec, grid, zipped=is_zip_name(target))
            sizes = SampleSizes(taken, codec, pixels_in(grid), beside)
    held = {**_settings(wanted, options, drop), "purposes": purposes, "classes": learned}
    if not isinstance(target, Path) or not whole:
        return encode_store(found.product, out, codec, **held)

    def encode(part: Path, quality: int | None) -> Summary:
        return encode_store(
            found.product, part, replace(codec, quality=quality), **{**held, "overwrite": False}
        )

    raw = samples(grid.shape, codec.grids) * found.scene.dtype.itemsize
    return encode_fitting(encode, target, whole, raw, sizes, overwrite=options.overwrite)


def _encode_sized(
    found: Joined, out: PlaceLike, wanted: Request, options: StoreOptions, drop: MaskReader | None
) -> Summary:
    """Encodes at the quality at which the whole store has the bytes asked for."""
    target, target_size = fitting.check_here(place("out", out), "target_size"), options.target_size or 0
    fitting.check_sizable(wanted.codec)
    options.places.check(None, drop is not None)  # other qualities are set against the store's
    codec = replace(wanted.codec, quality=None, grids=found.grids(wanted.order))
    grid = plan(found.scene.shape, options.chunk, options.gop, alignment=alignment(codec.grids))
    start = fitting.likely_quality(target_size, found, wanted.order, codec, grid)
    settings = {**_settings(wanted, options, drop), "overwrite": False}

    def encode(part: Path, quality: float) -> Summary:
        return encode_store(found.product, part, replace(codec, quality=quality), **settings)

    return fitting.encode_sized(encode, target, target_size, start, overwrite=options.overwrite)


def append_files(
    store: PlaceLike,
    inputs: PathLike | Sequence[PathLike],
    *,
    bands: Bands = None,
    mask: str | None = None,
    places: Places | None = None,
    asked: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = warn,
) -> Appended:
    """Add later dates to a store: `eozip.append_store("year.zarr", "20211229.tif")`.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file written by eozip.
        inputs: GeoTIFFs on its grid with its bands, as for `encode_files`.
        bands: names or 1-based positions; None matches the store's bands by what they mean.
        mask: as for `encode_files`, of the new dates.
        places: quality by place of the new dates; None: as `mask` and the store say.
        asked: what the store is expected to have, by the fields of `eozip.store.EozipChunkCodec`.
        progress: called with chunks done and in all.
        note: as for `encode_files`.

    Returns:
        the summary.

    Raises:
        EozipError: as for `encode_files`; the store is as it was.
    """
    path = place("store", store)
    found = describe(path)
    offset = None if found.product else found.codec.offset
    product, band = product_and_mask(mask, inputs, bands, offset, as_stored(found))
    _tell([*product.notes, *unchecked(found)], note)
    with opened_mask(mask, product.scenes[0], band) as drop:
        own = {"hidden": drop} if places and places.masked_quality is not None else {"drop": drop}
        return append_store(path, product, asked=asked, places=places, progress=progress, **own)


def as_stored(found: Description) -> dict[str, Any]:
    """How new dates of a store are taken: on the lattice of the values that it holds."""
    known = found.product.lattice if found.product else None
    return {} if known is None else {"lattice": [known.step, known.base]}


def _tell(notes: Sequence[str], note: Callable[[str], None]) -> None:
    for text in notes:
        note(text)


def product_and_mask(
    mask: str | None,
    inputs: PathLike | Sequence[PathLike],
    bands: Bands,
    offset: float | None,
    taking: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Product, Scene | None]:
    """The input, and its band or layer that is the mask; None where there is no mask or it has files of its own."""
    spec = None if mask is None else parse_mask(str(arguments.text("mask", mask)))
    name = None if spec is None else _layer_name(spec)
    if spec is None or name is None:
        return open_product(inputs, bands, offset, **taking), None
    product = open_product(inputs, None, offset, **taking)
    layer = next((one for one in product.beside if one.name == name), None)
    if layer is None and spec.band is None:
        beside = ", ".join(one.name for one in product.beside) or "none"
        raise InputError(
            f"mask: no file {spec.path}, and no such raster beside the bands; there are: {beside}"
        )
    if layer is not None:
        if len(layer.dates) < len(product.dates):
            lacking = sorted(set(range(len(product.dates))) - set(layer.dates))
            raise InputError(
                f"--mask: {layer.name} lies beside {len(layer.dates)} of {len(product.dates)} dates, not beside "
                f"{product.dates[lacking[0]] or f'date {lacking[0] + 1}'}; give a mask for each date with @PATH"
            )
        return product if bands is None else open_product(inputs, bands, offset, **taking), layer.scene
    pixels, band = split_mask(open_scene(inputs, None, offset), spec)
    return as_product(pixels if bands is None else open_scene(inputs, bands, offset)), band


def _layer_name(spec: MaskSpec) -> str | None:
    """The raster beside the bands that a mask names; None where it names a file."""
    if spec.band is not None:
        return _MASK_LAYERS[spec.band]
    path = str(spec.path)
    return path if spec.kind == "any" and path.isidentifier() and not Path(path).exists() else None


def opened_mask(
    mask: str | None, scene: Scene, band: Scene | None
) -> AbstractContextManager[MaskReader | None]:
    """The mask on the grid of a scene; None where none was asked for."""
    if mask is None:
        return nullcontext()
    times, _, height, width = scene.shape
    return open_mask(parse_mask(mask), (times, height, width), band, scene.profile)
