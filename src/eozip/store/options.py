"""What a caller of `encode_files`, or of a function like it, asks for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eozip import arguments
from eozip.arguments import real
from eozip.chunk.options import EncodeOptions
from eozip.errors import InputError
from eozip.purpose import Purpose, parse_purposes
from eozip.store.grid import GOP

Progress = Callable[[int, int], None]
"""Called with chunks done and chunks in all; an exception from it stops the run and leaves nothing behind."""

_MOST_POWER = 4  # of brightness


def warn(note: str) -> None:
    """Tell a caller of Python."""
    warnings.warn(note, stacklevel=3)


def _check_quality(name: str, quality: float | str | None) -> None:
    if quality is None or quality == "none":
        return
    if not 0 <= real(name, quality) <= 100:
        raise InputError(f"{name}: expected 0..100 or 'none', got {quality}")


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a caller asks for by place; the quality of all else is the store's.

    Attributes:
        roi: raster or vector file of a region of interest (`eozip.raster.regions`); None: there is none.
        outside_quality: of what lies outside of it, 0..100; "none": nothing but averages of 16 x 16 pixels and more.
        masked_quality: likewise, of what a mask hides.
        relative: errors in proportion to this power of brightness: dark places finer, bright ones coarser than the quality
            says; 0: all alike.

    Raises:
        InputError: numbers out of range, or a region without a quality of what lies outside, or the other way round.
    """

    roi: str | Path | None = None
    outside_quality: float | str | None = None
    masked_quality: float | str | None = None
    relative: float = 0.0

    def __post_init__(self) -> None:
        for name in ("outside_quality", "masked_quality"):
            _check_quality(name, getattr(self, name))
        if (self.roi is None) != (self.outside_quality is None):
            raise InputError(
                "roi and outside_quality go together: the region has the store's quality, the rest the other; give both"
            )
        if not 0 <= real("relative", self.relative) <= _MOST_POWER:
            raise InputError(f"relative: expected a power of 0 to {_MOST_POWER}, got {self.relative}")

    def __bool__(self) -> bool:
        return self.roi is not None or self.masked_quality is not None or self.relative > 0

    def check(self, quality: float | None, is_masked: bool) -> None:
        """Refuse what cannot be asked for together, before anything is read.

        Args:
            quality: the store's; None where it follows from a target, a bound or purposes.
            is_masked: whether there is a mask.

        Raises:
            InputError: see above.
        """
        if self.masked_quality is not None and not is_masked:
            raise InputError(
                "masked_quality: expected a mask beside it, got none; give mask='scl:3,8,9,10' or another"
            )
        for name in ("outside_quality", "masked_quality"):
            own = getattr(self, name)
            if own is None:
                continue
            if quality is None:
                raise InputError(
                    f"{name}: expected a quality of the store to set it against, got none; give quality"
                )
            if own != "none" and own > quality:
                raise InputError(f"{name}: expected at most the store's quality {quality:g}, got {own:g}")

    def facts(self) -> dict[str, Any]:
        """What a store records."""
        asked = {"outside_quality": self.outside_quality, "masked_quality": self.masked_quality}
        known = {name: value for name, value in asked.items() if value is not None}
        region = {} if self.roi is None else {"roi": Path(self.roi).name}
        power = {"relative": self.relative} if self.relative else {}
        return {"places": {**region, **known, **power}} if self else {}


NOWHERE = Places()
"""The same quality everywhere."""


@dataclass(frozen=True, kw_only=True)
class StoreOptions(EncodeOptions):
    """What a caller of `encode_files`, or of a function like it, asks for; checked when it is made, passed on whole.

    `target_size` is that of everything in the store.

    Attributes:
        chunk: side of a chunk in pixels; None fits it near 256.
        gop: most dates coded together.
        purposes: what the store must be good for, instead of a quality.
        classes: GeoTIFF of whole numbers on the scene's grid, for the purpose "agreement>=99%".
        places: quality by place.
        overviews: whether reduced pictures of large scenes are stored.
        overwrite: whether an existing store may be replaced.
        progress: called with chunks done and in all.
        note: takes sentences that a person should read.

    Raises:
        InputError: as for `eozip.chunk.options.EncodeOptions`; no whole numbers; purposes beside a quality.
    """

    chunk: int | None = None
    gop: int = GOP
    purposes: str | Sequence[str] = ()
    classes: str | Path | None = None
    places: Places = NOWHERE
    overviews: bool = False
    overwrite: bool = False
    progress: Progress = lambda done, total: None
    note: Callable[[str], None] = warn

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk is not None:
            object.__setattr__(self, "chunk", arguments.whole("chunk", self.chunk, 1))
        object.__setattr__(self, "gop", arguments.whole("gop", self.gop, 1))
        _ = self.parsed

    @cached_property
    def parsed(self) -> tuple[Purpose, ...]:
        """The purposes, which leave no other way of asking for quality."""
        texts = [self.purposes] if isinstance(self.purposes, str) else list(self.purposes)
        if not texts:
            return ()
        if self.said:
            raise InputError(
                f"for: expected purposes alone, got {', '.join(self.said)} too; say them as purposes: psnr>=42, "
                "max-error<=20"
            )
        return parse_purposes(texts)
