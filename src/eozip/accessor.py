"""`ds.eozip`: what eozip adds to an xarray Dataset.

Importing this registers the accessor. It is imported by itself where xarray was imported before eozip, and where a store of
eozip is opened; `import eozip.accessor` does it in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    from eozip.notebook.plots import Plots


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
