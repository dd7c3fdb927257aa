"""tec-elic-small-any-v1 against the decoder after docs/pyramid.md in `reference.pyramid`."""

from __future__ import annotations

import numpy as np
import pytest

from eozip import bitstream, hub
from eozip.bitstream import Chunk, Header
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import grids
from eozip.entropy.range_coder import DecodePort
from eozip.errors import EozipError, FormatError
from golden_decode import GOLDEN
from pyramidscenes import BILINEAR, CODEC, CUBIC, NEAREST, cube, goldens, texture
from reference import pyramid
from test_pyramid import damaged, drawn


@pytest.fixture(scope="module")
def weights() -> pyramid.Weights:
    return pyramid.read_weights(hub.shipped_path(CODEC))


def chunk_of(x: np.ndarray, quality: float) -> Chunk:
    coded = registry.get(CODEC).encode(x.astype(np.float32), quality)
    header = Header(CODEC, "uint16", x.shape, quality, bytes(8), checks=coded.checks)
    return Chunk(header, b"", b"", coded.sections)


def by_package(chunk: Chunk) -> np.ndarray:
    header = chunk.header
    return registry.get(CODEC).decode(Encoded(chunk.sections, header.checks), header.shape, header.quality)


@pytest.mark.parametrize("name", list(goldens()))
def test_golden_streams(weights, name):
    chunk = bitstream.unpack((GOLDEN / f"{name}.bin").read_bytes())
    decoded = pyramid.decode(weights, chunk)
    assert np.array_equal(decoded, by_package(chunk))
    stored, dn = (np.load(GOLDEN / f"{name}.npz")[part].astype(int) for part in ("decoded", "dn"))
    exact = (stored == chunk.header.nodata) | (dn > 20000)
    assert np.array_equal(decoded[~exact], stored[~exact])


SIXTY = grids.Grid(CUBIC, 6, 4, 1)
TWENTY = grids.Grid(BILINEAR, 2, 1, 0)
LAYOUTS = {  # interpolated bands, and the groups of each ladder
    "ladder of two": ({1: TWENTY, 2: TWENTY}, [2]),
    "predicted": ({2: SIXTY, 3: SIXTY}, [1, 1]),
    "three ladders": ({0: grids.Grid(NEAREST, 3, 1, 2), 1: TWENTY, 2: SIXTY}, [2, 1, 1]),
    "nothing on the finest grid": (dict.fromkeys(range(4), SIXTY), [1]),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_layouts(weights, layout):
    found, sizes = LAYOUTS[layout]
    chunk = chunk_of(cube((1, 4, 70, 75), found, seed=3), 90)
    groups, _ = pyramid.layout(pyramid.Reader(DecodePort(chunk.sections[0]), weights.tables), 4, (70, 75))
    assert [len(ladder) for ladder in pyramid.ladders_of(groups)] == sizes
    assert np.array_equal(pyramid.decode(weights, chunk), by_package(chunk))


@pytest.mark.parametrize(
    ("kind", "shape", "quality"),
    [
        ("noise", (2, 3, 17, 21), 100),
        ("halves", (1, 2, 64, 65), 200),
        ("texture", (2, 13, 22, 9), 0),
        ("dot", (1, 1, 40, 3), 60),
        ("constant", (3, 2, 1, 1), 60),
    ],
)
def test_pixels_of_all_kinds(weights, kind, shape, quality):
    chunk = chunk_of(drawn(kind, shape, 1), quality)
    assert np.array_equal(pyramid.decode(weights, chunk), by_package(chunk))


def test_groups_on_their_own_grids(weights):
    groups = [(1, texture((1, 2, 33, 41), 1)), (2, texture((1, 3, 17, 21), 2)), (6, texture((1, 1, 6, 7), 3))]
    coded = registry.get(CODEC).encode_groups([(f, x.astype(np.float32)) for f, x in groups], 80)
    pairs = [(factor, x.shape[1]) for factor, x in groups]
    decoded = registry.get(CODEC).decode_groups(coded, (1, 6, 33, 41), pairs)
    header = Header(CODEC, "uint16", (1, 6, 33, 41), 80.0, bytes(8), checks=coded.checks)
    made = pyramid.decode_groups(weights, Chunk(header, b"", b"", coded.sections))
    for (factor, own), (expected, _), pixels in zip(made, groups, decoded, strict=True):
        assert factor == expected
        assert np.array_equal(own, pixels)


def test_damaged_bytes_give_the_same_pixels_or_both_refuse(weights, monkeypatch):
    """Checks aside: what wild symbols lead to is specified, too."""
    monkeypatch.setattr("eozip.codecs.pyramid.codec._compare", lambda *_: None)
    monkeypatch.setattr(pyramid, "frame_check", lambda _: 0)
    chunk, rng = bitstream.unpack((GOLDEN / f"{CODEC}-odd.bin").read_bytes()), np.random.default_rng(5)
    header = Header(CODEC, "int16", chunk.header.shape, 50.0, bytes(8), checks=(0,) * chunk.header.shape[0])
    for _ in range(40):
        bad = Chunk(header, b"", b"", damaged(rng, chunk.sections))
        try:
            expected = by_package(bad)
        except EozipError:
            with pytest.raises(FormatError):
                pyramid.decode(weights, bad)
        else:
            assert np.array_equal(np.float32(pyramid.decode(weights, bad)), expected)
