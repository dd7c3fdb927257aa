"""Start of season: a double logistic fitted to each pixel's NDVI (Beck et al. 2006), original and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit

from eozip_lab.tasks.indices import index
from eozip_lab.tasks.task import Chip, Tally, mean_error

_EVERY, _BLOCK = 6, 16  # each 6th pixel; blocks of 16 pixels are resampled
_WINDOW = 150  # days on both sides of the greenest time
_LIMIT, _CLOSE = 60.0, 5.0  # days
_LEAST, _EXPLAINED, _AMPLITUDE = 10, 0.6, 0.15


@dataclass(frozen=True)
class _Site:
    name: str
    parts: range  # positions of its chips
    days: np.ndarray
    clear: np.ndarray  # bool [T, H, W]
    peaks: np.ndarray  # days [H, W], the greenest time of original pixels: which season is meant
    starts: np.ndarray  # days [H, W]; NaN where there is no season


class Phenology:
    """Judge of seasons."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        names = dict.fromkeys(chip.place for chip in chips)
        self._ndvi = [index(chip.dn, chip.bands, "NDVI") for chip in chips]
        self._sites = [self._site(name) for name in names]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        ndvi = [index(dn, chip.bands, "NDVI") for chip, dn in zip(self._chips, decoded)]
        return [tally for site in self._sites for tally in self._tallies(site, ndvi)]

    def _site(self, name: str) -> _Site:
        parts = [k for k, chip in enumerate(self._chips) if chip.place == name]
        days, clear = (np.concatenate([self._chips[k].facts[f] for k in parts]) for f in ("days", "clear"))
        span = range(parts[0], parts[-1] + 1)
        ndvi = np.concatenate([self._ndvi[k] for k in parts])
        peaks = _greenest(days, ndvi, clear)
        return _Site(name, span, days, clear, peaks, _season_starts(days, ndvi, clear, peaks))

    def _tallies(self, site: _Site, ndvi: list[np.ndarray]) -> list[Tally]:
        found = np.concatenate([ndvi[k] for k in site.parts])
        error = found - np.concatenate([self._ndvi[k] for k in site.parts])
        starts = _season_starts(site.days, found, site.clear, site.peaks)
        return [
            Tally(f"{site.name} {y} {x}", _sums(site, starts, error, y, x))
            for y in range(0, error.shape[1], _BLOCK)
            for x in range(0, error.shape[2], _BLOCK)
        ]


def _sums(
    site: _Site, starts: np.ndarray, error: np.ndarray, y: int, x: int
) -> dict[str, tuple[float, float]]:
    block = np.s_[y : y + _BLOCK, x : x + _BLOCK]
    before, after = site.starts[block], starts[block]
    known = np.isfinite(before)
    off = np.minimum(np.nan_to_num(np.abs(after - before), nan=_LIMIT), _LIMIT)[known]
    return {
        "start of season, days off": mean_error(off),
        "start within 5 days": (float((off <= _CLOSE).sum()), float(off.size)),
        "NDVI error x 1000": mean_error(error[:, *block], site.clear[:, *block]),
    }


def _greenest(days: np.ndarray, ndvi: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """The day of the highest NDVI, smoothed over five clear dates, far enough from both ends; float [H, W].

    Args:
        days: int [T], rising.
        ndvi: float [T, H, W].
        clear: bool [T, H, W].
    """
    peaks = np.full(ndvi.shape[1:], np.nan)
    for y, x in _sampled(ndvi):
        seen = clear[:, y, x] & np.isfinite(ndvi[:, y, x])
        if seen.sum() >= _LEAST:
            peaks[y, x] = _peak(days[seen], ndvi[seen, y, x])
    return peaks


def _season_starts(days: np.ndarray, ndvi: np.ndarray, clear: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """The day on which a fitted double logistic rises steepest before the peak; each 6th pixel, the others NaN.

    Args:
        days: int [T], rising.
        ndvi: float [T, H, W].
        clear: bool [T, H, W].
        peaks: float [H, W], as `_greenest` gives them.

    Returns:
        float [H, W], days; NaN where a double logistic does not explain the series.
    """
    starts = np.full(ndvi.shape[1:], np.nan)
    for y, x in _sampled(ndvi):
        near = clear[:, y, x] & np.isfinite(ndvi[:, y, x]) & (np.abs(days - peaks[y, x]) <= _WINDOW)
        if near.sum() >= _LEAST:
            starts[y, x] = _fitted(days[near] - peaks[y, x], ndvi[near, y, x]) + peaks[y, x]
    return starts


def _sampled(ndvi: np.ndarray) -> list[tuple[int, int]]:
    rows, columns = (range(_EVERY // 2, size, _EVERY) for size in ndvi.shape[1:])
    return [(y, x) for y in rows for x in columns]


def _peak(days: np.ndarray, ndvi: np.ndarray) -> float:
    smooth = np.convolve(np.pad(ndvi, 2, mode="edge"), np.ones(5) / 5, "valid")
    inner = (days > days[0] + _WINDOW) & (days < days[-1] - _WINDOW)
    return float(days[np.argmax(np.where(inner, smooth, -9) if inner.any() else smooth)])


def _double_logistic(
    t: np.ndarray, low: float, high: float, rise: float, start: float, fall: float, end: float
) -> np.ndarray:
    """NDVI at days t: `low` outside the season, `high` in it; steepest at `start` and `end`."""
    up, down = (1 / (1 + np.exp(-np.clip(r, -50, 50))) for r in (rise * (t - start), fall * (t - end)))
    return low + (high - low) * (up - down)


def _fitted(t: np.ndarray, ndvi: np.ndarray) -> float:
    low, high = np.quantile(ndvi, (0.05, 0.95))
    guess = (low, max(high, low + 0.05), 0.08, -50.0, 0.08, 50.0)
    bounds = ([-1, -1, 0.01, -_WINDOW, 0.01, -30], [1, 1.5, 0.5, 30, 0.5, _WINDOW])
    try:
        found, _ = curve_fit(_double_logistic, t, ndvi, np.clip(guess, *bounds), bounds=bounds, max_nfev=200)
    except RuntimeError:  # no convergence
        return float("nan")
    left = ndvi - _double_logistic(t, *found)
    good = left.var() <= (1 - _EXPLAINED) * ndvi.var() and found[1] - found[0] >= _AMPLITUDE
    return float(found[3]) if good else float("nan")
