"""Corrections of means: what an encoder finds, what it saves, and what any encoder may send."""

from __future__ import annotations

import numpy as np
import pytest

import eozip
from eozip.codecs import registry
from eozip.codecs.pyramid import anchors, corrections, references
from eozip.codecs.pyramid.corrections import Correction, First, Ground
from eozip.codecs.pyramid.side import Side
from eozip.codecs.pyramid.traverse import Ladder
from eozip.entropy.range_coder import DecodePort, EncodePort
from pyramidscenes import CODEC, SERIES, season

SHAPE = (40, 30)
TABLES = registry.get(SERIES).model.tables


def ground(planes: int, bands: int = 0, shape: tuple[int, int] = SHAPE, seed: int = 0) -> Ground:
    rng = np.random.default_rng(seed)
    left = [rng.integers(-900, 900, (3, *shape)).astype(np.int32) for _ in range(planes)]
    told = None
    if bands:
        size = rng.integers(-2000, 2000, (bands, 3, *shape)).astype(np.int32)
        below = rng.integers(-2000, 2000, (bands, 3, shape[0] // 2, shape[1] // 2)).astype(np.int32)
        told = references.told(
            rng.integers(-9000, 9000, (planes + 1, *shape)).astype(np.int32), [below], [size]
        )
    return Ground(planes, left, told, np.full(3, 3), shape)


def sent(one: Ground, correction: Correction, monkeypatch: pytest.MonkeyPatch) -> tuple[Correction, int]:
    """What a decoder reads, and the bytes of it."""
    port = EncodePort()
    with monkeypatch.context() as patch:
        patch.setattr(Ground, "_best", lambda *_: correction)
        one.code(Side(port, TABLES), First(*[np.zeros(0)] * 4, None))
    data = port.finish()
    reader = DecodePort(data)
    found = one.code(Side(reader, TABLES), None)
    reader.finish()
    return found, len(data)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_sent_is_read(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    planes, bands = rng.integers(0, 5, 2).tolist()
    one = ground(planes, bands, seed=seed)
    reach = int(rng.choice([0, 1, 4, 512]))
    numbers = [rng.integers(-reach, reach + 1, n) for n in (planes, bands)]
    correction = Correction(*numbers, int(rng.integers(-8, 9)))
    found, _ = sent(one, correction, monkeypatch)
    assert np.array_equal(found.planes, numbers[0])
    assert np.array_equal(found.bands, numbers[1])
    assert not numbers[1].any() or found.fineness == correction.fineness


def test_numbers_beyond_the_largest_are_held_to_it(monkeypatch):
    found, _ = sent(ground(2, 2), Correction(np.array([900, -900]), np.array([5000, 1]), 99), monkeypatch)
    assert found.planes.tolist() == [512, -512]
    assert found.bands.tolist() == [512, 1]
    assert found.fineness == 8


def test_small_planes_and_first_ones_have_none():
    for one in (ground(0), ground(3, 2, (10, 14))):
        port = EncodePort()
        found = one.code(Side(port, TABLES), First(*[np.zeros(0)] * 4, None))
        assert port.finish() == b""
        assert one.beside(found) is None
        assert one.moved(found) is None


def test_none_costs_next_to_nothing(monkeypatch):
    _, size = sent(ground(3, 6), Correction(np.zeros(3, int), np.zeros(6, int)), monkeypatch)
    assert size <= 1


def test_an_encoder_finds_what_planes_before_tell():
    """A quarter of one of them, and nothing of the other."""
    one = ground(2)
    rng = np.random.default_rng(1)
    colour = lambda v: v[:, ::2, ::2]  # noqa: E731
    told = sum(share * corrections.packed(left, 0) for share, left in zip((0.25, 0), one.left, strict=True))
    residual = told / 64 + rng.normal(0, 0.5, told.shape)
    first = First(residual, np.full(told.shape, 38), np.ones(told.shape), np.ones(told.shape, bool), None)
    port = EncodePort()
    found = one.code(Side(port, TABLES), first)
    assert found.planes[0] / (1 << one.shift) == pytest.approx(0.25, abs=0.06)
    assert found.planes[1] == 0
    beside = one.beside(found)
    assert beside is not None
    assert np.abs(colour(beside) - colour(one.left[0]) / 4).mean() < 60
    noise = First(
        rng.normal(0, 0.5, told.shape), *[getattr(first, n) for n in ("rows", "gates", "counts")], None
    )
    assert not one.code(Side(EncodePort(), TABLES), noise).planes.any()


def test_an_encoder_finds_how_the_map_has_to_move():
    one = ground(0, 5)
    assert one.told is not None
    wish = Correction(np.zeros(0, int), np.array([0, 0, 14, 0, 0]), 0)
    moved = one.moved(wish)
    assert moved is not None
    assert moved.any()
    target = corrections.packed(moved, 0) / 64
    rng = np.random.default_rng(2)
    first = First(
        target + rng.normal(0, 0.3, target.shape),
        np.full(target.shape, 34),
        np.ones(target.shape),
        np.ones(target.shape, bool),
        None,
    )
    found = one.moved(one.code(Side(EncodePort(), TABLES), first))
    assert found is not None
    off = corrections.packed(found, 0) / 64 - target
    assert np.square(off).mean() < 0.2 * np.square(target).mean()


def mixed_season() -> np.ndarray:
    """Bands of which the details of some hang together otherwise than their pictures do."""
    x = season((3, 4, 128, 128), {}, 4).astype(np.float32)
    rng = np.random.default_rng(0)
    fields = rng.normal(0, 120, (3, 1, 128, 128))
    x[:, :2] += fields
    x[:, 2:] += fields * np.array([0.7, -0.6])[:, None, None]
    return x


@pytest.mark.parametrize("name", [CODEC, SERIES])
def test_corrections_save_bytes_where_there_is_something_to_save(name, monkeypatch):
    codec, x = registry.get(name), mixed_season()
    coded = codec.encode(x, 60)
    with monkeypatch.context() as patch:
        patch.setattr(Ladder, "_corrects", lambda *_: False)
        plain = codec.encode(x, 60)
        error = np.square(codec.decode(plain, x.shape, 60) - x).mean()
    assert sum(map(len, coded.sections)) < sum(map(len, plain.sections))
    assert np.square(codec.decode(coded, x.shape, 60) - x).mean() < 1.01 * error


def test_anchors_of_long_groups_are_finer():
    order = references.arrived([(12, (5, 2, 9)), (3, (5, 13))])
    assert anchors.finer_of(order).tolist() == [0, 0, 3, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert not anchors.finer_of(references.arrived([(4, (0, 2, 3))])).any()
    assert not anchors.finer_of(references.both_sides(40)).any()


def test_finer_dates_are_nearer_to_what_they_were():
    codec = registry.get(SERIES)
    x = season((8, 3, 64, 64), {}, 2).astype(np.float32)
    x += np.random.default_rng(3).normal(0, 200, x.shape)
    whole = codec.decode(codec.encode(x, 40), x.shape, 40)
    errors = np.square(whole - x).mean((1, 2, 3))
    assert errors.min() < 0.75 * np.median(errors)
    blob = eozip.encode(x.clip(0).astype(np.uint16), codec=SERIES, quality=40)
    every = eozip.decode(blob)
    for date in (0, 7):
        assert np.array_equal(eozip.decode(blob, dates=[date])[0], every[date])
