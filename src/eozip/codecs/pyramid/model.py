"""What a traversal is given: the weights as networks and tables, what an encoder brings, and what is known of a plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eozip.codecs.pyramid.coarseness import Coarse
from eozip.codecs.pyramid.context import Functions, Stage
from eozip.codecs.pyramid.holes import Hidden
from eozip.codecs.pyramid.narrowing import LevelReader
from eozip.codecs.pyramid.references import Told
from eozip.entropy.range_coder import Tables

Quantise = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Model:
    """What a traversal needs of the weights.

    Attributes:
        stages: networks of the finest levels, each its own, and of all others.
        functions: staircases.
        tables: of the coder, `ROWS` rows.
        trellis: of details, `ROWS` rows of either quantiser.
        source: makes the model again, as another process does that gets it pickled.
    """

    stages: Sequence[Stage]
    functions: Functions
    tables: Tables
    trellis: Tables
    source: Callable[[], Model]

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        """Networks and readers of the kernel point to memory of this process: they are made anew."""
        return self.source, ()

    def stage_at(self, level: int) -> Stage:
        """The network of a level, 0 for the finest grid."""
        return self.stages[min(level, len(self.stages) - 1)]

    @cached_property
    def reader(self) -> LevelReader:
        """Reads levels by the kernel, where there is one."""
        return LevelReader(self.tables, self.trellis, self.functions.tanh)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What an encoder brings.

    Attributes:
        groups: float [T, C, h, w] each, DN, finest first.
        quantise: residual in spacings float [n], rows [n] and how many are of each date -> int32 [n] symbols.
        hidden: where what the decoder expects is good enough; None: nowhere.
    """

    groups: Sequence[np.ndarray]
    quantise: Quantise
    hidden: Hidden | None = None


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane at one level of some dates.

    Attributes:
        level: 0 for the finest grid.
        number: of the plane, the strongest is 0.
        dates: [N] which.
        coded: bool [3, h, w].
        strengths: int32 [N, 3], see `Ladder._code_strengths`.
        reference: what references predict, int32 [N, 3, h, w], or None.
        hidden: bool [N, 1, h, w], details that are not worth a symbol, or None.
        skipped: alike, details that have none, as the decoder knows too, or None.
        coarse: of the dates, or None.
        told: of each date, what references tell, or None.
        left: of each date, how far details of planes before lie off their means, [J] of int32 [3, h, w] in 1/64 step.
    """

    level: int
    number: int
    dates: np.ndarray
    coded: np.ndarray
    strengths: np.ndarray
    reference: np.ndarray | None
    hidden: np.ndarray | None
    skipped: np.ndarray | None
    coarse: Coarse | None
    told: Sequence[Told] | None
    left: Sequence[Sequence[np.ndarray]]
