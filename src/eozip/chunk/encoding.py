"""From pixels to the bytes of one chunk: candidates are made, the constraint is kept, the smallest is packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from eozip import bitstream, sensors
from eozip.chunk.candidates import (
    CAP,
    Candidate,
    EncodeJob,
    Report,
    Trial,
    candidate_of_size,
    empty,
    exact,
    held,
    job_for,
    quality_for,
    without_network,
)
from eozip.chunk.decoding import named_bands, named_groups
from eozip.chunk.growing import Before, grown
from eozip.chunk.options import (
    DEFAULT_QUALITY,
    DEFAULT_SENSOR,
    EncodeOptions,
    Goal,
)
from eozip.chunk.pixels import PEAK, Source, checked_groups, checked_source, psnr
from eozip.codecs import level_map as levels_of_cells
from eozip.codecs import registry, skip_mask
from eozip.codecs.base import Codec, ScaledCodec
from eozip.codecs.registry import ANY_SENSOR, LOSSLESS
from eozip.errors import InputError

DEFAULT_CODEC = "tec-elic-small"
DEFAULT_TEMPORAL_CODEC = "tec-tt-small"
_DEFAULTS = EncodeOptions()

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
        joins: whether the bytes hold those of a chunk before, too; all else is of the new dates.
    """

    blob: bytes
    report: Report
    pixels: np.ndarray | None = None
    dropped: np.ndarray | None = None
    joins: bool = False


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
    options: EncodeOptions = _DEFAULTS,
    *,
    drop: np.ndarray | None = None,
    bands: Sequence[str] | None = None,
    level_map: np.ndarray | None = None,
    before: Before | None = None,
) -> EncodedChunk:
    """Code one chunk, and say what the encoder knows of it besides.

    Args:
        dn: uint16 or int16 [T, C, H, W] or [C, H, W].
        options: what is asked for.
        drop: bool [T, H, W] or [H, W], pixels that nothing is spent on; see `eozip.encode`.
        bands: names of the bands; see `eozip.encode`.
        level_map: quality by cell; see `eozip.encode`.
        before: a chunk that these dates join if they can, see `eozip.chunk.growing`; None: there is none.

    Raises:
        InputError: as for `eozip.encode`.
        FormatError: the chunk before is damaged.
    """
    sensor = options.sensor or DEFAULT_SENSOR
    source = checked_source(dn, options.nodata, _offset(options), sensor)
    if bands is not None:
        source = replace(source, names=named_bands(bands, source.sensor, source.shape[1]))
    _check_samples(source)
    goal = options.goal_of(source.shape[0])
    name = _codec_for(source, options.codec)
    if goal.budgets:
        check_budgeted(name)
    if drop is not None:
        if goal.budgets:
            raise InputError("give budgets or drop, not both")
        check_droppable(name)
        drop = skip_mask.checked_drop(drop, source.shape, source.squeezed)
    return _coded(source, name, options.sensor, drop, _with_levels(goal, level_map, name, source), before)


def encode_group_chunk(
    groups: Mapping[int, np.ndarray],
    options: EncodeOptions = _DEFAULTS,
    *,
    bands: Mapping[int, Sequence[str]] | Sequence[str] | None = None,
    level_map: np.ndarray | None = None,
    before: Before | None = None,
) -> EncodedChunk:
    """Code one chunk of groups of bands; pixels are flat (`eozip.bitstream.arrays`).

    Args:
        groups: resolution > uint16 or int16 [T, C, h, w] or [C, h, w]; see `eozip.encode_groups`.
        options: what is asked for; budgets are for one grid.
        bands: names of the bands; see `eozip.encode_groups`.
        level_map: quality by cell of the finest grid; see `eozip.encode`.
        before: as for `encode_chunk`.

    Raises:
        InputError: as for `eozip.encode_groups`.
        FormatError: the chunk before is damaged.
    """
    sensor = options.sensor or DEFAULT_SENSOR
    source = checked_groups(groups, options.nodata, _offset(options), sensor)
    if bands is not None:
        counts = {group.resolution: group.bands for group in source.groups}
        source = replace(source, names=named_groups(bands, source.sensor, counts))
    _check_samples(source)
    dates, codec = source.shape[0], options.codec
    name = default_codec(dates, ANY_SENSOR) if codec is None else registry.resolve(codec, ANY_SENSOR)
    if name != LOSSLESS and not isinstance(registry.get(name), ScaledCodec):
        raise InputError(
            f"groups: codec {name} takes all bands on one grid; choose {DEFAULT_CODEC}, or bring the bands onto one grid"
        )
    return _coded(
        source, name, options.sensor, None, _with_levels(options.goal, level_map, name, source), before
    )


def _with_levels(goal: Goal, given: np.ndarray | None, name: str, source: Source) -> Goal:
    """With a level map, checked; without a target quality 100 then promises nothing of the coarser cells."""
    if given is None:
        return goal
    check_levelled(name)
    constraint = goal.constraint
    if goal.target_psnr is None:
        constraint = replace(constraint, min_psnr=None)
    levels = levels_of_cells.checked_levels(given, source.shape)
    return replace(goal, levels=levels, constraint=constraint)


def _coded(
    source: Source,
    name: str,
    sensor: str | None,
    drop: np.ndarray | None,
    goal: Goal,
    before: Before | None,
) -> EncodedChunk:
    if name == LOSSLESS and goal.target_size is not None:
        raise InputError(f"target_size: codec {LOSSLESS} has the size that it needs; choose another codec")
    model = None if name == LOSSLESS else registry.get(name)
    if sensor not in (None, ANY_SENSOR, None if model is None else model.sensor):
        sensors.get(str(sensor))  # refuses one that nobody knows; weights of one's own bring their sensor
    if model is None:
        return _packed(without_network(source, goal.without_network, goal), source)
    said = sensor or (source.sensor if source.names else None)
    source = replace(source, sensor=said or model.sensor)
    check_bands(model, source)
    cells = None if drop is None else skip_mask.droppable(drop, source.masked)
    made = None if before is None else grown(before, model, source, cells, goal)
    if before is None or made is None:
        return _packed(_smallest(model, source, cells, goal), source)
    growth = made.size - len(before.data)
    if goal.target_psnr is not None or _is_lossless_worth_trying(source, growth):
        alone = _smallest(model, source, cells, goal)
        if alone.size < growth:
            return _packed(alone, source)
    return _packed(made, source, before.dates)


def _offset(options: EncodeOptions) -> int:
    """The radiometric offset of pixels: what is said, else what the sensor's products ordinarily contain."""
    if options.offset is not None:
        return options.offset
    sensor = options.sensor
    return round(sensors.get(sensor).offset) if sensor in sensors.names() else 0


def _codec_for(source: Source, codec: str | Path | Codec | None) -> str:
    """Name of the codec asked for; of the default ones the one that takes these bands."""
    if codec is not None:
        return registry.resolve(codec, source.sensor)
    name = default_codec(source.shape[0], source.sensor, source.shape[1])
    return name if _takes(registry.get(name), source) else registry.resolve(DEFAULT_CODEC, ANY_SENSOR)


def _takes(model: Codec, source: Source) -> bool:
    """Whether a codec takes so many bands, and these ones if they have names."""
    if model.bands is None:
        return True
    in_order = not source.names or source.names == sensors.get(model.sensor).band_names
    return model.bands == source.shape[1] and in_order


def _check_samples(source: Source) -> None:
    problem = bitstream.samples_problem(source.shape)
    if problem:
        raise InputError(f"dn: {problem}; use smaller chunks")


def _smallest(model: Codec, source: Source, cells: np.ndarray | None, goal: Goal) -> Candidate:
    if source.masked.all():
        return empty(source, model, goal)
    if goal.constraint.max_error == 0:  # which no network's pixels keep
        return without_network(source, goal.constraint, goal)
    job = job_for(model, source, cells, goal.budgets, goal.levels)
    made = _by_network(job, goal)
    if goal.constraint:
        made = _keeping(job, source, goal, made)
    best = min(made, key=lambda one: one.size)
    if _is_lossless_worth_trying(source, best.size):
        whole = exact(source, goal)
        best = whole if whole.size <= best.size else best
    return best


def _by_network(job: EncodeJob, goal: Goal) -> list[Candidate]:
    """Chunks at the qualities asked for, or the one found for a target; no constraint is kept yet."""
    target = goal.target_psnr
    if goal.target_size is not None:
        return [candidate_of_size(goal.target_size, job.candidate)]
    if target is None:
        return [job.candidate(quality) for quality in goal.qualities]
    found = quality_for(target, lambda quality: _trial(job, quality), DEFAULT_QUALITY)
    report = replace(found.made.report, psnr=found.psnr, reached=goal.is_reached(found.psnr))
    return [replace(found.made, report=report)]


def _trial(job: EncodeJob, quality: float) -> Trial:
    made, source = job.decoded(job.candidate(quality)), job.source
    pixels, peak = cast(np.ndarray, made.pixels), PEAK * source.unit
    achieved = psnr(source.dn, pixels, source.counted, source.offset, peak)
    return Trial(quality, min(achieved, CAP), made)


def _keeping(job: EncodeJob, source: Source, goal: Goal, made: list[Candidate]) -> list[Candidate]:
    """Chunks with what they need to keep the constraint; where that is much, one without a network beside them.

    That one holds every pixel of `source`: without a network there are no forecasts.
    """
    kept = [held(job.source, job.decoded(one), goal) for one in made]
    if goal.constraint.max_error is None and not any(one.report.residual for one in kept):
        return kept
    return [*kept, without_network(source, goal.constraint, goal)]


def _packed(made: Candidate, source: Source, first: int = 0) -> EncodedChunk:
    """A candidate whose dates from the first on are those of a source."""
    dropped, header = None, made.chunk.header
    if header.skip:
        cells = skip_mask.decode_cells(made.chunk.skip, header.shape)[first:]
        dropped = skip_mask.pixels_of(cells, source.shape[2:]) & ~source.masked.all(axis=1)
    return EncodedChunk(bitstream.pack(made.chunk), made.report, made.pixels, dropped, first > 0)


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


def takes_levels(name: str) -> bool:
    """Whether a codec can code some cells more coarsely than others."""
    if name == LOSSLESS:
        return False
    model = registry.get(name)
    return isinstance(model, ScaledCodec)


def check_levelled(name: str) -> None:
    """Refuses codecs that code all cells alike.

    Raises:
        InputError: this is one; the message names one that can.
    """
    if not takes_levels(name):
        raise InputError(
            f"level_map: codec {name} codes all cells alike, expected one that can do otherwise, such as {DEFAULT_CODEC}; "
            "choose it, or encode without a map"
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


def check_bands(model: Codec, source: Source) -> None:
    bands = source.shape[1]
    if model.bands not in (None, bands):
        raise InputError(
            f"dn: codec {model.id} takes {model.bands} bands, got {bands} (shape {source.shape}); "
            f"choose another codec or codec='{LOSSLESS}'"
        )
    if not _takes(model, source):
        raise InputError(
            f"bands: codec {model.id} takes {' '.join(sensors.get(model.sensor).band_names)} in this order, got "
            f"{' '.join(source.names)}; bring them into it, or choose no codec"
        )


def _is_lossless_worth_trying(source: Source, size: int) -> bool:
    small = source.shape[2] * source.shape[3] <= _TRY_LOSSLESS_PIXELS
    return small or 8 * size > _TRY_LOSSLESS_BITS * source.dn.size
