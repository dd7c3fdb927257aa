"""The second decoder, in numpy integers after docs/exact.md, finds the latents of tec-tt-small too."""

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

from eozip import bitstream, hub
from eozip.bitstream import Chunk, Header
from eozip.codecs import skip_mask
from eozip.codecs.base import Encoded
from eozip.codecs.small.image_codec import PortCode
from eozip.codecs.small.series_codec import SeriesCodec
from eozip.codecs.small.series_walk import PAST
from eozip.codecs.small.weight_files import load_small
from eozip.entropy.fixed_point import ExactArithmetic
from eozip.entropy.range_coder import DecodePort
from reference import model, series, small
from smallmodels import FOUR_GROUPS, series_scene, tiny_series_codec
from test_reference import Given

TESTS = Path(__file__).parents[1]


def shipped(kind: str, entropy: str | None = None) -> list[str]:
    """Names of shipped weights of a kind."""
    configs = {name: hub.read_config(hub.shipped_path(name)) for name in hub.shipped()}
    return [
        name
        for name, config in configs.items()
        if config["kind"] == kind and config.get("network", {}).get("entropy") == entropy
    ]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def codec(folder):
    return tiny_series_codec(folder / "series", FOUR_GROUPS)


def chunk_of(codec: SeriesCodec, coded: Encoded, shape: tuple[int, ...], quality: float) -> Chunk:
    header = Header(
        codec=codec.id,
        dtype="uint16",
        shape=shape,
        quality=quality,
        weights_hash=codec.weights_hash,
        checks=coded.checks,
        budgets=coded.budgets,
        skip=coded.skip is not None,
    )
    skip = skip_mask.encode_cells(coded.skip) if header.skip else b""
    return bitstream.unpack(bitstream.pack(bitstream.Chunk(header, b"", b"", coded.sections, skip=skip)))


def in_units(y_hat: torch.Tensor) -> np.ndarray:
    found = 64 * y_hat.double().numpy()
    assert np.array_equal(found, np.rint(found))
    return found.astype(np.int64)


def agree(
    codec: SeriesCodec, folder: Path, coded: Encoded, shape: tuple[int, ...], quality: float
) -> np.ndarray:
    """y_hat [T, M, h, w] of the reference, which is that of the torch traversal."""
    chunk = chunk_of(codec, coded, shape, quality)
    decoded = series.decode(model.read_model(folder, chunk), chunk)
    size, t = tuple(small.latent_shape(chunk)[1:]), codec.level(quality, shape[0])
    with torch.inference_mode():
        _, y_hat = codec.traverse(DecodePort(coded.sections[0]), t, size, None, None, coded.skip)
    y = np.concatenate([date.y_hat for date in decoded])
    assert np.array_equal(y, in_units(y_hat))
    return y


# --- tec-tt-small -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [0, 37.21, 100])
def test_the_reference_decodes_series(codec, folder, quality):
    x = series_scene(3, 50, 40)
    y = agree(codec, folder / "series", codec.encode(x, quality), x.shape, quality)
    assert y[1:].any()


def test_extreme_dates(codec, folder):
    """Beyond every clamp of what the networks over time read."""
    x = series_scene(4, 32, 40)
    x[1], x[2, :, :16] = 20000, -2000
    y = agree(codec, folder / "series", codec.encode(x, 100), x.shape, 100)
    assert np.abs(np.diff(y, axis=0)).max() > 2**14


def test_more_dates_than_count(codec, folder):
    x = series_scene(PAST + 2, 20, 20)
    agree(codec, folder / "series", codec.encode(x, 40), x.shape, 40)


def test_dropped_cells(codec, folder):
    x = series_scene(3, 50, 40)
    dropped = np.random.default_rng(0).random((3, 7, 5)) < 0.4
    agree(codec, folder / "series", codec.encode_without(x, 70, dropped), x.shape, 70)


@pytest.mark.parametrize("name", shipped("small-image", "time"))
def test_shipped_series_codecs(name):
    folder = hub.shipped_path(name)
    codec, x = load_small(folder), series_scene(3, 64, 64)
    for quality in (5, 95):
        agree(codec, folder, codec.encode(x, quality), x.shape, quality)


def golden(name: str) -> Chunk:
    return bitstream.unpack((TESTS / "golden" / f"{name}.bin").read_bytes())


@pytest.mark.parametrize("name", shipped("small-image", "time"))
def test_golden_series(name):
    folder, chunk = hub.shipped_path(name), golden(name)
    coded = Encoded(chunk.sections, chunk.header.checks)
    agree(load_small(folder), folder, coded, chunk.header.shape, chunk.header.quality)


def torch_walk(codec: SeriesCodec, carrier: torch.dtype, port: Given, dates: int) -> np.ndarray:
    """y_hat [T, M, 8, 12] of the torch traversal at quality 100."""
    arithmetic = ExactArithmetic(codec.functions, carrier)
    entropy, t = copy.deepcopy(codec.model.entropy).to(carrier), codec.level(100, 1).double()
    past, found = [], []
    with torch.inference_mode():
        for _ in range(dates):
            code = PortCode(port, codec.tables, arithmetic, None, None)
            y_hat, date = entropy.traverse_after(past, code, t, (8, 12), arithmetic)
            past.append(date)
            found.append(y_hat.double())
    return in_units(torch.cat(found))


@pytest.mark.parametrize("carrier", [torch.float32, torch.float64])
@pytest.mark.parametrize("most", [30, 3000, 2**20])
def test_any_symbols_give_the_same_rows_and_latents(codec, folder, carrier, most):
    x = series_scene(1, 32, 32)
    chunk = chunk_of(codec, codec.encode(x, 100), x.shape, 100)
    own, other, past = Given(most), Given(most), series.Past()
    read = small.Reader(model.read_model(folder / "series", chunk), own)
    y = np.stack([past.latents(read, (8, 12)) for _ in range(3)]).transpose(0, 3, 1, 2)
    assert np.array_equal(y, torch_walk(codec, carrier, other, 3))
    assert np.array_equal(np.concatenate(own.rows), np.concatenate(other.rows))


@pytest.mark.parametrize("layer", ["enter", "middle", "score", "attend", "merge", "leave"])
def test_one_unit_in_every_weight_of_a_layer_over_time_is_seen(codec, folder, layer):
    """How strict the comparison is."""
    x = series_scene(3, 50, 40)
    chunk = chunk_of(codec, codec.encode(x, 100), x.shape, 100)
    right = model.read_model(folder / "series", chunk)
    name = f"entropy.time.1.{layer}.weight"
    other = replace(right, tensors={**right.tensors, name: right.tensors[name] + 2**9})
    assert not np.array_equal(latents_or_none(other, chunk), latents_or_none(right, chunk))


def latents_or_none(weights: model.Model, chunk: Chunk) -> np.ndarray | None:
    try:
        return np.concatenate([date.y_hat for date in series.decode(weights, chunk)])
    except ValueError:
        return None


def test_a_changed_check_is_noticed(codec, folder):
    x = series_scene(2, 32, 32)
    chunk = chunk_of(codec, codec.encode(x, 50), x.shape, 50)
    first, second = chunk.header.checks
    other = replace(chunk, header=replace(chunk.header, checks=(first, second ^ 1)))
    with pytest.raises(ValueError, match="checks"):
        series.decode(model.read_model(folder / "series", chunk), other)


def test_quotients_are_rounded_to_even_as_floats_round_them():
    above = np.arange(-(2**13), 2**13)
    for below in (32, 33, 96, 1057, 12320):
        for dtype in (np.float32, np.float64):
            assert np.array_equal(
                series.quotient(above, below), np.rint(above.astype(dtype) / dtype(below)).astype(np.int64)
            )


WITHOUT_TORCH = """
import sys
from pathlib import Path
from eozip import bitstream
from reference import model, series
folder = Path(sys.argv[1])
chunk = bitstream.unpack((folder / "series.bin").read_bytes())
print(len(series.decode(model.read_model(folder / "series", chunk), chunk)))
assert "torch" not in sys.modules
"""


def test_the_reference_needs_no_torch(codec, folder):
    x = series_scene(2, 32, 32)
    coded = codec.encode(x, 60)
    header = chunk_of(codec, coded, x.shape, 60).header
    (folder / "series.bin").write_bytes(bitstream.pack(bitstream.Chunk(header, b"", b"", coded.sections)))
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"]
