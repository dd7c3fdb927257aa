"""Rates at a PSNR and Bjontegaard differences, against closed forms and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from eozip.errors import InputError
from eozip_lab.evaluate import rate


def line(
    factor: float = 1.0, shift: float = 0.0, low: float = 34, high: float = 50
) -> list[tuple[float, float]]:
    """6 dB for every fourfold rate: bpppb = factor * 4 ** ((dB - shift - 40) / 6)."""
    return [(factor * 4 ** ((db - 40) / 6), db + shift) for db in np.arange(low, high + 1, 2.0)]


def bent(factor: float = 1.0) -> list[tuple[float, float]]:
    """A curve as codecs have it, unevenly spaced."""
    psnrs = np.array([33.0, 35.5, 37.0, 41.0, 44.0, 45.0, 49.0])
    return [(factor * math.exp(-4 + 0.2 * (db - 34) + 0.004 * (db - 41) ** 2), db) for db in psnrs]


def test_bpppb_counts_all_bytes_over_the_unpadded_input():
    assert rate.bpppb(1000, (4, 12, 50, 10)) == pytest.approx(8000 / 24000)


def test_rate_at_interpolates_the_logarithm():
    assert rate.rate_at([(0.1, 40.0), (0.4, 44.0)], 42.0) == pytest.approx(0.2)
    assert rate.rate_at([(0.4, 44.0), (0.1, 40.0)], 40.0) == pytest.approx(0.1)


def test_rate_at_extrapolates_nothing():
    assert rate.rate_at(line(), 33.9) is None
    assert rate.rate_at(line(), 50.1) is None


def test_an_exact_point_counts_for_no_psnr():
    assert rate.rate_at([(0.1, 40.0), (0.4, 44.0), (5.0, math.inf)], 45.0) is None


def test_a_mean_is_over_all_places_or_none():
    assert rate.mean_rate_at([line(), line(3)], 40) == pytest.approx(2)
    assert rate.mean_rate_at([line(), line(high=38)], 40) is None
    assert rate.mean_rate_at([], 40) is None


@pytest.mark.parametrize("factor", [0.25, 0.9, 1.0, 3.0])
@pytest.mark.parametrize("curve", [line, bent])
def test_bd_rate_of_a_curve_with_every_rate_times_a_factor(curve, factor):
    found = rate.bd_rate(curve(), curve(factor))
    assert found.value == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (found.low, found.high, found.share) == pytest.approx((curve()[0][1], curve()[-1][1], 1.0))


def test_bd_psnr_of_a_curve_raised_by_a_decibel_and_a_half():
    found = rate.bd_psnr(line(), line(shift=1.5))
    assert found.value == pytest.approx(1.5)
    assert (found.low, found.high) == pytest.approx((line()[0][0], line()[-1][0]))


def test_bd_rate_and_bd_psnr_of_lines_agree():
    """On lines, dB gained and rate saved are one number: 6 dB for a factor of four."""
    a, b = line(), line(shift=1.5, low=36, high=46)
    assert rate.bd_rate(a, b).value == pytest.approx(100 * (4 ** (-1.5 / 6) - 1))


def test_bd_rate_of_lines_of_different_slope():
    """log rate gap rises from 0 at 40 dB to d at 50 dB: its mean is d / 2."""
    a = [(math.exp(0.2 * db), db) for db in (40.0, 43.0, 50.0)]
    b = [(math.exp(0.2 * db + 0.05 * (db - 40)), db) for db in (40.0, 46.0, 50.0)]
    assert rate.bd_rate(a, b).value == pytest.approx(100 * math.expm1(0.25))


def test_the_overlap_is_said():
    found = rate.bd_rate(line(low=34, high=46), line(2, low=42, high=50))
    assert (found.low, found.high) == (42, 46)
    assert found.share == pytest.approx(4 / 12)
    assert found.value == pytest.approx(100)
    assert rate.bd_rate(line(low=34, high=38), line(low=40, high=44)) is None


def test_bd_rate_swapped_is_the_inverse_ratio():
    a, b = bent(), [(r**1.1, db + 0.3) for r, db in bent(0.8)]
    there, back = (1 + rate.bd_rate(*pair).value / 100 for pair in ((a, b), (b, a)))
    assert there * back == pytest.approx(1)


def test_points_not_worth_choosing_are_left_out():
    assert rate._envelope([(0.2, 40), (0.3, 39), (0.1, 36), (0.4, 42), (0.4, 41)]) == [
        (0.1, 36),
        (0.2, 40),
        (0.4, 42),
    ]
    assert rate.bd_rate([*line(), (0.9, 35.0)], line(0.5)).value == pytest.approx(-50)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.1, 5), min_size=2, max_size=9), st.data())
def test_pchip_agrees_with_scipy(steps, data):
    x = np.cumsum(steps)
    values = st.lists(st.floats(-5, 5, width=32), min_size=len(x), max_size=len(x))
    y = np.array(data.draw(values))
    ends = sorted(data.draw(st.tuples(st.floats(x[0], x[-1]), st.floats(x[0], x[-1]))))
    expected = PchipInterpolator(x, y).integrate(*ends)
    assert rate._pchip_integral(x, y, *ends) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize(
    "curve", [[], [(0.1, 40.0)], [(0.0, 40.0), (0.1, 42.0)], [(0.1, 40.0), (0.2, math.inf)]]
)
def test_no_curve(curve):
    for function in (lambda c: rate.rate_at(c, 40), lambda c: rate.bd_rate(c, line())):
        with pytest.raises(InputError, match="at least two points"):
            function(curve)


def test_a_curve_that_never_rises():
    with pytest.raises(InputError, match="more rate"):
        rate.bd_rate(line(), [(0.1, 40.0), (0.2, 38.0)])
