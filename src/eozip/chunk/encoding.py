"""From pixels to the bytes of one chunk: candidates are made, the constraint is kept, the smallest is packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from eozip import bitstream
from eozip.chunk.candidates import Candidate, EncodeJob, Report, empty, exact, job_for, without_network
from eozip.chunk.options import (
    DEFAULT_QUALITY,
    DEFAULT_SENSOR,
    EncodeOptions,
    check_names,
    checked_budgets,
    checked_options,
)
from eozip.chunk.pixels import Source, checked_source, psnr
from eozip.chunk.quality_search import CAP, Trial, quality_for
from eozip.chunk.residual_layer import held
from eozip.codecs import registry, skip_mask
from eozip.codecs.base import Codec
from eozip.codecs.registry import LOSSLESS
from eozip.errors import InputError

DEFAULT_CODEC = "tec-elic-small"
DEFAULT_TEMPORAL_CODEC = "tec-tt-small"

# Beyond this rate, or on frames this small, lossless coding may be smaller and is tried.
_TRY_LOSSLESS_BITS = 4.0
_TRY_LOSSLESS_PIXELS = 64


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """One chunk, packed.

    Attributes:
        blob: its bytes.
        report: what it is.
        pixels: DN [T, C, H, W] as `eozip.decode` gives them back; None where the encoder did not need to decode.
        dropped: bool [T, H, W], pixels that are forecast; None: there are none.
    """

    blob: bytes
    report: Report
    pixels: np.ndarray | None = None
    dropped: np.ndarray | None = None


def default_codec(dates: int, sensor: str = DEFAULT_SENSOR, bands: int | None = None) -> str:
    """Full id of the codec for who names none: the temporal one for several dates where one takes these bands.

    Args:
        dates: dates coded together, T.
        sensor: sensor id.
        bands: how many, C; None: those of the sensor.
    """
    if dates > 1 and registry.knows(DEFAULT_TEMPORAL_CODEC, sensor):
        temporal = registry.resolve(DEFAULT_TEMPORAL_CODEC, sensor)
        if bands is None or registry.get(temporal).bands in (None, bands):
            return temporal
    return registry.resolve(DEFAULT_CODEC, sensor)


def encode_chunk(
    dn: np.ndarray,
    codec: str | Path | Codec | None = None,
    quality: float | None = None,
    *,
    target_psnr: float | None = None,
    max_error: int | None = None,
    nodata: int | None = None,
    sensor: str | None = None,
    offset: int = 0,
    drop: np.ndarray | None = None,
    budgets: int | Sequence[int] | None = None,
) -> EncodedChunk:
    """As `eozip.encode`, with what the encoder knows besides."""
    options = checked_options(quality, target_psnr, max_error)
    check_names(codec, sensor)
    source = checked_source(dn, nodata, offset, sensor or DEFAULT_SENSOR)
    problem = bitstream.samples_problem(source.shape)
    if problem:
        raise InputError(f"dn: {problem}; use smaller chunks")
    name = (
        default_codec(source.shape[0], source.sensor, source.shape[1])
        if codec is None
        else registry.resolve(codec, source.sensor)
    )
    if budgets is not None:
        _check_alone({"quality": quality, "target_psnr": target_psnr, "drop": drop})
        sent = checked_budgets(budgets, source.shape[0])
        check_budgeted(name)
        options = replace(options, budgets=sent, is_bound_alone=False)
    if drop is not None:
        check_droppable(name)
        drop = skip_mask.checked_drop(drop, source.shape, source.squeezed)
    if name == LOSSLESS:
        return _packed(without_network(source, options.without_network, options), source)
    model = registry.get(name)
    source = replace(source, sensor=sensor or model.sensor)
    check_bands(model, source)
    return _packed(_smallest(model, source, drop, options), source)


def _smallest(model: Codec, source: Source, drop: np.ndarray | None, options: EncodeOptions) -> Candidate:
    if source.masked.all():
        return empty(source, model, options)
    if options.constraint.max_error == 0:  # which no network's pixels keep
        return without_network(source, options.constraint, options)
    job = job_for(
        model, source, None if drop is None else skip_mask.droppable(drop, source.masked), options.budgets
    )
    made = _by_network(job, options)
    if options.constraint:
        made = _keeping(job, source, options, made)
    best = min(made, key=lambda one: one.size)
    if _is_lossless_worth_trying(source, best):
        whole = exact(source, options)
        best = whole if whole.size <= best.size else best
    return best


def _by_network(job: EncodeJob, options: EncodeOptions) -> list[Candidate]:
    """Chunks at the qualities asked for, or the one found for a target; no constraint is kept yet."""
    target = options.target_psnr
    if target is None:
        return [job.candidate(quality) for quality in options.qualities]
    found = quality_for(target, lambda quality: _trial(job, quality), DEFAULT_QUALITY)
    report = replace(found.made.report, psnr=found.psnr, reached=options.is_reached(found.psnr))
    return [replace(found.made, report=report)]


def _trial(job: EncodeJob, quality: float) -> Trial:
    made, source = job.decoded(job.candidate(quality)), job.source
    achieved = psnr(source.dn, cast(np.ndarray, made.pixels), source.counted, source.offset)
    return Trial(quality, min(achieved, CAP), made)


def _keeping(
    job: EncodeJob, source: Source, options: EncodeOptions, made: list[Candidate]
) -> list[Candidate]:
    """Chunks with what they need to keep the constraint; where that is much, one without a network beside them.

    That one holds every pixel of `source`: without a network there are no forecasts.
    """
    kept = [held(job.source, job.decoded(one), options) for one in made]
    if options.constraint.max_error is None and not any(one.report.residual for one in kept):
        return kept
    return [*kept, without_network(source, options.constraint, options)]


def _packed(made: Candidate, source: Source) -> EncodedChunk:
    dropped = None
    if made.chunk.header.skip:
        cells = skip_mask.decode_cells(made.chunk.skip, source.shape)
        dropped = skip_mask.pixels_of(cells, source.shape[2:]) & ~source.masked.all(axis=1)
    return EncodedChunk(bitstream.pack(made.chunk), made.report, made.pixels, dropped)


def check_droppable(name: str) -> None:
    """Refuses codecs that cannot leave cells out.

    Raises:
        InputError: this is one; the message names one that can.
    """
    if name == LOSSLESS or not registry.get(name).can_skip:
        raise InputError(
            f"drop: codec {name} cannot leave cells out, expected one that can, such as {DEFAULT_TEMPORAL_CODEC}; "
            "choose it, or encode without drop"
        )


def check_budgeted(name: str) -> None:
    """Refuses codecs whose streams have no sections to choose from.

    Raises:
        InputError: this is one.
    """
    if name == LOSSLESS or not registry.get(name).has_budgets:
        raise InputError(
            f"budgets: the streams of codec {name} have none; choose flextec-small or a FlexTEC checkpoint, or give a "
            "quality"
        )


def _check_alone(others: Mapping[str, object]) -> None:
    asked = [name for name, value in others.items() if value is not None]
    if asked:
        raise InputError(f"give budgets or {', '.join(asked)}, not both")


def check_bands(model: Codec, source: Source) -> None:
    bands = source.shape[1]
    if model.bands not in (None, bands):
        raise InputError(
            f"dn: codec {model.id} takes {model.bands} bands, got {bands} (shape {source.shape}); "
            f"choose another codec or codec='{LOSSLESS}'"
        )


def _is_lossless_worth_trying(source: Source, best: Candidate) -> bool:
    small = source.shape[2] * source.shape[3] <= _TRY_LOSSLESS_PIXELS
    return small or 8 * best.size > _TRY_LOSSLESS_BITS * source.dn.size
