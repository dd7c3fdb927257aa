"""The chunk layout: everything comes back, and no damage goes unseen."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eozip import bitstream
from eozip.bitstream import Chunk, Header, frame_check, pack, read_header, read_layout, unpack
from eozip.errors import ChecksumError, EozipError, FormatError, InputError, LimitError

GOLDEN = Path(__file__).parents[1] / "golden"
HEADER = Header(
    codec="toy-s2l2a-v1",
    dtype="uint16",
    shape=(4, 12, 256, 256),
    offset=1000,
    nodata=0,
    quality=61.25,
    weights_hash=b"12345678",
    checks=(1, 2, 3, 2**32 - 1),
)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@st.composite
def headers(draw) -> Header:
    dates, squeezed = draw(st.sampled_from([(1, True), (1, False), (4, False), (9, False)]))
    dtype = draw(st.sampled_from(["uint16", "int16"]))
    limits = np.iinfo(dtype)
    return Header(
        codec=draw(names),
        dtype=dtype,
        shape=(dates, draw(st.integers(1, 64)), draw(st.integers(1, 999)), draw(st.integers(1, 999))),
        squeezed=squeezed,
        sensor=draw(names),
        offset=draw(st.integers(-65536, 65536)),
        nodata=draw(st.none() | st.integers(int(limits.min), int(limits.max))),
        quality=draw(st.integers(0, 10000)) / 100,
        weights_hash=draw(st.binary(min_size=8, max_size=8)),
        checks=tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=dates, max_size=dates))),
        budgets=tuple(draw(st.just([]) | st.lists(st.integers(0, 255), min_size=dates, max_size=dates))),
    )


def forged(chunk: bytes, at: int, field: bytes) -> bytes:
    """A chunk with other header bytes and a right checksum, as an attacker would make it."""
    size = int.from_bytes(chunk[7:9], "little")
    head = chunk[:at] + field + chunk[at + len(field) : size - 4]
    return head + struct.pack("<I", google_crc32c.value(head)) + chunk[size:]


@settings(max_examples=60, deadline=None)
@given(
    headers(),
    st.lists(st.binary(max_size=9), min_size=5, max_size=5),
    st.lists(st.binary(max_size=20), max_size=5),
)
def test_every_field_comes_back(header, around, sections):
    mask, exceptions, skip, levels, residual = around
    header = replace(header, skip=bool(skip), levels=bool(levels), residual=bool(residual))
    data = pack(Chunk(header, mask, exceptions, tuple(sections), residual, skip, levels=levels))
    chunk = unpack(data)
    assert chunk.header == header
    assert (chunk.mask, chunk.exceptions, chunk.skip, chunk.levels, chunk.residual) == tuple(around)
    assert chunk.sections == tuple(sections)
    before = [len(part) for part in (mask, exceptions, skip, levels) if part]
    lengths = [*before, *map(len, sections), *([len(residual)] if residual else [])]
    assert read_header(data) == (header, tuple(lengths))
    assert read_layout(data).ends[-1] == len(data)


def test_header_of_four_dates_is_small():
    names_size = len(HEADER.codec) + len(HEADER.sensor)
    assert len(pack(Chunk(HEADER, b"", b"", (b"",)))) - names_size < 70


def test_header_can_be_read_without_the_sections():
    data = pack(Chunk(HEADER, b"m", b"", (bytes(5000),)))
    header, sections = read_header(data[:200])
    assert header == HEADER
    assert sections == (1, 5000)


def test_every_truncation_is_refused():
    data = pack(Chunk(HEADER, b"mask", b"exceptions", (b"first", b"second")))
    for length in range(len(data)):
        with pytest.raises(FormatError):
            unpack(data[:length])


def test_every_flipped_bit_is_noticed():
    data = pack(Chunk(HEADER, b"mask", b"exceptions", (b"first", b"second")))
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError):
                unpack(bytes(damaged))


def test_trailing_bytes_are_refused():
    with pytest.raises(FormatError, match="follows"):
        unpack(pack(Chunk(HEADER, b"", b"", (b"x",))) + b"y")


WEIGHTS_HASH = 22  # position in the header


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_a_format_error(data, with_magic):
    with pytest.raises(FormatError):
        unpack(bitstream.MAGIC * with_magic + data)


def test_forged_headers_give_errors_of_ours_or_a_chunk():
    """With the checksum put right, nothing but our own errors comes out, and what is no fault is read."""
    parses = set()

    @settings(max_examples=200, deadline=None)
    @given(st.integers(4, 60), st.binary(min_size=1, max_size=12))
    @example(WEIGHTS_HASH, b"anything")
    @example(4, b"\xff")
    def check(at, field):
        data = forged(pack(Chunk(HEADER, b"mask", b"", (b"first", b"second"))), at, field)
        try:
            unpack(data)
            parses.add(True)
        except EozipError:  # another error fails the test
            parses.add(False)

    check()
    assert parses == {True, False}


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_a_chunk_cut_behind_a_section_still_parses(keep):
    parts = (b"first", b"second", b"third")
    data = pack(Chunk(HEADER, b"mask", b"", parts))
    cut = data[: len(data) - sum(map(len, parts[keep:]))]
    chunk = unpack(cut, allow_truncated=True)
    assert (chunk.sections, chunk.declared, chunk.mask) == (parts[:keep], 3, b"mask")
    with pytest.raises(FormatError, match="truncated"):
        unpack(cut)


def test_a_chunk_cut_within_its_mask_is_refused():
    data = pack(Chunk(HEADER, b"mask", b"exceptions", (b"first",)))
    with pytest.raises(FormatError, match="cut before"):
        unpack(data[: -len(b"onsfirst")], allow_truncated=True)


@pytest.mark.parametrize(
    ("at", "field"),
    [(9, "<H"), (11, "<B"), (12, "<H"), (14, "<H")],
    ids=["dates", "bands", "height", "width"],
)
@pytest.mark.parametrize("value", ["zero", "most"])
def test_hostile_sizes_are_refused_before_allocation(at, field, value):
    number = 0 if value == "zero" else 2 ** (8 * struct.calcsize(field)) - 1
    data = forged(pack(Chunk(HEADER, b"", b"", (b"x",))), at, struct.pack(field, number))
    with pytest.raises(LimitError, match="allowed"):
        unpack(data)


def test_hostile_product_of_sizes_is_refused():
    data = forged(pack(Chunk(HEADER, b"", b"", (b"x",))), 12, struct.pack("<HH", 32768, 32768))
    with pytest.raises(LimitError, match="allowed are 2147483648"):
        unpack(data)


def test_hostile_section_lengths_are_refused():
    data = pack(Chunk(HEADER, b"", b"", (b"x",)))
    entry = int.from_bytes(data[7:9], "little") - 9
    with pytest.raises(FormatError, match="truncated"):
        unpack(forged(data, entry, b"\x7f"))
    data = pack(Chunk(HEADER, b"", b"", (bytes(300),)))
    with pytest.raises(FormatError, match="allowed are"):
        unpack(forged(data, int.from_bytes(data[7:9], "little") - 10, b"\xff\xff\xff\xff\x7f"))


def test_hostile_section_count_is_refused():
    data = pack(Chunk(HEADER, b"", b"", (b"x",)))
    count = int.from_bytes(data[7:9], "little") - 10
    with pytest.raises(LimitError, match="sections"):
        unpack(forged(data, count, b"\xff\x7f"))


@pytest.mark.parametrize(
    ("at", "field", "match"),
    [
        (0, b"\x89PNG", "not an eozip chunk"),
        (4, b"\x02", "version 2"),
        (6, b"\x80", "unknown flags"),
        (5, bytes([0x09]), r"\[C, H, W\] with 4 dates"),
        (16, struct.pack("<H", 10001), "quality"),
        (30, struct.pack("<i", 70000), "does not fit its dtype"),
        (35, b"A", "name"),
        (34, b"\x00", "name"),
        (34, b"\x40", "name|shorter than its fields"),
        (34, b"\xff", "name number 127"),
    ],
)
def test_forged_fields_are_named(at, field, match):
    data = pack(Chunk(replace(HEADER, nodata=7), b"", b"", (b"x",)))
    with pytest.raises(FormatError, match=match):
        unpack(forged(data, at, field))


def test_damage_is_named_by_place():
    data = bytearray(pack(Chunk(HEADER, b"mask", b"", (b"first",))))
    data[-1] ^= 1
    with pytest.raises(ChecksumError, match="section 1"):
        unpack(bytes(data))
    data[20] ^= 1
    with pytest.raises(ChecksumError, match="header"):
        unpack(bytes(data))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shape": (0, 12, 8, 8)}, "T = 0"),
        ({"shape": (1, 65, 8, 8)}, "C = 65"),
        ({"shape": (4, 12, 32768, 32768)}, "smaller chunks"),
        ({"dtype": "float32"}, "dtype"),
        ({"checks": (1,)}, "checks"),
        ({"budgets": (1, 2)}, "budgets"),
        ({"weights_hash": b"short"}, "hash"),
        ({"squeezed": True}, "one date"),
        ({"quality": 100.5}, "quality"),
        ({"quality": float("nan")}, "quality"),
        ({"offset": 2**31}, "offset"),
        ({"nodata": -1}, "nodata"),
        ({"codec": "Ümlaut"}, "name"),
        ({"sensor": ""}, "name"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_when_packing(change, match):
    with pytest.raises(InputError, match=match):
        pack(Chunk(replace(HEADER, **change), b"", b"", ()))


def test_frame_check_is_crc32c_of_little_endian_int32():
    symbols = np.array([[1, -2], [300, 2**31 - 1]])
    assert frame_check(symbols) == google_crc32c.value(struct.pack("<4i", 1, -2, 300, 2**31 - 1))


def test_golden_chunk():
    data = (GOLDEN / "chunk-v1.bin").read_bytes()
    chunk = unpack(data)
    assert chunk.header == replace(HEADER, dtype="int16", nodata=-7, budgets=(9, 0, 255, 1))
    assert (chunk.mask, chunk.exceptions, chunk.sections) == (
        b"mask",
        b"exceptions",
        (b"first", b"", b"third"),
    )
    assert pack(Chunk(chunk.header, chunk.mask, chunk.exceptions, chunk.sections)) == data
