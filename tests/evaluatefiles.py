"""Small places and a plan for the tests of `eozip evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eozip import sensors
from eozip_lab.evaluate.evaluation import Plan
from eozip_lab.evaluate.inputs import Reading
from eozip_lab.simulate import render, season
from rasterfiles import write_tif
from toy_codec import TOY

NAMES = sensors.get("s2-l2a").band_names


def pixels(seed: int = 3, size: int = 32, dates: int = 2) -> np.ndarray:
    return render(seed, season(dates, seed), range(size), range(size))


def write_data(folder: Path) -> Path:
    """Two places: an .npz series and a GeoTIFF of one date."""
    np.savez(
        folder / "series.npz", reflectance=pixels(), bands=np.array(NAMES), dates=["2020-01-01", "2020-05-01"]
    )
    write_tif(folder / "field_0.tif", pixels(5, dates=1)[0], names=NAMES)
    return folder


def plan(data: Path, **changes: object) -> Plan:
    wanted = {
        "codecs": (TOY,),
        "baselines": ("sz3", "lerc"),
        "qualities": (40.0, 60.0, 80.0),
        "crops": 16,
    }
    return Plan((data,), Reading(), **{**wanted, **changes})  # type: ignore[arg-type]


def finished(out: Path) -> list[Path]:
    """Points on disk."""
    return sorted((out / "points").glob("*.json")) if out.exists() else []
