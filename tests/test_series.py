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

from eozip.codecs import series_codec
from eozip.codecs.series_model import SeriesModel
from eozip.codecs.small_files import load_small
from eozip.coder import EncodePort, EstimatePort
from eozip.errors import DesyncError, FormatError, InputError
from eozip.networks.small import SmallConfig
from eozip.networks.small_time import TimeEntropy
from eozip.train import run
from eozip.train.augment import DN_MAX, DN_MIN, Augment
from eozip.train.data import Draw, open_source
from eozip.train.kinds import kind_of
from eozip.train.recipe import DataSource, load
from eozip.train.series import augmented_series, chosen_dates, open_series, seasons, smoothed, twelve_bands
from eozip.train.start_series import begin_series
from smallmodels import (
    TINY,
    scene,
    series_scene,
    tiny_codec,
    tiny_model,
    tiny_series_codec,
    tiny_series_model,
)
from trainfiles import write_data, write_recipe

QUALITY = 60


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    x = series_scene(3, 96, 64)  # nothing to pad
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
    first, *later = codec.encode(x, QUALITY).bits
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
    monkeypatch.setattr(series_codec, "PAST", 2)
    coded = codec.encode(x, 80)
    decoded = codec.decode(coded, x.shape, 80)
    assert decoded.shape == x.shape
    monkeypatch.setattr(series_codec, "PAST", 3)
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
        with pytest.raises(FormatError, match="one or two sections"):
            codec.decode(replace(coded, sections=sections), x.shape, QUALITY)


def test_dropped_cells_cost_next_to_nothing_and_damaged_flags_are_refused(codec):
    x = series_scene(2, 64, 48)
    dropped = np.zeros((2, 8, 6), bool)
    dropped[1] = True
    coded, whole = codec.encode_without(x, QUALITY, dropped), codec.encode(x, QUALITY)
    decoded = codec.decode(coded, x.shape, QUALITY)
    assert np.array_equal(decoded[0], codec.decode(whole, x.shape, QUALITY)[0])
    assert coded.bits[1] < 0.2 * whole.bits[1]  # the hyper-latent
    with pytest.raises(FormatError):
        codec.decode(replace(coded, sections=(coded.sections[0], coded.sections[1][:-1])), x.shape, QUALITY)
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
    codec = replace(codec, thrift=np.inf)  # the training pass rounds to nearest
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


# --- Data -------------------------------------------------------------------------------------------------------------


def source(folder: Path, **more) -> DataSource:
    keys = {"kind": "series", "path": str(folder / "train"), "crop": 32, "batch": 2, "dates": 3}
    return DataSource(**keys | more)


def first_crops(opened, count: int) -> list[np.ndarray]:
    crops = opened.crops(Draw(1, 2), np.random.default_rng(0))
    return [next(crops) for _ in range(count)]


def test_series_are_crops_of_one_place_in_order_of_time(folder):
    with np.load(folder / "train" / "fields.npz") as stored:
        stack = stored["a"]
    opened = open_series(source(folder), 12)
    assert opened.facts["kind"] == "series"
    assert opened.facts["dates"] == 3
    assert [p.name for p in opened.files()] == ["fields.npz", "water.npz"]
    for crop in first_crops(opened, 4):
        # only one array has three dates, so all of it is there
        corners = np.argwhere((stack[0, 0] == crop[0, 0, 0, 0]) & (stack[2, 5] == crop[2, 5, 0, 0]))
        assert any(np.array_equal(stack[:, :, i : i + 32, j : j + 32], crop) for i, j in corners)


def test_arrays_without_60_m_bands_are_taken_too(folder):
    opened = open_source(source(folder, kind="seasons"), [f"B{k}" for k in range(12)])
    assert {a.shape[1] for a in opened.stacks.arrays} == {10, 12}
    assert opened.stacks.chances.sum() == pytest.approx(1)
    for crop in first_crops(opened, 12):
        assert crop.shape == (3, 12, 32, 32)
        assert crop.min() >= DN_MIN
        assert crop.max() <= DN_MAX


def test_too_few_dates_are_refused(folder):
    with pytest.raises(InputError, match="10, H, W"):
        open_series(source(folder, dates=4), 12)
    assert open_series(source(folder, dates=4, kind="seasons"), 12).dates == 4


def test_chosen_dates_rise_and_stay_within_reach():
    rng = np.random.default_rng(0)
    drawn = np.array([chosen_dates(30, 4, rng) for _ in range(500)])
    assert (np.diff(drawn) > 0).all()
    assert drawn.min() == 0
    assert drawn.max() == 29
    assert (drawn[:, -1] - drawn[:, 0]).max() == 11  # three times as far apart as they could be
    assert np.array_equal(chosen_dates(3, 3, rng), [0, 1, 2])


def test_bands_of_60_m_are_made_of_their_neighbours():
    stack = np.random.default_rng(0).integers(1000, 3000, (2, 10, 24, 24)).astype(np.uint16)
    stack[:, :, :, 20:] = 0
    whole = twelve_bands(stack)
    assert whole.shape == (2, 12, 24, 24)
    assert whole.dtype == np.uint16
    assert np.array_equal(np.delete(whole, (0, 9), 1), stack)
    assert (whole[..., 20:] == 0).all()  # nodata stays nodata
    mean = stack[:, 7, 9:15, 9:15].mean((1, 2))
    assert whole[:, 9, 12, 12] == pytest.approx(mean, abs=1)
    assert (whole[..., :20] > 0).all()
    assert twelve_bands(whole) is whole


def test_smoothing_keeps_a_constant():
    band = np.full((1, 16, 16), 1000, np.uint16)
    assert np.array_equal(smoothed(band, 0.5), band // 2)


def test_seasons_are_other_dates_of_the_same_place():
    crop = scene(1, 48, 48)[0]
    made = seasons(crop, 5, np.random.default_rng(3))
    assert made.shape == (5, 12, 48, 48)
    assert made.min() >= DN_MIN
    assert made.max() <= DN_MAX
    assert len(np.unique(made[:, 3, 20, 20])) == 5
    edges = crop[3] - crop[3].mean()
    alike = [np.corrcoef(edges.ravel(), date[3].ravel())[0, 1] for date in made]
    assert np.median(alike) > 0.5
    assert np.array_equal(made, seasons(crop, 5, np.random.default_rng(3)))


def test_augmentation_turns_all_dates_alike():
    crop = np.repeat(scene(1, 24, 24), 3, 0)
    plain = Augment(brightness=0.0, band=0.0, bright_share=0.0, cloud_share=0.0)
    for seed in range(8):
        turned = augmented_series(crop, np.random.default_rng(seed), plain)
        assert np.array_equal(turned[0], turned[1])
        assert np.array_equal(turned[0], turned[2])
        assert np.array_equal(np.sort(turned[0].ravel()), np.sort(crop[0].ravel()))
    clouds = [
        augmented_series(crop, np.random.default_rng(s), replace(plain, cloud_share=0.5)) for s in range(8)
    ]
    # brighter than the others, date by date
    covered = np.array([series.mean((1, 2, 3)) > crop.mean() + 100 for series in clouds])
    assert 0 < covered.sum() < covered.size
    assert (covered.any(1) & ~covered.all(1)).any()
