"""Lets xarray open a `.zarr.zip` file by its path.

zarr-python 3 takes a path for a directory, so that `xr.open_zarr("scene.zarr.zip")` finds no group there
(zarr-developers/zarr-python#2831). xarray's engines are found by entry points, and one of the same name replaces
the built-in; this one differs from it for existing zip files alone.
"""

from __future__ import annotations

import functools
import os
import zipfile
from typing import Any

import xarray as xr
from xarray.backends.zarr import ZarrBackendEntrypoint
from zarr.storage import ZipStore


class ZipZarrBackend(ZarrBackendEntrypoint):
    """xarray's engine `zarr`, which also opens zip files by path."""

    description = "Open zarr stores (.zarr, .zarr.zip) using zarr in Xarray"

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this engine fits a file name."""
        return _is_zip(filename_or_obj) or super().guess_can_open(filename_or_obj)

    @functools.wraps(ZarrBackendEntrypoint.open_dataset)
    def open_dataset(self, filename_or_obj: Any, **options: Any) -> xr.Dataset:
        """As the built-in engine."""
        return super().open_dataset(_as_store(filename_or_obj), **options)

    @functools.wraps(ZarrBackendEntrypoint.open_groups_as_dict)
    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """As the built-in engine."""
        return super().open_groups_as_dict(_as_store(filename_or_obj), **options)


def _is_zip(name: Any) -> bool:
    path = isinstance(name, (str, os.PathLike)) and str(name).lower().endswith(".zarr.zip")
    return path and os.path.isfile(name) and zipfile.is_zipfile(name)


def _as_store(name: Any) -> Any:
    return ZipStore(name, mode="r") if _is_zip(name) else name
