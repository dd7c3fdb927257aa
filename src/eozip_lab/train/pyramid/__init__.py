"""Training of the context network of pyramid codecs: recipe > native crops > steps > checkpoint > weights."""

from __future__ import annotations

from eozip_lab.train.pyramid.recipe import KIND, Recipe
from eozip_lab.train.pyramid.task import PyramidTask, configured

__all__ = ["KIND", "PyramidTask", "Recipe", "configured"]
