"""What a filled series says about itself, in words and numbers: the same in GeoTIFFs and in stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eozip.inpaint.fill import MISSING, UNFILLED, Filled
from eozip.raster.scene import Profile, Tags

PROVENANCE_MEANING = (
    f"0 measured; 1+n predicted, n dates show this pixel; {UNFILLED} hidden and left; {MISSING} no data"
)
SIGMA_MEANING = "root mean square over bands, DN; 0 measured"


@dataclass(frozen=True)
class Stack:
    """A series as it lies in files.

    Attributes:
        dn: [T, C, H, W].
        profile: of the C bands.
        dates: [T] ISO texts or None.
        names: [T] file names for the output.
        tags: [T] metadata.
        band_tags: [C] metadata.
        offset: radiometric offset in DN.
        sensor: of a store; None where the bands tell.
    """

    dn: np.ndarray
    profile: Profile
    dates: tuple[str | None, ...]
    names: tuple[str, ...]
    tags: tuple[Tags, ...]
    band_tags: tuple[dict[str, str], ...]
    offset: int
    sensor: str | None = None


def rounded_sigma(sigma: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Root mean square over bands, rounded up, cut to the dtype: [..., C, H, W] > [..., H, W]."""
    overall = np.ceil(np.sqrt((sigma**2).mean(axis=-3)))
    return np.minimum(overall, np.iinfo(dtype).max).astype(dtype)


def date_tags(own: Tags, filled: Filled, t: int) -> Tags:
    """A date's tags and what was done to it."""
    facts = {
        "INPAINTED_BY": filled.methods[t] or "nothing was hidden",
        "INPAINTED_SHARE": f"{filled.cover[t]:.6f}",
        "INPAINTED_SIGMA": "calibrated" if filled.calibrated else "not calibrated",
    }
    return {**own, "": {**own.get("", {}), **facts}}


def predicted_pixels(filled: Filled) -> np.ndarray:
    """Bool [T, H, W]."""
    return (filled.provenance > 0) & (filled.provenance < UNFILLED)
