"""Rates: bits per pixel per band, rate at a PSNR, and Bjontegaard differences between two curves.

A curve is a sequence of (bpppb, dB) points; the order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.errors import InputError

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Difference:
    """One curve against a reference, averaged over the range both cover.

    Attributes:
        value: for `bd_rate` percent of rate (-50: half the bits); for `bd_psnr` dB.
        low, high: the range averaged over: dB for `bd_rate`, bpppb for `bd_psnr`.
        share: that range as a share of the reference's own (of log rate for `bd_psnr`), 0..1. Small: the
            curves hardly meet, and the value says little.
    """

    value: float
    low: float
    high: float
    share: float


def bpppb(size: int, shape: Sequence[int]) -> float:
    """Bits per pixel per band.

    Args:
        size: bytes of everything.
        shape: [T, C, H, W] or [C, H, W] of the unpadded input.
    """
    return 8.0 * size / math.prod(shape)


def rate_at(curve: Curve, db: float) -> float | None:
    """bpppb at which a curve reaches a PSNR: log rate, linear in dB between the two points beside it.

    Returns:
        None outside the curve: nothing is extrapolated.

    Raises:
        InputError: rates that are not positive, or fewer than two points.
    """
    psnrs, log_rates = _axes(curve)
    at = np.interp(db, psnrs, log_rates, left=math.nan, right=math.nan)
    return None if math.isnan(at) else float(math.exp(at))


def mean_rate_at(curves: Sequence[Curve], db: float) -> float | None:
    """Mean over places of `rate_at`; None if a curve does not reach it: every mean has all places."""
    rates = [rate_at(curve, db) for curve in curves]
    return None if None in rates or not rates else float(np.mean(rates))  # type: ignore[arg-type]


def bd_rate(reference: Curve, curve: Curve) -> Difference | None:
    """Mean difference of rate at equal PSNR, in percent of the reference's rate.

    Bjontegaard (VCEG-M33, 2001) with piecewise cubic interpolation (pchip) of log rate over dB, as in
    VCEG-AI11 and JCT-VC practice. Points at which more rate gives no more PSNR are left out (see `_envelope`).

    Returns:
        None if the curves share no range of PSNR.

    Raises:
        InputError: rates that are not positive, or fewer than two points.
    """
    axes = [_rising(*_axes(c)) for c in (reference, curve)]
    averaged = _mean_gap(axes)
    if averaged is None:
        return None
    gap, low, high, share = averaged
    return Difference(100 * math.expm1(gap), low, high, share)


def bd_psnr(reference: Curve, curve: Curve) -> Difference | None:
    """Mean difference of PSNR in dB at equal rate: as `bd_rate` with axes exchanged, over log rate."""
    axes = [_rising(*_axes(c))[::-1] for c in (reference, curve)]
    averaged = _mean_gap(axes)
    if averaged is None:
        return None
    gap, low, high, share = averaged
    return Difference(gap, math.exp(low), math.exp(high), share)


def smooth_rate_at(curve: Curve, db: float) -> float | None:
    """As `rate_at`, by the monotone piecewise cubic of log rate over dB through the points worth choosing: for few points.

    Returns:
        None outside them, or where fewer than two rise.
    """
    rates, dbs = _worthwhile(curve)
    found = _cubic_at(dbs, np.log(rates), db)
    return None if found is None else math.exp(found)


def smooth_psnr_at(curve: Curve, rate: float) -> float | None:
    """dB at a rate, likewise."""
    rates, dbs = _worthwhile(curve)
    return _cubic_at(np.log(rates), dbs, math.log(rate)) if rate > 0 else None


def _worthwhile(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    kept = _envelope([(rate, db) for rate, db in curve if rate > 0 and math.isfinite(db)])
    return np.array([rate for rate, _ in kept]), np.array([db for _, db in kept])


def _cubic_at(x: np.ndarray, y: np.ndarray, at: float) -> float | None:
    if len(x) < 2 or not x[0] <= at <= x[-1]:
        return None
    k = min(int(np.searchsorted(x, at, "right")), len(x) - 1) - 1
    h = x[k + 1] - x[k]
    u = (at - x[k]) / h
    ends = y[k] * (1 + 2 * u) * (1 - u) ** 2 + y[k + 1] * u * u * (3 - 2 * u)
    left, right = _slopes(x, y)[k : k + 2]
    return float(ends + h * (left * u * (1 - u) ** 2 + right * u * u * (u - 1)))


def _envelope(curve: Curve) -> list[tuple[float, float]]:
    """The points worth choosing: in rising rate, each with more PSNR than every cheaper one."""
    kept: list[tuple[float, float]] = []
    for rate, db in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not kept or db > kept[-1][1]:
            kept.append((rate, db))
    return kept


def _pchip_integral(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    """Integral from low to high of the monotone piecewise cubic through (x, y) (Fritsch and Butland 1984).

    Args:
        x: float64 [n], strictly rising, n >= 2.
        y: float64 [n].
        low, high: within x.
    """
    return _integral_from_start(x, y, high) - _integral_from_start(x, y, low)


def _axes(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """PSNR and log rate of a curve, in rising PSNR; of equal PSNRs the cheapest."""
    points = [(float(rate), float(db)) for rate, db in curve if math.isfinite(db)]
    if len(points) < 2 or min(rate for rate, _ in points) <= 0:
        raise InputError(
            f"expected at least two points (bpppb above 0, finite dB), got {[tuple(p) for p in curve]}"
        )
    cheapest = {db: rate for rate, db in sorted(points, reverse=True)}
    psnrs = np.array(sorted(cheapest))
    return psnrs, np.log([cheapest[db] for db in psnrs])


def _rising(psnrs: np.ndarray, log_rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.array(_envelope(list(zip(log_rates, psnrs))))
    if len(kept) < 2:
        raise InputError("expected a curve on which more rate gives more PSNR, got none with two such points")
    return kept[:, 1], kept[:, 0]


def _mean_gap(axes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float, float] | None:
    """Mean of second minus first curve over the x both cover; that range; its share of the first's."""
    (x, y), (x2, y2) = axes
    low, high = float(max(x[0], x2[0])), float(min(x[-1], x2[-1]))
    if high <= low:
        return None
    gap = _pchip_integral(x2, y2, low, high) - _pchip_integral(x, y, low, high)
    return gap / (high - low), low, high, (high - low) / float(x[-1] - x[0])


def _integral_from_start(x: np.ndarray, y: np.ndarray, end: float) -> float:
    """Each interval's Hermite cubic, integrated in closed form up to `end`."""
    slope = _slopes(x, y)
    h = np.diff(x)
    u = np.clip((end - x[:-1]) / h, 0, 1)
    values = y[:-1] * (u - u**3 + u**4 / 2) + y[1:] * (u**3 - u**4 / 2)
    slopes = slope[:-1] * (u**2 / 2 - 2 * u**3 / 3 + u**4 / 4) + slope[1:] * (u**4 / 4 - u**3 / 3)
    return float((h * (values + h * slopes)).sum())


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    h, secant = np.diff(x), np.diff(y) / np.diff(x)
    if len(secant) == 1:
        return np.repeat(secant, 2)
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    turns = secant[1:] * secant[:-1] <= 0
    left, right = (np.where(turns, 1.0, s) for s in (secant[:-1], secant[1:]))
    inner = np.where(turns, 0.0, (w1 + w2) / (w1 / left + w2 / right))
    ends = (
        _end_slope(h[0], h[1], secant[0], secant[1]),
        _end_slope(h[-1], h[-2], secant[-1], secant[-2]),
    )
    return np.concatenate([ends[:1], inner, ends[1:]])


def _end_slope(h0: float, h1: float, first: float, second: float) -> float:
    """Three-point slope at an end, limited so that the curve stays monotone."""
    slope = ((2 * h0 + h1) * first - h0 * second) / (h0 + h1)
    if slope * first <= 0:
        return 0.0
    return 3 * first if first * second <= 0 and abs(slope) > 3 * abs(first) else slope
