"""Zarr v3 stores: the chunk codec, writing from GeoTIFFs, reading back, checking.

    Scene > request > encode_store > .zarr or .zarr.zip > describe, decode_store, verify_store

Only the codec is imported here: zarr loads it by its entry point for every reader of a store, who
needs no rasterio.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from eozip.store.codec import EozipChunkCodec

_HOMES = {
    "Appended": "append",
    "BudgetStore": "budget",
    "Decoded": "reader",
    "Description": "description",
    "Repaired": "repair",
    "Exported": "exports",
    "Report": "verify",
    "Request": "convert",
    "SectionSizes": "pixels",
    "Summary": "writer",
    "append_files": "convert",
    "append_store": "append",
    "budget_store": "budget",
    "decode_store": "reader",
    "describe": "description",
    "encode_files": "convert",
    "encode_store": "writer",
    "encode_product": "convert",
    "export_store": "exports",
    "make_request": "convert",
    "open_source": "windows",
    "read_dropped": "pixels",
    "repair_store": "repair",
    "section_sizes": "pixels",
    "to_zarr": "convert",
    "verify_store": "verify",
}

__all__ = ["EozipChunkCodec", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


if "xarray" in sys.modules:  # it opens a store, and `ds.eozip` is there
    importlib.import_module("eozip.accessor")
