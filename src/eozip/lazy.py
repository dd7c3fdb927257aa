"""What is imported when it is first used: names of a package, so that importing it loads nothing that they need; and
packages that eozip can do without."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from eozip.errors import EozipError, InputError


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


def optional(module: str, missing: str, error: type[EozipError] = InputError) -> Any:
    """Import a module of a package that eozip can do without.

    Args:
        module: its dotted name.
        missing: what needs it and how to install it, for the message where it is not there.
        error: class of what is raised then.

    Raises:
        EozipError: of that class; the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as cause:
        raise error(missing) from cause
