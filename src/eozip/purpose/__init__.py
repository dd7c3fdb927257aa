"""What a picture is for: formulas of bands, and purposes such as `ndvi<0.02` that a decoded picture serves or not.

parse_formula("(B08 - B04) / (B08 + B04)") > Formula
parse_purpose("ndvi<0.02") > Purpose
"""

from __future__ import annotations

from eozip.purpose.formula import INDICES, Formula, parse_formula

__all__ = ["INDICES", "Formula", "parse_formula"]
