"""Water against labels, by a classifier that never saw the place; trained on originals, and on decoded pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from eozip_lab.tasks.pictures import lost, mask, rgb
from eozip_lab.tasks.task import Case, Chip, Tally, iou, shares

_FOLDS, _SAMPLES = 4, 400  # pixels of each chip to learn from
_SMALL, _DARK = 25, 800  # pixels; DN of B11


class Water:
    """Judge of water."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        places = [chip.place for chip in chips]
        folds = GroupKFold(min(_FOLDS, len(set(places))))
        self._fold = np.zeros(len(chips), int)
        for k, (_, tested) in enumerate(folds.split(places, groups=places)):
            self._fold[tested] = k
        self._original = self._trained([chip.dn for chip in chips])

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        anew = self._trained(decoded)
        return [
            Tally(chip.place, self._sums(k, dn, anew[self._fold[k]]), chip.held)
            for k, (chip, dn) in enumerate(zip(self._chips, decoded))
        ]

    def panels(self, k: int, decoded: np.ndarray, measure: str) -> dict[str, np.ndarray]:
        """Colours, label, what is found in either, and what is lost."""
        chip, model = self._chips[k], self._original[self._fold[k]]
        found = {"water in original": chip.dn, "water in decoded": decoded}
        wet = {name: _wet(model, dn, chip.bands) for name, dn in found.items()}
        maps = {"label": chip.facts["water"], **wet}
        case = _cases(chip, wet["water in decoded"])[measure]
        return {**rgb(chip, decoded), **{name: mask(m) for name, m in maps.items()}, "lost": lost(case)}

    def _trained(self, stacks: Sequence[np.ndarray]) -> list[Any]:
        """One classifier for each fold, of the chips of the others."""
        found = []
        for fold in range(self._fold.max() + 1):
            pairs = [self._sample(k, stacks[k]) for k in np.flatnonzero(self._fold != fold)]
            model = HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=0)
            found.append(
                model.fit(np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs]))
            )
        return found

    def _sample(self, k: int, dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chip = self._chips[k]
        features, labels = _features(dn, chip.bands), chip.facts["water"].ravel()
        picked = np.random.default_rng(k).choice(len(labels), min(_SAMPLES, len(labels)), replace=False)
        return features[picked], labels[picked]

    def _sums(self, k: int, dn: np.ndarray, anew: Any) -> dict[str, tuple[float, float]]:
        chip = self._chips[k]
        wet, wet_anew = (_wet(model, dn, chip.bands) for model in (self._original[self._fold[k]], anew))
        cases = _cases(chip, wet)
        return shares(cases | {"water IoU, trained on decoded": iou(wet_anew, chip.facts["water"])})


def _cases(chip: Chip, wet: np.ndarray) -> dict[str, Case]:
    labels, dark = chip.facts["water"], chip.dn[0, chip.bands.index("B11")] < _DARK
    return {
        "water IoU": iou(wet, labels),
        "small waters found": (wet, smaller(labels, _SMALL)),
        "dark land kept dry": (~wet, dark & ~labels),
    }


def smaller(labels: np.ndarray, limit: int) -> np.ndarray:
    """Pixels of connected areas of at most `limit` pixels that touch no edge."""
    areas, _ = ndimage.label(labels)
    sizes = np.bincount(areas.ravel())
    sizes[np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))] = limit + 1
    sizes[0] = limit + 1
    return sizes[areas] <= limit


def _wet(model: Any, dn: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    return model.predict(_features(dn, bands)).astype(bool).reshape(dn.shape[2:])


def _features(dn: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Bands, NDWI and MNDWI of the one date, [pixels, C + 2]."""
    x = dn[0].reshape(dn.shape[1], -1).astype(np.float32)
    green, nir, swir = (x[bands.index(name)] for name in ("B03", "B8A", "B11"))
    ratios = [(green - other) / np.maximum(green + other, 1) for other in (nir, swir)]
    return np.stack([*x, *ratios], 1)
