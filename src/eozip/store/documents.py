"""The zarr.json documents of a store: everything that is read from one passes through a model here, or is refused by name.

zarr.json               `GroupDocument`   commits dates: what an append replaces last
eozip/zarr.json         `RecordDocument`  what eozip knows of the store; no other program replaces it
reflectance/zarr.json   `ArrayDocument`   pixels
time/zarr.json          `TimeDocument`    the coordinate that an append writes again
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError

from eozip.bitstream import MAX_BANDS, MAX_DATES
from eozip.errors import FormatError, LimitError
from eozip.store.files import StoreFiles

NOT_OURS = "the store was not written by eozip, or was changed after writing"
RECORD, ARRAY, TIME = "eozip", "reflectance", "time"
_MAX_DOCUMENT = 1 << 25  # bytes; ten years of daily scenes with 2 kB of tags take 8 MB
_MAX_INTEGER = (1 << 63) - 1  # of any JSON document here
_MAX_COUNT = 1 << 53
_FAULTS_SHOWN = 3
_MAX_TIME_CHUNK = 1 << 20

Model = TypeVar("Model", bound=BaseModel)


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("text must not hold a zero byte")
    return value


def _file_name(value: str) -> str:
    if not value.strip(".") or "/" in value:
        raise ValueError("a plain file name is expected")
    return value


def _date(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is not None:
        raise ValueError("an ISO date without a time zone is expected")
    return value


def _colour(value: str) -> str:
    if value not in ColorInterp.__members__:
        raise ValueError(f"one of {', '.join(ColorInterp.__members__)} is expected")
    return value


def _wkt(value: str) -> str:
    try:
        CRS.from_wkt(value)
    except CRSError as error:
        raise ValueError(f"WKT of a coordinate reference system is expected ({error})") from error
    return value


_Text = Annotated[str, AfterValidator(_text)]
_Wkt = Annotated[_Text, AfterValidator(_wkt)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Number = int | _Finite  # stays what it was written as
_Decibels = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
_Length = Annotated[int, Field(ge=1, le=1 << 31)]
_Lengths = tuple[_Length, _Length, _Length, _Length]
_Tags = dict[_Text, _Text]


class _Document(BaseModel):
    """Fields of ours are checked strictly; what else a document holds is not looked at."""

    model_config = ConfigDict(strict=True, frozen=True)


class _RasterProfile(_Document):
    """See `eozip.raster.Profile`."""

    height: Annotated[int, Field(ge=1, le=1 << 24)]
    width: Annotated[int, Field(ge=1, le=1 << 24)]
    dtype: Literal["uint16", "int16"]
    crs: _Wkt | None
    transform: tuple[_Finite, _Finite, _Finite, _Finite, _Finite, _Finite] | None
    gcps: tuple[tuple[_Finite, _Finite, _Finite, _Finite, _Finite], ...]
    gcp_crs: _Wkt | None
    nodata: _Number | None
    band_names: tuple[_Text | None, ...]
    scales: tuple[_Finite, ...]
    offsets: tuple[_Finite, ...]
    units: tuple[_Text | None, ...]
    colorinterp: tuple[Annotated[str, AfterValidator(_colour)], ...]


class _GeoTiff(_Document):
    """What is needed to write the source's GeoTIFFs again; see `eozip.store.description.Description`."""

    profile: _RasterProfile
    band_order: Annotated[tuple[_Count, ...], Field(min_length=1, max_length=MAX_BANDS)]
    tags: Annotated[tuple[dict[_Text, _Tags], ...], Field(min_length=1)]
    band_tags: tuple[_Tags, ...]
    files: tuple[Annotated[_Text, AfterValidator(_file_name)], ...]
    dates: tuple[Annotated[str, AfterValidator(_date)] | None, ...]
    masks: tuple[bool, ...] = ()


class _Facts(_Document):
    """What the writer measured and promised; docs/store.md says what each is. Others than these may be added."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    codec: _Text
    eozip_version: _Text
    weights_hash: _Text | None
    quality: _Number | None
    target_psnr: _Number | None
    max_error: _Count | None
    quality_used: tuple[_Number, _Number] | None
    psnr: _Decibels | None
    peak: _Number
    band_psnr: tuple[_Decibels | None, ...]
    date_psnr: tuple[_Decibels | None, ...]
    date_bits: tuple[Annotated[float, Field(ge=0, le=_MAX_COUNT)] | None, ...]
    valid_pixels: tuple[_Count, ...]
    chunks: _Count
    empty_chunks: _Count
    chunks_below_target: _Count
    chunks_with_residual_layer: _Count
    chunks_without_network: _Count
    date_dropped: tuple[_Count, ...] | None = None
    groups: tuple[Annotated[int, Field(ge=1, le=MAX_DATES)], ...] | None = None
    unmeasured: tuple[_Count, ...] = ()
    levels: tuple[_Count, ...] = ()


class LatticeRecord(_Document):
    """What DN mean where the source held floats; see `eozip.raster.scene.Lattice`."""

    step: _Finite
    base: _Finite
    dtype: Literal["float32", "float64"]
    nodata: _Finite | Literal["nan"] | None


class LayerRecord(_Document):
    """A raster beside the bands: an ordinary array along time.

    Attributes:
        path: of the array, such as "r20m/scl".
        kind: see `eozip.raster.product.Layer`.
        factor: pixels of the finest grid along one of its cells; None: its grid has nothing to do with that.
    """

    path: Annotated[_Text, Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$")]
    kind: _Text
    factor: Annotated[int, Field(ge=1, le=1 << 16)] | None


class ProductRecord(_Document):
    """What is known of a product beside its pixels, bands in the order of the source.

    Attributes:
        kind: what was read, such as "safe".
        acquisitions: [T] see `eozip.raster.product.Acquisition`.
        offsets: [T][C] DN added.
        names: [T][C] names of the files that bands came in.
        layers: arrays beside the pixels.
        lattice: what DN mean; None: they are the source's.
        files_bytes: of the files that held the bands; None where unknown.
        samples: that were measured, all bands and dates.
        labels: of the bands, in the order of the array.
        sensor: id of the sensor whose bands these are; None: as the codec says.
        scale: reflectance of one DN; None: the sensor's.
    """

    kind: _Text
    acquisitions: tuple[dict[str, Any], ...]
    offsets: tuple[tuple[_Finite, ...], ...]
    names: tuple[tuple[Annotated[_Text, AfterValidator(_file_name)], ...], ...]
    layers: tuple[LayerRecord, ...] = ()
    lattice: LatticeRecord | None = None
    files_bytes: _Count | None = None
    samples: _Count
    labels: tuple[_Text, ...]
    sensor: _Text | None = None
    scale: _Finite | None = None


class Record(_Document):
    """All that eozip knows of a store beside its pixels."""

    eozip: _Facts
    geotiff: _GeoTiff
    product: ProductRecord | None = None


class RecordDocument(_Document):
    """eozip/zarr.json, a group without arrays."""

    node_type: Literal["group"]
    attributes: Record


class _ChunkShape(_Document):
    chunk_shape: _Lengths


class _ChunkGrid(_Document):
    name: Literal["regular"]
    configuration: _ChunkShape


class _Separator(_Document):
    separator: Literal["/"] = "/"


class _ChunkKeys(_Document):
    name: Literal["default"]
    configuration: _Separator = _Separator()


class _Shards(_Document):
    chunk_shape: _Lengths
    codecs: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=1)]
    index_codecs: tuple[dict[str, Any], ...]
    index_location: Literal["end"] = "end"


class _Sharding(_Document):
    name: Literal["sharding_indexed"]
    configuration: _Shards


class ShardedDocument(_Document):
    """An array of shards of four axes, as it may be in a store of any program."""

    chunk_grid: _ChunkGrid
    codecs: Annotated[tuple[_Sharding, ...], Field(min_length=1, max_length=1)]


class ArrayDocument(ShardedDocument):
    """reflectance/zarr.json."""

    node_type: Literal["array"]
    shape: _Lengths
    data_type: Literal["uint16", "int16"]
    chunk_key_encoding: _ChunkKeys
    fill_value: Annotated[int, Field(ge=-32768, le=65535)]
    dimension_names: tuple[Literal["time"], Literal["band"], Literal["y"], Literal["x"]]
    storage_transformers: Annotated[tuple[Any, ...], Field(max_length=0)] = ()


class _TimeChunk(_Document):
    chunk_shape: tuple[Annotated[int, Field(ge=1, le=_MAX_TIME_CHUNK)]]


class _TimeGrid(_Document):
    name: Literal["regular"]
    configuration: _TimeChunk


class TimeDocument(_Document):
    """time/zarr.json, as far as writing it again needs to trust it."""

    node_type: Literal["array"]
    shape: tuple[_Length]
    data_type: Literal["int64"]
    chunk_grid: _TimeGrid
    chunk_key_encoding: _ChunkKeys
    attributes: dict[str, Any] = {}
    dimension_names: tuple[Literal["time"]]


class _LayerChunk(_Document):
    chunk_shape: tuple[_Length, _Length, _Length]


class _LayerGrid(_Document):
    name: Literal["regular"]
    configuration: _LayerChunk


class LayerDocument(_Document):
    """zarr.json of a raster beside the bands, as far as adding dates to it needs to trust it."""

    node_type: Literal["array"]
    shape: tuple[_Length, _Length, _Length]
    data_type: Literal["uint8", "int8", "uint16", "int16"]
    chunk_grid: _LayerGrid
    fill_value: Annotated[int, Field(ge=-32768, le=65535)]


class _Consolidated(_Document):
    metadata: dict[str, dict[str, Any]]


class GroupDocument(_Document):
    """zarr.json of the store."""

    node_type: Literal["group"]
    attributes: dict[str, Any] = {}
    consolidated_metadata: _Consolidated | None = None


def read_raw(files: StoreFiles, key: str) -> dict[str, Any]:
    """One document as it is: JSON, not too large, without infinities or numbers beyond 64 bits.

    Raises:
        FormatError: it is missing or no such document.
        LimitError: it is larger than any store needs.
    """
    where = f"{files.path}, {key}"
    size = files.size(key)
    if size is None:
        raise FormatError(f"{where}: expected this key, got none; {NOT_OURS}")
    if size > _MAX_DOCUMENT:
        raise LimitError(
            f"{where}: expected at most {_MAX_DOCUMENT} bytes of metadata, got {size}; {NOT_OURS}"
        )
    return parsed(files.get(key) or b"", where)


def parsed(data: bytes, where: str) -> dict[str, Any]:
    """A document from its bytes; see `read_raw`.

    Raises:
        FormatError: it is none.
    """
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise FormatError(f"{where}: expected JSON, got {error}; {NOT_OURS}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{where}: expected a JSON object, got {type(document).__name__}; {NOT_OURS}")
    _check_numbers(document, where)
    return document


def checked(model: type[Model], document: Mapping[str, Any], where: str) -> Model:
    """A document as its model.

    Raises:
        FormatError: it does not fit; the message names the fields.
    """
    try:
        return model.model_validate(_tupled(document))
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors(include_url=False)]
        rest = f" and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise FormatError(f"{where}: {'; '.join(faults[:_FAULTS_SHOWN])}{rest}; {NOT_OURS}") from error


def read(files: StoreFiles, key: str, model: type[Model]) -> Model:
    """Read and check one document; see `read_raw` and `checked`."""
    return checked(model, read_raw(files, key), f"{files.path}, {key}")


def _fault(fault: Mapping[str, Any]) -> str:
    place = ".".join(map(str, fault["loc"])) or "document"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{place}: expected, got none"
    return f"{place}: {message[:1].lower()}{message[1:]}, got {fault['input']!r:.80}"


def _tupled(value: Any) -> Any:
    """Lists as tuples: nothing that was read is changed later."""
    if isinstance(value, list):
        return tuple(_tupled(item) for item in value)
    return {key: _tupled(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _check_numbers(value: Any, where: str) -> None:
    """Numbers that a document may spell, but that no number of a store is."""
    if isinstance(value, float) and not math.isfinite(value):
        raise FormatError(f"{where}: expected finite numbers, got {value}; {NOT_OURS}")
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise FormatError(
            f"{where}: expected integers of 64 bits, got one of {value.bit_length()}; {NOT_OURS}"
        )
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        _check_numbers(item, where)
