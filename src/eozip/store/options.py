"""What a caller of `encode_files`, or of a function like it, asks for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from eozip import arguments
from eozip.chunk.options import EncodeOptions
from eozip.errors import InputError
from eozip.purpose import Purpose, parse_purposes
from eozip.store.coding import Progress
from eozip.store.grid import GOP
from eozip.store.priorities import NOWHERE, Places


def warn(note: str) -> None:
    """Tell a caller of Python."""
    warnings.warn(note, stacklevel=3)


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
