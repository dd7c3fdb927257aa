"""Packs of series of dates, and what of a run fits through a narrow way back."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eozip import sensors
from eozip_lab.train import loop, pack, packed, packing
from eozip_lab.train import state as states
from eozip_lab.train.data import Draw
from eozip_lab.train.data_sources import open_sources
from eozip_lab.train.kinds import kind_of
from eozip_lab.train.recipe import DataSource, load
from eozip_lab.train.series import REACH
from test_train_data import write_shard
from trainfiles import scene, write_data, write_recipe

strip = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "strip_checkpoint.py"))["strip"]
SCRIPT = Path(__file__).parents[2] / "tools" / "gpu.sh"
NAMES = sensors.get("s2-l2a").band_names
NETWORK = """
[network]
widths = [8, 8, 8, 32]
d = 16
depths = [1, 1, 1]
[augment]
brightness = 0.0
band = 0.0
bright_share = 0.0
cloud_share = 0.0
"""
SERIES = """
[[data]]
kind = "series"
path = "train"
only = ["fields:a", "long"]
crop = 64
batch = 2
dates = 2

[[data]]
kind = "series"
path = "train"
only = ["water:c"]
crop = 64
batch = 2
dates = 2

[[data]]
kind = "ssl4eo-series"
path = "shards"
crop = 64
batch = 2
dates = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packing, "_RANDOM_TILES", 3)
    write_data(tmp_path)
    long = scene(np.random.default_rng(8), 9, 64, bands=10)
    long[4] = 0  # a date without a measurement
    np.savez(tmp_path / "train" / "long.npz", stack=long, short=scene(np.random.default_rng(9), 1, 64))
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "s1.zarr.zip", samples=2, size=64)
    return tmp_path


def series_recipe(folder: Path, top: str = "") -> Path:
    """The tiny recipe with series in place of images."""
    path = write_recipe(
        folder,
        f'kind = "tec-tt"\n{top}',
        validation="real_bytes = false",
        network=NETWORK,
    )
    text = path.read_text()
    first, last = text.index("[[data]]"), text.index("[validation]")
    path.write_text(text[:first] + SERIES + text[last:])
    return path


def test_series_are_packed_as_runs_of_dates(folder):
    recipe = series_recipe(folder)
    made = pack(recipe, folder / "small.zip", 2.0)
    assert made.tiles == made.candidates
    named = dict(packed.packed_arrays(folder / "small.zip")[0])
    whole, long = (
        np.load(folder / "train" / "fields.npz")["a"],
        np.load(folder / "train" / "long.npz")["stack"],
    )
    runs = [a for name, a in named.items() if name.startswith("series-0:")]
    assert any(np.array_equal(a, whole) for a in runs)  # 96 pixels: one tile, three dates
    lengths = sorted(len(a) for a in runs if a.shape[1] == 10)
    assert lengths == [2, REACH * 2]  # of the eight dates that are there
    assert any(np.array_equal(a, long[[0, 1, 2, 3, 5, 6]]) for a in runs)
    assert {name.partition(":")[0] for name in named} == {"series-0", "series-1", "ssl4eo-series-2"}


def test_a_recipe_reads_from_its_pack_what_it_reads_without(folder):
    recipe = load(series_recipe(folder))
    pack(folder / "tiny.toml", folder / "small.zip", 2.0)
    moved = packing.with_pack(recipe, folder / "small.zip")
    here, there = (open_sources(r, NAMES) for r in (recipe, moved))
    for mine, packs in zip(here, there, strict=True):
        draw = Draw(0, 0)
        one, other = (next(s.crops(draw, draw.rng())) for s in (mine, packs))
        assert one.shape == other.shape == (2, 12, 64, 64)
    for source in here:
        source.close()


def test_sources_that_name_arrays_get_a_label_and_others_do_not_see_it(folder):
    path = write_recipe(folder)
    path.write_text(path.read_text().replace('only = ["f*"]', 'only = ["fields:b"]'))
    pack(path, folder / "small.zip", 2.0)
    moved = packing.with_pack(load(path), folder / "small.zip")
    first, second = open_sources(moved, NAMES)
    assert {name.partition(":")[0] for name in first.names} == {"fields", "water", "long"}
    [array] = second.arrays
    np.testing.assert_array_equal(array, np.load(folder / "train" / "fields.npz")["b"])
    assert packing._is_named_by_files(DataSource("npz", "x", 64, 1, skip=("water",)))
    assert not packing._is_named_by_files(DataSource("npz", "x", 64, 1, skip=("water:c",)))
    assert not packing._is_named_by_files(DataSource("series", "x", 64, 1))


def test_features_of_series_with_and_without_60_m_bands_compare(folder):
    ten = scene(np.random.default_rng(0), 3, 64, bands=10)
    twelve = scene(np.random.default_rng(0), 1, 64)
    assert packing.features(ten).shape == packing.features(twelve).shape == (36,)
    twice = np.repeat(twelve, 2, 0)
    np.testing.assert_allclose(packing.features(twice), packing.features(twelve), rtol=1e-6)


def test_a_source_keeps_everything_but_where_it_reads(folder):
    recipe = load(series_recipe(folder))
    moved = packing.with_pack(recipe, folder / "small.zip")
    plain = {"path": "", "kind": "", "only": (), "skip": (), "offset": None}
    for before, after in zip(recipe.data, moved.data, strict=True):
        assert replace(before, **plain) == replace(after, **plain)


# --- what a narrow way leaves of a run ---


def gpu_script(folder: Path, *arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    given = {"PYTHON": sys.executable, "DEVICE": "cpu", "SITE": "/nowhere", "RUNS": folder / "runs"}
    given |= {"BOX": folder / "box", "OUT": folder / "back", "OMP_NUM_THREADS": 1}
    env = os.environ | {key: str(value) for key, value in (given | variables).items()}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=SCRIPT.parents[1], capture_output=True, text=True)


def in_pieces(pack_file: Path, folder: Path) -> None:
    """As `gpu.sh prepare` leaves a pack that takes three journeys."""
    data, size = pack_file.read_bytes(), pack_file.stat().st_size // 3 + 1
    for k in range(3):
        box = folder / ("box" if k == 0 else f"box-{k}")
        box.mkdir()
        (box / f"pack.part-{k}").write_bytes(data[k * size : (k + 1) * size])
    (folder / "box" / "pack.sha256").write_text(hashlib.sha256(data).hexdigest() + "\n")


def test_a_pack_in_pieces_and_a_checkpoint_too_large_for_the_way_back(folder):
    """Series through the whole path: three journeys there, averaged weights alone back."""
    recipe = series_recipe(folder, "steps = 2")
    pack(recipe, folder / "small.zip", 2.0)
    in_pieces(folder / "small.zip", folder)
    (folder / "back").mkdir()
    (folder / "box-2").rename(folder / "late")
    missing = gpu_script(folder, "train", recipe, 0.01)
    assert missing.returncode == 1
    assert "a piece of the pack is missing" in missing.stderr
    (folder / "late").rename(folder / "box-2")
    assert "pack.part-2" in gpu_script(folder, "keep").stdout
    (folder / "back" / "checkpoint.part-07").write_bytes(b"of a larger one before")
    done = gpu_script(folder, "train", recipe, 0.01, BACK_MIB=0)
    assert done.returncode == 0, done.stderr
    away = folder / "runs" / "tiny" / states.CHECKPOINT
    assert gpu_script(folder, "collect", folder / "back", recipe, RUNS=folder / "home").returncode == 0
    back = folder / "home" / "tiny" / states.CHECKPOINT
    assert back.stat().st_size < 0.6 * away.stat().st_size
    whole, slim = states.read(away), states.read(back)
    assert (slim["step"], slim["recipe"]) == (whole["step"], whole["recipe"])
    assert all(np.array_equal(slim["model"][n], t) for n, t in whole["average"].items())
    start = json.loads((folder / "home" / "tiny" / "log.jsonl").read_text().splitlines()[0])
    assert [entry["kind"] for entry in start["data"]] == ["series", "series", "series"]


def test_slim_checkpoints_of_two_optimisers_go_on(folder):
    recipe = load(write_recipe(folder, 'optimiser = "muon"'))
    before, after = fresh_state(recipe), fresh_state(recipe)
    step_of(before)
    states.save(before, recipe, folder)
    strip(folder / states.CHECKPOINT, folder / "slim.pt")
    content = states.read(folder / "slim.pt")
    assert [part["state"] for part in content["optimiser"]["parts"]] == [{}, {}]
    states.restore(after, content, recipe, other_recipe=False)
    assert after.step == before.step == 1
    assert all(torch.equal(t, before.average[n]) for n, t in after.model.state_dict().items())
    step_of(after)
    assert all(p.isfinite().all() for p in after.model.parameters())


def fresh_state(recipe):
    kind = kind_of(recipe.kind)
    model = loop.new_model(recipe, kind)
    return states.fresh(model, recipe)


def step_of(state) -> None:
    for p in state.model.parameters():
        p.grad = torch.full_like(p, 1e-3)
    state.optimiser.step()
    states.follow(state.average, state.model, 0.5)
    state.step += 1
