"""Training crops on their own grids: images whose coarser bands were interpolated are put back, and batches drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.pyramid import grids, registration
from eozip.codecs.pyramid.grids import Grid
from eozip.errors import InputError
from eozip_lab.train.data import SPREAD, named_arrays
from eozip_lab.train.pyramid.maps import level_maps
from eozip_lab.train.pyramid.network import References
from eozip_lab.train.pyramid.recipe import Crops, Held, Recipe, Series
from eozip_lab.train.recipe import located

COARSEST = 10.0  # times the step, of the same image where it is known at a coarser quality
MARGIN = 16  # pixels around a crop of dates that are moved
NEAR = 8  # dates that may be known are among so many that are next in the series
VALID = 0.999  # of an image's pixels, at least
LEAST_COARSE = 3  # bands on a grid of half the resolution; fewer are taken for chance


@dataclass(frozen=True, eq=False)
class Example:
    """One image, all its bands on the grids that they were measured on.

    Attributes:
        name: file:array.
        image: position along the array's first axis.
        groups: uint16 [C, h, w] each, finest first, the second on half the grid of the first.
        grid: of the second.
    """

    name: str
    image: int
    groups: tuple[np.ndarray, ...]
    grid: Grid | None = None

    @property
    def bands(self) -> tuple[int, ...]:
        """Of each group."""
        return tuple(len(group) for group in self.groups)

    @property
    def even(self) -> tuple[int, int]:
        """Height and width of the finest group, without an odd row or column."""
        h, w = self.groups[0].shape[1:]
        return h // 2 * 2, w // 2 * 2


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        groups: float32 [B, C, h, w] DN, finest first.
        step: quantisation steps in DN, float32 [B].
        references: what is known of the same places already, or None.
        levels: uint8 [B, h, w] of the finest group's cells, how much more coarsely they are coded; None: nowhere.
    """

    groups: tuple[Tensor, ...]
    step: Tensor
    references: References | None = None
    levels: np.ndarray | None = None


@dataclass(frozen=True)
class Pool:
    """All examples, and facts about them for the log and the card.

    Attributes:
        examples: all.
        series: dates of one place on one grid, in turn.
        facts: counts and names.
        distances: between dates of series, as far as they were needed, see `_distance`.
    """

    examples: tuple[Example, ...]
    series: tuple[tuple[Example, ...], ...]
    facts: dict[str, Any]
    distances: dict[tuple[Example, Example], tuple[int, int]] = field(default_factory=dict)
    _fitting: dict[tuple[Crops, int], list[list[tuple[Example, ...]]]] = field(default_factory=dict)

    def fitting(self, crops: Crops, known: int = 0) -> list[list[tuple[Example, ...]]]:
        """Series that a kind of crops can be cut from, each of more than `known` dates; those of the same bands together.

        Without `known` every example is a series.
        """
        if (crops, known) not in self._fitting:
            self._fitting[crops, known] = self._found(crops, known)
        return self._fitting[crops, known]

    def _found(self, crops: Crops, known: int) -> list[list[tuple[Example, ...]]]:
        by_bands: dict[tuple[int, ...], list[tuple[Example, ...]]] = {}
        for dates in self.series if known else [(e,) for e in self.examples]:
            e = dates[0]
            if len(dates) > known and len(e.groups) == crops.groups and min(e.even) >= crops.side:
                by_bands.setdefault(e.bands, []).append(dates)
        return [by_bands[key] for key in sorted(by_bands)]


def pool(recipe: Recipe, say: Callable[[str], None]) -> Pool:
    """All images of a recipe's data that are not held back.

    Raises:
        InputError: nothing there; a `held` table that fits nothing; a kind of crops that no image is large enough for.
    """
    named, files = named_arrays(located(recipe.data))
    arrays = [(name, a) for name, a in named if a.ndim == 4 and min(a.shape[2:]) >= grids.LEAST]
    free = free_images([(name, len(a)) for name, a in arrays], recipe.held)
    say(f"finding native grids of {sum(map(len, free.values()))} images")
    examples: list[Example] = []
    for name, a in arrays:
        examples += [e for image in free[name] if (e := example(name, image, a[image])) is not None]
    facts = {
        "files": sorted({path.name for path in files}),
        "images": len(examples),
        "native": sum(len(e.groups) > 1 for e in examples),
        "held_back": sum(len(a) - len(free[name]) for name, a in arrays),
    }
    series = tuple(_series(examples, recipe.series))
    found = Pool(tuple(examples), series, facts | {"series": len(series), "dates": sum(map(len, series))})
    for k, crops in enumerate(recipe.crops):
        if not found.fitting(crops):
            raise InputError(
                f"crops[{k}]: no image of {recipe.data} with {crops.groups} grid(s) has {crops.side} pixels a side; "
                "expected smaller crops or other data"
            )
    return found


def _series(examples: Sequence[Example], tables: Sequence[Series]) -> Iterator[tuple[Example, ...]]:
    """Dates of one place that lie on the same grid, as the tables say which images are such.

    Raises:
        InputError: a table that fits no array.
    """
    for k, table in enumerate(tables):
        places: dict[Any, list[Example]] = {}
        for e in examples:
            if fnmatchcase(e.name, table.array):
                place = e.image // table.dates if table.dates else 0
                places.setdefault((e.name, place, e.bands, e.grid, e.groups[0].shape), []).append(e)
        if not places:
            raise InputError(f"series[{k}]: expected arrays called {table.array}, got none")
        yield from (tuple(dates) for dates in places.values() if len(dates) > 1)


def free_images(arrays: Sequence[tuple[str, int]], held: Sequence[Held]) -> dict[str, list[int]]:
    """Images to train on, by array.

    Args:
        arrays: file:array and number of images.
        held: what is held back.

    Raises:
        InputError: a table that fits no array, or names images that an array does not have: nothing would be held back.
    """
    free = {name: set(range(count)) for name, count in arrays}
    for k, table in enumerate(held):
        fit = [(name, count) for name, count in arrays if fnmatchcase(name, table.array)]
        if not fit:
            raise InputError(
                f"held[{k}]: expected arrays called {table.array}, got none; what is not found cannot be held back"
            )
        for name, count in fit:
            free[name] -= _held_images(table, count, f"held[{k}]: {name}")
    return {name: sorted(images) for name, images in free.items()}


def _held_images(table: Held, count: int, where: str) -> set[int]:
    if table.last:
        return set(range(count - math.ceil(round(count * table.last, 6)), count))
    beyond = [image for image in table.images if not 0 <= image < count]
    if beyond:
        raise InputError(f"{where}: expected images 0..{count - 1}, got {beyond}")
    return set(table.images) or set(range(count))


def example(name: str, image: int, pixels: np.ndarray) -> Example | None:
    """An image [C, H, W] with its bands on their own grids; None where too much of it is nodata.

    Bands on a grid of half the resolution make a second group. Those of a third of it or less are left out: the network
    learns nothing from them that the levels of the others do not teach.
    """
    if (pixels > 0).mean() < VALID:
        return None
    found = grids.found(np.asarray(pixels, np.float32)[None])
    coarse = [g for g in found if g is not None and g.factor == 2]
    half = max(dict.fromkeys(coarse), key=coarse.count, default=None)
    fine = [k for k, g in enumerate(found) if g is None]
    if half is None or coarse.count(half) < LEAST_COARSE or not fine:
        return Example(name, image, (_integers(pixels),))
    groups = _native(pixels, fine, [k for k, g in enumerate(found) if g == half], half)
    return Example(name, image, groups, half)


def _native(
    pixels: np.ndarray, fine: list[int], coarse: list[int], grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Bands at full and at half resolution, cut to the cells that lie in the image as a whole."""
    height, width = pixels.shape[1:]
    h, w = (height - grid.rows) // 2, (width - grid.columns) // 2
    top, left = -grid.cells(height, 0)[0], -grid.cells(width, 1)[0]
    tens = pixels[fine, grid.rows : grid.rows + 2 * h, grid.columns : grid.columns + 2 * w]
    cells = grid.solved(pixels[coarse])[:, top : top + h, left : left + w]
    return _integers(tens), _integers(cells)


def _integers(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.clip(np.rint(x), 0, 65535).astype(np.uint16))


def batch(found: Pool, recipe: Recipe, rng: np.random.Generator) -> Batch:
    """One batch; only `rng` decides which."""
    u = rng.random()
    known = int(rng.integers(1, recipe.dates_known + 1)) if u < recipe.dated else 0
    crops, kind = _kind(found, recipe, known, rng)
    cut = [
        _cut(kind[rng.integers(len(kind))], known, crops.side, rng, found.distances)
        for _ in range(crops.batch)
    ]
    groups = [torch.from_numpy(np.stack(parts)) for parts in zip(*cut, strict=True)]
    groups = _some(groups, recipe, rng)
    if rng.random() < recipe.brightness:
        factor = np.exp(rng.uniform(-1, 1, crops.batch) * recipe.brightness_range)
        groups = [g * torch.from_numpy(factor).float()[:, None, None, None, None] for g in groups]
    low, high = math.log(recipe.step_min), math.log(recipe.step_max)
    step = torch.from_numpy(np.exp(rng.uniform(low, high, crops.batch))).float()
    own = tuple(g[:, 0] for g in groups)
    levels = None
    if rng.random() < recipe.maps:
        levels = level_maps(crops.batch, (own[0].shape[-2], own[0].shape[-1]), rng)
    if recipe.dated <= u < recipe.dated + recipe.coarser:
        coarser = torch.from_numpy(np.exp(rng.uniform(0.5, math.log(COARSEST), crops.batch))).float()
        return Batch(own, step, References(groups, (step * coarser)[:, None]), levels)
    if not known:
        return Batch(own, step, levels=levels)
    steps = step[:, None].expand(-1, known)
    return Batch(own, step, References([g[:, 1:] for g in groups], steps), levels)


def _kind(
    found: Pool, recipe: Recipe, known: int, rng: np.random.Generator
) -> tuple[Crops, list[tuple[Example, ...]]]:
    """Which crops, and which series of the same bands; all of them have more dates than are known.

    Raises:
        InputError: no series is long and large enough.
    """
    fitting = [(crops, kinds) for crops in recipe.crops if (kinds := found.fitting(crops, known))]
    if not fitting:
        raise InputError(
            f"series: expected {known + 1} dates of a place in crops of the recipe's sides, got fewer"
        )
    share = np.array([crops.share for crops, _ in fitting])
    crops, kinds = fitting[rng.choice(len(share), p=share / share.sum())]
    chance = np.array([sum(map(len, kind)) for kind in kinds]) ** SPREAD
    return crops, kinds[rng.choice(len(kinds), p=chance / chance.sum())]


def _cut(
    dates: tuple[Example, ...],
    known: int,
    side: int,
    rng: np.random.Generator,
    distances: dict[tuple[Example, Example], tuple[int, int]],
) -> list[np.ndarray]:
    """One crop of a date, and of `known` others near it in the series: float32 [1 + known, C, s, s] of each group.

    The others are moved to where the date lies, as codecs do.
    """
    own = int(rng.integers(len(dates)))
    others = sorted((k for k in range(len(dates)) if k != own), key=lambda k: abs(k - own))
    chosen = [own, *rng.permutation(others[: max(known, NEAR)])[:known]]
    pictures = [dates[k].groups for k in chosen]
    even = dates[own].even
    if known:  # what is moved has a margin, and is no larger than need be
        large = [min(side + 2 * MARGIN, size) for size in even]
        corner = [
            2 * int(rng.integers((size - part) // 2 + 1)) for size, part in zip(even, large, strict=True)
        ]
        pictures = [_window(groups, corner, large) for groups in pictures]
        even = (large[0], large[1])
    taken = [pictures[0]]
    for k, groups in zip(chosen[1:], pictures[1:], strict=True):
        distance = _distance(dates[own], dates[k], distances)
        taken.append(
            tuple(
                registration.moved(
                    group.astype(np.int32), *(registration.units_at(d, 1 << level) for d in distance)
                )
                for level, group in enumerate(groups)
            )
        )
    return cropped([np.stack(parts) for parts in zip(*taken, strict=True)], even, side, rng)


def _window(
    groups: Sequence[np.ndarray], corner: Sequence[int], size: Sequence[int]
) -> tuple[np.ndarray, ...]:
    (i, j), (h, w) = corner, size
    return tuple(g[:, i >> k : (i + h) >> k, j >> k : (j + w) >> k] for k, g in enumerate(groups))


def _distance(
    own: Example, other: Example, known: dict[tuple[Example, Example], tuple[int, int]]
) -> tuple[int, int]:
    """From one date to another, in units of `registration`; looked up where it was found before."""
    if (own, other) not in known:
        pictures = np.stack([own.groups[0], other.groups[0]]).astype(np.float32)
        down, across = registration.positions(pictures, [(1,), ()], [(1,), (0,)])[0].tolist()
        known[own, other] = (-down, -across)
    return known[own, other]


def cropped(
    groups: Sequence[np.ndarray], even: tuple[int, int], side: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """One crop of all groups [..., h, w] as float32 [..., s, s], mirrored and turned at random."""
    i, j = (2 * int(rng.integers((size - side) // 2 + 1)) for size in even)
    flips = rng.random(3) < 0.5
    cut = []
    for k, group in enumerate(groups):
        s, y, x = side >> k, i >> k, j >> k
        part = group[..., y : y + s, x : x + s].astype(np.float32)
        part = part[..., ::-1, :] if flips[0] else part
        part = part[..., ::-1] if flips[1] else part
        cut.append(np.ascontiguousarray(part.swapaxes(-1, -2) if flips[2] else part))
    return cut


def _some(groups: list[Tensor], recipe: Recipe, rng: np.random.Generator) -> list[Tensor]:
    """Some batches keep one group, or some bands of the finest: codecs meet any band set."""
    u, bands = rng.random(), groups[0].shape[2]
    few = recipe.few if bands > 1 else 0.0
    if u < few:
        kept = np.sort(rng.permutation(bands)[: rng.integers(1, bands)])
        return [groups[0][:, :, kept]]
    if len(groups) > 1 and u < few + recipe.finest_only:
        return groups[:1]
    if len(groups) > 1 and u < few + recipe.finest_only + recipe.coarsest_only:
        return groups[1:]
    return groups
