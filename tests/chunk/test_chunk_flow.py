"""How often a chunk is encoded, decoded and packed on its way, and that nobody parses bytes of his own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

import eozip
from eozip import bitstream
from eozip.chunk import encoding
from eozip.chunk.options import EncodeOptions
from eozip.codecs.base import Encoded
from eozip.codecs.registry import WITHOUT_NETWORK
from test_api import stack
from test_residual import beside, bright_stack
from toy_codec import ToyCodec, registered

CODEC = "counting-s2l2a-v1"


@dataclass(frozen=True)
class CountingCodec(ToyCodec):
    """The toy codec, which counts its calls."""

    id: str = CODEC
    calls: Counter = field(default_factory=Counter)

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        self.calls["encode"] += 1
        return super().encode(x, quality)

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        self.calls["decode"] += 1
        return super().decode(coded, shape, quality)


@pytest.fixture
def calls(monkeypatch):
    """Calls of the codec, and of what packs and parses chunks."""
    codec = CountingCodec()
    for name in ("pack", "unpack", "read_header", "read_layout"):
        _count(monkeypatch, name, codec.calls)
    with registered(codec):
        yield codec.calls


def _count(monkeypatch, name: str, calls: Counter) -> None:
    real = getattr(bitstream, name)

    def counted(*arguments, **settings):
        calls[name] += 1
        return real(*arguments, **settings)

    monkeypatch.setattr(bitstream, name, counted)


def test_a_quality_takes_one_encode_and_one_pack(calls):
    eozip.encode(stack(), CODEC, 60)
    assert calls == {"encode": 1, "pack": 1}


@pytest.mark.parametrize("target", [30.0, 45.0, 58.0])
def test_a_target_takes_as_many_decodes_as_encodes(calls, target):
    made = encoding.encode_chunk(stack(), EncodeOptions(codec=CODEC, target_psnr=target))
    assert made.report.reached
    assert calls["decode"] == calls["encode"] <= 8
    assert calls["pack"] == 1
    assert not calls["unpack"] + calls["read_header"] + calls["read_layout"]


@pytest.mark.parametrize("asked", [{"max_error": 40}, {"quality": 60, "max_error": 40}, {"quality": 100}])
def test_a_constraint_decodes_every_candidate_once(calls, asked):
    encoding.encode_chunk(stack(), EncodeOptions(codec=CODEC, **asked))
    assert calls["decode"] == calls["encode"] == (1 if "quality" in asked else 3)
    assert calls["pack"] == 1
    assert not calls["unpack"] + calls["read_header"] + calls["read_layout"]


@pytest.mark.parametrize("asked", [{"max_error": 0}, {"quality": 60, "max_error": 0}])
def test_exact_pixels_take_no_network(calls, asked):
    eozip.encode(stack(), CODEC, **asked)
    assert calls == {"pack": 1}


ASKED = [
    {"target_psnr": 40.0},
    {"target_psnr": 62.0},
    {"max_error": 60},
    {"quality": 30, "max_error": 200},
    {"quality": 100},
    {"quality": 100, "max_error": 900},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("nodata", [None, 0, 1500])
@pytest.mark.parametrize("pixels", ["stack", "beside", "bright"])
def test_pixels_that_the_encoder_knows_are_those_of_a_decoder(calls, asked, nodata, pixels):
    makers = {"stack": stack, "beside": lambda: beside(140), "bright": lambda: bright_stack(3)}
    dn = makers[pixels]()
    dn = dn[None] if dn.ndim == 3 else dn
    dn[:, :, 2, 3:6], dn[0, :, 5, 5], dn[0, 1, 4, 4] = 0, 60000, 1499
    made = encoding.encode_chunk(dn, EncodeOptions(codec=CODEC, nodata=nodata, **asked))
    is_by_network = made.report.codec not in WITHOUT_NETWORK
    assert (made.pixels is not None) == is_by_network
    if is_by_network:
        assert np.array_equal(made.pixels, eozip.decode(made.blob))


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_sizes_are_known_before_packing(calls, asked, monkeypatch):
    sizes = []
    real = bitstream.pack
    monkeypatch.setattr(
        bitstream, "pack", lambda chunk: sizes.append(bitstream.packed_size(chunk)) or real(chunk)
    )
    blob = eozip.encode(stack(), CODEC, **asked)
    assert sizes == [len(blob)]
