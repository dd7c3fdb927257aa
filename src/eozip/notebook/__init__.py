"""Stores in notebooks: `show` gives a card of a store or a chunk; `ds.eozip.plot` and `ds.eozip.explore()` draw Datasets."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"Card": "cards", "Explorer": "explorer", "Plots": "plots", "show": "cards"}

__all__ = ["Card", "Explorer", "Plots", "show"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
