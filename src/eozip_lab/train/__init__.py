"""Training: recipe > data > steps > checkpoint > weights. docs/training.md is the guide.

run(recipe, minutes=..., out=...)   trains; `eozip train RECIPE`
pack(recipe, out, limit_mib)        the most varied crops of a recipe's data in one file, for another machine

Names are imported when they are first used, so that commands that mention them start quickly, without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "KIND": "pyramid.recipe:KIND",
    "Outcome": "sitting:Outcome",
    "kind_named": "recipe:kind_named",
    "pack": "packing:pack",
    "renew": "export:renew",
    "run": "loop:run",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
