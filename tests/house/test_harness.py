"""Batches of independent images, reconstructions with estimates, and the adapter that the docs show."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eozip
from eozip.codecs import registry
from eozip.errors import InputError
from test_state_dicts import as_written, small
from trainfiles import scene

PAGE = Path(__file__).parents[2] / "docs" / "harness.md"
KINDS = ("tec-fp", "tec-elic", "tec-tt", "flextec")


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    rng = np.random.default_rng(8)
    return np.stack([scene(rng, 2, 40), scene(rng, 2, 40)])


@pytest.fixture(scope="module", params=[*KINDS, "tec-fp-small"])
def codec(request, tmp_path_factory):
    if request.param not in KINDS:
        return registry.get(registry.resolve(request.param))
    path = tmp_path_factory.mktemp("weights") / "x.pt"
    torch.save(as_written(request.param, small(request.param)), path)
    return eozip.load(path)


def test_a_reconstruction_is_what_decoding_gives(codec, series):
    made = eozip.reconstruct(series, codec, 40)
    decoded = [eozip.decode(blob) for blob in eozip.encode_batch(series, codec, 40)]
    assert made.dn.dtype == series.dtype
    assert np.abs(made.dn.astype(int) - np.stack(decoded)).max() <= 1


def test_bits_are_those_of_the_sections(codec, series):
    made = eozip.reconstruct(series, codec, 40)
    assert made.bits.shape == series.shape[:2]
    for blob, bits in zip(eozip.encode_batch(series, codec, 40), made.bits):
        info = eozip.inspect(blob)
        if info.header.codec != "lossless":
            assert 8 * sum(info.sections) == pytest.approx(bits.sum(), rel=0.02, abs=64 * len(info.sections))


def test_images_of_a_batch_are_independent(codec, series):
    images = series[:, 0]
    blobs = eozip.encode_batch(images, codec, 40)
    assert blobs == [eozip.encode(image, codec, 40) for image in images]
    assert eozip.reconstruct(images, codec, 40).dn.shape == images.shape
    assert eozip.reconstruct(images, codec, 40).bits.shape == (2, 1)


def test_nodata_and_values_out_of_range_come_back(series):
    images = series[:, 0].copy()
    images[0, :, :5], images[1, 3, 7, 7] = 0, 60000
    made = eozip.reconstruct(images, "tec-fp-small", nodata=0)
    assert (made.dn[0, :, :5] == 0).all()
    assert made.dn[1, 3, 7, 7] == 60000


@pytest.mark.parametrize(
    ("batch", "options", "expected"),
    [
        (np.zeros((12, 8, 8), np.uint16), {}, "B, C, H, W"),
        (np.zeros((0, 12, 8, 8), np.uint16), {}, "B, C, H, W"),
        ([1, 2], {}, "B, C, H, W"),
        (np.zeros((1, 12, 8, 8), np.float32), {}, "uint16"),
        (np.zeros((1, 12, 8, 8), np.uint16), {"codec": "lossless"}, "learned codec"),
        (np.zeros((1, 12, 8, 8), np.uint16), {"quality": 101}, "quality"),
    ],
)
def test_what_is_no_batch_is_named(batch, options, expected):
    with pytest.raises(InputError, match=expected):
        eozip.reconstruct(batch, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_other_bands_than_the_codecs_are_named(kind, tmp_path):
    torch.save(as_written(kind, small(kind)), tmp_path / "x.pt")
    with pytest.raises(InputError, match="12 bands"):
        eozip.reconstruct(np.zeros((1, 3, 8, 8), np.uint16), eozip.load(tmp_path / "x.pt"))


@pytest.fixture(scope="module")
def adapter() -> Any:
    """The code of the page, run as it stands there."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["EozipModel"]("tec-fp-small", 60).eval()


def test_the_adapter_does_what_compressai_asks_of_a_model(adapter, series):
    x = torch.from_numpy(series[:, 0] / 10_000).float()
    assert adapter.update(force=True)
    coded = adapter.compress(x)
    bpp = 8 * sum(len(one) for group in coded["strings"] for one in group) / x[:, 0].numel()
    x_hat = adapter.decompress(coded["strings"], coded["shape"])["x_hat"]
    out = adapter(x)
    estimate = sum(v.log().sum() / (-math.log(2) * x[:, 0].numel()) for v in out["likelihoods"].values())
    assert x_hat.shape == x.shape
    assert float((x_hat - x).square().mean()) < 1e-3
    assert float((out["x_hat"] - x_hat).abs().max()) < 2e-4
    assert float(estimate) == pytest.approx(bpp, rel=0.5)
    assert next(adapter.parameters()).device.type == "cpu"
