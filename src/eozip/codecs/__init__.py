"""Codecs by id: the contract that each fulfils, the registry that knows them, and their families.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eozip.lazy import lazy

if TYPE_CHECKING:
    from eozip.codecs.base import Codec, Encoded

_HOMES = {"Codec": "base", "Encoded": "base", "own_codecs": "sources"}

__all__ = ["Codec", "Encoded"]

__getattr__ = lazy(__name__, _HOMES)
