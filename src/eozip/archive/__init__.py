"""Archives: many inputs into a tree of stores, on as many workers as a Dask cluster has; killed and continued at will.

eozip.archive(["items/*.tif"], "s3://bucket/archive", quality=60, workers=8)

asked     the settings, checked
inputs    what a caller means, and what a look at each input finds
plan      what there is to do: stores, jobs (one shard each)
run       the jobs on dask.distributed, and what becomes of them
work      what a worker does
publish   a store whose jobs are done becomes one
record    what lies beside the stores: settings, finished jobs, failed inputs, status
"""

from __future__ import annotations

import sys
import types
from typing import Any

from eozip.lazy import lazy

_HOMES = {"Archived": "run", "Status": "record", "archive": "run", "read_status": "record"}

__all__ = list(_HOMES)


__getattr__ = lazy(__name__, _HOMES)


class _Callable(types.ModuleType):
    """Lets `eozip.archive(items, out)` and the package `eozip.archive` share one name, as `eozip.inpaint` does."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return __getattr__("archive")(*args, **options)


sys.modules[__name__].__class__ = _Callable
