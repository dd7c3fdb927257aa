"""Small pictures of chips, masks and classes for the gallery."""

from __future__ import annotations

import numpy as np

from eozip_lab.tasks.task import Case, Chip

_COLOURS = ("B04", "B03", "B02")
LOST = (255, 40, 40)
_PALETTE = np.array(
    [(68, 119, 170), (34, 136, 51), (204, 187, 68), (238, 102, 119), (170, 51, 119), (187, 187, 187)],
    np.uint8,
)


def rgb(chip: Chip, decoded: np.ndarray, date: int = 0) -> dict[str, np.ndarray]:
    """Original and decoded colours under one stretch, uint8 [H, W, 3]."""
    picked = [chip.bands.index(name) for name in _COLOURS]
    before, after = (dn[date, picked].astype(float) for dn in (chip.dn, decoded))
    low, high = np.percentile(before, (1, 99))
    return {name: _stretched(x, low, high) for name, x in (("original", before), ("decoded", after))}


def mask(where: np.ndarray) -> np.ndarray:
    """White where, uint8 [H, W, 3]."""
    return np.repeat((where[..., None] * np.uint8(255)), 3, 2)


def lost(case: Case) -> np.ndarray:
    """What a measure counts, uint8 [H, W, 3]: white where it is kept, red where it is lost."""
    kept, among = case
    found = mask(among & kept)
    found[among & ~kept] = LOST
    return found


def classes(which: np.ndarray) -> np.ndarray:
    """A colour for each of up to six classes, uint8 [H, W, 3]."""
    return _PALETTE[which]


def _stretched(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip((np.moveaxis(x, 0, -1) - low) / max(high - low, 1), 0, 1) * 255).astype(np.uint8)
