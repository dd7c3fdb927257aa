"""`ds.eozip.plot`: pictures of a Dataset's bands by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from eozip.arguments import numbers
from eozip.errors import InputError
from eozip.lazy import optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RGB = (("B04", "SR_B4"), ("B03", "SR_B3"), ("B02", "SR_B2"))
"""Names that red, green and blue have, sensor by sensor."""
_MOST_PIXELS = 1024  # a side that is drawn: a screen has no more


class Plots:
    """Pictures of one Dataset, as `ds.eozip.plot`.

    Args:
        dataset: with an array of dimensions (time,) band, y, x.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def rgb(
        self,
        bands: Sequence[str | int] | None = None,
        time: int | str = 0,
        *,
        percentiles: tuple[float, float] = (2, 98),
        ax: Axes | None = None,
    ) -> Axes:
        """Draw three bands of one date in colour; pixels are read in steps where there are more than a screen has.

        Args:
            bands: red, green and blue, by name or position from 0; None: B04, B03, B02, or the first three.
            time: position from 0, or a date as xarray takes it.
            percentiles: of the valid pixels, drawn black and white.
            ax: axes of matplotlib to draw on; None makes some.

        Raises:
            InputError: no such array, band or date, no pixels, percentiles that are none, or matplotlib is missing.
        """
        array = _pixel_array(self._dataset)
        _check_percentiles(percentiles)
        empty = [str(name) for name, size in array.sizes.items() if size == 0]
        if empty:
            raise InputError(
                f"ds.eozip.plot: expected pixels, got none along {' and '.join(empty)}; choose more"
            )
        picked = _date(array, time)
        step = max(1, -(-max(picked.sizes["y"], picked.sizes["x"]) // _MOST_PIXELS))
        picked = picked.isel(
            band=_positions(array, bands), y=slice(None, None, step), x=slice(None, None, step)
        )
        axes = _axes(ax)
        axes.imshow(stretched(picked.transpose("y", "x", "band").values, _nodata(array), percentiles))
        axes.set_title(_title(picked))
        axes.set_axis_off()
        return axes


def _pixel_array(dataset: xr.Dataset) -> xr.DataArray:
    """The array of pixels of a Dataset.

    Raises:
        InputError: there is none, or there are several.
    """
    found = [name for name, array in dataset.data_vars.items() if {"band", "y", "x"} <= set(array.dims)]
    if len(found) != 1:
        raise InputError(
            f"ds.eozip: expected a Dataset with one array of dimensions band, y, x, got {len(found)} among "
            f"{', '.join(map(str, dataset.data_vars)) or 'no arrays'}; choose one, as ds[[NAME]]"
        )
    return dataset[found[0]]


def _check_percentiles(percentiles: Sequence[float]) -> None:
    """Refuses what is no pair of rising percentiles.

    Raises:
        InputError: see above.
    """
    low, high = numbers("percentiles", percentiles, ("low", "high"))
    if not 0 <= low < high <= 100:
        raise InputError(f"percentiles: expected 0 <= low < high <= 100, got {low:g} and {high:g}")


def stretched(
    pixels: np.ndarray, nodata: float | None, percentiles: tuple[float, float] = (2, 98)
) -> np.ndarray:
    """Pixels [H, W, 3] as floats from 0 to 1, white where there are none."""
    valid = np.isfinite(pixels).all(axis=2)
    if nodata is not None:
        valid &= (pixels != nodata).all(axis=2)
    if not valid.any():
        return np.ones(pixels.shape)
    low, high = np.percentile(pixels[valid], percentiles)
    scaled = np.clip((pixels.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1)
    return np.where(valid[..., None], scaled, 1.0)


def _nodata(array: xr.DataArray) -> float | None:
    found = array.attrs.get("nodata", array.encoding.get("_FillValue"))
    return None if found is None else float(found)


def _date(array: xr.DataArray, time: int | str) -> xr.DataArray:
    if "time" not in array.dims:
        return array
    try:
        if isinstance(time, str):
            found = array.sel(time=time)
            return found.isel(time=0) if "time" in found.dims else found
        return array.isel(time=time)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        known = ", ".join(str(value)[:10] for value in np.atleast_1d(array["time"].values)[:12])
        raise InputError(
            f"time: expected a position below {array.sizes['time']} or one of {known}, got {time!r}"
        ) from error


def _positions(array: xr.DataArray, bands: Sequence[str | int] | None) -> list[int]:
    count = array.sizes["band"]
    names = [str(name) for name in array["band"].values] if "band" in array.coords else []
    if bands is None:
        known = [next((n for n in same if n in names), None) for same in RGB]
        bands = [n for n in known if n] if all(known) else [min(i, count - 1) for i in range(3)]
    if len(bands) != 3:
        raise InputError(f"bands: expected three, for red, green and blue, got {list(bands)}")
    return [_position(names, count, band) for band in bands]


def _position(names: Sequence[str], count: int, band: Any) -> int:
    if isinstance(band, str) and band in names:
        return names.index(band)
    if isinstance(band, int) and 0 <= band < count:
        return band
    raise InputError(f"bands: expected one of {' '.join(names) or f'0 to {count - 1}'}, got {band!r}")


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    pyplot = optional("matplotlib.pyplot", "pictures need matplotlib: pip install 'eozip[serve]'")
    return pyplot.subplots(figsize=(6, 6))[1]


def _title(picked: xr.DataArray) -> str:
    names = " ".join(str(name) for name in picked["band"].values) if "band" in picked.coords else ""
    when = str(picked["time"].values)[:10] if "time" in picked.coords else ""
    return ", ".join(part for part in (when, names) if part)
