"""Which pixels are hidden, from what people have: scene classifications, cloud probabilities, AllClear's masks.

SPEC is   PATH                       any raster: hidden where it is not 0 (and not its nodata)
          scl:3,8,9,10[@PATH]        classes of the Sentinel-2 scene classification
          prob:0.4[@PATH]            cloud probability of at least this, such as s2cloudless gives it
          allclear[@PATH]            AllClear's cld_shdw files: band 2 cloud, band 5 shadow
PATH is a raster with one band per date, a raster per date, or a folder of them; without it, a band of the input
named SCL or CLP. Of products PATH may be the name of a raster beside the bands, such as clouds of Level-1C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from eozip.arguments import counted
from eozip.errors import InputError
from eozip.raster.open import check_place, open_scene
from eozip.raster.read import SceneReader, open_reader
from eozip.raster.scene import Profile, Scene

_SCL_CLASSES = {
    0: "no data", 1: "saturated", 2: "dark", 3: "cloud shadow", 4: "vegetation", 5: "bare", 6: "water",
    7: "unclassified", 8: "cloud, medium probability", 9: "cloud, high probability", 10: "thin cirrus", 11: "snow",
}  # fmt: skip
_BANDS = {"scl": "SCL", "prob": "CLP"}
_MASK_BANDS = tuple(_BANDS.values())
_CLOUD, _SHADOW = 1, 4  # bands 2 and 5 of AllClear's cld_shdw, counted from 0


@dataclass(frozen=True)
class MaskSpec:
    """What `--mask` asks for.

    Attributes:
        kind: "any", "scl", "prob" or "allclear".
        classes: of "scl".
        threshold: of "prob", in the raster's own units.
        path: raster or folder; None for a band of the input.
    """

    kind: str
    classes: tuple[int, ...] = ()
    threshold: float = 0.4
    path: str | None = None

    @property
    def band(self) -> str | None:
        """Name of the input's band that holds it; None where a path does."""
        return _BANDS[self.kind] if self.path is None else None


def parse_mask(text: str) -> MaskSpec:
    """The text of `--mask` > what it asks for.

    Raises:
        InputError: not understood; the message lists what is.
    """
    head, _, path = text.partition("@")
    kind, _, value = head.partition(":")
    place = path or None
    if kind == "scl" and (found := _classes(value)):
        return MaskSpec("scl", classes=found, path=place)
    if kind in ("prob", "s2cloudless"):
        return MaskSpec("prob", threshold=_number(value or "0.4", text), path=place)
    if kind == "allclear" and place is not None:
        return MaskSpec("allclear", path=place)
    if kind in ("scl", "allclear"):
        raise InputError(
            f"mask: expected scl:CLASSES[@PATH] such as scl:3,8,9,10, or allclear@PATH, got {text!r}; classes are "
            + ", ".join(f"{number} {name}" for number, name in _SCL_CLASSES.items())
        )
    return MaskSpec("any", path=text)


def read_mask(spec: MaskSpec, shape: tuple[int, int, int], profile: Profile | None = None) -> np.ndarray:
    """The mask of a spec with a path.

    Args:
        spec: with a path.
        shape: T, H, W of the series.
        profile: says where the series lies, so that a mask of another place is refused; None: nobody knows.

    Returns:
        bool [T, H, W].

    Raises:
        InputError: unreadable, another number of dates, another place, or a size that is neither that of the series nor a
            whole fraction of it (a 20 m classification of 10 m pixels is one).
    """
    with open_mask(spec, shape, profile=profile) as reader:
        return reader.read(*(slice(0, length) for length in shape))


class MaskReader:
    """A mask on the grid of a series, window by window; `open_mask` makes it.

    Args:
        spec: which pixels are hidden.
        reader: the mask's rasters.
        factor: pixels of the series in one of the mask, each way.
    """

    def __init__(self, spec: MaskSpec, reader: SceneReader, factor: int) -> None:
        self._spec, self._reader, self._factor = spec, reader, factor

    def read(self, t: slice, y: slice, x: slice) -> np.ndarray:
        """Bool [t, h, w] of a window of the series: dates, rows and columns, each with start and stop."""
        k = self._factor
        rows, columns = (slice(part.start // k, -(-part.stop // k)) for part in (y, x))
        scene = self._reader.scene
        together = _dates_are_bands(self._spec, scene)
        planes = self._reader.read(slice(None) if together else t, rows, columns)
        hidden = _hidden(self._spec, planes, scene)
        hidden = (hidden[t] if together else hidden).repeat(k, 1).repeat(k, 2)
        top, left = y.start - rows.start * k, x.start - columns.start * k
        return hidden[:, top : top + y.stop - y.start, left : left + x.stop - x.start]


@contextmanager
def open_mask(
    spec: MaskSpec, shape: tuple[int, int, int], band: Scene | None = None, profile: Profile | None = None
) -> Iterator[MaskReader]:
    """A mask for reading by windows.

    Args:
        spec: with a path, unless `band` is given.
        shape: T, H, W of the series.
        band: the band of the input that holds the mask, alone.
        profile: as for `read_mask`.

    Raises:
        InputError: as `read_mask`.
    """
    scene = open_scene(spec.path or "") if band is None else band
    scene = replace(scene, fill=0)  # what a mask's own mask hides, it does not hide
    files, bands, height, width = scene.shape
    if spec.kind == "allclear" and bands <= _SHADOW:
        raise InputError(f"{spec.path}: expected AllClear's 5 bands, got {bands}")
    count = files * bands if _dates_are_bands(spec, scene) else files
    if count != shape[0]:
        raise InputError(
            f"{spec.path}: expected a mask for each of {shape[0]} dates, got {count}; give one raster, or one "
            "band, per date, in time order"
        )
    factor = _factor((height, width), shape[1:], str(spec.path))
    if profile is not None:
        check_place(f"mask: {scene.paths[0]}", scene.profile, profile, factor)
    with open_reader(scene) as reader:
        yield MaskReader(spec, reader, factor)


def split_mask(scene: Scene, spec: MaskSpec) -> tuple[Scene, Scene | None]:
    """An input > its bands that are pixels, and the band that holds the mask; None where a path does.

    Raises:
        InputError: no such band.
    """
    pixels = scene.select([i for i, name in enumerate(scene.band_names) if name not in _MASK_BANDS])
    if spec.band is None:
        return pixels, None
    if spec.band not in scene.band_names:
        raise InputError(
            f"mask: expected a band named {spec.band} in the input, got {scene.band_names}; name a raster: "
            f"--mask {spec.kind}:...@PATH"
        )
    return pixels, scene.select([scene.band_names.index(spec.band)])


def of_band(spec: MaskSpec, plane: np.ndarray) -> np.ndarray:
    """The mask from a band of the input [T, H, W]."""
    return _RULES[spec.kind](spec, plane)


def enlarged(hidden: np.ndarray, size: tuple[int, int], what: str) -> np.ndarray:
    """Repeats the pixels of a coarser mask [T, h, w] to H, W.

    Raises:
        InputError: no whole multiple.
    """
    factor = _factor(hidden.shape[1:], size, what)
    return hidden.repeat(factor, 1).repeat(factor, 2)


def _factor(own: tuple[int, ...], size: tuple[int, ...], what: str) -> int:
    factors = [n // m for n, m in zip(size, own)]
    if [m * k for m, k in zip(own, factors)] != list(size) or factors[0] != factors[1]:
        raise InputError(
            f"{what}: wrong mask size: expected {size[0]} x {size[1]} pixels, or a whole fraction of both sides, got "
            f"{own[0]} x {own[1]}; resample it to the grid of the series (nearest neighbour)"
        )
    return factors[0]


def _dates_are_bands(spec: MaskSpec, scene: Scene) -> bool:
    """Whether a raster's bands are dates, and not parts of one mask."""
    return spec.kind != "allclear" and scene.shape[1] > 1


def _hidden(spec: MaskSpec, planes: np.ndarray, scene: Scene) -> np.ndarray:
    """[T, bands, h, w] > bool [T, h, w]; one file of several bands holds a date in each."""
    if spec.kind == "allclear":
        return _nonzero(planes[:, _CLOUD]) | _nonzero(planes[:, _SHADOW])
    flat = planes[:, 0] if planes.shape[1] == 1 else planes.reshape(-1, *planes.shape[2:])
    hidden = _RULES[spec.kind](spec, flat)
    if spec.kind != "any":
        return hidden
    nodata, unknown = scene.profile.nodata, np.isnan(flat)
    if nodata is not None:
        hidden &= ~unknown if np.isnan(nodata) else flat != nodata
    if (hidden & unknown).any():
        raise InputError(
            f"{spec.path}: expected a mask of numbers, got NaN; write 0 where pixels show, 1 where they are hidden, or "
            "declare NaN as its nodata"
        )
    return hidden


def _nonzero(plane: np.ndarray) -> np.ndarray:
    """Whatever is not 0; NaN is, since AllClear's loader takes it for cloud."""
    return plane != 0


def _likely(spec: MaskSpec, plane: np.ndarray) -> np.ndarray:
    most = np.fmax.reduce(plane, axis=None, initial=0)  # NaN aside
    if spec.threshold < 1 < most:
        raise InputError(
            f"mask: a probability of {spec.threshold:g} was asked for, but the raster goes up to {most:g}; "
            "give the threshold in the raster's own units, such as prob:40 or prob:102"
        )
    return plane >= spec.threshold


_RULES: dict[str, Callable[[MaskSpec, np.ndarray], np.ndarray]] = {
    "any": lambda spec, plane: _nonzero(plane),
    "scl": lambda spec, plane: np.isin(plane, spec.classes),
    "prob": _likely,
}


def _classes(value: str) -> tuple[int, ...]:
    parts = value.split(",")
    classes = [counted(part.strip()) for part in parts]
    return tuple(c for c in classes if c in _SCL_CLASSES) if set(classes) <= set(_SCL_CLASSES) else ()


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"mask: expected a number as probability, got {text!r}") from error
