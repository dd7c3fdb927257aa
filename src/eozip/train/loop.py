"""The training loop of the small image codecs (working draft)."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.small_model import SmallImageModel
from eozip.networks.small import SmallConfig
from eozip.train import start
from eozip.train.data import Augment, Stacks, batches


def begin(config: SmallConfig, source: Stacks, seed: int, crops: int = 1500) -> SmallImageModel:
    """A model at its closed-form start."""
    torch.manual_seed(seed)
    model = SmallImageModel(config)
    rng = np.random.default_rng(seed)
    dn = torch.from_numpy(source.batch(rng, crops))
    model.mean.copy_(dn.mean((0, 2, 3)))
    model.unit.copy_(dn.var((0, 2, 3)).mean().sqrt().clamp(900, 2000))
    x = model.standardise(dn)
    basis = start.block_basis(x, config)
    start.set_transforms(model.g_a, model.g_s, basis)
    with torch.no_grad():
        model.log_gain.copy_(-start.steps(config).log()[:, None].expand_as(model.log_gain))
        y = model.g_a.linear(torch.nn.functional.pixel_unshuffle(x, 8))
    start.set_entropy(model.entropy, y, config, model.log_gain)
    return model


def sampled_levels(config: SmallConfig, count: int, rng: np.random.Generator) -> Tensor:
    """Stratified levels, one per example, uniform in 0 .. levels-1."""
    strata = (np.arange(count) + rng.random(count)) / count
    return torch.from_numpy(rng.permutation(strata) * (config.levels - 1)).float()


def loss_of(model: SmallImageModel, dn: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """-> loss, bpppb [B], MSE [B] (standardised). Each example is weighted by lambda**-0.45: the typical loss grows
    like lambda**0.45, so a per cent counts the same at every rate."""
    x = model.standardise(dn)
    x_hat, bits = model(x, t)
    rate = bits / x[0].numel()
    mse = (x_hat - x).square().flatten(1).mean(1)
    lmbda = model.config.lmbda(t)
    return ((rate + lmbda * mse) * lmbda**-0.45).mean(), rate, mse


def parameter_groups(model: SmallImageModel, lr: float) -> list[dict]:
    """Closed-form parts learn at 0.03 times the rate, or Adam would rewrite them within a hundred steps."""
    slow, fast = [], []
    for name, p in model.named_parameters():
        (slow if ".linear." in name or name.endswith("linear.weight") else fast).append(p)
    return [{"params": fast, "lr": lr, "scale": 1.0}, {"params": slow, "lr": lr * 0.03, "scale": 0.03}]


def schedule(done: float) -> float:
    """Warm-up over 1 %, then cosine to 2 %; done in 0 .. 1."""
    return min(1.0, done / 0.01) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@torch.no_grad()
def validate(model: SmallImageModel, places: list[np.ndarray]) -> list[tuple[float, float]]:
    """Mean over places of (bpppb estimate, PSNR dB) at every level."""
    model.eval()
    points = []
    for level in range(model.config.levels):
        rates, psnrs = [], []
        for dn in places:
            x = torch.from_numpy(dn.astype(np.float32))
            t = torch.full((len(x),), float(level))
            x_hat, bits = model(model.standardise(x), t, hard=True)
            error = model.restore(x_hat).clamp(0, 10000) - x.clamp(0, 10000)
            rates.append(float(bits.sum()) / x.numel())
            psnrs.append(10 * math.log10(1e8 / float(error.square().mean())))
        points.append((float(np.mean(rates)), float(np.mean(psnrs))))
    model.train()
    return points


def at_psnr(points: list[tuple[float, float]], psnr: float) -> float:
    rates, psnrs = np.log([p[0] for p in points]), [p[1] for p in points]
    return float(np.exp(np.interp(psnr, psnrs, rates))) if psnrs[0] <= psnr <= psnrs[-1] else float("nan")


def train(config, sources, counts, val, minutes, out: Path, seed=0, lr=8e-4, log_every=50, val_every_minutes=8.0,
          fresh=None):
    out.mkdir(parents=True, exist_ok=True)
    model = fresh or begin(config, sources[0], seed)
    model.train()
    optimiser = torch.optim.AdamW(parameter_groups(model, lr), betas=(0.9, 0.98), weight_decay=0.0)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    rng = np.random.default_rng(seed + 1)
    step, used, began, last_val = 0, 0.0, time.time(), 0.0
    state = out / "checkpoint.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"]); optimiser.load_state_dict(saved["optimiser"]); average = saved["average"]
        step, used = saved["step"], saved["used"]
        rng = np.random.default_rng((seed + 1, step))
    (out / "config.json").write_text(json.dumps(asdict(config)))
    log = (out / "log.txt").open("a")
    base, stats = used, []
    for dn in batches(sources, counts, seed, step):
        used = base + (time.time() - began) / 60
        if used >= minutes:
            break
        factor = schedule(used / minutes)
        for g in optimiser.param_groups:
            g["lr"] = lr * g["scale"] * factor
        t = sampled_levels(config, len(dn), rng)
        loss, rate, mse = loss_of(model, dn, t)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(0.9985, (1 + step) / (10 + step))
        with torch.no_grad():
            for k, v in model.state_dict().items():
                if v.is_floating_point():
                    average[k].lerp_(v, 1 - decay)
        stats.append((loss.item(), float(norm)))
        if step % log_every == 0:
            print(f"{step} {used:.1f}min loss {np.mean([s[0] for s in stats]):.4f} norm {np.median([s[1] for s in stats]):.2f}", file=log, flush=True)
            stats = []
        if used - last_val > val_every_minutes or (step in (1, 100, 400)):
            last_val = used
            report(model, average, val, config, step, used, log)
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
                        "step": step, "used": used}, str(state) + ".part")
            Path(str(state) + ".part").rename(state)
    report(model, average, val, config, step, used, log)
    torch.save({"average": average, "model": model.state_dict(), "step": step, "used": used}, out / "final.pt")
    return model


def report(model, average, val, config, step, used, log):
    shadow = SmallImageModel(config)
    shadow.load_state_dict(average)
    points = validate(shadow, val)
    rates = [round(at_psnr(points, q), 4) for q in (36, 40, 44, 48)]
    print(f"VAL {step} {used:.1f}min", " ".join(f"{p:.2f}@{r:.4f}" for r, p in points), rates, file=log, flush=True)
