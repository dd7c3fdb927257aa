"""Small series for the tests of inpainting, and a data set in AllClear's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from eozip.sensors import get
from eozip_lab.inpainting.synthetic_clouds import Truth, cloud_mask
from rasterfiles import write_tif

L2A = get("s2-l2a").band_names
L1C = get("s2-l1c").band_names
_TIMES = ("2022-01-03 10:01:02", "2022-01-08 10:01:02", "2022-01-13 10:01:02", "2022-01-18 10:01:02")


def season(dates: int = 4, bands: int = 12, height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    """uint16 [T, C, H, W]: fields that change in their own ways from date to date, and some noise."""
    random = np.random.default_rng(seed)
    kinds = (
        random.integers(0, 5, (height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)[:height, :width]
    )
    levels = random.uniform(300, 900, (dates, bands, 5))
    texture = random.normal(0, 60, (bands, height, width))
    x = levels[:, :, kinds] + texture + random.normal(0, 4, (dates, bands, height, width))
    return x.astype(np.uint16)


def masks(dates: int = 4, height: int = 48, width: int = 40, cover: float = 0.3, seed: int = 0) -> np.ndarray:
    """Bool [T, H, W], each date covered alike."""
    random = np.random.default_rng(seed)
    return np.stack([cloud_mask((height, width), cover, random) for _ in range(dates)])


def truth(dates: int = 4, **options: int) -> Truth:
    """A series for the trial."""
    return Truth("fields", season(dates, **options).astype(np.float32), L2A)


def write_allclear(folder: Path, rois: int = 2, side: int = 260) -> Path:
    """Files and metadata as AllClear has them, paths of another machine; returns the metadata."""
    table = {}
    for number in range(rois):
        roi, paths = f"roi{100 + number}", []
        x = season(4, 13, side, side, seed=number)
        for t, time in enumerate(_TIMES):
            day = time[:10].replace("-0", "-").replace("-", "_")
            where = Path(roi) / "2022_1" / "s2_toa" / f"{roi}_s2_toa_{day}_median.tif"
            _write(folder / where, x[t], L1C)
            planes = np.zeros((5, side, side), np.float32)
            planes[1, :, : 40 * (t + 1)] = t != 3  # cloud on the inputs
            planes[4, :20] = 1  # shadow on all dates, the target too
            planes[1, 130, 130] = np.nan
            _write(Path(str(folder / where).replace("s2_toa", "cld_shdw")), planes, (None,) * 5)
            paths.append([time, f"/scratch/allclear/dataset_v3/dataset/{where}"])
        table[str(number)] = {"roi": [roi, [1.5, 2.5]], "s2_toa": paths[:3], "target": paths[3:]}
    (folder / "meta.json").write_text(json.dumps(table))
    return folder / "meta.json"


def _write(path: Path, data: np.ndarray, names: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tif(path, data, names, nodata=None)
