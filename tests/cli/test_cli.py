"""The command line: what it prints, how it ends, what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from eozip.cli import COMMANDS, cli, common
from eozip.codecs import registry
from rasterfiles import everything, write_tif
from storefiles import DATES, NAMES, Coarse, coarse_codec, make_store, scene_pixels, write_dates

MAIN = "from eozip.cli import main; main()"


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


def run(*arguments, code: int = 0):
    """Runs a command in this process and checks its exit code; returns the result."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def run_json(*arguments, code: int = 0) -> dict:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def subprocess_of(code: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)


def lossless(folder: Path, *inputs, out: str = "s.zarr") -> Path:
    run("encode", *(inputs or write_dates(folder)), folder / out, "--codec", "lossless")
    return folder / out


# --- start ---


def test_help_loads_nothing_heavy():
    """What takes long to import stays out: libraries, and all of eozip but what the list of commands needs."""
    code = f"import sys\nsys.argv[1:] = ['--help']\ntry:\n    {MAIN.replace('; ', chr(10) + '    ')}\n" + (
        "except SystemExit:\n    heavy = {'torch', 'zarr', 'xarray', 'rasterio', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
        "    own = [name for name in sys.modules if name.startswith('eozip')]\n"
        "    assert len(own) < 60, own\n"
    )
    done = subprocess_of(code)
    assert done.returncode == 0, done.stderr
    assert "Learned compression" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    assert "Usage" in run(command, "--help").stdout


def test_rio_has_the_plugin():
    from importlib.metadata import entry_points

    (found,) = entry_points(group="rasterio.rio_plugins", name="eozip")
    assert found.load() is cli


# --- there and back ---


@pytest.mark.parametrize("out", ["s.zarr", "s.zarr.zip"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_dates_there_and_back(tmp_path, out, as_folder):
    (tmp_path / "in").mkdir()
    paths = write_dates(tmp_path / "in")
    inputs = [tmp_path / "in"] if as_folder else paths
    store = lossless(tmp_path, *inputs, out=out)
    assert "verified" in run("verify", store, *(f"--against={path}" for path in paths)).stdout
    run("decode", store, tmp_path / "back")
    for path in paths:
        assert everything(tmp_path / "back" / path.name) == everything(path)


def test_one_date_there_and_back(tmp_path):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    store = lossless(tmp_path, path)
    run("decode", store, tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(path)


def test_a_choice_of_bands_and_dates(tmp_path):
    store = lossless(tmp_path)
    run("decode", store, tmp_path / "b.tif", "--bands", "B04,B03,2", "--dates", "2021-08")
    found = everything(tmp_path / "b.tif")
    assert found["header"][4] == ("B04", "B03", "B02")
    assert found["pixels"][0] == scene_pixels(2)[3].tolist()


def test_undescribed_bands(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(), names=())
    refused = run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--codec", Coarse.id, code=1)
    assert "s2-l2a" in refused.stderr
    options = ("--codec", "lossless")
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", "--sensor", "s2-l2a", *options)
    run("encode", tmp_path / "a.tif", tmp_path / "t.zarr", "--bands", ",".join(NAMES), *options)
    run("decode", tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(tmp_path / "a.tif")
    run("verify", tmp_path / "s.zarr", "--against", tmp_path / "a.tif")


def test_summary_for_people_and_programs(tmp_path):
    paths = write_dates(tmp_path)
    text = run("encode", *paths, tmp_path / "s.zarr", "--codec", "coarse", "--quality", 60).stdout
    assert "times smaller" in text
    assert "peak 10,000 DN" in text
    assert "B8A" in text
    summary = run_json("encode", *paths, tmp_path / "t.zarr", "--codec", "coarse", "--target-psnr", 50)
    assert summary["target_psnr"] == 50
    assert summary["missed"] == 0
    assert len(summary["band_psnr"]) == 12
    assert summary["bytes"] == sum(f.stat().st_size for f in (tmp_path / "t.zarr").rglob("*") if f.is_file())
    for name in ("ratio", "bpppb", "psnr", "seconds", "mpx_per_s"):
        assert summary[name] > 0


def test_a_target_out_of_the_codecs_reach_is_reached_and_said(tmp_path):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    text = run("encode", path, tmp_path / "s.zarr", "--codec", Coarse.id, "--target-psnr", 70).stdout
    assert "target 70 dB reached in every chunk" in text
    assert "1 of 1 chunks with a residual layer" in text or "1 of 1 chunks coded without a network" in text


def test_json_of_the_other_commands(tmp_path):
    store = lossless(tmp_path)
    assert run_json("decode", store, tmp_path / "back")["shape"] == [3, 12, 50, 41]
    assert run_json("verify", store)["ok"] is True
    assert run_json("info", store)["shape"] == [3, 12, 50, 41]
    assert run_json("models")["codecs"] == list(registry.names())
    assert len(run_json("simulate", tmp_path / "sim", "--dates", 1, "--size", 32)["files"]) == 1


def test_offset_and_nodata_reach_the_store(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES, nodata=None)
    options = ("--codec", "lossless", "--offset", 1000, "--nodata", 7, "--chunk", 16, "--gop", 1)
    run("encode", tmp_path / "a.tif", tmp_path / "s.zarr", *options)
    facts = run_json("info", tmp_path / "s.zarr")
    assert (facts["offset"], facts["nodata"], facts["chunk"]) == (1000, 7, [1, 12, 16, 16])


# --- info ---


@pytest.mark.parametrize("out", ["s.zarr", "s.zarr.zip"])
def test_info_needs_no_torch(tmp_path, out):
    paths = write_dates(tmp_path)
    run("encode", *paths, tmp_path / out, "--codec", Coarse.id)
    code = (
        "import sys\nfrom eozip.cli import cli\n"
        f"cli(['info', {str(tmp_path / out)!r}, '--json'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess_of(code)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["codec"] == Coarse.id
    assert facts["quality"] == 60
    assert facts["bands"] == list(NAMES)
    assert facts["dates"] == [f"{d[:4]}-{d[4:6]}-{d[6:]}T00:00:00" for d in sorted(DATES)]


def test_info_of_a_chunk(tmp_path):
    import eozip

    blob = eozip.encode(scene_pixels(), "lossless", nodata=0)
    (tmp_path / "chunk").write_bytes(blob)
    facts = run_json("info", tmp_path / "chunk")
    assert facts["bytes"] == len(blob)
    assert facts["shape"] == [1, 12, 50, 41]
    assert "lossless" in run("info", tmp_path / "chunk").stdout
    (tmp_path / "chunk").write_bytes(blob[:20])
    run("info", tmp_path / "chunk", code=1)


# --- how it ends ---


def test_wrong_usage_is_2(tmp_path):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    both = run("encode", path, tmp_path / "s.zarr", "--quality", 50, "--target-psnr", 40, code=2)
    assert "one of them" in both.stderr
    run("encode", path, tmp_path / "s.zarr", "--quality", 101, code=2)
    run("encode", path, code=2)
    run("encode", path, tmp_path / "s.zarr", "--bands", "B01,,B02", code=2)
    run("unknown", code=2)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "none.tif", "s.zarr"), "no such file"),
        (("encode", "{tif}", "s.zarr", "--codec", "nonesuch"), "unknown codec"),
        (("encode", "{tif}", "s.tif"), "zarr"),
        (("encode", "{tif}", "s.zarr", "--sensor", "nonesuch"), "sensor"),
        (("decode", "none.zarr", "b.tif"), "neither"),
        (("decode", "{tif}", "b.tif"), "zip"),
        (("info", "none.zarr"), "no such file"),
        (("verify", "none.zarr"), "neither"),
        (("models", "pull", "nonesuch"), "unknown"),
    ],
)
def test_our_errors_are_1_without_a_traceback(tmp_path, monkeypatch, arguments, message):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    monkeypatch.chdir(tmp_path)
    result = run(*(a.format(tif=path) for a in arguments), code=1)
    assert result.stderr.startswith("Error:")
    assert message in result.stderr
    assert result.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_existing_outputs_need_overwrite(tmp_path):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    store = lossless(tmp_path, path)
    assert "--overwrite" in run("encode", path, store, "--codec", "lossless", code=1).stderr
    run("encode", path, store, "--codec", "lossless", "--overwrite")
    run("decode", store, tmp_path / "b.tif")
    assert "--overwrite" in run("decode", store, tmp_path / "b.tif", code=1).stderr
    run("decode", store, tmp_path / "b.tif", "--overwrite")
    run("decode", store, path.with_suffix(".TIF"))


@pytest.mark.parametrize("ending", ["nc", "vrt", "jp2", "NC", "h5", "zarr", "png", "grib2"])
def test_decode_makes_no_folder_named_like_a_file(tmp_path, ending):
    store = lossless(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    said = run("decode", store, tmp_path / f"out.{ending}", code=1).stderr
    assert "another format" in said
    assert "--format" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (
        "another format"
        in run("simulate", tmp_path / f"sim.{ending}", "--dates", 1, "--size", 16, code=1).stderr
    )


def test_one_call_of_python_encodes_files(tmp_path):
    import eozip

    paths = write_dates(tmp_path)
    eozip.encode_store(paths[1], tmp_path / "s.zarr", "coarse", quality=60)
    eozip.append_store(tmp_path / "s.zarr", paths[2])
    eozip.decode_store(tmp_path / "s.zarr", tmp_path / "back")
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == sorted(
        p.name for p in (paths[1], paths[2])
    )


_ODD = [b"0", True, 1.5, float("nan"), -1, [1.5], {1: 2}, object, 1j, np.array([1.5]), ..., ""]


@pytest.mark.parametrize("odd", _ODD, ids=repr)
def test_arguments_of_any_kind_are_refused_by_name_in_python(tmp_path, monkeypatch, odd):
    """Or are valid: True is a fine `overwrite`; nothing else but our own errors comes out."""
    import eozip
    from eozip.errors import EozipError

    monkeypatch.chdir(tmp_path)
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    store = lossless(tmp_path, path)
    names = (
        "quality",
        "target_psnr",
        "max_error",
        "bands",
        "sensor",
        "offset",
        "nodata",
        "chunk",
        "gop",
        "mask",
    )
    calls = [partial(eozip.encode_store, path, "t.zarr", "lossless", **{name: odd}) for name in names]
    calls += [partial(eozip.encode_store, odd, "t.zarr"), partial(eozip.encode_store, path, odd)]
    calls += [partial(eozip.decode_store, odd, "back"), partial(eozip.decode_store, store, odd)]
    calls += [partial(eozip.decode_store, store, "b", **{name: odd}) for name in ("bands", "dates", "budget")]
    calls += [partial(eozip.append_store, odd, path), partial(eozip.append_store, store, odd)]
    for call in calls:
        with contextlib.suppress(EozipError):
            call()
            shutil.rmtree(tmp_path / "t.zarr", ignore_errors=True)


def test_a_store_on_a_web_server_is_named_as_such_in_python(tmp_path):
    import eozip
    from eozip.errors import InputError

    path = write_dates(tmp_path, dates=DATES[:1])[0]
    with pytest.raises(InputError, match="expected a URL of an object store"):
        eozip.encode_store(path, "https://host/s.zarr", "lossless")


def test_python_is_warned_of_what_the_command_line_notes(tmp_path):
    import eozip

    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    with pytest.warns(UserWarning, match="date"):
        eozip.encode_store(tmp_path / "a.tif", tmp_path / "s.zarr", "lossless")
    assert "Note: " in run("encode", tmp_path / "a.tif", tmp_path / "t.zarr", "--codec", "lossless").stderr


def test_numbers_for_people_say_something(tmp_path):
    from eozip.cli.common import many, speed_text

    assert (many(1, "date"), many(2, "date")) == ("1 date", "2 dates")
    assert [speed_text(speed) for speed in (0.00213, 0.42, 3.14159)] == [
        "0.0021 MPx/s",
        "0.42 MPx/s",
        "3.1 MPx/s",
    ]
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    assert "1 date x 12 bands" in run("encode", path, tmp_path / "s.zarr", "--codec", "lossless").stdout


def test_failed_verification_is_3(tmp_path):
    store = lossless(tmp_path)
    shard = store / "reflectance" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(data)
    result = run("verify", store, code=3)
    assert "1 FAILED" in result.stdout
    assert "rows 0:50" in result.stdout
    assert run_json("verify", store, "--checksums-only", code=3)["failures"]


def test_verify_against_another_source_is_3(tmp_path):
    paths = write_dates(tmp_path)
    store = lossless(tmp_path, paths[0])
    run("verify", store, "--against", paths[0])
    assert "differ" in run("verify", store, "--against", paths[1], code=3).stdout


def test_an_interrupt_is_130_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_dates(tmp_path, dates=DATES[:1])[0]

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Coarse, "encode", interrupt)
    result = run("encode", path, tmp_path / "s.zarr", "--codec", Coarse.id, code=130)
    assert "Interrupted" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_kill_leaves_nothing(tmp_path):
    """SIGTERM unwinds like an interrupt."""
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    tests = os.path.dirname(os.path.dirname(__file__))
    code = (
        f"import os, signal, sys; sys.path.insert(0, {tests!r})\n"
        "from storefiles import Coarse, coarse_codec\n"
        "Coarse.encode = lambda *a: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"sys.argv[1:] = ['encode', {str(path)!r}, {str(tmp_path / 's.zarr')!r}, '--codec', Coarse.id]\n"
        f"with coarse_codec():\n    {MAIN}\n"
    )
    assert subprocess_of(code).returncode == 143
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# --- pictures and training ---


def test_a_picture(tmp_path):
    paths = write_dates(tmp_path)
    run("encode", *paths, tmp_path / "s.zarr", "--codec", Coarse.id, "--quality", 20)
    run("picture", *paths, tmp_path / "s.zarr", tmp_path / "p.png", "--date", 2, "--size", 24)
    from matplotlib.image import imread

    image = imread(tmp_path / "p.png")
    height, width = image.shape[:2]
    assert width > 2 * height
    assert np.unique(image.reshape(-1, image.shape[2]), axis=0).shape[0] > 50
    run("picture", *paths, tmp_path / "s.zarr", tmp_path / "p.png", code=1)
    run("picture", *paths, tmp_path / "s.zarr", tmp_path / "q.png", "--date", 9, code=1)


def written_picture(*arguments) -> np.ndarray:
    from matplotlib.image import imread

    run("picture", *arguments)
    return imread(arguments[-1])


def test_a_picture_of_a_store_alone(tmp_path):
    store = lossless(tmp_path)
    image = written_picture(store, tmp_path / "p.png")
    assert np.unique(image.reshape(-1, image.shape[2]), axis=0).shape[0] > 50
    assert image.shape[1] < 2 * image.shape[0]


def test_a_picture_takes_dates_as_decode_does(tmp_path):
    paths = write_dates(tmp_path)
    store = lossless(tmp_path, *paths)
    run("picture", store, tmp_path / "p.png", "--date", "2021-08")
    error = run("picture", store, tmp_path / "q.png", "--date", "2021-07", code=1).stderr
    assert "2021-07-01" in error
    assert "2021-07-15" in error
    assert not (tmp_path / "q.png").exists()


def test_a_picture_needs_only_the_original_of_its_date(tmp_path):
    paths = write_dates(tmp_path)
    store = lossless(tmp_path, *paths)
    run("picture", paths[2], store, tmp_path / "p.png", "--date", "2021-08-02")
    assert "2021-07-01" in run("picture", paths[2], store, tmp_path / "q.png", "--date", 1, code=1).stderr


def test_a_picture_refuses_an_original_that_is_not_the_stores(tmp_path):
    paths = write_dates(tmp_path, dates=DATES[:1])
    store = lossless(tmp_path, *paths)
    write_tif(tmp_path / "f.tif", scene_pixels().astype("float32"), NAMES)
    assert "dtype" in run("picture", tmp_path / "f.tif", store, tmp_path / "p.png", code=1).stderr
    write_tif(tmp_path / "w.tif", scene_pixels()[:, :, :40], NAMES)
    assert "width" in run("picture", tmp_path / "w.tif", store, tmp_path / "p.png", code=1).stderr


def test_a_picture_is_a_png(tmp_path):
    store = lossless(tmp_path)
    assert ".png" in run("picture", store, tmp_path / "p.jpg", code=1).stderr


def test_panels_show_what_they_say():
    from eozip.picture import _panels_of

    original = np.linspace(0, 100, 300).reshape(3, 10, 10)
    valid = np.ones((10, 10), bool)
    valid[0, 0] = False
    same = _panels_of(original, original, valid)
    np.testing.assert_array_equal(same[0], same[1])
    assert (same[2][valid] == 0.5).all()
    assert (same[0][0, 0] == 1).all()
    assert _panels_of(original, original + 1, valid)[2][5, 5, 0] > 0.5


def test_a_picture_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    paths = write_dates(tmp_path)
    store = lossless(tmp_path, *paths)
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "matplotlib" in run("picture", *paths, store, tmp_path / "p.png", code=1).stderr


def test_training_without_a_recipe_lists_those_there_are(tmp_path):
    error = run("train", tmp_path / "none.toml", "--steps", 1, code=1).stderr
    assert "tec-elic-small" in error


def test_training_options_reach_the_loop(tmp_path, monkeypatch):
    from eozip_lab.train import loop

    seen = {}

    def record(recipe, **options):
        seen.update(options, recipe=recipe)
        return loop.Outcome(tmp_path, 7, 60.0, 0, finished=False)

    monkeypatch.setattr(loop, "run", record)
    options = ("--steps", 7, "--minutes", 1.5, "--out", tmp_path, "--resume", "--seed", 3, "--threads", 2)
    assert "--resume goes on" in run("train", "tec-elic-ssl4eo", *options, code=130).stdout
    assert seen["recipe"] == "tec-elic-ssl4eo"
    assert (seen["steps"], seen["minutes"], seen["seed"], seen["threads"]) == (7, 1.5, 3, 2)
    assert (seen["out"], seen["resume"], seen["progress"]) == (tmp_path, True, True)
    assert run_json("train", "tec-elic-ssl4eo", code=130)["finished"] is False
    assert seen["progress"] is False


@pytest.mark.parametrize("number", ["\u00b2", "\u0661", "9" * 5000])
def test_digits_that_count_nothing_are_named(tmp_path, number):
    store = tmp_path / "s.zarr"
    make_store(write_dates(tmp_path, dates=DATES[:1]), store)
    for option in ("--dates", "--bands"):
        assert "expected a" in run("decode", store, tmp_path / "b.tif", option, number, code=1).stderr


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, monkeypatch):
    paths = write_dates(tmp_path)
    monkeypatch.setattr(common, "_SHOW_AFTER", 0)
    said = run("encode", *paths, tmp_path / "a.zarr", "--codec", "coarse", "--chunk", 16).stderr.splitlines()
    assert said == ["Encoding: 1 of 12 chunks"]
    monkeypatch.setattr(common, "_SAY_AGAIN", 0)
    said = run("encode", *paths, tmp_path / "b.zarr", "--codec", "coarse", "--chunk", 16).stderr.splitlines()
    assert said == [f"Encoding: {n} of 12 chunks" for n in range(1, 13)]
    assert run("encode", *paths, tmp_path / "d.zarr", "--codec", "coarse", "--json").stderr == ""


def test_choose_says_at_once_what_it_does(tmp_path):
    paths = write_dates(tmp_path)[:1]
    asked = ("choose", *paths, "--for", "psnr>=40", "--codec", "coarse", "--chunk", 32, "--samples", 1)
    said = run(*asked).stderr
    assert "Coding up to 1 chunk of the scene at several qualities with each codec" in said.splitlines()
    assert run(*asked, "--json").stderr == ""
