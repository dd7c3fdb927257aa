"""`eozip evaluate`: the report against independent recomputation, resumption after a kill, bad input by name."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from skimage import metrics as skimage_metrics

from eozip import sensors
from eozip.cli import cli
from eozip.errors import EozipError, OutputError
from eozip.evaluate import baselines, ledger, summary
from eozip.evaluate.evaluation import Plan, evaluate
from eozip.evaluate.inputs import Reading, gather, pixel_hash
from eozip.evaluate.methods import Method, methods
from eozip.evaluate.runner import Failure, run, tasks_of
from eozip.simulate import render, season
from rasterfiles import write_tif
from toy_codec import TOY, registered

NAMES = sensors.get("s2-l2a").band_names


def pixels(seed: int = 3, size: int = 32, dates: int = 2) -> np.ndarray:
    return render(seed, season(dates, seed), range(size), range(size))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two places: an .npz series and a GeoTIFF of one date."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(
        folder / "series.npz", reflectance=pixels(), bands=np.array(NAMES), dates=["2020-01-01", "2020-05-01"]
    )
    write_tif(folder / "field_0.tif", pixels(5, dates=1)[0], names=NAMES)
    return folder


def plan(data: Path, **changes: object) -> Plan:
    wanted = {
        "codecs": (TOY,),
        "baselines": ("sz3", "lerc"),
        "qualities": (40.0, 60.0, 80.0),
        "crops": 16,
    }
    return Plan((data,), Reading(), **{**wanted, **changes})  # type: ignore[arg-type]


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


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory of a point needs Linux")
def test_peak_memory_is_that_of_the_point():
    from eozip.evaluate.memory import watched_memory

    big = np.ones(64 << 20, np.uint8)  # over and gone: no part of what follows
    del big
    with watched_memory() as small:
        pass
    with watched_memory() as large:
        np.ones(48 << 20, np.uint8)
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


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Means of 12 normal values: a percentile interval of them covers somewhat less than 95 %."""
    draws = np.random.default_rng(1).normal(0, 1, (100, 12))
    intervals = [summary.bootstrap(list(values)) for values in draws]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.86 < covered < 0.98
    assert summary.bootstrap([1.0]) == (None, None)
    assert summary.bootstrap([2.0, 2.0, 2.0]) == (2.0, 2.0)


# --- crops ---


def test_crops_hold_the_pixels_of_their_point(report, data):
    found, out = report
    dn = np.load(data / "series.npz")["reflectance"]
    files = {(f["place"], f["method"]): f for f in found["crops"]["files"]}
    assert set(files) == {(p, m) for p in ("series", "field") for m in ("original", TOY, "sz3", "lerc")}
    original = np.load(out / files["series", "original"]["file"])
    assert list(original["window"]) == [8, 8, 16, 16]
    assert (original["dn"] == dn[..., 8:24, 8:24]).all()
    one = files["series", "sz3"]
    codec = baselines.contender("sz3")
    decoded = codec.decode(codec.encode(dn, one["setting"]))
    assert (np.load(out / one["file"])["dn"] == decoded[..., 8:24, 8:24]).all()
    assert one["key"] == point(found, "sz3", "series", one["setting"])["key"]


def test_crops_are_the_nearest_in_bytes(report):
    found = report[0]
    files = {(f["place"], f["method"]): f for f in found["crops"]["files"]}
    for place in ("series", "field"):
        ours = [p for p in found["points"] if p["method"] == TOY and p["place"] == place]
        anchor = min(ours, key=lambda p: abs(p["psnr"] - 40))
        assert files[place, TOY]["setting"] == anchor["setting"]
        theirs = [p for p in found["points"] if p["method"] == "lerc" and p["place"] == place]
        gaps = {p["setting"]: abs(math.log(p["bytes"] / anchor["bytes"])) for p in theirs}
        assert files[place, "lerc"]["setting"] == min(gaps, key=gaps.__getitem__)


# --- resumption ---

_RUN = "import sys\nfrom eozip.cli import main\nsys.argv[0] = 'eozip'\nmain()"


def command(data: Path, out: Path, jobs: int) -> list[str]:
    chosen = ["--codecs", "none", "--baselines", "lerc,sz3", "--crops", "0"]
    return [
        sys.executable,
        "-c",
        _RUN,
        "evaluate",
        str(data),
        "--out",
        str(out),
        *chosen,
        "--jobs",
        str(jobs),
    ]


def finished(out: Path) -> list[Path]:
    return sorted((out / "points").glob("*.json")) if out.exists() else []


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs SIGKILL and /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_goes_on_behind_its_last_point(data, tmp_path, jobs):
    out = tmp_path / "r"
    process = subprocess.Popen(command(data, out, jobs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(finished(out)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "report.json").exists()
    gone = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < gone:
        time.sleep(0.01)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    kept = {path: path.stat().st_mtime_ns for path in finished(out)}
    assert 3 <= len(kept) < 52
    found = evaluate(plan(data, codecs=(), baselines=("lerc", "sz3"), crops=0), out)
    assert found["run"]["resumed"] == len(kept)
    assert found["run"]["points"] == 52
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    sizes = [p["bytes"] for p in found["points"] if p["method"] == "lerc" and p["place"] == "series"]
    dn = np.load(data / "series.npz")["reflectance"]
    codec = baselines.contender("lerc")
    assert sizes == [len(codec.encode(dn, setting)) for setting in baselines.sweep_of("lerc")]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs SIGKILL and /proc")
def test_a_killed_worker_is_an_error_and_finished_points_stay(data, tmp_path):
    out = tmp_path / "r"
    process = subprocess.Popen(
        command(data, out, 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(finished(out)) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    workers = [
        pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert "a worker process ended" in process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert 2 <= len(finished(out)) < 52
    assert not (out / "report.json").exists()


def test_nothing_is_measured_twice(report, data):
    _, out = report
    before = {path: path.stat().st_mtime_ns for path in [*finished(out), *(out / "crops").iterdir()]}
    with registered():
        again = evaluate(plan(data), out)
    assert again["run"]["resumed"] == again["run"]["points"] == len(finished(out))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_pixels_settings_or_offsets_are_measured_anew(data):
    place = gather([data / "series.npz"])[0]
    (one,) = methods([], ["lerc"], "s2-l2a")
    base = {t.key for t in tasks_of([one], [place], [pixel_hash(place.dn)])}
    changed = place.dn.copy()
    changed[0, 0, 0, 0] += 1
    assert not base & {t.key for t in tasks_of([one], [place], [pixel_hash(changed)])}
    assert pixel_hash(place.dn) != pixel_hash(place.dn.reshape(1, 24, 32, 32))
    finer = Method(one.id, one.kind, one.settings + " or so", one.setting_name, one.sweep)
    assert not base & {t.key for t in tasks_of([finer], [place], [pixel_hash(place.dn)])}


def test_a_damaged_point_is_named(report, data, tmp_path):
    out = tmp_path / "r"
    place = gather([data / "series.npz"])[0]
    (one,) = methods([], ["lerc"], "s2-l2a")
    task = tasks_of([one], [place], [pixel_hash(place.dn)])[0]
    ledger.claim(out)
    (out / "points" / f"{task.key}.json").write_text('{"key": 3')
    with pytest.raises(OutputError, match="expected a finished point"):
        run([task], [place], out)


# --- errors ---


def test_failing_points_are_listed_and_the_others_kept(data, tmp_path, monkeypatch):
    from eozip.evaluate.bounded import Lerc

    real = Lerc.encode

    def failing(self, dn, setting):
        if setting == 64.0:
            raise RuntimeError("out of luck")
        return real(self, dn, setting)

    monkeypatch.setattr(Lerc, "encode", failing)
    found = evaluate(plan(data, codecs=(), baselines=("lerc",), crops=0), tmp_path / "r")
    assert found["failures"] == [
        Failure("lerc", place, 64.0, "RuntimeError: out of luck") for place in ("field", "series")
    ]
    assert len(found["points"]) == 24
    monkeypatch.setattr(Lerc, "encode", real)
    assert evaluate(plan(data, codecs=(), baselines=("lerc",), crops=0), tmp_path / "r")["failures"] == []
    monkeypatch.setattr(Lerc, "encode", lambda self, dn, setting: failing(self, dn, 64.0))
    with pytest.raises(EozipError, match=r"every point failed.*out of luck"):
        evaluate(plan(data, codecs=(), baselines=("lerc",), crops=0), tmp_path / "s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.tif"], "no such file"),
        (["empty"], "found none"),
        (["flat.npz"], "every pixel is 5"),
        (["float.npz"], "expected uint16 or int16"),
        (["bands.npz"], "got 5 bands"),
        (["words.npz"], "expected an array"),
        (["broken.npz"], "expected an .npz of plain arrays"),
        (["good.npz", "--codecs", "tec-none"], "unknown codec"),
        (["good.npz", "--codecs", "lossless"], "no qualities"),
        (["good.npz", "--baselines", "jpeg3000"], "unknown baseline"),
        (["good.npz", "--baselines", "lerc,lerc"], "asked for twice"),
        (["good.npz", "--codecs", "none", "--baselines", "none"], "at least one"),
        (["good.npz", "--codecs", "none", "--baselines", "terracodec-fp"], "nothing that was asked for"),
        (["good.npz", "other/good.npz"], "two places are called good"),
        (["good.npz", "--qualities", "50,101"], "0 to 100"),
        (["good.npz", "--qualities", "a,b"], "numbers separated by commas"),
    ],
)
def test_bad_input_is_named_and_measures_nothing(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "other"):
        Path(folder).mkdir()
    for name in ("good.npz", "other/good.npz"):
        np.savez(name, dn=pixels(size=16, dates=1))
    np.savez("flat.npz", dn=np.full((12, 16, 16), 5, np.uint16))
    np.savez("float.npz", dn=pixels(size=16, dates=1).astype(np.float32))
    np.savez("bands.npz", dn=pixels(size=16, dates=1)[:, :5])
    np.savez("words.npz", dn=np.array(["a"]))
    Path("broken.npz").write_bytes(b"PK\x03\x04 no")
    done = CliRunner().invoke(cli, ["evaluate", *arguments, "--out", "r"])
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert finished(Path("r")) == []


def test_a_folder_with_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="a new folder or an earlier run's"):
        evaluate(plan(data, codecs=()), tmp_path)
    with pytest.raises(OutputError, match="got a file"):
        evaluate(plan(data, codecs=()), tmp_path / "letter.txt")


def test_the_command_prints_json_and_says_what_is_left_out(data, tmp_path):
    chosen = ["--codecs", "none", "--baselines", "sz3,terracodec-fp", "--crops", "0", "--json"]
    done = CliRunner().invoke(cli, ["evaluate", str(data), "--out", str(tmp_path / "r"), *chosen])
    assert done.exit_code == 0
    assert "terracodec-fp: left out: the package terracodec is not installed" in done.stderr
    found = json.loads(done.stdout)
    assert found["points"] == 26
    assert found["unavailable"] == {"terracodec-fp": "the package terracodec is not installed"}
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [(m["id"], m["available"]) for m in report["methods"]] == [("sz3", True), ("terracodec-fp", False)]


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
