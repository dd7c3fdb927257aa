"""Exact coding: masks, exceptions and whole chunks come back bit for bit."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eozip
from eozip.bitstream import lossless
from eozip.bitstream.integers import pack_numbers, unpack_numbers, unzigzag, zigzag
from eozip.bitstream.lossless import decode_array, encode_array
from eozip.bitstream.nodata_mask import decode_exceptions, decode_mask, encode_exceptions, encode_mask
from eozip.errors import FormatError
from golden_decode import stored_pixels

GOLDEN = Path(__file__).parents[1] / "golden"
quick = settings(max_examples=60, deadline=None)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))


def smooth_stack(shape: tuple[int, int, int, int], seed: int = 0) -> np.ndarray:
    """uint16 [T, C, H, W] a little like bands of one scene: shared relief, own gain, some noise."""
    t, c, h, w = shape
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:h, :w]
    relief = 400 * np.sin(row / 23) * np.cos(column / 31) + 150 * np.sin((row + 2 * column) / 9)
    gains = rng.uniform(0.5, 2.0, (t, c, 1, 1))
    return np.rint(2000 + gains * relief + rng.normal(0, 8, shape)).astype(np.uint16)


def golden_pixels(dtype: str, nodata: int) -> np.ndarray:
    """[2, 12, 40, 36], by integers alone: gradients, an edge, nodata in a corner, values beyond the range."""
    t, c, h, w = np.ogrid[:2, :12, :40, :36]
    x = 1500 + 37 * h + 11 * w + 90 * c + 300 * t + (h * w * (c + 1)) % 7 + 800 * ((h + w) % 31 > 15)
    x = x.astype(dtype)
    x[1, 3, 5:7, 8:11] = 31000
    x[:, :, 30:, :9] = nodata
    return x


def make_mask(kind: str, shape: tuple[int, int, int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.random(shape) < rng.random()
    if kind == "shared":
        return np.broadcast_to(rng.random((shape[0], 1, *shape[2:])) < 0.2, shape)
    row, column = np.mgrid[: shape[2], : shape[3]]
    return np.broadcast_to(column < row * 0.2 + rng.integers(0, 20), shape)


@quick
@given(shapes, st.sampled_from(["random", "shared", "edge"]), st.integers(0, 2**32))
def test_masks_come_back(shape, kind, seed):
    mask = make_mask(kind, shape, seed)
    assert (decode_mask(encode_mask(mask), shape) == mask).all()


def test_masks_of_nothing_and_everything_cost_nothing():
    shape = (4, 12, 64, 64)
    assert encode_mask(np.zeros(shape, bool)) == b""
    assert len(encode_mask(np.ones(shape, bool))) == 1


@pytest.mark.parametrize(("kind", "most"), [("edge", 130), ("shared", 40_000)])
def test_masks_that_bands_share_are_small(kind, most):
    assert len(encode_mask(make_mask(kind, (4, 12, 256, 256), 1))) <= most


def test_random_masks_cost_hardly_more_than_their_bits():
    mask = np.random.default_rng(0).random((2, 3, 64, 64)) < 0.5
    assert len(encode_mask(mask)) < 1.1 * mask.size / 8


@quick
@given(shapes, st.sampled_from(["uint16", "int16"]), st.integers(0, 2**32))
def test_exceptions_come_back(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    dn = rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
    where = rng.random(shape) < rng.random() ** 4
    got, values = decode_exceptions(encode_exceptions(dn, where), shape, dtype)
    assert (got == where).all()
    assert values.dtype == dtype
    assert (values == dn[where]).all()


@quick
@given(
    shapes,
    st.sampled_from(["uint16", "int16"]),
    st.sampled_from(["noise", "smooth", "flat"]),
    st.integers(0, 99),
)
def test_arrays_come_back(shape, dtype, kind, seed):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    x = np.full(shape, limits.max)
    if kind == "noise":
        x = rng.integers(limits.min, limits.max, shape, endpoint=True)
    if kind == "smooth":
        x = smooth_stack(shape, seed) - 1900
    x = x.astype(dtype)
    back = decode_array(encode_array(x), shape, dtype)
    assert (back == x).all()
    assert back.dtype == dtype


@quick
@given(
    shape=st.tuples(st.just(2), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_wavefront_decoding_is_what_the_specification_says(shape, seed):
    """The decoder along diagonals equals the pixel-by-pixel one of docs/bitstream.md."""
    rng = np.random.default_rng(seed)
    bands, dates = shape[1], shape[0]
    residuals = rng.integers(-40, 40, (bands, dates, *shape[2:]))
    bases = rng.integers(0, 65536, (bands, dates))
    references = np.array([[b - k if k <= b else 255 for k in (1, 2, 3)] for b in range(bands)])
    weights = rng.integers(-6000, 9000, (bands, dates, 33))
    plan = lossless._Plan(bases, references, weights)
    assert (lossless._undo(plan, residuals) == by_the_specification(plan, residuals)).all()


@quick
@given(
    shape=st.tuples(st.just(2), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_the_encoder_sees_the_neighbours_that_the_decoder_sees(shape, seed):
    x = np.random.default_rng(seed).integers(0, 65535, shape, endpoint=True)
    assert (lossless._decode_planes(lossless._encode_planes(x), shape) == x).all()


def by_the_specification(plan, residuals: np.ndarray) -> np.ndarray:
    height, width = residuals.shape[2:]
    out = np.zeros_like(residuals)  # less the bases

    def own(b, t, r, c):
        if r < 0:
            return own(b, t, r + 1, c - 2) if c >= 0 else 0
        if c < 0:
            return out[b, t, r - 1, 0] if r else 0
        return out[b, t, r, min(c, width - 1)]

    def other(b, t, r, c):
        return out[b, t, min(max(r, 0), height - 1), min(max(c, 0), width - 1)]

    owns = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-2, -1), (-2, 1), (-2, 2)]
    cross = [(0, 0), (0, -1), (-1, 0), (0, 1), (1, 0)]
    square = [*cross, (-1, -1), (-1, 1), (1, -1), (1, 1)]
    for b, t, r, c in np.ndindex(out.shape):
        taps = [own(b, t, r + y, c + x) for y, x in owns]
        for reference, around in zip(plan.references[b], (square, square, cross), strict=True):
            if reference != 255:
                taps += [other(reference, t, r + y, c + x) for y, x in around]
        prediction = sum(w * tap for w, tap in zip(plan.weights[b, t], taps)) + 4096 >> 13
        base = plan.bases[b, t]
        out[b, t, r, c] = (prediction + residuals[b, t, r, c] + base) % 65536 - base
    return out + plan.bases[:, :, None, None]


def test_arrays_are_clearly_smaller_than_zlib():
    x = smooth_stack((2, 12, 64, 64))
    assert len(encode_array(x)) < 0.7 * len(zlib.compress(x.tobytes(), 9))


def test_noise_costs_one_byte_more_than_itself():
    x = np.random.default_rng(0).integers(0, 65535, (1, 2, 40, 40), endpoint=True).astype(np.uint16)
    assert len(encode_array(x)) <= x.nbytes + 1


def test_flat_arrays_are_tiny():
    assert len(encode_array(np.full((4, 12, 128, 128), 3000, np.uint16))) < 200


@quick
@given(st.lists(st.integers(0, 2**34), max_size=200))
def test_numbers_come_back(values):
    array = np.array(values, np.int64)
    assert (unpack_numbers(pack_numbers(array), len(array)) == array).all()
    signed = array - 2**33
    assert (unzigzag(zigzag(signed)) == signed).all()


SHAPE = (2, 3, 9, 11)


@pytest.mark.parametrize("part", ["mask", "exceptions", "array"])
def test_any_bytes_give_pixels_or_a_format_error(part):
    """Bytes without checksums: those of an encoder up to ``start``, then anything. Neither all nor none are refused."""
    valid, decodes = valid_bytes(part), set()

    @settings(max_examples=150, deadline=None)
    @given(data=st.binary(max_size=120), start=st.integers(0, 30))
    @example(data=b"", start=len(valid))
    def check(data, start):
        decodes.add(does_decode(part, valid[:start] + data))  # another error fails the test

    check()
    assert decodes == {True, False}


@pytest.mark.parametrize("part", ["mask", "exceptions", "array"])
def test_flipped_bytes_give_pixels_or_a_format_error(part):
    data, decodes = valid_bytes(part), []
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        decodes.append(does_decode(part, bytes(damaged)))
    assert does_decode(part, data)
    assert False in decodes


def does_decode(part: str, data: bytes) -> bool:
    try:
        read(part, data)
    except FormatError:
        return False
    return True


def valid_bytes(part: str) -> bytes:
    rng = np.random.default_rng(0)
    where = rng.random(SHAPE) < 0.2
    if part == "mask":
        return encode_mask(where)
    x = rng.normal(3000, 30, SHAPE).astype(np.uint16)
    return encode_exceptions(x, where) if part == "exceptions" else encode_array(x)


def read(part: str, data: bytes) -> object:
    if part == "mask":
        return decode_mask(data, SHAPE)
    if part == "exceptions":
        return decode_exceptions(data, SHAPE, "uint16")
    return decode_array(data, SHAPE, "uint16")


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("int16", -32768)])
def test_golden_streams_decode_for_ever(dtype, nodata):
    pixels = golden_pixels(dtype, nodata)[:, :4]
    assert (eozip.decode((GOLDEN / f"lossless-{dtype}-v1.bin").read_bytes()) == pixels).all()
    one = eozip.decode((GOLDEN / f"lossless-{dtype}-1x1-v1.bin").read_bytes())
    assert one.dtype == dtype
    assert (one == pixels[0, :, 30:31, 30:31]).all()


def test_golden_streams_of_bands_on_grids_decode_for_ever():
    scene = stored_pixels("tec-elic-small-any-v1-grids")["dn"]
    assert (eozip.decode((GOLDEN / "lossless-grids-v1.bin").read_bytes()) == scene).all()
