"""The tool on arrays: hidden pixels replaced, everything else as it came, and a record of which is which."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from eozip.arguments import real, whole
from eozip.codecs.base import Codec
from eozip.errors import InputError
from eozip.inpaint.normalized_convolution import spread
from eozip.inpaint.predict import Prediction, Predictor, Series, make_series
from eozip.inpaint.registry import resolve_predictor
from eozip.inpaint.uncertainty import JOINT, factor_of

MEASURED, UNFILLED, MISSING = 0, 254, 255
"""Provenance: 0 measured; 1 + n predicted with n dates that show this pixel; 254 hidden and left as it came (no
other date shows anything nearby); 255 no data."""
_WINDOW, OVERLAP = 512, 64  # pixels; larger images are predicted in overlapping windows, cross-faded
_LARGEST_OFFSET = 65535  # DN
LARGEST = 1 << 31  # samples in one call: 8 GiB as float32
_SEAM = (1, 2, 4)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Filled:
    """A series without holes.

    Attributes:
        dn: [T, C, H, W], the input's dtype; equal to the input wherever provenance is not 1..251.
        provenance: uint8 [T, H, W], see `MEASURED`.
        sigma: float32 [T, C, H, W], DN: calibrated standard deviation of predicted pixels, 0 elsewhere; 90 % of
            true values are expected within 1.645 sigma.
        methods: [T] predictors that were used, "" where nothing was hidden; several, of windows, are joined by commas.
        cover: [T] share of hidden pixels.
        calibrated: sigma was calibrated for every predictor used.
    """

    dn: np.ndarray
    provenance: np.ndarray
    sigma: np.ndarray
    methods: tuple[str, ...]
    cover: tuple[float, ...]
    calibrated: bool


def inpaint(
    dn: np.ndarray,
    mask: np.ndarray,
    *,
    days: Sequence[float] | None = None,
    predictor: str | Predictor | Codec | None = None,
    nodata: int | None = None,
    offset: int = 0,
    min_clear: float = 0.1,
    window: int = _WINDOW,
    progress: Progress = lambda done, total: None,
) -> Filled:
    """Replace hidden pixels by what the other dates, past and future, say about them.

    Args:
        dn: uint16 or int16 [T, C, H, W], two dates or more.
        mask: bool [T, H, W]: hidden pixels (clouds and their shadows).
        days: [T] rising, of the dates; None for equal steps.
        predictor: a name (see `eozip.inpaint.registry.get_predictor`), a `Predictor`, or a codec that forecasts, as
            `eozip.load` gives it; None: the regression.
        nodata: DN of missing pixels; they are not used, and filled only where the mask says so.
        offset: radiometric offset contained in ``dn``.
        min_clear: share of clear pixels, 0..1, that some other date needs.
        window: largest side predicted at once, at least 128 pixels.
        progress: called with windows done and in all.

    Returns:
        pixels, provenance and uncertainty.

    Raises:
        InputError: a single date, a mask of another size, all dates hidden, no reference clear enough, another
            dtype, too many pixels, numbers that cannot be, or an unknown predictor.
    """
    _check(dn, mask)
    _check_numbers(dn.dtype, nodata, offset, min_clear, window)
    chosen = resolve_predictor(predictor)
    missing = np.zeros_like(mask) if nodata is None else (dn == nodata).any(axis=1) & ~mask
    series = make_series(dn.astype(np.float32) - np.float32(offset), mask | missing, days)
    wanted = [t for t in range(len(dn)) if mask[t].any()]
    for t in wanted:
        _check_references(series, t, min_clear)
    out, sigma = dn.copy(), np.zeros(dn.shape, np.float32)
    provenance = np.where(missing, np.uint8(MISSING), np.uint8(MEASURED))
    methods, known = [""] * len(dn), True
    windows = list(_windows(dn.shape[2], dn.shape[3], window))
    steps = len(wanted) * len(windows)
    for done, t in enumerate(wanted):
        start = done * len(windows)
        date = _date(series, mask[t], t, chosen, windows, partial(_shifted, progress, start, steps))
        factor = factor_of(date.calibration, series.cover(t))
        known = known and factor is not None
        at = mask[t] & (date.references != UNFILLED)
        out[t][:, at] = _to_dn(date.x_hat[:, at] + np.float32(offset), dn.dtype, nodata)
        sigma[t][:, at] = date.sigma[:, at] * np.float32(1 if factor is None else factor)
        provenance[t][mask[t]] = date.references[mask[t]]
        methods[t] = date.method
    cover = tuple(float(plane.mean()) for plane in mask)
    return Filled(out, provenance, sigma, tuple(methods), cover, known)


def _check(dn: np.ndarray, mask: np.ndarray) -> None:
    for name, value in (("dn", dn), ("mask", mask)):
        if not isinstance(value, np.ndarray):
            raise InputError(f"{name}: expected an array of numpy, got {type(value).__name__}")
    if dn.dtype not in (np.uint16, np.int16):
        raise InputError(
            f"dn: expected uint16 or int16 digital numbers, got {dn.dtype}; scale and round them"
        )
    if dn.ndim != 4:
        raise InputError(
            f"dn: expected [T, C, H, W] with at least two dates, got shape {dn.shape}: a single date cannot be "
            "filled from others; add some"
        )
    if dn.size > LARGEST:
        raise InputError(
            f"dn: expected at most {LARGEST} samples at once, got {dn.size}; cut the scene in parts"
        )
    if mask.dtype != bool:
        raise InputError(
            f"mask: expected bool [T, H, W], got {mask.dtype}; compare it with its classes first"
        )


def _check_numbers(
    dtype: np.dtype, nodata: object, offset: object, min_clear: object, window: object
) -> None:
    limits = np.iinfo(dtype)
    if nodata is not None and not limits.min <= whole("nodata", nodata) <= limits.max:
        raise InputError(f"nodata: expected {limits.min} to {limits.max}, as {dtype} has it, got {nodata}")
    if abs(real("offset", offset)) > _LARGEST_OFFSET or math.isnan(real("offset", offset)):
        raise InputError(f"offset: expected at most {_LARGEST_OFFSET} DN, got {offset}")
    if not 0 <= real("min_clear", min_clear) <= 1:
        raise InputError(f"min_clear: expected a share, 0 to 1, got {min_clear}")
    if whole("window", window) < 128:
        raise InputError(f"window: expected at least 128 pixels, got {window}")


def _check_references(series: Series, date: int, min_clear: float) -> None:
    clear = [1 - series.cover(t) for t in range(len(series.x)) if t != date]
    if max(clear) < min_clear or max(clear) == 0:
        raise InputError(
            f"date {date + 1}: no reference clear enough: expected another date with at least "
            f"{100 * min_clear:g} % of its pixels clear, got {100 * max(clear):.3g} % at best; add dates, or "
            "lower min_clear (--min-clear)"
        )


def _shifted(progress: Progress, start: int, steps: int, done: int) -> None:
    """Progress of one date as progress of all."""
    progress(start + done, steps)


def _date(
    series: Series,
    wanted: np.ndarray,
    date: int,
    predictor: Predictor,
    windows: list[tuple[slice, slice]],
    progress: Callable[[int], None],
) -> Prediction:
    """One date, its windows cross-faded; `references` is provenance."""
    shape = series.x.shape[1:]
    x_hat, sigma = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    weight = np.zeros(shape[1:], np.float32)
    provenance = np.full(shape[1:], UNFILLED, np.uint8)
    methods: list[str] = []
    factors: list[str] = []
    for done, (rows, columns) in enumerate(windows, start=1):
        part = _window(series, rows, columns)
        if wanted[rows, columns].any() and not part.hidden[np.arange(len(part.x)) != date].all():
            found = _seamless(part, date, predictor.predict(part, date))
            fade = _fade(part.x.shape[2], rows, shape[1])[:, None] * _fade(part.x.shape[3], columns, shape[2])
            x_hat[:, rows, columns] += fade * found.x_hat
            sigma[:, rows, columns] += fade * found.sigma
            weight[rows, columns] += fade
            provenance[rows, columns] = 1 + np.minimum(found.references, 250)
            methods += [found.method] * (found.method not in methods)
            factors += [found.calibration] * (found.calibration not in factors)
        progress(done)
    weight = np.maximum(weight, 1e-6)
    return Prediction(
        x_hat / weight, sigma / weight, provenance, JOINT.join(methods), factors=JOINT.join(factors)
    )


def _seamless(series: Series, date: int, found: Prediction) -> Prediction:
    """Shifts the prediction near clear pixels so that it meets them; changes hidden pixels only in the end."""
    clear = ~series.hidden[date]
    if found.seamless or not clear.any():
        return found
    return replace(
        found, x_hat=found.x_hat + spread(series.x[date] - found.x_hat, clear, _SEAM), seamless=True
    )


def _window(series: Series, rows: slice, columns: slice) -> Series:
    return replace(series, x=series.x[:, :, rows, columns], hidden=series.hidden[:, rows, columns])


def _windows(height: int, width: int, window: int) -> Iterator[tuple[slice, slice]]:
    for rows in _ranges(height, window):
        for columns in _ranges(width, window):
            yield rows, columns


def _ranges(length: int, window: int) -> list[slice]:
    """Ranges of at most `window`, neighbours overlapping by `OVERLAP` or more, spread evenly."""
    if length <= window:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (window - OVERLAP))
    starts = [round(i * (length - window) / (count - 1)) for i in range(count)]
    return [slice(start, start + window) for start in starts]


def _fade(length: int, part: slice, whole: int) -> np.ndarray:
    """Weights of a window's rows or columns: 1 inside, falling over the overlap where another window follows."""
    at = np.arange(length, dtype=np.float32) + 1
    rising = np.minimum(at / OVERLAP, 1) if part.start > 0 else np.ones(length, np.float32)
    falling = np.minimum(at[::-1] / OVERLAP, 1) if part.stop < whole else np.ones(length, np.float32)
    return rising * falling


def _to_dn(x: np.ndarray, dtype: np.dtype, nodata: int | None) -> np.ndarray:
    """Rounded and cut to the dtype; never nodata, which would say that nothing is there."""
    limits = np.iinfo(dtype)
    dn = np.clip(np.rint(x), limits.min, limits.max).astype(dtype)
    if nodata is not None:
        dn[dn == nodata] = nodata + 1 if nodata < limits.max else nodata - 1
    return dn
