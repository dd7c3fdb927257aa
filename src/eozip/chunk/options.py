"""What an encoder is asked for, checked once, and how far decoded pixels keep to it.

A constraint is checked against the pixels that the decoder will make: the encoder decodes its own chunk. Networks make
pixels in floating point, which another machine may round to the other side: one DN either way is allowed for."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from eozip.arguments import real, whole
from eozip.chunk.pixels import PEAK, Source, psnr
from eozip.codecs.base import Codec
from eozip.errors import InputError

SLACK = 1  # DN by which another machine's decoded pixels may differ


@dataclass(frozen=True)
class Constraint:
    """What must hold for the decoded pixels of a chunk.

    Attributes:
        max_error: largest absolute error of any pixel, DN; None: any.
        min_psnr: dB over all valid pixels (see `eozip.chunk.pixels.psnr`); None: any.

    Pixels that a source leaves out are held to nothing.
    """

    max_error: int | None = None
    min_psnr: float | None = None

    def __bool__(self) -> bool:
        return self.max_error is not None or self.min_psnr is not None


def too_far(source: Source, values: np.ndarray, constraint: Constraint) -> np.ndarray:
    """Pixels that some machine may give back with a larger error than allowed.

    Args:
        source: the true pixels.
        values: whole DN [T, C, H, W] before clipping and before nodata is avoided.
        constraint: what must hold.

    Returns:
        bool [T, C, H, W].
    """
    if constraint.max_error is None:
        return np.zeros(values.shape, bool)
    limits, worst = np.iinfo(source.dn.dtype), np.zeros(values.shape, np.int64)
    for change in (-SLACK, 0, SLACK):
        here = np.clip(values.astype(np.int64) + change, limits.min, limits.max)
        moved = 0 if source.nodata is None else here == source.nodata  # it goes one up or down
        np.maximum(worst, np.abs(here - source.dn) + moved, out=worst)
    return (worst > constraint.max_error) & source.counted & ~source.beyond


def is_good(source: Source, dn_hat: np.ndarray, constraint: Constraint) -> bool:
    """Whether decoded pixels reach the PSNR of a constraint."""
    return constraint.min_psnr is None or psnr_of(source, dn_hat) >= constraint.min_psnr


def psnr_of(source: Source, dn_hat: np.ndarray) -> float:
    """dB of decoded pixels, those counted as exact that are coded exactly."""
    seen = np.where(source.beyond, source.dn, dn_hat)
    return psnr(source.dn, seen, source.counted, source.offset, PEAK * source.unit)


def largest(is_good: Callable[[int], bool], most: int) -> int:
    """Largest number up to `most` that is good, by bisection; 0 is taken to be."""
    if is_good(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return low


DEFAULT_QUALITY = 60.0
DEFAULT_SENSOR = "s2-l2a"
FLOOR_PSNR = 46.0  # dB that quality 100 reaches on any pixels

# Under a bound on the error alone, which quality below the residual layer comes out smallest depends on both.
_BASES = (60.0, 80.0, 100.0)


@dataclass(frozen=True, eq=False)
class Goal:
    """How good one chunk shall be.

    Attributes:
        quality: 0..100 in hundredths, asked for or the default.
        target_psnr: dB that the quality is searched for; None: `quality` it is.
        constraint: what must hold for the decoded pixels.
        is_bound_alone: nothing is asked for but a largest error: whatever is smallest.
        budgets: sections of each date, instead of a quality; empty: as many as the quality asks for.
        levels: how much more coarsely cells are coded, uint8 [T, h, w] (`eozip.codecs.level_map`); None: all alike.
        target_size: bytes that the quality is searched for; None: `quality` it is.
    """

    quality: float
    target_psnr: float | None
    constraint: Constraint
    is_bound_alone: bool
    budgets: tuple[int, ...] = ()
    levels: np.ndarray | None = None
    target_size: int | None = None

    @property
    def qualities(self) -> tuple[float, ...]:
        """Qualities at which a network is tried."""
        return _BASES if self.is_bound_alone else (self.quality,)

    def is_reached(self, psnr: float) -> bool | None:
        """Whether so many dB reach the target; None without one."""
        return None if self.target_psnr is None else psnr >= self.target_psnr

    @property
    def is_promised(self) -> bool:
        """Whether anything was asked for that must be told of: a constraint or a target."""
        return bool(self.constraint) or self.target_psnr is not None

    @property
    def without_network(self) -> Constraint:
        """The constraint where the codec asked for is ``lossless``.

        Exact coding keeps a target alone; beside a bound on the error it limits how coarse pixels may be.
        """
        bound = self.constraint.max_error
        is_limited = self.target_psnr is not None and bound is not None
        return Constraint(bound, self.constraint.min_psnr if is_limited else None)


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """What a caller of `eozip.encode`, or of a function like it, asks for; checked when it is made, passed on whole.

    Attributes:
        codec: full id or short name, path, published name, or a codec; None: the default one.
        quality: 0..100; see `eozip.encode`.
        target_psnr: dB, instead of `quality`.
        max_error: largest absolute error of any pixel, DN.
        budgets: sections of every date or of each, instead of `quality`; what they may be depends on the pixels.
        target_size: bytes of the chunk, instead of `quality`.
        sensor: whose bands these are; None: see `eozip.encode`.
        offset: radiometric offset contained in the pixels, DN; None: see `eozip.encode`.
        nodata: value of pixels without data; None: there are none. Checked against the pixels' dtype.

    Raises:
        InputError: numbers out of range, two ways of asking at once, or what cannot name a codec or a sensor.
    """

    codec: str | Path | Codec | None = None
    quality: float | None = None
    target_psnr: float | None = None
    max_error: int | None = None
    budgets: int | Sequence[int] | None = None
    target_size: int | None = None
    sensor: str | None = None
    offset: int | None = None
    nodata: int | None = None

    def __post_init__(self) -> None:
        check_names(self.codec, self.sensor)
        object.__setattr__(self, "max_error", checked_error(self.max_error))
        object.__setattr__(self, "target_size", checked_size(self.target_size))
        if self.target_size is not None and self.max_error is not None:
            raise InputError(
                "give target_size or max_error, not both: a bound on errors has the size that it needs"
            )
        ways = [way for way in self.said if way != "max_error"]
        if len(ways) > 1:
            asked = " or ".join(reversed(ways))
            raise InputError(
                f"expected quality, target_psnr, target_size or budgets, got two of them; give {asked}, not both"
            )

    @property
    def said(self) -> tuple[str, ...]:
        """Names of the ways of asking for quality that are used; none: the default quality."""
        ways = ("quality", "target_psnr", "max_error", "budgets", "target_size")
        return tuple(way for way in ways if getattr(self, way) is not None)

    @cached_property
    def goal(self) -> Goal:
        """How good a chunk shall be; budgets, which depend on its dates, are left out."""
        quality, target = self.quality, self.target_psnr
        if target is not None and not (math.isfinite(real("target_psnr", target)) and target > 0):
            raise InputError(f"target_psnr: expected dB above 0, got {target}")
        asked = DEFAULT_QUALITY if quality is None else real("quality", quality)
        if not 0 <= asked <= 100:  # also NaN
            raise InputError(f"quality: expected 0..100, got {quality}")
        floor = FLOOR_PSNR if quality == 100 else None
        constraint = Constraint(self.max_error, floor if target is None else target)
        is_bound_alone = self.max_error is not None and quality is None and target is None
        return Goal(round(asked, 2), target, constraint, is_bound_alone, target_size=self.target_size)

    def goal_of(self, dates: int) -> Goal:
        """How good a chunk of so many dates shall be.

        Raises:
            InputError: budgets that are no whole numbers, or of another number of dates.
        """
        if self.budgets is None:
            return self.goal
        return replace(self.goal, budgets=checked_budgets(self.budgets, dates), is_bound_alone=False)


def checked_error(max_error: int | None) -> int | None:
    """A bound on errors as given by a caller.

    Raises:
        InputError: not a whole number of DN from 0 to 65535.
    """
    if max_error is None:
        return None
    try:
        bound = operator.index(max_error)
    except TypeError as error:
        raise InputError(f"max_error: expected a whole number of DN, got {max_error!r}") from error
    if isinstance(max_error, bool) or not 0 <= bound <= 65535:
        raise InputError(f"max_error: expected 0..65535 DN, got {max_error}")
    return bound


def checked_size(target_size: int | None) -> int | None:
    """Bytes of a chunk as given by a caller.

    Raises:
        InputError: not a whole number from 1.
    """
    return None if target_size is None else whole("target_size", target_size, 1)


def checked_budgets(budgets: int | Sequence[int], dates: int) -> tuple[int, ...]:
    """A budget for each date, as far as it can be said without the codec.

    Raises:
        InputError: no whole numbers, or another number of them than of dates.
    """
    is_one = not isinstance(budgets, Sequence | np.ndarray)
    try:
        sent = (operator.index(budgets),) * dates if is_one else tuple(map(operator.index, budgets))  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(
            f"budgets: expected a whole number, or one for each date, got {budgets!r}"
        ) from error
    if len(sent) != dates or not all(0 <= k <= 255 for k in sent) or sent[0] < 1:
        raise InputError(
            f"budgets: expected a whole number from 1, or one for each of {dates} dates (0 is for later ones), got "
            f"{list(sent)}"
        )
    return sent


def check_names(codec: object, sensor: object) -> None:
    """Refuse what cannot name a codec or a sensor.

    Raises:
        InputError: see above.
    """
    is_codec = codec is None or isinstance(codec, str | Path) or hasattr(codec, "weights_hash")
    if not is_codec:
        raise InputError(f"codec: expected a name, a path or a codec of eozip.load, got {codec!r}")
    if not (sensor is None or isinstance(sensor, str)):
        raise InputError(f"sensor: expected an id such as {DEFAULT_SENSOR}, got {sensor!r}")
