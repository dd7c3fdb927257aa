"""Keeps training and validation data apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from eozip.errors import InputError


def check_apart(train: Iterable[Path], held_back: Iterable[Path]) -> None:
    """Refuses files that are trained on and validated on, copies under other names included.

    Raises:
        InputError: names both files.
    """
    held = {path.resolve() for path in held_back}
    by_size: dict[int, list[Path]] = {}
    for path in held:
        by_size.setdefault(path.stat().st_size, []).append(path)
    for path in {p.resolve() for p in train}:
        for other in by_size.get(path.stat().st_size, ()):
            if path == other or _digest(path) == _digest(other):
                raise InputError(
                    f"{path} is trained on and is the validation file {other}; scores on it would mean "
                    "nothing: take it out of the recipe's data (skip) or of its validation places"
                )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
