"""Everything a run needs to go on as if it had never stopped, and its checkpoint file."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from eozip.errors import InputError, WeightsError
from eozip.outputs import publish
from eozip_lab.train.muon import Together, muon_and_adamw
from eozip_lab.train.objective import Rates, parameter_groups
from eozip_lab.train.recipe import Recipe, Settings, differences
from eozip_lab.train.toml_schema import from_table

CHECKPOINT = "checkpoint.pt"
_FORMAT = 1
BETAS = (0.9, 0.98)
_RATES = ("peak", "weight_decay")  # of a group of parameters
_Recipe = TypeVar("_Recipe", bound=Settings)


@dataclass
class State:
    """The changing part of a run.

    Attributes:
        model: the network being trained.
        optimiser: over it, AdamW or Muon with AdamW.
        average: moving average of every float tensor of the model, by name.
        step: steps done.
        seconds: time used, validation included.
        skipped: steps left out because loss or gradient were not finite.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer | Together
    average: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0


def fresh(model: nn.Module, recipe: Recipe) -> State:
    """State of step 0.

    Raises:
        InputError: `train_only` leaves nothing to train, or nothing that Muon could move.
    """
    factor = recipe.muon_lr if recipe.optimiser == "muon" else None
    rates = Rates(recipe.lr, factor)
    groups = parameter_groups(model, rates, recipe.train_only)
    if not groups:
        raise InputError(f"train_only: no parameter begins with any of {', '.join(recipe.train_only)}")
    return State(model, _optimiser(recipe, groups), {k: v.clone() for k, v in model.state_dict().items()})


def _optimiser(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer | Together:
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0)
    if not any(group["is_matrix"] for group in groups):
        raise InputError(
            "optimiser: muon moves weights of layers, but none is trained here; "
            'expected optimiser = "adamw", or another train_only'
        )
    return muon_and_adamw(groups, BETAS)


@torch.no_grad()
def follow(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """One step of the moving average."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)


def save(state: State, recipe: Settings, folder: Path) -> None:
    """Write the checkpoint under a temporary name, then rename it."""
    content = {
        "format": _FORMAT,
        "recipe": recipe.to_json(),
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "average": state.average,
        "step": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
    }
    part = folder / f"{CHECKPOINT}.part"
    with part.open("wb") as file:
        torch.save(content, file)
    publish(part, folder / CHECKPOINT, overwrite=True)


def read(path: Path) -> dict[str, Any]:
    """Content of a checkpoint file, opened without running any code in it; tensors on the CPU.

    Raises:
        WeightsError: missing, damaged, or not a checkpoint of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: expected a checkpoint of `eozip train`, got {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise WeightsError(f"{path}: expected a checkpoint of format {_FORMAT} written by `eozip train`")
    return content


def recipe_of(content: dict[str, Any]) -> Recipe:
    """The recipe that a checkpoint of a network on crops of fixed bands was trained by."""
    return _recipe_as(Recipe, content)


def _recipe_as(cls: type[_Recipe], content: dict[str, Any]) -> _Recipe:
    return from_table(cls, json.loads(content["recipe"], object_hook=_without_none), "checkpoint recipe")


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def check_recipe(content: dict[str, Any], recipe: Settings, other_recipe: bool) -> None:
    """Refuse to go on from a checkpoint with a recipe that means another run.

    Raises:
        InputError: it was trained by another recipe, and that was not asked for; or by another optimiser, whose
            state means nothing to this one.
    """
    before = _recipe_as(type(recipe), content)
    changed = differences(before, recipe)
    if changed and not other_recipe:
        raise InputError(
            f"the checkpoint was trained by another recipe (other values of {', '.join(changed)}); resume "
            "with the recipe it began with, or allow the change explicitly (other_recipe=True)"
        )
    if "optimiser" in changed:
        raise InputError(
            f"optimiser: expected {getattr(before, 'optimiser', None)}, which the checkpoint was trained by, got "
            f"{getattr(recipe, 'optimiser', None)}; to change it, begin another run whose init is this checkpoint"
        )


def restore(state: State, content: dict[str, Any], recipe: Settings, other_recipe: bool) -> None:
    """Put a checkpoint's content into `state`.

    Raises:
        InputError: see `check_recipe`.
        WeightsError: it belongs to another network.
    """
    check_recipe(content, recipe, other_recipe)
    asked = [{k: group[k] for k in _RATES if k in group} for group in state.optimiser.param_groups]
    try:
        state.model.load_state_dict(content["model"])
        state.optimiser.load_state_dict(content["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the checkpoint belongs to another network: {error}") from error
    for group, rates in zip(state.optimiser.param_groups, asked, strict=True):
        group.update(rates)  # the recipe's hold, not those the checkpoint was trained at
    for name, value in content["average"].items():
        state.average[name].copy_(value)
    state.step, state.seconds, state.skipped = content["step"], content["seconds"], content["skipped"]
