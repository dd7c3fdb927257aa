"""TEC-TT and FlexTEC reproduce their golden vectors; the cached walk equals the parallel pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vectors
from eozip import hub
from eozip.codecs.terracodec import temporal, transformer
from eozip.errors import WeightsError

SMALL = ("tt-small", "flextec-small")


def build(name: str) -> temporal.TemporalModel:
    heads = 4 if name.endswith("small") else 16
    return temporal.from_weights(hub.recognise(vectors.weights(name), name), heads)


@pytest.fixture(scope="module", params=SMALL)
def case(request):
    return build(request.param), vectors.load(request.param)


def close(got: torch.Tensor, expected: np.ndarray) -> bool:
    """Within 1e-4 of the largest value."""
    return float(np.abs(got.numpy() - expected).max()) <= 1e-4 * float(np.abs(expected).max())


def symbols_agree(got: torch.Tensor, expected: np.ndarray) -> bool:
    """But for 0.1 % of the symbols, which a forecast on a rounding edge may flip."""
    return float(np.mean(got.numpy() != expected)) <= 1e-3


@torch.inference_mode()
def check_estimate(model, golden):
    y = model.g_a(golden.x)
    frames = model.estimate(y)
    expected = golden.expected
    newest = model.entropy_model.past(frames[-2].y_hat)
    assert close(y[0], expected["y"])
    assert close(newest[0], expected["last_prev_processed"])
    assert symbols_agree(torch.cat([f.y_hat for f in frames]), expected["y_hat"])
    assert close(torch.cat([f.dequantised for f in frames]), expected["dequantized"])
    assert close(torch.stack([f.bits for f in frames]), expected["bits"])
    assert close(frames[-1].likelihood[0], expected["last_likelihoods"])
    assert close(model.g_s(frames[-1].dequantised)[0], expected["x_hat_last"])


@torch.inference_mode()
def check_forecast(model, golden, k):
    frames = model.forecast(model.g_a(golden.x), k)
    assert symbols_agree(torch.cat([f.y_hat for f in frames]), golden.expected[f"k{k}_y_hat"])
    assert close(torch.stack([f.bits for f in frames]), golden.expected[f"k{k}_bits"])
    assert close(model.g_s(frames[-1].dequantised)[0], golden.expected[f"k{k}_x_hat_last"])


def test_golden_vector(case):
    check_estimate(*case)


@pytest.mark.parametrize("k", [1, 6, 16])
def test_flextec_golden_vector_with_k_tokens_sent(k):
    check_forecast(build("flextec-small"), vectors.load("flextec-small"), k)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tt-base", "flextec-base"])
def test_golden_vector_of_the_full_size(name):
    model, golden = build(name), vectors.load(name)
    check_estimate(model, golden)
    if name == "flextec-base":
        check_forecast(model, golden, 4)


@torch.inference_mode()
def test_inpainting_golden_vector():
    model, golden = build("tt-small"), vectors.load("tt-small")
    y = model.g_a(golden.x)
    cloudy = torch.from_numpy(golden.expected["inpaint_mask"])[None] > 0
    frame = model.inpaint(y[:, 1], cloudy, [torch.round(y[:, 0])], as_published=True)
    assert symbols_agree(frame.y_hat[0], golden.expected["inpaint_y_hat"])
    assert close(model.g_s(frame.dequantised)[0], golden.expected["inpaint_x_hat"])


@torch.inference_mode()
def test_what_is_under_a_cloud_has_no_influence(case):
    model, golden = case
    y = model.g_a(golden.x)
    cloudy = torch.zeros(1, 8, 8, dtype=torch.bool)
    cloudy[:, 2:5, 1:6] = True
    other = torch.where(cloudy[:, None], 50.0, y[:, 1])
    past = [torch.round(y[:, 0])]
    one, two = model.inpaint(y[:, 1], cloudy, past), model.inpaint(other, cloudy, past)
    assert torch.equal(one.y_hat, two.y_hat)
    assert torch.equal(one.dequantised, two.dequantised)
    assert torch.equal(one.y_hat[:, :, 6:], torch.round(y[:, 1])[:, :, 6:])


@pytest.mark.parametrize("as_published", [False, True])
@torch.inference_mode()
def test_everything_behind_the_first_cloud_of_a_block_is_forecast(case, as_published):
    model, golden = case
    y, cloudy = model.g_a(golden.x)[:, 1], torch.zeros(1, 8, 8, dtype=torch.bool)
    cloudy[:, 1, 2] = True  # the seventh cell of the first block
    frame = model.inpaint(y, cloudy, [], as_published, propagate_from_first_cloud=True)
    sent = 0 if model.entropy_model.flexible else 6  # a token of FlexTEC is a part of every cell
    tokens, known = (model.entropy_model.tokens(v) for v in (frame.y_hat, torch.round(y)))
    assert torch.equal(tokens[1:], known[1:])
    assert torch.equal(tokens[0, :sent], known[0, :sent])
    behind = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    behind[:, :, :4, :4] = False
    other = torch.where(behind | (model.entropy_model.grid(_numbers(model), (1, 8, 8)) < sent), y, 50.0)
    again = model.inpaint(other, cloudy, [], propagate_from_first_cloud=True)
    if not as_published:
        assert torch.equal(again.y_hat, frame.y_hat)


def _numbers(model) -> torch.Tensor:
    """The index of each token in every value of it."""
    m = model.entropy_model.learned_zero.sym.shape[0]
    return torch.arange(16.0)[None, :, None].expand(4, 16, m)


@torch.inference_mode()
def test_cached_walk_equals_the_parallel_pass(case):
    model, golden = case
    tokens_of = model.entropy_model
    y_hat = torch.round(model.g_a(golden.x)[0])
    past = tokens_of.past(y_hat[:1])
    memories = tokens_of.memories(tokens_of.context(past, past))
    known = tokens_of.tokens(y_hat[1:2])
    parallel = tokens_of.predict(known, memories)
    walked, stepwise = tokens_of.walk(memories, lambda i, _mean, _scale: known[:, i]).stacked()
    assert torch.equal(walked, known)
    for got, expected in ((stepwise.features, parallel.features), (stepwise.mean, parallel.mean)):
        assert close(got, expected.numpy())
    assert close(stepwise.scale, parallel.scale.numpy())


@torch.inference_mode()
def test_walk_computes_each_token_and_the_context_once(case, monkeypatch):
    model, golden = case
    seen = []
    plain = transformer.Attention.keys_values

    def counting(self, context):
        seen.append(context.shape[1])
        return plain(self, context)

    y_hat = torch.round(model.g_a(golden.x)[0])
    past = model.entropy_model.past(y_hat[:1])
    context = model.entropy_model.context(past, past)
    monkeypatch.setattr(transformer.Attention, "keys_values", counting)
    memories = model.entropy_model.memories(context)
    model.entropy_model.walk(memories, lambda _i, mean, _scale: torch.round(mean))
    depth = len(model.entropy_model.decoder.layers)
    assert sorted(seen) == [1] * (16 * depth) + [128] * depth


@torch.inference_mode()
def test_frames_depend_on_earlier_ones_only(case):
    model, golden = case
    y = model.g_a(golden.x)
    for dates in (1, 2):
        for short, full in zip(model.estimate(y[:, :dates]), model.estimate(y)):
            assert float(short.bits) == pytest.approx(float(full.bits), rel=1e-5)


@torch.inference_mode()
def test_a_batch_is_its_stacks_one_by_one(case):
    model, golden = case
    x = torch.cat([golden.x, golden.x.flip(-1)])[:, :2]
    together = model.estimate(model.g_a(x))
    alone = [model.estimate(model.g_a(x[i : i + 1])) for i in range(2)]
    for t, frame in enumerate(together):
        assert float(frame.bits) == pytest.approx(float(alone[0][t].bits + alone[1][t].bits), rel=1e-4)
        assert symbols_agree(frame.y_hat, torch.cat([a[t].y_hat for a in alone]).numpy())


@pytest.mark.parametrize(("dates", "h", "w"), [(1, 64, 64), (2, 1, 70), (4, 33, 65)])
@torch.inference_mode()
def test_any_size_and_number_of_dates(case, dates, h, w):
    model, golden = case
    x = golden.x[:, [t % 3 for t in range(dates)], :, :h, :w]
    x_hat, frames = temporal.reconstruct(model, x)
    assert x_hat.shape == x.shape
    assert len(frames) == dates
    assert torch.isfinite(x_hat).all()


def test_repacking_is_its_own_inverse_and_moves_slices():
    tokens = torch.arange(2 * 4 * 8.0).reshape(2, 4, 8)
    packed = transformer._repack(tokens)
    assert torch.equal(transformer._repack(packed), tokens)
    assert torch.equal(packed[0, 1], torch.cat([tokens[0, i, 2:4] for i in range(4)]))


def test_blocks_and_windows_are_where_they_should_be():
    y = torch.arange(8 * 12.0).reshape(1, 1, 8, 12)
    assert torch.equal(transformer._unblocks(transformer.blocks(y), (1, 8, 12)), y)
    assert torch.equal(transformer.blocks(y)[1, :, 0].reshape(4, 4), y[0, 0, :4, 4:8])
    assert torch.equal(transformer.windows(y)[1, :, 0].reshape(8, 8)[2:, :], y[0, 0, :6, 2:10])


def test_missing_tensor_of_a_temporal_checkpoint_is_listed():
    weights = vectors.weights("tt-small")
    del weights["_dequantizer.process_conv.0.bias"]
    with pytest.raises(WeightsError, match=r"missing _dequantizer\.process_conv\.0\.bias \[32\]"):
        temporal.from_weights(hub.recognise(weights, "x"), 4)


def test_an_image_checkpoint_is_not_a_temporal_one():
    with pytest.raises(WeightsError, match="got tec-fp"):
        temporal.from_weights(hub.recognise(vectors.weights("fp-small"), "x"))
