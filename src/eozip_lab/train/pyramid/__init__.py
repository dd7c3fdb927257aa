"""Training of the context network of pyramid codecs: recipe > native crops > steps > checkpoint > weights.

run(recipe, minutes=..., out=...)   trains; `eozip train RECIPE` where the recipe's kind is `recipe.KIND`
"""

from __future__ import annotations

from eozip_lab.train.pyramid.loop import run

__all__ = ["run"]
