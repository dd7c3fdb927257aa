"""What a reader wants of a chunk: all of it, some bands, some groups, a reduced picture; and how many bytes that takes."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eozip import sensors
from eozip.bitstream import Chunk, Header, Layout
from eozip.codecs.registry import WITHOUT_NETWORK
from eozip.codecs.scales import REDUCTIONS, ratio, section_of
from eozip.errors import FormatError, InputError


@dataclass(frozen=True)
class Selection:
    """What is wanted of a chunk.

    Attributes:
        reduce: 1, or how many pixels of the finest grid become one, each way.
        budget: the first so many of the codec's sections; None: all.
        bands: for each array of the chunk the positions of its bands that are wanted, in their order; None: all of them,
            an empty tuple: nothing of this array.
    """

    reduce: int = 1
    budget: int | None = None
    bands: tuple[tuple[int, ...] | None, ...] = (None,)

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
        return min(declared, 1 + section_of(min(f * self.times(f) for f in factors)))

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
) -> Selection:
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
    return Selection(times, budget, tuple(chosen))


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


def check_whole(selection: Selection, chunk: Chunk) -> None:
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


def bytes_for(selection: Selection, layout: Layout) -> int:
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
