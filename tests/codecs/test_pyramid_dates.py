"""tec-tt-small-any-v1: dates that tell of each other, read alone or together, whatever comes and however it is computed."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import tracemalloc
from contextlib import nullcontext
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import eozip
from eozip import bitstream
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import codec as codecs
from eozip.codecs.pyramid import haar, references
from eozip.codecs.pyramid.anchors import anchors_of
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.codecs.pyramid.references import MOST, Order, anchored, both_sides, code_order
from eozip.codecs.pyramid.side import Side
from eozip.entropy.range_coder import DecodePort, EncodePort
from eozip.errors import DesyncError, EozipError, FormatError, InputError
from golden_decode import golden_blob, stored_pixels
from pyramidscenes import (
    CODEC,
    SERIES,
    codec_of,
    goldens,
    season,
    shipped_tensors,
    texture,
    wild,
)
from reference import pyramid
from test_pyramid import damaged, drawn, step

TESTS = Path(__file__).parents[1]
NAMES = [name for name in goldens() if name.startswith(SERIES)]
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 30), st.integers(1, 30)).filter(
    lambda s: np.prod(s) <= 8000
)
FEW = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def codec() -> PyramidCodec:
    return registry.get(SERIES)


@pytest.fixture(scope="module")
def wild_codec() -> PyramidCodec:
    """With random weights everywhere: what references tell matters as much as all else."""
    return codec_of(wild(shipped_tensors(), 30), SERIES)


# --- which dates tell of which ---


def test_few_dates_are_needed_for_one_and_its_references_are_among_them():
    for count in (*range(1, 401), 4096):
        order = both_sides(count)
        for date in range(count):
            needed = order.needed([date])
            assert len(needed) <= 2 + math.ceil(math.log2(count))
            assert {date, *order.known[date]} <= set(needed)


@pytest.mark.parametrize("count", [*range(1, 12), 64, 400])
def test_waves_hold_every_date_once_and_after_its_references(count):
    order, before = both_sides(count), set()
    for wave in order.waves:
        for date in wave:
            known = order.known[date]
            assert set(known) <= before
            assert len(known) <= MOST
            assert list(known) == sorted(known, key=lambda r: (abs(r - date), r))
        before |= set(wave)
    assert sorted(t for wave in order.waves for t in wave) == list(range(count))


@pytest.mark.parametrize("anchors", [(4,), (3, 8), (8, 3, 10)])
def test_anchors_are_all_that_a_date_needs(anchors):
    order = anchored(12, anchors)
    assert sorted(t for wave in order.waves for t in wave) == list(range(12))
    for date in range(12):
        assert set(order.needed([date])) == {date, *(anchors if date not in anchors else order.known[date])}
        assert list(order.known[date]) == sorted(order.known[date], key=lambda r: (abs(r - date), r))
    for k, date in enumerate(anchors):
        assert set(order.known[date]) == set(anchors[:k])


def test_a_clear_date_tells_of_others_and_a_cloud_does_not():
    x = season((5, 4, 96, 96), {}, 3).astype(np.float32)
    x[0] = texture((1, 4, 96, 96), 9)[0] + 3000  # nothing that another date shows
    found = anchors_of(x, 300.0)
    assert 0 < len(found) <= 3
    assert 0 not in found
    assert anchors_of(x[:1], 300.0) == ()
    assert anchors_of(np.repeat(x, 8, 0), 300.0) == ()  # too many to look at
    assert anchors_of(np.zeros_like(x), 300.0) != ()
    assert anchors_of(x[..., :5, :5], 300.0) == ()


def test_what_several_dates_need_is_what_each_of_them_needs():
    order = both_sides(50)
    assert order.needed([3, 40]) == sorted({*order.needed([3]), *order.needed([40])})


# --- streams of dates ---


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=9))
def test_streams_are_parted_as_they_were_joined(streams):
    section = codecs.joined(streams)
    assert codecs.parted(section, len(streams), "x") == streams
    assert pyramid.streams_of(section, len(streams)) == streams


HOSTILE = {
    "nothing": b"",
    "a length without end": b"\xff" * 40,
    "a length of more bytes than five": b"\x80" * 5 + b"\x00" + bytes(20),
    "longer than the section": b"\x7f" + bytes(9),
    "longer than any section": b"\xff\xff\xff\xff\x7f" + bytes(9),
    "a length that is cut off": b"\x85",
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_lengths_are_refused(name):
    with pytest.raises(FormatError, match=r"tec-x: .*streams"):
        codecs.parted(HOSTILE[name], 2, "tec-x")


@given(st.binary(max_size=40), st.integers(1, 6))
def test_any_bytes_are_parted_into_what_is_there_or_refused_by_both(section, dates):
    try:
        streams = codecs.parted(section, dates, "tec-x")
    except FormatError:
        with pytest.raises(FormatError):
            pyramid.streams_of(section, dates)
    else:
        assert len(streams) == dates
        assert section.endswith(b"".join(streams))
        assert pyramid.streams_of(section, dates) == streams


# --- the fit ---


def page_told(picture: np.ndarray, below: np.ndarray, here: np.ndarray) -> pyramid.Told:
    date = pyramid.Date({0: here.astype(np.int64), 1: below.astype(np.int64)})
    return pyramid.told(0, picture.astype(np.int64), [date])


def shown(details: np.ndarray) -> np.ndarray:
    """A picture that has these details, and no more."""
    size = (2 * details.shape[-2], 2 * details.shape[-1])
    whole = haar.synthesise(np.zeros((len(details), *details.shape[2:]), np.int32), details, size)
    return whole.clip(-(1 << 28), 1 << 28)


@pytest.mark.parametrize(
    ("bands", "planes", "side", "reach"),
    [(1, 1, 1, 40), (3, 2, 4, 300), (24, 7, 9, 1 << 15), (48, 12, 5, 1 << 28), (4, 3, 110, 1 << 28)],
)
def test_the_fit_is_that_of_the_page_to_the_bit(bands, planes, side, reach):
    rng = np.random.default_rng(side)
    below = rng.integers(-reach, reach + 1, (bands, 3, side, side)).astype(np.int32)
    here = rng.integers(-reach, reach + 1, (bands, 3, 2 * side, 2 * side)).astype(np.int32)
    mixing = rng.uniform(-2, 2, (planes, bands)) / bands
    picture = shown(np.tensordot(mixing, below, 1).astype(np.int32))
    told, page = references.told(picture, [below], [here]), page_told(picture, below, here)
    for own, other in zip(astuple(told), astuple(page), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4), (9, 12)])
@pytest.mark.parametrize("reach", [3, 1 << 12, 1 << 28])
def test_remainders_are_those_of_the_page(shape, reach):
    picture = np.random.default_rng(reach).integers(-reach, reach + 1, (3, *shape)).astype(np.int32)
    np.testing.assert_array_equal(haar.remainders(picture), pyramid.remainders(picture.astype(np.int64)))


def test_a_slope_has_no_remainder():
    """Inside: what it rises by is what the halved picture lets expect, but for the rounding of both."""
    rows, columns = np.mgrid[:32, :40]
    picture = (640 * rows - 320 * columns).astype(np.int32)[None]
    inside = np.abs(haar.remainders(picture))[:, :, 2:-2, 2:-2]
    details = np.abs(haar.remainders(picture) + haar.interpolated(haar.analyse(picture)[0].astype(np.int32)))
    assert details[:, :2].min() >= 320
    assert inside.max() <= 0.13 * 640


@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_of_the_fit_are_exact_for_the_largest_pictures(monkeypatch, sign):
    """All of them below 2**53: those of Python's integers."""
    seen = []
    monkeypatch.setattr(references, "library", lambda: None)
    eliminated = references._eliminated
    monkeypatch.setattr(references, "_eliminated", lambda rows: seen.append(rows.copy()) or eliminated(rows))
    x = np.full((8, 3, 80, 80), 1 << 28, np.int32)
    x[1::2] *= sign
    x[2, :, ::2] *= -1
    picture = np.full((3, 160, 160), 1 << 28, np.int32)
    picture[:, ::2] *= -1
    references.told(picture, [x], [x.repeat(2, -1).repeat(2, -2)])
    own, wanted = (seen_by_the_fit(v) for v in (x, haar.remainders(picture)))
    whole = products(own, own)
    for i in range(8):
        whole[i][i] += 410 * len(own[0]) + 245760
    square, right = np.hsplit(seen[0], [8])
    assert square.tolist() == whole
    assert right.tolist() == products(own, wanted)
    assert max(abs(v) for row in [*whole, *right.tolist()] for v in row) < 2**53
    assert abs(right).max() > 2**41


def seen_by_the_fit(v: np.ndarray) -> list[list[int]]:
    flat = v.reshape(len(v), -1)
    return flat[:, :: -(-flat.shape[1] // (1 << 14))].clip(-(1 << 15), 1 << 15).tolist()


def products(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
    return [[sum(p * q for p, q in zip(one, other, strict=True)) for other in b] for one in a]


@pytest.mark.filterwarnings("error")
def test_a_fit_that_is_far_off_somewhere_is_held():
    """Beyond int32, which each machine would take for another number."""
    rng = np.random.default_rng(1)
    below = rng.integers(-9000, 9000, (16, 3, 8, 8)).astype(np.int32)
    picture = shown(below.sum(0, keepdims=True).astype(np.int32))
    below[:, 0, 0, 0] = 1 << 28
    told = references.told(picture, [below], [below.repeat(2, -1).repeat(2, -2)])
    assert told.missed[0, 0, 0, 0] == -(1 << 14)
    assert told.predicted[0, 0, 0, 0] == told.remainders[0, 0, 0, 0] == told.activity[0, 0, 0] == 1 << 14


# --- pixels ---


@FEW
@given(
    SHAPES,
    st.sampled_from(["season", "board", "constant", "noise", "dot", "halves"]),
    st.integers(0, 100),
    st.integers(0, 99),
)
@example((9, 2, 1, 1), "noise", 100, 0)
@example((3, 5, 1, 30), "season", 100, 1)
@example((2, 3, 30, 31), "board", 100, 1)
def test_any_dates_come_back_within_a_step(codec, shape, kind, quality, seed):
    """Decoding compares the decoder's picture with the encoder's: it raises where a single value differs."""
    x = (season(shape, {}, seed) if kind == "season" else drawn(kind, shape, seed)).astype(np.float32)
    decoded = codec.decode(codec.encode(x, quality), shape, quality)
    assert decoded.shape == shape
    assert np.sqrt(np.square(decoded - x).mean()) < step(quality)


@FEW
@given(SHAPES, st.sampled_from(["uint16", "int16"]), st.sampled_from(["season", "noise", "board"]), st.data())
def test_chunks_of_dates_with_nodata_anywhere(shape, dtype, kind, data):
    seed = data.draw(st.integers(0, 99))
    x = season(shape, {}, seed) if kind == "season" else drawn(kind, shape, seed)
    dn = (np.asarray(x, np.int64) - (32768 if dtype == "int16" else 0)).astype(dtype)
    dn[np.random.default_rng(seed).random(shape) < data.draw(st.sampled_from([0, 0.1, 0.9, 1]))] = 7
    dn_hat = eozip.decode(eozip.encode(dn, SERIES, quality=data.draw(st.integers(0, 100)), nodata=7))
    assert dn_hat.dtype == dn.dtype
    assert np.array_equal(dn_hat == 7, dn == 7)


@FEW
@given(SHAPES, st.integers(0, 99), st.sampled_from([0, 0.3, 1]), st.sampled_from([0, 0.5, 1]))
def test_cells_left_out_of_dates_that_tell_of_others(wild_codec, shape, seed, dropped, hidden):
    """The decoder finds what the encoder expects there: checks are compared."""
    rng, (t, _, h, w) = np.random.default_rng(seed), shape
    cells, holes = rng.random((t, -(-h // 8), -(-w // 8))) < dropped, rng.random(shape) < hidden
    coded = wild_codec.encode_without(season(shape, {}, seed).astype(np.float32), 70, cells, holes)
    assert np.isfinite(wild_codec.decode(coded, shape, 70)).all()


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_a_largest_error_is_kept_for_all_dates(dtype):
    dn = (season((4, 3, 20, 21), {}, 5).astype(int) - (3000 if dtype == "int16" else 0)).astype(dtype)
    dn[1] = dn[3]
    assert np.abs(eozip.decode(eozip.encode(dn, SERIES, max_error=5)).astype(int) - dn).max() <= 5


@pytest.mark.parametrize("kind", ["board", "halves"])
def test_the_strongest_pixels_of_several_dates(wild_codec, kind):
    """The decoder finds the same map as the encoder from details as large as there are."""
    x = np.concatenate([drawn(kind, (1, 3, 64, 64), 1), 65535 - drawn(kind, (1, 3, 64, 64), 1)] * 2)
    coded = wild_codec.encode(x.astype(np.float32), 200)
    assert np.isfinite(wild_codec.decode(coded, x.shape, 200)).all()


def trusting() -> PyramidCodec:
    """Weights by which every detail is what references predict, as sure as can be: no training decides what follows."""
    tensors = shipped_tensors()
    for stage in range(3):
        for number in (0, 1):
            tensors[f"{stage}.out{number}"][:] = 0
            bias = np.repeat([8128, -512, -512, -3072], 3)  # gates 1, 0, 0; three nats narrower than said
            tensors[f"{stage}.out{number}_bias"][:] = bias
    return codec_of(tensors, SERIES)


@pytest.mark.parametrize("dates", [2, 3, 6])
def test_equal_dates_cost_little_where_references_are_trusted(dates):
    x = np.rint(texture((1, 4, 64, 65), 3)).astype(np.float32)
    one, many = (trusting().encode(v, 70) for v in (x, x.repeat(dates, 0)))
    cost = [sum(map(len, coded.sections)) for coded in (one, many)]
    assert cost[1] < cost[0] * (1 + 0.15 * (dates - 1))


def test_a_linear_change_of_colours_is_foretold():
    """Each band of the second date is a sum of those of the first: details are known before they come."""
    x = texture((1, 3, 64, 64), 4)
    mixed = np.einsum("ab,tbhw->tahw", [[0.5, 0.2, 0.2], [0.1, 0.8, 0.0], [0.3, 0.3, 0.3]], x)
    alone = trusting().encode(mixed.astype(np.float32), 70)
    both = trusting().encode(np.concatenate([x, mixed]).astype(np.float32), 70)
    first = trusting().encode(x.astype(np.float32), 70)
    cost = [sum(map(len, coded.sections)) for coded in (alone, first, both)]
    assert cost[2] - cost[1] < 0.25 * cost[0]


# --- some dates, other ways ---


@FEW
@given(SHAPES, st.integers(0, 99), st.sampled_from([1, 1, 2, 8, 32]), st.data())
def test_any_dates_read_alone_are_those_of_the_whole(wild_codec, shape, seed, reduce, data):
    x = season(shape, {}, seed).astype(np.float32)
    coded = wild_codec.encode(x, 70)
    whole = wild_codec.decode_scaled(coded, shape, reduce)
    dates = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=4))
    bands = data.draw(st.one_of(st.none(), st.lists(st.integers(0, shape[1] - 1), min_size=1)))
    some = wild_codec.decode_scaled(coded, shape, reduce, bands, dates)
    expected = whole[dates] if bands is None else whole[dates][:, bands]
    assert np.array_equal(some, expected)


@pytest.mark.parametrize("name", NAMES)
def test_dates_one_by_one_are_the_golden_pixels(name):
    blob, stored = golden_blob(name), stored_pixels(name)
    for date in range(len(stored["dn"])):
        assert np.array_equal(eozip.decode(blob, dates=[date])[0], stored["decoded"][date])


def test_groups_of_some_dates(wild_codec):
    groups = [(1, texture((5, 2, 33, 41), 1)), (2, texture((5, 3, 17, 21), 2)), (6, texture((5, 1, 6, 7), 3))]
    coded = wild_codec.encode_groups([(f, x.astype(np.float32)) for f, x in groups], 80)
    of, shape = [(factor, x.shape[1]) for factor, x in groups], (5, 6, 33, 41)
    for reduce in (1, 4):
        whole = wild_codec.decode_groups(coded, shape, of, reduce)
        for wanted in ([0, 1, 2], [2], [1, 0]):
            some = wild_codec.decode_groups(coded, shape, of, reduce, wanted, [3, 0])
            for k, own in zip(wanted, some, strict=True):
                assert np.array_equal(own, whole[k][[3, 0]])


@pytest.mark.parametrize("dates", [[], [4], [-1], [0, 7]])
@pytest.mark.parametrize("name", [CODEC, SERIES])
def test_dates_that_are_not_there_are_refused(name, dates):
    codec, x = registry.get(name), season((4, 1, 5, 6), {}).astype(np.float32)
    with pytest.raises(InputError, match=r"dates: expected one or more of 0\.\.3"):
        codec.decode_scaled(codec.encode(x, 50), x.shape, dates=dates)


def test_threads_change_no_byte_of_several_dates(wild_codec, monkeypatch):
    monkeypatch.setattr("eozip.threads.ThreadpoolController.limit", lambda *_, **__: nullcontext())
    x = season((9, 4, 40, 66), {}, 8).astype(np.float32)
    found = []
    for count in (1, 2):
        with threadpool_limits(limits=count):
            coded = wild_codec.encode(x, 70)
            found.append((coded, wild_codec.decode(coded, x.shape, 70).tobytes()))
    assert found[0] == found[1]


def test_the_sizes_of_blocks_change_no_pixel(wild_codec, monkeypatch):
    x = season((7, 3, 30, 31), {}, 2).astype(np.float32)
    coded = wild_codec.encode(x, 70)
    whole = wild_codec.decode(coded, x.shape, 70)
    monkeypatch.setattr("eozip.codecs.pyramid.stages._BLOCK", 64)
    assert np.array_equal(wild_codec.decode(coded, x.shape, 70), whole)


_FRESH = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}, {str(Path(__file__).parent)!r}]
from contextlib import nullcontext
import threadpoolctl
threadpoolctl.ThreadpoolController.limit = lambda *_, **__: nullcontext()
from test_pyramid_dates import digest
print(digest(sys.argv[1]))
"""
KERNELS = {
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"},
    "Nehalem": {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "2"},
}


@pytest.fixture(scope="module")
def season_file(wild_codec, tmp_path_factory) -> Path:
    """A season's bytes under weights that use everything."""
    x = season((5, 12, 40, 50), {}, 3).astype(np.float32)
    coded = wild_codec.encode(x, 90)
    path = tmp_path_factory.mktemp("season") / "coded.npz"
    sections = [np.frombuffer(section, np.uint8) for section in coded.sections]
    np.savez(path, *sections, shape=x.shape, checks=np.array(coded.checks, np.int64))
    return path


def digest(path: str | Path) -> str:
    """Of the pixels of all golden streams, and of a season's under wild weights."""
    found = hashlib.sha256()
    for name in goldens():
        found.update(eozip.decode(golden_blob(name)).tobytes())
    kept = np.load(path)
    coded = Encoded(
        tuple(kept[f"arr_{k}"].tobytes() for k in range(3)), tuple(map(int, kept["checks"].tolist()))
    )
    wild_codec = codec_of(wild(shipped_tensors(), 30), SERIES)
    found.update(wild_codec.decode(coded, tuple(kept["shape"].tolist()), 90).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", list(KERNELS))
def test_other_kernels_of_the_matrix_library_change_no_pixel(name, season_file):
    """OpenBLAS heeds the variables; another library goes its own way, and is held to the same pixels."""
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, str(season_file)],
        env={**os.environ, **KERNELS[name]},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == digest(season_file)


# --- hostile bytes ---


@pytest.fixture(scope="module")
def whole(codec) -> tuple[Encoded, np.ndarray, tuple[int, ...]]:
    x = season((7, 3, 40, 41), {}, 1).astype(np.float32)
    coded = codec.encode(x, 70)
    return coded, codec.decode(coded, x.shape, 70), x.shape


def with_stream(coded: Encoded, section: int, date: int, stream: bytes) -> Encoded:
    """A date's stream of a section in another's place."""
    streams = codecs.parted(coded.sections[section], len(coded.checks), "x")
    streams[date] = stream
    sections = list(coded.sections)
    sections[section] = codecs.joined(streams)
    return Encoded(tuple(sections), coded.checks)


@pytest.fixture(scope="module")
def order(codec, whole) -> Order:
    """In which the season is coded: by anchors, as it has few dates."""
    coded, _, shape = whole
    found = codec.reader(coded, shape, None)._order
    assert found != both_sides(7)
    return found


@pytest.mark.parametrize("section", [0, 1, 2])
def test_a_damaged_leaf_leaves_other_dates_readable(codec, whole, order, section):
    coded, pixels, shape = whole
    leaf = order.waves[-1][-1]
    bad = with_stream(coded, section, leaf, b"\x5a" * 50)
    others = [t for t in range(7) if t != leaf]
    assert np.array_equal(codec.decode_scaled(bad, shape, dates=others), pixels[others])
    with pytest.raises((FormatError, DesyncError)):
        codec.decode(bad, shape, 70)


@pytest.mark.parametrize("section", [0, 1, 2])
def test_a_damaged_reference_is_never_taken_for_a_picture(codec, whole, order, section):
    coded, pixels, shape = whole
    (root,) = order.waves[0]
    anchor = max(
        order.known[order.waves[-1][0]], key=lambda t: (t > 0, t != root)
    )  # the layout is in date 0's
    bad = with_stream(coded, section, anchor, b"\x5a" * 50)
    needing = [t for t in range(7) if anchor in order.needed([t])]
    assert len(needing) > 3
    for date in {*range(7)} - {*needing}:
        assert np.array_equal(codec.decode_scaled(bad, shape, dates=[date]), pixels[[date]])
    for date in needing:
        with pytest.raises((FormatError, DesyncError)):
            codec.decode_scaled(bad, shape, dates=[date])


def test_a_check_that_differs_names_the_date(codec, whole, order):
    coded, _, shape = whole
    (root,), (second,) = order.waves[:2]
    checks = list(coded.checks)
    checks[second] ^= 1
    bad = Encoded(coded.sections, tuple(checks))
    with pytest.raises(DesyncError, match=f"date {second}"):
        codec.decode_scaled(bad, shape, dates=[order.waves[-1][0]])
    codec.decode_scaled(bad, shape, dates=[root])


@pytest.mark.parametrize("anchors", [(0, 0), (1, 2, 1)])
def test_an_anchor_twice_is_refused(codec, anchors):
    """Or more anchors than there may be, or a date that there is not."""
    tables = codec.model.tables

    def read(count: int, *sent: int) -> Order:
        port = EncodePort()
        Side(port, tables).integers(np.array([len(sent)]), 1, 1.2)
        Side(port, tables).integers(np.array(sent), len(sent), 4)
        return code_order(Side(DecodePort(port.finish()), tables), count, None)

    assert read(5, 3, 1) == anchored(5, (3, 1))
    assert read(5) == both_sides(5)
    for count, sent in ((5, anchors), (5, (0, 1, 2, 3, 4)), (2, (0, 1)), (5, (5,)), (5, (-1,))):
        with pytest.raises(FormatError):
            read(count, *sent)


def test_reduced_pictures_ignore_damage_of_finer_sections(codec, whole):
    coded, _, shape = whole
    bad = Encoded((coded.sections[0], b"\xff" * 20, b""), coded.checks)
    assert np.array_equal(codec.decode_scaled(bad, shape, 8), codec.decode_scaled(coded, shape, 8))


@pytest.fixture
def unchecked(codec, monkeypatch) -> PyramidCodec:
    """As a stranger who computes the checks of damaged bytes."""
    monkeypatch.setattr("eozip.codecs.pyramid.codec.compare", lambda *_: None)
    return codec


def tried(codec: PyramidCodec, sections: tuple[bytes, ...], shape: tuple[int, ...]) -> None:
    """One of our errors, or finite pixels."""
    try:
        decoded = codec.decode(Encoded(sections, (0,) * shape[0]), shape, 50)
    except EozipError:
        return
    assert np.isfinite(decoded).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_damaged_sections_of_dates(unchecked, name):
    chunk, rng = bitstream.unpack(golden_blob(name)), np.random.default_rng(0)
    for _ in range(12):
        tried(unchecked, damaged(rng, chunk.sections), chunk.header.shape)


@FEW
@given(st.tuples(*[st.binary(max_size=90)] * 3), SHAPES)
def test_random_sections_of_dates(sections, shape):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eozip.codecs.pyramid.codec.compare", lambda *_: None)
        tried(registry.get(SERIES), sections, shape)


def test_damaged_bytes_of_dates_take_no_more_memory_than_pixels(unchecked):
    """Whatever they say, in bytes per sample of a shape that its reader allows."""
    shape = (6, 4, 64, 96)
    coded, rng = unchecked.encode(season(shape, {}, 2).astype(np.float32), 60), np.random.default_rng(1)
    tracemalloc.start()
    try:
        tried(unchecked, coded.sections, shape)
        for _ in range(12):
            tried(unchecked, damaged(rng, coded.sections), shape)
        assert tracemalloc.get_traced_memory()[1] < 150 * np.prod(shape) + (4 << 20)
    finally:
        tracemalloc.stop()
