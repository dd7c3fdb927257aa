"""numpy in, bytes out, numpy back: what every codec shares, tried with a toy codec and the lossless one."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip import bitstream
from eozip.chunk.pixels import fill_holes
from eozip.errors import DesyncError, FormatError, InputError, UnknownCodecError, WeightsError
from test_lossless import golden_pixels, smooth_stack
from toy_codec import TOY, ToyCodec, registered

GOLDEN = Path(__file__).parents[1] / "golden"
quick = settings(max_examples=40, deadline=None)


@pytest.fixture(autouse=True)
def toy():
    with registered() as codec:
        yield codec


def stack(dtype: str = "uint16", shape: tuple[int, int, int, int] = (2, 12, 24, 20)) -> np.ndarray:
    return smooth_stack(shape).astype(dtype)


def test_importing_eozip_imports_no_torch():
    code = "import eozip, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert eozip.__version__ == project["version"]


def test_lossless_and_inspect_import_no_torch():
    code = (
        "import eozip, sys, numpy as np; b = eozip.encode(np.ones((2, 3, 4), np.uint16), 'lossless');"
        "eozip.inspect(b), eozip.check(b), eozip.decode(b); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", ["uint16", "int16", ">u2", ">i2"])
@pytest.mark.parametrize("squeezed", [True, False])
def test_shape_and_dtype_come_back(dtype, squeezed):
    dn = stack(dtype)[0] if squeezed else stack(dtype)
    dn_hat = eozip.decode(eozip.encode(dn, TOY, 80))
    assert dn_hat.shape == dn.shape
    assert dn_hat.dtype == dn.dtype.newbyteorder("=")
    assert eozip.psnr(dn, dn_hat) > 50


@quick
@given(
    shape=st.tuples(st.integers(1, 2), st.just(12), st.integers(1, 20), st.integers(1, 20)),
    dtype=st.sampled_from(["uint16", "int16"]),
    codec=st.sampled_from([TOY, "lossless"]),
    offset=st.sampled_from([0, 1000, -1000]),
    nodata=st.sampled_from([None, 0, 32767, 1234]),
    seed=st.integers(0, 99),
)
def test_nodata_and_exceptions_come_back_exactly(shape, dtype, codec, offset, nodata, seed):
    rng = np.random.default_rng(seed)
    dn = smooth_stack(shape, seed).astype(dtype)
    wild = rng.random(shape) < rng.choice([0, 0.05])
    dn[wild] = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, wild.sum(), endpoint=True)
    if nodata is not None:
        dn[rng.random(shape) < rng.choice([0, 0.1, 0.9, 1])] = nodata
    dn_hat = eozip.decode(eozip.encode(dn, codec, 60, nodata=nodata, offset=offset))
    level = dn.astype(int) - offset
    exact = (level < -2000) | (level > 20000) | (codec == "lossless")
    assert ((dn_hat == nodata) == (dn == nodata)).all()
    assert (dn_hat[exact] == dn[exact]).all()
    assert np.abs(dn_hat.astype(int) - dn)[dn != nodata].max(initial=0) <= 32 + 1


@pytest.mark.parametrize(
    ("nodata", "value", "expected"), [(0, 1, 1), (65535, 19999, 19999), (3000, 3001, 3001)]
)
def test_valid_pixels_never_become_nodata(nodata, value, expected):
    """A codec that gives the nodata value back for every pixel is nudged off it, towards what it meant."""
    dn = np.full((1, 12, 20, 20), value, np.uint16)
    with registered(Constant(value=float(nodata))):
        dn_hat = eozip.decode(eozip.encode(dn, "constant-s2l2a-v1", nodata=nodata))
    assert (dn_hat != nodata).all()


class Constant(ToyCodec):
    """Decodes every pixel to one value."""

    def __init__(self, value: float) -> None:
        super().__init__(id="constant-s2l2a-v1")
        object.__setattr__(self, "value", value)

    def encode(self, x, quality):
        return replace(super().encode(x, quality), sections=(b"",))

    def decode(self, coded, shape, quality):
        return np.full(shape, self.value, np.float32)


@pytest.mark.parametrize(("dtype", "nodata", "expected"), [("uint16", 0, 1), ("uint16", 65535, 65534)])
def test_the_nudge_stays_within_the_dtype(dtype, nodata, expected):
    dn = np.full((1, 12, 20, 20), 5000, dtype)
    with registered(Constant(value=float(nodata))):
        dn_hat = eozip.decode(eozip.encode(dn, "constant-s2l2a-v1", nodata=nodata))
    assert (dn_hat == expected).all()


def test_pixels_that_are_not_finite_are_refused():
    with registered(Constant(value=math.nan)):
        blob = eozip.encode(stack(), "constant-s2l2a-v1")
        with pytest.raises(FormatError, match="not finite"):
            eozip.decode(blob)


def test_a_chunk_of_nodata_has_no_sections_and_needs_no_codec():
    blob = eozip.encode(np.zeros((4, 12, 256, 256), np.uint16), TOY, nodata=0)
    assert len(blob) < 100
    assert eozip.inspect(blob).sections == (1,)
    with registered():
        pass  # the toy codec is gone now
    assert not eozip.decode(blob).any()


def test_holes_are_filled_with_their_neighbours():
    x = np.arange(2 * 1 * 3 * 5).reshape(2, 1, 3, 5)
    holes = np.zeros(x.shape, bool)
    holes[0, 0, 0, 1:3] = True
    holes[0, 0, 2] = True
    holes[1] = True
    filled = fill_holes(x, holes)
    assert filled[0, 0, 0].tolist() == [0, 0, 3, 3, 4]
    assert filled[0, 0, 2].tolist() == filled[0, 0, 1].tolist()
    assert len(np.unique(filled[1])) == 1
    assert (filled[~holes] == x[~holes]).all()


def test_quality_is_rounded_to_hundredths_and_stored():
    assert eozip.inspect(eozip.encode(stack(), TOY, 12.3456)).header.quality == 12.35
    assert eozip.inspect(eozip.encode(stack(), TOY)).header.quality == 60


def test_inspect_counts_every_byte():
    dn = stack()
    blob = eozip.encode(dn, TOY, 60, nodata=7, offset=1000)
    info = eozip.inspect(blob)
    assert info.bytes == len(blob)
    assert info.bpppb == pytest.approx(8 * len(blob) / dn.size)
    assert (info.header.codec, info.header.nodata, info.header.offset) == (TOY, 7, 1000)
    assert info.header.weights_hash == b"toy-hash"
    assert eozip.check(blob) == info


def test_short_names_mean_the_newest_version_for_the_sensor():
    with registered(ToyCodec(id="toy-s2l2a-v10")), registered(ToyCodec(id="toy-s2l1c-v11")):
        assert eozip.inspect(eozip.encode(stack(), "toy")).header.codec == "toy-s2l2a-v10"
        assert eozip.inspect(eozip.encode(stack(), "toy", sensor="s2-l1c")).header.codec == "toy-s2l1c-v11"


def test_unknown_codecs_are_refused_with_the_known_ones():
    with pytest.raises(UnknownCodecError, match=r"jpeg.*toy-s2l2a-v1, lossless"):
        eozip.encode(stack(), "jpeg")


@pytest.mark.parametrize("target", [36.0, 45.0, 61.7])
def test_target_psnr_is_met(target):
    dn = stack(shape=(2, 12, 64, 64))
    dn[:, :, 3, 4] = 0
    blob, report = eozip.encode_report(dn, TOY, target_psnr=target, nodata=0, offset=1000)
    assert report.reached
    assert target <= report.psnr <= target + 0.15
    assert eozip.psnr(dn, eozip.decode(blob), dn != 0, offset=1000) == pytest.approx(report.psnr, abs=1e-6)
    assert eozip.inspect(blob).header.quality == report.quality


@pytest.mark.parametrize("target", [30.3, 38.77, 42.0, 44.44, 50.01, 57.5])
def test_a_target_is_held_and_never_fallen_short_of(target):
    for side in (24, 40, 56):
        dn = stack(shape=(1, 12, side, 40))
        blob, report = eozip.encode_report(dn, TOY, target_psnr=target)
        assert report.reached
        assert eozip.psnr(dn, eozip.decode(blob)) >= target


def test_a_target_out_of_the_codecs_reach_is_reached_without_it():
    odd = np.full((1, 12, 64, 64), 3201, np.uint16)  # the toy's finest step is 4: 80 dB
    blob, report = eozip.encode_report(odd, TOY, target_psnr=150)
    assert (report.quality, report.psnr, report.reached) == (100, math.inf, True)
    assert report.codec == "lossless" or report.residual
    assert (eozip.decode(blob) == odd).all()


def test_a_target_below_reach_uses_the_lowest_quality():
    report = eozip.encode_report(stack(shape=(1, 12, 64, 64)), TOY, target_psnr=1)[1]
    assert (report.quality, report.reached) == (0, True)


def test_lossless_reaches_every_target():
    report = eozip.encode_report(stack(), "lossless", target_psnr=70)[1]
    assert (report.codec, report.psnr, report.reached) == ("lossless", math.inf, True)


def test_what_the_codec_would_enlarge_is_stored_losslessly():
    noise = np.random.default_rng(0).integers(0, 20000, (1, 12, 20, 20)).astype(np.uint16)
    blob, report = eozip.encode_report(noise, TOY, 100)
    assert (report.codec, report.quality) == ("lossless", 100)
    assert (eozip.decode(blob) == noise).all()
    assert len(blob) < noise.nbytes + 100


def test_other_weights_are_refused_with_both_hashes():
    blob = eozip.encode(stack(), TOY)
    both = f"{b'toy-hash'.hex()}.*{b'newer-01'.hex()}"
    with registered(ToyCodec(weights_hash=b"newer-01")), pytest.raises(WeightsError, match=both):
        eozip.decode(blob)


def test_a_codec_that_is_not_installed_is_named():
    with registered(ToyCodec(id="gone-s2l2a-v1")):
        blob = eozip.encode(stack(), "gone")
    with pytest.raises(UnknownCodecError, match="gone-s2l2a-v1"):
        eozip.decode(blob)


def test_symbols_that_differ_name_their_frame():
    chunk = bitstream.unpack(eozip.encode(stack(), TOY))
    header = replace(chunk.header, checks=(chunk.header.checks[0], 5))
    with pytest.raises(DesyncError, match="frame 1"):
        eozip.decode(bitstream.pack(bitstream.Chunk(header, chunk.mask, chunk.exceptions, chunk.sections)))


def test_budget_decodes_the_first_sections_of_a_cut_chunk():
    dn = stack()
    blob = eozip.encode(dn, TOY, 60)
    last = eozip.inspect(blob).sections[-1]
    coarse = eozip.decode(blob[:-last], budget=1)
    assert (coarse == eozip.decode(blob, budget=1)).all()
    assert 30 < eozip.psnr(dn, coarse) < eozip.psnr(dn, eozip.decode(blob))
    with pytest.raises(FormatError, match="truncated"):
        eozip.decode(blob[:-last])


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(InputError, match="budget"):
        eozip.decode(eozip.encode(stack(), TOY), budget=budget)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"header": {"nodata": None}}, "nodata"),
        ({"header": {"shape": (2, 11, 24, 20)}}, "do not fit"),
        ({"header": {"checks": ()}}, "do not fit"),
        ({"sections": ()}, "no sections"),
        ({"sections": (b"", b"", b"")}, "expected 1 or 2 sections"),
        ({"header": {"codec": "lossless"}}, "one lossless section"),
    ],
)
def test_chunks_that_contradict_themselves_are_refused(change, match):
    dn = stack()
    dn[0, 0, 0, 0] = 0
    chunk = bitstream.unpack(eozip.encode(dn, TOY, nodata=0))
    header = replace(chunk.header, **change.get("header", {}))
    sections = change.get("sections", chunk.sections)
    with pytest.raises(FormatError, match=match):
        eozip.decode(bitstream.pack(bitstream.Chunk(header, chunk.mask, chunk.exceptions, sections)))


def test_golden_toy_stream_decodes_for_ever():
    dn_hat = eozip.decode((GOLDEN / "toy-v1.bin").read_bytes())
    pixels = golden_pixels("uint16", 0)
    exact = (pixels == 0) | (pixels > 21000)
    assert eozip.inspect((GOLDEN / "toy-v1.bin").read_bytes()).header.codec == TOY
    assert (dn_hat[exact] == pixels[exact]).all()
    assert np.abs(dn_hat.astype(int) - pixels).max() <= 2**11 / 2


def test_psnr_counts_clipped_reflectance_and_valid_pixels_only():
    dn = np.array([1000, 11000, 30000, 5])
    dn_hat = np.array([900, 12000, 31000, 995])
    assert eozip.psnr(dn, dn_hat, offset=1000) == math.inf
    mse = (100**2 + 990**2) / 4  # what lies above the peak counts as the peak
    assert eozip.psnr(dn, dn_hat) == pytest.approx(10 * math.log10(1e8 / mse))
    assert eozip.psnr(dn, dn_hat, dn != 5) == pytest.approx(10 * math.log10(1e8 / (100**2 / 3)))


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(WeightsError, match=r"missing\.safetensors"):
        eozip.load(tmp_path / "missing.safetensors")


def test_public_names_exist_and_are_documented():
    assert all(getattr(eozip, name).__doc__ for name in eozip.__all__)
