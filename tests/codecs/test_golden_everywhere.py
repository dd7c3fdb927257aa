"""The committed golden chunk of every registered codec gives the same symbols and table rows under every setting.

A new codec is covered as soon as it is registered and `tests/golden/make.py` has made its chunk; without one, a test fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from eozip import bitstream, hub
from eozip.bitstream import Chunk, Header
from eozip.codecs import registry
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.codecs.small.extra_band import WithCompanion
from eozip.codecs.small.image_codec import SmallCodec
from eozip.entropy.fixed_point import WEIGHT
from eozip.entropy.range_coder import DecodePort, EstimatePort, Port
from eozip.errors import FormatError, WeightsError
from golden_decode import (
    decoded,
    golden,
    golden_blob,
    golden_codecs,
    lay_out,
    networks,
    stored_pixels,
    witness,
)
from reference import model, small
from smallmodels import scene

TESTS = Path(__file__).parents[1]
LEARNED = [name for name in registry.names() if name != registry.LOSSLESS]
OLD_INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}
FRESH = {
    "1 thread": ([], {}),
    "2 threads": (["--threads", "2"], {"OMP_NUM_THREADS": "2"}),
    "no oneDNN, old vector instructions": (["--threads", "2", "--no-onednn"], OLD_INSTRUCTIONS),
    "all that relaxes float32": (
        ["--precision", "medium", "--layout", "channels_last"],
        {"ONEDNN_DEFAULT_FPMATH_MODE": "ANY"},
    ),
}


@pytest.fixture(scope="module")
def usual():
    return {name: decoded(name) for name in golden_codecs()}


def stored(name: str) -> np.ndarray:
    return stored_pixels(name)["decoded"].astype(int)


def holds(name: str, got: tuple[str, np.ndarray], usual: dict[str, tuple[str, np.ndarray]]) -> bool:
    """Same rows and symbols as usual; pixels of a pyramid codec equal to the committed ones, others within 1 DN of them."""
    digest, pixels = got
    most = 0 if isinstance(registry.get(name), PyramidCodec) else 1
    return str(digest) == usual[name][0] and np.abs(pixels.astype(int) - stored(name)).max() <= most


@pytest.mark.parametrize("name", LEARNED)
def test_every_registered_codec_has_a_golden_chunk(name):
    assert golden(name).exists(), f"make it: python tests/golden/make.py; no {golden(name)}"


@pytest.mark.parametrize("setting", sorted(FRESH))
def test_fresh_processes(setting, usual, tmp_path):
    arguments, environment = FRESH[setting]
    command = [sys.executable, str(TESTS / "golden_decode.py"), str(tmp_path / "out.npz"), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for name in golden_codecs():
        assert holds(name, (found[f"{name} digest"], found[f"{name} pixels"]), usual), name


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("name", LEARNED)
def test_float32_matmul_precision(name, precision, usual):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert holds(name, decoded(name), usual)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", LEARNED)
def test_without_onednn(name, usual):
    with torch.backends.mkldnn.flags(enabled=False):
        assert holds(name, decoded(name), usual)


def test_channels_last(usual):
    try:
        lay_out("channels_last")
        for name in golden_codecs():
            assert holds(name, decoded(name), usual), name
    finally:
        lay_out("contiguous_format")


# The small image codecs from within: batches, the reference decoder, and what sabotage does


def image_codec(name: str) -> SmallCodec:
    """The `SmallCodec` at the heart of a registered codec; skips codecs that have none."""
    codec = registry.get(name)
    inner = codec.codec if isinstance(codec, WithCompanion) else codec
    if type(inner) is not SmallCodec:  # its subclasses code date after date
        pytest.skip(f"{name}: its dates follow each other, or it has no torch networks; other tests hold it")
    return inner


def golden_chunk(name: str) -> Chunk:
    return bitstream.unpack(golden_blob(name))


def latent_size(header: Header) -> tuple[int, int]:
    """h, w of the latent of a small image codec."""
    return tuple(4 * -(-n // 32) for n in header.shape[2:])


def walked(codec: SmallCodec, port: Port, name: str, frames: int | None = None) -> torch.Tensor:
    """The traversal of a golden chunk, or of as many frames as said, through a port > y_hat [T, M, h, w]."""
    header = golden_chunk(name).header
    t = codec.level(header.quality, frames or header.shape[0])
    with torch.inference_mode():
        return codec.traverse(port, t, latent_size(header), None, None)[1]


class Listening:
    """A port that decodes a golden chunk and keeps rows and symbols of each call, [frames, n]."""

    def __init__(self, name: str):
        chunk = golden_chunk(name)
        self.port, self.frames = DecodePort(chunk.sections[0]), chunk.header.shape[0]
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def code(self, symbols, rows, tables):
        got = self.port.code(symbols, rows, tables)
        self.calls.append((rows.reshape(self.frames, -1).copy(), got.reshape(self.frames, -1)))
        return got


class Playing:
    """A port that gives the symbols of chosen frames, and keeps the rows asked for."""

    def __init__(self, calls: list[tuple[np.ndarray, np.ndarray]], frames: list[int]):
        self.calls, self.frames, self.rows, self.counted = iter(calls), frames, [], EstimatePort()

    def code(self, symbols, rows, tables):
        given = next(self.calls)[1][self.frames].ravel()
        self.rows.append(rows.reshape(len(self.frames), -1).copy())
        return self.counted.code(given, rows, tables)


@pytest.mark.parametrize(
    "frames", [[0], [1], [1, 0, 1, 0]], ids=["first alone", "second alone", "batch of 4"]
)
@pytest.mark.parametrize("name", LEARNED)
def test_batches(name, frames):
    codec, whole = image_codec(name), Listening(name)
    y_hat = walked(codec, whole, name)
    part = Playing(whole.calls, frames)
    assert torch.equal(walked(codec, part, name, len(frames)), y_hat[frames])
    assert all(
        np.array_equal(rows, asked[frames]) for rows, (asked, _) in zip(part.rows, whole.calls, strict=True)
    )


@pytest.mark.parametrize("name", LEARNED)
def test_the_numpy_reference_decodes_it(name):
    chunk = golden_chunk(name)
    codec = image_codec(name)
    decoded = small.decode(
        model.read_model(hub.shipped_path(codec.id), chunk), chunk
    )  # raises where checks differ
    assert np.array_equal(
        decoded.y_hat, 64 * walked(codec, DecodePort(chunk.sections[0]), name).double().numpy()
    )


def weights_of(name: str) -> dict[str, torch.Tensor]:
    """Matrices and kernels that the probabilities of a codec come from, by name."""
    found = {}
    for network in networks(registry.get(name)):
        for part, p in network.named_parameters():
            # vectors per level would need a chunk of each level
            if (
                "entropy" in part
                and ".h_a." not in part
                and (part.endswith("weight") or ".magnitude." in part)
            ):
                found[part] = p.data
    return found


def seen(name: str) -> str:
    """Witness of decoding a golden chunk, or the error it ends with."""
    try:
        return decoded(name)[0]
    except FormatError as error:
        return str(error)


@contextmanager
def changed(value: torch.Tensor, change: Callable[[torch.Tensor, float], torch.Tensor]) -> Iterator[None]:
    """A layer of a loaded codec is another one for a while; `change` gets its values and the unit of its grid."""
    right, unit = value.clone(), 1 / WEIGHT
    while bool((value / (2 * unit) == (value / (2 * unit)).round()).all()):
        unit *= 2
    try:
        value.copy_(change(right, unit))
        yield
    finally:
        value.copy_(right)


def noticed(
    name: str, value: torch.Tensor, change: Callable[[torch.Tensor, float], torch.Tensor], right: str
) -> bool:
    with changed(value, change):
        return seen(name) != right


def one_more(which: int) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """One weight one unit larger; each `which` is another one, all over the layer."""

    def change(value: torch.Tensor, unit: float) -> torch.Tensor:
        other = value.clone()
        other.view(-1)[which * 7919 % value.numel()] += unit
        return other

    return change


def as_trained(value: torch.Tensor, unit: float) -> torch.Tensor:
    """Plain floats that round to these weights: what the layer holds in training."""
    return value + unit * (torch.rand(value.shape, generator=torch.Generator().manual_seed(0)) - 0.5)


# in so small a chunk a single weight may meet nothing but zeros behind a ReLU: then another one is tried
CHANGES = {"one unit": [one_more(k) for k in range(40)], "plain float32": [as_trained]}


@pytest.mark.parametrize("changes", sorted(CHANGES))
@pytest.mark.parametrize(
    "name", [n for n in LEARNED if "l1c" not in n and weights_of(n)]
)  # l1c has the networks of l2a
def test_sabotage_is_noticed(name, changes):
    """One weight off by one unit, or one layer in plain float32, in layers from all over the network."""
    layers, right = weights_of(name), seen(name)
    assert len(layers) >= 8
    for part in list(layers)[:: len(layers) // 8]:
        assert not noticed(name, layers[part], lambda value, unit: value, right), part
        assert any(noticed(name, layers[part], change, right) for change in CHANGES[changes]), part


@pytest.mark.parametrize("name", hub.shipped())
def test_changed_weights_are_refused(name, tmp_path):
    """The smallest change of a file of weights: it is another codec, and says so."""
    folder = shutil.copytree(hub.shipped_path(name), tmp_path / name)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="SHA-256"):
        hub.read_folder(folder)


def test_many_frames_without_onednn():
    codec = image_codec("tec-fp-small-s2l2a-v1")
    x = np.concatenate([scene(1, 64, 64, seed) for seed in range(20)])
    coded, witnesses = codec.encode(x, 60), []
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled), witness() as digest:
            codec.decode(coded, x.shape, 60)
        witnesses.append(digest.hexdigest())
    assert witnesses[0] == witnesses[1]
