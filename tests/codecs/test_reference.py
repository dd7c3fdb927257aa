"""A second decoder, written from docs/exact.md in numpy integers, finds the same symbols and latents as eozip."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eozip import bitstream, hub
from eozip.bitstream import Chunk, Header
from eozip.codecs.small.image_codec import PortCode, SmallCodec
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.weight_files import load_small, save_small
from eozip.entropy.fixed_point import ExactArithmetic, grid_level
from eozip.entropy.range_coder import DecodePort
from eozip_lab.train import start
from eozip_lab.train.start_linear import set_linear_entropy
from reference import model, small
from smallmodels import KINDS, TINY, scene, tiny_codec

TESTS = Path(__file__).parents[1]


def is_image_codec(name: str) -> bool:
    """Shipped weights of a codec whose dates do not follow each other; for the others see test_reference_series."""
    config = hub.read_config(hub.shipped_path(name))
    return config["kind"] == "small-image" and config["network"]["entropy"] != "time"


SHIPPED = [name for name in hub.shipped() if is_image_codec(name)]
DEEP = {**TINY, "groups": (3, 4, 5, 6)}  # the first size whose last group reads coarse latents


@dataclass(frozen=True)
class Case:
    codec: SmallCodec
    folder: Path

    def chunk(self, x: np.ndarray, quality: float) -> bytes:
        coded = self.codec.encode(x, quality)
        header = Header(
            codec=self.codec.id,
            dtype="uint16",
            shape=x.shape,
            quality=quality,
            weights_hash=self.codec.weights_hash,
            checks=coded.checks,
        )
        return bitstream.pack(bitstream.Chunk(header, b"", b"", coded.sections))

    def traversed(self, chunk: Chunk) -> np.ndarray:
        """y_hat of the torch traversal, int64 [T, M, h, w] in units of 1/64 step."""
        frames, _, height, width = chunk.header.shape
        size = tuple(4 * -(-n // 32) for n in (height, width))
        t = self.codec.level(chunk.header.quality, frames)
        with torch.inference_mode():
            _, y_hat = self.codec.traverse(DecodePort(chunk.sections[0]), t, size, None, None)
        in_units = 64 * y_hat.double().numpy()
        assert np.array_equal(in_units, np.rint(in_units))
        return in_units.astype(np.int64)


def deep_codec(kind: str, folder: Path) -> SmallCodec:
    """As `tiny_codec`, with a fourth group."""
    torch.manual_seed(5)
    network = SmallImageModel(SmallConfig(entropy=KINDS[kind], **DEEP))
    dn = torch.from_numpy(np.concatenate([scene(2, 64, 64, seed) for seed in range(40)]))
    start.begin(network, dn, {}, set_linear_entropy)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "leave" in name or "level" in name:
                p.add_(0.02 * torch.randn_like(p))
    save_small(folder, network.eval(), f"{kind}-s2l2a-v1", "s2-l2a", "a card")
    return load_small(folder)


@pytest.fixture(scope="module", params=sorted(KINDS))
def tiny(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return Case(tiny_codec(request.param, folder), folder)


@pytest.fixture(scope="module", params=sorted(KINDS))
def deep(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return Case(deep_codec(request.param, folder), folder)


def agree(case: Case, x: np.ndarray, quality: float) -> small.Decoded:
    chunk = bitstream.unpack(case.chunk(x, quality))
    decoded = small.decode(model.read_model(case.folder, chunk), chunk)
    assert np.array_equal(decoded.y_hat, case.traversed(chunk))
    return decoded


@pytest.mark.parametrize("quality", [0, 37.21, 60, 100])
def test_the_reference_decodes_what_eozip_encoded(tiny, quality):
    decoded = agree(tiny, scene(2, 70, 40), quality)
    network = tiny.codec.model.config
    cells = 12 * 8
    hyper = network.hyper_latent * cells // 16 if network.entropy == "context" else 0
    assert decoded.symbols.shape == (2, network.latent * cells + hyper)
    assert decoded.symbols.any()


@pytest.mark.parametrize("quality", [20.5, 100])
def test_groups_that_read_coarse_latents(deep, quality):
    x = scene(2, 64, 64, seed=7)
    x[0, :, 20:30, 20:30], x[1, :6, 40:50, 8:24] = 20000, -2000
    decoded = agree(deep, x, quality)
    third = np.abs(decoded.y_hat[:, 7:12])
    assert (third % 4).any()  # off the coarse grid: the rounding is seen
    if quality == 100:
        assert third.max() > 64 * 64  # beyond its range: the clamp is seen


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_codecs(name):
    folder = hub.shipped_path(name)
    case = Case(load_small(folder), folder)
    for quality in (5, 60, 98):
        agree(case, scene(2, 64, 64), quality)


@pytest.mark.parametrize("name", SHIPPED)
def test_wide_sums_of_shipped_weights_stay_exact(name):
    """Below 2**53 for any latents, which export does not check."""
    entropy = load_small(hub.shipped_path(name)).model.entropy
    rows = [p.abs().flatten(1).sum(1).max() for n, p in entropy.named_parameters() if is_wide(n)]
    assert len(rows) == 4 * (len(entropy.config.groups) - 1)
    assert max(rows) < 2**10


def is_wide(name: str) -> bool:
    return ".linear." in name or ".magnitude." in name


class Given:
    """A port that gives symbols of all sizes up to `most`, the same whoever asks, and keeps the table rows asked for."""

    def __init__(self, most: int) -> None:
        self.random, self.most, self.rows = np.random.default_rng(11), most, []

    def code(self, symbols, rows, tables):
        self.rows.append(np.asarray(rows, np.int64))
        size = np.exp2(self.random.uniform(-1, np.log2(self.most), len(rows)))
        return np.rint(size * self.random.choice([-1, 1], len(rows))).astype(np.int32)


def torch_walk(codec: SmallCodec, carrier: torch.dtype, port: Given) -> np.ndarray:
    """y_hat [1, M, 8, 12] of the torch traversal at quality 100."""
    arithmetic = ExactArithmetic(codec.functions, carrier)
    entropy = copy.deepcopy(codec.model.entropy).to(carrier)
    code, t = PortCode(port, codec.tables, arithmetic, None, None), codec.level(100, 1).double()
    with torch.inference_mode():
        return entropy.traverse(code, t, (8, 12), arithmetic).double().numpy()


@pytest.mark.parametrize("carrier", [torch.float32, torch.float64])
@pytest.mark.parametrize("most", [30, 3000, 2**15, 2**20])
def test_any_symbols_give_the_same_rows_and_latents(deep, carrier, most):
    chunk = bitstream.unpack(deep.chunk(scene(1, 32, 32), 100))
    own, other = Given(most), Given(most)
    y_hat = small.latents(small.Reader(model.read_model(deep.folder, chunk), own), (1, 8, 12))
    assert np.array_equal(y_hat.transpose(0, 3, 1, 2), 64 * torch_walk(deep.codec, carrier, other))
    assert np.array_equal(np.concatenate(own.rows), np.concatenate(other.rows))


@pytest.mark.parametrize("part", ["groups.0.linear.0.weight", "groups.1.magnitude.1", "average.weight"])
def test_a_changed_weight_fails_the_check(tiny, part):
    chunk = bitstream.unpack(tiny.chunk(scene(2, 96, 64), 100))
    weights = model.read_model(tiny.folder, chunk)
    with pytest.raises(ValueError, match=r"checks: expected|section: "):
        small.decode(changed(weights, f"entropy.{part}", 2**15), chunk)


def test_one_unit_in_the_scale_staircase_fails_the_check(tiny):
    chunk = bitstream.unpack(tiny.chunk(scene(2, 96, 64), 100))
    weights = model.read_model(tiny.folder, chunk)
    steps = weights.tensors["functions.rows"] + 1
    with pytest.raises(ValueError, match=r"checks: expected|section: "):
        small.decode(replace(weights, tensors={**weights.tensors, "functions.rows": steps}), chunk)


def test_one_stored_unit_of_one_weight_is_seen_in_the_latents(tiny):
    """How strict the comparison of y_hat is: 2**-20 in a single weight moves some means by 1/64."""
    chunk = bitstream.unpack(tiny.chunk(scene(2, 128, 128), 100))
    weights = model.read_model(tiny.folder, chunk)
    other = changed(weights, "entropy.groups.0.linear.0.weight", 1)
    assert not np.array_equal(latents_or_none(other, chunk), tiny.traversed(chunk))


def latents_or_none(weights: model.Model, chunk: Chunk) -> np.ndarray | None:
    try:
        return small.decode(weights, chunk).y_hat
    except ValueError:
        return None


def changed(weights: model.Model, name: str, units: int) -> model.Model:
    """The largest weight of a tensor, `units` larger."""
    weight = weights.tensors[name].copy()
    weight.flat[int(np.abs(weight).argmax())] += units
    return replace(weights, tensors={**weights.tensors, name: weight})


def test_other_weights_are_refused(tiny):
    chunk = bitstream.unpack(tiny.chunk(scene(1, 32, 32), 50))
    other = replace(chunk, header=replace(chunk.header, weights_hash=b"8 others"))
    with pytest.raises(ValueError, match="hash"):
        model.read_model(tiny.folder, other)


def test_a_changed_check_is_noticed(tiny):
    chunk = bitstream.unpack(tiny.chunk(scene(2, 32, 32), 50))
    first, second = chunk.header.checks
    other = replace(chunk, header=replace(chunk.header, checks=(first, second ^ 1)))
    with pytest.raises(ValueError, match="checks"):
        small.decode(model.read_model(tiny.folder, chunk), other)


@pytest.mark.parametrize("levels", [2, 6, 9])
def test_every_quality_has_the_level_of_the_page(levels):
    own = [4096 * grid_level(n / 100 / 100 * (levels - 1)) for n in range(10001)]
    assert own == [model.level_of(n, levels) for n in range(10001)]


def test_rounding_is_to_even():
    v = np.arange(-40, 41)
    assert np.array_equal(model.halved(v, 3), np.rint(v / 8).astype(np.int64))
    assert np.array_equal(model.halved(v, 0), v)


WITHOUT_TORCH = """
import sys
from pathlib import Path
from eozip import bitstream
from reference import model, small
folder = Path(sys.argv[1])
chunk = bitstream.unpack((folder / "chunk.bin").read_bytes())
print(small.decode(model.read_model(folder, chunk), chunk).symbols.size)
assert "torch" not in sys.modules
"""


def test_the_reference_needs_no_torch(tiny):
    (tiny.folder / "chunk.bin").write_bytes(tiny.chunk(scene(1, 32, 32), 70))
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tiny.folder)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
