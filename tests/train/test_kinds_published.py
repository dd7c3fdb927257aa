"""Training the published image networks, in miniature, on shards laid out as SSL4EO-S12 v1.1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import eozip
from eozip.errors import InputError
from eozip_lab.train import run, validate
from eozip_lab.train.kinds import kind_of
from eozip_lab.train.kinds_published import _bin_mass, _LowerBound, _published_loss, _PublishedConfig
from eozip_lab.train.recipe import _SHIPPED, load
from test_train_data import write_shard
from trainfiles import scene

SMALL = {"n": 16, "m": 144}
QUIET = {"progress": False, "device": "cpu", "threads": 1}


@pytest.fixture(params=["tec-fp", "tec-elic"])
def name(request) -> str:
    return request.param


def model_of(name: str):
    torch.manual_seed(0)
    kind = kind_of(name)
    return kind.build(kind.configured(SMALL))


def crops(count: int, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(scene(np.random.default_rng(seed), count, 64).astype(np.float32))


def test_shipped_recipes_are_of_the_published_sizes(name):
    recipe = load(f"{name}-ssl4eo")
    config = kind_of(recipe.kind).configured(recipe.network)
    assert config == _PublishedConfig(12, 128, 192, 40.0)
    assert recipe.data[0].kind == "ssl4eo"
    assert (_SHIPPED / f"{name}-ssl4eo.toml").is_file()


def test_every_parameter_learns(name):
    model = model_of(name)
    loss, rate, mse = _published_loss(model, crops(2), torch.zeros(2))
    loss.backward()
    assert rate.shape == mse.shape == (2,)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_medians_alone_learn_from_their_loss(name):
    model = model_of(name)
    model.median_loss().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        next(n for n, _ in model.named_parameters() if n.endswith("quantiles"))
    }
    assert all(p.requires_grad for p in model.parameters())


def test_rounded_rates_are_those_of_the_published_estimate(name):
    model = model_of(name).eval()
    with torch.no_grad():
        x = model.standardise(crops(1))
        x_hat, bits = model(x, torch.zeros(1), hard=True)
        known = model.network.estimate(x)
    assert torch.allclose(x_hat, known.x_hat, atol=1e-5)
    assert float(bits.sum()) == pytest.approx(float(known.bits_y + known.bits_z), rel=1e-3)


def test_steps_lower_the_loss(name):
    model = model_of(name).train()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    dn, seen = crops(2), []
    for _ in range(8):
        loss = _published_loss(model, dn, torch.zeros(2))[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    assert seen[-1] < 0.95 * seen[0]


def test_bins_are_precise_in_both_tails():
    prior = model_of("tec-fp").prior
    values = torch.tensor([-40.0, 0.0, 40.0]).expand(144, 3)[None, :, None, :]
    mass = _bin_mass(prior, values).detach()
    assert (mass > 0).all()
    assert float(mass[..., 1].min()) > float(mass[..., 2].max())


def test_a_bound_lets_the_gradient_that_raises_through():
    x = torch.tensor([0.05, 0.05, 1.0], requires_grad=True)
    (_LowerBound.apply(x, 0.11) * torch.tensor([-1.0, 1.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [-1.0, 0.0, 1.0]


def test_a_dry_run_on_two_shards_ends_in_weights_that_eozip_loads(tmp_path: Path, name):
    """As the shipped recipe, with its data replaced and everything small."""
    shipped = load(f"{name}-ssl4eo")
    (tmp_path / "shards").mkdir()
    for k in (1, 2):
        write_shard(tmp_path / "shards" / f"ssl4eos12_train_seasonal_data_{k:06d}.zarr.zip", size=72)
    np.savez(tmp_path / "val.npz", stack=scene(np.random.default_rng(5), 1, 64))
    recipe = tmp_path / "dry.toml"
    recipe.write_text(dry_recipe(name))
    outcome = run(recipe, out=tmp_path / "out", **QUIET)
    assert (outcome.finished, outcome.steps) == (True, 2)
    codec = eozip.load(outcome.weights / "model.safetensors")
    assert codec.id.startswith(name)
    [stack] = validate.load_places(load(recipe), kind_of(name).band_names)
    dn_hat = eozip.decode(eozip.encode(stack.dn, codec.id))
    assert dn_hat.shape == stack.dn.shape
    assert "ssl4eo: ssl4eos12_train" in (outcome.weights / "card.md").read_text()
    events = [json.loads(line)["event"] for line in (outcome.out / "log.jsonl").read_text().splitlines()]
    assert events[0] == "start"
    assert replace(load(recipe).data[0], path="", crop=256, batch=16) == replace(
        shipped.data[0], path="", offset=0
    )


def dry_recipe(name: str) -> str:
    return f"""
kind = "{name}"
name = "{name}-base-s2l2a-v0"
steps = 2
lr = 1e-4
[network]
n = {SMALL["n"]}
m = {SMALL["m"]}
[[data]]
kind = "ssl4eo"
path = "shards"
crop = 64
batch = 2
offset = 0
[validation]
size = 64
qualities = [60]
[[validation.places]]
name = "place"
paths = ["val.npz"]
array = "stack"
"""


def test_unknown_sizes_are_refused(name):
    with pytest.raises(InputError, match="network"):
        kind_of(name).configured({"width": 3})
