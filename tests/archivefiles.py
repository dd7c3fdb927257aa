"""Archives for tests: small items of two tiles, a cluster of one worker, and what lies in an archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eozip.archive import run
from rasterfiles import write_tif
from storefiles import NAMES, scene_pixels

DATES = ("20210701", "20210706", "20210711", "20210716", "20210721", "20210726")
SETTINGS: dict[str, Any] = {"codec": "lossless", "chunk": 16, "gop": 2}


def write_items(folder: Path, tiles=("31TCJ", "33UUP"), dates=DATES[:3], size=(20, 24)) -> list[Path]:
    """One GeoTIFF for each tile and date, which differ in their pixels."""
    folder.mkdir(exist_ok=True)
    paths = []
    for k, tile in enumerate(tiles):
        for t, date in enumerate(dates):
            path = folder / f"S2_T{tile}_{date}.tif"
            write_tif(path, scene_pixels(10 * k + t, (12, *size)), NAMES)
            paths.append(path)
    return paths


def stored(folder: Path) -> dict[str, bytes]:
    """Every key of the stores of an archive on a disk."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.relative_to(folder).parts[0].startswith(".eozip-archive")
    }


def beside(folder: Path) -> list[str]:
    """Names of what lies beside the stores."""
    inner = folder / ".eozip-archive"
    return sorted(p.relative_to(inner).as_posix() for p in inner.rglob("*") if p.is_file())


@contextmanager
def one_cluster(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One worker in this process for all archives of the block, so that tests need not wait for processes."""
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:

        @contextmanager
        def given(*args: Any, **options: Any) -> Iterator[Any]:
            yield client

        patch.setattr(run, "opened_cluster", given)
        yield client
