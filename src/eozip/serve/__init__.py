"""`eozip serve`: stores as tiles, series and one page to look at them.

    open_layers(paths) > create_app(layers) > run_app(app)

layers    a store or its original as pixels by window and reduction, from blocks that are kept
pictures  values of bands or a formula, warped to a tile, stretched, packed
series    a point or a polygon through the dates, with what the error may be
services  TileJSON and WMTS
app       addresses, limits, the page
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Layers": "layers",
    "Limits": "app",
    "create_app": "app",
    "open_layers": "layers",
    "run_app": "run",
}

__all__ = ["Layers", "Limits", "create_app", "open_layers", "run_app"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
