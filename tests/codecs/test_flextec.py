"""FlexTEC checkpoints as codecs: budgets, cuts behind every section, forecasts that both sides share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import eozip
import vectors
from eozip import hub, sensors
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.terracodec import flextec, tec_tt
from eozip.errors import DesyncError, FormatError, InputError
from golden_decode import seen_with_threads
from test_tec_tt import HEADS, fitting_weights, scene


@pytest.fixture(scope="module")
def codec():
    return flextec.from_weights(hub.recognise(vectors.weights("flextec-small"), "flextec-small"), HEADS)


@pytest.fixture(scope="module")
def stack():
    return scene(3, 70, 100)


@pytest.fixture(scope="module")
def coded(codec, stack):
    return codec.encode(stack, 100)


def cut(coded: Encoded, k: int) -> Encoded:
    return Encoded(coded.sections[:k], coded.checks, coded.budgets)


def golden_dn() -> np.ndarray:
    sensor = sensors.get("s2-l2a")
    x = vectors.golden_input("flextec-small")[0].numpy()
    dn = x * np.array(sensor.std)[:, None, None] + np.array(sensor.mean)[:, None, None]
    return dn.astype(np.float32)


@pytest.mark.parametrize("k", range(1, 17))
def test_a_stream_cut_behind_any_section_decodes(codec, stack, coded, k):
    decoded = codec.decode(cut(coded, k), stack.shape, 100)
    assert decoded.shape == stack.shape
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("k", range(1, 17))
def test_a_cut_stream_gives_the_pixels_of_a_stream_made_so(codec, stack, coded, k):
    """The sections of a smaller budget are the first of a larger one: no bits pay for the cut."""
    made = codec.encode_budgets(stack, [k] * 3)
    assert made.sections == coded.sections[:k]
    if k in (1, 5, 8):
        here, there = (codec.decode(c, stack.shape, 0) for c in (made, cut(coded, k)))
        assert np.array_equal(here, there)


@pytest.mark.parametrize("k", range(1, 17))
def test_bytes_stay_within_one_percent_and_64_of_the_estimate(codec, k):
    x = scene(2, 128, 128)
    size = sum(map(len, codec.encode_budgets(x, [k, k]).sections))
    estimate = sum(codec.estimate(x, [k, k])) / 8
    assert abs(size - estimate) <= 0.01 * estimate + 64


@pytest.mark.parametrize("k", [1, 6, 16])
@torch.inference_mode()
def test_first_dates_cost_what_the_likelihoods_say(k):
    """The estimate of the network, from its own parallel or cached pass, and 1 byte a section of checks."""
    codec = flextec.from_weights(hub.recognise(fitting_weights("flextec-small"), "fit"), HEADS)
    x = scene(1, 128, 128)
    y = tec_tt.latents(codec.model, x[None], codec.sensor)
    expected = float(codec.model.forecast(y, k)[0].bits)
    assert sum(codec.estimate(x, [k])) - 8 * k == pytest.approx(expected, rel=1e-3)


@torch.inference_mode()
def test_one_token_of_each_date_gives_the_golden_reconstruction(codec):
    x, expected = golden_dn(), vectors.load("flextec-small").expected["k1_x_hat_last"]
    decoded = codec.decode(codec.encode_budgets(x, [1, 1, 1]), x.shape, 0)[-1]
    sensor = sensors.get("s2-l2a")
    got = (decoded - np.array(sensor.mean)[:, None, None]) / np.array(sensor.std)[:, None, None]
    # forecasts are rounded means: those near a rounding edge differ between exact grids and golden floats
    assert np.std(got - expected) < 0.1 * np.std(expected)


@pytest.mark.parametrize("budgets", [(3, 0, 0), (16, 0, 5), (2, 9, 1), (1, 16, 0), (8, 8, 8)])
def test_budgets_of_each_date_and_every_cut_of_them(codec, stack, budgets):
    coded = codec.encode_budgets(stack, budgets)
    assert coded.budgets == budgets
    assert len(coded.sections) == max(budgets)
    for k in {1, 2, max(budgets) // 2 or 1, max(budgets)}:
        assert np.isfinite(codec.decode(cut(coded, k), stack.shape, 0)).all()


def test_dates_without_tokens_cost_next_to_nothing(codec, stack):
    alone = sum(map(len, codec.encode_budgets(stack[:1], [4]).sections))
    assert sum(map(len, codec.encode_budgets(stack, [4, 0, 0]).sections)) == alone


@torch.inference_mode()
def test_a_date_without_tokens_is_forecast_from_the_past(codec, stack):
    """Other pixels of a forecast date change nothing; other pixels of the date before do."""
    other = stack.copy()
    other[1] = 5000
    one, two = (codec.encode_budgets(x, [5, 0, 5]) for x in (stack, other))
    assert one == two
    other[0] = 5000
    changed = codec.encode_budgets(other, [5, 0, 5])
    pixels = [codec.decode(c, stack.shape, 0)[1] for c in (one, changed)]
    assert np.abs(pixels[0] - pixels[1]).max() > 1


@pytest.mark.parametrize(("dates", "h", "w"), [(1, 1, 1), (2, 1, 70), (4, 65, 3)])
def test_any_size_and_number_of_dates_come_back(codec, dates, h, w):
    x = scene(dates, h, w)
    decoded = codec.decode(codec.encode(x, 40), x.shape, 40)
    assert decoded.shape == x.shape
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("levels", [(1,), (1, 2, 16), tuple(range(1, 17))])
def test_other_levels_decode_at_every_cut_too(stack, levels):
    weights = hub.recognise(vectors.weights("flextec-small"), "x")
    codec = flextec.from_weights(weights, HEADS, levels)
    x = stack[:, :, :33, :33]
    coded = codec.encode(x, 100)
    for k in (1, 2, 3, 15, 16):
        assert codec.decode(cut(coded, k), x.shape, 0).shape == x.shape


def test_levels_are_part_of_the_id(codec):
    weights = hub.recognise(vectors.weights("flextec-small"), "x")
    assert flextec.from_weights(weights, HEADS, (1,)).id != codec.id


@pytest.mark.parametrize("levels", [(), (2, 4), (1, 4, 4), (1, 17), (4, 1)])
def test_levels_that_could_not_be_cut_are_refused(levels):
    weights = hub.recognise(vectors.weights("flextec-small"), "x")
    with pytest.raises(InputError, match="levels"):
        flextec.from_weights(weights, HEADS, levels)


@pytest.mark.parametrize("budgets", [(0, 4, 4), (17, 1, 1), (1, -1, 1), (1, 1)])
def test_impossible_budgets_are_refused(codec, stack, budgets):
    with pytest.raises(InputError, match="budgets"):
        codec.encode_budgets(stack, budgets)


@pytest.mark.parametrize("budgets", [(0, 16, 16), (200, 16, 16), (16, 16), ()])
def test_impossible_budgets_of_a_stream_are_refused(codec, stack, coded, budgets):
    with pytest.raises(FormatError, match="budget"):
        codec.decode(Encoded(coded.sections, coded.checks, budgets), stack.shape, 0)


def test_no_section_or_too_many_are_refused(codec, stack, coded):
    for sections in ((), (*coded.sections, b"x")):
        with pytest.raises(FormatError, match="sections"):
            codec.decode(Encoded(sections, coded.checks, coded.budgets), stack.shape, 0)


def test_quality_is_a_budget_in_equal_steps():
    budgets = [flextec._tokens_of(q) for q in np.linspace(0, 100, 401)]
    assert budgets == sorted(budgets)
    assert set(budgets) == set(range(1, 17))


@pytest.mark.parametrize("k", [1, 3, 16])
def test_a_changed_byte_is_noticed_at_every_cut(codec, k):
    x = scene(2, 40, 40)
    coded = codec.encode(x, 100)
    rng = np.random.default_rng(k)
    for _ in range(8):
        which = int(rng.integers(k))
        section = bytearray(coded.sections[which])
        section[rng.integers(len(section))] ^= int(rng.integers(1, 256))
        sections = (*coded.sections[:which], bytes(section), *coded.sections[which + 1 : k])
        with pytest.raises(FormatError):  # DesyncError is one
            codec.decode(Encoded(sections, coded.checks, coded.budgets), x.shape, 0)


def test_a_wrong_check_value_names_the_date(codec, stack, coded):
    checks = (coded.checks[0], coded.checks[1] ^ 1, coded.checks[2])
    with pytest.raises(DesyncError, match="date 1"):
        codec.decode(Encoded(coded.sections, checks, coded.budgets), stack.shape, 0)


def test_a_missing_date_is_an_error_of_ours(codec, stack, coded):
    fewer = (2, *stack.shape[1:])
    with pytest.raises(FormatError, match="a date is missing"):
        codec.decode(coded, fewer, 0)
    without = Encoded(coded.sections, (coded.checks[0], coded.checks[2]), coded.budgets[:2])
    with pytest.raises(DesyncError, match="date 1"):
        codec.decode(without, fewer, 0)


def test_a_wrong_past_names_the_date(codec, stack, coded):
    plain = codec.path.then

    def other(past, walked, grid):
        return plain(past, type(walked)((walked.tokens[0] + 3, *walked.tokens[1:])), grid)

    codec.path.then = other
    try:
        for k in (1, 4, 16):
            with pytest.raises(FormatError, match=r"date [12]"):
                codec.decode(cut(coded, k), stack.shape, 0)
    finally:
        del codec.path.then


def test_a_batch_costs_what_its_stacks_cost(codec):
    stacks = np.stack([scene(2, 64, 64), scene(2, 64, 64)[:, :, ::-1]])
    together = sum(codec.estimate(stacks, [9, 4]))
    # the check bytes of the sections are per batch
    alone = sum(sum(codec.estimate(x, [9, 4])) for x in stacks) - 8 * 13
    assert together == pytest.approx(alone, rel=1e-3)


def test_another_thread_count_decodes_the_same_symbols(codec):
    x = scene(3, 128, 128)
    coded = codec.encode(x, 50)
    assert seen_with_threads(codec, coded, x.shape, 1) == seen_with_threads(codec, coded, x.shape, 3)


def test_a_stored_chunk_cut_behind_any_section_decodes_through_the_api(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({f"model.{name}": t for name, t in fitting_weights("flextec-small").items()}, path)
    codec = eozip.load(path)
    try:
        dn = np.random.default_rng(0).integers(900, 1100, (2, 12, 40, 70)).astype(np.uint16)
        blob = eozip.encode(dn, codec=codec.id, quality=99.99)  # 100 promises 46 dB
        info = eozip.inspect(blob)
        assert info.header.budgets == (16, 16)
        start = len(blob) - sum(info.sections)
        for k in (1, 2, 7, 8, 16):
            prefix = blob[: start + sum(info.sections[:k])]
            decoded = eozip.decode(prefix, budget=k)
            assert np.array_equal(decoded, eozip.decode(blob, budget=k))
        with pytest.raises(FormatError, match="cut before its first section"):
            eozip.decode(blob[: start + 3], budget=1)
    finally:
        registry.REGISTRY.remove(codec.id)
