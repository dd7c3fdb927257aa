"""`eozip train`: one run from recipe to weights, resumable at every step.

Random numbers of step n (crops, augmentation, levels, noise) depend on (seed, n) alone and the checkpoint
holds the rest, so a run that was stopped and resumed gives the weights of one that was not: bit for bit on
one thread with a budget of steps (with one of minutes the learning rate follows the clock).
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eozip import hub
from eozip.errors import EozipError
from eozip.threads import choose, settling
from eozip_lab.train import export, run_log, validate
from eozip_lab.train import state as states
from eozip_lab.train.augment import AS_THEY_ARE
from eozip_lab.train.data import Draw
from eozip_lab.train.data_sources import check_apart, open_sources
from eozip_lab.train.interrupts import noticing_interrupts
from eozip_lab.train.kinds import Kind, kind_for
from eozip_lab.train.loader import batch, feeding
from eozip_lab.train.objective import sampled_levels, schedule
from eozip_lab.train.recipe import Recipe, find, load, located
from eozip_lab.train.run_log import Display, Journal, Tick, displayed, draw_curve
from eozip_lab.train.setup import configured, picked_device, prepared_folder
from eozip_lab.train.state import CHECKPOINT, State

_CALIBRATION_BATCH = 6  # crops coded together, at one quality
PATIENCE = 20  # steps in a row with a loss or gradient that is not finite
_LEVELS = 1  # stream of random numbers, beside the crops'
RUNS = Path("runs")


class DivergedError(EozipError):
    """Training went astray: losses or gradients that are not finite, again and again."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        out: folder with checkpoint.pt, log.jsonl and curve.png.
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
    points: tuple[validate.Point, ...] = ()


@dataclass
class Run:
    """A run in progress: what stays the same, and its state."""

    recipe: Recipe
    kind: Kind
    device: torch.device
    out: Path
    state: State
    stacks: Sequence[validate.Stack]
    facts: Sequence[dict[str, Any]]
    display: Display
    log: Journal
    began: float = field(default_factory=time.monotonic)
    stats: list[tuple[float, float, float]] = field(default_factory=list)
    bad: int = 0
    last_check: float = 0.0
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
    device: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    data: Path | None = None,
    other_recipe: bool = False,
) -> Outcome:
    """Trains a codec.

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
    chosen = configured(load(recipe), find(recipe), minutes, steps, seed, data)
    choose(threads)
    where = picked_device(device)
    folder = prepared_folder(out or RUNS / find(recipe).stem, resume)
    with displayed(progress) as display, exact_convolutions(where), settling() as settle:
        current = _begun(chosen, where, folder, resume, other_recipe, display)
        return _sitting(current, settle)


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA, float32 convolutions stay float32: TF32's 10 bits would lose whole steps of large latents."""
    guard = torch.backends.cudnn.flags(allow_tf32=False) if device.type == "cuda" else nullcontext()
    with guard:
        yield


def _begun(
    recipe: Recipe, device: torch.device, out: Path, resume: bool, other_recipe: bool, display: Display
) -> Run:
    """A run before its first step of this sitting."""
    kind = kind_for(recipe)
    content = states.read(out / CHECKPOINT) if resume else None
    display.say("reading data")
    stacks = validate.load_places(recipe, kind.band_names)
    crops, facts = _first_look(recipe, kind, content is None)
    model = new_model(recipe, kind, crops).to(device)
    state = states.fresh(model, recipe, kind.logarithms(model))
    if content is not None:
        states.restore(state, content, recipe, other_recipe)
    current = Run(recipe, kind, device, out, state, stacks, facts, display, Journal(out / run_log.LOG))
    current.last_check = current.last_save = state.seconds
    _log_start(current, resume)
    return current


def _first_look(recipe: Recipe, kind: Kind, wanted: bool) -> tuple[Tensor | None, list[dict[str, Any]]]:
    """Crops for the closed forms (if wanted), and facts about the data; train and validation kept apart."""
    sources = open_sources(recipe, kind.band_names)
    try:
        files = [file for source in sources for file in source.files()]
        check_apart(files, validate.place_files(recipe))
        facts = [source.facts for source in sources]
        if not wanted:
            return None, facts
        rng = np.random.default_rng(recipe.seed)
        draw = Draw(recipe.seed, 0)
        # made-up clouds would rule a PCA: 250 steps later 48 dB still cost a third more (docs/training-log.md)
        dn = batch(sources[0], draw, rng, recipe.start_crops, AS_THEY_ARE)
        return torch.from_numpy(dn), facts
    finally:
        for source in sources:
            source.close()


def _calibration_batches(recipe: Recipe, kind: Kind) -> list[np.ndarray]:
    """Crops of the last source in small batches, augmented as in training, from draws that no step uses."""
    sources = open_sources(recipe, kind.band_names)
    try:
        draws = [Draw(recipe.seed, -1 - n) for n in range(recipe.calibration_crops // _CALIBRATION_BATCH)]
        return [batch(sources[-1], d, d.rng(), _CALIBRATION_BATCH, recipe.augment) for d in draws]
    finally:
        for source in sources:
            source.close()


def new_model(recipe: Recipe, kind: Kind, crops: Tensor | None) -> nn.Module:
    """A model at its start; without crops (a checkpoint follows) as built."""
    torch.manual_seed(recipe.seed)
    model = kind.build(kind.configured(recipe.network))
    if crops is not None:
        kind.begin(model, crops, _given_tensors(recipe, kind))
    return model


def _given_tensors(recipe: Recipe, kind: Kind) -> Mapping[str, Tensor]:
    """Tensors of the recipe's `init`: a checkpoint's averages, or exported weights."""
    if not recipe.init:
        return {}
    path = located(recipe.init)
    return kind.given(path) if path.is_dir() else states.read(path)["average"]


def _log_start(r: Run, resume: bool) -> None:
    if resume:
        r.log.drop_after(r.state.step)
    facts = {"recipe": r.recipe.to_json(), "data": r.facts, "command": export.command_line()}
    facts |= {"commit": export.commit(), "hardware": export.hardware(r.device)}
    r.log.write("resume" if resume else "start", step=r.state.step, **facts)
    for k, entry in enumerate(r.facts):
        if entry.get("left_out"):
            counts = Counter(name.partition(":")[0] for name in entry["left_out"])
            text = ", ".join(f"{count} of {name}" for name, count in counts.items())
            r.display.say(f"data[{k}]: left out arrays of other bands or smaller than the crop: {text}")


def _sitting(r: Run, settle: Callable[[], None]) -> Outcome:
    """Steps until the budget is used up or someone interrupts; then checkpoint and, at the end, weights."""
    with noticing_interrupts() as is_interrupted:
        if r.state.step == 0:
            _validate(r)
        with feeding(r.recipe, lambda: open_sources(r.recipe, r.kind.band_names)) as feed:
            r.state.model.train()
            batches = feed.batches(r.state.step)
            while r.done() < 1 and not is_interrupted():
                settle()
                _step(r, next(batches))
                _look_after(r)
        r.clock()
        if is_interrupted():
            return _interrupted(r)
        return _finish(r)


def _step(r: Run, dn: Tensor) -> None:
    """One step of the optimiser, or a skipped one if loss or gradient are not finite."""
    state = r.state
    factor = schedule(r.done(), r.recipe.warm_up)
    for group in state.optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    draw = Draw(r.recipe.seed, state.step)
    torch.manual_seed(int(draw.rng(_LEVELS).integers(2**63)))  # the quantisation noise of this step
    t = sampled_levels(state.model.config.levels, len(dn), draw.rng(_LEVELS, 0))
    loss, rate, mse = r.kind.loss(state.model, dn.to(r.device), t.to(r.device))
    is_good = descend(state, loss, r.recipe.clip)
    state.step += 1
    if is_good:
        states.follow(state.average, state.model, min(r.recipe.ema, (1 + state.step) / (10 + state.step)))
        r.stats.append((loss.item(), rate.mean().item(), _decibels(state.model, mse)))
    _count_bad(r, is_good)


def descend(state: State, loss: Tensor, clip: float) -> bool:
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


def _decibels(model: nn.Module, mse: Tensor) -> float:
    """Mean PSNR of a batch from its MSE in standardised units, clipping at the peak left aside."""
    return (10 * torch.log10(validate.PEAK**2 / (mse.detach() * model.unit**2))).mean().item()


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
    """What happens between steps: log, validation, checkpoint, progress."""
    if r.stats:
        r.display.tick(_tick(r))
    if r.state.step % r.recipe.log_steps == 0 and r.stats:
        t = _tick(r)
        r.log.write(
            "train", step=t.step, seconds=round(r.clock(), 1), loss=t.loss, bpppb=t.bpppb, psnr=t.psnr
        )
        r.stats.clear()
    if r.clock() - r.last_check >= 60 * r.recipe.validation.every_minutes:
        _validate(r)
        _save(r)
    elif r.clock() - r.last_save >= 60 * r.recipe.checkpoint_minutes and r.bad == 0:
        _save(r)


def _tick(r: Run) -> Tick:
    done = r.done()
    loss, rate, db = np.mean(r.stats, 0)
    left = r.state.seconds * (1 - done) / done if done > 0 else None
    return Tick(r.state.step, done, left, float(loss), float(rate), float(db))


def _averaged(state: State) -> nn.Module:
    """A copy of the model with the averaged weights, in eval mode."""
    shadow = copy.deepcopy(state.model)
    shadow.load_state_dict(state.average)
    return shadow.eval()


def _validate(r: Run) -> None:
    points = validate.estimates(_averaged(r.state), r.stacks, r.device)
    _log_points(r, "validation", points)
    r.last_check = r.clock()
    draw_curve(r.log.lines(), r.out / run_log.CURVE)


def _log_points(r: Run, event: str, points: Sequence[validate.Point]) -> None:
    at = {f"{db:g}": validate.mean_at_psnr(points, db) for db in validate.PSNRS}
    tables = {"points": export.points_table(points), "mean": export.points_table(validate.means(points))}
    r.log.write(event, step=r.state.step, seconds=round(r.clock(), 1), at=at, **tables)
    rates = ", ".join(f"{db} dB {'-' if rate is None else f'{rate:.4f}'}" for db, rate in at.items())
    r.display.say(f"{event} at step {r.state.step}: bpppb at {rates}")


def _save(r: Run) -> None:
    r.last_save = r.clock()
    states.save(r.state, r.recipe, r.out)


def _interrupted(r: Run) -> Outcome:
    _save(r)
    r.log.write("interrupted", step=r.state.step)
    r.display.say(f"interrupted at step {r.state.step}; go on with --resume --out {r.out}")
    return Outcome(r.out, r.state.step, r.state.seconds, r.state.skipped, finished=False)


def _finish(r: Run) -> Outcome:
    """Checkpoint, last validation, weights, their real bytes, and the curve."""
    _save(r)
    _validate(r)
    state, model = r.state, _averaged(r.state).cpu()
    facts = export.Facts(
        state.step, state.seconds, r.facts, export.command_line(), export.commit(), export.hardware(r.device)
    )
    weights = export.export(r.out, r.recipe, model, facts)
    if r.recipe.calibration_crops:
        r.display.say("fitting probability tables")
        r.kind.calibrate(weights, _calibration_batches(r.recipe, r.kind))
    if r.recipe.share:
        hub.share(weights, located(r.recipe.share))
    points = _measure(r, weights) if r.recipe.validation.real_bytes else []
    export.describe(weights, r.recipe, replace(facts, points=points))
    r.log.write("end", step=state.step, seconds=round(state.seconds, 1), skipped=state.skipped)
    draw_curve(r.log.lines(), r.out / run_log.CURVE)
    return Outcome(r.out, state.step, state.seconds, state.skipped, True, weights, tuple(points))


def _measure(r: Run, weights: Path) -> list[validate.Point]:
    """Real bytes of the weights as exported, loaded again."""
    r.display.say("measuring real bytes")
    points = validate.real_bytes(r.kind.load(weights), r.stacks, r.recipe.validation.qualities)
    _log_points(r, "bytes", points)
    return points
