"""Muon: what a step is, which parameters it moves, and that a resumed run cannot tell."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from eozip.errors import InputError
from eozip_lab.train import sitting
from eozip_lab.train import state as states
from eozip_lab.train.kinds import kind_of
from eozip_lab.train.kinds_published import _published_loss as published_loss
from eozip_lab.train.muon import Together, _Muon, muon_and_adamw
from eozip_lab.train.muon import _orthogonalised as orthogonalised
from eozip_lab.train.objective import Rates, matrix_names, parameter_groups, schedule
from eozip_lab.train.recipe import load
from trainfiles import write_recipe

MUON = 'optimiser = "muon"'
TRANSFORMER = {"d": 16, "depths": (1, 1, 1)}
SMALL = {
    "tec-fp": {"n": 16, "m": 32},
    "tec-elic": {"n": 16, "m": 144},
    "tec-tt": {"widths": (16, 16, 16, 32), **TRANSFORMER},
    "flextec": {"widths": (16, 16, 16, 64), **TRANSFORMER},
}
RATES = Rates(lr=0.02, matrices=1.5)


@pytest.fixture(autouse=True)
def seeded(one_thread):
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(24, 24), (12, 96), (96, 12), (1, 40)])
def test_orthogonalised_keeps_directions_and_evens_their_lengths(shape):
    wide = torch.logspace(0, -1.5, min(shape))  # singular values, a factor of 30 apart
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    even = orthogonalised(u * wide @ v)
    assert even.shape == shape
    assert even.dtype == torch.float32
    lengths = torch.linalg.svdvals(even)
    assert 0.6 < float(lengths.min()) <= float(lengths.max()) < 1.3
    turned = u.T @ even @ v.T  # diagonal if the singular vectors are still the same
    assert (turned - turned.diag().diag()).abs().max() < 0.05


def test_orthogonalised_of_zero_is_zero_and_scale_does_not_matter():
    assert not orthogonalised(torch.zeros(3, 5)).any()
    matrix = torch.randn(6, 9)
    assert torch.allclose(orthogonalised(matrix), orthogonalised(2.0**-12 * matrix), atol=2e-2)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_steps_are_those_of_torch(shape):
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = _Muon([ours], lr=0.01)
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    moved = (theirs - start).detach().norm()
    assert (
        ours - theirs
    ).detach().norm() < 0.05 * moved  # both iterate in bfloat16, rounding at other places


def test_a_kernel_moves_like_its_flat_matrix():
    kernel = nn.Parameter(torch.randn(8, 4, 3, 3))
    flat = nn.Parameter(kernel.detach().flatten(1).clone())
    for _ in range(3):
        kernel.grad = torch.randn(kernel.shape)
        flat.grad = kernel.grad.flatten(1).clone()
        _Muon([kernel], lr=0.01).step()
        _Muon([flat], lr=0.01).step()
    assert torch.equal(kernel.detach().flatten(1), flat.detach())


def test_a_step_has_the_size_of_an_adam_step():
    p = nn.Parameter(torch.zeros(64, 32, 3, 3))
    p.grad = torch.randn(p.shape)
    _Muon([p], lr=0.01).step()
    assert 0.8 < float(p.detach().square().mean().sqrt() / (0.2 * 0.01)) < 1.2


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"2 or more dimensions, got \(5,\)"):
        _Muon([nn.Parameter(torch.zeros(5))])


class Toy(nn.Module):
    """Kernels, biases and tables."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.linear = nn.Conv2d(3, 4, 1)
        self.level = nn.Parameter(torch.zeros(6, 16))
        self.log_scale = nn.Parameter(torch.randn(2, 2) / 2)
        self.leave = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        inner = torch.tanh(self.enter(x) + self.level[0][:, None, None])
        return self.linear(x) + self.leave(inner) * self.log_scale.exp().mean()


def test_matrices_are_weights_of_layers_and_nothing_else():
    assert matrix_names(Toy()) == {"enter.weight", "linear.weight", "leave.weight"}
    groups = parameter_groups(Toy(), RATES)
    moved = {g["peak"]: len(g["params"]) for g in groups if g["is_matrix"]}
    assert moved == {0.03: 3}
    others = {g["peak"]: len(g["params"]) for g in groups if not g["is_matrix"]}
    assert others == {0.02: 5}  # biases and tables


@pytest.mark.parametrize("kind", ["tec-fp", "tec-elic", "tec-tt", "flextec"])
def test_matrices_of_a_network(kind):
    model = kind_of(kind).build(kind_of(kind).configured(SMALL[kind]))
    shapes = {n: p.dim() for n, p in model.named_parameters()}
    matrices = matrix_names(model)
    assert all(shapes[n] >= 2 for n in matrices)
    layers = {
        n for n in shapes if ("g_a" in n or "analysis" in n) and n.endswith("weight") and shapes[n] == 4
    }
    assert layers
    assert layers <= matrices
    others = {
        n for n in shapes if "matri" in n or "quantiles" in n or "_pos" in n or n.endswith("mask_token")
    }
    assert others
    assert not matrices & others


def test_without_muon_no_group_is_a_matrix():
    groups = parameter_groups(Toy(), Rates(0.02))
    assert [g["peak"] for g in groups] == [0.02]
    assert not any(g["is_matrix"] for g in groups)


def descended(model: nn.Module, optimiser: Together, steps: range) -> float:
    """Loss after steps towards another network of the same form."""
    torch.manual_seed(7)
    aim = Toy().requires_grad_(False)
    for n in steps:
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(n))
        optimiser.zero_grad()
        loss = (model(x) - aim(x)).square().mean()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] / (1 + n / 20)
        optimiser.step()
    return loss.item()


def toy_and_optimiser(rates: Rates = RATES) -> tuple[Toy, Together]:
    torch.manual_seed(1)
    model = Toy()
    return model, muon_and_adamw(parameter_groups(model, rates), (0.9, 0.98))


def test_muon_learns_a_toy_network():
    model, optimiser = toy_and_optimiser()
    first = descended(model, optimiser, range(1))
    assert descended(model, optimiser, range(1, 200)) < 0.05 * first


def test_kernels_stay_where_their_rate_is_nothing():
    model, optimiser = toy_and_optimiser(Rates(0.02, matrices=0.0))
    before = copy.deepcopy(model.state_dict())
    descended(model, optimiser, range(3))
    still = {n for n, value in model.state_dict().items() if torch.equal(value, before[n])}
    assert still == {"enter.weight", "linear.weight", "leave.weight"}


def test_optimiser_goes_on_bit_for_bit():
    whole, optimiser = toy_and_optimiser()
    descended(whole, optimiser, range(9))
    first, before = toy_and_optimiser()
    descended(first, before, range(5))
    second, after = toy_and_optimiser()
    second.load_state_dict(first.state_dict())
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    descended(second, after, range(5, 9))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_state_of_other_optimisers_is_refused():
    _, optimiser = toy_and_optimiser()
    state = optimiser.state_dict()
    with pytest.raises(ValueError, match="expected 2 optimisers, got 1"):
        optimiser.load_state_dict({"parts": state["parts"][:1]})


def trained(state: states.State, steps: range) -> None:
    for n in steps:
        torch.manual_seed(n)  # of the quantisation noise
        dn = 2000 + 500 * torch.randn(2, 12, 32, 32)
        loss, _, _ = published_loss(state.model, dn, torch.zeros(2))
        for group in state.optimiser.param_groups:
            group["lr"] = group["peak"] * schedule((n + 1) / 10, 0.02)
        assert sitting._descend(state, loss, clip=1.0)
        state.step += 1
        states.follow(state.average, state.model, 0.9)


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    recipe = load(write_recipe(tmp_path, MUON))
    whole, first, second = made(recipe), made(recipe), made(recipe)
    trained(whole, range(6))
    trained(first, range(3))
    states.save(first, recipe, tmp_path)
    states.restore(second, states.read(tmp_path / states.CHECKPOINT), recipe, other_recipe=False)
    trained(second, range(second.step, 6))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], second.average[name]), name
    assert not torch.equal(whole.model.network.g_a[0].weight, first.model.network.g_a[0].weight)


def test_a_checkpoint_keeps_its_optimiser(tmp_path):
    recipe, other = load(write_recipe(tmp_path)), load(write_recipe(tmp_path, MUON))
    states.save(made(recipe), recipe, tmp_path)
    content = states.read(tmp_path / states.CHECKPOINT)
    with pytest.raises(InputError, match=r"another recipe \(other values of optimiser\)"):
        states.restore(made(other), content, other, other_recipe=False)
    with pytest.raises(
        InputError, match=r"expected adamw.*got muon; to change it, begin another run whose init"
    ):
        states.restore(made(other), content, other, other_recipe=True)


def test_a_checkpoint_from_before_muon_is_adamws(tmp_path):
    recipe = load(write_recipe(tmp_path))
    state = made(recipe)
    trained(state, range(1))
    states.save(state, recipe, tmp_path)
    content = states.read(tmp_path / states.CHECKPOINT)
    table = json.loads(content["recipe"])
    content["recipe"] = json.dumps({k: v for k, v in table.items() if k not in ("optimiser", "muon_lr")})
    for group in content["optimiser"]["param_groups"]:
        del group["is_matrix"]
    again = made(recipe)
    states.restore(again, content, recipe, other_recipe=False)
    trained(state, range(1, 2))
    trained(again, range(1, 2))
    assert torch.equal(state.model.network.g_a[0].weight, again.model.network.g_a[0].weight)


def test_a_recipe_changed_on_purpose_brings_its_rates(tmp_path):
    recipe = load(write_recipe(tmp_path, MUON))
    state = made(recipe)
    states.save(state, recipe, tmp_path)
    faster = load(write_recipe(tmp_path, f"{MUON}\nlr = 4e-3\nmuon_lr = 2.0"))
    again = made(faster)
    states.restore(again, states.read(tmp_path / states.CHECKPOINT), faster, other_recipe=True)
    peaks = {g["peak"] for g in again.optimiser.param_groups if g["is_matrix"]}
    assert list(peaks) == pytest.approx([8e-3])


def made(recipe) -> states.State:
    kind = kind_of(recipe.kind)
    torch.manual_seed(recipe.seed)
    model = kind.build(kind.configured(recipe.network))
    return states.fresh(model, recipe)


def test_nothing_for_muon_to_move_is_said(tmp_path):
    recipe = load(write_recipe(tmp_path, f'train_only = ["network.entropy_bottleneck."]\n{MUON}'))
    with pytest.raises(InputError, match="muon moves weights of layers, but none is trained here"):
        made(recipe)


def test_only_matrices_need_no_adamw(tmp_path):
    recipe = load(write_recipe(tmp_path, f'train_only = ["network.g_a.0.weight"]\n{MUON}\nmuon_lr = 2.0'))
    optimiser = made(recipe).optimiser
    assert len(optimiser.parts) == 1
    assert [g["peak"] for g in optimiser.param_groups] == pytest.approx([4e-3])


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ('optimiser = "sgd"', "optimiser: expected one of adamw, muon, got 'sgd'"),
        ("muon_lr = 0.0", "muon_lr: expected more than 0, got 0.0"),
        ('muon_lr = "big"', "muon_lr: expected float, got 'big'"),
        ('optimizer = "muon"', "unknown key 'optimizer'.*did you mean 'optimiser'"),
    ],
)
def test_wrong_keys_and_values(tmp_path, top, message):
    with pytest.raises(InputError, match=message):
        load(write_recipe(tmp_path, top))
