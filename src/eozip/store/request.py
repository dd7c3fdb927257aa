"""From what a user asks for to an explicit configuration: names resolved, bands matched, nothing open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eozip.api import DEFAULT_QUALITY, default_codec
from eozip.codecs import registry
from eozip.codecs.base import Codec
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError
from eozip.guarantee import checked_error
from eozip.raster import Scene
from eozip.sensors import get, match_bands, named
from eozip.store.codec import EozipChunkCodec
from eozip.store.grid import GOP


@dataclass(frozen=True)
class Request:
    """What `encode_store` needs beside the scene.

    Attributes:
        codec: codec and its configuration.
        order: positions in the scene of the bands in the sensor's order.
        facts: provenance of the weights and of the program.
    """

    codec: EozipChunkCodec
    order: tuple[int, ...]
    facts: dict[str, Any]


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
) -> Request:
    """Settles everything an encoding of `scene` depends on.

    Args:
        scene: the source.
        codec: full id or short name, a path of weights, a published name, or a codec; None:
            `eozip.api.default_codec` of the dates in a group.
        quality: 0 to 100; 60 where neither this nor `target_psnr` nor `max_error` is given.
        target_psnr: dB at peak 10,000 DN for each chunk.
        max_error: largest absolute error of any pixel, DN.
        sensor: says what the bands are where they have no descriptions (an id, or a TOML file); None recognises them, and
            takes the sensor of a codec of one's own.
        nodata: DN of missing pixels; None takes the file's.
        offset: radiometric offset in DN; None takes the scene's.
        gop: most dates in a group, as given to `encode_store`.

    Raises:
        InputError: bands of no sensor, both ways of asking for quality, or values out of range.
        UnknownCodecError: no such codec for the sensor.
        WeightsError: its weights are missing.
    """
    sensor = named(sensor).id if sensor else _sensor_of(codec)
    known, order = match_scene(scene, sensor)
    full_id = registry.resolve(codec, known) if codec else default_codec(min(scene.shape[0], gop), known)
    max_error = checked_error(max_error)
    if quality is None and target_psnr is None and max_error is None and full_id != LOSSLESS:
        quality = DEFAULT_QUALITY
    configured = EozipChunkCodec(
        codec=full_id,
        quality=quality,
        target_psnr=target_psnr,
        max_error=max_error,
        sensor=known,
        nodata=_whole("nodata", scene.profile.nodata if nodata is None else nodata),
        offset=_whole("offset", scene.offset if offset is None else offset) or 0,
    )
    return Request(configured, order, _provenance(full_id))


def match_scene(scene: Scene, sensor: str | None) -> tuple[str, tuple[int, ...]]:
    """The sensor and the positions in the scene of its bands.

    Raises:
        InputError: the bands are no sensor's; the message lists what is supported.
    """
    if sensor is None or any(scene.band_names):
        found, order = match_bands(scene.band_names, get(sensor) if sensor else None)
        if sensor is not None and found.id != get(sensor).id and found.band_names != get(sensor).band_names:
            raise InputError(
                f"expected the bands of {sensor}, got those of {found.id}: {' '.join(found.band_names)}"
            )
        return sensor or found.id, order
    expected = get(sensor).band_names
    if len(expected) != scene.shape[1]:
        raise InputError(
            f"expected {len(expected)} bands for {sensor} ({' '.join(expected)}), got {scene.shape[1]}; "
            "choose bands with --bands (bands=)"
        )
    return sensor, tuple(range(len(expected)))


def _sensor_of(codec: str | Path | Codec | None) -> str | None:
    """The sensor of a codec of one's own; None of listed ones, which exist for several."""
    if codec is None or (isinstance(codec, str) and registry.is_listed(codec)):
        return None
    return registry.get(registry.resolve(codec)).sensor


def _whole(name: str, value: float | None) -> int | None:
    if value is not None and value != int(value):
        raise InputError(f"expected a whole number of DN for {name}, got {value}")
    return None if value is None else int(value)


def _provenance(full_id: str) -> dict[str, Any]:
    import eozip

    weights = None if full_id == LOSSLESS else registry.get(full_id).weights_hash.hex()
    return {"eozip_version": eozip.__version__, "weights_hash": weights}
