"""The exact twin of the token model: numpy integers give its numbers, settings change none, its bounds hold."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vectors
from eozip import hub
from eozip.codecs.terracodec import exact_convolution, published, tec_tt, temporal
from eozip.codecs.terracodec import exact_transformer as ex
from eozip.codecs.terracodec.exact_tokens import exact_tokens, units_hash
from eozip.codecs.terracodec.transformer import TokenModel, windows
from eozip.entropy import gaussian, products
from eozip.entropy.range_coder import EstimatePort
from eozip.errors import WeightsError
from golden_decode import witness
from reference import transformer as reference

TESTS = Path(__file__).parents[1]
HEADS = 4
# of the numbers of `numbers` below for the golden weights "tt-small": the same wherever this runs
DIGEST = "bfe8cbab273d7727"


@pytest.fixture(scope="module")
def model() -> TokenModel:
    return temporal.from_weights(hub.recognise(vectors.weights("tt-small"), "tt-small"), HEADS).entropy_model


@pytest.fixture(scope="module")
def twin(model) -> TokenModel:
    return exact_tokens(model)


def latents() -> torch.Tensor:
    """Three dates of integers, float64 [3, 32, 8, 8]; a few far out."""
    y = np.rint(8 * vectors.uniform("latents", (3, 32, 8, 8)).numpy().astype(np.float64))
    y[1, 3, 2, 2], y[2, 4, 5, 5], y[0, :, 7, 7] = 500, -(2**20), 90
    return torch.from_numpy(y)


@torch.inference_mode()
def numbers(twin: TokenModel) -> dict[str, torch.Tensor]:
    """Everything the twin says about the third date, given the first two."""
    y = latents()
    older, newer = (twin.past(y[i : i + 1]) for i in (0, 1))
    context = twin.context(older, newer)
    said = twin.predict(twin.tokens(y[2:]), twin.memories(context))
    return {
        "older": older,
        "context": context,
        "features": said.features,
        "mean": said.mean,
        "scale": said.scale,
    }


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name].double(), two[name].double()) for name in one)


def digest(found: dict[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(np.ascontiguousarray(found[name].double().numpy() + 0.0, "<f8"))
    return whole.hexdigest()[:16]


def units(v: torch.Tensor, bits: int) -> np.ndarray:
    counted = v.double().numpy() * 2.0**bits
    assert np.array_equal(counted, np.rint(counted))
    return counted.astype(np.int64)


def in_integers(twin: TokenModel) -> reference.Tokens:
    """The weights of a twin as the reference reads them."""
    linear = {}
    for name, layer in twin.named_modules():
        if isinstance(layer, ex._ExactLinear):
            bits = layer.unit.log2().long()
            weight = torch.ldexp(layer.weight.double(), bits[:, None])
            bias = torch.ldexp(layer.bias.double(), bits + int(math.log2(layer.entering.unit)))
            linear[name] = reference.Linear(units(weight, 0), units(bias, 0), bits.numpy())
        elif isinstance(layer, ex._ScaledLinear):
            weight = layer.weight.view(layer.pieces.weights, len(layer.unit), -1).numpy().astype(np.int64)
            values = (layer.unit.numpy(), layer.bias.numpy(), layer.pieces.inputs)
            linear[name] = reference.Scaled(weight, *values)
    affine = twin.post_embedding_layernorm
    vector = {
        "sep": units(twin.enc_position_sep._pos, 8),
        "joint": units(twin.enc_position_joint._pos, 8),
        "cur": units(twin.dec_position._pos, 8),
        "start": units(twin.learned_zero.sym, 10),
        "gain": units(affine.gain, 12),
        "shift": units(affine.shift, 12),
    }
    return reference.Tokens(linear, vector, HEADS, (2, 2, 2))


def test_the_numpy_reference_gives_the_same_numbers(twin):
    own, expected, y = in_integers(twin), numbers(twin), latents()
    older, newer = (own.past(units(windows(y[i : i + 1]), 10)) for i in (0, 1))
    context = own.context(older, newer)
    mean, s = own.predict(units(twin.tokens(y[2:]), 10), context)
    assert np.array_equal(older, units(expected["older"], 8))
    assert np.array_equal(context, units(expected["context"], 8))
    assert np.array_equal(mean, units(expected["mean"], 10))
    s = s / 2.0**10
    assert np.array_equal(np.where(s > 0, 1 + s, 1 / (1 - np.minimum(s, 0))), expected["scale"].numpy())


def test_the_numbers_are_those_of_every_machine(twin):
    assert digest(numbers(twin)) == DIGEST


def test_one_pass_and_token_by_token(twin):
    y = latents()
    with torch.inference_mode():
        past = twin.past(y[:1])
        memories, known = twin.memories(twin.context(past, past)), twin.tokens(y[2:])
        parallel = twin.predict(known, memories)
        _, stepwise = twin.walk(memories, lambda i, *_: known[:, i]).stacked()
    assert same(vars(parallel), vars(stepwise))


@torch.inference_mode()
def test_inpainting_takes_the_exact_means(twin):
    codec = tec_tt.from_weights(hub.recognise(vectors.weights("tt-small"), "tt-small"), HEADS)
    y, cloudy = latents(), torch.zeros(1, 8, 8, dtype=torch.bool)
    cloudy[:, 2:5, 1:6] = True
    other = torch.where(cloudy[:, None], 50.0, y[2:])
    walks = [codec.path.inpaint(v, cloudy, (y[:1], y[1:2])).stacked() for v in (y[2:], other)]
    filled, tokens = (twin.grid(walks[0][0], (1, 8, 8)), walks[0][0])
    assert torch.equal(tokens, walks[1][0])  # what is under a cloud has no influence
    assert torch.equal(torch.where(cloudy[:, None], 0.0, filled), torch.where(cloudy[:, None], 0.0, y[2:]))
    # the same means as coding the filled date gives
    past = codec.path.memories(tec_tt.Past(tuple(twin.past(v) for v in y[:2].split(1))), 4)
    hidden = twin.tokens(cloudy[:, None].expand_as(y[2:]))
    means = torch.round(twin.predict(tokens, past).mean)
    assert torch.equal(tokens[hidden], means[hidden])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_relaxed_float32_products_are_not_used(twin, precision):
    right, before = numbers(twin), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert same(numbers(twin), right)
    finally:
        torch.set_float32_matmul_precision(before)


def test_onednn_threads_and_batches(twin):
    right, threads = numbers(twin), torch.get_num_threads()
    with torch.backends.mkldnn.flags(enabled=False):
        assert same(numbers(twin), right)
    try:
        torch.set_num_threads(3)
        assert same(numbers(twin), right)
    finally:
        torch.set_num_threads(threads)
    y = latents()
    four = torch.cat([y[1:2], y[:1], y[2:], y[:1]])
    with torch.inference_mode():
        alone = torch.cat([twin.past(four[i : i + 1]) for i in range(4)])
        assert torch.equal(twin.past(four), alone)


FRESH = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/codecs"]
import torch
torch.set_num_threads(2)
from test_exact_transformer import HEADS, digest, exact_tokens, hub, numbers, temporal, vectors
model = temporal.from_weights(hub.recognise(vectors.weights("tt-small"), "tt-small"), HEADS)
print(digest(numbers(exact_tokens(model.entropy_model))))
"""


def test_a_fresh_process_with_old_vector_instructions(twin):
    old = {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    }
    command = [sys.executable, "-c", FRESH, str(TESTS)]
    done = subprocess.run(command, env={**os.environ, **old}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(numbers(twin))


SABOTAGED = (
    "encoder_sep.layers.encoder_layer_0.self_attention.q",
    "encoder_joint.layers.encoder_layer_1.mlp2.fc2",
    "decoder.layers.encoder_layer_0.cross_attention.v",
    "decoder.layers.encoder_layer_1.mlp1.fc1",
    "encoder_embedding",
)


def plain_weight(layer: ex._ExactLinear | ex._ScaledLinear) -> torch.Tensor:
    """[out, in] in the units of its rows, float64."""
    if isinstance(layer, ex._ExactLinear):
        return layer.weight * layer.unit[:, None]
    pieces = layer.weight.double().split(len(layer.unit))
    return pieces[0] if len(pieces) == 1 else 128 * pieces[0] + pieces[1]


@pytest.mark.parametrize("name", SABOTAGED)
def test_one_layer_in_plain_float32_is_noticed(model, twin, name):
    other = copy.deepcopy(twin)
    layer = other.get_submodule(name)
    plain = nn.Linear(layer.weight.shape[1], len(layer.unit))
    jitter = torch.rand(plain.weight.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    step = layer.unit if isinstance(layer, ex._ScaledLinear) else 1 / layer.unit
    whole = plain_weight(layer)
    plain.weight.data = ((whole + jitter) * step[:, None]).float()
    plain.bias.data = layer.bias.float()

    class Plain(nn.Module):
        def forward(self, x):
            return plain(x.float()).to(layer.dtype)

    part, _, leaf = name.rpartition(".")
    setattr(other.get_submodule(part), leaf, Plain())
    assert not same(numbers(other), numbers(twin))


@pytest.mark.parametrize("name", SABOTAGED)
def test_one_weight_off_by_one_unit_is_noticed(twin, name):
    """Seen before rounding, which hides most of it."""
    other = copy.deepcopy(twin)
    layer = other.get_submodule(name)
    row = int(layer.weight.abs().double().amax(1).argmax())
    column = int(layer.weight[row].abs().argmax())
    if isinstance(layer, ex._ScaledLinear):
        layer.weight[row, column] -= layer.weight[row, column].sign()
    else:
        layer.weight[row, column] += 1 / float(layer.unit[row])
    found = []
    for network in (twin, twin, other):
        with witness() as seen:
            numbers(network)
        found.append(seen.hexdigest())
    assert found[0] == found[1] != found[2]


def test_nearly_all_work_is_on_8_bit_integers(twin):
    def work(kind):
        return sum(m.weight.numel() for m in twin.modules() if isinstance(m, kind))

    assert work(ex._ScaledLinear) > 20 * work(ex._ExactLinear)


EXTREMES = torch.tensor([127, -127, 64, -64], dtype=torch.int8)


@pytest.mark.parametrize("depth", [1, 63, 768, 1024, 1025, 3072])
def test_products_of_the_largest_integers_are_exact(depth):
    """By instructions and by floats: whatever this machine has, the sums are those of integers."""
    a = EXTREMES[:, None].expand(4, depth).contiguous()
    a[:, ::3] *= -1
    expected = a.long() @ a.long().t()
    found = [products.multiply(a, a)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(products, "_has_instructions", lambda _a: False)
        found.append(products.multiply(a, a))
        with torch.backends.mkldnn.flags(enabled=False):
            found.append(products.multiply(a, a))
    assert all(torch.equal(one.long(), expected) for one in found)


def test_a_machine_that_saturates_is_found_out(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.short() @ b.short()).int())
    assert not products._are_exact.__wrapped__()


@pytest.mark.parametrize("pieces", [1, 2])
def test_rows_are_counted_in_units_of_their_own(pieces):
    x = vectors.uniform("rows", (5, 40)) * torch.tensor([0.0, 1e-30, 1.0, 300.0, 1e30])[:, None]
    found, unit = products.counted(x, pieces)
    assert int(found.min()) >= -127
    parts = found.double().split(5)
    whole = parts[0] if pieces == 1 else 128 * parts[0] + parts[1]
    most = 127 if pieces == 1 else 127 * 128
    assert torch.equal(whole.abs().amax(1), torch.tensor([0.0, *[most] * 4]).double())
    assert float(((whole * unit.double() - x).abs() / unit.double())[1:].max()) < 0.51


def test_tables_come_near_no_tie():
    """So whichever libm computes them, they are the same."""
    gelu = [1024 * ex._gelu(v / 256) - ex._TIE for v in range(-2048, 2049)]
    exponential = [2**20 * math.exp(-i / 64) for i in range(1025)]
    for values, table in ((gelu, ex.gelu_table()), (exponential, ex.exponential_table())):
        off = np.array([abs(v - math.floor(v) - 0.5) for v in values])
        assert off.min() > 1e-10  # a hundred times what libm leaves open
        assert [round(v) for v in values] == table


def test_scale_thresholds_are_where_the_logarithm_was():
    levels = torch.tensor(gaussian.scale_levels(), dtype=torch.float64)
    thresholds = exact_convolution.scale_thresholds()
    assert torch.equal(torch.bucketize(levels, thresholds, right=True), torch.arange(64))
    assert torch.equal(torch.bucketize(levels * 1.05, thresholds, right=True), torch.arange(64))
    beyond = torch.tensor([1e-9, -3.0, 1e9], dtype=torch.float64)
    assert torch.bucketize(beyond, thresholds, right=True).tolist() == [0, 0, 63]


def test_weights_that_no_carrier_holds_are_refused():
    weights = vectors.weights("tt-small")
    weights["entropy_model.decoder_embedding.weight"] *= 1e9
    broken = temporal.from_weights(hub.recognise(weights, "x"), HEADS)
    with pytest.raises(WeightsError, match="decoder_embedding"):
        exact_tokens(broken.entropy_model)


@pytest.mark.parametrize("value", [1e20, math.inf, math.nan])
def test_weights_beyond_float32_are_refused(value):
    weight = torch.ones(4, 4, dtype=torch.float64)
    weight[1, 2] = value
    with pytest.raises(WeightsError, match="layer x: expected weights below"):
        ex.scaled_linear("layer x", weight, torch.zeros(4), ex.Pieces(1, 1), ex.STREAM)


@pytest.mark.parametrize("name", ["encoder_embedding", "decoder.layers.encoder_layer_0.mlp1.fc1"])
def test_units_are_part_of_the_hash(twin, name):
    other = copy.deepcopy(twin)
    other.get_submodule(name).unit[0] /= 2
    assert units_hash(other) != units_hash(twin)


def cost(name: str, heads: int, size: int) -> float:
    """Bits of exact means and scales over bits of float ones, under the same tables."""
    from test_tec_tt import scene

    codec = tec_tt.from_weights(hub.recognise(vectors.weights(name), name), heads)
    plain, ports = codec.model.entropy_model, (EstimatePort(), EstimatePort())
    with torch.inference_mode():
        y = tec_tt.latents(codec.model, scene(2, size, size)[None], codec.sensor)
        known = codec.path.known(y[:, 1])
        for network, port in zip((plain, codec.path.exact), ports):
            dtype = torch.float32 if network is plain else torch.float64
            past = network.past(torch.round(y[:, 0]).to(dtype))
            said = network.predict(known.to(dtype), network.memories(network.context(past, past)))
            codec.path.code(port.code, known, said.mean.double(), said.scale.double())
    return ports[1].bits / ports[0].bits


def test_exactness_costs_under_half_a_percent_of_the_bits():
    assert cost("tt-small", HEADS, 128) < 1.005


@pytest.mark.slow
def test_exactness_of_the_full_size_costs_under_a_percent():
    assert cost("tt-base", 16, 64) < 1.01


@torch.inference_mode()
def test_convolutions_of_tec_elic_are_sums_of_integers():
    codec = published.from_weights(hub.recognise(vectors.weights("elic-small"), "x"))
    layer, grid = codec.entropy._h_s[0], exact_convolution.VALUE
    assert isinstance(layer, nn.ConvTranspose2d)
    x = grid.of(3000 * vectors.uniform("z", (1, layer.in_channels, 3, 3)).double())
    weight, counted = units(layer.weight, 24), np.zeros((layer.out_channels, 9, 9), np.int64)
    for c, i, j in np.ndindex(layer.in_channels, 3, 3):
        counted[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += units(x, 14)[0, c, i, j] * weight[c]
    total = counted[:, 2:8, 2:8] + units(layer.bias, 38)[:, None, None]
    assert np.array_equal(units(layer(x), 14)[0], reference.rounded(total, 38, (14, 2**16)))


@pytest.mark.parametrize("part", ["channel_context.y1.0", "latent_codec.y0.entropy_parameters.0"])
@torch.inference_mode()
def test_convolutions_on_8_bit_integers(part):
    """Against numpy: the same integers, and close to the float convolution."""
    codec = published.from_weights(hub.recognise(vectors.weights("elic-small"), "x"))
    layer, plain = codec.entropy._context.get_submodule(part), codec.model.context.get_submodule(part)
    x = exact_convolution.VALUE.of(30 * vectors.uniform("x", (2, plain.in_channels, 6, 7)).double())
    got, reach = layer(x), layer.side // 2
    assert float((got - plain.double()(x)).abs().max()) < 0.01
    halves = layer.weight.numpy().astype(np.int64)
    weight = 128 * halves[: len(layer.unit)] + halves[len(layer.unit) :]
    for image, found in zip(x.numpy(), got.numpy()):
        largest = np.abs(image).max()
        whole = np.rint(image * (16256 / largest)).astype(np.int64)
        padded = np.pad(whole, ((0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (layer.side, layer.side), (1, 2))
        windows = windows.transpose(1, 2, 3, 4, 0).reshape(42, -1)
        second = windows - 128 * np.rint(windows / 128).astype(np.int64)
        sums = windows @ weight.T - second @ halves[len(layer.unit) :].T
        total = sums * layer.unit.numpy() * (largest / 16256) + layer.bias.numpy()
        assert np.array_equal(np.rint(total * 2**14).T.reshape(found.shape), found * 2**14)
