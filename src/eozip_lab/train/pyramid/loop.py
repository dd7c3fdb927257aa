"""`eozip train` for pyramid codecs: one run from recipe to weights, resumable at every step.

Everything drawn for step n depends on (seed, n) alone and the checkpoint holds the rest, so a run that was stopped and
resumed gives the weights of one that was not: bit for bit on one thread with a budget of steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.pyramid import files
from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP
from eozip.errors import InputError, WeightsError
from eozip.threads import choose, settling
from eozip_lab.train import run_log
from eozip_lab.train import state as states
from eozip_lab.train.data import Draw
from eozip_lab.train.export import checked_name, command_line, commit, hardware
from eozip_lab.train.interrupts import noticing_interrupts
from eozip_lab.train.loop import PATIENCE, RUNS, DivergedError, Outcome, descend
from eozip_lab.train.objective import schedule
from eozip_lab.train.pyramid import export
from eozip_lab.train.pyramid.data import Batch, Pool, batch, pool
from eozip_lab.train.pyramid.network import Net, Traversal
from eozip_lab.train.pyramid.recipe import Recipe, configured, differences, load
from eozip_lab.train.recipe import find, located
from eozip_lab.train.run_log import Display, Journal, Tick, displayed
from eozip_lab.train.setup import need_coder, prepared_folder
from eozip_lab.train.state import BETAS, CHECKPOINT, State

PEAK = 10_000.0  # DN, of PSNR
LEAST_BITS, EXPONENT = (
    0.03,
    -0.6,
)  # an example weighs (its bits + the least)**exponent: a per cent counts about the same


@dataclass
class Run:
    """A run in progress: what stays the same, and its state."""

    recipe: Recipe
    out: Path
    state: State
    found: Pool
    display: Display
    log: Journal
    began: float = field(default_factory=time.monotonic)
    stats: list[tuple[float, float, float]] = field(default_factory=list)
    bad: int = 0
    last_save: float = 0.0

    def clock(self) -> float:
        """Seconds used so far, earlier sittings included."""
        self.state.seconds += (now := time.monotonic()) - self.began
        self.began = now
        return self.state.seconds

    def done(self) -> float:
        """Part of the budget used, 0 .. 1; of two budgets, the one that is nearer its end."""
        parts = [0.0]
        if self.recipe.steps is not None:
            parts.append(self.state.step / self.recipe.steps)
        if self.recipe.minutes is not None:
            parts.append(self.clock() / 60 / self.recipe.minutes)
        return min(1.0, max(parts))


def run(
    recipe: Path | str,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    other_recipe: bool = False,
) -> Outcome:
    """Trains a pyramid codec, on the CPU.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        minutes: time budget; the learning rate falls to its end over it. Replaces the recipe's budgets.
        steps: step budget, likewise; with both, whatever is spent first.
        out: folder for checkpoint, log and weights; default: runs/<name of the recipe>.
        resume: go on from the checkpoint in `out`.
        threads: CPU threads of torch; None: as many as there are idle cores, step by step.
        seed: replaces the recipe's.
        progress: show progress on stderr.
        other_recipe: let `resume` go on with a recipe that differs from the checkpoint's.

    Raises:
        InputError: a recipe, data or arguments that cannot be used.
        OutputError: `out` holds a checkpoint already, or none to resume from, or lies inside the package.
        DivergedError: losses or gradients that are not finite, 20 steps in a row.
    """
    chosen = configured(load(recipe), find(recipe), minutes, steps, seed)
    checked_name(chosen.name)
    need_coder()
    choose(threads)
    folder = prepared_folder(out or RUNS / find(recipe).stem, resume)
    with displayed(progress) as display, settling() as settle:
        state = begun(chosen)
        if resume:
            restore(state, folder, chosen, other_recipe)
        found = pool(chosen, display.say)
        current = Run(chosen, folder, state, found, display, Journal(folder / run_log.LOG))
        current.last_save = state.seconds
        _log_start(current, resume)
        return _sitting(current, settle)


def begun(recipe: Recipe) -> State:
    """State of step 0."""
    torch.manual_seed(recipe.seed)
    net = Net(recipe.width, recipe.bfloat16)
    if recipe.init:
        _take(net, located(recipe.init))
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=recipe.lr, betas=BETAS, weight_decay=recipe.weight_decay
    )
    return State(net, optimiser, {name: value.clone() for name, value in net.state_dict().items()})


def _take(net: Net, path: Path) -> None:
    """Exported weights of a folder, or the average of a checkpoint."""
    given = export.trained(files.read_folder(path)[1]) if path.is_dir() else states.read(path)["average"]
    try:
        net.load_state_dict(given)
    except RuntimeError as error:
        raise WeightsError(f"init: {path} belongs to another network: {error}") from error


def restore(state: State, folder: Path, recipe: Recipe, other_recipe: bool) -> None:
    """Puts the content of a folder's checkpoint into `state`.

    Raises:
        InputError: it was trained by another recipe, and that was not asked for.
        WeightsError: it belongs to another network.
    """
    content = states.read(folder / CHECKPOINT)
    changed = differences(content["recipe"], recipe)
    if changed and not other_recipe:
        raise InputError(
            f"the checkpoint was trained by another recipe (other values of {', '.join(changed)}); resume "
            "with the recipe it began with, or allow the change explicitly (other_recipe=True)"
        )
    try:
        state.model.load_state_dict(content["model"])
        state.optimiser.load_state_dict(content["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the checkpoint belongs to another network: {error}") from error
    for group in state.optimiser.param_groups:
        group["weight_decay"] = recipe.weight_decay
    for name, value in content["average"].items():
        state.average[name].copy_(value)
    state.step, state.seconds, state.skipped = content["step"], content["seconds"], content["skipped"]


def _log_start(r: Run, resume: bool) -> None:
    if resume:
        r.log.drop_after(r.state.step)
    facts = {"recipe": r.recipe.to_json(), "data": r.found.facts, "command": command_line()}
    facts |= {"commit": commit(), "hardware": hardware(torch.device("cpu"))}
    r.log.write("resume" if resume else "start", step=r.state.step, **facts)


def _sitting(r: Run, settle: Callable[[], None]) -> Outcome:
    """Steps until the budget is used up or someone interrupts; then checkpoint and, at the end, weights."""
    with noticing_interrupts() as is_interrupted:
        while r.done() < 1 and not is_interrupted():
            settle()
            _step(r)
            _look_after(r)
        r.clock()
        _save(r)
        if is_interrupted():
            r.log.write("interrupted", step=r.state.step)
            r.display.say(f"interrupted at step {r.state.step}; go on with --resume --out {r.out}")
            return Outcome(r.out, r.state.step, r.state.seconds, r.state.skipped, finished=False)
        return _finish(r)


def _step(r: Run) -> None:
    """One step of the optimiser, or a skipped one if loss or gradient are not finite."""
    state = r.state
    for group in state.optimiser.param_groups:
        group["lr"] = r.recipe.lr * schedule(r.done(), r.recipe.warm_up)
    drawn = batch(r.found, r.recipe, Draw(r.recipe.seed, state.step).rng())
    loss, rate, decibels = loss_of(state.model, drawn)
    is_good = descend(state, loss, r.recipe.clip)
    state.step += 1
    if is_good:
        states.follow(state.average, state.model, min(r.recipe.ema, state.step / (state.step + 20)))
        r.stats.append((loss.item(), rate, decibels))
    _count_bad(r, is_good)


def loss_of(net: Net, drawn: Batch) -> tuple[Tensor, float, float]:
    """Loss, bits per sample and PSNR (peak 10,000 DN) of a batch."""
    one = Traversal(net, drawn.step, references=drawn.references)
    one.run(drawn.groups)
    count = sum(group[0].numel() for group in drawn.groups)
    rate, mse = one.bits / count, one.squares / count
    weight = (rate.detach() + LEAST_BITS) ** EXPONENT
    decibels = 10 * torch.log10(PEAK**2 / (mse.detach() * drawn.step**2))
    return ((rate + BITS_PER_SQUARED_STEP * mse) * weight).mean(), rate.mean().item(), decibels.mean().item()


def _count_bad(r: Run, is_good: bool) -> None:
    r.bad = 0 if is_good else r.bad + 1
    if is_good:
        return
    r.state.skipped += 1
    r.log.write("skipped", step=r.state.step)
    if r.bad >= PATIENCE:
        raise DivergedError(
            f"loss or gradient not finite in {PATIENCE} steps in a row, up to step {r.state.step}; the last "
            f"checkpoint in {r.out} is from before. Lower lr, or look for broken pixels in the data"
        )


def _look_after(r: Run) -> None:
    """What happens between steps: progress, log, checkpoint."""
    if r.stats:
        tick = _tick(r)
        r.display.tick(tick)
        if r.state.step % r.recipe.log_steps == 0:
            facts = {"loss": tick.loss, "bpppb": tick.bpppb, "psnr": tick.psnr}
            r.log.write("train", step=tick.step, seconds=round(r.clock(), 1), **facts)
            r.stats.clear()
    if r.clock() - r.last_save >= 60 * r.recipe.checkpoint_minutes and r.bad == 0:
        _save(r)


def _tick(r: Run) -> Tick:
    done = r.done()
    left = r.clock() * (1 - done) / done if done > 0 else None
    return Tick(r.state.step, done, left, *map(float, np.mean(r.stats, 0)))


def _save(r: Run) -> None:
    r.last_save = r.clock()
    states.save(r.state, r.recipe, r.out)


def _finish(r: Run) -> Outcome:
    """Weights of the averaged network, with tables fitted to training crops, and a card."""
    r.display.say("fitting probability tables")
    weights = r.out / r.recipe.name
    export.write(weights, r.state.average, r.found, r.recipe, card(r))
    r.log.write("end", step=r.state.step, seconds=round(r.state.seconds, 1), skipped=r.state.skipped)
    return Outcome(r.out, r.state.step, r.state.seconds, r.state.skipped, True, weights)


def card(r: Run) -> str:
    """What the weights are and how they came about."""
    count = sum(value.numel() for value in r.state.model.parameters())
    facts = r.found.facts
    held = [f"{h.array} (last {h.last:.0%})" if h.last else h.array for h in r.recipe.held]
    held = [
        f"{text} images {list(h.images)}" if h.images else text
        for text, h in zip(held, r.recipe.held, strict=True)
    ]
    lines = [
        f"# {r.recipe.name}",
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
        r.recipe.to_json(),
        "```",
        "",
    ]
    return "\n".join(lines)
