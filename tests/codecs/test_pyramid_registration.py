"""Where dates lie beside each other: what encoders find, and what moving a picture gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eozip.codecs import registry
from eozip.codecs.pyramid import registration
from eozip.codecs.pyramid.references import both_sides
from eozip.codecs.pyramid.registration import FARTHEST, UNITS, moved, positions
from pyramidscenes import FLEXIBLE, SERIES
from reference import pyramid


def scene(side: int, seed: int) -> np.ndarray:
    """A smooth random picture, four times as fine as pixels."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=(4 * side, 4 * side)))
    rows, columns = np.fft.fftfreq(4 * side)[:, None], np.fft.rfftfreq(4 * side)
    return np.fft.irfft2(spectrum / (0.004 + np.hypot(rows, columns)) ** 1.6, s=(4 * side, 4 * side))


def seen(fine: np.ndarray, down: float, across: float, gains: tuple[float, ...]) -> np.ndarray:
    """Bands float32 [C, h, w] of a scene whose content lies so many pixels lower and to the right; of whole quarters."""
    turned = np.roll(fine, (round(4 * down), round(4 * across)), (0, 1))
    blocks = turned.reshape(len(fine) // 4, 4, -1, 4).mean((1, 3))
    return np.stack([1500 + 200 * gain * blocks / blocks.std() for gain in gains]).astype(np.float32)


@pytest.mark.parametrize("way", [(0, 0), (0.5, -0.25), (-0.75, 1), (0.25, 0.75)])
def test_the_way_between_two_dates_of_other_colours_is_found(way):
    fine = scene(96, 1)
    pictures = np.stack([seen(fine, 0, 0, (1, 0.5)), seen(fine, *way, (-0.7, 1.3))])
    order = both_sides(2)
    found = positions(pictures, order.known, order.waves)
    assert found[0].tolist() == [0, 0]
    assert np.abs(found[1] - UNITS * np.array(way)).max() <= 1


def test_dates_that_have_nothing_in_common_stay_where_they_are():
    rng, order = np.random.default_rng(1), both_sides(3)
    assert not positions(
        rng.normal(1000, 50, (3, 2, 64, 64)).astype(np.float32), order.known, order.waves
    ).any()


@pytest.mark.parametrize("value", [0, 700, 1 << 26])
@pytest.mark.parametrize("shape", [(2, 1, 5, 5), (3, 2, 1, 40), (2, 3, 64, 64)])
def test_pictures_without_details_have_no_way(value, shape):
    order = both_sides(shape[0])
    assert not positions(np.full(shape, value, np.float32), order.known, order.waves).any()


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.integers(-2 * FARTHEST, 2 * FARTHEST),
    st.integers(-2 * FARTHEST, 2 * FARTHEST),
    st.integers(0, 28),
)
def test_pictures_are_moved_as_the_page_has_it(shape, down, across, bits):
    picture = np.random.default_rng(bits).integers(-(1 << bits), (1 << bits) + 1, shape).astype(np.int32)
    page = pyramid.moved(pyramid.moved(picture.astype(np.int64), down, 1), across, 2)
    assert np.array_equal(moved(picture, down, across), page)


def test_whole_pixels_are_taken_as_they_are():
    picture = np.arange(20, dtype=np.int32).reshape(1, 4, 5)
    assert moved(picture, UNITS, -UNITS)[0, :3, 1:].tolist() == picture[0, 1:, :4].tolist()


@pytest.mark.parametrize("name", [SERIES, FLEXIBLE])
def test_a_date_that_lies_elsewhere_costs_less_where_it_is_moved(monkeypatch, name):
    fine, codec = scene(96, 2), registry.get(name)
    x = np.stack([seen(fine, 0, 0, (1, 0.5, 2)), seen(fine, 0.5, 0.75, (0.8, 1, 1.5))])
    found = codec.encode(x, 60)
    monkeypatch.setattr(
        registration, "positions", lambda pictures, *_: np.zeros((len(pictures), 2), np.int64)
    )
    still = codec.encode(x, 60)
    assert sum(map(len, found.sections)) < 0.95 * sum(map(len, still.sections))
    for coded in (found, still):
        assert np.abs(codec.decode(coded, x.shape, 60) - x).mean() < 60


@pytest.mark.parametrize("name", [SERIES, FLEXIBLE])
def test_one_date_of_several_that_lie_elsewhere_is_read_alone(name):
    fine, codec = scene(64, 3), registry.get(name)
    ways = [(0, 0), (0.5, 0), (-0.25, 0.75), (1, 1), (0.25, -0.5)]
    x = np.stack([seen(fine, *way, (1, 0.5)) for way in ways])
    coded = codec.encode(x, 70)
    whole = codec.decode(coded, x.shape, 70)
    for date in range(len(x)):
        assert np.array_equal(codec.decode_scaled(coded, x.shape, dates=[date])[0], whole[date])
