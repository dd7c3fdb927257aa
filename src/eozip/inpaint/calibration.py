"""How much wider or narrower sigma must be, learnt from training series by `benchmarks/inpainting.py calibrate`."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np

JOINT = ", "
HELD_OUT = "regression"
"""Whose factors serve where sigma was learnt from pixels held out of the date at hand, whatever predicted them: corrected is
how much farther from clear pixels the hidden ones lie than those."""
CLASSES = (0.1, 0.3, 0.5, 0.9, 1.0)
"""Upper ends of the classes of cloud cover."""
_CENTRES = (0.075, 0.25, 0.5, 0.8, 1.0)  # means of the covers that the factors of each class were learnt at


def class_of(cover: float) -> int:
    """Position in `CLASSES` of a cover of 0..1."""
    return next(i for i, end in enumerate(CLASSES) if cover <= end + 1e-9)


def factor_of(method: str, cover: float) -> float | None:
    """What to multiply sigma by, interpolated between classes.

    Codecs are named by their full id: what was learnt for other weights is never used for these.

    Args:
        method: `Prediction.calibration`; of several joined by `JOINT` (windows of one date) the largest factor counts.
        cover: 0..1.

    Returns:
        the factor; None if one of the methods was never calibrated.
    """
    found = [_factors().get(name) for name in method.split(JOINT)]
    known = [float(np.interp(cover, _CENTRES, factors)) for factors in found if factors is not None]
    return max(known) if known and len(known) == len(found) else None


@cache
def _factors() -> dict[str, list[float]]:
    text = resources.files("eozip.inpaint").joinpath("calibration.json").read_text()
    return json.loads(text)["factors"]
