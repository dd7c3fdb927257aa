"""`ds.eozip`: what eozip adds to an xarray Dataset.

Importing this registers the accessor. It is imported by itself where xarray was imported before eozip, and where a store of
eozip is opened; `import eozip.accessor` does it in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from eozip import notebook
from eozip import store as stores
from eozip.errors import EozipError

if TYPE_CHECKING:
    from eozip.notebook.explorer import Explorer
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
        """Encode it into a store: `array.eozip.to_zarr("out.zarr", quality=60)`; options as for `eozip.to_zarr`."""
        return stores.to_zarr(self._data, out, **options)


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
        return notebook.Plots(self._dataset)

    def to_zarr(self, out: str | Path, **options: Any) -> Summary:
        """Encode it into a store: `ds.eozip.to_zarr("out.zarr", quality=60)`; options as for `eozip.to_zarr`."""
        return stores.to_zarr(self._dataset, out, **options)

    def explore(
        self, *beside: str | Path, originals: str | Path | Sequence[str | Path] = (), height: int = 720
    ) -> Explorer:
        """The page of `eozip serve` in a frame: map, dates, swipe, series.

        Args:
            beside: other stores to swipe against.
            originals: GeoTIFFs that were encoded.
            height: of the frame in pixels.

        Raises:
            InputError: the Dataset was not opened from a store, or the extra `serve` is missing.
        """
        files = [originals] if isinstance(originals, str | Path) else list(originals)
        shown = [notebook.source_of(self._dataset), *map(str, beside)]
        return notebook.explore(shown, [str(file) for file in files], height)

    def __repr__(self) -> str:
        source = self._dataset.encoding.get("source")
        return f"ds.eozip of {source or 'a Dataset that no store holds yet'}: plot, explore(), to_zarr()"

    def _repr_html_(self) -> str | None:
        """A card of the store; None, so that the text is shown, where the Dataset is of none."""
        try:
            return notebook.show(notebook.source_of(self._dataset))._repr_html_()
        except EozipError:
            return None
