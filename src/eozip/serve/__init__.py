"""`eozip serve`: stores as tiles, series and one page to look at them.

    open_layers(paths) > create_app(layers) > run_app(app)

layers    a store or its original as pixels by window and reduction, from blocks that are kept
pictures  values of bands or a formula, warped to a tile, stretched, packed
series    a point or a polygon through the dates, with what the error may be
services  TileJSON and WMTS
app       addresses, limits, the page
"""

from __future__ import annotations

from eozip.lazy import lazy

_HOMES = {
    "Layers": "layers",
    "Limits": "app",
    "address_of": "run",
    "bind": "run",
    "create_app": "app",
    "open_layers": "layers",
    "run_app": "run",
    "start_app": "run",
}

__all__ = list(_HOMES)

__getattr__ = lazy(__name__, _HOMES)
