"""Classes of land that nobody named: k-means of original pixels, and of decoded ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from eozip_lab.tasks.indices import dark
from eozip_lab.tasks.pictures import classes, lost, rgb
from eozip_lab.tasks.task import Case, Chip, Tally, shares

_CLASSES, _PIXELS = 6, 4096  # so many pixels of a chip are learnt from


class LandCover:
    """Judge of classes."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._chips = chips
        self._scales = [(x.mean(0), x.std(0) + 1e-9) for x in (_pixels(chip.dn) for chip in chips)]
        self._models = [self._learnt(k, chip.dn, None) for k, chip in enumerate(chips)]
        self._classes = [self._sorted(k, chip.dn, self._models[k]) for k, chip in enumerate(chips)]

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        return [
            Tally(c.place, self._sums(k, dn), c.held) for k, (c, dn) in enumerate(zip(self._chips, decoded))
        ]

    def panels(self, k: int, decoded: np.ndarray, measure: str) -> dict[str, np.ndarray]:
        """Colours, both maps, and what is lost."""
        shape = decoded.shape[2:]
        found = self._sorted(k, decoded, self._models[k])
        maps = {"classes of original": self._classes[k], "of decoded": found}
        kept, among = self._cases(k, found)[measure]
        return {
            **rgb(self._chips[k], decoded),
            **{name: classes(m.reshape(shape)) for name, m in maps.items()},
            "lost": lost((kept.reshape(shape), among.reshape(shape))),
        }

    def _cases(self, k: int, found: np.ndarray) -> dict[str, Case]:
        chip, same = self._chips[k], found == self._classes[k]
        return {
            "class alike": (same, np.ones_like(same)),
            "class alike, dark": (same, dark(chip.dn, chip.bands).ravel()),
        }

    def _sums(self, k: int, dn: np.ndarray) -> dict[str, tuple[float, float]]:
        cases = self._cases(k, self._sorted(k, dn, self._models[k]))
        anew = self._learnt(k, dn, self._models[k].cluster_centers_)
        rand = adjusted_rand_score(self._classes[k], self._sorted(k, dn, anew))
        return {**shares(cases), "adjusted Rand, learnt anew": (float(rand), 1.0)}

    def _learnt(self, k: int, dn: np.ndarray, start: np.ndarray | None) -> Any:
        x = self._scaled(k, dn)
        picked = np.random.default_rng(0).choice(len(x), min(_PIXELS, len(x)), replace=False)
        init, runs = ("k-means++", 4) if start is None else (start, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # flat pictures have fewer classes
            return KMeans(_CLASSES, init=init, n_init=runs, random_state=0).fit(x[picked])

    def _sorted(self, k: int, dn: np.ndarray, model: Any) -> np.ndarray:
        return model.predict(self._scaled(k, dn))

    def _scaled(self, k: int, dn: np.ndarray) -> np.ndarray:
        mean, spread = self._scales[k]
        return (_pixels(dn) - mean) / spread


def _pixels(dn: np.ndarray) -> np.ndarray:
    return np.moveaxis(dn[0], 0, -1).reshape(-1, dn.shape[1]).astype(np.float64)
