"""Recipes: everything that decides a training run, in one TOML file. docs/training.md explains every key."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from eozip.errors import InputError
from eozip_lab.train.augment import Augment
from eozip_lab.train.toml_schema import from_table

_SHIPPED = Path(__file__).parent / "recipes"
_DATA_VARIABLE = "$EOZIP_DATA"
_MULTIPLE = 32  # pixels: crops must fit the hyper-latent's stride
_DATA_KINDS = ("npz", "series", "geotiff", "ssl4eo", "ssl4eo-series")
_OPTIMISERS = ("adamw", "muon")
_BUDGET = ("minutes", "steps")  # may differ between a run and its continuation


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every run is told, whatever it trains; recipes of one kind of network add their own.

    Attributes:
        kind: the network.
        name: id of the exported weights.
        seed: of initial weights and of everything drawn.
        minutes: time budget, validation included.
        steps: step budget; with both, whatever is spent first.
        init: checkpoint or folder of exported weights to start from; empty: none.
        lr: peak learning rate.
        warm_up: share of the budget in which the rates rise; then they fall by a cosine to 2 %.
        ema: decay of the moving average of weights, which is what is validated and exported.
        clip: largest gradient norm.
        log_steps: steps between two lines of the log.
        checkpoint_minutes: time between two checkpoints.
    """

    kind: str
    name: str = ""
    seed: int = 0
    minutes: float | None = None
    steps: int | None = None
    init: str = ""
    lr: float = 8e-4
    warm_up: float = 0.02
    ema: float = 0.9985
    clip: float = 1.0
    log_steps: int = 50
    checkpoint_minutes: float = 5.0

    def to_json(self) -> str:
        """The recipe as JSON; equal recipes give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    def anchored(self, folder: Path) -> Self:
        """The same with relative paths made absolute; `$EOZIP_DATA` stays: a recipe is the same on every machine."""
        return replace(self, init=anchored_path(self.init, folder)) if self.init else self

    def faults(self) -> list[str]:
        """What is out of range, a sentence for each value."""
        keys = ("lr", "clip", "log_steps", "checkpoint_minutes", *_BUDGET)
        faults = not_positive({key: value for key in keys if (value := getattr(self, key)) is not None})
        if not 0 <= self.ema < 1:
            faults.append(f"ema: expected 0 <= ema < 1, got {self.ema}")
        if not 0 < self.warm_up < 1:
            faults.append(f"warm_up: expected more than 0 and less than 1, got {self.warm_up}")
        if self.seed < 0:
            faults.append(f"seed: expected 0 or more, got {self.seed}")
        return faults


_Recipe = TypeVar("_Recipe", bound=Settings)


def not_positive(values: Mapping[str, float]) -> list[str]:
    """A fault for each value that is not above 0 and finite."""
    return [
        f"{key}: expected more than 0, got {value}"
        for key, value in values.items()
        if not 0 < value < math.inf
    ]


@dataclass(frozen=True)
class DataSource:
    """One source of crops.

    Attributes:
        kind: "npz", "series" (the same, whose first axis is time), "geotiff", "ssl4eo" or "ssl4eo-series" (the same
            shards, the seasons of a sample as a series).
        path: a file or folder; `$EOZIP_DATA/...`, absolute, or relative to the recipe.
        crop: side of a crop in pixels, a multiple of 32.
        batch: crops per step.
        weight: turns of this source in a cycle of steps.
        only: file name patterns (without suffix; `file:array` for one array of an .npz) to take; empty takes all.
        skip: file name patterns to leave out.
        offset: DN contained in the data, taken off (1000 for baseline 04.00). None: what GeoTIFF tags say,
            else 0.
        steps_per_shard: ssl4eo and ssl4eo-series: steps that draw from one shard and its dates before the next is read.
        dates: series and ssl4eo-series: dates of an example.
    """

    kind: str
    path: str
    crop: int
    batch: int
    weight: int = 1
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    offset: int | None = None
    steps_per_shard: int = 8
    dates: int = 4


@dataclass(frozen=True)
class Place:
    """One stack to validate on: GeoTIFFs, one per date, or one array of an .npz.

    Attributes:
        name: for tables.
        paths: GeoTIFFs in time order, or one .npz, or one pack made by `eozip train --pack`.
        array: name of the array in the .npz or pack.
    """

    name: str
    paths: tuple[str, ...]
    array: str = ""


@dataclass(frozen=True)
class _Validation:
    """What is measured, and when.

    Attributes:
        places: stacks, never trained on.
        size: the upper left size x size pixels are used.
        every_minutes: time between two validations (there is always one at the start and one at the end).
        real_bytes: encode and decode at the end, and count the bytes.
        qualities: quality settings of that last measurement, 0 .. 100.
    """

    places: tuple[Place, ...]
    size: int = 256
    every_minutes: float = 8.0
    real_bytes: bool = True
    qualities: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """One training run of a network on crops of fixed bands; `kind` is a key of `eozip_lab.train.kinds.KINDS`.

    Attributes:
        data: sources of crops.
        validation: what is measured.
        sensor: what is trained on: the id of a sensor, or the path of a TOML file in the layout of those in
            `eozip/sensors`. Empty: Sentinel-2 Level-2A.
        network: overrides of the network's sizes; lambda range included.
        augment: random changes to crops.
        train_only: prefixes of parameters to train, such as "entropy."; empty: all.
        optimiser: "adamw", or "muon" for weights of layers with AdamW for the rest.
        muon_lr: multiple of `lr` for what Muon moves.
        workers: threads that read and augment crops.

    `name` empty: the kind, sensor and v0. Of `init` only tensors that fit are taken; the rest starts anew.
    """

    data: tuple[DataSource, ...]
    validation: _Validation
    sensor: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    augment: Augment = field(default_factory=Augment)
    train_only: tuple[str, ...] = ()
    optimiser: str = "adamw"
    muon_lr: float = 1.5
    workers: int = 1

    def anchored(self, folder: Path) -> Self:
        """See `Settings.anchored`."""
        data = tuple(replace(s, path=anchored_path(s.path, folder)) for s in self.data)
        places = tuple(
            replace(p, paths=tuple(anchored_path(path, folder) for path in p.paths))
            for p in self.validation.places
        )
        moved = super().anchored(folder)
        if self.sensor.endswith(".toml"):
            moved = replace(moved, sensor=anchored_path(self.sensor, folder))
        return replace(moved, data=data, validation=replace(self.validation, places=places))

    def faults(self) -> list[str]:
        """See `Settings.faults`."""
        keys = ("muon_lr", "workers")
        faults = [*super().faults(), *not_positive({key: getattr(self, key) for key in keys})]
        if self.optimiser not in _OPTIMISERS:
            faults.append(f"optimiser: expected one of {', '.join(_OPTIMISERS)}, got {self.optimiser!r}")
        if not self.data:
            faults.append("data: expected at least one [[data]] table, got none")
        for i, source in enumerate(self.data):
            faults += [f"data[{i}].{text}" for text in _source_faults(source)]
        return faults + [f"validation.{text}" for text in _validation_faults(self.validation)]


def load(path: Path | str) -> Recipe:
    """Read a recipe of a network on crops of fixed bands.

    Args:
        path: a TOML file, or the name of a shipped recipe.

    Raises:
        InputError: no such recipe, not TOML, or a key that is unknown, missing or out of range.
    """
    return load_as(Recipe, path)


def load_as(cls: type[_Recipe], path: Path | str) -> _Recipe:
    """Read a recipe of one kind of run; see `load`."""
    file = find(path)
    return _checked(from_table(cls, _table_of(file), str(file)).anchored(file.parent), str(file))


def with_budget(
    recipe: _Recipe, file: Path, minutes: float | None, steps: int | None, seed: int | None
) -> _Recipe:
    """The recipe with a caller's budget and seed, checked.

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
    return _checked(recipe, str(file))


def _table_of(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected a TOML file, got {error}") from error


def kind_named(path: Path | str) -> str:
    """Read the `kind` of a recipe that need not be valid otherwise; empty if it names none.

    Raises:
        InputError: no such recipe, or not TOML.
    """
    return str(_table_of(find(path)).get("kind", ""))


def find(path: Path | str) -> Path:
    """The file of a recipe given by path or shipped name."""
    shipped = _SHIPPED / f"{Path(path).name.removesuffix('.toml')}.toml"
    if Path(path).is_file():
        return Path(path)
    if Path(path).name == str(path) and shipped.is_file():
        return shipped
    names = ", ".join(sorted(p.stem for p in _SHIPPED.glob("*.toml")))
    raise InputError(f"no recipe {path}; expected a TOML file or one of the shipped recipes: {names}")


def _checked(recipe: _Recipe, where: str) -> _Recipe:
    """The recipe itself, if every value is in range.

    Raises:
        InputError: a value out of range.
    """
    faults = recipe.faults()
    if faults:
        raise InputError(f"{where}: " + "; ".join(faults))
    return recipe


def _source_faults(s: DataSource) -> list[str]:
    faults = []
    if s.kind not in _DATA_KINDS:
        faults.append(f"kind: expected one of {', '.join(_DATA_KINDS)}, got {s.kind!r}")
    if s.crop <= 0 or s.crop % _MULTIPLE:
        faults.append(f"crop: expected a multiple of {_MULTIPLE}, got {s.crop}")
    for key in ("batch", "weight", "steps_per_shard", "dates"):
        if getattr(s, key) < 1:
            faults.append(f"{key}: expected 1 or more, got {getattr(s, key)}")
    return faults


def _validation_faults(v: _Validation) -> list[str]:
    faults = []
    if v.size <= 0 or v.size % _MULTIPLE:
        faults.append(f"size: expected a multiple of {_MULTIPLE}, got {v.size}")
    if v.every_minutes <= 0:
        faults.append(f"every_minutes: expected more than 0, got {v.every_minutes}")
    if not v.places or not all(place.paths for place in v.places):
        faults.append("places: expected at least one place with paths")
    if any(not 0 <= q <= 100 for q in v.qualities):
        faults.append(f"qualities: expected 0 .. 100, got {list(v.qualities)}")
    return faults


def anchored_path(path: str, folder: Path) -> str:
    """A recipe's path made absolute, unless it begins with `$EOZIP_DATA`."""
    is_symbolic = path == _DATA_VARIABLE or path.startswith(_DATA_VARIABLE + "/")
    return path if is_symbolic else str((folder / path).absolute())


def located(path: str) -> Path:
    """The file or folder that a recipe's path means, which must exist.

    Raises:
        InputError: nothing there.
    """
    full = (
        Path(path.replace(_DATA_VARIABLE, str(data_root()), 1))
        if path.startswith(_DATA_VARIABLE)
        else Path(path)
    )
    if not full.exists():
        hint = f" ({_DATA_VARIABLE} is {data_root()}; set it)" if path.startswith(_DATA_VARIABLE) else ""
        raise InputError(f"{full}: no such file or folder, but the recipe names it{hint}")
    return full


def data_root() -> Path:
    """The environment variable EOZIP_DATA, else the folder `shared` beside the checkout."""
    return Path(os.environ.get("EOZIP_DATA") or Path(__file__).parents[4] / "shared")


def differences(a: Settings, b: Settings) -> list[str]:
    """Names of the keys in which two recipes differ, the budget aside."""
    left, right = (json.loads(r.to_json()) for r in (a, b))
    keys = sorted(left.keys() | right.keys())
    return [key for key in keys if key not in _BUDGET and left.get(key) != right.get(key)]
