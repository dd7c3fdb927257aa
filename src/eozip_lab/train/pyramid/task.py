"""What training of pyramid codecs puts into a run: crops on their own grids, the twin's loss, integer weights.

Everything drawn for step n depends on (seed, n) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.pyramid import files
from eozip.codecs.pyramid.context import BITS_PER_SQUARED_STEP
from eozip.errors import WeightsError
from eozip_lab.train import state as states
from eozip_lab.train.data import Draw
from eozip_lab.train.export import checked_name, command_line, commit, hardware
from eozip_lab.train.pyramid import export
from eozip_lab.train.pyramid.data import Batch, Pool, batch, pool
from eozip_lab.train.pyramid.network import Net, Traversal
from eozip_lab.train.pyramid.passes import First, LaterNet, later_of, passes_of, zones_of
from eozip_lab.train.pyramid.quantisers import by_trellis, logistic_trellis
from eozip_lab.train.pyramid.recipe import Recipe, load
from eozip_lab.train.recipe import located, with_budget
from eozip_lab.train.run_log import Display
from eozip_lab.train.sitting import Run
from eozip_lab.train.state import BETAS, State

_PEAK = 10_000.0  # DN, of PSNR
_LEAST_ERROR = 1 / 12  # DN squared, what rounding to whole DN leaves: no example counts as better than that
_PASSES = 1  # stream of random numbers, beside the crops'
_TWO_PASSES = 0.65  # chance of two passes after the first, of which the first then stands for all before
_FINEST, _FINER = (
    frozenset({0}),
    frozenset({0, 1, 2}),
)  # levels behind the second and the first section of a pass
_LEAST_BITS, _EXPONENT = 0.03, -0.6
"""An example weighs (its bits + the least)**exponent: a per cent counts about the same."""


def configured(file: Path, minutes: float | None, steps: int | None, seed: int | None) -> Recipe:
    """A recipe with the caller's budget and seed, checked before data is read.

    Raises:
        InputError: no budget, a value out of range, or a name that could leave the folder.
    """
    recipe = with_budget(load(file), file, minutes, steps, seed)
    checked_name(recipe.name)
    return recipe


@dataclass(frozen=True)
class PyramidTask:
    """Training of a pyramid codec's network, on the CPU; see `eozip_lab.train.sitting.Task`.

    Attributes:
        recipe: what was asked for.
        found: all examples.
        first: what the first pass is coded with, where networks of later ones are trained.
    """

    recipe: Recipe
    found: Pool
    first: First | None = None
    device = torch.device("cpu")
    validation_minutes = math.inf

    @classmethod
    def opened(cls, recipe: Recipe, display: Display) -> Self:
        """The task with its data looked at."""
        return cls(recipe, pool(recipe, display.say), _first(recipe) if recipe.passes else None)

    @property
    def facts(self) -> dict[str, Any]:
        return self.found.facts

    def fresh(self) -> State:
        return _fresh(self.recipe)

    @contextmanager
    def feeding(self) -> Iterator[Callable[[int], Iterator[Batch]]]:
        yield self._batches

    def _batches(self, first: int) -> Iterator[Batch]:
        for step in count(first):
            yield batch(self.found, self.recipe, Draw(self.recipe.seed, step).rng())

    def loss(self, model: Net | LaterNet, batch: Batch, draw: Draw) -> tuple[Tensor, float, float]:
        if self.first is not None:
            return _loss_of_passes(self.first, model, batch, self.recipe, draw.rng(_PASSES))
        return _loss_of(model, batch)

    def validate(self, r: Run) -> None:
        """Nothing: the weights are judged by `eozip evaluate`."""

    def export(self, r: Run) -> tuple[Path, tuple[()]]:
        """Weights of the averaged network, with tables fitted to training crops, and a card."""
        weights = r.out / self.recipe.name
        card = _card(r, self.recipe, self.facts)
        if self.recipe.passes:
            export.write_later(weights, r.state.average, located(self.recipe.init), card)
            return weights, ()
        r.display.say("fitting probability tables")
        export.write(weights, r.state.average, self.found, self.recipe, card)
        return weights, ()


def _fresh(recipe: Recipe) -> State:
    """State of step 0."""
    torch.manual_seed(recipe.seed)
    net: Net | LaterNet = (LaterNet if recipe.passes else Net)(recipe.width, recipe.bfloat16)
    if recipe.passes:
        stored = files.read_folder(located(recipe.init))[1]
        net.load_state_dict(export.trained_later(stored) or later_of(export.trained(stored)))
    elif recipe.init:
        _take(net, located(recipe.init))
    group = {"params": list(net.parameters()), "lr": recipe.lr, "peak": recipe.lr}
    optimiser = torch.optim.AdamW([group], betas=BETAS, weight_decay=recipe.weight_decay)
    return State(net, optimiser, {name: value.clone() for name, value in net.state_dict().items()})


def _take(net: Net, path: Path) -> None:
    """Exported weights of a folder, or the average of a checkpoint."""
    given = export.trained(files.read_folder(path)[1]) if path.is_dir() else states.read(path)["average"]
    try:
        net.load_state_dict(given)
    except RuntimeError as error:
        raise WeightsError(f"init: {path} belongs to another network: {error}") from error


def _first(recipe: Recipe) -> First:
    """The first pass, of exported weights."""
    stored = files.read_folder(located(recipe.init))[1]
    net = Net(len(stored["0.trunk"]), recipe.bfloat16)
    net.load_state_dict(export.trained(stored))
    return First(net, zones_of(files.model_of(stored).tables))


def _loss_of_passes(
    first: First, net: LaterNet, drawn: Batch, recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, float, float]:
    """As `_loss_of`, of one or two passes after the first; bits and PSNR are those of the last."""
    depth = 2 if rng.random() < _TWO_PASSES else 1
    missing: frozenset[int] = frozenset()
    if rng.random() < recipe.missing:
        missing = _FINEST if rng.random() < 0.5 else _FINER
    rougher = None
    if drawn.references is not None:
        size = tuple(drawn.references.steps.shape)
        rougher = torch.from_numpy(np.where(rng.random(size) < recipe.rougher, 2.0, 1.0)).float()
    found = [_loss_after(one, drawn) for one in passes_of(first, net, drawn, depth, missing, rougher)]
    return torch.stack([loss for loss, _, _ in found]).mean(), *found[-1][1:]


def _loss_of(net: Net, drawn: Batch) -> tuple[Tensor, float, float]:
    """Loss, bits per sample and PSNR (peak 10,000 DN) of a batch."""
    quantise = by_trellis(logistic_trellis())
    one = Traversal(net, drawn.step, quantise, references=drawn.references, levels=drawn.levels)
    one.run(drawn.groups)
    return _loss_after(one, drawn)


def _loss_after(one: Traversal, drawn: Batch) -> tuple[Tensor, float, float]:
    """The same of a batch that went through a traversal."""
    count = sum(group[0].numel() for group in drawn.groups)
    rate, mse = one.bits / count, one.squares / count
    weight = (rate.detach() + _LEAST_BITS) ** _EXPONENT
    error = (mse.detach() * one.step**2).clamp(min=_LEAST_ERROR)
    decibels = 10 * torch.log10(_PEAK**2 / error)
    return ((rate + BITS_PER_SQUARED_STEP * mse) * weight).mean(), rate.mean().item(), decibels.mean().item()


def _card(r: Run, recipe: Recipe, facts: dict[str, Any]) -> str:
    """What the weights are and how they came about."""
    count = sum(value.numel() for value in r.state.model.parameters())
    held = [f"{h.array} (last {h.last:.0%})" if h.last else h.array for h in recipe.held]
    held = [
        f"{text} images {list(h.images)}" if h.images else text
        for text, h in zip(held, recipe.held, strict=True)
    ]
    lines = [
        f"# {recipe.name}",
        "",
        "Context network of the pyramid codecs: any bands of any sensor, groups on their own grids.",
        f"{count:,} numbers of 8 bits (biases of 16).",
        "",
        f"* steps: {r.state.step}, minutes: {r.state.seconds / 60:.1f}, skipped: {r.state.skipped}",
        f"* data: {facts['images']} images, {facts['native']} of them with bands on two grids",
        f"* files: {', '.join(facts['files'])}",
        f"* held back: {', '.join(held) or 'nothing'} ({facts['held_back']} images)",
        f"* command: `{command_line()}`, commit {commit()}, {hardware(torch.device('cpu'))}",
        "",
        "## Recipe",
        "",
        "```json",
        recipe.to_json(),
        "```",
        "",
    ]
    return "\n".join(lines)
