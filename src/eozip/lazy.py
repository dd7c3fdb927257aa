"""Names of a package that are imported when they are first used: importing the package loads nothing that they need."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """What a package calls `__getattr__`.

    Args:
        package: its `__name__`.
        homes: name -> the module below the package that has it; "module:other" where it has another name there, and
            "module:" for the module itself.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, is_other, other = homes[name].partition(":")
        module = importlib.import_module(f"{package}.{home}")
        return module if is_other and not other else getattr(module, other or name)

    return get
