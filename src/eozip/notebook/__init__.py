"""Stores in notebooks: `show` gives a card of a store or a chunk; `ds.eozip.plot` and `ds.eozip.explore()` draw Datasets."""

from __future__ import annotations

from eozip.lazy import lazy

_HOMES = {
    "Card": "cards",
    "Explorer": "explorer",
    "Plots": "plots",
    "explore": "explorer",
    "show": "cards",
    "source_of": "explorer",
}

__all__ = list(_HOMES)

__getattr__ = lazy(__name__, _HOMES)
