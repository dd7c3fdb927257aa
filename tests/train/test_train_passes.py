"""Training of flextec-small's later passes in miniature: the twin's numbers, gradients, missing levels, a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eozip.codecs.pyramid import files
from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.intervals import Laws, laws
from eozip.codecs.pyramid.layers import LayerLadder, State
from eozip.codecs.pyramid.model import Wanted
from eozip.codecs.pyramid.references import Decoded
from eozip.codecs.pyramid.side import Side, brightness_of
from eozip.entropy.range_coder import EstimatePort
from eozip_lab.train import run
from eozip_lab.train.pyramid import export, narrowing, passes
from eozip_lab.train.pyramid.data import Batch
from eozip_lab.train.pyramid.narrowing import Law
from eozip_lab.train.pyramid.network import Net
from eozip_lab.train.pyramid.passes import First, LaterNet, Pass, passes_of, zones_of
from pyramidscenes import shipped_tensors, texture, wild
from pyramidtraining import write_data, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
STEP = 16 * 640  # in 1/16 DN
LEVELS = [(0, (12, 16)), (1, (10, 14)), (4, (6, 22))]


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return wild(shipped_tensors(), 30)


def networks(stored: dict[str, np.ndarray]) -> tuple[First, LaterNet]:
    net, later = Net(32), LaterNet(32)
    net.load_state_dict(export.trained(stored))
    later.load_state_dict(export.trained_later(stored))
    return First(net, zones_of(files.model_of(stored).tables)), later


def inputs(shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Two dates, three planes: pictures and parents in 1/64 step, wanted details in steps."""
    rng = np.random.default_rng(seed)
    h, w = shape[0] // 2, shape[1] // 2
    below = np.rint(rng.standard_normal((2, 3, h, w)) * 3 * VALUE).astype(np.int32)
    parents = np.rint(rng.standard_normal((2, 3, 3, -(-h // 2), -(-w // 2))) * VALUE * 2).astype(np.int32)
    wanted = np.rint(rng.laplace(0, 1.3, (2, 3, 3, h, w)) * 200) / 256 + 1 / 512  # no residual is a tie
    return {"below": below, "parents": parents, "wanted": wanted}


def by_codec(
    stored: dict[str, np.ndarray], level: int, shape: tuple[int, int], given: dict
) -> list[np.ndarray]:
    """Details after each of three passes, the last of which lacks the level."""
    model = files.model_of(stored)
    later, ports, out = files.later_of(stored, model), [EstimatePort(), EstimatePort()], []
    states = [State(), State()]
    bases: Any = [SimpleNamespace(present=np.ones(3, bool), bits=np.ones(3, int))] * 2
    for number in range(3):
        walk = LayerLadder(
            later.model if number else model,
            [],
            2,
            STEP >> number,
            lambda _: ports,
            brightness_of(Side(EstimatePort(), model.tables), STEP >> number),
            Wanted([], lambda *_: np.zeros(0)),
            laws=laws(model.tables),
            narrower=None,  # type: ignore[arg-type]
            states=states,
            is_there=lambda _, n=number: n < 2,
            around=later.around,
        )
        walk.is_first, walk.made = number == 0, [Decoded(), Decoded()]
        parts = (given[name] << number for name in ("below", "parents"))
        out.append(walk._details(level, *parts, given["wanted"] * 2**number, bases, shape))
        for state in states:
            state.refine()
    return out


def by_twin(stored: dict[str, np.ndarray], level: int, shape: tuple[int, int], given: dict) -> list[Tensor]:
    first, later = networks(stored)
    step = torch.full((2,), STEP / 16)
    one, out = Pass(first.net, step, passes._never_asked, in_turn=True, zones=first.zones), []
    for number in range(3):
        if number:
            one = one.finer(later, None, frozenset({level} if number == 2 else ()))
        parts = (torch.from_numpy(given[name] << number).float() / VALUE for name in ("below", "parents"))
        wanted = torch.from_numpy(given["wanted"] * 2**number).float()
        with torch.no_grad():
            out.append(one.details(level, *parts, wanted, shape))
    return out


@pytest.mark.parametrize(("level", "shape"), LEVELS)
def test_the_twins_passes_are_the_codecs(stored, monkeypatch, level, shape):
    """With lower bounds shown in place of conditional means, which tables of whole numbers have a little different."""
    monkeypatch.setattr(Laws, "middle", lambda self, rows, low, high: low)
    between = Law.between
    monkeypatch.setattr(
        narrowing.Law, "between", lambda low, high, scale: replace(between(low, high, scale), middle=low)
    )
    given = inputs(shape, level)
    for codec, twin in zip(
        by_codec(stored, level, shape, given), by_twin(stored, level, shape, given), strict=True
    ):
        np.testing.assert_array_equal(twin.numpy() * VALUE, codec)


def test_the_law_is_the_codecs_tables(stored):
    rng, tables = np.random.default_rng(1), laws(files.model_of(stored).tables)
    rows = rng.integers(24, 80, 4000)
    low = rng.integers(-4 * VALUE, 4 * VALUE, 4000)
    high = low + rng.integers(VALUE // 2, 3 * VALUE, 4000)
    scale = torch.from_numpy(np.exp(rows / 8 - 5))
    law = Law.between(*(torch.from_numpy(v / VALUE) for v in (low, high)), scale)
    masses = tables.mass(rows, low, high) / 2**30
    is_worth = masses > 1e-3
    off = np.abs(law.nats.numpy() + np.log(masses))[is_worth]
    assert off.max() < 0.3  # positions of masses are whole sixteenths
    assert off.mean() < 0.03
    assert np.abs(law.middle.numpy() * VALUE - tables.middle(rows, low, high))[is_worth].max() < 6


def test_gradients_are_those_of_the_law():
    rng = torch.Generator().manual_seed(1)
    mean = torch.randn(500, generator=rng).double().requires_grad_()
    log_scale = (torch.randn(500, generator=rng) * 0.7 - 0.5).double().requires_grad_()
    low = torch.randn(500, generator=rng).double()
    high = low + 0.4 + 2 * torch.rand(500, generator=rng).double()
    law = Law.between(low - mean, high - mean, log_scale.exp())
    by_mean, by_scale = torch.autograd.grad(law.nats.sum(), (mean, log_scale), retain_graph=True)
    np.testing.assert_allclose(law.by_mean.detach(), by_mean, atol=1e-4)
    np.testing.assert_allclose(law.by_scale.detach(), by_scale, atol=1e-3)
    is_wide = (((high - low) > log_scale.exp()) & (law.nats < 10)).numpy()
    by_mean, by_scale = torch.autograd.grad((mean + law.middle).sum(), (mean, log_scale))
    np.testing.assert_allclose(law.middle_by_mean.detach()[is_wide], by_mean[is_wide], atol=2e-3)
    np.testing.assert_allclose(law.middle_by_scale.detach()[is_wide], by_scale[is_wide], atol=2e-3)


def test_levels_that_a_pass_lacks_cost_nothing_and_are_nearer_than_before(stored):
    first, later = networks(shipped_tensors())
    drawn = Batch((torch.from_numpy(texture((1, 3, 64, 64), 1)).float(),), torch.tensor([300.0]))
    with torch.no_grad():
        whole, lacking = (passes_of(first, later, drawn, 1, missing)[0] for missing in ((), frozenset({0})))
    assert lacking.bits < whole.bits
    before = lacking.known[0].value
    assert not torch.equal(lacking.cells[0].value, before)


def test_a_run_writes_weights_that_differ_in_later_passes_alone(tmp_path: Path):
    write_data(tmp_path)
    files.write_folder(tmp_path / "given", shipped_tensors(), "tec-elic-small-any-v1", "")
    recipe = write_recipe(tmp_path, f'passes = true\ninit = "{tmp_path / "given"}"\nwidth = 32')
    done = run(recipe, steps=2, out=tmp_path / "out", progress=False)
    old, new = (files.read_folder(folder)[1] for folder in (tmp_path / "given", done.weights))
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed
    assert all(name.startswith(files.LATER) for name in changed)
