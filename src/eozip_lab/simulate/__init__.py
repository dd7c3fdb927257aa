"""A procedural Sentinel-2 season, for a first picture and for tests: made up, and labelled so."""

from eozip_lab.simulate.render import render
from eozip_lab.simulate.season import MAX_DATES, MAX_SIZE, season, simulate
from eozip_lab.simulate.sky import Day

__all__ = ["MAX_DATES", "MAX_SIZE", "Day", "render", "season", "simulate"]
