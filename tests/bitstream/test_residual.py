"""Promises about pixels: a largest error, a target, quality 100 of at least 46 dB; whatever the pixels."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip import bitstream
from eozip.bitstream import residual
from eozip.cli import cli
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.errors import EozipError, FormatError, InputError
from eozip.store import EozipChunkCodec
from storefiles import Coarse, coarse_codec, write_dates
from test_lossless import smooth_stack
from toy_codec import TOY, registered

GOLDEN = Path(__file__).parents[1] / "golden"
quick = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class Known:
    """A codec that knows one picture by heart and decodes to it, `change` DN beside it on another machine.

    Its chunks are tiny whatever the pixels are, so that what is added to keep a promise decides their size.
    """

    change: float = 0.0
    id: str = "known-s2l2a-v1"
    weights_hash: bytes = b"by-heart"
    sensor: str = "s2-l2a"
    bands: int = 12

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        return Encoded((b"1", b"2"), (0,) * len(x))

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        wave = np.sin(np.arange(math.prod(shape))).reshape(shape)
        return (picture(shape) + self.change * wave).astype(np.float32)


KNOWN = Known.id


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """What no predictor foresees: int [T, C, H, W] in 500 .. 15000."""
    return np.random.default_rng(7).integers(500, 15000, shape)


def beside(spread: int, seed: int = 0, shape=(1, 12, 16, 20), dtype: str = "uint16") -> np.ndarray:
    """The picture, with errors up to `spread` DN."""
    error = np.random.default_rng(seed).integers(-spread, spread, shape, endpoint=True)
    return np.clip(picture(shape) + error, 1, np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(autouse=True)
def codecs():
    with registered(), registered(Known()):
        yield


def decoded_elsewhere(blob: bytes, change: float) -> np.ndarray:
    """On a machine whose floats differ."""
    registry.REGISTRY.add(KNOWN, lambda: Known(change))
    try:
        return eozip.decode(blob)
    finally:
        registry.REGISTRY.add(KNOWN, Known)


def bright_stack(seed: int, shape=(1, 12, 16, 20), dtype: str = "uint16", gain: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dn = smooth_stack(shape, seed).astype(int) * gain + rng.integers(-300, 300, shape)
    return np.clip(dn, 1, np.iinfo(dtype).max).astype(dtype)


def worst(dn: np.ndarray, dn_hat: np.ndarray, valid: np.ndarray | None = None) -> int:
    error = np.abs(dn.astype(int) - dn_hat.astype(int))
    return int(error.max(initial=0) if valid is None else error[valid].max(initial=0))


@quick
@given(
    bound=st.integers(0, 400),
    spread=st.sampled_from([0, 1, 30, 500, 20000]),
    shape=st.tuples(st.integers(1, 2), st.just(12), st.integers(1, 20), st.integers(1, 20)),
    dtype=st.sampled_from(["uint16", "int16"]),
    nodata=st.sampled_from([None, 0, 32767, 3000, -5]),
    offset=st.sampled_from([0, 1000, -1000]),
    seed=st.integers(0, 99),
    quality=st.sampled_from([None, 30.0, 100.0]),
)
def test_no_pixel_is_further_off_than_promised_on_any_machine(
    bound, spread, shape, dtype, nodata, offset, seed, quality
):
    limits, rng = np.iinfo(dtype), np.random.default_rng(seed)
    if nodata is not None and not bitstream.fits(nodata, dtype):
        nodata = None
    dn = beside(spread, seed, shape, dtype)
    wild = rng.random(shape) < rng.choice([0, 0.3])
    dn[wild] = rng.integers(limits.min, limits.max, wild.sum(), endpoint=True)
    if nodata is not None:
        dn[rng.random(shape) < 0.2] = nodata
        dn[rng.random(shape) < 0.2] = nodata + (1 if nodata < limits.max else -1)
    blob, report = eozip.encode_report(dn, KNOWN, quality, max_error=bound, nodata=nodata, offset=offset)
    level = dn.astype(int) - offset
    apart = (level < -2000) | (level > 20000)
    for change in (0.0, 1.0, -1.0):
        dn_hat = decoded_elsewhere(blob, change)
        assert worst(dn, dn_hat) <= bound
        assert ((dn_hat == nodata) == (dn == nodata)).all()
        assert (dn_hat[apart] == dn[apart]).all()
    info = eozip.inspect(blob)
    assert (info.header.codec, info.residual) == (report.codec, report.residual)


@quick
@given(
    seed=st.integers(0, 999), spread=st.sampled_from([5, 90, 400, 9000]), nodata=st.sampled_from([None, 0])
)
def test_quality_100_reaches_46_db_whatever_the_pixels(seed, spread, nodata):
    dn = beside(spread, seed)
    blob, report = eozip.encode_report(dn, KNOWN, 100, nodata=nodata)
    assert eozip.psnr(dn, eozip.decode(blob)) == pytest.approx(report.psnr)
    assert report.psnr >= 46
    if spread == 5:  # the codec alone is good enough
        assert (report.codec, report.residual) == (KNOWN, 0)
    if spread == 400:  # 33 dB
        assert report.residual


@quick
@given(seed=st.integers(0, 999), gain=st.integers(1, 12))
def test_quality_100_on_bright_pixels(seed, gain):
    dn = bright_stack(seed, gain=gain)
    blob, report = eozip.encode_report(dn, KNOWN, 100)
    assert eozip.psnr(dn, eozip.decode(blob)) >= 46
    assert report.codec in ("lossless", "near-lossless")  # nothing like the picture


def test_below_100_nothing_is_added():
    report = eozip.encode_report(beside(400), KNOWN, 99.99)[1]
    assert (report.codec, report.residual, report.psnr) == (KNOWN, 0, None)


def test_a_layer_is_said():
    dn = beside(140)
    blob, report = eozip.encode_report(dn, KNOWN, 50, max_error=100)
    info = eozip.inspect(blob)
    assert info.header.residual
    assert info.residual == report.residual == info.sections[-1] > 0
    assert (info.header.codec, info.header.quality) == (KNOWN, 50)
    assert worst(dn, eozip.decode(blob)) <= 100
    coarse = eozip.decode(blob[: -info.residual], budget=1)  # without the layer, by choice
    assert worst(dn, coarse) == 140
    assert (eozip.decode(blob, budget=1) == coarse).all()
    with pytest.raises(FormatError, match="truncated"):
        eozip.decode(blob[: -info.residual])


def test_a_bound_alone_takes_what_is_smallest():
    dn = bright_stack(5, (1, 12, 64, 64), gain=1)
    sizes = {e: len(eozip.encode(dn, TOY, max_error=e)) for e in (0, 1, 8, 64, 512)}
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert sizes[0] == len(eozip.encode(dn, "lossless"))
    assert sizes[8] <= len(eozip.encode(dn, TOY, 60, max_error=8))


@pytest.mark.parametrize("bound", [0, 1, 20])
def test_lossless_with_a_bound_is_near_lossless(bound):
    dn = bright_stack(2, (2, 12, 30, 24))
    blob, report = eozip.encode_report(dn, "lossless", max_error=bound, nodata=0)
    assert report.codec == ("near-lossless" if bound else "lossless")
    assert worst(dn, eozip.decode(blob)) == bound


def test_lossless_stays_lossless_at_quality_100_and_under_a_target():
    dn = bright_stack(3)
    for asked in ({"quality": 100}, {"target_psnr": 50.0}):
        assert eozip.encode_report(dn, "lossless", **asked)[1].codec == "lossless"


def test_lossless_with_a_bound_and_a_target_keeps_both():
    dn = smooth_stack(shape=(1, 12, 32, 32))
    for target in (50.0, 70.0):
        blob, report = eozip.encode_report(dn, "lossless", max_error=50, target_psnr=target)
        back = eozip.decode(blob)
        assert report.reached
        assert eozip.psnr(dn, back) >= target - 0.15
        assert np.abs(back.astype(int) - dn).max() <= 50


def test_a_target_is_reached_on_any_pixels():
    dn = beside(300)
    blob, report = eozip.encode_report(dn, KNOWN, target_psnr=60)
    assert report.reached
    assert report.residual
    assert eozip.psnr(dn, eozip.decode(blob)) == pytest.approx(report.psnr)
    assert report.psnr >= 60 - 0.15


@pytest.mark.parametrize("bound", [-1, 65536, 1.5, True, math.nan, math.inf, "3"])
def test_bounds_that_are_refused(bound):
    with pytest.raises(InputError, match="max_error"):
        eozip.encode(bright_stack(0), TOY, max_error=bound)


@quick
@given(
    most=st.sampled_from([0, 1, 7, 500, residual.MOST]),
    dtype=st.sampled_from(["uint16", "int16"]),
    seed=st.integers(0, 99),
)
def test_steps_keep_their_bound_at_both_ends_of_the_type(most, dtype, seed):
    limits, rng = np.iinfo(dtype), np.random.default_rng(seed)
    dn = rng.integers(limits.min, limits.max, (1, 2, 5, 7), endpoint=True, dtype=dtype)
    dn[0, 0, 0, :2] = limits.min, limits.max
    dn_hat = np.clip(dn + rng.integers(-3000, 3000, dn.shape), limits.min, limits.max)
    steps, step = residual.decode_layer(
        residual.encode_layer(residual.corrections(dn, dn_hat, most), 2 * most + 1), dn.shape
    )
    assert worst(dn, residual.corrected(dn_hat, steps, step, dtype, None)) <= most
    assert worst(dn, residual.decode_near(residual.encode_near(dn, most), dn.shape, dtype)) <= most


# --- hostile bytes ---


@pytest.fixture
def layered() -> bytes:
    return eozip.encode(beside(140, shape=(1, 12, 6, 7)), KNOWN, 50, max_error=100)


def test_layers_that_no_encoder_writes_are_refused(layered):
    chunk = bitstream.unpack(layered)
    assert chunk.residual
    even = struct.pack("<H", 2) + chunk.residual[2:]
    for data in (
        b"\x01",
        even,
        chunk.residual[:9],
        chunk.residual + bytes(9) + b"x",
        chunk.residual[:2] + b"\x09",
    ):
        blob = bitstream.pack(
            bitstream.Chunk(chunk.header, chunk.mask, chunk.exceptions, chunk.sections, data)
        )
        with pytest.raises(FormatError):
            eozip.decode(blob)


@pytest.mark.parametrize("codec", ["lossless", "near-lossless"])
def test_a_layer_over_no_network_is_refused(layered, codec):
    chunk = bitstream.unpack(layered)
    header = replace(chunk.header, codec=codec)
    with pytest.raises(FormatError, match="residual layer"):
        eozip.decode(bitstream.pack(bitstream.Chunk(header, b"", b"", chunk.sections[:1], chunk.residual)))
    with pytest.raises(FormatError, match="no sections"):
        eozip.decode(bitstream.pack(bitstream.Chunk(header, b"", b"", (), chunk.residual)))


def test_a_layer_that_the_header_does_not_announce_is_refused(layered):
    chunk = bitstream.unpack(layered)
    with pytest.raises(InputError, match=r"header: residual"):
        bitstream.pack(
            bitstream.Chunk(replace(chunk.header, residual=False), b"", b"", chunk.sections, chunk.residual)
        )


def test_every_truncation_and_flipped_byte_is_noticed(layered):
    for length in range(len(layered)):
        with pytest.raises(FormatError):
            bitstream.unpack(layered[:length])
    for at in range(len(layered)):
        with pytest.raises(FormatError):
            bitstream.unpack(layered[:at] + bytes([layered[at] ^ 0x10]) + layered[at + 1 :])


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["layer", "near"]))
def test_any_bytes_decode_or_give_errors_of_ours(data, what):
    with suppress(EozipError):  # anything else fails the test
        if what == "layer":
            residual.decode_layer(data, (1, 2, 9, 9))
        else:
            assert residual.decode_near(data, (1, 2, 9, 9), "int16", -32768).min() > -32768


# --- golden, and through a store ---


@pytest.mark.parametrize(("name", "bound"), [("near-lossless-v1", 20), ("residual-v1", 100)])
def test_golden_chunks_decode_for_ever(name, bound):
    blob = (GOLDEN / f"{name}.bin").read_bytes()
    expected = np.load(GOLDEN / f"{name}.npz")
    assert (eozip.decode(blob) == expected["dn_hat"]).all()
    assert worst(expected["dn"], expected["dn_hat"]) <= bound
    assert (
        eozip.inspect(blob).header.codec == {"near-lossless-v1": "near-lossless", "residual-v1": KNOWN}[name]
    )


def test_a_bound_through_zarr(tmp_path):
    dn = bright_stack(8, (1, 12, 32, 32))
    codec = EozipChunkCodec("lossless", max_error=25, nodata=0)
    assert codec.to_dict()["configuration"]["max_error"] == 25
    assert EozipChunkCodec.from_dict(codec.to_dict()) == codec
    assert EozipChunkCodec("lossless").to_dict()["configuration"]["max_error"] is None
    array = zarr.create_array(
        tmp_path / "a", shape=dn.shape, dtype=dn.dtype, chunks=dn.shape, serializer=codec, compressors=None
    )
    array[:] = dn
    read = zarr.open_array(tmp_path / "a")
    assert worst(dn, read[:]) <= 25
    with pytest.raises(InputError, match="partial"):  # it is lossy, whatever the codec is called
        read[0, 0, :5, :5] = 7


def test_a_bound_by_the_command_line(tmp_path):
    source = write_dates(tmp_path)[0]
    with coarse_codec():
        arguments = [
            "encode",
            str(source),
            str(tmp_path / "s.zarr"),
            "--codec",
            Coarse.id,
            "--max-error",
            "9",
        ]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        assert "no pixel is off by more than 9 DN" in result.stdout
        assert (
            CliRunner().invoke(cli, ["decode", str(tmp_path / "s.zarr"), str(tmp_path / "b.tif")]).exit_code
            == 0
        )
    with rasterio.open(source) as before, rasterio.open(tmp_path / "b.tif") as after:
        assert worst(before.read(), after.read()) <= 9
    facts = CliRunner().invoke(cli, ["info", str(tmp_path / "s.zarr"), "--json"]).stdout
    assert json.loads(facts)["max_error"] == 9
