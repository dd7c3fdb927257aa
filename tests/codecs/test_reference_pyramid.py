"""The pyramid codecs against the decoder after docs/pyramid.md in `reference.pyramid`."""

from __future__ import annotations

import numpy as np
import pytest

from eozip import bitstream
from eozip.bitstream import Chunk, Header
from eozip.codecs import level_map
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import grids
from eozip.codecs.pyramid.codec import PyramidCodec
from eozip.entropy.range_coder import DecodePort
from eozip.errors import EozipError, FormatError
from golden_decode import golden_blob, stored_pixels
from pyramidscenes import (
    BILINEAR,
    CODEC,
    CUBIC,
    NEAREST,
    SERIES,
    codec_of,
    goldens,
    season,
    shipped_tensors,
    texture,
    wild,
    wild_corrections,
)
from reference import pyramid
from test_pyramid import damaged, drawn

IDS = (CODEC, SERIES)


class Pair:
    """A codec of the package, and what the other decoder needs of the same weights."""

    def __init__(self, tensors: dict[str, np.ndarray], name: str) -> None:
        self.codec: PyramidCodec = codec_of(tensors, name)
        self.weights = pyramid.weights_of(tensors)

    def chunk_of(self, x: np.ndarray, quality: float) -> Chunk:
        coded = self.codec.encode(x.astype(np.float32), quality)
        header = Header(self.codec.id, "uint16", x.shape, quality, bytes(8), checks=coded.checks)
        return Chunk(header, b"", b"", coded.sections)

    def package(self, chunk: Chunk, reduce: int = 1, dates: list[int] | None = None) -> np.ndarray:
        levels = level_map.levels_of(chunk) if chunk.header.levels else None
        coded = Encoded(chunk.sections, chunk.header.checks, levels=levels)
        return self.codec.decode_scaled(coded, chunk.header.shape, reduce, dates=dates)

    def page(self, chunk: Chunk, reduce: int = 1, dates: list[int] | None = None) -> np.ndarray:
        return pyramid.decode(self.weights, chunk, reduce, dates)


@pytest.fixture(scope="module")
def shipped() -> dict[str, np.ndarray]:
    return shipped_tensors()


@pytest.fixture(scope="module", params=IDS)
def pair(request, shipped) -> Pair:
    return Pair(shipped, request.param)


@pytest.fixture(scope="module", params=[20, 127], ids=["random weights", "largest weights"])
def wild_pair(request, shipped) -> Pair:
    """With every tensor in use, whatever training has made of the shipped ones."""
    return Pair(wild(shipped, request.param), SERIES)


@pytest.mark.parametrize("name", list(goldens()))
def test_golden_streams(name):
    chunk = bitstream.unpack(golden_blob(name))
    both = Pair(shipped_tensors(chunk.header.codec), chunk.header.codec)
    decoded = both.page(chunk)
    assert np.array_equal(decoded, both.package(chunk))
    stored, dn = (stored_pixels(name)[part].astype(int) for part in ("decoded", "dn"))
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
def test_layouts(pair, layout):
    found, sizes = LAYOUTS[layout]
    chunk = pair.chunk_of(season((3, 4, 70, 75), found, seed=3), 90)
    stream = pyramid.streams_of(chunk.sections[0], 3)[0]
    groups, _, _ = pyramid.layout(pyramid.Reader(DecodePort(stream), pair.weights.tables), 4, (70, 75))
    assert [len(ladder) for ladder in pyramid.ladders_of(groups)] == sizes
    assert np.array_equal(pair.page(chunk), pair.package(chunk))


@pytest.mark.parametrize(
    ("kind", "shape", "quality"),
    [
        ("noise", (2, 3, 17, 21), 100),
        ("halves", (1, 2, 64, 65), 200),
        ("texture", (2, 13, 22, 9), 0),
        ("dot", (1, 1, 40, 3), 60),
        ("constant", (3, 2, 1, 1), 60),
        ("board", (4, 3, 24, 25), 200),
    ],
)
def test_pixels_of_all_kinds(pair, kind, shape, quality):
    chunk = pair.chunk_of(drawn(kind, shape, 1), quality)
    assert np.array_equal(pair.page(chunk), pair.package(chunk))


@pytest.mark.parametrize("dates", range(1, 10))
def test_any_number_of_dates_under_any_weights(wild_pair, dates):
    """Odd sizes, interpolated bands or none; whole, some dates, and reduced."""
    rng = np.random.default_rng(dates)
    found = LAYOUTS[list(LAYOUTS)[dates % 4]][0] if dates % 2 else {}
    size = rng.integers(24, 44, 2) if found else rng.integers(1, 40, 2)
    chunk = wild_pair.chunk_of(season((dates, 4, *size.tolist()), found, dates), rng.uniform(0, 100))
    some = rng.permutation(dates)[: rng.integers(1, dates + 1)].tolist()
    for reduce, wanted in [(1, None), (1, some), (2, some), (4, None), (8, some), (32, some)]:
        expected = wild_pair.package(chunk, reduce, wanted)
        assert np.array_equal(wild_pair.page(chunk, reduce, wanted), expected), (reduce, wanted)


def test_the_fit_of_many_samples_takes_some_of_them(wild_pair):
    """A level of more than 16384 details below another."""
    chunk = wild_pair.chunk_of(season((2, 1, 160, 301), {}, 4), 40)
    assert np.array_equal(wild_pair.page(chunk), wild_pair.package(chunk))


@pytest.mark.parametrize("reduce", [1, 2, 8])
def test_groups_on_their_own_grids(pair, reduce):
    groups = [(1, texture((4, 2, 33, 41), 1)), (2, texture((4, 3, 17, 21), 2)), (6, texture((4, 1, 6, 7), 3))]
    coded = pair.codec.encode_groups([(f, x.astype(np.float32)) for f, x in groups], 80)
    pairs, shape = [(factor, x.shape[1]) for factor, x in groups], (4, 6, 33, 41)
    header = Header(pair.codec.id, "uint16", shape, 80.0, bytes(8), checks=coded.checks)
    chunk = Chunk(header, b"", b"", coded.sections)
    for dates in (None, [2, 1]):
        decoded = pair.codec.decode_groups(coded, shape, pairs, reduce, dates=dates)
        made = pyramid.decode_groups(pair.weights, chunk, reduce, dates)
        for (factor, own), (expected, _), pixels in zip(made, groups, decoded, strict=True):
            assert factor == expected
            assert np.array_equal(own, pixels)


@pytest.mark.parametrize("name", [f"{CODEC}-odd", f"{SERIES}-row", f"{SERIES}-odd"])
def test_damaged_bytes_give_the_same_pixels_or_both_refuse(shipped, monkeypatch, name):
    """Checks aside: what wild symbols lead to is specified, too."""
    monkeypatch.setattr("eozip.codecs.pyramid.codec.compare", lambda *_: None)
    monkeypatch.setattr(pyramid, "frame_check", lambda _: 0)
    chunk, rng = bitstream.unpack(golden_blob(name)), np.random.default_rng(5)
    both, dates = Pair(shipped, chunk.header.codec), chunk.header.shape[0]
    header = Header(both.codec.id, "int16", chunk.header.shape, 50.0, bytes(8), checks=(0,) * dates)
    for _ in range(20):
        bad = Chunk(header, b"", b"", damaged(rng, chunk.sections))
        some = rng.permutation(dates)[: rng.integers(1, dates + 1)].tolist()
        try:
            expected = both.package(bad, dates=some)
        except EozipError:
            with pytest.raises(FormatError):
                both.page(bad, dates=some)
        else:
            assert np.array_equal(np.float32(both.page(bad, dates=some)), expected)


def wild_symbols(residual: np.ndarray, rows: np.ndarray, counts: list[int], tables: object) -> np.ndarray:
    """Up to the largest that a stream can hold."""
    rng = np.random.default_rng(len(residual))
    magnitude = np.exp2(rng.uniform(0, 30, residual.shape))
    return (rng.choice([-1, 1], residual.shape) * magnitude).astype(np.int32)


def test_symbols_beyond_all_that_pictures_hold(wild_pair, monkeypatch):
    """Sums of the fit stay exact and every clip is where the page has it: nothing else comes back so for all dates."""
    monkeypatch.setattr("eozip.codecs.pyramid.walk.quantised", wild_symbols)
    chunk = wild_pair.chunk_of(drawn("noise", (5, 3, 18, 23), 1), 60)
    assert np.array_equal(wild_pair.page(chunk), wild_pair.package(chunk))


@pytest.mark.parametrize("symbols", ["usual symbols", "wild symbols"])
def test_any_corrections(wild_pair, monkeypatch, symbols):
    """More than encoders find worth their bits, and beyond what decoders hold them to."""
    wild_corrections(monkeypatch)
    if symbols == "wild symbols":
        monkeypatch.setattr("eozip.codecs.pyramid.walk.quantised", wild_symbols)
    x, noise = (
        season((4, 5, 58, 63), {4: TWENTY}, 2),
        np.random.default_rng(2).integers(0, 900, (4, 4, 58, 63)),
    )
    x[:, :4] += noise.astype(x.dtype)
    chunk = wild_pair.chunk_of(x, 80)
    assert np.array_equal(wild_pair.page(chunk), wild_pair.package(chunk))


@pytest.mark.parametrize("reduce", [1, 4])
@pytest.mark.parametrize("quality", [60, 200])
def test_anchors_of_any_steps(shipped, monkeypatch, quality, reduce):
    """Bands of 60 m are predicted in the step of their date."""
    monkeypatch.setattr("eozip.codecs.pyramid.codec.anchors_of", lambda *_: (2, 4, 0))
    monkeypatch.setattr("eozip.codecs.pyramid.codec.finer_of", lambda _: np.array([3, 0, 8, 0, 5]))
    both = Pair(shipped, SERIES)
    chunk = both.chunk_of(season((5, 4, 70, 75), LAYOUTS["predicted"][0], 6), quality)
    for dates in (None, [3, 4]):
        assert np.array_equal(both.page(chunk, reduce, dates), both.package(chunk, reduce, dates))
