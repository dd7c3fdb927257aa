"""tec-tt-small: dates coded one after the other, what they cost, and what it is trained on."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eozip.codecs.small import series_codec, series_walk
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.series_model import SeriesModel
from eozip.codecs.small.temporal_entropy import TimeEntropy
from eozip.codecs.small.weight_files import load_small
from eozip.entropy.range_coder import EncodePort, EstimatePort
from eozip.errors import DesyncError, FormatError, InputError
from eozip_lab.train import run
from eozip_lab.train.kinds import kind_of
from eozip_lab.train.recipe import load
from eozip_lab.train.start_series import begin_series
from smallmodels import (
    TINY,
    scene,
    series_scene,
    tiny_codec,
    tiny_model,
    tiny_series_codec,
    tiny_series_model,
    unfitted,
)
from trainfiles import write_data, write_recipe

QUALITY = 60


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return tiny_series_codec(tmp_path_factory.mktemp("tec-tt-tiny"))


@pytest.fixture(scope="module")
def image_codec(tmp_path_factory):
    """tec-elic-tiny, whose spatial weights are those of `codec`."""
    return tiny_codec("tec-elic-tiny", tmp_path_factory.mktemp("tec-elic-tiny"))


@pytest.fixture(scope="module")
def x():
    return series_scene(4, 64, 80)


@pytest.fixture(scope="module")
def coded(codec, x):
    return codec.encode(x, QUALITY)


def walked(codec, port, x):
    """-> check values, y_hat, as the encoder makes them."""
    t = codec.level(QUALITY, len(x))
    with torch.inference_mode():
        y = codec.model.analyse(codec.model.standardise(torch.from_numpy(x)), t)
        return codec.traverse(port, t, tuple(y.shape[2:]), y, codec.model.entropy.hyper_latent(y))


# --- Bytes ------------------------------------------------------------------------------------------------------------


def test_the_decoder_finds_the_encoders_symbols_and_pixels(codec):
    x, codec = series_scene(3, 96, 64), unfitted(codec)  # nothing to pad
    port = EncodePort()
    checks, y_hat = walked(codec, port, x)
    coded = codec.encode(x, QUALITY)
    assert coded.sections == (port.finish(),)
    assert coded.checks == checks
    t = codec.level(QUALITY, 3)
    with torch.inference_mode():
        pixels = codec.model.restore(codec.model.synthesise(y_hat, t)).numpy()
    assert np.array_equal(codec.decode(coded, x.shape, QUALITY), pixels)


@pytest.mark.parametrize("quality", [0, 42.42, 100])
def test_a_single_date_is_that_of_the_image_codec(codec, image_codec, quality):
    x = scene(1, 70, 40)
    own, other = (c.encode(x, quality) for c in (codec, image_codec))
    assert own.sections == other.sections
    assert own.checks == other.checks
    assert np.array_equal(codec.decode(own, x.shape, quality), image_codec.decode(other, x.shape, quality))


@pytest.mark.parametrize("quality", [0, 33.33, 60, 100])
def test_bytes_of_every_date_are_within_one_per_cent_of_the_estimate(codec, x, quality):
    sizes = [0, *(len(codec.encode(x[:k], quality).sections[0]) for k in range(1, 5))]
    with torch.inference_mode():
        _, estimated = codec.send(EstimatePort(), x, quality)
    assert 8 * np.diff(sizes) == pytest.approx(np.array(estimated), rel=0.01, abs=64 * 8)
    assert codec.estimate(x, quality) == pytest.approx(sum(estimated))


@pytest.mark.parametrize("quality", [0, 60, 100])
def test_bits_by_date_add_up_to_the_bytes(codec, x, quality):
    coded = codec.encode(x, quality)
    assert len(coded.bits) == 4
    assert min(coded.bits) > 0
    # two words of 32 bits and the end marker
    assert sum(coded.bits) == pytest.approx(8 * len(coded.sections[0]), abs=72)


def test_dates_alike_cost_less_than_the_first(tmp_path):
    codec = tiny_series_codec(tmp_path, noise=0.0)  # as training starts: trusting past dates a little
    x = np.repeat(scene(1, 96, 96), 4, 0)
    first, *later = unfitted(codec).encode(x, QUALITY).bits
    assert max(later) < 0.95 * first


@settings(max_examples=10, deadline=None)
@given(
    dates=st.integers(1, 6),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    quality=st.floats(0, 100),
    seed=st.integers(0, 99),
)
def test_any_size_comes_back(codec, dates, height, width, quality, seed):
    quality = round(quality, 2)
    x = series_scene(dates, height, width, seed)
    decoded = codec.decode(codec.encode(x, quality), x.shape, quality)
    assert decoded.shape == x.shape
    assert np.isfinite(decoded).all()


def test_extreme_dates_are_no_special_case(codec):
    x = series_scene(3, 64, 64)
    x[1], x[2, :, :32] = 20000, -2000
    decoded = codec.decode(codec.encode(x, 80), x.shape, 80)
    assert np.median(decoded[1, 3:8]) > 14000


def test_only_so_many_dates_count(codec, monkeypatch):
    x = series_scene(4, 32, 32)
    monkeypatch.setattr(series_walk, "PAST", 2)
    coded = codec.encode(x, 80)
    decoded = codec.decode(coded, x.shape, 80)
    assert decoded.shape == x.shape
    monkeypatch.setattr(series_walk, "PAST", 3)
    assert np.array_equal(codec.decode(codec.encode(x[:3], 80), (3, *x.shape[1:]), 80), decoded[:3])
    with pytest.raises(FormatError):
        codec.decode(coded, x.shape, 80)


# --- Damage -----------------------------------------------------------------------------------------------------------


def test_changed_symbols_are_a_named_date(codec, x, coded):
    checks = (*coded.checks[:2], coded.checks[2] ^ 1, coded.checks[3])
    with pytest.raises(DesyncError, match=r"frames \[2\]"):
        codec.decode(replace(coded, checks=checks), x.shape, QUALITY)


def test_swapped_dates_are_named(codec, x, coded):
    other = codec.encode(x[[0, 2, 1, 3]], QUALITY)
    with pytest.raises(DesyncError, match=r"frames \[1, 2, 3\]"):
        codec.decode(replace(coded, sections=other.sections), x.shape, QUALITY)


def test_a_missing_date_is_noticed(codec, x, coded):
    """A stream of which somebody took out the check of a date, or whose section lacks the date."""
    shape = (3, *x.shape[1:])
    checks = (coded.checks[0], *coded.checks[2:])
    with pytest.raises(FormatError):
        codec.decode(replace(coded, checks=checks), shape, QUALITY)
    lacking = codec.encode(x[[0, 2, 3]], QUALITY)
    with pytest.raises(FormatError):
        codec.decode(replace(coded, sections=lacking.sections), x.shape, QUALITY)
    with pytest.raises(DesyncError, match=r"frames \[1, 2\]"):
        codec.decode(replace(lacking, checks=checks), shape, QUALITY)


@pytest.mark.parametrize("part", ["time.0.enter.weight", "time.1.score.bias", "time.2.merge.weight"])
def test_a_network_over_time_off_by_little_desynchronises_later_dates_only(
    codec, image_codec, x, coded, part
):
    model = copy.deepcopy(codec.model)
    with torch.no_grad():
        dict(model.entropy.named_parameters())[part].add_(2.0**-5)
    other = replace(codec, model=model)
    with pytest.raises(FormatError):
        other.decode(coded, x.shape, QUALITY)
    first = codec.encode(x[:1], QUALITY)
    assert other.encode(x[:1], QUALITY) == first


def test_a_wrong_number_of_sections_is_refused(codec, x, coded):
    for sections in ((), 3 * coded.sections):
        with pytest.raises(FormatError, match="expected 1 section"):
            codec.decode(replace(coded, sections=sections), x.shape, QUALITY)


def test_dropped_cells_cost_next_to_nothing_and_wrong_flags_are_refused(codec):
    x = series_scene(2, 64, 48)
    dropped = np.zeros((2, 8, 6), bool)
    dropped[1] = True
    coded, whole = codec.encode_without(x, QUALITY, dropped), codec.encode(x, QUALITY)
    decoded = codec.decode(coded, x.shape, QUALITY)
    assert np.array_equal(decoded[0], codec.decode(whole, x.shape, QUALITY)[0])
    assert coded.bits[1] < 0.2 * whole.bits[1]  # the hyper-latent
    with pytest.raises(InputError, match=r"\(2, 8, 6\)"):
        codec.encode_without(x, QUALITY, dropped[:, :7])


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_the_same_pixels_or_a_named_error(codec, at, bit):
    x, coded = one_for_damage(codec)
    data = bytearray(coded.sections[0])
    data[at % len(data)] ^= 1 << bit
    try:
        decoded = codec.decode(replace(coded, sections=(bytes(data),)), x.shape, QUALITY)
    except FormatError:  # DesyncError is one
        return
    assert np.array_equal(decoded, codec.decode(coded, x.shape, QUALITY))


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused(codec, data):
    x, coded = one_for_damage(codec)
    with pytest.raises(FormatError):
        codec.decode(replace(coded, sections=(data,)), x.shape, QUALITY)


KEPT = {}


def one_for_damage(codec):
    """A stack and its bytes, made once."""
    if not KEPT:
        KEPT["x"] = series_scene(2, 32, 32)
        KEPT["coded"] = codec.encode(KEPT["x"], QUALITY)
    return KEPT["x"], KEPT["coded"]


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [0, 30, 60])
def test_the_training_pass_agrees_with_the_traversal(codec, quality):
    x = series_scene(3, 96, 96)
    model, t = tiny_series_model(), codec.level(quality, 3)
    with torch.no_grad():
        x_hat, parallel = model(model.standardise(torch.from_numpy(x)), t, hard=True)
    codec = unfitted(replace(codec, thrift=np.inf))  # the training pass rounds to nearest
    with torch.inference_mode():
        _, estimated = codec.send(EstimatePort(), x, quality)
    assert np.array(estimated) == pytest.approx(parallel.numpy(), rel=0.06)
    decoded = codec.decode(codec.encode(x, quality), x.shape, quality)
    own = np.square(model.restore(x_hat).numpy() - x).mean()
    assert np.square(decoded - x).mean() == pytest.approx(own, rel=0.03)


def test_series_of_a_batch_do_not_see_each_other():
    model = tiny_series_model()
    x = torch.from_numpy(np.stack([series_scene(3, 32, 32, seed) for seed in (1, 2)]))
    t = torch.tensor([1.5, 3.0])
    with torch.no_grad():
        x = model.standardise(x)
        _, together, error = model.series(x, t, hard=True)
        alone = [model.series(x[i : i + 1], t[i : i + 1], hard=True) for i in range(2)]
    torch.testing.assert_close(together, torch.cat([bits for _, bits, _ in alone]), rtol=1e-4, atol=0.1)
    torch.testing.assert_close(error, torch.cat([mse for _, _, mse in alone]), rtol=1e-3, atol=1e-6)


def test_gradients_reach_every_network_over_time_and_nothing_that_only_serves_the_transforms():
    model = copy.deepcopy(tiny_series_model()).train()
    x = model.standardise(torch.from_numpy(series_scene(3, 32, 32))[None])
    _, bits, _ = model.series(x, torch.tensor([2.5]))
    bits.sum().backward()
    for name, p in model.named_parameters():
        if name.startswith("entropy.time."):
            assert p.grad is not None, name
            assert bool(p.grad.any()), name
        elif name.startswith(("g_a.", "g_s.", "log_gain")):
            assert p.grad is None, name


def test_the_start_takes_everything_but_the_networks_over_time():
    given_tensors = tiny_model("tec-elic-tiny").state_dict()
    model = SeriesModel(SmallConfig(entropy="time", **TINY, time=10))
    begin_series(model, torch.empty(0), given_tensors)
    for name, v in model.state_dict().items():
        if not name.startswith("entropy.time."):
            assert torch.equal(v, given_tensors[name]), name
    assert isinstance(model.entropy, TimeEntropy)


def test_a_start_without_an_image_codec_is_refused():
    model = SeriesModel(SmallConfig(entropy="time", **TINY, time=10))
    lacking = {n: v for n, v in tiny_model("tec-elic-tiny").state_dict().items() if n != "g_s.leave.bias"}
    with pytest.raises(InputError, match=r"g_s\.leave\.bias"):
        begin_series(model, torch.empty(0), lacking)


SERIES = """
[[data]]
kind = "series"
path = "train"
only = ["*:a"]
crop = 32
batch = 2
dates = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def series_recipe(folder: Path, network: str = "") -> Path:
    """Of `write_recipe`, with series in place of images."""
    top = 'kind = "tec-tt-small"\nsteps = 3\nname = "tec-tt-small-s2l2a-v7"\nstart_crops = 4\ncalibration_crops = 4'
    path = write_recipe(folder, top, "real_bytes = false")
    text = path.read_text()
    top, _, rest = text.partition("[[data]]")
    _, _, rest = rest.partition("[validation]")
    path.write_text(f"{top}{network}{SERIES}{SERIES.replace('series', 'seasons')}\n[validation]{rest}")
    return path


def test_a_run_ends_in_weights_that_load_and_encode(folder):
    recipe = series_recipe(folder, "time = 8\n")
    recipe.write_text(f'init = "image"\ntrain_only = ["entropy.time."]\n{recipe.read_text()}')
    sizes = {n: v for n, v in load(recipe).network.items() if n != "time"}
    image = kind_of("tec-elic-small")
    image.save(folder / "image", image.build(image.configured(sizes)), "x-s2l2a-v1", "s2-l2a", "a card")
    outcome = run(recipe, out=folder / "out", progress=False, device="cpu")
    assert outcome.finished
    assert outcome.steps == 3
    codec = kind_of("tec-tt-small").load(outcome.weights)
    assert codec.id == "tec-tt-small-s2l2a-v7"
    assert type(codec) is series_codec.SeriesCodec
    before = load_small(folder / "image").model.state_dict()
    for name, v in codec.model.state_dict().items():
        if not name.startswith("entropy.time."):  # nothing else was trained
            assert torch.equal(v, before[name]), name
    x = series_scene(3, 40, 40)
    assert codec.decode(codec.encode(x, 50), x.shape, 50).shape == x.shape
