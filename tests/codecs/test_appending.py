"""Chunks that grow: old dates stay to the bit, whatever follows them and in how many steps."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip import bitstream
from eozip.bitstream import Chunk
from eozip.chunk.encoding import encode_chunk, encode_group_chunk
from eozip.chunk.growing import Before, shortened
from eozip.chunk.options import EncodeOptions
from eozip.codecs.base import Encoded, UnsuitableError
from eozip.codecs.pyramid import appending, narrowing, ports
from eozip.codecs.pyramid.appending import SeriesCodec
from eozip.codecs.pyramid.codec import joined, parted
from eozip.codecs.pyramid.grids import Grid
from eozip.codecs.pyramid.references import arrived, code_order
from eozip.codecs.pyramid.side import Side, row_of
from eozip.entropy.range_coder import DecodePort, EncodePort
from eozip.errors import ChecksumError, DesyncError, EozipError, FormatError
from pyramidscenes import BILINEAR, CUBIC, SERIES, codec_of, season, shipped_tensors, wild
from reference import pyramid

STEPS = [(1, 1, 1, 1), (1, 3), (3, 1), (2, 2), (2, 1, 1), (1, 4, 2)]
TWELVE = {0: Grid(CUBIC, 6, 1, 5), 2: Grid(BILINEAR, 2, 1, 1)}


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Random weights everywhere: what references tell matters as much as all else."""
    return wild(shipped_tensors(), 30)


@pytest.fixture(scope="module")
def codec(tensors) -> SeriesCodec:
    found = codec_of(tensors, SERIES)
    assert isinstance(found, SeriesCodec)
    return found


def grow(dn: np.ndarray, steps, **options) -> list[bytes]:
    """One chunk after each step."""
    asked = EncodeOptions(codec=SERIES, quality=options.pop("quality", 50.0), **options)
    blobs = [encode_chunk(dn[: steps[0]], asked).blob]
    for first, stop in pairwise(accumulate(steps)):
        made = encode_chunk(dn[first:stop], asked, before=Before(blobs[-1], first))
        assert made.joins
        np.testing.assert_array_equal(made.pixels, eozip.decode(made.blob)[first:])
        assert len(made.report.date_bits) == stop - first
        blobs.append(made.blob)
    return blobs


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("grids", [{}, TWELVE], ids=["fine", "cube"])
def test_old_pixels_stay_and_the_page_reads_all_of_them(codec, tensors, steps, grids):
    x = season((sum(steps), 4, 37, 42), grids, 3).astype(np.float32)
    coded, count = codec.encode(x[: steps[0]], 60.0), steps[0]
    for more in steps[1:]:
        shape = (count, *x.shape[1:])
        before = codec.decode(coded, shape, 60.0)
        grown = codec.behind(coded, shape, count).encode(x[count : count + more], 60.0)
        after = codec.decode(grown, (count + more, *shape[1:]), 60.0)
        np.testing.assert_array_equal(after[:count], before)
        np.testing.assert_array_equal(after[count:], grown.decoded()[0])
        assert grown.checks[:count] == coded.checks
        for section, old in zip(grown.sections[1:], coded.sections[1:], strict=True):
            assert parted(section, count + more, "x")[:count] == parted(old, count, "x")
        coded, count = grown, count + more
    header = bitstream.Header(codec.id, "uint16", x.shape, checks=coded.checks)
    read = pyramid.decode(pyramid.weights_of(tensors), Chunk(header, b"", b"", coded.sections))
    np.testing.assert_array_equal(read, after)


@pytest.mark.parametrize("steps", STEPS)
def test_what_was_joined_comes_apart_again(codec, steps):
    """As after an append that was killed: the chunk holds dates that nobody is to see."""
    x = season((sum(steps), 3, 30, 34), {}, 4).astype(np.float32)
    coded, count = codec.encode(x[: steps[0]], 60.0), steps[0]
    for more in steps[1:]:
        shape = (count, *x.shape[1:])
        grown = codec.behind(coded, shape, count).encode(x[count : count + more], 60.0)
        again = codec.shortened(grown, (count + more, *shape[1:]), count)
        assert again.checks == coded.checks
        np.testing.assert_array_equal(codec.decode(again, shape, 60.0), codec.decode(coded, shape, 60.0))
        other = codec.behind(grown, (count + more, *shape[1:]), count).encode(x[-more:], 60.0)
        same = codec.behind(coded, shape, count).encode(x[-more:], 60.0)
        assert (other.sections, other.checks) == (same.sections, same.checks)
        coded, count = grown, count + more


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 9), st.data())
def test_any_sizes_of_groups(steps, seed, data):
    """Each comes back with all before as they were; any dates are read alone, and any groups are taken off again."""
    count, asked = 0, EncodeOptions(codec=SERIES, quality=float(data.draw(st.integers(0, 99))))
    dn, blob, shown = season((sum(steps), 2, 17, 10), {}, seed), b"", np.zeros((0, 2, 17, 10), np.uint16)
    for more in steps:
        before = Before(blob, count) if blob else None
        made = encode_chunk(dn[count : count + more], asked, before=before)
        assert made.joins == (count > 0)
        blob, count = made.blob, count + more
        whole = eozip.decode(blob)
        np.testing.assert_array_equal(whole[: len(shown)], shown)
        shown = whole
    some = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4, unique=True))
    np.testing.assert_array_equal(eozip.decode(blob, dates=some), shown[some])
    kept = data.draw(st.sampled_from([*accumulate(steps)]))
    if kept < count:
        np.testing.assert_array_equal(eozip.decode(shortened(Before(blob, kept))), shown[:kept])


@pytest.mark.parametrize("anchors", [(0,), (1, 0), (0, 2, 1)])
def test_anchors_do_not_stay_alone(monkeypatch, anchors):
    """Their streams begin with steps, which dates that are all of a chunk have not: nothing is damaged."""
    monkeypatch.setattr("eozip.codecs.pyramid.codec.anchors_of", lambda *_: anchors)
    blob = encode_chunk(season((6, 2, 24, 20), {}, 3), EncodeOptions(codec=SERIES, quality=60.0)).blob
    with pytest.raises(FormatError, match="no anchor of theirs"):
        shortened(Before(blob, len(anchors)))
    kept = len(anchors) + 1
    np.testing.assert_array_equal(eozip.decode(shortened(Before(blob, kept))), eozip.decode(blob)[:kept])


def test_appended_dates_cost_about_what_they_do_in_one_chunk():
    dn = season((5, 4, 64, 64), {}, 5)[1:]  # a clear date first
    one = len(grow(dn, [4])[-1])
    for steps in ((1, 1, 1, 1), (1, 3), (2, 2)):
        assert len(grow(dn, steps)[-1]) < 1.1 * one
    apart = sum(len(grow(dn[t : t + 1], [1])[-1]) for t in range(4))
    assert one < 0.8 * apart


def test_single_dates_know_those_before_them(codec):
    x = season((5, 2, 24, 24), {}, 6).astype(np.float32)
    coded = codec.encode(x[:1], 50.0)
    for count in range(1, 5):
        shape = (count, *x.shape[1:])
        coded = codec.behind(coded, shape, count).encode(x[count : count + 1], 50.0)
        order = codec.reader(coded, (count + 1, *x.shape[1:]), None)._order
        assert 0 < len(order.known[count]) <= 3
        assert max(order.known[count]) < count
        assert [size for size, _ in order.groups] == [1] * (count + 1)


def groups_of(draw) -> list[tuple[int, tuple[int, ...]]]:
    """Any groups of dates that there may be."""
    first = draw(st.integers(1, 5))
    most = min(3, first - 1)
    found = [(first, tuple(draw(st.permutations(range(first)))[: draw(st.integers(0, most))]))]
    for size in draw(st.lists(st.integers(1, 4), max_size=4)):
        total = first + size
        root = draw(st.integers(0, first - 1))
        others = draw(st.permutations([t for t in range(total) if t != root]))
        found.append((size, (root, *others[: draw(st.integers(0, min(2, total - 2)))])))
        first = total
    return found


@settings(deadline=None)
@given(st.data())
def test_groups_of_dates_change_nothing_for_those_before(data):
    groups = groups_of(data.draw)
    order = arrived(groups)
    coded = [t for wave in order.waves for t in wave]
    assert sorted(coded) == list(range(len(order.known)))
    for t, known in enumerate(order.known):
        assert all(coded.index(r) < coded.index(t) for r in known)
        assert bool(known) == (t != coded[0])
    for count in range(1, len(groups) + 1):
        before = arrived(groups[:count])
        assert before.known == order.known[: len(before.known)]
        assert arrived(appending._first_of(groups, len(before.known))).known == before.known


@settings(deadline=None)
@given(st.data())
def test_groups_of_dates_come_back(tensors, data):
    groups, tables = groups_of(data.draw), pyramid.weights_of(tensors).tables
    dates = sum(size for size, _ in groups)
    if dates > 1:
        port = EncodePort()
        sent = code_order(Side(port, tables), dates, groups)
        blob = port.finish()
        assert code_order(Side(DecodePort(blob), tables), dates, None) == sent == arrived(groups)
        page = pyramid.references_of(pyramid.Reader(DecodePort(blob), tables), dates, temporal=True)
        assert tuple(tuple(page[t]) for t in range(dates)) == sent.known


BAD_ORDERS = {
    "twice": [(4, 1.2), (0, 1.2), (0, 1.2), (1, 1.2), (-1, 2), (-1, 2)],
    "a later one first": [(4, 1.2), (0, 1.2), (1, 1.2), (0, 1.2), (0, 2)],
    "too many dates": [(4, 1.2), (3, 1.2)],
    "too many anchors": [(4, 1.2), (1, 1.2), (2, 1.2)],
    "anchors of all": [(3, 1.2)],
}


@pytest.mark.parametrize("name", BAD_ORDERS)
def test_groups_that_no_encoder_writes(codec, name):
    tables, port = codec.model.tables, EncodePort()
    for value, spread in BAD_ORDERS[name]:
        port.code(np.array([value], np.int32), np.array([row_of(spread)]), tables)
    blob = port.finish()
    with pytest.raises(FormatError):
        code_order(Side(DecodePort(blob), tables), 3, None)
    with pytest.raises(FormatError):
        pyramid.references_of(pyramid.Reader(DecodePort(blob), tables), 3, temporal=True)


@pytest.mark.parametrize("plain", [False, True])
def test_a_copied_stream_is_the_same_one(codec, monkeypatch, plain):
    if plain:
        for module in (ports, narrowing):
            monkeypatch.setattr(module, "library", lambda: None)
    x = season((2, 3, 30, 34), {}, 7).astype(np.float32)
    coded = codec.encode(x, 40.0)
    assert codec.shortened(coded, (2, *x.shape[1:]), 2).sections == coded.sections


# --- whole chunks ---


def test_nodata_and_values_out_of_range_stay_exact():
    dn = season((4, 3, 40, 50), {}, 8)
    dn[0, :, :9, :20], dn[2, 1, 30:, 4], dn[3] = 0, 0, 0
    dn[1, 2, 5, 6] = dn[2, 0, 7, 7] = 55_000
    blobs = grow(dn, (1, 1, 1, 1), nodata=0)
    out = eozip.decode(blobs[-1])
    np.testing.assert_array_equal(out == 0, dn == 0)
    np.testing.assert_array_equal(out[dn == 55_000], 55_000)
    for count, blob in enumerate(blobs, 1):
        np.testing.assert_array_equal(eozip.decode(blob), out[:count])
    assert len(blobs[-1]) - len(blobs[-2]) < 60  # a date of nothing


def test_a_date_of_nothing_suits_any_grids():
    dn = season((3, 4, 40, 50), TWELVE, 8)
    dn[1] = 0
    out = eozip.decode(grow(dn, (1, 1, 1), nodata=0)[-1])
    np.testing.assert_array_equal(out == 0, dn == 0)


def test_maps_and_dropped_cells_of_old_and_new_dates():
    dn = season((4, 3, 48, 64), {}, 9)
    levels = np.random.default_rng(1).integers(0, 16, (3, 4)).astype(np.uint8)
    drop = np.zeros((1, 48, 64), bool)
    drop[:, 8:32, 16:48] = True
    asked = EncodeOptions(codec=SERIES, quality=50.0)
    parts = ({}, {"level_map": levels}, {"drop": drop}, {})
    blobs = [encode_chunk(dn[:1], asked, **parts[0]).blob]
    for t in (1, 2, 3):
        made = encode_chunk(dn[t : t + 1], asked, before=Before(blobs[-1], t), **parts[t])
        assert made.joins
        np.testing.assert_array_equal(made.pixels, eozip.decode(made.blob)[t:])
        if t == 2:
            np.testing.assert_array_equal(made.dropped, drop)
        blobs.append(made.blob)
    whole = eozip.decode(blobs[-1])
    for count, blob in enumerate(blobs, 1):
        np.testing.assert_array_equal(eozip.decode(blob), whole[:count])
        np.testing.assert_array_equal(eozip.decode(shortened(Before(blobs[-1], count))), whole[:count])
    maps = eozip.chunk.api.level_map_of(blobs[-1])
    np.testing.assert_array_equal(maps[1], levels)
    assert not maps[[0, 2, 3]].any()
    hidden = eozip.chunk.api.dropped(blobs[-1])
    np.testing.assert_array_equal(hidden[2], drop[0])
    assert not hidden[[0, 1, 3]].any()
    assert not bitstream.unpack(shortened(Before(blobs[-1], 1))).header.levels


def test_bands_on_grids_of_their_own():
    groups = {
        10: season((3, 2, 48, 60), {}, 10),
        20: season((3, 2, 24, 30), {}, 11),
        60: season((3, 1, 8, 10), {}, 12),
    }
    groups[20][1, 0, :5] = 0
    asked = EncodeOptions(codec=SERIES, quality=50.0, nodata=0)
    blob = encode_group_chunk({r: dn[:1] for r, dn in groups.items()}, asked).blob
    for t in (1, 2):
        before = eozip.decode(blob)
        made = encode_group_chunk(
            {r: dn[t : t + 1] for r, dn in groups.items()}, asked, before=Before(blob, t)
        )
        assert made.joins
        blob = made.blob
        for resolution, dn in eozip.decode(blob).items():
            np.testing.assert_array_equal(dn[:t], before[resolution])
            np.testing.assert_array_equal(dn == 0, groups[resolution][: t + 1] == 0)


OTHERS = {
    "quality": {"quality": 51.0},
    "offset": {"offset": 1000},
    "nodata": {"nodata": 7},
    "target": {"quality": None, "target_psnr": 60.0},
    "bound": {"max_error": 90},
    "codec": {"codec": "tec-elic-small"},
    "exact": {"codec": "lossless", "quality": None},
    "passes": {"codec": "flextec-small"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_coded_otherwise_gets_a_chunk_of_its_own(name):
    dn = season((2, 3, 40, 40), {}, 13)
    usual = {"codec": SERIES, "quality": 50.0}
    blob = encode_chunk(dn[:1], EncodeOptions(**usual)).blob
    made = encode_chunk(dn[1:], EncodeOptions(**{**usual, **OTHERS[name]}), before=Before(blob, 1))
    assert not made.joins
    assert eozip.inspect(made.blob).header.shape[0] == 1
    other = encode_chunk(dn[:1], EncodeOptions(**{**usual, **OTHERS[name]})).blob
    assert not encode_chunk(dn[1:], EncodeOptions(**usual), before=Before(other, 1)).joins


def test_other_grids_and_too_many_dates_are_unsuitable(codec):
    x = season((2, 3, 40, 40), {}, 14).astype(np.float32)
    cube = season((1, 3, 40, 40), TWELVE, 14).astype(np.float32)
    many = season((33, 1, 16, 16), {}, 14).astype(np.float32)
    for old, new, quality, message in (
        (x[:1], cube, 20.0, "grids"),
        (x[:1], x[1:], 21.0, "steps"),
        (many[:31], many[31:], 20.0, "dates"),
    ):
        behind = codec.behind(codec.encode(old, 20.0), old.shape, len(old))
        with pytest.raises(UnsuitableError, match=message):
            behind.encode(new, quality)
    assert len(behind.encode(many[31:32], 20.0).checks) == 32


def test_dates_that_need_later_ones_cannot_be_cut_from_them():
    dn = season((3, 3, 40, 40), {}, 15)
    dn[0] = 3000  # a cloud, which tells nothing
    blob = encode_chunk(dn, EncodeOptions(codec=SERIES, quality=50.0)).blob
    with pytest.raises(FormatError, match="need no others"):
        shortened(Before(blob, 1))
    flat = encode_chunk(dn, EncodeOptions(codec="lossless")).blob
    with pytest.raises(FormatError, match="codec lossless"):
        shortened(Before(flat, 1))


# --- damage ---


def test_damage_of_old_dates_is_named():
    dn = season((3, 3, 40, 40), {}, 16)
    asked = EncodeOptions(codec=SERIES, quality=50.0)
    blob = encode_chunk(dn[:2], asked).blob
    for at in (3, 60, len(blob) // 2, len(blob) - 2):
        broken = bytearray(blob)
        broken[at] ^= 8
        with pytest.raises(FormatError):
            encode_chunk(dn[2:], asked, before=Before(bytes(broken), 2))
    with pytest.raises(ChecksumError):
        encode_chunk(dn[2:], asked, before=Before(bytes(broken), 2))
    chunk = bitstream.unpack(blob)
    checks = (chunk.header.checks[0], chunk.header.checks[1] ^ 1)
    forged = Chunk(bitstream.Header(**{**vars(chunk.header), "checks": checks}), b"", b"", chunk.sections)
    with pytest.raises(DesyncError, match="date 1"):
        encode_chunk(dn[2:], asked, before=Before(bitstream.pack(forged), 2))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_hostile_streams_give_errors_of_eozip(codec, data):
    x = season((3, 2, 20, 24), {}, 17).astype(np.float32)
    coded = codec.encode(x[:2], 50.0)
    streams = [parted(section, 2, "x") for section in coded.sections]
    for _ in range(data.draw(st.integers(1, 3))):
        k, t = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 1))
        streams[k][t] = data.draw(st.binary(max_size=40))
    forged = Encoded(tuple(map(joined, streams)), coded.checks)
    for call in (
        lambda: codec.behind(forged, (2, *x.shape[1:]), 2).encode(x[2:], 50.0),
        lambda: codec.shortened(forged, (2, *x.shape[1:]), 1),
    ):
        try:
            call()
        except EozipError:
            continue
