"""Sensors as data: bands, native resolutions, statistics.

Those of eozip are the TOML files beside this one; a sensor of one's own is a TOML in the same layout, named in a recipe of
training (`sensor = "path.toml"`), and found again by the weights that were trained for it."""

from eozip.sensors.sensor import (
    Band,
    Sensor,
    add,
    by_count,
    get,
    match_bands,
    named,
    names,
    overridden,
    own_order,
    read,
)

__all__ = [
    "Band",
    "Sensor",
    "add",
    "by_count",
    "get",
    "match_bands",
    "named",
    "names",
    "overridden",
    "own_order",
    "read",
]
