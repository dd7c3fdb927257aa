"""Change between two dates: where NBR falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip_lab.tasks.indices import index
from eozip_lab.tasks.pictures import mask, rgb
from eozip_lab.tasks.task import Chip, Tally, iou, share
from eozip_lab.tasks.water import smaller

FALL, _SMALL = 0.1, 9


class Change:
    """Judge of change."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        self._original = [changed(chip.dn, chip.bands) for chip in chips]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        return [
            Tally(chip.place, _sums(original, changed(dn, chip.bands)), chip.held)
            for chip, original, dn in zip(self._chips, self._original, decoded)
        ]

    def panels(self, k: int, decoded: np.ndarray) -> dict[str, np.ndarray]:
        """The second date, and both maps."""
        chip = self._chips[k]
        maps = {"change in original": self._original[k], "in decoded": changed(decoded, chip.bands)}
        return {**rgb(chip, decoded, date=1), **{name: mask(m) for name, m in maps.items()}}


def changed(dn: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Where NBR falls from the first to the second date, bool [H, W]; nothing changes where there are no data."""
    before, after = index(dn, bands, "NBR")
    return np.nan_to_num(before - after) >= FALL


def _sums(original: np.ndarray, found: np.ndarray) -> dict[str, tuple[float, float]]:
    return {
        "change IoU": iou(original, found),
        "small changes found": share(found, smaller(original, _SMALL)),
        "unchanged kept": share(~found, ~original),
    }
