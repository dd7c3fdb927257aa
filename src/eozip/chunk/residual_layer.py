"""The residual layer that makes a network's chunk keep a constraint."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from eozip.bitstream import arrays, residual
from eozip.chunk.candidates import Candidate, exceptions_of
from eozip.chunk.constraints import SLACK, Constraint, is_good, largest, psnr_of, too_far
from eozip.chunk.options import EncodeOptions
from eozip.chunk.pixels import Source, finished, to_dn


def held(source: Source, made: Candidate, options: EncodeOptions) -> Candidate:
    """A network's chunk, with the coarsest residual layer that keeps the constraint if it needs one.

    Args:
        source: the true pixels.
        made: decoded, without a layer.
        options: with the constraint, which is no largest error of 0: no network's pixels are exact everywhere.
    """
    constraint = options.constraint
    base = to_dn(
        cast(np.ndarray, made.decoded), replace(made.chunk.header, nodata=None)
    )  # nothing is moved off nodata yet
    source = replace(source, dn=np.where(source.left_out, base, source.dn))  # nothing to correct there
    plain = residual.corrected(base, np.zeros(base.shape, np.int16), 1, base.dtype.name, source.nodata)
    if is_good(source, plain, constraint) and not too_far(source, base, constraint).any():
        return _told(made, psnr_of(source, plain), options)
    return _layered(source, made, np.where(source.masked | source.beyond, source.dn, base), options)


def _told(made: Candidate, psnr: float, options: EncodeOptions) -> Candidate:
    return replace(made, report=replace(made.report, psnr=psnr, reached=options.is_reached(psnr)))


def _layered(source: Source, made: Candidate, base: np.ndarray, options: EncodeOptions) -> Candidate:
    """Where pixels are coded exactly anyway, `base` holds the true ones: nothing to correct."""

    def pixels(most: int) -> np.ndarray:
        steps = residual.corrections(source.dn, base, most)
        return residual.corrected(base, steps, 2 * most + 1, base.dtype.name, source.nodata)

    constraint = options.constraint
    most = largest(lambda e: is_good(source, pixels(e), constraint), _coarsest(constraint))
    steps, step = residual.corrections(source.dn, base, most), 2 * most + 1
    values = base + steps.astype(np.int64) * step
    # more than int16 can correct, or moved too far off nodata: exact instead
    apart = source.beyond | too_far(source, values, constraint) | (np.abs(source.dn - values) > most)
    chunk = replace(
        made.chunk,
        header=replace(made.chunk.header, residual=True),
        exceptions=exceptions_of(source, apart & ~source.masked),
        residual=arrays.joined([residual.encode_layer(part, step) for part in source.parts(steps)]),
    )
    dn_hat = np.where(apart, source.dn, pixels(most))
    report = replace(made.report, residual=len(chunk.residual))
    layered = Candidate(chunk, report, made.decoded, finished(dn_hat, source))
    return _told(layered, psnr_of(source, dn_hat), options)


def _coarsest(constraint: Constraint) -> int:
    return residual.MOST if constraint.max_error is None else min(constraint.max_error - SLACK, residual.MOST)
