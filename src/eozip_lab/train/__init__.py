"""Training: recipe > data > steps > checkpoint > weights. docs/training.md is the guide.

run(recipe, minutes=..., out=...)   trains; `eozip train RECIPE`
pack(recipe, out, limit_mib)        the most varied crops of a recipe's data in one file, for another machine

Names are imported when they are first used, so that commands that mention them start quickly, without torch.
"""

from __future__ import annotations

from eozip.lazy import lazy

_HOMES = {
    "KIND": "pyramid.recipe:KIND",
    "Outcome": "sitting:Outcome",
    "kind_named": "recipe:kind_named",
    "pack": "packing:pack",
    "profile": "profile:",
    "renew": "export:renew",
    "run": "loop:run",
}

__all__ = list(_HOMES)

__getattr__ = lazy(__name__, _HOMES)
