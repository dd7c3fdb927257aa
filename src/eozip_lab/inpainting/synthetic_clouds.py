"""Our own inpainting protocol: clear dates of real series are hidden behind made-up clouds, predicted, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eozip.errors import InputError
from eozip.inpaint.files import days_of
from eozip.inpaint.predict import Series, make_series
from eozip_lab.evaluate.inputs import load_place, place_files

SHAPES = {"cumulus": (0.10, 5, 0.65), "broken": (0.25, 5, 0.55), "front": (0.9, 4, 0.45)}
"""Kind > size of its largest blobs as a share of the image, octaves of detail, roughness."""


def cloud_mask(
    shape: tuple[int, int], cover: float, random: np.random.Generator, kind: str = "broken"
) -> np.ndarray:
    """Fractal clouds above a threshold and their shadows, the same shapes some pixels away.

    Args:
        shape: H, W.
        cover: share of hidden pixels wanted, 0..1; met to about a pixel in a thousand.
        random: its state decides everything.
        kind: one of `SHAPES`.

    Returns:
        bool [H, W].
    """
    size, octaves, roughness = SHAPES[kind]
    scales = [max(size * max(shape) / 2**k, 2.0) for k in range(octaves)]
    height = sum(roughness**k * _noise(shape, scale, random) for k, scale in enumerate(scales))
    shift = random.integers(3, max(4, max(shape) // 12), 2) * random.choice([-1, 1], 2)
    if cover >= 1:
        return np.ones(shape, bool)
    low, high = float(height.min()) - 1, float(height.max()) + 1
    for _ in range(30):  # bisection: cover falls as the threshold rises
        middle = (low + high) / 2
        wide = _with_shadow(height > middle, shift).mean() > cover
        low, high = (middle, high) if wide else (low, middle)
    return _with_shadow(height > high, shift)


def _with_shadow(cloud: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return cloud | np.roll(cloud, shift, (0, 1))


def _noise(shape: tuple[int, int], scale: float, random: np.random.Generator) -> np.ndarray:
    """Value noise: random numbers on a lattice of `scale` pixels, smoothly interpolated."""
    lattice = random.standard_normal([int(n / scale) + 3 for n in shape])
    at = [np.arange(n) / scale + random.random() for n in shape]
    return _along(_along(lattice, at[0]).T, at[1]).T


def _along(lattice: np.ndarray, at: np.ndarray) -> np.ndarray:
    whole = at.astype(int)
    part = (at - whole)[:, None]
    part = part * part * (3 - 2 * part)
    return lattice[whole] * (1 - part) + lattice[whole + 1] * part


CLOUDY, _HAZY = 2000, 1300  # DN in B02: hidden always; and what less than 5 % of a target date may exceed
LARGEST = 256  # pixels
COVERS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
_OTHERS = (0.0, 0.0, 0.2, 0.5)  # covers of the other dates, one of them by lot


@dataclass(frozen=True)
class Truth:
    """A series to hide parts of.

    Attributes:
        name: of the place.
        x: float32 [T, C, H, W], DN without offset.
        bands: [C].
        days: [T] or None.
    """

    name: str
    x: np.ndarray
    bands: tuple[str, ...]
    days: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Case:
    """One date hidden in one way.

    Attributes:
        key: what it is, the same in every run.
        place, cover, kind: of the mask on the target date.
        series: what predictors see.
        date: the target.
        truth: float32 [C, H, W].
        scored: bool [H, W]: hidden by made clouds alone.
    """

    key: str
    place: str
    cover: float
    kind: str
    series: Series
    date: int
    truth: np.ndarray
    scored: np.ndarray


def load_truths(path: Path) -> list[Truth]:
    """Series of a folder (`<place>_<number>.tif`, a file a date) or of an .npz (reflectance, dates, bands).

    Of larger frames the top left `LARGEST` pixels of both sides.

    Raises:
        InputError: unreadable, or not a single place with two dates.
    """
    if path.suffix.lower() == ".npz":
        return [_from_npz(path)]
    found = [load_place(name, files) for name, files in place_files(path).items() if len(files) > 1]
    if not found:
        raise InputError(f"{path}: expected places with two dates or more, got none")
    return [Truth(p.name, _cut(p.dn) - np.float32(p.offset), p.bands) for p in found]


def _cut(dn: np.ndarray) -> np.ndarray:
    return dn[..., :LARGEST, :LARGEST].astype(np.float32)


def _from_npz(path: Path) -> Truth:
    try:
        with np.load(path) as arrays:
            x, bands, dates = arrays["reflectance"], arrays["bands"], arrays["dates"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: expected arrays reflectance, dates and bands, got {error}") from error
    days = days_of([str(date) for date in dates])
    return Truth(path.stem, _cut(x), tuple(map(str, bands)), None if days is None else tuple(days))


def cases(truth: Truth, covers: Sequence[float], repeats: int, seed: int = 0) -> Iterator[Case]:
    """Every cover with every shape of cloud, `repeats` times; the same for the same arguments."""
    targets = clear_dates(truth)
    for cover in covers:
        for number, kind in enumerate(SHAPES):
            for repeat in range(repeats):
                random = np.random.default_rng([seed, round(1000 * cover), number, repeat])
                yield _case(truth, targets, cover, kind, repeat, random)


def clear_dates(truth: Truth) -> list[int]:
    """Dates that may be targets.

    Raises:
        InputError: there is none.
    """
    share = (_blue(truth) > _HAZY).mean(axis=(1, 2))
    found = [int(t) for t in np.flatnonzero(share < 0.05)]
    if not found:
        raise InputError(
            f"{truth.name}: expected a date with under 5 % bright pixels, got none; use clear series"
        )
    return found


def _case(
    truth: Truth, targets: list[int], cover: float, kind: str, repeat: int, random: np.random.Generator
) -> Case:
    date = int(random.choice(targets))
    size = truth.x.shape[2:]
    planes = [
        cloud_mask(size, cover if t == date else float(random.choice(_OTHERS)), random, kind)
        for t in range(len(truth.x))
    ]
    made, real = np.stack(planes), _blue(truth) > CLOUDY
    series = make_series(truth.x, made | real, truth.days)
    key = f"{truth.name} {cover:g} {kind} {repeat}"
    return Case(key, truth.name, cover, kind, series, date, truth.x[date], made[date] & ~real[date])


def _blue(truth: Truth) -> np.ndarray:
    """[T, H, W] of B02; of the first band where there is none."""
    return truth.x[:, truth.bands.index("B02") if "B02" in truth.bands else 0]
