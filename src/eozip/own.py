"""Codecs and sensors of one's own: what lies in the folders that the environment variable EOZIP_CODECS names.

Such a folder holds weights folders (as `eozip train` writes them), checkpoints (.pt, .safetensors) and sensors (.toml), in
itself or up to two levels below; the variable may name several, and single files, as PATH does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "EOZIP_CODECS"
SENSOR_FILE = "sensor.toml"  # of a weights folder whose sensor is none of eozip's
_LEVELS = 2
_FILES = (".pt", ".safetensors", ".toml")


def places() -> list[Path]:
    """Files and folders that the variable names."""
    return [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]


def own_files() -> list[Path]:
    """Weights, checkpoints and sensors in `places`, in a fixed order."""
    return [file for place in places() for file in _files(place, _LEVELS)]


def _files(path: Path, levels: int) -> Iterator[Path]:
    if path.is_file() and path.suffix in _FILES:
        yield path
    elif path.is_dir() and levels >= 0:
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from _files(child, levels - 1)
