"""From one parsed chunk to its pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eozip.bitstream import Chunk, Header, lossless, nodata_mask, residual, samples_problem
from eozip.chunk.pixels import to_dn
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.registry import LOSSLESS, WITHOUT_NETWORK
from eozip.codecs.skip_mask import decode_cells
from eozip.errors import FormatError, LimitError
from eozip.threads import alone


def decode_stack(chunk: Chunk, budget: int | None) -> np.ndarray:
    """Pixels [T, C, H, W] of a chunk, in its dtype; see `eozip.decode` for `budget` and what is raised."""
    header = chunk.header
    check_samples(header)
    mask = nodata_mask.decode_mask(chunk.mask, header.shape)
    if chunk.mask and header.nodata is None:
        raise FormatError("chunk: a mask without a nodata value; the data are damaged")
    if chunk.declared == 0:
        dn = _decode_nothing(header, mask)
    elif header.codec in WITHOUT_NETWORK:
        dn = _decode_without_network(chunk)
    elif chunk.residual and (budget is None or budget >= chunk.declared):
        steps, step = residual.decode_layer(chunk.residual, header.shape)
        dn = residual.corrected(rounded(chunk), steps, step, header.dtype, header.nodata)
    else:
        dn = to_dn(_decode_learned(chunk, budget), header)
    if chunk.exceptions:
        where, values = nodata_mask.decode_exceptions(chunk.exceptions, header.shape, header.dtype)
        dn[where] = values
    if chunk.mask:
        dn[mask] = header.nodata
    return dn


def check_samples(header: Header) -> None:
    """Refuses what is too large for this process before anything of that size is allocated.

    Raises:
        LimitError: see `eozip.bitstream.samples_problem`.
    """
    problem = samples_problem(header.shape)
    if problem:
        raise LimitError(f"chunk: declares {problem}")


def check_budget(chunk: Chunk, budget: int | None) -> None:
    """What was asked for must be there: fewer sections would be a worse picture without a word."""
    needed = chunk.declared if budget is None else min(budget, chunk.declared)
    if 0 < len(chunk.sections) < needed:  # codecs refuse 0 by themselves
        raise FormatError(
            f"chunk: expected the first {needed} of {chunk.declared} sections, got {len(chunk.sections)} whole "
            "ones; fetch more of it, or ask for a smaller budget"
        )


def _decode_nothing(header: Header, mask: np.ndarray) -> np.ndarray:
    if not mask.all() or header.residual or header.skip:
        raise FormatError("chunk: no sections, though not all of it is nodata; the data are damaged")
    return np.zeros(header.shape, header.dtype)


def _decode_without_network(chunk: Chunk) -> np.ndarray:
    header = chunk.header
    if chunk.declared != 1 or not chunk.sections or header.residual or header.skip:
        raise FormatError(
            f"chunk: expected one {header.codec} section, got {len(chunk.sections)} of {chunk.declared}"
            + ", and a residual layer" * header.residual
            + ", and a skip mask" * header.skip
        )
    if header.codec == LOSSLESS:
        return lossless.decode_array(chunk.sections[0], header.shape, header.dtype)
    return residual.decode_near(chunk.sections[0], header.shape, header.dtype, header.nodata)


def rounded(chunk: Chunk) -> np.ndarray:
    """Pixels [T, C, H, W] that the network of a chunk makes; neither exceptions nor nodata are put in."""
    return to_dn(_decode_learned(chunk, None), replace(chunk.header, nodata=None))


def _decode_learned(chunk: Chunk, budget: int | None) -> np.ndarray:
    header = chunk.header
    model = registry.get(header.codec, header.weights_hash)
    if model.bands not in (None, header.shape[1]) or len(header.checks) != header.shape[0]:
        raise FormatError(
            f"chunk: {header.shape[1]} bands and {len(header.checks)} checks do not fit {model.id}"
        )
    if header.skip and not model.can_skip:
        raise FormatError(f"chunk: a skip mask, but {model.id} codes every cell; the data are damaged")
    skip = decode_cells(chunk.skip, header.shape) if header.skip else None
    coded = Encoded(chunk.sections[:budget], header.checks, header.budgets, skip=skip)
    with alone():
        return model.decode(coded, header.shape, header.quality)
