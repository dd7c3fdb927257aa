"""Training: recipe > data > steps > checkpoint > weights. docs/training.md is the guide.

run(recipe, minutes=..., out=...)   trains; `eozip train RECIPE`
pack(recipe, out, limit_mib)        the most varied crops of a recipe's data in one file, for another machine
"""

from __future__ import annotations

from eozip_lab.train.loop import Outcome, run
from eozip_lab.train.packing import pack

__all__ = ["Outcome", "pack", "run"]
