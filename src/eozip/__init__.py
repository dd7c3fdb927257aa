"""Learned compression for Earth-observation imagery: numpy in, bytes out, numpy back.

Names are imported when they are first used: importing this imports no torch, nor anything else that is slow.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from eozip import errors as errors
from eozip.lazy import lazy

if TYPE_CHECKING:
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
    from eozip.chunk.reconstruction import Reconstruction, encode_batch, reconstruct
    from eozip.codecs.registry import load
    from eozip.store.convert import append_files as append_store
    from eozip.store.convert import encode_files as encode_store
    from eozip.store.convert import to_zarr
    from eozip.store.reader import decode_store

__version__ = "0.1.0"

_HOMES = {
    "Info": "chunk.api",
    "Reconstruction": "chunk.reconstruction",
    "Report": "chunk.api",
    "append_store": "store:append_files",
    "archive": "archive:",  # a package that can be called, as `inpaint` is
    "check": "chunk.api",
    "decode": "chunk.api",
    "decode_groups": "chunk.api",
    "decode_store": "store:decode_store",
    "dropped": "chunk.api",
    "encode": "chunk.api",
    "encode_batch": "chunk.reconstruction",
    "encode_groups": "chunk.api",
    "encode_report": "chunk.api",
    "encode_store": "store:encode_files",
    "inpaint": "inpaint:",
    "inspect": "chunk.api",
    "level_map_of": "chunk.api",
    "load": "codecs.registry",
    "psnr": "chunk.pixels",
    "reconstruct": "chunk.reconstruction",
    "to_zarr": "store:to_zarr",
}

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

__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if (
    sys.modules.get("xarray") is not None
):  # whoever has not imported xarray has no Dataset, and waits for nothing
    importlib.import_module("eozip.accessor")
