"""What a picture is for: formulas of bands, and purposes such as `ndvi<0.02` that a decoded picture serves or not.

parse_formula("(B08 - B04) / (B08 + B04)", bands) > Formula
parse_purpose("ndvi<0.02") > Purpose
"""

from __future__ import annotations

from eozip.purpose.classes import Classifier, fit_classes
from eozip.purpose.formula import INDICES, Formula, parse_formula
from eozip.purpose.purpose import (
    Pixels,
    Purpose,
    all_served,
    measured,
    parse_purpose,
    parse_purposes,
    parse_size,
    reflectances,
    valid_pixels,
)
from eozip.purpose.sensitivity import sensitivity

__all__ = [
    "INDICES",
    "Classifier",
    "Formula",
    "Pixels",
    "Purpose",
    "all_served",
    "fit_classes",
    "measured",
    "parse_formula",
    "parse_purpose",
    "parse_purposes",
    "parse_size",
    "reflectances",
    "sensitivity",
    "valid_pixels",
]
