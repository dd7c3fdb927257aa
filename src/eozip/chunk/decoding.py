"""From one parsed chunk to its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from eozip.bitstream import Chunk, Header, arrays, lossless, nodata_mask, residual, samples_problem
from eozip.chunk.pixels import fill_holes, to_dn
from eozip.chunk.selection import Selection
from eozip.codecs import registry
from eozip.codecs.base import Codec, Encoded, ScaledCodec
from eozip.codecs.registry import LOSSLESS, WITHOUT_NETWORK
from eozip.codecs.scales import all_over, averaged
from eozip.codecs.skip_mask import decode_cells
from eozip.errors import FormatError, LimitError
from eozip.threads import alone

Shape = tuple[int, int, int, int]


def decode_arrays(chunk: Chunk, selection: Selection) -> list[np.ndarray]:
    """Pixels [T, C, h, w] of each array that a selection wants, in the chunk's dtype; see `eozip.decode`."""
    header = chunk.header
    check_samples(header)
    if chunk.mask and header.nodata is None:
        raise FormatError("chunk: a mask without a nodata value; the data are damaged")
    count = len(header.shapes)
    masks, exceptions = arrays.split(chunk.mask, count), arrays.split(chunk.exceptions, count)
    if chunk.declared == 0:
        _check_nothing(chunk, masks)
    is_scaled = header.scales and selection.reduce > 1
    made = _decoded(chunk, selection)
    return [
        _finished(dn, header, k, (masks[k], exceptions[k]), selection, is_scaled)
        for k, dn in zip(selection.arrays, made, strict=True)
    ]


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


def _finished(
    dn: np.ndarray,
    header: Header,
    index: int,
    exact: tuple[bytes, bytes],
    selection: Selection,
    is_scaled: bool,
) -> np.ndarray:
    """Decoded pixels of one array with nodata and out-of-range values put in, its bands chosen, reduced if they are not."""
    shape, bands = header.shapes[index], selection.bands[index]
    mask = nodata_mask.decode_mask(exact[0], shape) if exact[0] else None
    mask = mask if mask is None or bands is None else mask[:, list(bands)]
    times = selection.times(header.factors[index])
    if exact[1] and not is_scaled:
        where, values = nodata_mask.decode_exceptions(exact[1], shape, header.dtype)
        whole = np.zeros(shape, header.dtype)
        whole[where] = values
        chosen = slice(None) if bands is None else list(bands)
        dn[where[:, chosen]] = whole[:, chosen][where[:, chosen]]
    if times > 1 and not is_scaled:
        holes = np.zeros(dn.shape, bool) if mask is None else mask
        sums = averaged(fill_holes(dn, holes).astype(np.int64), times)
        dn = to_dn((sums - header.offset).astype(np.float32), header)
    if mask is not None:
        dn[all_over(mask, times) if times > 1 else mask] = header.nodata
    return dn


def _check_nothing(chunk: Chunk, masks: list[bytes]) -> None:
    header = chunk.header
    decoded = (nodata_mask.decode_mask(mask, shape) for mask, shape in zip(masks, header.shapes, strict=True))
    if header.residual or header.skip or not all(mask.all() for mask in decoded):
        raise FormatError("chunk: no sections, though not all of it is nodata; the data are damaged")


def _decoded(chunk: Chunk, selection: Selection) -> list[np.ndarray]:
    """Pixels of the bands wanted, with the residual layer, without what is coded exactly beside them."""
    header = chunk.header
    if chunk.declared == 0:
        return [
            np.zeros(
                _chosen_shape(header.shapes[k], selection, k, header.factors[k] if header.scales else 0),
                header.dtype,
            )
            for k in selection.arrays
        ]
    if header.codec in WITHOUT_NETWORK:
        made = _decode_without_network(chunk, selection)
        return [_of_bands(dn, selection, k) for dn, k in zip(made, selection.arrays, strict=True)]
    is_whole = selection.budget is None or selection.budget >= chunk.declared
    if not (chunk.residual and is_whole and selection.takes_residual(header)):
        return [to_dn(x, header) for x in _decode_learned(chunk, selection)]
    plain = replace(header, nodata=None)
    layers = arrays.split(chunk.residual, len(header.shapes))
    out = []
    for x, k in zip(_decode_learned(chunk, selection), selection.arrays, strict=True):
        steps, step = residual.decode_layer(layers[k], header.shapes[k])
        steps = _of_bands(steps, selection, k)
        out.append(residual.corrected(to_dn(x, plain), steps, step, header.dtype, header.nodata))
    return out


def _of_bands(values: np.ndarray, selection: Selection, index: int) -> np.ndarray:
    bands = selection.bands[index]
    return values if bands is None else values[:, list(bands)]


def _chosen_shape(shape: Shape, selection: Selection, index: int, factor: int) -> Shape:
    """Of an array without sections; a factor of 0: not reduced yet."""
    bands = selection.bands[index]
    times = selection.times(factor) if factor else 1
    t, c, h, w = shape
    return t, c if bands is None else len(bands), -(-h // times), -(-w // times)


def _decode_without_network(chunk: Chunk, selection: Selection) -> list[np.ndarray]:
    header, count = chunk.header, len(chunk.header.shapes)
    wrong = chunk.declared != count or len(chunk.sections) <= max(selection.arrays)
    if wrong or header.residual or header.skip or header.scales:
        raise FormatError(
            f"chunk: expected one {header.codec} section, got {len(chunk.sections)} of {chunk.declared}"
            + ", and a residual layer" * header.residual
            + ", and a skip mask" * header.skip
            + ", of scales" * header.scales
        )
    decode: Callable[[bytes, Shape], np.ndarray]
    if header.codec == LOSSLESS:

        def decode(data: bytes, shape: Shape) -> np.ndarray:
            return lossless.decode_array(data, shape, header.dtype)
    else:

        def decode(data: bytes, shape: Shape) -> np.ndarray:
            return residual.decode_near(data, shape, header.dtype, header.nodata)

    return [decode(chunk.sections[k], header.shapes[k]) for k in selection.arrays]


def _decode_learned(chunk: Chunk, selection: Selection) -> list[np.ndarray]:
    """float32 [T, C, h, w] of the bands wanted, reduced where the sections are scales."""
    header = chunk.header
    model = registry.get(header.codec, header.weights_hash)
    if model.bands not in (None, header.shape[1]) or len(header.checks) != header.shape[0]:
        raise FormatError(
            f"chunk: {header.shape[1]} bands and {len(header.checks)} checks do not fit {model.id}"
        )
    if header.skip and not model.can_skip:
        raise FormatError(f"chunk: a skip mask, but {model.id} codes every cell; the data are damaged")
    if (header.scales or header.groups) and not (isinstance(model, ScaledCodec) and header.scales):
        raise FormatError(
            f"chunk: scales or groups of bands, which {model.id} does not write; the data are damaged"
        )
    skip = decode_cells(chunk.skip, header.shape) if header.skip else None
    coded = Encoded(chunk.sections[: selection.budget], header.checks, header.budgets, skip=skip)
    with alone():
        return _from_model(model, coded, header, selection)


def _from_model(model: Codec, coded: Encoded, header: Header, selection: Selection) -> list[np.ndarray]:
    if header.groups and isinstance(model, ScaledCodec):
        pairs = [(f, g.bands) for f, g in zip(header.factors, header.groups, strict=True)]
        made = model.decode_groups(coded, header.shape, pairs, selection.reduce, selection.arrays)
        return [_of_bands(x, selection, k) for x, k in zip(made, selection.arrays, strict=True)]
    if header.scales and isinstance(model, ScaledCodec):
        return [model.decode_scaled(coded, header.shape, selection.reduce, selection.bands[0])]
    return [_of_bands(model.decode(coded, header.shape, header.quality), selection, 0)]
