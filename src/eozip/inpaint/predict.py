"""What every predictor of hidden pixels fulfils, and the series it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from eozip.errors import InputError


@dataclass(frozen=True)
class Series:
    """Dates of one place; hidden pixels hold 0, so that nothing can be learnt from them.

    Attributes:
        x: float32 [T, C, H, W], DN without offset, finite.
        hidden: bool [T, H, W]: what may not be used.
        days: float64 [T], rising; days since any day.
        dated: the days are known; else they are steps.
    """

    x: np.ndarray
    hidden: np.ndarray
    days: np.ndarray
    dated: bool = True

    def cover(self, date: int) -> float:
        """Share of hidden pixels of a date, 0..1."""
        return float(self.hidden[date].mean())


@dataclass(frozen=True)
class Prediction:
    """What a predictor says about one whole date; of interest where it is hidden.

    Attributes:
        x_hat: float32 [C, H, W], DN without offset.
        sigma: float32 [C, H, W], standard deviation in DN, before calibration; above 0.
        references: uint8 [H, W], dates measured at this pixel that entered.
        method: which predictor it came from in the end.
        seamless: it already meets the clear pixels at the border of the hidden ones.
        factors: under which name calibration holds what sigma is to be multiplied by; "": under `method`.
    """

    x_hat: np.ndarray
    sigma: np.ndarray
    references: np.ndarray
    method: str
    seamless: bool = False
    factors: str = ""

    @property
    def calibration(self) -> str:
        """Name for `eozip.inpaint.uncertainty.factor_of`."""
        return self.factors or self.method


@runtime_checkable
class Predictor(Protocol):
    """Predicts a date of a series, with any number of other dates, past and future."""

    @property
    def name(self) -> str:
        """Short name, as in results."""
        ...

    def predict(self, series: Series, date: int) -> Prediction:
        """Predict date number `date`.

        Args:
            series: at least two dates, at least one other date with a clear pixel.
            date: 0..T-1.
        """
        ...


def make_series(x: np.ndarray, hidden: np.ndarray, days: Sequence[float] | None = None) -> Series:
    """Check and copy.

    Args:
        x: [T, C, H, W], DN without offset.
        hidden: bool [T, H, W].
        days: [T], rising; None for 0, 1, 2, ...

    Raises:
        InputError: shapes that do not fit, one date alone, or days that do not rise.
    """
    if x.ndim != 4 or x.size == 0:
        raise InputError(f"series: expected [T, C, H, W], not empty, got shape {x.shape}")
    expected = (x.shape[0], *x.shape[2:])
    if hidden.shape != expected or hidden.dtype != bool:
        raise InputError(
            f"mask: expected bool {list(expected)}, one plane per date of the series, got {hidden.dtype} "
            f"{list(hidden.shape)}"
        )
    if len(x) < 2:
        raise InputError(
            "series: expected at least two dates, got a single date; what clouds hide is predicted from other "
            "dates: add some"
        )
    if hidden.all():
        raise InputError(
            f"mask: all {len(x)} dates are hidden everywhere; expected clear pixels on at least one date: add "
            "dates or mask less"
        )
    shown = np.where(hidden[:, None], np.float32(0), x).astype(np.float32, copy=False)
    return Series(shown, hidden.copy(), _checked_days(days, len(x)), days is not None)


def _checked_days(days: Sequence[float] | None, count: int) -> np.ndarray:
    if days is None:
        return np.arange(count, dtype=np.float64)
    try:
        found = np.asarray(days, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (count,) or not np.isfinite(found).all() or (np.diff(found) < 0).any():
        raise InputError(f"days: expected {count} finite numbers in rising order, got {days}")
    return found


def others(series: Series, date: int) -> list[int]:
    """Every other date, the nearest in time first; of two as near the earlier."""
    distance = np.abs(series.days - series.days[date])
    return [int(t) for t in np.argsort(distance, kind="stable") if t != date]
