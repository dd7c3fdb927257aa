"""`eozip train --profile`: where the seconds of a step go, and what share of the machine's peak it uses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eozip.threads import choose
from eozip_lab.train import loop
from eozip_lab.train import state as states
from eozip_lab.train.data import Draw
from eozip_lab.train.data_sources import open_sources
from eozip_lab.train.kinds import Kind, kind_for
from eozip_lab.train.loader import feeding
from eozip_lab.train.objective import sampled_levels
from eozip_lab.train.recipe import Recipe, find, load
from eozip_lab.train.setup import configured, picked_device

STEPS, _WARM_UP = 20, 2
_SIDE, _PRODUCTS = 2048, 4  # of the matrix products that stand for the machine's peak
DATA, ENTROPY, BACKWARD, OPTIMISER = "data", "entropy model and loss", "backward", "optimiser"


@dataclass(frozen=True)
class Profile:
    """What a few steps took.

    Attributes:
        kind, device: what was trained, on what.
        steps, crops: measured; a series of dates counts as one crop.
        seconds: of a step, mean.
        parts: seconds of a step by part: data (waited for), g_a, g_s (their forward passes), entropy model and loss
            (the rest of the forward pass), backward, optimiser.
        crops_per_second: over all parts.
        gflop_per_crop: multiplications and additions of forward and backward pass, in 10**9.
        peak_gflops: the fastest large matrix product on this device, in 10**9 per second.
        share: of that peak which the steps used, 0 .. 1.
    """

    kind: str
    device: str
    steps: int
    crops: int
    seconds: float
    parts: Mapping[str, float]
    crops_per_second: float
    gflop_per_crop: float
    peak_gflops: float
    share: float


@dataclass
class _Clock:
    """Time since the last mark goes to the part that is named."""

    device: torch.device
    parts: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def mark(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Marks around the transforms; what runs between them is the entropy model."""
        hooks = []
        for name in ("g_a", "g_s"):
            module = getattr(model, name)
            hooks.append(module.register_forward_pre_hook(lambda *_: self.mark(ENTROPY)))
            hooks.append(module.register_forward_hook(lambda *_, part=name: self.mark(part)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def profile(
    recipe: Path | str,
    *,
    steps: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    data: Path | None = None,
) -> Profile:
    """Train a few steps, keep nothing, and say what they took.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        steps: steps measured; 20 if not given. Two more go before them.
        device, threads, data: as for `eozip_lab.train.run`.

    Raises:
        InputError: a recipe, data or device that cannot be used.
    """
    steps = steps or STEPS
    chosen = configured(load(recipe), find(recipe), None, steps, None, data)
    choose(threads)
    kind, where = kind_for(chosen), picked_device(device)
    model = loop.new_model(chosen, kind).to(where).train()
    state = states.fresh(model, chosen)
    with (
        feeding(chosen, lambda: open_sources(chosen, kind.band_names)) as feed,
        loop.exact_convolutions(where),
    ):
        batches = feed.batches(0)
        for _ in range(_WARM_UP):
            _step(chosen, kind, state, next(batches), _Clock(where))
        clock, shapes = _Clock(where), []
        with clock.hooked(model):
            for _ in range(steps):
                dn = next(batches)
                clock.mark(DATA)
                _step(chosen, kind, state, dn, clock)
                shapes.append(tuple(dn.shape))
        flops = {shape: _flops(kind, model, torch.full(shape, 1500.0, device=where)) for shape in set(shapes)}
    work, crops = sum(flops[shape] for shape in shapes), sum(shape[0] for shape in shapes)
    seconds, peak = sum(clock.parts.values()), _peak(where)
    parts = {part: value / steps for part, value in sorted(clock.parts.items(), key=lambda item: -item[1])}
    rates = (crops / seconds, work / crops / 1e9, peak / 1e9, work / seconds / peak)
    return Profile(chosen.kind, str(where), steps, crops, seconds / steps, parts, *rates)


def _step(recipe: Recipe, kind: Kind, state: states.State, dn: Tensor, clock: _Clock) -> None:
    """One step as `eozip_lab.train.loop` takes it, log and checkpoints left out."""
    model: Any = state.model
    rng = Draw(recipe.seed, state.step).rng(1)
    t = sampled_levels(model.config.levels, len(dn), rng)
    loss, _, _ = kind.loss(model, dn.to(clock.device), t.to(clock.device))
    loss.item()
    clock.mark(ENTROPY)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    clock.mark(BACKWARD)
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    state.optimiser.step()
    states.follow(state.average, model, recipe.ema)
    state.step += 1
    clock.mark(OPTIMISER)


def _flops(kind: Kind, model: nn.Module, dn: Tensor) -> float:
    """Operations of matrix products and convolutions in one forward and backward pass."""
    t = torch.zeros(len(dn), device=dn.device)
    with FlopCounterMode(display=False) as counter:
        kind.loss(model, dn, t)[0].backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def _peak(device: torch.device) -> float:
    """Operations per second of the fastest square matrix product in float32 or bfloat16."""
    return max(_product_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16))


def _product_rate(device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
    clock = _Clock(device)
    for k in range(_PRODUCTS):
        a @ b
        clock.mark(str(k))
    return 2 * _SIDE**3 / min(clock.parts.values())


def facts(found: Profile) -> dict[str, Any]:
    """Ready for JSON."""
    return {**vars(found), "parts": dict(found.parts)}
