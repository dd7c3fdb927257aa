"""Classes of pixels by their spectra: linear discriminant analysis, fitted to original pixels under a class raster.

The question is not whether the classes are right, but whether a decoded pixel gets the class that its original gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eozip.errors import FormatError, InputError

_MAX_CLASSES = 256
MAX_SAMPLES = 200_000
"""Pixels that a classifier is fitted to at most."""
_LEAST = 10  # pixels of a class
_RIDGE = 1e-6  # of the mean variance, so that bands that follow from each other do no harm


@dataclass(frozen=True)
class Classifier:
    """A class for every spectrum: that of the largest of linear functions.

    Attributes:
        values: [K] numbers of the classes, as the raster has them.
        weights: [K][C + 1], of reflectance, and a constant.
    """

    values: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]

    def of(self, spectra: np.ndarray) -> np.ndarray:
        """[n] classes of spectra [C, n]."""
        table = np.array(self.weights)
        scores = table[:, :-1] @ spectra + table[:, -1:]
        return np.array(self.values)[scores.argmax(axis=0)]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"values": list(self.values), "weights": [list(row) for row in self.weights]}

    @classmethod
    def from_dict(cls, table: Any) -> Classifier:
        """The inverse of `to_dict`.

        Raises:
            FormatError: no such table.
        """
        try:
            values = tuple(int(v) for v in table["values"])
            weights = tuple(tuple(float(w) for w in row) for row in table["weights"])
        except (TypeError, KeyError, ValueError) as error:
            raise FormatError(f"classes: expected values and weights, got {table!r:.80}") from error
        lengths = {len(row) for row in weights}
        if (
            not 1 <= len(values) <= _MAX_CLASSES
            or len(weights) != len(values)
            or len(lengths) != 1
            or not np.isfinite(weights).all()
        ):
            raise FormatError(
                f"classes: expected a row of weights for each value, got {len(weights)} of {len(values)}"
            )
        return cls(values, weights)


def fit_classes(spectra: np.ndarray, labels: np.ndarray) -> Classifier:
    """Linear discriminant analysis with a covariance that all classes share, and equal priors.

    Args:
        spectra: [C, n] reflectance.
        labels: [n] whole numbers.

    Raises:
        InputError: fewer than two classes with enough pixels, or more classes than are looked at.
    """
    values, counts = np.unique(labels, return_counts=True)
    if len(values) > _MAX_CLASSES:
        raise InputError(
            f"classes: expected at most {_MAX_CLASSES}, got {len(values)}; is this a raster of classes?"
        )
    values = values[counts >= _LEAST]
    if len(values) < 2:
        raise InputError(
            f"classes: expected at least two with {_LEAST} valid pixels each, got {len(values)}; give a raster that lies on "
            "the scene's grid and holds several classes there"
        )
    bands = len(spectra)
    means = np.stack([spectra[:, labels == value].mean(axis=1) for value in values])
    place = np.searchsorted(values, labels)
    known = np.isin(labels, values)
    inside = spectra[:, known] - means[place[known]].T
    covariance = inside @ inside.T / max(1, inside.shape[1] - len(values))
    covariance += np.eye(bands) * (_RIDGE * max(np.trace(covariance) / bands, 1e-12))
    slopes = np.linalg.solve(covariance, means.T).T
    constants = -0.5 * (slopes * means).sum(axis=1, keepdims=True)
    weights = np.hstack([slopes, constants])
    return Classifier(tuple(int(v) for v in values), tuple(tuple(float(w) for w in row) for row in weights))
