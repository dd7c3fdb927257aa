"""Which pixels are hidden, from what people have: scene classifications, cloud probabilities, AllClear's masks.

SPEC is   PATH                       any raster: hidden where it is not 0 (and not its nodata)
          scl:3,8,9,10[@PATH]        classes of the Sentinel-2 scene classification
          prob:0.4[@PATH]            cloud probability of at least this, such as s2cloudless gives it
          allclear[@PATH]            AllClear's cld_shdw files: band 2 cloud, band 5 shadow
PATH is a raster with one band per date, a raster per date, or a folder of them; without it, a band of the input
named SCL or CLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eozip.errors import InputError
from eozip.raster import Scene, open_scene, read_window

SCL_CLASSES = {
    0: "no data", 1: "saturated", 2: "dark", 3: "cloud shadow", 4: "vegetation", 5: "bare", 6: "water",
    7: "unclassified", 8: "cloud, medium probability", 9: "cloud, high probability", 10: "thin cirrus", 11: "snow",
}  # fmt: skip
_BANDS = {"scl": "SCL", "prob": "CLP"}
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
    path: Path | None = None

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
    place = Path(path) if path else None
    if kind == "scl" and (found := _classes(value)):
        return MaskSpec("scl", classes=found, path=place)
    if kind in ("prob", "s2cloudless"):
        return MaskSpec("prob", threshold=_number(value or "0.4", text), path=place)
    if kind == "allclear" and place is not None:
        return MaskSpec("allclear", path=place)
    if kind in ("scl", "allclear"):
        raise InputError(
            f"mask: expected scl:CLASSES[@PATH] such as scl:3,8,9,10, or allclear@PATH, got {text!r}; classes are "
            + ", ".join(f"{number} {name}" for number, name in SCL_CLASSES.items())
        )
    return MaskSpec("any", path=Path(text))


def read_mask(spec: MaskSpec, shape: tuple[int, int, int]) -> np.ndarray:
    """The mask of a spec with a path.

    Args:
        spec: with a path.
        shape: T, H, W of the series.

    Returns:
        bool [T, H, W].

    Raises:
        InputError: unreadable, another number of dates, or a size that is neither that of the series nor a whole
            fraction of it (a 20 m classification of 10 m pixels is one).
    """
    scene = open_scene(spec.path or Path())
    planes = read_window(scene, slice(None), slice(None), slice(None))
    hidden = _hidden(spec, planes, scene)
    if len(hidden) != shape[0]:
        raise InputError(
            f"{spec.path}: expected a mask for each of {shape[0]} dates, got {len(hidden)}; give one raster, or one "
            "band, per date, in time order"
        )
    return enlarged(hidden, shape[1:], str(spec.path))


def of_band(spec: MaskSpec, plane: np.ndarray) -> np.ndarray:
    """The mask from a band of the input [T, H, W]."""
    return _RULES[spec.kind](spec, plane)


def enlarged(hidden: np.ndarray, size: tuple[int, int], what: str) -> np.ndarray:
    """Repeats the pixels of a coarser mask [T, h, w] to H, W.

    Raises:
        InputError: no whole multiple.
    """
    factors = [n // m for n, m in zip(size, hidden.shape[1:])]
    if [m * k for m, k in zip(hidden.shape[1:], factors)] != list(size) or factors[0] != factors[1]:
        raise InputError(
            f"{what}: wrong mask size: expected {size[0]} x {size[1]} pixels, or a whole fraction of both sides, got "
            f"{hidden.shape[1]} x {hidden.shape[2]}; resample it to the grid of the series (nearest neighbour)"
        )
    return hidden.repeat(factors[0], 1).repeat(factors[0], 2)


def _hidden(spec: MaskSpec, planes: np.ndarray, scene: Scene) -> np.ndarray:
    """[T, bands, h, w] > bool [T, h, w]; one file of several bands holds a date in each."""
    if spec.kind == "allclear":
        if planes.shape[1] <= _SHADOW:
            raise InputError(f"{spec.path}: expected AllClear's 5 bands, got {planes.shape[1]}")
        return _nonzero(planes[:, _CLOUD]) | _nonzero(planes[:, _SHADOW])
    flat = planes[:, 0] if planes.shape[1] == 1 else planes.reshape(-1, *planes.shape[2:])
    hidden = _RULES[spec.kind](spec, flat)
    nodata = scene.profile.nodata
    return hidden if nodata is None or spec.kind != "any" else hidden & (flat != nodata)


def _nonzero(plane: np.ndarray) -> np.ndarray:
    """Whatever is not 0; NaN is, since AllClear's loader takes it for cloud."""
    return plane != 0


def _likely(spec: MaskSpec, plane: np.ndarray) -> np.ndarray:
    if spec.threshold < 1 < plane.max(initial=0):
        raise InputError(
            f"mask: a probability of {spec.threshold:g} was asked for, but the raster goes up to {plane.max():g}; "
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
    known = all(part.strip().isdigit() and int(part) in SCL_CLASSES for part in parts)
    return tuple(int(part) for part in parts) if known else ()


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"mask: expected a number as probability, got {text!r}") from error
