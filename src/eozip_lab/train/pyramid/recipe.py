"""Recipes of the pyramid codecs' training. docs/training.md explains every key."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from eozip_lab.train.recipe import Settings, anchored_path, load_as, not_positive

KIND = "tec-elic-small-any"


@dataclass(frozen=True)
class Crops:
    """One kind of batch.

    Attributes:
        groups: 2: images whose coarser bands were found on a grid of half the resolution; 1: images of one grid.
        side: of a crop, in pixels of its finest group; even.
        batch: crops in a batch.
        share: of the batches, in proportion to the other kinds'.
    """

    groups: int
    side: int
    batch: int
    share: float


@dataclass(frozen=True)
class Held:
    """Images that are never trained on.

    Attributes:
        array: pattern of `file:array`.
        images: their positions along the first axis; empty (without `last`): all.
        last: this share of the images, from the end.
    """

    array: str
    images: tuple[int, ...] = ()
    last: float = 0.0


@dataclass(frozen=True)
class Series:
    """Arrays whose images show one place at several dates.

    Attributes:
        array: pattern of `file:array`.
        dates: so many images in turn are one place; 0: all of an array's.
    """

    array: str
    dates: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """One training run of a pyramid codec's network; `kind` is `KIND`.

    Attributes:
        data: folder of .npz files or packs: arrays [N, C, H, W]; `$EOZIP_DATA/...`, absolute, or relative to the recipe.
        crops: kinds of batches.
        held: images that are never trained on.
        series: which images are dates of one place.
        width: channels of the network.
        bfloat16: whether the network's layers run in bfloat16 while training.
        weight_decay: of AdamW.
        step_min, step_max: quantisation steps in DN, drawn evenly in the logarithm.
        brightness: share of the batches whose crops are each made brighter or darker.
        brightness_range: by exp(uniform(-b, b)).
        finest_only, coarsest_only, few: shares of the batches that keep one group only, or some bands of the finest.
        dated: share of the batches in which other dates of the place are known, 1 to `dates_known` of them.
        dates_known: at most.
        coarser: share of the batches in which the images themselves are known at a coarser quality.
        maps: share of the batches that are coded under random level maps.
        passes: whether networks of flextec-small's later passes are trained; `init` is the folder of the others.
        missing: share of the batches, with passes, in which the last pass lacks the finest levels.
        rougher: share of the references, with passes, that are an octave coarser.
        fit_crops: crops that the exported probability tables are fitted to; 0: the logistic law stays.
    """

    name: str = f"{KIND}-v0"
    lr: float = 2.5e-3
    warm_up: float = 0.01
    data: str
    crops: tuple[Crops, ...]
    held: tuple[Held, ...] = ()
    series: tuple[Series, ...] = ()
    width: int = 32
    bfloat16: bool = True
    weight_decay: float = 1e-4
    step_min: float = 20.0
    step_max: float = 2500.0
    brightness: float = 0.3
    brightness_range: float = 0.7
    finest_only: float = 0.12
    coarsest_only: float = 0.12
    few: float = 0.06
    dated: float = 0.0
    dates_known: int = 4
    coarser: float = 0.0
    maps: float = 0.0
    passes: bool = False
    missing: float = 0.25
    rougher: float = 0.1
    fit_crops: int = 150

    def anchored(self, folder: Path) -> Self:
        """See `eozip_lab.train.recipe.Settings.anchored`."""
        return replace(super().anchored(folder), data=anchored_path(self.data, folder))

    def faults(self) -> list[str]:
        """See `eozip_lab.train.recipe.Settings.faults`."""
        faults = [*super().faults(), *_numbers(self), *_shares(self)]
        for k, crops in enumerate(self.crops):
            faults += [f"crops[{k}].{text}" for text in _crops_faults(crops)]
        for k, held in enumerate(self.held):
            faults += [f"held[{k}].{text}" for text in _held_faults(held)]
        if self.kind != KIND:
            faults.append(f"kind: expected {KIND}, got {self.kind!r}")
        if not self.crops:
            faults.append("crops: expected at least one [[crops]] table, got none")
        return faults


def load(path: Path | str) -> Recipe:
    """Read a recipe of a pyramid codec's network; see `eozip_lab.train.recipe.load`."""
    return load_as(Recipe, path)


def _numbers(r: Recipe) -> list[str]:
    faults = not_positive({"width": r.width, "step_min": r.step_min})
    at_least = {"weight_decay": r.weight_decay, "brightness_range": r.brightness_range}
    at_least |= {"fit_crops": r.fit_crops}
    faults += [f"{key}: expected 0 or more, got {value}" for key, value in at_least.items() if not value >= 0]
    if not r.step_max >= r.step_min:
        faults.append(f"step_max: expected at least step_min, {r.step_min}, got {r.step_max}")
    return faults


def _shares(r: Recipe) -> list[str]:
    faults = []
    for key in (
        "brightness",
        "finest_only",
        "coarsest_only",
        "few",
        "dated",
        "coarser",
        "maps",
        "missing",
        "rougher",
    ):
        if not 0 <= getattr(r, key) <= 1:
            faults.append(f"{key}: expected 0 to 1, got {getattr(r, key)}")
    if r.finest_only + r.coarsest_only + r.few > 1:
        faults.append("finest_only, coarsest_only and few: expected at most 1 together")
    if r.dated + r.coarser > 1:
        faults.append("dated and coarser: expected at most 1 together")
    if r.dates_known < 1:
        faults.append(f"dates_known: expected 1 or more, got {r.dates_known}")
    faults += [
        f"series[{k}].dates: expected 0 or 2 or more, got {s.dates}"
        for k, s in enumerate(r.series)
        if s.dates < 0 or s.dates == 1
    ]
    if r.passes and (r.maps or r.coarser or not r.init):
        faults.append("passes: expected init, and neither maps nor coarser")
    if r.dated and not r.series:
        faults.append("dated: expected at least one [[series]] table, got none")
    return faults


def _crops_faults(c: Crops) -> list[str]:
    faults = []
    if c.groups not in (1, 2):
        faults.append(f"groups: expected 1 or 2, got {c.groups}")
    if c.side < 8 or c.side % 2:
        faults.append(f"side: expected an even number from 8, got {c.side}")
    if c.batch < 1:
        faults.append(f"batch: expected 1 or more, got {c.batch}")
    if not 0 < c.share < math.inf:
        faults.append(f"share: expected more than 0, got {c.share}")
    return faults


def _held_faults(h: Held) -> list[str]:
    faults = []
    if ":" not in h.array:
        faults.append(f"array: expected file:array, got {h.array!r}")
    if not 0 <= h.last <= 1:
        faults.append(f"last: expected 0 to 1, got {h.last}")
    if h.images and h.last:
        faults.append("images and last: expected one of them")
    return faults
