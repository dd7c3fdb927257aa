"""What the sections of a store's streams take, from headers alone."""

from __future__ import annotations

from dataclasses import dataclass

from eozip.store.description import Description
from eozip.store.documents import ARRAY
from eozip.store.pixels import StorePixels, open_pixels
from eozip.store.streams import Stream


@dataclass(frozen=True)
class SectionSizes:
    """Bytes of all streams of a store.

    Attributes:
        streams: how many there are.
        exact: headers, masks and exceptions, which every reader needs.
        sections: [K] the first, second, ... section of all streams that have it.
        behind: what lies behind the codecs' sections (layers that keep a largest error).
        budgets: [K] bytes of streams that `--budget 1`, `2`, ... reads.
    """

    streams: int
    exact: int
    sections: list[int]
    behind: int
    budgets: list[int]


def section_sizes(description: Description) -> SectionSizes:
    """Reads every header of a store, and nothing else of its streams.

    Raises:
        FormatError: a header is damaged.
    """
    with open_pixels(description) as pixels:
        streams = _streams(pixels)
    lengths = [[b - a for a, b in zip((s.exact, *s.ends), s.ends)] for s in streams]
    count = max(map(len, lengths), default=0)
    sections = [sum(each[k] for each in lengths if k < len(each)) for k in range(count)]
    exact = sum(stream.exact for stream in streams)
    behind = sum(stream.total for stream in streams) - exact - sum(sections)
    budgets = [sum(stream.needed(k + 1) for stream in streams) for k in range(count)]
    return SectionSizes(len(streams), exact, sections, behind, budgets)


def _streams(pixels: StorePixels) -> list[Stream]:
    found: list[Stream] = []
    grid, names = pixels.description.grid, set(pixels.files.names())
    for index in (index for index in grid.shards() if f"{ARRAY}/{grid.key(index)}" in names):
        shard = pixels.shard(index)
        for window in (w for strip in grid.strips(index) for w in strip):
            if shard is not None and shard.holds(window.position):
                with pixels.naming(index, window):
                    found += shard.streams(window.position)
    return found
