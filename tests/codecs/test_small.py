"""The small codecs: one traversal, bytes as estimated, any size, and files that give the codec back."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eozip.codecs.small.checkerboard import PASSES, colours, pass_of_cells, pyramid
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.weight_files import load_small, save_small, trained_tensors
from eozip.entropy import fixed_point
from eozip.errors import DesyncError, FormatError, WeightsError
from eozip_lab.train.calibrate import calibrate
from eozip_lab.train.objective import LOSS_EXPONENT, loss_of
from smallmodels import KINDS, TINY, scene, tiny_codec, tiny_model, unfitted


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def codec(kind, tmp_path_factory):
    return tiny_codec(kind, tmp_path_factory.mktemp(kind))


def bits(coded):
    return 8 * sum(len(s) for s in coded.sections)


@pytest.mark.parametrize("quality", [0, 33.33, 60, 100])
def test_bytes_are_within_one_per_cent_of_the_estimate(codec, quality):
    x = scene(2, 96, 80)
    assert bits(codec.encode(x, quality)) == pytest.approx(codec.estimate(x, quality), rel=0.01, abs=64 * 8)


@pytest.mark.parametrize("quality", [0, 30, 60])
def test_the_training_pass_agrees_with_the_traversal(codec, kind, quality):
    x = scene(2, 96, 96)
    model, t = tiny_model(kind), codec.level(quality, 2)
    with torch.no_grad():
        x_hat, parallel = model(model.standardise(torch.from_numpy(x)), t, hard=True)
    codec = unfitted(replace(codec, thrift=np.inf))  # the training pass rounds to nearest
    decoded = codec.decode(codec.encode(x, quality), x.shape, quality)
    # an escape costs less than the logistic tail that training counts, which a tiny untrained model needs often
    assert codec.estimate(x, quality) == pytest.approx(float(parallel.sum()), rel=0.06)
    own = np.square(model.restore(x_hat).numpy() - x).mean()
    assert np.square(decoded - x).mean() == pytest.approx(own, rel=0.03)


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 3),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    quality=st.floats(0, 100),
    seed=st.integers(0, 99),
)
def test_any_size_comes_back(codec, frames, height, width, quality, seed):
    quality = round(quality, 2)
    x = scene(frames, height, width, seed)
    decoded = codec.decode(codec.encode(x, quality), x.shape, quality)
    assert decoded.shape == x.shape
    assert np.isfinite(decoded).all()


def test_quality_trades_bits_for_error(codec):
    x = scene(1, 96, 96)
    points = []
    for quality in range(0, 101, 20):
        coded = codec.encode(x, quality)
        points.append((bits(coded), np.square(codec.decode(coded, x.shape, quality) - x).mean()))
    rates, errors = zip(*points)
    assert list(rates) == sorted(rates)
    assert list(errors) == sorted(errors, reverse=True)


def test_extreme_pixels_are_no_special_case(codec):
    x = scene(1, 64, 64)
    x[:, :, 10:20, 10:20], x[:, :, 40:50, 40:50] = 20000, -2000
    decoded = codec.decode(codec.encode(x, 80), x.shape, 80)
    assert np.median(decoded[:, :, 12:18, 12:18]) > 14000


def test_changed_symbols_are_a_named_frame(codec):
    x = scene(3, 64, 64)
    coded = codec.encode(x, 60)
    checks = (coded.checks[0], coded.checks[1] ^ 1, coded.checks[2])
    with pytest.raises(DesyncError, match=r"\[1\]"):
        codec.decode(replace(coded, checks=checks), x.shape, 60)


def test_a_wrong_number_of_sections_is_refused(codec):
    x = scene(1, 32, 32)
    coded = codec.encode(x, 50)
    with pytest.raises(FormatError, match="1 section"):
        codec.decode(replace(coded, sections=()), x.shape, 50)


def test_another_quality_than_the_encoders_is_noticed(codec):
    x = scene(1, 96, 96)
    coded = codec.encode(x, 60)
    with pytest.raises(FormatError):
        codec.decode(coded, x.shape, 40)


def test_files_give_the_same_codec_again(codec, kind, tmp_path):
    again = tiny_codec(kind, tmp_path)
    x = scene(1, 64, 64)
    assert again.weights_hash == codec.weights_hash
    assert again.encode(x, 70) == codec.encode(x, 70)


def test_tables_fitted_to_what_is_coded_cost_fewer_bits(codec, kind, tmp_path):
    tiny_codec(kind, tmp_path)
    crops = [scene(4, 64, 64, seed) for seed in range(8)]
    calibrate(tmp_path, crops)
    fitted = load_small(tmp_path)
    assert fitted.weights_hash != codec.weights_hash
    assert np.array_equal(fitted.tables.first, codec.tables.first)
    before, after = (sum(c.estimate(x, 50) for x in crops) for c in (codec, fitted))
    assert after < before
    assert fitted.decode(fitted.encode(crops[0], 50), crops[0].shape, 50).shape == crops[0].shape


def test_files_of_other_sizes_are_refused(kind, tmp_path):
    tiny_codec(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["network"]["coarse"] = 18
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="coarse"):
        load_small(tmp_path)
    del config["network"]["coarse"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="sizes"):
        load_small(tmp_path)


def test_exported_weights_can_be_trained_on(kind, tmp_path):
    model = tiny_model(kind)
    save_small(tmp_path, model, "x-s2l2a-v1", "s2-l2a", "a card")
    tensors, own = trained_tensors(tmp_path), model.state_dict()
    assert set(tensors) == set(own)
    for name, v in tensors.items():
        torch.testing.assert_close(v, own[name], rtol=2e-2, atol=2e-2)


def test_every_cell_is_coded_once():
    for h, w in [(1, 1), (4, 4), (5, 9), (8, 12)]:
        passes = [cells.index for cells in pyramid(h, w, torch.device("cpu"))]
        assert sorted(torch.cat(passes).tolist()) == list(range(h * w))
        both = [cells.index for cells in colours(h, w, torch.device("cpu"))]
        assert sorted(torch.cat(both).tolist()) == list(range(h * w))


def test_every_later_cell_knows_a_neighbour():
    order = pass_of_cells(8, 8)
    for p in range(1, PASSES):
        known = torch.nn.functional.max_pool2d((order < p).float()[None], 5, stride=1, padding=2)[0]
        assert bool((known[order == p] > 0).all())


def test_sums_that_could_overflow_are_refused(kind):
    model = tiny_model(kind)
    entropy = copy.deepcopy(model.entropy)
    with torch.no_grad():
        entropy.groups[1].linear[0].weight.fill_(9.0 if kind == "tec-fp-tiny" else 15.0)
        entropy.groups[1].linear[0].weight.mul_(1000)
    with pytest.raises(WeightsError, match=r"groups\.1\.linear\.0"):
        fixed_point.exact_entropy(entropy)


def test_tiny_is_the_shape_it_says():
    assert tiny_model("tec-elic-tiny").config.latent == sum(TINY["groups"])


def test_coding_leaves_nothing_that_training_cannot_use(codec, kind):
    codec.encode(scene(1, 160, 32), 50)  # a size no other test has: its cells are cached while coding
    model = copy.deepcopy(tiny_model(kind)).train()
    x = model.standardise(torch.from_numpy(scene(1, 160, 32)))
    x_hat, bits = model(x, torch.ones(1))
    (bits.sum() + x_hat.square().sum()).backward()


def test_emphasis_fades_with_the_rate():
    """At the lowest level as asked, at the highest all bands alike; the mean weight is always 1."""
    plain, config = SmallConfig(), SmallConfig(emphasis=(4.0,) * 3 + (1.0,) * 9)
    t = torch.tensor([0.0, 2.5, 5.0])
    assert (plain.band_weights(t) == 1).all()
    weights = config.band_weights(t)
    torch.testing.assert_close(weights.mean(1), torch.ones(3))
    torch.testing.assert_close(weights[:, 0] / weights[:, 11], torch.tensor([4.0, 2.5, 1.0]))


def test_the_loss_has_the_emphasis():
    model = copy.copy(tiny_model("tec-fp-tiny"))
    x, t = torch.from_numpy(scene(1, 32, 32)), torch.tensor([0.0])
    losses = []
    for emphasis in ((), (1e-6,) * 11 + (1.0,), (1e-6,) * 3 + (1.0,) + (1e-6,) * 8):
        model.config = replace(model.config, emphasis=emphasis)
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append([v.item() for v in loss_of(model, x, t)])
            error = (model(model.standardise(x), t)[0] - model.standardise(x)).square().mean((0, 2, 3))
    (alike, rate, mse), (one, *same), (other, *_) = losses
    assert same == [rate, mse]  # what is reported counts bands alike
    lmbda = float(model.config.lmbda(t))
    assert (one - other) == pytest.approx(
        float(error[11] - error[3]) * lmbda * lmbda**LOSS_EXPONENT, rel=0.02, abs=1e-4
    )
    assert alike == pytest.approx((rate + lmbda * mse) * lmbda**LOSS_EXPONENT, rel=1e-5)
