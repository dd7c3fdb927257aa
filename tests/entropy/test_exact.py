"""What the coder sees is a function of integers: no setting, carrier, thread count or batch can change a symbol."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eozip.codecs.small.image_codec import PortCode
from eozip.entropy import fixed_point
from eozip.entropy.range_coder import EncodePort, EstimatePort
from eozip.errors import FormatError
from golden_decode import witness
from smallmodels import KINDS, scene, tiny_codec

QUALITY = 72.0


@pytest.fixture(scope="module", params=sorted(KINDS))
def codec(request, tmp_path_factory):
    return tiny_codec(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def x():
    return scene(2, 96, 64)


def latents(codec, x):
    t = codec.level(QUALITY, len(x))
    with torch.inference_mode():
        y = codec.model.analyse(codec.model.standardise(torch.from_numpy(x)), t)
        return t, y, codec.model.entropy.hyper_latent(y)


class Rows:
    """A port that keeps the table rows: what the probabilities were."""

    def __init__(self):
        self.rows, self.port = [], EstimatePort()

    def code(self, symbols, rows, tables):
        self.rows.append(rows.copy())
        return self.port.code(symbols, rows, tables)


def rows_under(codec, latent, carrier, entropy=None):
    t, y, z = latent
    arithmetic = fixed_point.ExactArithmetic(codec.functions, carrier)
    port = Rows()
    code = PortCode(port, codec.tables, arithmetic, y, z)
    network = copy.deepcopy(entropy or codec.model.entropy).to(carrier)
    with torch.inference_mode():
        network.traverse(code, t.double(), tuple(y.shape[2:]), arithmetic)
    return np.concatenate(port.rows), code.frame_checks()


def test_float32_and_float64_carriers_give_the_same_rows_and_symbols(codec, x):
    latent = latents(codec, x)
    narrow, wide = (rows_under(codec, latent, d) for d in (torch.float32, torch.float64))
    assert np.array_equal(narrow[0], wide[0])
    assert narrow[1] == wide[1]


def test_plain_float_weights_are_noticed(codec, x):
    """Sabotage: a layer off its grid changes rows, so a stream made with it does not decode."""
    latent = latents(codec, x)
    entropy = copy.deepcopy(codec.model.entropy)
    with torch.no_grad():
        entropy.groups[0].linear[0].weight.mul_(1.01)
    changed, _ = rows_under(codec, latent, torch.float64, entropy)
    right, _ = rows_under(codec, latent, torch.float64)
    assert not np.array_equal(changed, right)


@pytest.mark.parametrize("part", ["groups.0.linear.0.weight", "groups.1.magnitude.1", "average.weight"])
def test_one_weight_off_by_one_unit_desynchronises(codec, x, part):
    coded = codec.encode(x, QUALITY)
    model = copy.deepcopy(codec.model)
    weight = dict(model.entropy.named_parameters())[part]
    with torch.no_grad():  # one unit of the coarsest grid a value can have: 1/32 of the largest
        flat = weight.view(-1)
        flat[int(flat.abs().argmax())] += 2.0**-5
    with pytest.raises(FormatError):
        replace(codec, model=model).decode(coded, x.shape, QUALITY)


def seen_while_decoding(codec, coded, shape) -> str:
    """Digest of every row and symbol."""
    with witness() as digest:
        codec.decode(coded, shape, QUALITY)
    return digest.hexdigest()


def test_layouts_and_precision_settings_change_nothing(codec, x):
    coded = codec.encode(x, QUALITY)
    usual = seen_while_decoding(codec, coded, x.shape)
    before = torch.get_float32_matmul_precision()
    try:
        for setting in ("high", "medium"):
            torch.set_float32_matmul_precision(setting)
            assert seen_while_decoding(codec, coded, x.shape) == usual
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.backends.mkldnn.flags(enabled=False):
        assert seen_while_decoding(codec, coded, x.shape) == usual
    model = copy.deepcopy(codec.model).to(memory_format=torch.channels_last)
    assert seen_while_decoding(replace(codec, model=model), coded, x.shape) == usual


def test_frames_alone_and_in_a_batch_have_the_same_symbols(codec, x):
    # the encoder's floats may round another way in another batch, the traversal of given latents may not
    t, y, z = latents(codec, x)
    together = rows_under(codec, (t, y, z), torch.float32)[1]
    alone = [
        rows_under(codec, (t[i : i + 1], y[i : i + 1], None if z is None else z[i : i + 1]), torch.float32)[
            1
        ][0]
        for i in range(len(x))
    ]
    assert list(together) == alone


def test_carrier_is_wide_where_float32_products_may_not_be_ieee():
    assert fixed_point.carrier_for(torch.device("cpu")) == torch.float32
    assert fixed_point.carrier_for(torch.device("cuda")) == torch.float64
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert fixed_point.carrier_for(torch.device("cpu")) == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)


DECODE = """
import sys, numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from eozip.codecs.base import Encoded
from eozip.codecs.small.weight_files import load_small
folder = Path(sys.argv[3])
stored = np.load(folder / "stream.npz")
codec = load_small(folder)
coded = Encoded((stored["section"].tobytes(),), tuple(int(c) for c in stored["checks"]))
np.save(folder / "decoded.npy", codec.decode(coded, tuple(stored["shape"]), 72.0))
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ["ALL", "SSE41"])
def test_fresh_processes_decode_the_same(tmp_path, x, threads, isa):
    codec = tiny_codec("tec-elic-tiny", tmp_path)
    coded = codec.encode(x, QUALITY)
    section = np.frombuffer(coded.sections[0], np.uint8)
    np.savez(tmp_path / "stream.npz", section=section, checks=np.array(coded.checks), shape=np.array(x.shape))
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    arguments = [sys.executable, "-c", DECODE, str(threads), str(Path(__file__).parents[1]), str(tmp_path)]
    subprocess.run(arguments, check=True, env=environment)
    assert np.abs(np.load(tmp_path / "decoded.npy") - codec.decode(coded, x.shape, QUALITY)).max() < 1


def test_function_tables_rise_and_cover(codec):
    tables = codec.functions
    assert bool((tables.squash.diff() >= 0).all())
    assert bool((tables.log.diff() >= 0).all())
    assert int(tables.rows[0]) == 0
    assert int(tables.rows[-1]) == len(codec.tables.size) - 1
    index = 100 * fixed_point.VALUE
    assert float(tables.squash[int(index)]) == pytest.approx(np.log1p(100), abs=1 / fixed_point.ACTIVATION)


def test_encode_port_and_estimate_port_see_the_same_symbols(codec, x):
    real, counted = EncodePort(), EstimatePort()
    with torch.inference_mode():
        assert codec.send(real, x, QUALITY) == codec.send(counted, x, QUALITY)
