"""Learned compression for Earth-observation imagery: numpy in, bytes out, numpy back.

Importing this imports no torch; codecs and weights load on first use.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from eozip.chunk.api import (
    Info,
    Report,
    check,
    decode,
    decode_groups,
    dropped,
    encode,
    encode_groups,
    encode_report,
    inspect,
    level_map_of,
)
from eozip.chunk.pixels import psnr
from eozip.codecs import registry
from eozip.codecs.base import Codec
from eozip.errors import InputError
from eozip.lazy import lazy

__version__ = "0.1.0"

__all__ = [
    "Info",
    "Reconstruction",
    "Report",
    "append_store",
    "archive",
    "check",
    "decode",
    "decode_groups",
    "decode_store",
    "dropped",
    "encode",
    "encode_batch",
    "encode_groups",
    "encode_report",
    "encode_store",
    "inpaint",
    "inspect",
    "level_map_of",
    "load",
    "psnr",
    "reconstruct",
    "to_zarr",
]


_HOMES = {  # what few need, or needs rasterio and zarr; and packages that can be called
    "Reconstruction": "chunk.reconstruction",
    "append_store": "store:append_files",
    "archive": "archive:",
    "decode_store": "store:decode_store",
    "encode_batch": "chunk.reconstruction",
    "encode_store": "store:encode_files",
    "inpaint": "inpaint:",
    "reconstruct": "chunk.reconstruction",
    "to_zarr": "store:to_zarr",
}

__getattr__ = lazy(__name__, _HOMES)


def load(source: str | Path, lmbda: float | str | None = None) -> Codec:
    """Loads a codec from shipped weights, a weights folder, a checkpoint, or a published repository.

    In this process ``encode(dn, codec=codec)`` and `decode` know it from then on. Other processes find it where the
    environment variable EOZIP_CODECS names the folder that it lies in.

    Args:
        source: full id or short name, path of a weights folder or checkpoint, or "owner/name@lambda-40".
        lmbda: which checkpoint of a repository, instead of "@lambda-..."; the nearest there is, with a warning.

    Raises:
        WeightsError: nothing there, not reachable, or tensors that do not fit; the message lists them.
    """
    if not isinstance(source, str | Path):
        raise InputError(f"expected the name or path of a codec, got {source!r}")
    return registry.load(source, lmbda)


if (
    sys.modules.get("xarray") is not None
):  # whoever has not imported xarray has no Dataset, and waits for nothing
    importlib.import_module("eozip.accessor")
