"""Training TEC-TT and FlexTEC in published layout, in miniature, on shards laid out as SSL4EO-S12 v1.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import eozip
from eozip.codecs.registry import REGISTRY
from eozip.codecs.terracodec.transformer import TOKENS
from eozip.entropy.gaussian import gaussian_likelihood
from eozip.errors import InputError
from eozip_lab.train import kinds_temporal, loop, run, validate
from eozip_lab.train import state as states
from eozip_lab.train.kinds import kind_of
from eozip_lab.train.kinds_temporal import TemporalConfig, gaussian_bits, sampled_tokens, temporal_loss
from eozip_lab.train.recipe import load
from test_train_data import write_shard
from trainfiles import scene

SMALL = {"widths": [8, 8, 8, 64], "d": 16, "depths": [1, 1, 1]}
QUIET = {"progress": False, "device": "cpu", "threads": 1}
KINDS = ("tec-tt", "flextec")


@pytest.fixture(params=KINDS)
def name(request) -> str:
    return request.param


def model_of(name: str):
    torch.manual_seed(0)
    kind = kind_of(name)
    return kind.build(kind.configured(SMALL))


def series(dates: int = 3, count: int = 1, size: int = 64) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(np.stack([scene(rng, dates, size).astype(np.float32) for _ in range(count)]))


# --- the differentiable pass ---


def test_every_parameter_learns(name, monkeypatch):
    monkeypatch.setattr(kinds_temporal, "sampled_tokens", lambda: 5)  # so that tokens are masked
    model = model_of(name).train()
    loss, rate, mse = temporal_loss(model, series(3, 2), torch.zeros(2))
    loss.backward()
    assert rate.shape == mse.shape == (2,)
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@torch.no_grad()
def test_rounded_instead_of_noisy_it_is_the_published_estimate(name, monkeypatch):
    """Same contexts, features and rates (those of the estimate are on a grid) for every date of every series."""
    monkeypatch.setattr(kinds_temporal, "noisy", torch.round)
    model = model_of(name).eval()
    dn = torch.cat([series(3, 2), series(3, 2).flip(-1)], -1)  # 64 x 128: two blocks
    x = model.standardise(dn)
    x_hat, bits = model.series(x)
    for one, expected, counted in zip(x, x_hat, bits, strict=True):
        hard, published = model(one, torch.full((3,), model.config.levels - 1.0), hard=True)
        assert torch.allclose(hard, expected, atol=1e-4)
        assert torch.allclose(published, counted, rtol=0.01)


def test_the_first_date_gets_no_gradient_from_the_next_ones():
    """Its latent is detached as their past, and so are none after it."""
    model = model_of("tec-tt").eval()
    y = torch.randn(1, 3, 64, 4, 4, requires_grad=True)
    *_, last = model._memories(y)
    sum(k.sum() + v.sum() for k, v in last).backward()
    assert y.grad[:, 0].abs().max() == 0
    assert y.grad[:, 1].abs().max() > 0
    assert y.grad[:, 2].abs().max() == 0  # no date sees itself


def test_tokens_that_are_not_sent_cost_nothing_and_are_not_seen(monkeypatch):
    monkeypatch.setattr(kinds_temporal, "noisy", lambda v: v)
    model = model_of("flextec").eval()
    x = model.standardise(series(2))
    with torch.no_grad():
        shown = [model.series(x, sent) for sent in (1, 9, TOKENS)]
        rates = [float(bits.sum()) for _, bits in shown]
        assert rates[0] < rates[1] < rates[2]
        # the first date without the second half of its tokens looks alike, whatever those are
        y = model.network.g_a(x)
        tokens = model.network.entropy_model.tokens(y[:, 0])
        tokens[:, 9:] += 7
        other = torch.stack([model.network.entropy_model.grid(tokens, (1, 4, 4)), y[:, 1]], 1)
        before, after = ([p[0] for p in pictures(model, v, 9)] for v in (y, other))
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])  # the context of later dates stays whole


def pictures(model, y: torch.Tensor, sent: int) -> list[torch.Tensor]:
    dates = zip(y.unbind(1), model._memories(y), strict=True)
    return [model.g_s(model._date(*date, sent)[0]) for date in dates]


def test_k_is_drawn_in_proportion_to_itself():
    torch.manual_seed(1)
    drawn = np.bincount([sampled_tokens() for _ in range(4000)], minlength=TOKENS + 1)
    expected = np.arange(TOKENS + 1) / np.arange(TOKENS + 1).sum()
    assert np.abs(drawn / drawn.sum() - expected).max() < 0.02


def test_bits_are_those_of_the_likelihood_and_have_a_gradient_in_the_far_tails():
    residual, scale = torch.linspace(-6, 6, 241), torch.tensor([0.05, 0.5, 1.0, 8.0, 200.0])[:, None]
    likelihood = gaussian_likelihood(residual.double(), scale.double(), 0.01)
    found = gaussian_bits(residual.expand(5, -1), scale)
    inside = likelihood > 1e-8
    assert torch.allclose(found[inside].double(), -likelihood[inside].log2(), rtol=1e-3, atol=1e-4)
    far = torch.tensor([500.0], requires_grad=True)
    sigma = torch.tensor([0.5], requires_grad=True)
    gaussian_bits(far, sigma).sum().backward()
    assert far.grad.item() > 0
    assert sigma.grad.item() < 0
    assert torch.isfinite(sigma.grad).all()


def test_steps_lower_the_loss(name):
    model = model_of(name).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    dn, seen = series(2), []
    for _ in range(6):
        torch.manual_seed(0)  # the same k and noise
        loss = temporal_loss(model, dn, torch.zeros(1))[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    assert seen[-1] < 0.97 * seen[0]


# --- recipes ---


def test_shipped_recipes_are_of_the_published_sizes(name):
    recipe = load(f"{name}-ssl4eo")
    config = kind_of(recipe.kind).configured(recipe.network)
    published = {"tec-tt": (20.0, 2, False), "flextec": (800.0, 4, True)}[name]
    assert config == TemporalConfig(12, (128, 160, 192, 192), 768, (6, 4, 5), *published)
    assert (recipe.data[0].kind, recipe.data[0].dates) == ("ssl4eo-series", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two shards and a place."""
    folder = tmp_path_factory.mktemp("temporal")
    (folder / "shards").mkdir()
    for k in (1, 2):
        write_shard(folder / "shards" / f"ssl4eos12_train_seasonal_data_{k:06d}.zarr.zip", samples=3, size=72)
    np.savez(folder / "val.npz", stack=scene(np.random.default_rng(5), 2, 64))
    return folder


def dry_recipe(folder: Path, name: str, top: str = "", measured: bool = False, **data: object) -> Path:
    keys = {"kind": "ssl4eo-series", "path": "shards", "crop": 64, "batch": 2, "offset": 0} | data
    table = "\n".join(f"{key} = {value!r}" for key, value in keys.items())
    path = folder / f"{name}{len(list(folder.glob('*.toml')))}.toml"
    path.write_text(f"""
kind = "{name}"
name = "{name}-base-s2l2a-v0"
steps = 2
lr = 1e-4
{top}
[network]
widths = {SMALL["widths"]}
d = {SMALL["d"]}
depths = {SMALL["depths"]}
[[data]]
{table}
[validation]
size = 64
qualities = [60]
real_bytes = {str(measured).lower()}
[[validation.places]]
name = "place"
paths = ["val.npz"]
array = "stack"
""")
    return path


def test_a_dry_run_on_two_shards_ends_in_weights_that_eozip_loads(tmp_path, folder, name):
    """As the shipped recipe, with its data replaced and everything small."""
    shipped, path = load(f"{name}-ssl4eo"), dry_recipe(folder, name, measured=True)
    outcome = run(path, out=tmp_path / "out", **QUIET)
    assert (outcome.finished, outcome.steps, outcome.skipped) == (True, 2, 0)
    codec = eozip.load(outcome.weights / "model.safetensors")
    try:
        assert codec.id.startswith(f"{name}-base-s2l2a-")
        [stack] = validate.load_places(load(path), kind_of(name).band_names)
        blob = eozip.encode(stack.dn, codec=codec.id, quality=100)
        assert eozip.decode(blob).shape == stack.dn.shape
        check_bytes(codec, stack.dn)
    finally:
        REGISTRY.remove(codec.id)
    assert "ssl4eo-series: ssl4eos12_train" in (outcome.weights / "card.md").read_text()
    own = {"path": "", "crop": 256, "batch": 8}
    assert replace(load(path).data[0], **own) == replace(shipped.data[0], path="", offset=0)


@torch.no_grad()
def check_bytes(codec, dn: np.ndarray) -> None:
    """Bytes of the exported weights against the estimate that validation gives of the same weights.

    FlexTEC: each of its 16 sections ends in a check byte, which the estimate leaves aside; and where a stream may be cut,
    later dates rest on coarser pasts, so one date is compared.
    """
    kind = codec.id.split("-base-")[0]
    dn, slack = (dn, 64) if kind == "tec-tt" else (dn[:1], 64 + TOKENS)
    model = model_of(kind).eval()
    model.network = codec.model
    x = torch.from_numpy(dn.astype(np.float32))
    t = torch.full((len(dn),), model.config.levels - 1.0)
    estimate = float(model(model.standardise(x), t, hard=True)[1].sum()) / 8
    size = sum(map(len, codec.encode(x.numpy(), 100).sections))
    assert abs(size - estimate) <= 0.01 * estimate + slack


def test_stages_follow_each_other_by_init_and_train_only(tmp_path, folder, monkeypatch):
    """Frames alone, then the transformer on transforms that stay as they are."""
    monkeypatch.setattr(loop, "draw_curve", lambda *_: None)  # a second each
    frames = run(dry_recipe(folder, "tec-tt", dates=1), out=tmp_path / "1", **QUIET)
    top = f'init = "{frames.out / states.CHECKPOINT}"\ntrain_only = ["network.entropy_model."]\nema = 0.0'
    second = run(dry_recipe(folder, "tec-tt", top, dates=3), out=tmp_path / "2", **QUIET)
    before, after = (states.read(r.out / states.CHECKPOINT) for r in (frames, second))
    changed = {n for n, t in after["model"].items() if not torch.equal(t, before["average"][n])}
    assert changed
    assert all(n.startswith("network.entropy_model.") for n in changed)


# --- faults ---


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"d": 24}, "multiple of 16"),
        ({"widths": [8, 8, 8]}, "four even numbers"),
        ({"depths": [1, 0, 1]}, "depths"),
        ({"levels": 1}, "levels"),
        ({"heads": 8}, "unknown key"),
    ],
)
def test_sizes_that_no_such_network_has_are_refused(name, sizes, match):
    with pytest.raises(InputError, match=match):
        kind_of(name).configured(SMALL | sizes)


def test_flextec_repacks_windows_of_64():
    with pytest.raises(InputError, match="multiple of 64"):
        kind_of("flextec").configured({"widths": [8, 8, 8, 32]})
    assert kind_of("tec-tt").configured({"widths": [8, 8, 8, 32]}).widths[-1] == 32


def test_images_and_other_sides_are_refused():
    model = model_of("tec-tt")
    with pytest.raises(InputError, match="series"):
        temporal_loss(model, series()[0], torch.zeros(3))
    with pytest.raises(InputError, match="multiples of 64"):
        temporal_loss(model, series(size=96), torch.zeros(1))
    with pytest.raises(InputError, match="multiples of 64"):
        model(series(size=96)[0], torch.zeros(3), hard=True)
