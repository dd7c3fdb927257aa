"""Cloud masks by s2cloudless (its own trained model) of original and decoded pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from s2cloudless import S2PixelCloudDetector

from eozip_lab.tasks.pictures import lost, mask, rgb
from eozip_lab.tasks.task import Case, Chip, Tally, iou, shares

_BANDS = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
_CLEAR_SKY = 15.0  # DN of B10 where it is not there, for original and decoded pixels alike
_UNSURE = (0.4, 0.7)
_CELL = 2  # pixels a side


class Clouds:
    """Judge of clouds; `average_over` and `dilation_size` as in the package's own example."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        self._detector = S2PixelCloudDetector(threshold=_UNSURE[0], average_over=4, dilation_size=2)
        self._original = [self._seen(chip, chip.dn) for chip in chips]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        found = [self._seen(chip, dn)[1] for chip, dn in zip(self._chips, decoded)]
        return [
            Tally(chip.place, shares(_cases(original, cloud)), chip.held)
            for chip, original, cloud in zip(self._chips, self._original, found)
        ]

    def panels(self, k: int, decoded: np.ndarray, measure: str) -> dict[str, np.ndarray]:
        """Colours, both masks, and what is lost."""
        chip, found = self._chips[k], self._seen(self._chips[k], decoded)[1]
        maps = {
            "mask of original": mask(self._original[k][1]),
            "mask of decoded": mask(found),
            "lost": lost(_cases(self._original[k], found)[measure]),
        }
        large = {name: m.repeat(_CELL, 0).repeat(_CELL, 1) for name, m in maps.items()}
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


def _cases(original: tuple[np.ndarray, np.ndarray], found: np.ndarray) -> dict[str, Case]:
    probability, cloud = original
    unsure = cloud & (probability >= _UNSURE[0]) & (probability < _UNSURE[1])
    return {
        "cloud IoU": iou(cloud, found),
        "cells alike": (cloud == found, np.ones_like(cloud)),
        "thin cloud kept": (found, unsure),
        "clear kept clear": (~found, ~cloud),
    }
