"""New dates that join a chunk: coded knowing the dates that are there, which stay as they are to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from eozip import bitstream
from eozip.bitstream import Chunk, arrays, nodata_mask
from eozip.chunk.candidates import Candidate, Report, job_for, plain_header, shared_out
from eozip.chunk.decoding import check_samples, encoded_of
from eozip.chunk.options import Goal, psnr_of
from eozip.chunk.pixels import Source, finished, to_dn
from eozip.codecs import level_map, registry, skip_mask
from eozip.codecs.base import Codec, Encoded, GrowingCodec, UnsuitableError
from eozip.codecs.registry import WITHOUT_NETWORK
from eozip.codecs.scales import SECTIONS
from eozip.errors import FormatError


@dataclass(frozen=True)
class Before:
    """A chunk that dates may join.

    Attributes:
        data: its bytes.
        dates: how many of its dates stay, the first ones.
    """

    data: bytes
    dates: int


def grown(
    before: Before, model: Codec, source: Source, cells: np.ndarray | None, goal: Goal
) -> Candidate | None:
    """A chunk of old and new dates; its report and pixels are of the new ones. None where they need one of their own.

    Under a target PSNR new dates have the quality of the old ones, if that reaches it: a chunk has one quality.

    Args:
        before: the old dates.
        model: the codec of the new ones.
        source: their pixels.
        cells: of them that nothing is spent on, see `EncodeJob`; None: none.
        goal: how good they shall be.

    Raises:
        FormatError: the old chunk is damaged.
    """
    is_corrected = goal.constraint.max_error is not None
    if is_corrected or goal.target_size or goal.budgets or not isinstance(model, GrowingCodec):
        return None
    old = bitstream.unpack(before.data)
    check_samples(old.header)
    quality = goal.quality if goal.target_psnr is None else old.header.quality
    if not _fits(old, before.dates, model, source, quality):
        return None
    behind = model.behind(encoded_of(old, None), old.header.shape, before.dates)
    job = job_for(behind, source, cells, (), goal.levels)
    try:
        coded = job.encode(quality)
    except UnsuitableError:
        return None
    source = job.source
    decoded = arrays.flat(coded.decoded()) if coded.decoded else None
    pixels = finished(to_dn(cast(np.ndarray, decoded), old.header), source)
    reached = psnr_of(source, pixels) if goal.is_promised else None
    if reached is not None and reached < (goal.constraint.min_psnr or 0):
        return None
    new = [source.parts(one) for one in (source.dn, source.masked, source.beyond)]
    chunk = _joined(old, before.dates, coded, *new)
    bits = shared_out(bitstream.packed_size(chunk), coded)
    report = Report(
        model.id,
        quality,
        psnr=reached,
        reached=None if reached is None else goal.is_reached(reached),
        date_bits=None if bits is None else bits[before.dates :],
        dropped=0.0 if job.cells is None else float(job.cells.mean()),
        levels=job.levels is not None,
    )
    return Candidate(chunk, report, decoded, pixels)


def shortened(before: Before) -> bytes:
    """A chunk of the dates that stay alone.

    Raises:
        FormatError: they need others, it is damaged, or its codec cannot do so.
    """
    old = bitstream.unpack(before.data)
    check_samples(old.header)
    header = old.header
    model = None if header.codec in WITHOUT_NETWORK else registry.get(header.codec, header.weights_hash)
    if not isinstance(model, GrowingCodec) or header.residual or old.declared != SECTIONS:
        raise FormatError(
            f"chunk: expected {before.dates} dates, got {header.shape[0]}, of which codec {header.codec} cannot keep some; "
            "encode the scene into a new store"
        )
    coded = model.shortened(encoded_of(old, None), header.shape, before.dates)
    none = [np.zeros((0, *shape[1:]), header.dtype) for shape in header.shapes]
    nowhere = [one.astype(bool) for one in none]
    return bitstream.pack(_joined(old, before.dates, coded, none, nowhere, nowhere))


def _fits(old: Chunk, dates: int, model: Codec, source: Source, quality: float) -> bool:
    """Whether a chunk is what a codec makes of such pixels at this quality, and of no others than its shape may be."""
    header = old.header
    expected = replace(
        plain_header(source, model.id),
        shape=(header.shape[0], *source.shape[1:]),
        squeezed=False,
        quality=quality,
        weights_hash=model.weights_hash,
        checks=header.checks,
        skip=header.skip,
        scales=True,
        levels=header.levels,
    )
    total = (dates + source.shape[0], *source.shape[1:])
    there = len(header.checks) == header.shape[0] and old.declared == SECTIONS
    return there and header == expected and bitstream.samples_problem(total) is None


def _joined(
    old: Chunk,
    dates: int,
    coded: Encoded,
    dn: Sequence[np.ndarray],
    masked: Sequence[np.ndarray],
    beyond: Sequence[np.ndarray],
) -> Chunk:
    """What was coded of old and new dates, with what is exact of both; the arrays are of the new dates."""
    header = old.header
    count = len(header.shapes)
    masks, exceptions = [], []
    parts = zip(arrays.split(old.mask, count), arrays.split(old.exceptions, count), strict=True)
    for k, (mask, exact) in enumerate(parts):
        shape = header.shapes[k]
        hidden = np.concatenate([nodata_mask.decode_mask(mask, shape)[:dates], masked[k]])
        where, values = nodata_mask.decode_exceptions(exact, shape, header.dtype)
        whole = np.zeros(shape, header.dtype)
        whole[where] = values
        there = np.concatenate([where[:dates], beyond[k]])
        masks.append(nodata_mask.encode_mask(hidden))
        exceptions.append(nodata_mask.encode_exceptions(np.concatenate([whole[:dates], dn[k]]), there))
    return Chunk(
        replace(
            header,
            shape=(len(coded.checks), *header.shape[1:]),
            checks=coded.checks,
            skip=coded.skip is not None,
            levels=coded.levels is not None,
        ),
        arrays.joined(masks),
        arrays.joined(exceptions),
        coded.sections,
        skip=b"" if coded.skip is None else skip_mask.encode_cells(coded.skip),
        levels=b"" if coded.levels is None else level_map.encode_levels(coded.levels),
    )
