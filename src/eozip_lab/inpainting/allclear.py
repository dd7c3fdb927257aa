"""AllClear (Zhou et al. 2024, arXiv 2410.23891): its files and its protocol.

Metadata JSON: sample id > {"roi": [name, [lat, lon]], "s2_toa": [[time, path], ...], "target": [[time, path]]}.
Paths are absolute on its authors' machine, `.../roi1/2022_1/s2_toa/roi1_s2_toa_2022_1_13_median.tif`; here the part
from the ROI's folder on is looked for below a root. Beside each `s2_toa` lies `cld_shdw`: band 2 cloud, band 5 shadow.

Protocol of its benchmark (sequence to point): 13 Level-1C bands, centre 256 x 256, clip(DN, 0, 10000) / 10000, NaN 0;
masks with NaN are hidden; three input dates; the target is another, nearly clear date, and scored are its pixels
with neither cloud nor shadow; per sample MAE, RMSE, PSNR (peak 1), SAM, SSIM; means over samples that ignore NaN. Theirs
are means of the means of batches (`batch_means`). Pixels of inputs without a measurement (NaN) are 0 to theirs; here they
are hidden, whatever their mask says.

Their own closed baselines are `LEAST_CLOUDY` (one input image, clouds and all) and `MOSAICING` (the mean of what is clear,
0 where nothing is), `PUBLISHED` by the names that their command has. Land cover (Dynamic World) lies beside `s2_toa` in
`dw`.

The published code takes SAM over rows of the image instead of over bands (axis 2 of [N, C, H, W]). `sam` here is
over bands; `sam_as_published` repeats theirs, to compare with their tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from eozip.chunk.pixels import PEAK
from eozip.errors import InputError
from eozip.inpaint.predict import Predictor, Series, make_series
from eozip.raster import open_scene, read_window
from eozip_lab.inpainting.scores import ssim_map

_SIDE, BANDS = 256, 13
CLOUD, _SHADOW = 1, 4  # bands 2 and 5, from 0
_DAY = 86400.0
LAND_COVER = (
    "water", "trees", "grass", "flooded vegetation", "crops", "shrub and scrub", "built", "bare", "snow and ice",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One sample of the metadata.

    Attributes:
        id: its key.
        inputs: (time, path) of the input dates, in time order.
        target: (time, path).
    """

    id: str
    inputs: tuple[tuple[datetime, Path], ...]
    target: tuple[datetime, Path]


@dataclass(frozen=True)
class AllClearScore:
    """Metrics of one sample, reflectance 0..1; NaN where nothing is scored."""

    mae: float
    rmse: float
    psnr: float
    sam: float
    sam_as_published: float
    ssim: float


def read_samples(metadata: Path, root: Path | None = None) -> list[Sample]:
    """Samples with a target.

    Args:
        metadata: JSON file.
        root: folder that holds the ROI folders; None takes the paths as they are.

    Raises:
        InputError: not that layout.
    """
    try:
        table = json.loads(metadata.read_text())
        return [_sample(key, entry, root) for key, entry in table.items() if "target" in entry]
    except OSError as error:
        raise InputError(f"{metadata}: cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{metadata}: expected AllClear's metadata, id > roi, s2_toa and target, got {error!r}"
        ) from error


def _sample(key: str, entry: dict[str, Any], root: Path | None) -> Sample:
    roi = entry["roi"][0]
    inputs = sorted((_time(time), _place(path, roi, root)) for time, path in entry["s2_toa"])
    time, path = entry["target"][0]
    return Sample(str(key), tuple(inputs), (_time(time), _place(path, roi, root)))


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")


def _place(path: str, roi: str, root: Path | None) -> Path:
    parts = Path(path).parts
    return Path(path) if root is None or roi not in parts else root.joinpath(*parts[parts.index(roi) :])


def _load_series(sample: Sample) -> tuple[Series, int]:
    """Inputs and, hidden altogether, the target, in time order; and which date the target is.

    Raises:
        InputError: a file is missing or too small, or every input is hidden everywhere.
    """
    dated = sorted(
        [(time, 0, path) for time, path in sample.inputs] + [(sample.target[0], 1, sample.target[1])]
    )
    date = next(i for i, (_, is_target, _) in enumerate(dated) if is_target)
    x = [image(path) for *_, path in dated]
    hidden = [
        np.ones((_SIDE, _SIDE), bool) if i == date else mask(path) | unmeasured(path)
        for i, (*_, path) in enumerate(dated)
    ]
    days = [(time - dated[0][0]).total_seconds() / _DAY for time, *_ in dated]
    return make_series(np.stack(x), np.stack(hidden), days), date


def image(path: Path) -> np.ndarray:
    """float32 [13, 256, 256], clipped to 0..10000 DN."""
    return np.nan_to_num(np.clip(_centre(path).astype(np.float32), 0, PEAK), nan=0)


def unmeasured(path: Path) -> np.ndarray:
    """Bool [256, 256]: where any band of an image holds no number."""
    return ~np.isfinite(_centre(path)).all(axis=0)


def mask(path: Path) -> np.ndarray:
    """Bool [256, 256]: cloud or shadow on the image of that path; unknown counts as both."""
    return _cloud_and_shadow(path).sum(axis=0) > 0


def _cloud_and_shadow(path: Path) -> np.ndarray:
    """float32 [2, 256, 256]: 1 under cloud, 1 in shadow; where either is unknown, 1."""
    planes = _centre(_mask_path(path)).astype(np.float32)
    if len(planes) <= _SHADOW:
        raise InputError(f"{_mask_path(path)}: expected AllClear's 5 bands, got {len(planes)}")
    return np.nan_to_num(planes[[CLOUD, _SHADOW]], nan=1)


def land_cover(path: Path) -> np.ndarray | None:
    """int [256, 256], positions in `LAND_COVER` on the image of that path, -1 where unknown; None: there is no such file."""
    file = Path(str(path).replace("s2_toa", "dw"))
    if not file.exists():
        return None
    classes = np.nan_to_num(_centre(file)[0].astype(np.float32), nan=-1)
    return np.where((classes >= 0) & (classes < len(LAND_COVER)), classes, -1).astype(int)


def _mask_path(path: Path) -> Path:
    """Where the cloud and shadow mask of an image lies."""
    return Path(str(path).replace("s2_toa", "cld_shdw"))


def _centre(path: Path) -> np.ndarray:
    scene = open_scene(path)
    height, width = scene.shape[2:]
    if min(height, width) < _SIDE:
        raise InputError(f"{path}: expected at least {_SIDE} x {_SIDE} pixels, got {height} x {width}")
    y, x = height // 2 - _SIDE // 2, width // 2 - _SIDE // 2
    return read_window(scene, slice(0, 1), slice(y, y + _SIDE), slice(x, x + _SIDE))[0]


@dataclass(frozen=True)
class PublishedBaseline:
    """A closed baseline of AllClear's own, which looks at whole images and masks.

    Attributes:
        name: as their command has it.
        picture: images float32 [T, 13, 256, 256] and cloud and shadow [T, 2, 256, 256] > float32 [13, 256, 256].
    """

    name: str
    picture: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _least_cloudy(x: np.ndarray, planes: np.ndarray) -> np.ndarray:
    return x[planes.sum(axis=(1, 2, 3)).argmin()]


def _mosaic(x: np.ndarray, planes: np.ndarray) -> np.ndarray:
    clear = (planes.sum(axis=1) == 0)[:, None]
    return (x * clear).sum(axis=0) / np.maximum(clear.sum(axis=0), 1).astype(np.float32)


LEAST_CLOUDY = PublishedBaseline("leastcloudy", _least_cloudy)
MOSAICING = PublishedBaseline("mosaicing", _mosaic)
PUBLISHED = {"leastcloudy": LEAST_CLOUDY, "least-cloudy": LEAST_CLOUDY, "mosaicing": MOSAICING}


def predicted(sample: Sample, predictor: Predictor | PublishedBaseline) -> np.ndarray:
    """The target as a predictor has it, float32 [13, 256, 256] in 0..1."""
    if isinstance(predictor, PublishedBaseline):
        paths = [path for _, path in sample.inputs]
        images, planes = np.stack([image(p) for p in paths]), np.stack([_cloud_and_shadow(p) for p in paths])
        x_hat = predictor.picture(images, planes)
    else:
        series, date = _load_series(sample)
        x_hat = predictor.predict(series, date).x_hat
    return np.clip(x_hat, 0, PEAK) / np.float32(PEAK)


def _evaluate_sample(sample: Sample, predictor: Predictor | PublishedBaseline) -> AllClearScore:
    """Predicts and scores one sample."""
    return scored(sample, predicted(sample, predictor))


def scored(sample: Sample, output: np.ndarray) -> AllClearScore:
    """Score a prediction, float32 [13, 256, 256] in 0..1, where the target is clear."""
    return metrics(output, image(sample.target[1]) / np.float32(PEAK), ~mask(sample.target[1]))


def scored_by_land_cover(sample: Sample, output: np.ndarray) -> dict[str, AllClearScore]:
    """The same over the clear pixels of each class of land cover that occurs; none if there is no land cover."""
    classes = land_cover(sample.target[1])
    if classes is None:
        return {}
    target, clear = image(sample.target[1]) / np.float32(PEAK), ~mask(sample.target[1])
    found = {name: clear & (classes == k) for k, name in enumerate(LAND_COVER)}
    return {name: metrics(output, target, where) for name, where in found.items() if where.any()}


def metrics(output: np.ndarray, target: np.ndarray, clear: np.ndarray) -> AllClearScore:
    """As the published benchmark.

    Args:
        output, target: float32 [C, 256, 256] in 0..1.
        clear: bool [256, 256], the pixels that are scored.
    """
    if not clear.any():
        return AllClearScore(*[math.nan] * 6)
    error = (output - target)[:, clear].astype(np.float64)
    square = float((error**2).mean())
    return AllClearScore(
        mae=float(np.abs(error).mean()),
        rmse=math.sqrt(square),
        psnr=-10 * math.log10(square) if square else math.inf,
        sam=float(_angles(output, target, 0)[clear].mean()),
        sam_as_published=_row_angles(output, target, clear),
        ssim=float(ssim_map(output, target, clear)[:, clear].mean()),
    )


def _angles(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """Degrees between vectors along an axis; 90 where one is zero, as cosine similarity has it."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(a, axis=axis), 1e-12) * np.maximum(
        np.linalg.norm(b, axis=axis), 1e-12
    )
    return np.degrees(np.arccos(np.clip((a * b).sum(axis) / lengths, -1, 1)))


def _row_angles(output: np.ndarray, target: np.ndarray, clear: np.ndarray) -> float:
    """Angles along columns of each band [C, W], counted at every scored pixel of the column."""
    angles = _angles(output, target, 1)
    per_column = clear.sum(axis=0)
    return float((angles * per_column).sum() / (len(output) * clear.sum()))


def mean_scores(scores: list[AllClearScore]) -> dict[str, float]:
    """Means over samples, NaN and infinite ones left out."""
    names = [field.name for field in fields(AllClearScore)]
    table = np.array([[asdict(s)[name] for name in names] for s in scores], np.float64)
    table[~np.isfinite(table)] = np.nan
    return {
        name: float(np.nanmean(column)) for name, column in zip(names, table.T) if np.isfinite(column).any()
    }


def batch_means(scores: Sequence[AllClearScore], size: int) -> dict[str, float]:
    """As the published code averages: the mean over batches of the means over their samples.

    The last batch weighs as much as the others, however few samples it has; infinite values stay, NaN is left out.
    """
    names = [field.name for field in fields(AllClearScore)]
    table = np.array([[asdict(s)[name] for name in names] for s in scores], np.float64)
    batches = [table[start : start + size] for start in range(0, len(table), size)]
    return {
        name: float(np.mean(means))
        for k, name in enumerate(names)
        if (means := [np.nanmean(b[:, k]) for b in batches if not np.isnan(b[:, k]).all()])
    }
