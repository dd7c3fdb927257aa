"""`ds.eozip`: what eozip adds to an xarray Dataset.

Importing this registers the accessor. It is imported by itself where xarray was imported before eozip, and where a store of
eozip is opened; `import eozip.accessor` does it in any case.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from eozip.notebook.plots import Plots
    from eozip.store import Summary


@xr.register_datatree_accessor("eozip")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("eozip")  # type: ignore[no-untyped-call]
class _ArrayAccessor:
    """What eozip adds to a DataArray or a DataTree, as `array.eozip`.

    Args:
        data: rasters; see `eozip.to_zarr`.
    """

    def __init__(self, data: xr.DataArray | xr.DataTree) -> None:
        self._data = data

    def to_zarr(self, out: str | Path, **options: Any) -> Summary:
        """Encodes it into a store: `array.eozip.to_zarr("out.zarr", quality=60)`; options as for `eozip.to_zarr`."""
        from eozip.store.convert import to_zarr

        return to_zarr(self._data, out, **options)


@xr.register_dataset_accessor("eozip")  # type: ignore[no-untyped-call]
class EozipAccessor:
    """What eozip adds to a Dataset, as `ds.eozip`.

    Args:
        dataset: any Dataset; `plot` wants an array [time, band, y, x] in it, as stores of eozip have.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @property
    def plot(self) -> Plots:
        """Pictures of the Dataset: `ds.eozip.plot.rgb()`."""
        from eozip.notebook.plots import Plots

        return Plots(self._dataset)

    def to_zarr(self, out: str | Path, **options: Any) -> Summary:
        """Encodes it into a store: `ds.eozip.to_zarr("out.zarr", quality=60)`; options as for `eozip.to_zarr`."""
        from eozip.store.convert import to_zarr

        return to_zarr(self._dataset, out, **options)
