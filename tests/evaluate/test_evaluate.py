"""`eozip evaluate`: the report against independent recomputation, resumption after a kill, bad input by name."""

from __future__ import annotations

import json
import math
import mmap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from eozip.errors import InputError
from eozip_lab.evaluate import baselines, summary
from eozip_lab.evaluate.baselines.eozip_bounded import ERROR
from eozip_lab.evaluate.evaluation import evaluate
from eozip_lab.evaluate.inputs import Reading, gather
from eozip_lab.evaluate.methods import Method, default_codecs, methods
from evaluatefiles import NAMES, pixels, plan, write_data
from rasterfiles import write_tif
from toy_codec import TOY, registered


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def report(data, tmp_path_factory) -> tuple[dict, Path]:
    """One evaluation, as read back from its file."""
    out = tmp_path_factory.mktemp("report") / "r"
    with registered():
        evaluate(plan(data), out)
    return json.loads((out / "report.json").read_text()), out


def point(found: dict, method: str, place: str, setting: float) -> dict:
    (one,) = [
        p for p in found["points"] if (p["method"], p["place"], p["setting"]) == (method, place, setting)
    ]
    return one


# --- numbers ---


def test_every_point_of_every_place_is_there(report):
    found = report[0]
    sweeps = {m["id"]: m["sweep"] for m in found["methods"]}
    expected = [(m, p["name"], s) for m, sweep in sweeps.items() for p in found["places"] for s in sweep]
    assert [(p["method"], p["place"], p["setting"]) for p in found["points"]] == expected
    assert sorted(p["name"] for p in found["places"]) == ["field", "series"]
    assert found["failures"] == []
    assert found["schema"] == "eozip-evaluate/1"


def test_points_agree_with_an_independent_computation(report, data):
    found = report[0]
    dn = np.load(data / "series.npz")["reflectance"]
    codec = baselines.contender("sz3")
    blob = codec.encode(dn, 64.0)
    x, x_hat = (a.clip(0, 10_000).astype(float) for a in (dn, codec.decode(blob)))
    one = point(found, "sz3", "series", 64.0)
    assert one["bytes"] == len(blob)
    assert one["bpppb"] == pytest.approx(8 * len(blob) / dn.size, rel=1e-5)
    assert one["psnr"] == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(x, x_hat, data_range=10_000), abs=1e-3
    )
    by_band = [
        skimage_metrics.peak_signal_noise_ratio(x[:, c], x_hat[:, c], data_range=10_000) for c in range(12)
    ]
    assert one["band_psnr"] == pytest.approx(by_band, abs=1e-3)
    coarse = [NAMES.index(name) for name in ("B01", "B09")]
    square = np.square(x[:, coarse] - x_hat[:, coarse]).mean()
    assert one["group_psnr"]["60"] == pytest.approx(10 * math.log10(1e8 / square), abs=1e-3)
    assert one["max_error"] == np.abs(dn.astype(int) - codec.decode(blob)).max()
    red, infrared = NAMES.index("B04"), NAMES.index("B08")
    ndvi = [(a[:, infrared] - a[:, red]) / (a[:, infrared] + a[:, red]) for a in (x, x_hat)]
    assert one["ndvi_error"] == pytest.approx(np.abs(ndvi[0] - ndvi[1]).mean(), rel=1e-4)


def test_speed_and_memory_are_plausible(report):
    for one in report[0]["points"]:
        t, _, h, w = next(p["shape"] for p in report[0]["places"] if p["name"] == one["place"])
        assert one["encode_mpx_s"] == pytest.approx(t * h * w / 1e6 / one["encode_seconds"], rel=1e-4)
        if one["peak_rss_bytes"] is not None:
            assert one["rss_before_bytes"] > 10e6
            assert one["peak_rss_is_of"] in ("point", "process")


def test_cpu_seconds_are_those_of_the_run(report):
    for one in report[0]["points"]:
        assert 0 < one["encode_cpu_seconds"] < 60
        if one["decode_mpx_cpu_s"] is not None:
            pixels_of = one["decode_mpx_s"] * one["decode_seconds"]
            assert one["decode_mpx_cpu_s"] * one["decode_cpu_seconds"] == pytest.approx(pixels_of, rel=1e-3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory of a point needs Linux")
def test_peak_memory_is_that_of_the_point():
    from eozip_lab.evaluate.memory import watched_memory

    big = np.ones(64 << 20, np.uint8)  # over and gone: no part of what follows
    del big
    with watched_memory() as small:
        pass
    with watched_memory() as large:
        # pages of its own: an allocator may hand out again what was freed, which is resident already
        np.frombuffer(mmap.mmap(-1, 48 << 20), np.uint8)[:] = 1
    if small.is_of != "point":
        pytest.skip("the kernel does not let this process reset its peak")
    assert small.peak - small.before < 16 << 20
    assert 40 << 20 < large.peak - large.before < 80 << 20


def test_rates_and_means_agree_with_the_points(report):
    found = report[0]
    for method, rates in found["summary"]["rates_at_psnr"].items():
        for db, cell in rates.items():
            expected = {p["name"]: interpolated(found, method, p["name"], float(db)) for p in found["places"]}
            assert {k: v is None for k, v in expected.items()} == {
                k: v is None for k, v in cell["places"].items()
            }
            known = [rate for rate in expected.values() if rate is not None]
            assert [v for v in cell["places"].values() if v is not None] == pytest.approx(known, rel=1e-4)
            if len(known) == len(expected):
                assert cell["mean"] == pytest.approx(sum(known) / len(known), rel=1e-4)
            else:
                assert cell["mean"] is None


def interpolated(found: dict, method: str, place: str, db: float) -> float | None:
    """Log rate, linear in dB, by hand."""
    points = sorted(
        (p["psnr"], math.log(p["bpppb"]))
        for p in found["points"]
        if p["method"] == method and p["place"] == place and p["psnr"] is not None
    )
    for (low, a), (high, b) in pairwise(points):
        if low <= db <= high:
            return math.exp(a + (b - a) * (db - low) / (high - low))
    return None


def row(method: str, place: str, rate: float, db: float | None) -> dict:
    quality = dict.fromkeys(
        (
            "mse",
            "spectral_angle",
            "max_error",
            "class_change",
            "class_shift",
            "encode_seconds",
            "decode_seconds",
        ),
        1.0,
    )
    absent = dict.fromkeys(("ssim", "ms_ssim", "ndvi_error", "ndwi_error"))
    fixed = {"band_psnr": [db], "group_psnr": {"10": db}, "setting": rate, "bytes": int(1e6 * rate)}
    return {"method": method, "place": place, "bpppb": rate, "psnr": db, **quality, **absent, **fixed}


def line(method: str, place: str, factor: float) -> list[dict]:
    """6 dB for every fourfold rate."""
    return [row(method, place, factor * 4 ** ((db - 40) / 6), db) for db in range(34, 52, 2)]


PLACES = {"a": 0.5, "b": 0.8, "c": 1.25}


def two_methods() -> list[Method]:
    return [Method(name, kind, "", "", ()) for name, kind in (("ours", "codec"), ("theirs", "baseline"))]


def test_ratios_and_differences_of_lines_have_a_closed_form():
    rows = [r for p, f in PLACES.items() for r in [*line("ours", p, f), *line("theirs", p, 1.0)]]
    found = summary.summarise(rows, two_methods(), list(PLACES))
    (pair,) = found["pairs"]
    logs = [math.log(f) for f in PLACES.values()]
    ratio = pair["ratio_at_psnr"]["44"]
    assert ratio["ratio"] == pytest.approx(math.exp(sum(logs) / 3))
    assert min(PLACES.values()) <= ratio["low"] < ratio["ratio"] < ratio["high"] <= max(PLACES.values())
    assert (ratio["places"], ratio["of"]) == (3, 3)
    values = {place: one["value"] for place, one in pair["bd_rate"]["by_place"].items()}
    assert values == pytest.approx({place: 100 * (f - 1) for place, f in PLACES.items()})
    assert pair["bd_rate"]["mean"] == pytest.approx(100 * (sum(PLACES.values()) / 3 - 1))
    decibels = {place: one["value"] for place, one in pair["bd_psnr"]["by_place"].items()}
    assert decibels == pytest.approx({place: -6 * math.log(f, 4) for place, f in PLACES.items()})
    assert [one["method"] for one in found["best_at_psnr"]["40"]] == ["ours", "theirs"]
    assert found["at_psnr"]["40"]["theirs"]["b"]["bpppb"] == pytest.approx(1.0)


def test_places_out_of_reach_are_counted_and_not_averaged_away():
    rows = [
        *line("ours", "a", 0.5),
        *line("ours", "b", 0.5)[:3],
        *line("theirs", "a", 1.0),
        *line("theirs", "b", 1.0),
    ]
    found = summary.summarise(rows, two_methods(), ["a", "b"])
    ratio = found["pairs"][0]["ratio_at_psnr"]["44"]
    assert ratio == {"ratio": pytest.approx(0.5), "low": None, "high": None, "places": 1, "of": 2}
    assert found["rates_at_psnr"]["ours"]["44"]["mean"] is None
    assert [one["method"] for one in found["best_at_psnr"]["44"]] == ["theirs"]


def test_exact_and_single_points_give_no_rate():
    rows = [row("ours", "a", 0.5, 40.0), row("ours", "a", 9.0, None), *line("theirs", "a", 1.0)]
    found = summary.summarise(rows, two_methods(), ["a"])
    assert found["rates_at_psnr"]["ours"]["40"]["places"]["a"] is None
    assert found["pairs"][0]["bd_rate"]["by_place"]["a"] is None


def test_promised_errors_count_where_they_were_kept():
    kept, broken = row("ours", "a", 0.5, 60.0), row("ours", "b", 0.7, 60.0)
    rows = [{**kept, "setting": 8.0, "max_error": 8}, {**broken, "setting": 8.0, "max_error": 9}]
    rows += [{**row("theirs", place, 1.0, 60.0), "setting": 8.0, "max_error": 7} for place in "ab"]
    promising = [Method(name, "codec", "", ERROR, ()) for name in ("ours", "theirs")]
    assert summary.summarise(rows, promising, ["a", "b"])["at_bound"] == {
        "ours": {"8": {"mean": None, "places": {"a": 0.5, "b": None}}},
        "theirs": {"8": {"mean": 1.0, "places": {"a": 1.0, "b": 1.0}}},
    }


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Means of 12 normal values: a percentile interval of them covers somewhat less than 95 %."""
    draws = np.random.default_rng(1).normal(0, 1, (100, 12))
    intervals = [summary._bootstrap(list(values)) for values in draws]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.86 < covered < 0.98
    assert summary._bootstrap([1.0]) == (None, None)
    assert summary._bootstrap([2.0, 2.0, 2.0]) == (2.0, 2.0)


# --- what takes part ---


def test_every_second_setting_and_the_last():
    full, half = (methods([], ["jpegxl"], "s2-l2a", every=n)[0].sweep for n in (1, 2))
    assert half == full[::2] if len(full) % 2 else half == (*full[::2], full[-1])
    assert methods([], ["jpegxl"], "s2-l2a", every=99)[0].sweep == (full[0], full[-1])


def test_codecs_of_a_sensor_come_with_the_default_first_and_promises_last():
    found = default_codecs()
    assert found[:2] == ["tec-tt-small", "tec-elic-small"]
    assert found[-3:] == ["lossless", "max-error", "target-psnr"]
    of_any = ["tec-tt-small", "tec-elic-small", "flextec-small", "tec-fp-small"]
    assert default_codecs("landsat") == [*of_any, "lossless", "max-error", "target-psnr"]


# --- crops ---


def test_crops_hold_the_pixels_of_their_point(report, data):
    found, out = report
    dn = np.load(data / "series.npz")["reflectance"]
    files = {(f["place"], f["method"]): f for f in found["crops"]["files"]}
    assert {(p, m) for p in ("series", "field") for m in ("original", TOY)} < set(files)
    original = np.load(out / files["series", "original"]["file"])
    assert list(original["window"]) == [8, 8, 16, 16]
    assert (original["dn"] == dn[..., 8:24, 8:24]).all()
    name = next(m for p, m in files if p == "series" and m in ("sz3", "lerc"))
    one, codec = files["series", name], baselines.contender(name)
    decoded = codec.decode(codec.encode(dn, one["setting"]))
    assert (np.load(out / one["file"])["dn"] == decoded[..., 8:24, 8:24]).all()
    assert one["key"] == point(found, name, "series", one["setting"])["key"]


def test_crops_are_the_nearest_in_bytes(report):
    found = report[0]
    files = {(f["place"], f["method"]): f for f in found["crops"]["files"]}
    for place in ("series", "field"):
        ours = [p for p in found["points"] if p["method"] == TOY and p["place"] == place]
        lossy = [p for p in ours if p["psnr"] is not None]  # others came back exactly
        anchor = min(lossy or ours[:1], key=lambda p: abs((p["psnr"] or 0) - 40))
        assert files[place, TOY]["setting"] == anchor["setting"]
        for name in ("lerc", "sz3"):
            theirs = [p for p in found["points"] if p["method"] == name and p["place"] == place]
            gaps = {p["setting"]: abs(math.log(p["bytes"] / anchor["bytes"])) for p in theirs}
            assert ((place, name) in files) == (min(gaps.values()) <= math.log(1.5))
            if (place, name) in files:
                assert files[place, name]["setting"] == min(gaps, key=gaps.__getitem__)


# --- inputs ---


def test_windows_are_places_of_their_own(tmp_path):
    np.savez(tmp_path / "big.npz", dn=pixels(size=40, dates=1))
    found = gather([tmp_path / "big.npz"], Reading(size=16, grid=3))
    assert [place.name for place in found] == [f"big@{y},{x}" for y in (0, 12, 24) for x in (0, 12, 24)]
    assert (found[5].dn == pixels(size=40, dates=1)[..., 12:28, 24:40]).all()
    assert gather([tmp_path / "big.npz"], Reading(size=None))[0].dn.shape == (1, 12, 40, 40)


def test_folders_of_folders_and_dates(tmp_path):
    for place in ("north", "south"):
        (tmp_path / place).mkdir()
        for day, seed in (("20200105", 1), ("20200610", 2)):
            write_tif(tmp_path / place / f"S2_{day}_L2A.tif", pixels(seed, 24, 1)[0], names=NAMES)
    found = gather([tmp_path])
    assert [(place.name, place.dn.shape) for place in found] == [
        ("north", (2, 12, 24, 24)),
        ("south", (2, 12, 24, 24)),
    ]
    assert [date[:10] for date in found[0].dates] == ["2020-01-05", "2020-06-10"]


def test_bands_of_an_npz_are_put_in_the_sensors_order(tmp_path):
    dn = pixels(size=16, dates=1)
    np.savez(tmp_path / "s.npz", dn=dn[:, ::-1], bands=np.array(NAMES[::-1]))
    assert (gather([tmp_path / "s.npz"])[0].dn == dn).all()


# --- what lies beside places, and what is no pixel ---


def test_what_cannot_be_used_in_a_folder_is_named_and_left_out(tmp_path):
    write_data(tmp_path)
    np.savez(
        tmp_path / "landsat.npz",
        a=np.ones((2, 7, 32, 32), np.uint16),
        bands=[f"SR_B{i}" for i in range(1, 8)],
    )
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    told: list[str] = []
    assert [place.name for place in gather([tmp_path], left_out=told.append)] == ["field", "series"]
    assert [Path(why.partition(": ")[0]).name for why in told] == ["broken.npz", "landsat.npz"]


def test_what_was_named_itself_is_refused_by_its_name(tmp_path):
    write_data(tmp_path)
    np.savez(tmp_path / "landsat.npz", a=np.ones((2, 7, 32, 32), np.uint16))
    with pytest.raises(InputError, match=r"landsat\.npz: .*7 bands"):
        gather([tmp_path / "series.npz", tmp_path / "landsat.npz"])


def test_a_folder_of_which_nothing_can_be_used_is_refused(tmp_path):
    np.savez(tmp_path / "landsat.npz", a=np.ones((2, 7, 32, 32), np.uint16))
    with pytest.raises(InputError, match=r"landsat\.npz"):
        gather([tmp_path])


@pytest.mark.parametrize("how", ["npz", "tif", "option"])
def test_nodata_is_filled_for_all_and_counts_nowhere(tmp_path, how):
    dn = pixels(dates=1) + np.uint16(1)
    missing = 7 if how == "option" else 0
    dn[:, :, :9] = missing
    if how == "tif":
        write_tif(tmp_path / "a.tif", dn[0], names=NAMES)
    else:
        np.savez(tmp_path / "a.npz", dn=dn)
    path = next(tmp_path.iterdir())
    (place,) = gather([path], Reading(nodata=missing if how == "option" else None))
    assert not (place.dn == missing).any()
    expected = np.ones(dn.shape[:1] + dn.shape[2:], bool)
    expected[:, :9] = False
    np.testing.assert_array_equal(place.valid, expected)
    np.testing.assert_array_equal(place.dn[:, :, 9:], dn[:, :, 9:])


def test_a_place_without_nodata_is_as_it_was(tmp_path):
    dn = pixels(dates=1) + np.uint16(1)
    np.savez(tmp_path / "a.npz", dn=dn)
    (place,) = gather([tmp_path / "a.npz"])
    assert place.valid is None
    np.testing.assert_array_equal(place.dn, dn)
