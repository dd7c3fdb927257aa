"""Zarr v3 stores: the chunk codec, writing from GeoTIFFs, reading back, checking.

    Scene > request > encode_store > .zarr or .zarr.zip > describe, decode_store, verify_store

Names are imported when they are first used: importing this package loads neither zarr nor rasterio.
"""

from __future__ import annotations

import importlib
import sys

from eozip.lazy import lazy

_HOMES = {
    "Appended": "append",
    "BudgetStore": "budget",
    "Decoded": "reader",
    "Description": "description",
    "EozipChunkCodec": "codec",
    "Exported": "exports",
    "Places": "options",
    "Repaired": "repair",
    "Report": "verify",
    "Request": "convert",
    "SectionSizes": "pixels",
    "Summary": "writer",
    "append_files": "convert",
    "append_store": "append",
    "band_codes": "description",
    "budget_store": "budget",
    "check_same_pixels": "description",
    "choose_dates": "description",
    "decode_store": "reader",
    "describe": "description",
    "encode_files": "convert",
    "encode_product": "convert",
    "encode_store": "writer",
    "export_store": "exports",
    "in_band_order": "description",
    "is_plain_request": "reader",
    "keep_chunks": "codec",
    "level_store": "levels",
    "make_request": "convert",
    "open_source": "windows",
    "read_dropped": "pixels",
    "read_pixels": "pixels",
    "repair_store": "repair",
    "section_sizes": "pixels",
    "to_zarr": "convert",
    "understand": "understood:understood",
    "verify_store": "verify",
    "write_arrays": "writer",
    "write_item": "stac",
}

__all__ = list(_HOMES)

__getattr__ = lazy(__name__, _HOMES)


if sys.modules.get("xarray") is not None:  # it opens a store, and `ds.eozip` is there
    importlib.import_module("eozip.accessor")
