"""`eozip evaluate` after a kill, with failing points and with bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from eozip.cli import cli
from eozip.codecs import registry
from eozip.errors import EozipError, OutputError
from eozip_lab.evaluate import baselines, results_cache
from eozip_lab.evaluate.evaluation import evaluate
from eozip_lab.evaluate.inputs import gather, pixel_hash
from eozip_lab.evaluate.methods import Method, fingerprint, methods
from eozip_lab.evaluate.runner import _Failure, run, tasks_of
from evaluatefiles import finished, pixels, plan, write_data
from toy_codec import registered


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
    assert 3 <= len(kept) < 54
    found = evaluate(plan(data, codecs=(), baselines=("lerc", "sz3"), crops=0), out)
    assert found["run"]["resumed"] == len(kept)
    assert found["run"]["points"] == 54
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
    assert 2 <= len(finished(out)) < 54
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
    results_cache.claim(out)
    (out / "points" / f"{task.key}.json").write_text('{"key": 3')
    with pytest.raises(OutputError, match="expected a finished point"):
        run([task], [place], out)


# --- errors ---


def test_failing_points_are_listed_and_the_others_kept(data, tmp_path, monkeypatch):
    from eozip_lab.evaluate.baselines.error_bounded import Lerc

    real = Lerc.encode

    def failing(self, dn, setting):
        if setting == 64.0:
            raise RuntimeError("out of luck")
        return real(self, dn, setting)

    monkeypatch.setattr(Lerc, "encode", failing)
    found = evaluate(plan(data, codecs=(), baselines=("lerc",), crops=0), tmp_path / "r")
    assert found["failures"] == [
        _Failure("lerc", place, 64.0, "RuntimeError: out of luck") for place in ("field", "series")
    ]
    assert len(found["points"]) == 26
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
        (["good.npz", "--codecs", "lossless,lossless"], "asked for twice"),
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


def test_a_report_without_its_points_is_continued(report, data, tmp_path):
    shutil.copy(report[1] / "report.json", tmp_path / "report.json")
    found = evaluate(plan(data, codecs=(), baselines=("sz3",), crops=0), tmp_path)
    assert found["run"]["resumed"] == found["run"]["points"] == 26
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("{}")
    with pytest.raises(OutputError, match="a new folder or an earlier run's"):
        evaluate(plan(data, codecs=()), tmp_path / "other")


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
    assert list(found["unavailable"]) == ["terracodec-fp"]
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [(m["id"], m["available"]) for m in report["methods"]] == [("sz3", True), ("terracodec-fp", False)]


def test_other_weights_of_a_codec_are_another_fingerprint(monkeypatch):
    method = next(m for m in methods(["tec-elic-small"], [], "s2-l2a"))
    before = fingerprint(method, "s2-l2a")
    other = SimpleNamespace(weights_hash=b"anything")
    monkeypatch.setattr(registry, "get", lambda full: other)
    monkeypatch.setattr("eozip_lab.evaluate.methods.probe", lambda full: "")
    assert fingerprint(method, "s2-l2a") != before
    assert b"anything".hex() in fingerprint(method, "s2-l2a")


def test_other_bytes_of_the_same_weights_are_another_fingerprint(monkeypatch):
    (method,) = methods(["tec-fp-small"], [], "s2-l2a")
    before = fingerprint(method, "s2-l2a")
    assert fingerprint(method, "s2-l2a") == before
    monkeypatch.setattr("eozip_lab.evaluate.methods.probe", lambda full: "other bytes")
    assert fingerprint(method, "s2-l2a") != before


def test_new_weights_leave_the_points_of_lossless(monkeypatch):
    exact, promised = methods(["lossless", "target-psnr"], [], "s2-l2a")
    before = [fingerprint(one, "s2-l2a") for one in (exact, promised)]
    monkeypatch.setattr("eozip_lab.evaluate.methods.probe", lambda full: "other bytes")
    assert fingerprint(exact, "s2-l2a") == before[0]
    assert fingerprint(promised, "s2-l2a") != before[1]


def test_other_bytes_without_a_network_are_another_fingerprint(monkeypatch):
    found = methods(["lossless", "max-error"], [], "s2-l2a")
    before = [fingerprint(one, "s2-l2a") for one in found]
    monkeypatch.setattr("eozip_lab.evaluate.methods._exact_probe", lambda: "other bytes")
    assert all(fingerprint(one, "s2-l2a") != was for one, was in zip(found, before, strict=True))
