"""Sensors as data: bands, native resolutions, statistics. A new sensor is one TOML beside this file."""

from eozip.sensors.sensor import Band, Sensor, by_count, get, match_bands, names

__all__ = ["Band", "Sensor", "by_count", "get", "match_bands", "names"]
