"""Indices of single pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip_lab.tasks.task import Chip, Tally, mean_error

_PAIRS = {"NDVI": ("nir", "B04"), "NDWI": ("B03", "nir"), "NBR": ("nir", "B12")}
_DARK = 0.1  # share of a chip's pixels


class Indices:
    """Judge of indices."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        return [Tally(c.place, _sums(c, dn), c.held) for c, dn in zip(self._chips, decoded)]


def index(dn: np.ndarray, bands: Sequence[str], name: str) -> np.ndarray:
    """NDVI, NDWI (McFeeters) or NBR, float64 [T, H, W]; NaN where both bands are 0.

    The near infrared is B08, or B8A where there is no B08.
    """
    nir = "B08" if "B08" in bands else "B8A"
    a, b = (dn[:, bands.index(nir if band == "nir" else band)].astype(float) for band in _PAIRS[name])
    total = a + b
    return np.divide(a - b, total, out=np.full(total.shape, np.nan), where=total > 0)


def dark(dn: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """The darkest tenth of the pixels by red and near infrared, bool [T, H, W]."""
    light = sum(
        dn[:, bands.index(name)].astype(float) for name in ("B04", "B08" if "B08" in bands else "B8A")
    )
    return light <= np.quantile(light, _DARK)


def _sums(chip: Chip, dn: np.ndarray) -> dict[str, tuple[float, float]]:
    valid = (chip.dn > 0).all(1)
    errors = {name: index(dn, chip.bands, name) - index(chip.dn, chip.bands, name) for name in _PAIRS}
    sums = {f"{name} error x 1000": mean_error(error, valid) for name, error in errors.items()}
    sums["NDVI error x 1000, dark"] = mean_error(errors["NDVI"], valid & dark(chip.dn, chip.bands))
    return sums
