"""Codecs of dates that tell of each other: any number of them, and dates whose bytes are missing or damaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import eozip
from eozip import bitstream
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import codec as codecs
from eozip.errors import DesyncError, FormatError
from pyramidscenes import FLEXIBLE, SERIES, season

TOGETHER, APART = (SERIES, FLEXIBLE), ("tec-elic-small", "tec-fp-small", "lossless")
MANY = [(count, name) for count in (1, 2, 3, 5, 16, 17, 32, 33, 100) for name in TOGETHER]
MANY += [(count, name) for count in (1, 5, 33) for name in APART]
MANY += [(400, SERIES), (400, "lossless")]
SLOW = [(400, FLEXIBLE), (400, "tec-elic-small"), (400, "tec-fp-small")]


@pytest.mark.parametrize(
    ("count", "name"), [*MANY, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_so_many_dates_come_back_together_and_one_by_one(count, name):
    dn = season((count, 2, 9, 12), {}, count)
    blob = eozip.encode(dn, name, quality=None if name == "lossless" else 70)
    decoded = eozip.decode(blob)
    assert np.array_equal(dn, decoded) if name == "lossless" else eozip.psnr(dn, decoded) > 40
    for date in {0, count // 3, count // 2, count - 1}:
        assert np.array_equal(eozip.decode(blob, dates=[date])[0], decoded[date])
    some = [count - 1, *range(0, count - 1, max(1, count // 3))]
    assert np.array_equal(eozip.decode(blob, dates=some), decoded[some])


def with_stream(coded: Encoded, section: int, date: int, stream: bytes) -> Encoded | None:
    """A date's stream of a section in another's place; None if that changes nothing."""
    streams = codecs.parted(coded.sections[section], len(coded.checks), "x")
    if streams[date] == stream:
        return None
    streams[date] = stream
    sections = list(coded.sections)
    sections[section] = codecs.joined(streams)
    return replace(coded, sections=tuple(sections))


@pytest.mark.parametrize("name", [SERIES, FLEXIBLE])
@pytest.mark.parametrize("stream", [b"", b"\x5a" * 50], ids=["missing", "damaged"])
def test_a_date_that_is_missing_or_damaged_is_named_whoever_needs_it(name, stream):
    """Not the one in which it is seen first; dates that do not need it are read as ever."""
    codec, x = registry.get(name), season((5, 3, 24, 25), {}, 1).astype(np.float32)
    coded = codec.encode(x, 70)
    pixels, order = codec.decode(coded, x.shape, 70), codec.reader(coded, x.shape, None)._order
    assert len(order.waves) > 2
    for section in (0, len(coded.sections) - 1):
        for date in range(5):
            bad = with_stream(coded, section, date, stream)
            assert bad is not None
            if (section, date) == (0, 0):
                with pytest.raises(FormatError, match=f"{name}: layout, in the bytes of date 0: "):
                    codec.decode(bad, x.shape, 70)
                continue
            with pytest.raises((FormatError, DesyncError), match=f"{name}: date {date}: "):
                codec.decode(bad, x.shape, 70)
            others = [t for t in range(5) if date not in order.needed([t])]
            for other in {*range(5)} - {*others}:
                with pytest.raises((FormatError, DesyncError), match=f"date {date}: "):
                    codec.decode_scaled(bad, x.shape, dates=[other])
            if others:
                found = codec.decode_scaled(bad, x.shape, dates=others)
                assert np.array_equal(found, pixels[others])


def test_two_damaged_dates_are_named_one_after_the_other():
    """The first in the order of coding, as what follows it may be sound."""
    codec, x = registry.get(SERIES), season((9, 3, 24, 25), {}, 2).astype(np.float32)
    coded = codec.encode(x, 70)
    order = codec.reader(coded, x.shape, None)._order
    first, last = order.waves[-1][0], order.waves[-1][-1]
    bad = with_stream(coded, 2, last, b"")
    both = None if bad is None else with_stream(bad, 2, first, b"")
    assert bad is not None
    assert both is not None
    with pytest.raises((FormatError, DesyncError), match=f"date {first}: "):
        codec.decode(both, x.shape, 70)
    with pytest.raises((FormatError, DesyncError), match=f"date {last}: "):
        codec.decode_scaled(both, x.shape, dates=[t for t in range(9) if t != first])


def test_a_chunk_with_a_missing_reference_gives_the_other_dates():
    """Through bytes of a chunk, as a store has them."""
    x = season((5, 3, 24, 25), {}, 1)
    blob = eozip.encode(x, SERIES, quality=70)
    chunk = bitstream.unpack(blob)
    coded = Encoded(tuple(chunk.sections), chunk.header.checks)
    order = registry.get(SERIES).reader(coded, x.shape, None)._order
    root = order.waves[0][0]
    bad = with_stream(coded, 2, order.waves[1][0], b"")
    assert bad is not None
    packed = bitstream.pack(replace(chunk, sections=bad.sections))
    assert np.array_equal(eozip.decode(packed, dates=[root]), eozip.decode(blob, dates=[root]))
    with pytest.raises((FormatError, DesyncError), match=f"date {order.waves[1][0]}: "):
        eozip.decode(packed)
