"""Baselines: real streams that come back, damaged ones that are named, published numbers that come out again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import eozip
from eozip.chunk.candidates import TOLERANCE
from eozip.errors import EozipError, FormatError, InputError, UnknownCodecError
from eozip_lab.evaluate import baselines, inputs, sweep
from eozip_lab.evaluate.baselines import klt, openjpeg, packing, videos
from eozip_lab.evaluate.baselines.openjpeg import Jpeg2000, KltJpeg2000
from eozip_lab.evaluate.rate import bpppb, rate_at
from eozip_lab.simulate import render, season
from toy_codec import TOY, registered

DATA = Path(os.environ.get("EOZIP_DATA") or Path(__file__).parents[3] / "shared") / "data"
# bpppb of the published table (docs/evaluation.md), the two places of data/val
ANCHORS = {
    "jpeg2000": {36: 0.128, 40: 0.271, 44: 0.449, 48: 0.718},
    "klt+jpeg2000": {36: 0.026, 40: 0.082, 44: 0.236, 48: 0.537},
}
# a fine and a coarse setting for each baseline
SETTINGS = {
    "jpegxl": (0.5, 6.0),
    "webp": (90.0, 10.0),
    "avif": (90.0, 40.0),
    "hevc": (10.0, 30.0),
    "av1": (10.0, 40.0),
    "klt+jpegxl": (0.3, 4.0),
    "klt+hevc": (10.0, 30.0),
    "klt-t+hevc": (10.0, 30.0),
    "klt+av1": (10.0, 40.0),
    "klt-t+av1": (10.0, 40.0),
    "klt-t+av1 preset 0": (10.0, 40.0),
    "lerc": (32.0, 256.0),
    "sz3": (32.0, 256.0),
    "zfp": (128.0, 2048.0),
}
EXACT = ("jpegxl-exact", "jpeg2000-exact")
NAMES = tuple(name for name in baselines.baselines() if name not in EXACT)


def scene(size: int = 72, dates: int = 2) -> np.ndarray:
    """uint16 [dates, 12, size, size - 5], simulated: no multiple of anything."""
    return render(3, season(dates, 3), range(size), range(size - 5))


@pytest.mark.parametrize("name", NAMES)
def test_streams_come_back_and_finer_settings_cost_more(name):
    dn, codec = scene(), baselines.contender(name)
    fine, coarse = SETTINGS.get(name, (46.0, 34.0))
    blobs = [codec.encode(dn, setting) for setting in (fine, coarse)]
    back = [codec.decode(blob) for blob in blobs]
    assert all((b.shape, b.dtype) == (dn.shape, dn.dtype) for b in back)
    psnrs = [eozip.psnr(dn, b) for b in back]
    assert len(blobs[0]) > 1.3 * len(blobs[1])
    assert psnrs[0] > psnrs[1] + 2
    assert psnrs[1] > 22


@pytest.mark.parametrize("name", NAMES)
def test_int16_and_a_single_date(name):
    dn, codec = scene(40, 1).astype(np.int16), baselines.contender(name)
    back = codec.decode(codec.encode(dn, SETTINGS.get(name, (46.0,))[0]))
    assert (back.shape, back.dtype) == (dn.shape, dn.dtype)
    assert eozip.psnr(dn, back) > 35


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_exact_baselines_lose_nothing(name, dtype):
    dn, codec = scene(40, 2).astype(dtype), baselines.contender(name)
    dn[0, 0, :2, :2] = np.iinfo(dtype).max
    blob = codec.encode(dn, 0.0)
    back = codec.decode(blob)
    assert back.dtype == dn.dtype
    assert (back == dn).all()
    assert len(blob) < dn.nbytes


@pytest.mark.parametrize("name", [*NAMES, *EXACT])
def test_damage_is_a_format_error(name):
    dn, codec = scene(40, 1), baselines.contender(name)
    blob = codec.encode(dn, SETTINGS.get(name, (46.0,))[0])
    for damaged in (b"", blob[:7], blob[: len(blob) // 2], blob + b"\x03abc", b"\xff" + blob[1:]):
        with pytest.raises(FormatError):
            codec.decode(damaged)


@pytest.mark.parametrize("name", ["jpeg2000", "jpeg2000-centred", "klt+jpeg2000"])
def test_jpeg2000_holds_the_psnr_it_is_asked_for(name):
    dn = scene(128, 1)
    for target in (40.0, 46.0):
        psnr = eozip.psnr(dn, (codec := baselines.contender(name)).decode(codec.encode(dn, target)))
        assert target - 2.5 < psnr < target + 4  # coarse: components below the target are left out


@pytest.mark.parametrize("name", ["lerc", "sz3", "zfp"])
@pytest.mark.parametrize("bound", [16.0, 200.0])
def test_error_bounded_codecs_keep_their_bound(name, bound):
    dn = scene(48, 2)
    codec = baselines.contender(name)
    error = np.abs(codec.decode(codec.encode(dn, bound)).astype(int) - dn).max()
    assert 0 < error <= bound


@pytest.mark.parametrize("planes", ["video", "date", "time"])
def test_components_not_worth_their_bits_are_left_out(planes):
    dn = np.repeat(scene(64, 2)[:, :1], 12, 1)  # one component holds everything
    single = klt.klt_av1(planes)
    sizes = [len(part) for part in packing.unpack(single.encode(dn, 30.0))[2]]
    vectors = [size for size in sizes if size == (24 if planes == "time" else 12) * 2 + 4]
    expected = {"video": 1, "date": 2}
    assert len(vectors) <= 2 if planes == "time" else len(vectors) == expected[planes]


def test_components_are_decoded_from_what_is_stored_alone():
    dn = scene(64, 2)
    codec = klt.klt_hevc()
    parts = packing.unpack(codec.encode(dn, 16.0))[2]
    vector = np.frombuffer(parts[2][:-4], "<f2").astype(float)
    low = int(np.frombuffer(parts[2][-4:], "<i4")[0])
    scale = float(np.frombuffer(parts[1], "<f2")[0])
    samples = codec.recorder.read(parts[3], (2, *dn.shape[2:])).astype(float)
    means = np.frombuffer(parts[0], "<i2").astype(float)
    alone = means[None, :, None, None] + vector[None, :, None, None] * ((samples + low) / scale)[:, None]
    decoded = codec.decode(packing.pack(dn, parts[:4]))
    assert np.abs(decoded - alone.clip(0)).max() <= 0.5


# --- what is not installed ---


def test_a_missing_library_makes_a_baseline_unavailable_with_the_reason(monkeypatch):
    hidden = {"av": None, "terracodec": None}
    real = baselines.importlib.util.find_spec
    monkeypatch.setattr(
        baselines.importlib.util,
        "find_spec",
        lambda name: hidden.get(name, real(name) if name not in hidden else None),
    )
    assert "av is not installed" in baselines.unavailable("hevc")
    assert baselines.unavailable("jpeg2000") is None
    assert "hevc" not in baselines.baselines()
    with pytest.raises(InputError, match="cannot run here: the package av"):
        baselines.contender("hevc")


def test_a_build_without_a_codec_is_named(monkeypatch):
    import imagecodecs

    monkeypatch.setattr(imagecodecs.LERC, "available", False)
    assert "no LERC" in baselines.unavailable("lerc")
    entry = baselines.Entry("x:y", ("av:libnothing",), "", ())
    monkeypatch.setitem(baselines.ENTRIES, "nothing", entry)
    assert "no libnothing" in baselines.unavailable("nothing")


def test_every_entry_says_what_it_is():
    for name, entry in baselines.ENTRIES.items():
        assert len(entry.sweep) >= (1 if name in EXACT else 5)
        assert entry.setting
        if baselines.unavailable(name) is None:
            assert baselines.contender(name).name == name
            assert len(baselines.contender(name).settings) > 20


def test_all_equal_bands_are_nearly_free_for_klt():
    dn = np.repeat(scene(64, 1)[:, :1], 12, 1)
    size = len(KltJpeg2000(lean=True).encode(dn, 44.0))
    assert size < 2 * len(Jpeg2000().encode(dn[:, :1], 44.0))


def test_bright_components_are_halved_until_they_fit():
    dn = np.zeros((4, 12, 32, 32), np.uint16)
    dn[..., 16:] = 30_000
    codec = KltJpeg2000(over_time=True, lean=True)
    assert np.abs(codec.decode(codec.encode(dn, 50.0)).astype(int) - dn).max() < 400


def test_a_flat_scene_needs_no_components():
    dn = np.full((2, 12, 32, 32), 700, np.int16)
    codec = KltJpeg2000(lean=True)
    blob = codec.encode(dn, 40.0)
    assert len(blob) == 9 + 2 * (1 + 24 + 1)
    assert (codec.decode(blob) == dn).all()


def test_the_comment_is_cut_and_nothing_else():
    import imagecodecs

    plane = scene(64, 1)[0, 3].astype(np.int16)
    full = imagecodecs.jpeg2k_encode(plane, level=60.0, reversible=False, codecformat="j2k")
    lean = openjpeg.without_comment(full)
    assert b"Created by OpenJPEG" in full
    assert len(full) - len(lean) == 39
    assert (imagecodecs.jpeg2k_decode(lean) == imagecodecs.jpeg2k_decode(full)).all()


def test_packed_lengths_are_counted():
    dn = np.zeros((1, 2, 3, 4), np.uint16)
    parts = [b"", b"x" * 127, b"y" * 128, b"z" * 70_000]
    blob = packing.pack(dn, parts)
    assert len(blob) == 9 + sum(map(len, parts)) + 1 + 1 + 2 + 3
    assert packing.unpack(blob) == ((1, 2, 3, 4), "uint16", parts)


@pytest.mark.parametrize(
    "dn",
    [np.zeros((12, 8, 8), np.uint16), np.zeros((1, 12, 8, 8), np.float32), np.zeros((1, 0, 8, 8), np.int16)],
)
def test_wrong_arrays_are_named(dn):
    for name in NAMES:
        with pytest.raises(InputError, match="expected uint16 or int16"):
            baselines.contender(name).encode(dn, 40.0)


def test_jpeg2000_refuses_what_int16_cannot_hold():
    with pytest.raises(InputError, match="up to 32767"):
        Jpeg2000().encode(np.full((1, 1, 32, 32), 40_000, np.uint16), 40.0)


def test_unknown_contenders():
    with pytest.raises(UnknownCodecError, match="known"):
        baselines.contender("jpeg3000")


# --- promises ---


@pytest.mark.parametrize("bound", [0.0, 4.0, 32.0])
def test_a_promised_error_is_kept(bound):
    dn, codec = scene(40, 1), baselines.contender("lossless")
    assert codec.name == "lossless"
    error = np.abs(codec.decode(codec.encode(dn, bound)).astype(int) - dn).max()
    assert error <= bound
    assert (error == 0) == (bound == 0)


def test_promises_of_the_default_codec_are_kept():
    dn = scene(40, 1)
    bounded, aimed = (baselines.own(name) for name in ("max-error", "target-psnr"))
    assert np.abs(bounded.decode(bounded.encode(dn, 64.0)).astype(int) - dn).max() <= 64
    assert eozip.psnr(dn, aimed.decode(aimed.encode(dn, 53.0))) > 53 - TOLERANCE
    assert "tec-" in bounded.settings


# --- sweeps ---


def toy_place() -> inputs.Place:
    bands = tuple(inputs.sensors.get("s2-l2a").band_names)
    return inputs.Place("toy", scene(48, 1), bands, inputs.resolutions())


def test_a_sweep_counts_the_bytes_of_eozip_encode():
    seen: list[tuple[int, int]] = []
    with registered():
        points = sweep.swept(
            [baselines.contender(TOY), baselines.contender("jpeg2000")],
            [toy_place()],
            lambda name: (20.0, 60.0) if name == TOY else (36.0, 44.0),
            lambda done, total, what: seen.append((done, total)),
        )
        blob = eozip.encode(toy_place().dn, TOY, 20.0)
    first = points[0]
    assert (first.contender, first.setting, first.bytes) == (TOY, 20.0, len(blob))
    assert first.bpppb == pytest.approx(8 * len(blob) / toy_place().dn.size)
    assert set(first.group_psnr) == {10, 20, 60}
    assert seen == [(k, 4) for k in range(5)]
    assert set(sweep.curves(points, "jpeg2000")) == {"toy"}


def test_a_contender_that_gives_back_something_else_is_caught():
    class Cropping(Jpeg2000):
        def decode(self, blob):
            return super().decode(blob)[..., 1:]

    with pytest.raises(EozipError, match="back, got"):
        sweep.measured(Cropping(), toy_place(), 40.0)


def test_metrics_at_a_psnr_are_interpolated_between_neighbours():
    with registered():
        points = sweep.swept([baselines.Learned(TOY)], [toy_place()], lambda _: (0.0, 5.0, 10.0))
    low, high = points[0], points[1]
    middle = (low.psnr + high.psnr) / 2
    expected = (low.quality.spectral_angle + high.quality.spectral_angle) / 2
    assert sweep._value_at(points, middle, lambda p: p.quality.spectral_angle) == pytest.approx(expected)
    assert sweep._value_at(points, low.psnr - 1, lambda p: p.bpppb) is None


# --- published numbers ---


def anchored(name: str, db: float) -> float:
    """Mean over data/val of bpppb at a PSNR, from the two settings of the ordinary sweep beside it."""
    folder = DATA / "val"
    if not folder.is_dir():
        pytest.skip(
            f"no {folder}: images do not come with a clone of eozip; where you have them, EOZIP_DATA names the folder that "
            "holds data/"
        )
    stacks = [place.dn for place in inputs.load_places(folder, 256)]
    rates = [rate_at(_bracket(baselines.contender(name), dn, db), db) for dn in stacks]
    assert len(rates) == 2
    return float(np.mean(rates))


def _bracket(codec: baselines.Contender, dn: np.ndarray, db: float) -> list[tuple[float, float]]:
    """(bpppb, dB) of neighbouring settings around a PSNR: what the whole sweep would interpolate between."""
    settings = list(baselines.sweep_of(codec.name))
    at = settings.index(db) + (-3 if codec.name.startswith("klt") else 1)  # where most places have it
    points = [_point(codec, dn, settings[at])]
    step = 1 if points[0][1] < db else -1
    while (points[-1][1] < db) == (step > 0):
        at += step
        points.append(_point(codec, dn, settings[at]))
    return points


def _point(codec: baselines.Contender, dn: np.ndarray, setting: float) -> tuple[float, float]:
    blob = codec.encode(dn, setting)
    return bpppb(len(blob), dn.shape), eozip.psnr(dn, codec.decode(blob))


@pytest.mark.parametrize("name", list(ANCHORS))
def test_published_rates_come_out_again(name):
    assert anchored(name, 40) == pytest.approx(ANCHORS[name][40], rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("db", [36, 44, 48])
@pytest.mark.parametrize("name", list(ANCHORS))
def test_all_published_rates_come_out_again(name, db):
    assert anchored(name, db) == pytest.approx(ANCHORS[name][db], rel=0.03)


def test_svt_av1_leaves_the_priority_of_its_process_alone():
    before = os.sched_getscheduler(0)
    videos.SvtAv1(preset=8).write(np.zeros((2, 64, 64), np.uint16), 40)
    assert os.sched_getscheduler(0) == before
