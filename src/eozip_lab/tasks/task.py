"""What a task is: chips of real pixels, measures, and a judge that does the task on originals and on decoded pixels."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from eozip.errors import InputError

Case = tuple[np.ndarray, np.ndarray]
"""Of a measure that counts pixels: where something is kept, and among which pixels, both bool."""


class TaskSkipped(InputError):
    """A task cannot run here: its data or a package is absent; the message says which."""


@dataclass(frozen=True)
class Chip:
    """Pixels that are coded as one chunk.

    Attributes:
        name: unique.
        place: chips of one place are resampled together.
        dn: uint16 [T, C, H, W].
        bands: [C] names.
        facts: what the task knows beside pixels: labels, dates, masks.
        held: the weights of eozip's codecs never saw this place.
    """

    name: str
    place: str
    dn: np.ndarray
    bands: tuple[str, ...]
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)
    held: bool = False


@dataclass(frozen=True)
class Measure:
    """One number of a task, which is a sum over a sum: shares of pixels, means of errors.

    Attributes:
        name: short.
        what: a sentence.
        scale: shown values are multiplied by this: 100 for percent.
        more: more is better.
        truth: measured against labels, so that decoded pixels may do better than the original ones.
        subject: what its worst failures are called in the gallery; the headline of a task is there by the task's name.
    """

    name: str
    what: str
    scale: float = 100.0
    more: bool = True
    truth: bool = False
    subject: str = ""


@dataclass(frozen=True)
class Tally:
    """What a judge counted on one chip or block.

    Attributes:
        place: places are resampled.
        sums: measure > (numerator, denominator); what does not occur is left out.
        held: as in `Chip`.
    """

    place: str
    sums: Mapping[str, tuple[float, float]]
    held: bool = False


class Judge(Protocol):
    """A task on some chips; made from the originals, which it may learn from.

    A judge may have `panels(k, decoded, measure)`, for the gallery: titles and uint8 [h, w, 3] pictures of its k-th tally,
    the last one made by `pictures.lost` of what that measure counts.
    """

    def __call__(self, decoded: Sequence[np.ndarray]) -> list[Tally]:
        """The task on decoded pixels, one array like `Chip.dn` for each chip; always the same tallies in order."""
        ...


@dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
        name: short, unique.
        title: a line.
        data: "module:function" below this package, called with `data.Sources` and whether few chips are enough.
        judge: "module:Class" below this package, called with the chips.
        measures: the first is the task's headline.
        series: chips have several dates: codecs of series and transforms over time take part.
        fills: the methods are predictors of hidden pixels instead of codecs.
        needs: packages beyond those of `eozip[evaluate]`.
    """

    name: str
    title: str
    data: str
    judge: str
    measures: tuple[Measure, ...]
    series: bool = False
    fills: bool = False
    needs: tuple[str, ...] = ()

    def make_judge(self, chips: Sequence[Chip]) -> Judge:
        """The judge, having learnt what it needs from originals.

        Raises:
            TaskSkipped: a package is absent.
        """
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if absent:
            raise TaskSkipped(f"{self.name}: not installed: {', '.join(absent)}; pip install 'eozip[tasks]'")
        return member(self.judge)(chips)


def member(where: str):  # type: ignore[no-untyped-def]
    """A function or class of this package by "module:name"."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(f"eozip_lab.tasks.{module}"), name)


def share(kept: np.ndarray, among: np.ndarray) -> tuple[float, float]:
    """How many of the pixels `among` are `kept`, and how many those are."""
    return float((kept & among).sum()), float(among.sum())


def iou(a: np.ndarray, b: np.ndarray) -> Case:
    """Intersection and union of two masks."""
    return a & b, a | b


def shares(cases: Mapping[str, Case]) -> dict[str, tuple[float, float]]:
    """Of each measure, how many pixels are kept, and among how many."""
    return {name: share(kept, among) for name, (kept, among) in cases.items()}


def mean_error(error: np.ndarray, where: np.ndarray | None = None) -> tuple[float, float]:
    """Sum of absolute errors and their number, where they are defined."""
    counted = np.isfinite(error) if where is None else np.isfinite(error) & where
    return float(np.abs(error[counted]).sum()), float(counted.sum())
