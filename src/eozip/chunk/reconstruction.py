"""What evaluation harnesses ask for: pixels and bits of a batch, without writing bytes where a codec can do so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from eozip.chunk.api import encode
from eozip.chunk.candidates import job_for, plain_header
from eozip.chunk.encoding import check_bands, default_codec
from eozip.chunk.options import DEFAULT_SENSOR, EncodeOptions
from eozip.chunk.pixels import Source, checked_source, finished, to_dn
from eozip.codecs import registry
from eozip.codecs.base import Codec
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError
from eozip.threads import alone


@runtime_checkable
class _Reconstructing(Protocol):
    """A codec that knows what its decoder will make, and what it will cost, without coding."""

    def reconstruct(self, x: np.ndarray, quality: float) -> tuple[np.ndarray, tuple[float, ...]]:
        """float32 [T, C, H, W] DN, quality 0..100 > what `decode` would give, and bits of each date."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """A batch after a codec.

    Attributes:
        dn: decoded pixels, like the batch.
        bits: float64 [B, T], bits of each date (T = 1 for images): what coding by the codec's tables takes, without the
            chunk's header and without what nodata and values out of range take.
    """

    dn: np.ndarray
    bits: np.ndarray


def encode_batch(
    batch: np.ndarray,
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    **options: Any,
) -> list[bytes]:
    """`eozip.encode` of independent images or series: one chunk for each, none of them predicted from another.

    Args:
        batch: uint16 or int16 [B, C, H, W] images, or [B, T, C, H, W] series.
        codec: as for `eozip.encode`.
        quality: as for `eozip.encode`.
        **options: its others.

    Raises:
        InputError: no batch; or as for `eozip.encode`.
    """
    return [encode(one, codec, quality, **options) for one in _items(batch)]


def reconstruct(
    batch: np.ndarray,
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    sensor: str | None = None,
    offset: int = 0,
    nodata: int | None = None,
) -> Reconstruction:
    """Code and decode independent images or series, and estimate the bits.

    For harnesses that compare codecs: pixels are those of `eozip.decode` (but for the residual layer of quality 100),
    bits an estimate from the same tables that coding uses.

    Args:
        batch: uint16 or int16 [B, C, H, W] images, or [B, T, C, H, W] series.
        codec: a learned codec, as for `eozip.encode`.
        quality: 0..100; 60 if not given.
        sensor: as for `eozip.encode`.
        offset: likewise.
        nodata: likewise.

    Raises:
        InputError: no batch, pixels that cannot be coded, or a codec without a network.
    """
    options = EncodeOptions(codec=codec, quality=quality, sensor=sensor)
    named, items = sensor or DEFAULT_SENSOR, list(_items(batch))
    dates = 1 if items[0].ndim == 3 else len(items[0])
    full_id = default_codec(dates, named) if codec is None else registry.resolve(codec, named)
    if full_id == LOSSLESS:
        raise InputError(
            "reconstruct: expected a learned codec, got lossless, which gives back what it is given"
        )
    model = registry.get(full_id)
    sources = [replace(checked_source(one, nodata, offset, named), sensor=model.sensor) for one in items]
    made = [_one(source, model, options.goal.quality) for source in sources]
    dn = np.stack([pixels[0] if batch.ndim == 4 else pixels for pixels, _ in made])
    return Reconstruction(dn, np.array([bits for _, bits in made], np.float64))


def _items(batch: np.ndarray) -> Iterator[np.ndarray]:
    if not isinstance(batch, np.ndarray) or batch.ndim not in (4, 5) or not len(batch):
        got = batch.shape if isinstance(batch, np.ndarray) else type(batch).__name__
        raise InputError(f"batch: expected an array [B, C, H, W] or [B, T, C, H, W], got {got}")
    return iter(batch)


def _one(source: Source, model: Codec, quality: float) -> tuple[np.ndarray, tuple[float, ...]]:
    check_bands(model, source)
    job = job_for(model, source, None)
    if isinstance(model, _Reconstructing):
        with alone():
            x_hat, bits = model.reconstruct(job.x, quality)
        return finished(to_dn(x_hat, plain_header(source, model.id)), source), bits
    made = job.decoded(job.candidate(quality))
    total, dates = 8.0 * sum(map(len, made.chunk.sections)), len(source.dn)
    shares = np.array(made.report.date_bits or (1.0,) * dates)
    return np.asarray(made.pixels), tuple((total * shares / shares.sum()).tolist())
