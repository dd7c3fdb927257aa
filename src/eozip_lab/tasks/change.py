"""Change between two dates: where NBR falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip_lab.tasks.indices import index
from eozip_lab.tasks.pictures import lost, mask, rgb
from eozip_lab.tasks.task import Case, Chip, Tally, iou, shares
from eozip_lab.tasks.water import smaller

FALL, _SMALL = 0.1, 9


class Change:
    """Judge of change."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        self._original = [changed(chip.dn, chip.bands) for chip in chips]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        return [
            Tally(chip.place, shares(_cases(original, changed(dn, chip.bands))), chip.held)
            for chip, original, dn in zip(self._chips, self._original, decoded)
        ]

    def panels(self, k: int, decoded: np.ndarray, measure: str) -> dict[str, np.ndarray]:
        """The second date, both maps, and what is lost."""
        chip, found = self._chips[k], changed(decoded, self._chips[k].bands)
        maps = {"change in original": mask(self._original[k]), "in decoded": mask(found)}
        return {**rgb(chip, decoded, date=1), **maps, "lost": lost(_cases(self._original[k], found)[measure])}


def changed(dn: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Where NBR falls from the first to the second date, bool [H, W]; nothing changes where there are no data."""
    before, after = index(dn, bands, "NBR")
    return np.nan_to_num(before - after) >= FALL


def _cases(original: np.ndarray, found: np.ndarray) -> dict[str, Case]:
    return {
        "change IoU": iou(original, found),
        "small changes found": (found, smaller(original, _SMALL)),
        "unchanged kept": (~found, ~original),
    }
