"""Recipes of the pyramid codecs' training. docs/training.md explains every key."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from eozip.errors import InputError
from eozip_lab.train.recipe import BUDGET, anchored_path, find, table_of
from eozip_lab.train.toml_schema import from_table

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


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        kind: `KIND`.
        data: folder of .npz files or packs: arrays [N, C, H, W]; `$EOZIP_DATA/...`, absolute, or relative to the recipe.
        crops: kinds of batches.
        held: images that are never trained on.
        series: which images are dates of one place.
        name: id of the exported weights.
        seed: of initial weights and of everything drawn.
        minutes, steps: budgets; with both, whatever is spent first.
        init: folder of exported weights, or checkpoint, to start from.
        width: channels of the network.
        bfloat16: whether the network's layers run in bfloat16 while training.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warm_up: share of the budget in which the rate rises; then it falls by a cosine to 2 %.
        ema: decay of the moving average of weights, which is what is exported.
        clip: largest gradient norm.
        step_min, step_max: quantisation steps in DN, drawn evenly in the logarithm.
        brightness: share of the batches whose crops are each made brighter or darker.
        brightness_range: by exp(uniform(-b, b)).
        finest_only, coarsest_only, few: shares of the batches that keep one group only, or some bands of the finest.
        dated: share of the batches in which other dates of the place are known, 1 to `dates_known` of them.
        dates_known: at most.
        coarser: share of the batches in which the images themselves are known at a coarser quality.
        fit_crops: crops that the exported probability tables are fitted to; 0: the logistic law stays.
        log_steps: steps between two lines of the log.
        checkpoint_minutes: time between two checkpoints.
    """

    kind: str
    data: str
    crops: tuple[Crops, ...]
    held: tuple[Held, ...] = ()
    series: tuple[Series, ...] = ()
    name: str = f"{KIND}-v0"
    seed: int = 0
    minutes: float | None = None
    steps: int | None = None
    init: str = ""
    width: int = 32
    bfloat16: bool = True
    lr: float = 2.5e-3
    weight_decay: float = 1e-4
    warm_up: float = 0.01
    ema: float = 0.9985
    clip: float = 1.0
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
    fit_crops: int = 150
    log_steps: int = 50
    checkpoint_minutes: float = 5.0

    def to_json(self) -> str:
        """The recipe as JSON; equal recipes give equal text."""
        return json.dumps(asdict(self), sort_keys=True)


def load(path: Path | str) -> Recipe:
    """Reads a recipe.

    Args:
        path: a TOML file, or the name of a shipped recipe.

    Raises:
        InputError: no such recipe, not TOML, or a key that is unknown, missing or out of range.
    """
    file = find(path)
    recipe = from_table(Recipe, table_of(file), str(file))
    init = anchored_path(recipe.init, file.parent) if recipe.init else ""
    data = anchored_path(recipe.data, file.parent)
    return checked(replace(recipe, data=data, init=init), str(file))


def configured(
    recipe: Recipe, file: Path, minutes: float | None, steps: int | None, seed: int | None
) -> Recipe:
    """The recipe with the caller's budget and seed, checked.

    Raises:
        InputError: no budget, or a value out of range.
    """
    if minutes is not None or steps is not None:
        recipe = replace(recipe, minutes=minutes, steps=steps)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    if recipe.minutes is None and recipe.steps is None:
        raise InputError(
            f"{file}: no budget; give minutes or steps, in the recipe or by --minutes or --steps"
        )
    return checked(recipe, str(file))


def checked(recipe: Recipe, where: str) -> Recipe:
    """The recipe itself, if every value is in range.

    Raises:
        InputError: a value out of range.
    """
    faults = [*_numbers(recipe), *_shares(recipe)]
    for k, crops in enumerate(recipe.crops):
        faults += [f"crops[{k}].{text}" for text in _crops_faults(crops)]
    for k, held in enumerate(recipe.held):
        faults += [f"held[{k}].{text}" for text in _held_faults(held)]
    if recipe.kind != KIND:
        faults.append(f"kind: expected {KIND}, got {recipe.kind!r}")
    if not recipe.crops:
        faults.append("crops: expected at least one [[crops]] table, got none")
    if faults:
        raise InputError(f"{where}: " + "; ".join(faults))
    return recipe


def _numbers(r: Recipe) -> list[str]:
    keys = ("width", "lr", "clip", "step_min", "log_steps", "checkpoint_minutes", *BUDGET)
    values = {key: value for key in keys if (value := getattr(r, key)) is not None}
    faults = [
        f"{key}: expected more than 0, got {value}"
        for key, value in values.items()
        if not 0 < value < math.inf
    ]
    at_least = {"seed": r.seed, "weight_decay": r.weight_decay, "brightness_range": r.brightness_range}
    at_least |= {"fit_crops": r.fit_crops}
    faults += [f"{key}: expected 0 or more, got {value}" for key, value in at_least.items() if not value >= 0]
    if not r.step_max >= r.step_min:
        faults.append(f"step_max: expected at least step_min, {r.step_min}, got {r.step_max}")
    return faults


def _shares(r: Recipe) -> list[str]:
    faults = []
    if not 0 <= r.ema < 1:
        faults.append(f"ema: expected 0 <= ema < 1, got {r.ema}")
    if not 0 < r.warm_up < 1:
        faults.append(f"warm_up: expected more than 0 and less than 1, got {r.warm_up}")
    for key in ("brightness", "finest_only", "coarsest_only", "few", "dated", "coarser"):
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


def differences(before: str, recipe: Recipe) -> list[str]:
    """Names of the keys in which a checkpoint's recipe (JSON) and another differ, the budget aside."""
    left, right = json.loads(before), json.loads(recipe.to_json())
    return sorted(
        key for key in left.keys() | right.keys() if key not in BUDGET and left.get(key) != right.get(key)
    )
