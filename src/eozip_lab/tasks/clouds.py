"""Cloud masks by s2cloudless (its own trained model) of original and decoded pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip_lab.tasks.pictures import mask, rgb
from eozip_lab.tasks.task import Chip, Tally, iou, share

_BANDS = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
_CLEAR_SKY = 15.0  # DN of B10 where it is not there, for original and decoded pixels alike
_UNSURE = (0.4, 0.7)
_CELL = 2  # pixels a side


class Clouds:
    """Judge of clouds; `average_over` and `dilation_size` as in the package's own example."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        from s2cloudless import S2PixelCloudDetector  # optional

        self._chips = chips
        self._detector = S2PixelCloudDetector(threshold=_UNSURE[0], average_over=4, dilation_size=2)
        self._original = [self._seen(chip, chip.dn) for chip in chips]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        found = [self._seen(chip, dn)[1] for chip, dn in zip(self._chips, decoded)]
        return [
            Tally(chip.place, _sums(original, mask), chip.held)
            for chip, original, mask in zip(self._chips, self._original, found)
        ]

    def panels(self, k: int, decoded: np.ndarray) -> dict[str, np.ndarray]:
        """Colours, and both masks."""
        chip = self._chips[k]
        masks = {"mask of original": self._original[k][1], "mask of decoded": self._seen(chip, decoded)[1]}
        large = {name: mask(m.repeat(_CELL, 0).repeat(_CELL, 1)) for name, m in masks.items()}
        return {**rgb(chip, decoded), **large}

    def _seen(self, chip: Chip, dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability and mask, [h, w] of cells."""
        probability = self._detector.get_cloud_probability_maps(_cells(dn, chip.bands))
        return probability[0], self._detector.get_mask_from_prob(probability)[0].astype(bool)


def _cells(dn: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Reflectance of cells in the detector's bands, [T, h, w, 10]."""
    t, c, height, width = dn.shape
    whole = dn[..., : height // _CELL * _CELL, : width // _CELL * _CELL]
    cells = whole.reshape(t, c, height // _CELL, _CELL, width // _CELL, _CELL).mean((3, 5))
    clear = np.full(cells[:, 0].shape, _CLEAR_SKY)
    picked = [cells[:, bands.index(name)] if name in bands else clear for name in _BANDS]
    return np.stack(picked, -1) / 1e4


def _sums(original: tuple[np.ndarray, np.ndarray], found: np.ndarray) -> dict[str, tuple[float, float]]:
    probability, cloud = original
    unsure = cloud & (probability >= _UNSURE[0]) & (probability < _UNSURE[1])
    return {
        "cloud IoU": iou(cloud, found),
        "cells alike": share(cloud == found, np.ones_like(cloud)),
        "thin cloud kept": share(found, unsure),
        "clear kept clear": share(~found, ~cloud),
    }
