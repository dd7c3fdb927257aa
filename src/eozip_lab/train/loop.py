"""`eozip train`: one run from recipe to weights, resumable at every step, of any kind of network.

`run` reads the recipe, makes the task of its kind, and has `eozip_lab.train.sitting` do the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from eozip.errors import InputError
from eozip.threads import choose, settling
from eozip_lab.train import export, pyramid, run_log, validate
from eozip_lab.train import state as states
from eozip_lab.train.data import Draw
from eozip_lab.train.data_sources import check_apart, open_sources
from eozip_lab.train.kinds import Kind, kind_for
from eozip_lab.train.loader import feeding
from eozip_lab.train.objective import sampled_levels
from eozip_lab.train.pyramid.recipe import KIND as PYRAMID
from eozip_lab.train.recipe import Recipe, find, kind_named, load, located
from eozip_lab.train.run_log import Display, displayed, draw_curve
from eozip_lab.train.setup import configured, picked_device, prepared_folder
from eozip_lab.train.sitting import Outcome, Run, Task, begun, sit
from eozip_lab.train.state import CHECKPOINT, State

_LEVELS = 1  # stream of random numbers, beside the crops'
_RUNS = Path("runs")


def run(
    recipe: Path | str,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    data: Path | None = None,
    other_recipe: bool = False,
) -> Outcome:
    """Train a codec.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        minutes: time budget; the learning rate falls to its end over it. Replaces the recipe's budgets.
        steps: step budget, likewise; with both, whatever is spent first.
        out: folder for checkpoint, log, curve and weights; default: runs/<name of the recipe>.
        resume: go on from the checkpoint in `out`.
        device: "cpu", "cuda", "cuda:1"; default: CUDA where there is any.
        threads: CPU threads of torch; None: as many as there are idle cores, step by step.
        seed: replaces the recipe's.
        progress: show progress on stderr.
        data: a pack made by `pack`: read instead of the recipe's sources and validation places.
        other_recipe: let `resume` go on with a recipe that differs from the checkpoint's.

    Raises:
        InputError: a recipe, data or arguments that cannot be used.
        OutputError: `out` holds a checkpoint already, or none to resume from, or lies inside the package.
        DivergedError: losses or gradients that are not finite, 20 steps in a row.
    """
    file = find(recipe)
    is_pyramid = kind_named(recipe) == PYRAMID
    if is_pyramid and (device not in (None, "cpu") or data is not None):
        raise InputError(f"{PYRAMID}: expected no device but cpu and no pack of data, got {data or device}")
    asked = (file, minutes, steps, seed)
    chosen = pyramid.configured(*asked) if is_pyramid else configured(load(recipe), *asked, data)
    choose(threads)
    where = torch.device("cpu") if is_pyramid else picked_device(device)
    folder = prepared_folder(out or _RUNS / file.stem, resume)
    with displayed(progress) as display, exact_convolutions(where), settling() as settle:
        content = states.read(folder / CHECKPOINT) if resume else None
        if content is not None:
            states.check_recipe(content, chosen, other_recipe)
        task: Task
        if isinstance(chosen, pyramid.Recipe):
            task = pyramid.PyramidTask.opened(chosen, display)
        else:
            task = _NetworkTask.opened(chosen, where, display, is_new=content is None)
        return sit(begun(task, folder, content, other_recipe, display), settle)


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA, float32 convolutions stay float32: TF32's 10 bits would lose whole steps of large latents."""
    guard = torch.backends.cudnn.flags(allow_tf32=False) if device.type == "cuda" else nullcontext()
    with guard:
        yield


@dataclass(frozen=True)
class _NetworkTask:
    """Training of a network of `eozip_lab.train.kinds`.

    Attributes:
        recipe: what was asked for.
        kind: the network.
        device: where it is trained.
        stacks: what it is validated on.
        facts: about each source of crops.
        is_new: no checkpoint follows, so the recipe's `init` counts.
    """

    recipe: Recipe
    kind: Kind
    device: torch.device
    stacks: Sequence[validate.Stack]
    facts: Sequence[dict[str, Any]]
    is_new: bool

    @classmethod
    def opened(cls, recipe: Recipe, device: torch.device, display: Display, is_new: bool) -> Self:
        """The task with its data looked at, train and validation kept apart."""
        kind = kind_for(recipe)
        display.say("reading data")
        stacks = validate.load_places(recipe, kind.band_names)
        facts = _first_look(recipe, kind)
        for k, entry in enumerate(facts):
            if entry.get("left_out"):
                counts = Counter(name.partition(":")[0] for name in entry["left_out"])
                text = ", ".join(f"{count} of {name}" for name, count in counts.items())
                display.say(f"data[{k}]: left out arrays of other bands or smaller than the crop: {text}")
        return cls(recipe, kind, device, stacks, facts, is_new)

    @property
    def validation_minutes(self) -> float:
        return self.recipe.validation.every_minutes

    def fresh(self) -> State:
        model = new_model(self.recipe, self.kind, self.is_new).to(self.device)
        return states.fresh(model, self.recipe)

    @contextmanager
    def feeding(self) -> Iterator[Callable[[int], Iterator[Tensor]]]:
        with feeding(self.recipe, lambda: open_sources(self.recipe, self.kind.band_names)) as feed:
            yield feed.batches

    def loss(self, model: nn.Module, batch: Tensor, draw: Draw) -> tuple[Tensor, float, float]:
        torch.manual_seed(int(draw.rng(_LEVELS).integers(2**63)))  # the quantisation noise of this step
        t = sampled_levels(model.config.levels, len(batch), draw.rng(_LEVELS, 0))
        loss, rate, mse = self.kind.loss(model, batch.to(self.device), t.to(self.device))
        return loss, rate.mean().item(), _decibels(model, mse)

    def validate(self, r: Run) -> None:
        points = validate.estimates(r.averaged(), self.stacks, self.device)
        _log_points(r, "validation", points)
        draw_curve(r.log.lines(), r.out / run_log.CURVE)

    def export(self, r: Run) -> tuple[Path, Sequence[validate.Point]]:
        """Weights, their real bytes, a card, and the curve."""
        how = (export.command_line(), export.commit(), export.hardware(self.device))
        facts = export.Facts(r.state.step, r.state.seconds, self.facts, *how)
        weights = export.export(r.out, self.recipe, r.averaged().cpu(), facts)
        points = self._measured(r, weights) if self.recipe.validation.real_bytes else []
        export.describe(weights, self.recipe, replace(facts, points=points))
        draw_curve(r.log.lines(), r.out / run_log.CURVE)
        return weights, points

    def _measured(self, r: Run, weights: Path) -> list[validate.Point]:
        """Real bytes of the weights as exported, loaded again."""
        r.display.say("measuring real bytes")
        points = validate.real_bytes(self.kind.load(weights), self.stacks, self.recipe.validation.qualities)
        _log_points(r, "bytes", points)
        return points


def _first_look(recipe: Recipe, kind: Kind) -> list[dict[str, Any]]:
    """Facts about the data; train and validation kept apart."""
    sources = open_sources(recipe, kind.band_names)
    try:
        check_apart([file for source in sources for file in source.files()], validate.place_files(recipe))
        return [source.facts for source in sources]
    finally:
        for source in sources:
            source.close()


def new_model(recipe: Recipe, kind: Kind, is_new: bool = True) -> nn.Module:
    """A model at its start: random weights and what fits of the recipe's `init`; not new: a checkpoint follows, as built."""
    torch.manual_seed(recipe.seed)
    model = kind.build(kind.configured(recipe.network))
    if is_new:
        kind.begin(model, _given_tensors(recipe, kind))
    return model


def _given_tensors(recipe: Recipe, kind: Kind) -> Mapping[str, Tensor]:
    """Tensors of the recipe's `init`: a checkpoint's averages, or exported weights."""
    if not recipe.init:
        return {}
    path = located(recipe.init)
    return kind.given(path) if path.is_dir() else states.read(path)["average"]


def _decibels(model: nn.Module, mse: Tensor) -> float:
    """Mean PSNR of a batch from its MSE in standardised units, clipping at the peak left aside."""
    return (10 * torch.log10(validate.PEAK**2 / (mse.detach() * model.unit**2))).mean().item()


def _log_points(r: Run, event: str, points: Sequence[validate.Point]) -> None:
    at = {f"{db:g}": validate.mean_at_psnr(points, db) for db in validate.PSNRS}
    tables = {"points": export.points_table(points), "mean": export.points_table(validate.means(points))}
    r.log.write(event, step=r.state.step, seconds=round(r.clock(), 1), at=at, **tables)
    rates = ", ".join(f"{db} dB {'-' if rate is None else f'{rate:.4f}'}" for db, rate in at.items())
    r.display.say(f"{event} at step {r.state.step}: bpppb at {rates}")
