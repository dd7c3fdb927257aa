"""Bad pixels and damaged bytes, tried on every registered codec: a new codec is picked up by itself."""

from __future__ import annotations

import functools
import struct
from contextlib import suppress
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest

import eozip
from eozip import bitstream
from eozip.codecs import registry
from eozip.codecs.registry import LOSSLESS
from eozip.errors import EozipError, FormatError, InputError, LimitError, WeightsError
from test_bitstream import forged
from test_lossless import smooth_stack
from toy_codec import TOY, ToyCodec, registered

LEARNED = (*(name for name in registry.names() if name != LOSSLESS), TOY)
EVERY = (*LEARNED, LOSSLESS)
every_codec = pytest.mark.parametrize("codec", EVERY)
every_learned_codec = pytest.mark.parametrize("codec", LEARNED)


@pytest.fixture(autouse=True, scope="module")
def toy():
    with registered() as codec:
        yield codec


def bands_of(codec: str) -> int:
    return 12 if codec == LOSSLESS else registry.get(codec).bands or 12


def pixels(codec: str, height: int = 18, width: int = 20) -> np.ndarray:
    """uint16 [2, C, H, W]; a few are nodata (0) and a few beyond 20,000."""
    dn = smooth_stack((2, bands_of(codec), height, width))
    dn[:, :, :2, :3] = 0
    dn[1, 0, 7, 5:8] = 23456
    return dn


@functools.cache
def chunk_of(codec: str) -> bytes:
    return eozip.encode(pixels(codec), codec, 50, nodata=0)


@every_codec
@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint32", "float32", "float64", "bool", "complex64"])
def test_other_dtypes_are_refused(codec, dtype):
    with pytest.raises(InputError, match=f"expected uint16 or int16.*got {dtype}"):
        eozip.encode(pixels(codec).astype(dtype), codec)


@every_codec
def test_nan_is_refused_and_told_what_to_do(codec):
    dn = pixels(codec).astype(np.float32)
    dn[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="replace NaN by a nodata value"):
        eozip.encode(dn, codec)


@every_learned_codec
@pytest.mark.parametrize("extra", [-1, 1])
def test_other_band_counts_are_refused_unless_a_codec_takes_any(codec, extra):
    bands = bands_of(codec)
    dn = np.full((bands + extra, 20, 20), 3000, np.uint16)
    if registry.get(codec).bands is None:
        assert eozip.decode(eozip.encode(dn, codec)).shape == dn.shape
        return
    with pytest.raises(InputError, match=f"takes {bands} bands, got {bands + extra}"):
        eozip.encode(dn, codec)


@every_codec
@pytest.mark.parametrize("shape", [(20, 20), (20,), (), (1, 1, 12, 20, 20)])
def test_other_numbers_of_axes_are_refused(codec, shape):
    with pytest.raises(InputError, match=r"expected \[T, C, H, W\]"):
        eozip.encode(np.ones(shape, np.uint16), codec)


@every_codec
@pytest.mark.parametrize("axis", range(4))
def test_empty_rasters_are_refused(codec, axis):
    shape = [2, bands_of(codec), 20, 20]
    shape[axis] = 0
    with pytest.raises(InputError, match="at least one pixel"):
        eozip.encode(np.ones(shape, np.uint16), codec)


def test_rasters_beyond_the_format_are_refused():
    huge = np.broadcast_to(np.uint16(1), (1, 1, 40000, 2))
    with pytest.raises(InputError, match=r"H = 40000.*smaller chunks"):
        eozip.encode(huge, LOSSLESS)


def test_masked_arrays_are_refused_rather_than_stripped():
    with pytest.raises(InputError, match="filled"):
        eozip.encode(np.ma.masked_equal(pixels(TOY), 0), TOY)


@every_codec
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"quality": 101}, "quality"),
        ({"quality": -0.1}, "quality"),
        ({"quality": float("nan")}, "quality"),
        ({"target_psnr": float("inf")}, "target_psnr"),
        ({"target_psnr": -3}, "target_psnr"),
        ({"quality": 50, "target_psnr": 40}, "not both"),
        ({"nodata": 70000}, "nodata"),
        ({"nodata": 0.5}, "nodata"),
        ({"nodata": float("nan")}, "nodata"),
        ({"offset": 0.5}, "offset"),
        ({"offset": 10**9}, "offset"),
        ({"sensor": "Sentinel 2"}, "name"),
    ],
)
def test_arguments_out_of_range_are_refused(codec, arguments, match):
    with pytest.raises(InputError, match=match):
        eozip.encode(pixels(codec), codec, **arguments)


@every_codec
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (3, 40)])
def test_rasters_of_any_size_come_back(codec, shape):
    dn = smooth_stack((2, bands_of(codec), *shape))
    dn_hat = eozip.decode(eozip.encode(dn, codec, 80))
    assert dn_hat.shape == dn.shape
    assert eozip.psnr(dn, dn_hat) > 30


@every_codec
def test_nodata_everywhere_comes_back(codec):
    dn = np.full((2, bands_of(codec), 40, 50), -9999, np.int16)
    blob = eozip.encode(dn, codec, nodata=-9999)
    assert len(blob) < 120
    assert (eozip.decode(blob) == dn).all()


@every_codec
def test_nodata_on_one_whole_date_comes_back(codec):
    dn = pixels(codec)
    dn[0] = 0
    dn_hat = eozip.decode(eozip.encode(dn, codec, nodata=0))
    assert ((dn_hat == 0) == (dn == 0)).all()


@every_codec
def test_values_above_20000_come_back_exactly(codec):
    dn, dn_hat = pixels(codec), eozip.decode(chunk_of(codec))
    assert (dn_hat[dn > 20000] == 23456).all()
    assert ((dn_hat == 0) == (dn == 0)).all()


@every_codec
def test_every_truncation_is_refused(codec):
    blob = chunk_of(codec)
    for length in range(len(blob)):
        with pytest.raises(FormatError):
            eozip.decode(blob[:length])


@every_codec
def test_every_damaged_byte_is_noticed(codec):
    blob = chunk_of(codec)
    for position in range(len(blob)):
        damaged = bytearray(blob)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(FormatError):
            eozip.check(bytes(damaged))


@every_codec
def test_forged_sections_give_errors_of_ours(codec):
    """Damage under right checksums reaches the codec: the same pixels or one of our errors come out.

    Lossless sections have no check value of their own, so there other pixels may come out.
    """
    chunk, expected = bitstream.unpack(chunk_of(codec)), eozip.decode(chunk_of(codec))
    rng = np.random.default_rng(0)
    for _ in range(12):
        section = bytearray(chunk.sections[0])
        section[rng.integers(len(section))] ^= int(rng.integers(1, 256))
        sections = (bytes(section), *chunk.sections[1:])
        with suppress(EozipError):  # anything else fails the test
            got = eozip.decode(
                bitstream.pack(bitstream.Chunk(chunk.header, chunk.mask, chunk.exceptions, sections))
            )
            assert codec == LOSSLESS or (got == expected).all()


@every_codec
@pytest.mark.parametrize("section", [b"", b"\0", b"\xff" * 40])
def test_sections_of_rubbish_are_refused(codec, section):
    chunk = bitstream.unpack(chunk_of(codec))
    blob = bitstream.pack(
        bitstream.Chunk(chunk.header, chunk.mask, chunk.exceptions, (section,) * len(chunk.sections))
    )
    with pytest.raises(EozipError):
        eozip.decode(blob)


@every_codec
def test_a_declared_huge_size_is_refused(codec):
    blob = chunk_of(codec)
    size = int.from_bytes(blob[7:9], "little")
    head = blob[:12] + struct.pack("<HH", 32768, 32768) + blob[16 : size - 4]
    with pytest.raises(LimitError, match="allowed"):
        eozip.decode(head + struct.pack("<I", google_crc32c.value(head)) + blob[size:])


@every_codec
def test_other_versions_and_other_files_are_refused(codec):
    blob = chunk_of(codec)
    with pytest.raises(FormatError, match="version 9"):
        eozip.decode(blob[:4] + b"\x09" + blob[5:])
    with pytest.raises(FormatError, match="not an eozip chunk"):
        eozip.decode(b"II*\0" + blob[4:])


@every_learned_codec
def test_other_weights_are_refused(codec):
    chunk = bitstream.unpack(chunk_of(codec))
    header = replace(chunk.header, weights_hash=b"otherone")
    with pytest.raises(WeightsError, match=b"otherone".hex()):
        eozip.decode(bitstream.pack(bitstream.Chunk(header, chunk.mask, chunk.exceptions, chunk.sections)))


def test_missing_weights_are_an_error_of_ours():
    def missing() -> ToyCodec:
        raise WeightsError("weights of bare-s2l2a-v1: no such file")

    registry.REGISTRY.add("bare-s2l2a-v1", missing)
    try:
        with pytest.raises(WeightsError, match="no such file"):
            eozip.encode(pixels(TOY), "bare")
    finally:
        registry.REGISTRY.remove("bare-s2l2a-v1")


_ODD = [b"0", "0", True, 1j, float("nan"), [], {}, object, np.array([1, 2]), ...]


@pytest.mark.parametrize("odd", _ODD, ids=repr)
@pytest.mark.parametrize(
    "name", ["dn", "codec", "quality", "target_psnr", "max_error", "nodata", "offset", "sensor", "drop"]
)
def test_arguments_of_any_kind_are_refused_by_name(name, odd):
    arguments = {"dn": np.full((12, 16, 16), 1000, "uint16"), "codec": "lossless", name: odd}
    if isinstance(odd, str) and name == "sensor":
        pytest.skip("any text is an id")
    with pytest.raises(EozipError):
        eozip.encode(**arguments)


@pytest.mark.parametrize("odd", ["scene.zarr", 5, None, [], object], ids=repr)
@pytest.mark.parametrize("function", [eozip.decode, eozip.inspect, eozip.check, eozip.dropped])
def test_what_is_no_chunk_is_refused_by_its_type(function, odd):
    with pytest.raises(EozipError, match="expected the bytes of a chunk"):
        function(odd)


@pytest.mark.parametrize("budget", ["1", 1.5, [], object, 0], ids=repr)
def test_odd_budgets_are_refused(budget):
    blob = eozip.encode(np.full((12, 16, 16), 1000, "uint16"), "lossless")
    with pytest.raises(EozipError, match="budget"):
        eozip.decode(blob, budget=budget)


# --- little input, much memory ---


def of_size(codec: str, side: int) -> bytes:
    """A chunk of a few bytes that says that it is large, as a stranger would make it."""
    blob = eozip.encode(np.full((1, 12, 64, 64), 700, np.int16), codec, 0)
    return forged(blob, 12, struct.pack("<HH", side, side))


@pytest.mark.parametrize("codec", ["tec-fp-small", "tec-elic-small", "tec-tt-small", "lossless"])
def test_chunks_beyond_the_limit_of_the_process_are_refused_at_once(codec, monkeypatch):
    blob = of_size(codec, 13000)
    for ask in (eozip.decode, eozip.dropped):
        with pytest.raises(LimitError, match="EOZIP_MAX_SAMPLES"):
            ask(blob)
    assert eozip.inspect(blob).header.shape == (1, 12, 13000, 13000)
    small = eozip.encode(np.full((1, 12, 64, 64), 700, np.int16), codec, 0)
    monkeypatch.setenv("EOZIP_MAX_SAMPLES", str(12 * 64 * 64))
    assert eozip.decode(small).shape == (1, 12, 64, 64)
    monkeypatch.setenv("EOZIP_MAX_SAMPLES", str(12 * 64 * 64 - 1))
    with pytest.raises(LimitError, match="EOZIP_MAX_SAMPLES"):
        eozip.decode(small)
    with pytest.raises(InputError, match="use smaller chunks"):
        eozip.encode(np.full((1, 12, 64, 64), 700, np.int16), codec, 0)
    for text in ("many", "-1", "0", "1e9", "٣"):
        monkeypatch.setenv("EOZIP_MAX_SAMPLES", text)
        with pytest.raises(InputError, match="EOZIP_MAX_SAMPLES: expected a number"):
            eozip.decode(small)
