"""Protocols that measure inpainting: hidden pixels of clear series, AllClear, pictures of what was predicted.

Names are imported when they are first used, so that commands that mention them start quickly.
"""

from __future__ import annotations

from eozip.lazy import lazy

_HOMES = {
    "BANDS": "allclear",
    "COVERS": "synthetic_clouds",
    "Gallery": "gallery",
    "Journal": "run",
    "LEAST_CLOUDY": "allclear",
    "MOSAICING": "allclear",
    "PUBLISHED": "allclear",
    "allclear_means": "run",
    "cases": "synthetic_clouds",
    "land_cover_means": "run",
    "load_truths": "synthetic_clouds",
    "read_samples": "allclear",
    "run_allclear": "run",
    "run_cases": "run",
    "summary": "run",
}

__all__ = list(_HOMES)

__getattr__ = lazy(__name__, _HOMES)
