"""`ds.eozip.explore()`: the page of `eozip serve` in a frame of a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from eozip import serve
from eozip.errors import InputError

if TYPE_CHECKING:
    from eozip.serve.run import Running


@dataclass(frozen=True)
class Explorer:
    """A page that is being served to this machine; `stop` ends it, and so does the end of the process.

    Attributes:
        address: of the page.
        height: of the frame, pixels.
    """

    address: str
    height: int
    _running: Running = field(repr=False)

    def stop(self) -> None:
        """End the server."""
        self._running.stop()

    def _repr_html_(self) -> str:
        address = html.escape(self.address)
        frame = f"<iframe title='eozip' src='{address}' width='100%' height='{self.height}' style='border:0'></iframe>"
        return f"{frame}<p><a href='{address}' target='_blank'>{address}</a></p>"


def explore(stores: list[str], originals: list[str], height: int) -> Explorer:
    """Serve stores to this machine, on any free port.

    Raises:
        InputError: no such stores, or the extra `serve` is missing.
    """
    try:
        app = serve.create_app(serve.open_layers(stores, originals))
        running: Running = serve.start_app(app)
    except ImportError as error:
        raise InputError(f"explore needs {error.name}: pip install 'eozip[serve]'") from error
    return Explorer(running.address, height, running)


def source_of(dataset: xr.Dataset) -> str:
    """Tell the store that a Dataset was opened from.

    Raises:
        InputError: it was not opened from a store, here or elsewhere.
    """
    source = dataset.encoding.get("source")
    if not isinstance(source, str):
        raise InputError(
            "expected a Dataset opened from a store of eozip, got one without a source; write it first: "
            "ds.eozip.to_zarr('out.zarr'), then xarray.open_zarr('out.zarr').eozip"
        )
    source = source.removeprefix("zip::").removeprefix("file://")
    return source if "://" in source else str(Path(source))
