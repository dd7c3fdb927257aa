"""From one chunk to the pixels that a reader wants: all of them, some bands, some groups, or a reduced picture."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eozip import bitstream, sensors
from eozip.arguments import real
from eozip.bitstream import Chunk, Header, Layout, arrays, nodata_mask, residual, samples_problem
from eozip.chunk.pixels import fill_holes, to_dn
from eozip.codecs import lossless, registry
from eozip.codecs.base import Codec, Encoded, ScaledCodec
from eozip.codecs.level_map import decode_levels
from eozip.codecs.registry import LOSSLESS, WITHOUT_NETWORK
from eozip.codecs.scales import REDUCTIONS, SECTIONS, all_over, averaged, ratio, section_of
from eozip.codecs.skip_mask import decode_cells
from eozip.errors import FormatError, InputError, LimitError
from eozip.threads import alone


@dataclass(frozen=True)
class _Selection:
    """What is wanted of a chunk.

    Attributes:
        reduce: 1, or how many pixels of the finest grid become one, each way.
        budget: the first so many of the codec's sections; None: all.
        bands: for each array of the chunk the positions of its bands that are wanted, in their order; None: all of them,
            an empty tuple: nothing of this array.
        dates: positions of the dates wanted, in their order; None: all.
    """

    reduce: int = 1
    budget: int | None = None
    bands: tuple[tuple[int, ...] | None, ...] = (None,)
    dates: tuple[int, ...] | None = None

    @property
    def arrays(self) -> tuple[int, ...]:
        """Positions of the arrays of which something is wanted."""
        return tuple(k for k, chosen in enumerate(self.bands) if chosen != ())

    def times(self, factor: int) -> int:
        """How much coarser than their own grid the bands of a factor are wanted."""
        return self.reduce if factor == 1 else ratio(self.reduce, factor)

    def sections(self, header: Header, declared: int) -> int:
        """How many of the codec's sections this takes; of one grid with interpolated bands it may be fewer."""
        if self.budget is not None:
            return min(self.budget, declared)
        if header.codec in WITHOUT_NETWORK and header.groups:
            return min(declared, 1 + max(self.arrays))
        if not header.scales:
            return declared
        factors = [header.factors[k] for k in self.arrays]
        first = 1 if header.budgets else 0  # that of the coarsest scales
        coarser = first + max(0, declared - first - 1) // SECTIONS * SECTIONS  # of passes before the last one
        return min(declared, coarser + 1 + section_of(min(f * self.times(f) for f in factors)))

    def takes_residual(self, header: Header) -> bool:
        """Whether this takes the residual layer, which lies behind all sections."""
        return header.residual and (self.reduce == 1 or not header.scales)


def selected(
    header: Header,
    *,
    reduce: object = 1,
    budget: int | None = None,
    bands: Sequence[str | int] | None = None,
    groups: Sequence[int] | None = None,
    dates: Sequence[int] | None = None,
) -> _Selection:
    """What a caller asked of a chunk.

    Raises:
        InputError: what this chunk does not have, or cannot be asked for together.
    """
    times = _checked_reduce(reduce)
    if budget is not None and (times > 1 or bands is not None or groups is not None):
        raise InputError("give budget alone, or reduce, bands and groups")
    chosen: list[tuple[int, ...] | None] = [None] * len(header.shapes)
    if groups is not None:
        chosen = _groups(header, groups)
    if bands is not None:
        chosen = _bands(header, bands, chosen)
    return _Selection(times, budget, tuple(chosen), None if dates is None else _dates(header, dates))


def named_bands(names: object, sensor_id: str, count: int) -> tuple[str, ...]:
    """Names of bands as a caller gives them, in the spelling of their sensor.

    Args:
        names: C names.
        sensor_id: whose bands they are.
        count: C.

    Raises:
        InputError: no names, another number of them, or some that the sensor does not have.
    """
    if isinstance(names, str | Mapping) or not isinstance(names, Sequence):
        raise InputError(f"bands: expected a list of names, got {names!r:.80}")
    found = sensors.get(sensor_id).spelled(names)
    if len(found) != count:
        raise InputError(
            f"bands: expected {count} names, one for each band, got {len(found)}: {' '.join(found)}"
        )
    return found


def named_groups(names: object, sensor_id: str, counts: Mapping[int, int]) -> tuple[str, ...]:
    """As `named_bands`, of groups: a mapping of resolutions to names, or all names, the finest group's first.

    Args:
        names: of the bands.
        sensor_id: whose bands they are.
        counts: resolution > number of bands.
    """
    if not isinstance(names, Mapping):
        return named_bands(names, sensor_id, sum(counts.values()))
    if set(names) != set(counts):
        raise InputError(f"bands: expected names for {sorted(counts)}, got {list(names)}")
    lists = [named_bands(names[resolution], sensor_id, counts[resolution]) for resolution in sorted(counts)]
    return named_bands(sum(lists, ()), sensor_id, sum(counts.values()))


def check_whole(selection: _Selection, chunk: Chunk) -> None:
    """What was asked for must be there: fewer sections would be a worse picture without a word.

    Raises:
        FormatError: the chunk is cut before what the selection needs.
    """
    needed, there = selection.sections(chunk.header, chunk.declared), len(chunk.sections)
    if there < needed or (selection.takes_residual(chunk.header) and not chunk.residual):
        raise FormatError(
            f"chunk: expected the first {needed} of {chunk.declared} sections"
            + " and the residual layer" * selection.takes_residual(chunk.header)
            + f", got {there} whole ones; fetch more of it (eozip.inspect says how many bytes)"
        )


def bytes_for(selection: _Selection, layout: Layout) -> int:
    """Bytes from the start of a chunk that a selection takes."""
    header, before = layout.header, layout.before
    if selection.takes_residual(header):
        return layout.ends[-1]
    return layout.ends[before + selection.sections(header, layout.declared)]


def _checked_reduce(reduce: object) -> int:
    try:
        if isinstance(reduce, bool):
            raise TypeError("a truth value")
        times = operator.index(reduce)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"reduce: expected one of {REDUCTIONS}, got {reduce!r:.80}") from error
    if times not in REDUCTIONS:
        raise InputError(f"reduce: expected one of {REDUCTIONS}, got {times}")
    return times


def _groups(header: Header, wanted: Sequence[int]) -> list[tuple[int, ...] | None]:
    there = [group.resolution for group in header.groups]
    asked = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not there:
        raise InputError(f"groups: this chunk has its bands on one grid, got {asked}; leave groups out")
    if not asked or any(one not in there for one in asked):
        raise InputError(f"groups: expected some of {there}, got {asked}")
    return [None if one in asked else () for one in there]


def _dates(header: Header, wanted: Sequence[int]) -> tuple[int, ...]:
    count = header.shape[0]
    try:
        found = tuple(operator.index(date) for date in wanted)
    except TypeError as error:
        raise InputError(f"dates: expected positions, got {wanted!r:.80}") from error
    if not found or len(set(found)) != len(found) or not all(0 <= t < count for t in found):
        raise InputError(f"dates: expected some of 0..{count - 1}, and none twice, got {list(found)!r:.80}")
    return found


def _bands(
    header: Header, wanted: Sequence[str | int], chosen: list[tuple[int, ...] | None]
) -> list[tuple[int, ...] | None]:
    positions = [_position(header, one) for one in _listed(wanted)]
    if len(set(positions)) != len(positions) or not positions:
        raise InputError(f"bands: expected some, and none twice, got {list(wanted)}")
    out: list[tuple[int, ...] | None] = []
    first = 0
    for (_, count, _, _), group in zip(header.shapes, chosen, strict=True):
        own = tuple(p - first for p in positions if first <= p < first + count)
        if own and group == ():
            raise InputError(f"bands: got {list(wanted)}, of which some lie in none of the groups asked for")
        out.append(own)
        first += count
    return out


def _listed(wanted: object) -> list[str | int]:
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        raise InputError(f"bands: expected a list of names or positions, got {wanted!r:.80}")
    return list(wanted)


def _position(header: Header, band: str | int) -> int:
    count = header.shape[1]
    if isinstance(band, str):
        names = header.names or _sensor_names(header)
        if band not in names:
            raise InputError(
                f"bands: expected some of {' '.join(names) or 'no names, but positions'}, got {band!r:.80}"
            )
        return names.index(band)
    try:
        position = operator.index(band)
    except TypeError as error:
        raise InputError(f"bands: expected names or positions, got {band!r:.80}") from error
    if isinstance(band, bool) or not 0 <= position < count:
        raise InputError(f"bands: expected positions 0..{count - 1}, got {band}")
    return position


def _sensor_names(header: Header) -> tuple[str, ...]:
    """Names of a chunk that has none of its own, but all bands of a sensor on one grid."""
    if header.groups or header.sensor not in sensors.names():
        return ()
    names = sensors.get(header.sensor).band_names
    return names if len(names) == header.shape[1] else ()


Shape = tuple[int, int, int, int]


def decode_arrays(chunk: Chunk, selection: _Selection) -> list[np.ndarray]:
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
    """Refuse what is too large for this process before anything of that size is allocated.

    Raises:
        LimitError: see `eozip.bitstream.samples_problem`.
    """
    problem = samples_problem(header.shape)
    if problem:
        raise LimitError(f"chunk: declares {problem}")


def too_many(budget: int, most: int) -> InputError:
    """The error of who asks for more sections than there are."""
    return InputError(
        f"budget: expected 1 to {most} sections, as many as there are, got {budget}; leave it out to decode all of them"
    )


def check_budget(chunk: Chunk, budget: int | None) -> None:
    """What was asked for must be there: fewer sections would be a worse picture without a word.

    A stream of one section, or of none, has no other picture than the whole one, whatever the budget is.
    """
    if budget is not None and 1 < chunk.declared < budget:
        raise too_many(budget, chunk.declared)
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
    selection: _Selection,
    is_scaled: bool,
) -> np.ndarray:
    """Decoded pixels of one array with nodata and out-of-range values put in, its bands chosen, reduced if they are not."""
    shape = header.shapes[index]
    mask = _chosen(nodata_mask.decode_mask(exact[0], shape), selection, index) if exact[0] else None
    times = selection.times(header.factors[index])
    if exact[1] and not is_scaled:
        where, values = nodata_mask.decode_exceptions(exact[1], shape, header.dtype)
        whole = np.zeros(shape, header.dtype)
        whole[where] = values
        own = _chosen(where, selection, index)
        dn[own] = _chosen(whole, selection, index)[own]
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
    if header.residual or header.skip or header.levels or not all(mask.all() for mask in decoded):
        raise FormatError("chunk: no sections, though not all of it is nodata; the data are damaged")


def _decoded(chunk: Chunk, selection: _Selection) -> list[np.ndarray]:
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
        return [_chosen(dn, selection, k) for dn, k in zip(made, selection.arrays, strict=True)]
    is_whole = selection.budget is None or selection.budget >= chunk.declared
    if not (chunk.residual and is_whole and selection.takes_residual(header)):
        return [to_dn(x, header) for x in _decode_learned(chunk, selection)]
    plain = replace(header, nodata=None)
    layers = arrays.split(chunk.residual, len(header.shapes))
    out = []
    for x, k in zip(_decode_learned(chunk, selection), selection.arrays, strict=True):
        steps, step = residual.decode_layer(layers[k], header.shapes[k])
        steps = _chosen(steps, selection, k)
        out.append(residual.corrected(to_dn(x, plain), steps, step, header.dtype, header.nodata))
    return out


def _chosen(values: np.ndarray, selection: _Selection, index: int) -> np.ndarray:
    """Dates and bands wanted of an array [T, C, H, W]."""
    values = values if selection.dates is None else values[list(selection.dates)]
    return _of_bands(values, selection, index)


def _of_bands(values: np.ndarray, selection: _Selection, index: int) -> np.ndarray:
    bands = selection.bands[index]
    return values if bands is None else values[:, list(bands)]


def _chosen_shape(shape: Shape, selection: _Selection, index: int, factor: int) -> Shape:
    """Of an array without sections; a factor of 0: not reduced yet."""
    bands = selection.bands[index]
    times = selection.times(factor) if factor else 1
    t, c, h, w = shape
    t = t if selection.dates is None else len(selection.dates)
    return t, c if bands is None else len(bands), -(-h // times), -(-w // times)


def _decode_without_network(chunk: Chunk, selection: _Selection) -> list[np.ndarray]:
    header, count = chunk.header, len(chunk.header.shapes)
    wrong = chunk.declared != count or len(chunk.sections) <= max(selection.arrays)
    if wrong or header.residual or header.skip or header.levels or header.scales:
        raise FormatError(
            f"chunk: expected one {header.codec} section, got {len(chunk.sections)} of {chunk.declared}"
            + ", and a residual layer" * header.residual
            + ", and a skip mask" * header.skip
            + ", and a level map" * header.levels
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


def _decode_learned(chunk: Chunk, selection: _Selection) -> list[np.ndarray]:
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
    if header.levels and not header.scales:
        raise FormatError(f"chunk: a level map, which {model.id} does not write; the data are damaged")
    with alone():
        return _from_model(model, encoded_of(chunk, selection.budget), header, selection)


def encoded_of(chunk: Chunk, budget: int | None) -> Encoded:
    """What a codec decodes of a chunk: its first sections, or all of them.

    Raises:
        FormatError: a damaged skip mask or level map.
    """
    header = chunk.header
    skip = decode_cells(chunk.skip, header.shape) if header.skip else None
    levels = decode_levels(chunk.levels, header.shape) if header.levels else None
    return Encoded(chunk.sections[:budget], header.checks, header.budgets, skip=skip, levels=levels)


def _from_model(model: Codec, coded: Encoded, header: Header, selection: _Selection) -> list[np.ndarray]:
    if header.groups and isinstance(model, ScaledCodec):
        pairs = [(f, g.bands) for f, g in zip(header.factors, header.groups, strict=True)]
        made = model.decode_groups(
            coded, header.shape, pairs, selection.reduce, selection.arrays, selection.dates
        )
        return [_of_bands(x, selection, k) for x, k in zip(made, selection.arrays, strict=True)]
    if header.scales and isinstance(model, ScaledCodec):
        return [
            model.decode_scaled(coded, header.shape, selection.reduce, selection.bands[0], selection.dates)
        ]
    return [_chosen(model.decode(coded, header.shape, header.quality), selection, 0)]


def decode_chunk(
    blob: bytes,
    *,
    budget: int | None = None,
    reduce: int = 1,
    bands: Sequence[str | int] | None = None,
    groups: Sequence[int] | None = None,
    dates: Sequence[int] | None = None,
) -> tuple[Header, dict[int, np.ndarray]]:
    """Decode a chunk, or as much of it as is wanted; see `eozip.decode`.

    Returns:
        Its header, and resolution (0 where there are no groups) > pixels.

    Raises:
        InputError: something that this chunk does not have.
        FormatError: not a chunk, damaged or cut.
    """
    if budget is not None and not (real("budget", budget) >= 1 and budget == int(budget)):
        raise InputError(f"budget: expected at least 1 section, got {budget}")
    is_partial = budget is not None or reduce != 1 or bands is not None or groups is not None
    data = checked_blob(blob)
    chunk = bitstream.unpack(data, allow_truncated=is_partial)
    selection = selected(chunk.header, reduce=reduce, budget=budget, bands=bands, groups=groups, dates=dates)
    if budget is None:
        check_whole(selection, chunk)
    else:
        check_budget(chunk, budget)
    made = decode_arrays(chunk, selection)
    made = [dn[0] for dn in made] if chunk.header.squeezed else made
    keys = resolutions_of(chunk.header) or [0]
    return chunk.header, {keys[k]: dn for k, dn in zip(selection.arrays, made, strict=True)}


def resolutions_of(header: Header) -> list[int]:
    """Of a chunk's groups, in their order; none where all bands lie on one grid."""
    return [group.resolution for group in header.groups]


def checked_blob(blob: object) -> bytes:
    """A chunk as a caller gave it.

    Raises:
        InputError: it is no bytes; a path, say.
    """
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise InputError(
            f"expected the bytes of a chunk, got {type(blob).__name__}; read the file first, or decode a store with "
            "eozip.decode_store"
        )
    return bytes(blob)
