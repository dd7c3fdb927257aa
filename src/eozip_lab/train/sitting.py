"""The frame of every training run: steps until a budget is used up, checkpoints, a log, and weights at the end.

What is trained, on what, and what is made of it, is a `Task`; `eozip_lab.train.loop` has the tasks. Random numbers of step n
depend on (seed, n) alone and the checkpoint holds the rest, so a run that was stopped and resumed gives the weights of one
that was not: bit for bit on one thread with a budget of steps (with one of minutes the learning rate follows the clock).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from eozip.errors import EozipError
from eozip_lab.train import export
from eozip_lab.train import state as states
from eozip_lab.train.data import Draw
from eozip_lab.train.interrupts import noticing_interrupts
from eozip_lab.train.objective import schedule
from eozip_lab.train.recipe import Settings
from eozip_lab.train.run_log import LOG, Display, Journal, Tick
from eozip_lab.train.state import State
from eozip_lab.train.validate import Point

_PATIENCE = 20  # steps in a row with a loss or gradient that is not finite


class _DivergedError(EozipError):
    """Training went astray: losses or gradients that are not finite, again and again."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        out: folder with checkpoint.pt, log.jsonl and, of networks with validation places, curve.png.
        steps: steps done, over all sittings.
        seconds: time used, over all sittings.
        skipped: steps left out because loss or gradient were not finite.
        finished: the budget was used up; False after an interrupt.
        weights: the exported folder; None after an interrupt.
        points: real bytes per place and quality; empty if not measured.
    """

    out: Path
    steps: int
    seconds: float
    skipped: int
    finished: bool
    weights: Path | None = None
    points: tuple[Point, ...] = ()


class Task(Protocol):
    """What one kind of network puts into a run."""

    @property
    def recipe(self) -> Settings:
        """What was asked for."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        ...

    @property
    def facts(self) -> Any:
        """What the log says about the data; ready for JSON."""
        ...

    @property
    def validation_minutes(self) -> float:
        """Time between two validations; infinite where nothing is validated."""
        ...

    def fresh(self) -> State:
        """The state of step 0, on the device."""
        ...

    def feeding(self) -> AbstractContextManager[Callable[[int], Iterator[Any]]]:
        """What gives endless batches from a step on; batch n depends on (seed, n) alone."""
        ...

    def loss(self, model: nn.Module, batch: Any, draw: Draw) -> tuple[Tensor, float, float]:
        """Loss, bits per sample and PSNR in dB of a batch; draw: random numbers of this step."""
        ...

    def validate(self, r: Run) -> None:
        """Measure the averaged network, and log what was found."""
        ...

    def export(self, r: Run) -> tuple[Path, Sequence[Point]]:
        """Write weights, the run being over: their folder, and what was measured of them."""
        ...


@dataclass
class Run:
    """A run in progress: what stays the same, and its state."""

    task: Task
    out: Path
    state: State
    display: Display
    log: Journal
    began: float = field(default_factory=time.monotonic)
    stats: list[tuple[float, float, float]] = field(default_factory=list)
    bad: int = 0
    last_check: float = 0.0
    last_save: float = 0.0

    @property
    def recipe(self) -> Settings:
        """The task's."""
        return self.task.recipe

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

    def averaged(self) -> nn.Module:
        """A copy of the model with the averaged weights, in eval mode."""
        shadow = copy.deepcopy(self.state.model)
        shadow.load_state_dict(self.state.average)
        return shadow.eval()


def begun(task: Task, out: Path, content: dict[str, Any] | None, other_recipe: bool, display: Display) -> Run:
    """A run before its first step of this sitting; content: of the checkpoint that it goes on from."""
    state = task.fresh()
    if content is not None:
        states.restore(state, content, task.recipe, other_recipe)
    run = Run(task, out, state, display, Journal(out / LOG))
    run.last_check = run.last_save = state.seconds
    if content is not None:
        run.log.drop_after(state.step)
    facts = {"recipe": task.recipe.to_json(), "data": task.facts, "command": export.command_line()}
    facts |= {"commit": export.commit(), "hardware": export.hardware(task.device)}
    run.log.write("start" if content is None else "resume", step=state.step, **facts)
    return run


def sit(r: Run, settle: Callable[[], None]) -> Outcome:
    """Steps until the budget is used up or someone interrupts; then checkpoint and, at the end, weights.

    Args:
        r: the run.
        settle: called before each step; see `eozip.threads.settling`.

    Raises:
        DivergedError: losses or gradients that are not finite, `_PATIENCE` steps in a row.
    """
    with noticing_interrupts() as is_interrupted:
        if r.state.step == 0:
            _validate(r)
        with r.task.feeding() as batches_from:
            r.state.model.train()
            batches = batches_from(r.state.step)
            while r.done() < 1 and not is_interrupted():
                settle()
                _step(r, next(batches))
                _look_after(r)
        r.clock()
        _save(r)
        return _interrupted(r) if is_interrupted() else _finish(r)


def _step(r: Run, batch: Any) -> None:
    """One step of the optimiser, or a skipped one if loss or gradient are not finite."""
    state = r.state
    factor = schedule(r.done(), r.recipe.warm_up)
    for group in state.optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    loss, rate, decibels = r.task.loss(state.model, batch, Draw(r.recipe.seed, state.step))
    is_good = _descend(state, loss, r.recipe.clip)
    state.step += 1
    if is_good:
        states.follow(state.average, state.model, min(r.recipe.ema, (1 + state.step) / (10 + state.step)))
        r.stats.append((loss.item(), rate, decibels))
    _count_bad(r, is_good)


def _descend(state: State, loss: Tensor, clip: float) -> bool:
    """Backward pass and update; False, and nothing changed, if anything is not finite."""
    if not math.isfinite(loss.item()):
        return False
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip)
    if not math.isfinite(norm.item()):
        return False
    state.optimiser.step()
    return True


def _count_bad(r: Run, is_good: bool) -> None:
    r.bad = 0 if is_good else r.bad + 1
    if is_good:
        return
    r.state.skipped += 1
    r.log.write("skipped", step=r.state.step)
    if r.bad >= _PATIENCE:
        raise _DivergedError(
            f"loss or gradient not finite in {_PATIENCE} steps in a row, up to step {r.state.step}; the last "
            f"checkpoint in {r.out} is from before. Lower lr, or look for broken pixels in the data"
        )


def _look_after(r: Run) -> None:
    """What happens between steps: log, validation, checkpoint, progress."""
    if r.stats:
        tick = _tick(r)
        r.display.tick(tick)
        if r.state.step % r.recipe.log_steps == 0:
            facts = {"loss": tick.loss, "bpppb": tick.bpppb, "psnr": tick.psnr}
            r.log.write("train", step=tick.step, seconds=round(r.clock(), 1), **facts)
            r.stats.clear()
    if r.clock() - r.last_check >= 60 * r.task.validation_minutes:
        _validate(r)
        _save(r)
    elif r.clock() - r.last_save >= 60 * r.recipe.checkpoint_minutes and r.bad == 0:
        _save(r)


def _tick(r: Run) -> Tick:
    done = r.done()
    loss, rate, db = np.mean(r.stats, 0)
    left = r.state.seconds * (1 - done) / done if done > 0 else None
    return Tick(r.state.step, done, left, float(loss), float(rate), float(db))


def _validate(r: Run) -> None:
    r.task.validate(r)
    r.last_check = r.clock()


def _save(r: Run) -> None:
    r.last_save = r.clock()
    states.save(r.state, r.recipe, r.out)


def _interrupted(r: Run) -> Outcome:
    r.log.write("interrupted", step=r.state.step)
    r.display.say(f"interrupted at step {r.state.step}; go on with --resume --out {r.out}")
    return Outcome(r.out, r.state.step, r.state.seconds, r.state.skipped, finished=False)


def _finish(r: Run) -> Outcome:
    """Last validation, weights, and the end of the log."""
    _validate(r)
    weights, points = r.task.export(r)
    state = r.state
    r.log.write("end", step=state.step, seconds=round(state.seconds, 1), skipped=state.skipped)
    return Outcome(r.out, state.step, state.seconds, state.skipped, True, weights, tuple(points))
