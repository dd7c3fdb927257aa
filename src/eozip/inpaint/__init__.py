"""Filling what clouds hide: measured pixels stay as they are, invented ones are marked.

    dn, mask > Series > a Predictor per date > seam > Filled (pixels, provenance, uncertainty)

`predict.py` has the contract, `baselines.py`, `filled.py`, `kriging.py`, `regression.py` and `learned.py` fulfil it,
`fill.py` is the tool, `files.py` the same on GeoTIFFs and stores, `eozip_lab.inpainting` measures. Importing this imports
no torch.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from eozip.lazy import lazy

_HOMES = {
    "WHY": "registry",
    "DEFAULT": "registry",
    "Filled": "fill",
    "NAMES": "registry",
    "Prediction": "predict",
    "Predictor": "predict",
    "Series": "predict",
    "get_predictor": "registry",
    "inpaint": "fill",
    "inpaint_files": "files",
}

__all__ = list(_HOMES)

__getattr__ = lazy(__name__, _HOMES)


class _Callable(types.ModuleType):
    """Lets `eozip.inpaint(dn, mask)` and the package `eozip.inpaint` share one name.

    Python binds a package to its parent's attribute when it is imported, which would hide a function there.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        return __getattr__("inpaint")(*args, **options)


sys.modules[__name__].__class__ = _Callable
