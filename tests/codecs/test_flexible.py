"""flextec-small: every cut against the decoder after docs/pyramid.md, budgets, damage, and tables of intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip import bitstream
from eozip.bitstream import Chunk, Header
from eozip.codecs import level_map, registry
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import grids
from eozip.codecs.pyramid.flexible import MOST, FlexCodec
from eozip.codecs.pyramid.intervals import laws
from eozip.codecs.scales import SECTIONS
from eozip.errors import DesyncError, EozipError, FormatError, InputError
from golden_decode import golden_blob, stored_pixels
from pyramidscenes import (
    BILINEAR,
    CUBIC,
    FLEXIBLE,
    SERIES,
    codec_of,
    flexible_goldens,
    season,
    shipped_tensors,
    texture,
    wild,
    wild_corrections,
)
from reference import flexible, pyramid
from test_pyramid import damaged, drawn

NAMES = tuple(flexible_goldens())
FEW = settings(max_examples=12, deadline=None)


class Pair:
    """The codec of the package, and what the other decoder needs of the same weights."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        codec = codec_of(tensors, FLEXIBLE)
        assert isinstance(codec, FlexCodec)
        self.codec, self.weights = codec, pyramid.weights_of(tensors)

    def chunk_of(self, coded: Encoded, shape: tuple[int, ...]) -> Chunk:
        own = {"checks": coded.checks, "budgets": coded.budgets, "levels": coded.levels is not None}
        header = Header(FLEXIBLE, "uint16", shape, 50.0, bytes(8), **own)
        levels = b"" if coded.levels is None else level_map.encode_levels(coded.levels)
        return Chunk(header, b"", b"", coded.sections, levels=levels)

    def agree(self, chunk: Chunk, reduce: int = 1, dates: list[int] | None = None) -> np.ndarray:
        levels = level_map.levels_of(chunk) if chunk.header.levels else None
        coded = Encoded(chunk.sections, chunk.header.checks, chunk.header.budgets, levels=levels)
        expected = self.codec.decode_scaled(coded, chunk.header.shape, reduce, dates=dates)
        assert np.array_equal(flexible.decode(self.weights, chunk, reduce, dates), expected)
        return expected


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(shipped_tensors(FLEXIBLE))


@pytest.fixture(scope="module")
def wild_pair() -> Pair:
    """With every tensor in use, whatever training has made of the shipped ones."""
    return Pair(wild(shipped_tensors(FLEXIBLE), 30))


def stored(name: str) -> Chunk:
    return bitstream.unpack(golden_blob(name))


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).mean())


# --- against the page ---


@pytest.mark.parametrize("name", NAMES)
def test_golden_streams_at_every_cut(pair, name):
    chunk = stored(name)
    pixels = stored_pixels(name)["decoded"].astype(int)
    for there in range(1, len(chunk.sections) + 1):
        decoded = pair.agree(replace(chunk, sections=chunk.sections[:there]))
    exact = pixels == chunk.header.nodata
    assert np.array_equal(decoded[~exact], pixels[~exact])


@pytest.mark.parametrize("seed", range(5))
def test_any_dates_budgets_cuts_and_scales_under_any_weights(wild_pair, seed):
    rng = np.random.default_rng(seed)
    dates = int(rng.integers(1, 6))
    found = {1: grids.Grid(BILINEAR, 2, 1, 0), 2: grids.Grid(CUBIC, 6, 4, 1)} if seed % 2 else {}
    size = rng.integers(24, 40, 2) if found else rng.integers(1, 40, 2)
    shape = (dates, 3, *size.tolist())
    budgets = [int(rng.integers(1, 12)), *rng.integers(0, 12, dates - 1).tolist()]
    coded = wild_pair.codec.encode_budgets(season(shape, found, seed).astype(np.float32), budgets)
    chunk = wild_pair.chunk_of(coded, shape)
    some = rng.permutation(dates)[: rng.integers(1, dates + 1)].tolist()
    for reduce, wanted in [(1, None), (1, some), (4, some), (8, None)]:
        there = int(rng.integers(1, max(budgets) + 1))
        wild_pair.agree(chunk, reduce, wanted)
        wild_pair.agree(replace(chunk, sections=chunk.sections[:there]), reduce, wanted)


def test_any_corrections_in_any_pass(wild_pair, monkeypatch):
    wild_corrections(monkeypatch)
    shape, budgets = (4, 3, 58, 63), [14, 9, 0, 13]
    noise = np.random.default_rng(6).integers(0, 900, shape)
    coded = wild_pair.codec.encode_budgets(np.float32(season(shape, {}, 6) + noise), budgets)
    chunk = wild_pair.chunk_of(coded, shape)
    wild_pair.agree(chunk)
    wild_pair.agree(replace(chunk, sections=chunk.sections[:6]))


def test_bands_of_60_m_are_predicted_from_the_section_that_lends(pair):
    sixty = grids.Grid(CUBIC, 6, 4, 1)
    shape = (2, 4, 70, 75)
    x = season(shape, {2: sixty, 3: sixty}, 3).astype(np.float32)
    rows, columns = np.indices(shape[2:]) // 8
    noise = np.random.default_rng(2).normal(0, 30, (2, 2, 70, 75))
    x[:, :2] = noise + 3000 + 2500 * (-1.0) ** (rows + columns)  # which pictures 16 times coarser do not show
    for budgets in ((7, 5), (4, 1)):
        chunk = pair.chunk_of(pair.codec.encode_budgets(x, budgets), shape)
        for there in range(1, max(budgets) + 1):
            pair.agree(replace(chunk, sections=chunk.sections[:there]))


@pytest.mark.parametrize("budgets", [(7, 6, 5), (7, 0, 5), (4, 7, 0)])
def test_dates_that_lie_elsewhere(wild_pair, monkeypatch, budgets):
    places = np.array([[0, 0], [3, -5], [-9, 12]])
    monkeypatch.setattr("eozip.codecs.pyramid.registration.positions", lambda *_: places.copy())
    shape = (3, 3, 33, 29)
    chunk = wild_pair.chunk_of(
        wild_pair.codec.encode_budgets(season(shape, {}, 6).astype(np.float32), budgets), shape
    )
    for there in (2, 4, 7):
        wild_pair.agree(replace(chunk, sections=chunk.sections[:there]))


@pytest.mark.parametrize("kind", ["noise", "halves", "constant", "board"])
def test_pixels_of_all_kinds(pair, kind):
    shape = (2, 2, 18, 23)
    pair.agree(pair.chunk_of(pair.codec.encode(drawn(kind, shape, 1).astype(np.float32), 70), shape))


def test_groups_on_their_own_grids(pair):
    groups = [(1, texture((2, 2, 33, 41), 1)), (2, texture((2, 3, 17, 21), 2)), (6, texture((2, 1, 6, 7), 3))]
    coded = pair.codec.encode_groups([(f, x.astype(np.float32)) for f, x in groups], 50)
    shape, pairs = (2, 6, 33, 41), [(f, x.shape[1]) for f, x in groups]
    for reduce in (1, 2, 8):
        made = flexible.decoded_groups(pair.weights, pair.chunk_of(coded, shape), reduce)
        found = sorted(made, key=lambda one: one.group.bands)
        for own, decoded in zip(found, pair.codec.decode_groups(coded, shape, pairs, reduce), strict=True):
            assert np.array_equal(own.own_cells(reduce), decoded)


# --- what a cut gives ---


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return season((2, 3, 48, 40), {}, 2)


@pytest.fixture(scope="module")
def blob(scene) -> bytes:
    return eozip.encode(scene, "flextec-small", quality=60)


def prefix(blob: bytes, sections: int) -> bytes:
    info = eozip.inspect(blob)
    return blob[: info.bytes - sum(info.sections[sections:])]


def test_the_short_name_means_it(blob):
    header = eozip.inspect(blob).header
    assert header.codec == FLEXIBLE
    assert header.budgets == (13, 13)
    assert registry.get(FLEXIBLE).weights_hash == registry.get(SERIES).weights_hash


def test_every_pass_is_nearer(scene, blob):
    errors = [
        error(eozip.decode(prefix(blob, k), budget=k), scene) for k in range(SECTIONS + 1, 14, SECTIONS)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


def test_a_cut_in_the_last_pass_is_what_a_budget_of_it_gives(scene):
    whole, short = (eozip.encode(scene, FLEXIBLE, budgets=k) for k in (10, 9))
    assert np.array_equal(eozip.decode(prefix(whole, 9), budget=9), eozip.decode(short))


def test_details_of_the_last_pass_are_worth_more_than_those_that_are_narrowed_again():
    x = 3000 + 60 * np.random.default_rng(3).normal(size=(3, 2, 96, 96)).cumsum(2).cumsum(3)
    dn = x.clip(0, 10000).astype(np.uint16)
    whole, short = (eozip.encode(dn, FLEXIBLE, budgets=k) for k in (10, 7))
    cut = prefix(whole, 7)
    gain = 10 * np.log10(error(eozip.decode(cut, budget=7), dn) / error(eozip.decode(short), dn))
    assert len(short) < len(cut) * 1.1**gain  # a decibel is worth more than a tenth of the bytes


def test_a_cut_is_not_decoded_unasked(blob):
    with pytest.raises(FormatError, match="truncated"):
        eozip.decode(prefix(blob, 5))


def test_one_date_is_what_it_is_among_all(blob):
    assert np.array_equal(eozip.decode(blob, dates=[1])[0], eozip.decode(blob)[1])


def test_a_reduced_picture_takes_the_first_bytes_only(blob):
    info = eozip.inspect(blob)
    assert np.array_equal(eozip.decode(blob[: info.reduced[8]], reduce=8), eozip.decode(blob, reduce=8))
    assert info.reduced[8] < info.reduced[1] == len(blob)


def test_a_date_without_sections_is_shown_as_its_references_are():
    dn = season((3, 3, 30, 30), {}, 5)
    decoded = eozip.decode(eozip.encode(dn, FLEXIBLE, budgets=[9, 0, 9])).astype(int)
    between = (decoded[0] + decoded[2]) / 2
    assert np.abs(decoded[1] - between).max() <= 576 / 64  # the last step, of which pictures count 1 / 64


@pytest.mark.parametrize("quality", [16.05, 32.1, 48.15, 64.2])
def test_there_is_a_quality_for_every_size(pair, quality):
    """Where a pass more begins bytes jump: the last qualities before it reach beyond what it begins with."""
    x = 3000 + 60 * np.random.default_rng(3).normal(size=(1, 2, 96, 96)).cumsum(2).cumsum(3).astype(
        np.float32
    )
    before, after = (pair.codec.encode(x, at) for at in (quality - 0.03, quality + 0.03))
    assert len(after.sections) == len(before.sections) + SECTIONS
    assert sum(map(len, before.sections)) >= sum(map(len, after.sections))


# --- budgets by cell ---


def test_a_coarser_cell_is_what_a_coarser_quality_makes_of_it(scene):
    scene = np.concatenate([scene, scene[..., ::-1]], -1)[..., :64]
    levels = np.zeros((2, 3, 4), np.uint8)
    levels[:, :, 2:] = 4  # two octaves: two passes fewer
    fine, mixed = (eozip.encode(scene, FLEXIBLE, quality=60, level_map=m) for m in (None, levels))
    coarse = eozip.encode(scene, FLEXIBLE, budgets=7)
    assert len(mixed) < 0.8 * len(fine)
    whole, other = eozip.decode(fine), eozip.decode(mixed)
    assert error(other[..., :32], scene[..., :32]) < 1.3 * error(whole[..., :32], scene[..., :32])
    far = error(other[..., 32:], scene[..., 32:])
    assert 4 * error(whole[..., 32:], scene[..., 32:]) < far
    assert far < 2 * error(eozip.decode(coarse)[..., 32:], scene[..., 32:])


def test_nothing_of_the_highest_level_is_sent(scene):
    levels = np.full((2, 3, 3), 15, np.uint8)
    assert len(eozip.encode(scene, FLEXIBLE, level_map=levels)) < 0.4 * len(eozip.encode(scene, FLEXIBLE))


def test_budgets_by_date_and_by_cell_go_together(scene):
    levels = np.zeros((2, 3, 3), np.uint8)
    levels[:, :2] = 6
    blob = eozip.encode(scene, FLEXIBLE, budgets=[10, 7], level_map=levels)
    assert eozip.inspect(blob).header.budgets == (10, 7)
    assert np.array_equal(eozip.level_map_of(blob), levels)
    assert len(blob) < len(eozip.encode(scene, FLEXIBLE, budgets=[10, 7]))
    assert eozip.decode(blob).shape == scene.shape


@pytest.mark.parametrize("seed", range(4))
def test_level_maps_at_any_cut_and_scale_under_any_weights(wild_pair, seed):
    rng = np.random.default_rng(seed)
    found = {1: grids.Grid(BILINEAR, 2, 1, 0), 2: grids.Grid(CUBIC, 6, 4, 1)} if seed % 2 else {}
    shape, budgets = (3, 3, 37, 51), [8, 10, 5]
    levels = rng.integers(0, 16, (3, 3, 4)).astype(np.uint8)
    x = season(shape, found, seed).astype(np.float32)
    chunk = wild_pair.chunk_of(wild_pair.codec.encode_budgets(x, budgets, levels=levels), shape)
    for there in (1, 4, 6, 10):
        wild_pair.agree(replace(chunk, sections=chunk.sections[:there]))
    wild_pair.agree(chunk, 4, [1])


def test_holes_cost_next_to_nothing(scene):
    holes = scene.copy()
    holes[:, :, :24] = 0
    assert len(eozip.encode(holes, FLEXIBLE, nodata=0)) < 0.8 * len(eozip.encode(scene, FLEXIBLE))


@FEW
@given(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 20)), st.data())
def test_any_chunk_at_any_cut(pair, shape, data):
    """Decoding the whole compares the decoder's pictures with the encoder's."""
    x = season(shape, {}, data.draw(st.integers(0, 9))).astype(np.float32)
    coded = pair.codec.encode(x, data.draw(st.integers(0, 100)))
    decoded = pair.codec.decode(coded, shape, 0)
    there = data.draw(st.integers(1, len(coded.sections)))
    assert pair.codec.decode(replace(coded, sections=coded.sections[:there]), shape, 0).shape == decoded.shape
    assert np.array_equal(coded.decoded()[0], decoded)


# --- what is refused ---


@pytest.mark.parametrize("budgets", [[MOST + 1, 1], [0, 1], [1]])
def test_budgets_that_cannot_be(pair, scene, budgets):
    with pytest.raises(InputError, match="budgets"):
        pair.codec.encode_budgets(scene.astype(np.float32), budgets)


@pytest.mark.parametrize("budgets", [(), (13,), (0, 13), (11, 11), (26, 13)])
def test_budgets_of_a_stream_that_cannot_be(pair, scene, budgets):
    coded = replace(pair.codec.encode(scene.astype(np.float32), 60), budgets=budgets)
    with pytest.raises(FormatError):
        pair.codec.decode(coded, scene.shape, 60)


def test_another_check_is_noticed(pair, scene):
    coded = pair.codec.encode(scene.astype(np.float32), 60)
    other = replace(coded, checks=(coded.checks[0], coded.checks[1] ^ 1))
    with pytest.raises(DesyncError, match="date 1"):
        pair.codec.decode(other, scene.shape, 60)


def test_damage_behind_a_cut_is_not_felt(blob):
    cut = eozip.decode(prefix(blob, 7), budget=7)
    bad = bytearray(blob)
    bad[-1] ^= 255
    assert np.array_equal(eozip.decode(bytes(bad[: len(prefix(blob, 11))]), budget=7), cut)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_bytes_give_the_same_pixels_or_both_refuse(pair, monkeypatch, name):
    monkeypatch.setattr("eozip.codecs.pyramid.codec.compare", lambda *_: None)
    monkeypatch.setattr(flexible, "frame_check", lambda _: 0)
    chunk, rng = stored(name), np.random.default_rng(5)
    dates = chunk.header.shape[0]
    for _ in range(12):
        bad = replace(chunk, sections=damaged(rng, chunk.sections))
        bad = replace(bad, header=replace(bad.header, checks=(0,) * dates))
        try:
            pair.codec.decode(
                Encoded(bad.sections, bad.header.checks, bad.header.budgets), bad.header.shape, 0
            )
        except EozipError:
            with pytest.raises(FormatError):
                flexible.decode(pair.weights, bad)
        else:
            pair.agree(bad)


# --- tables ---


def test_laws_are_those_of_the_page(pair):
    own, other = laws(pair.codec.model.tables), flexible.laws_of(pair.weights)
    for name in ("tails", "areas", "zones", "shares"):
        assert np.array_equal(getattr(own, name), getattr(other, name)), name
    assert np.array_equal(own.binary.freqs, other.binary.freqs)


def test_conditional_means_lie_where_the_logistic_law_has_them(pair):
    own, rows = laws(pair.codec.model.tables), np.array([40])
    u = np.linspace(32, 160, 20001)  # a row of scale 1
    density = np.exp(-u / 64) / (1 + np.exp(-u / 64)) ** 2
    expected = (u * density).sum() / density.sum()
    assert own.middle(rows, np.array([32]), np.array([160]))[0] == pytest.approx(expected, abs=1.5)
    assert own.middle(rows, np.array([-160]), np.array([-32]))[0] == pytest.approx(-expected, abs=1.5)
