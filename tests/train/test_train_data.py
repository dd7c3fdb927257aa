"""Sources of training data: what they give, that it is repeatable, and that validation is kept apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

import eozip
from eozip import sensors
from eozip.errors import InputError, OutputError
from eozip_lab.train import augment, data_sources, npz_mmap, pack, packed, packing, run, validate
from eozip_lab.train.data import Draw, Stacks
from eozip_lab.train.data_sources import open_source, open_sources
from eozip_lab.train.loader import feeding, turns
from eozip_lab.train.recipe import DataSource, _checked, load
from trainfiles import scene, write_data, write_recipe

PACKAGE = Path(eozip.__file__).parent
NAMES = sensors.get("s2-l2a").band_names


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def crops(source, step: int, count: int) -> np.ndarray:
    draw = Draw(0, step)
    found = source.crops(draw, draw.rng())
    return np.stack([next(found) for _ in range(count)])


# --- stacks ---


def test_stored_arrays_are_mapped_and_equal(folder):
    path = folder / "train" / "fields.npz"
    arrays = npz_mmap.stored_arrays(path)
    assert set(arrays) == {"a", "b"}
    for name, a in np.load(path).items():
        assert isinstance(arrays[name], np.memmap)
        np.testing.assert_array_equal(arrays[name], a)


def test_compressed_and_fortran_arrays_are_read(tmp_path):
    a = np.asfortranarray(scene(np.random.default_rng(0), 1, 32))
    np.savez_compressed(tmp_path / "c.npz", a=a)
    np.savez(tmp_path / "f.npz", a=a)
    for name in ("c.npz", "f.npz"):
        np.testing.assert_array_equal(npz_mmap.stored_arrays(tmp_path / name)["a"], a)


def test_broken_npz_is_a_clear_error(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"expected an \.npz"):
        npz_mmap.stored_arrays(tmp_path / "x.npz")
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        npz_mmap.stored_arrays(tmp_path / "o.npz")


def test_only_and_skip_choose_files_and_other_bands_are_reported(folder):
    source = open_source(DataSource("npz", str(folder / "train"), 32, 1, only=("w*",)), NAMES)
    assert source.names == ["water:c"]
    assert source.facts["left_out"] == ["water:ten"]
    source = open_source(DataSource("npz", str(folder / "train"), 32, 1, skip=("water",)), NAMES)
    assert source.names == ["fields:a", "fields:b"]
    with pytest.raises(InputError, match="check path, only, skip and crop"):
        open_source(DataSource("npz", str(folder / "train"), 32, 1, only=("x",)), NAMES)


def test_crops_hold_no_nodata_and_take_the_offset_off(tmp_path):
    a = scene(np.random.default_rng(0), 1, 128)
    a[:, :, :64] = 0
    np.savez(tmp_path / "half.npz", a=a)
    found = crops(open_source(DataSource("npz", str(tmp_path), 32, 1, offset=100), NAMES), 0, 20)
    assert found.shape == (20, 12, 32, 32)
    assert found.min() >= a[:, :, 64:].min() - 100
    np.savez(tmp_path / "half.npz", a=np.zeros_like(a))
    with pytest.raises(InputError, match="mostly nodata"):
        crops(open_source(DataSource("npz", str(tmp_path), 32, 1), NAMES), 0, 1)


# --- GeoTIFFs ---


def write_tiff(path: Path, dn: np.ndarray, names=NAMES, offset: int = 0) -> None:
    profile = {
        "driver": "GTiff",
        "width": dn.shape[2],
        "height": dn.shape[1],
        "count": len(dn),
        "dtype": dn.dtype,
        "crs": "EPSG:32633",
        "transform": rasterio.transform.from_origin(399960, 5300040, 10, 10),
    }
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=64, blockysize=64) as file:
        file.write(dn)
        file.descriptions = names
        file.offsets = [-offset / 10000] * len(dn)
        file.scales = [1 / 10000] * len(dn)


def test_geotiff_windows_in_band_order_without_the_offset(tmp_path):
    dn = scene(np.random.default_rng(0), 1, 96)[0]
    (tmp_path / "scenes" / "deep").mkdir(parents=True)
    write_tiff(tmp_path / "scenes" / "a.tif", dn)
    write_tiff(tmp_path / "scenes" / "deep" / "b.tif", dn[::-1] + 1000, NAMES[::-1], offset=1000)
    source = open_source(DataSource("geotiff", str(tmp_path / "scenes"), 64, 1), NAMES)
    windows = np.lib.stride_tricks.sliding_window_view(dn[0], (64, 64))
    for crop in crops(source, 0, 12):
        i, j = np.argwhere((windows == crop[0]).all((2, 3)))[0]
        np.testing.assert_array_equal(crop, dn[:, i : i + 64, j : j + 64])
    assert len(source.files()) == 2
    source.close()


def test_geotiff_too_small_or_without_bands(tmp_path):
    dn = scene(np.random.default_rng(0), 1, 64)[0]
    write_tiff(tmp_path / "a.tif", dn)
    with pytest.raises(InputError, match="at least 96 x 96"):
        open_source(DataSource("geotiff", str(tmp_path), 96, 1), NAMES)
    write_tiff(tmp_path / "a.tif", dn[:4], NAMES[:4])
    with pytest.raises(InputError, match="B05"):
        open_source(DataSource("geotiff", str(tmp_path), 32, 1), NAMES)
    with pytest.raises(InputError, match="no GeoTIFF left"):
        open_source(DataSource("geotiff", str(tmp_path), 32, 1, skip=("a",)), NAMES)


# --- SSL4EO-S12 v1.1 ---


def write_shard(
    path: Path, samples: int = 8, size: int = 48, names=NAMES, rows: int | None = None
) -> np.ndarray:
    """A shard in the documented layout (Zarr 2, zipped; times chunked apart), smaller."""
    bands = np.stack([scene(np.random.default_rng(k), 4, size).astype(np.int16) for k in range(samples)])
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.open_group(store, mode="w", zarr_format=2)
        chunks = (rows or samples, 1, len(names), size, size)
        array = group.create_array("bands", shape=bands.shape, dtype="int16", chunks=chunks)
        array[:] = bands
        group.create_array("band", data=np.array(names, dtype="<U3"))
        group.create_array("sample", data=np.array([f"{k:07d}" for k in range(samples)]))
        group.create_array("cloud_mask", data=np.zeros((samples, 4, size, size), np.uint8))
    return bands


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_ssl4eo_crops_are_windows_of_one_season(tmp_path, rows):
    bands = write_shard(tmp_path / "ssl4eos12_train_seasonal_data_000001.zarr.zip", rows=rows)
    source = open_source(DataSource("ssl4eo", str(tmp_path), 32, 1, offset=50), NAMES)
    windows = np.lib.stride_tricks.sliding_window_view(bands[:, :, 0], (32, 32), axis=(2, 3))
    found = [np.argwhere((windows == crop[0] + 50).all((4, 5)))[0] for crop in crops(source, 5, 12)]
    assert len({season for _, season, _, _ in found}) == 1
    assert len({sample for sample, *_ in found}) > 1
    sample, season, i, j = found[0]
    np.testing.assert_array_equal(
        crops(source, 5, 1)[0], bands[sample, season, :, i : i + 32, j : j + 32].astype(int) - 50
    )
    source.close()


def test_ssl4eo_bounds_open_shards_and_cache(tmp_path, monkeypatch):
    from eozip_lab.train import ssl4eo

    monkeypatch.setattr(ssl4eo, "_OPEN_SHARDS", 2)
    monkeypatch.setattr(ssl4eo, "CACHE_BYTES", 2 * 4 * 12 * 48 * 48 * 2)
    for k in range(4):
        write_shard(tmp_path / f"{k}.zarr.zip", samples=4)
    source = open_source(DataSource("ssl4eo", str(tmp_path), 32, 1, steps_per_shard=1), NAMES)
    a = [crops(source, step, 2) for step in range(12)]
    assert len(source._open) <= 2
    assert 0 < source._blocks.nbytes <= ssl4eo.CACHE_BYTES
    for step in (11, 3, 7):
        np.testing.assert_array_equal(crops(source, step, 2), a[step])
    source.close()


def test_ssl4eo_other_layouts_are_refused(tmp_path):
    write_shard(tmp_path / "s1.zarr.zip", names=NAMES[::-1])
    with pytest.raises(InputError, match="expected bands B01"):
        open_source(DataSource("ssl4eo", str(tmp_path), 32, 1), NAMES)
    with pytest.raises(InputError, match="at least 64 x 64"):
        open_source(DataSource("ssl4eo", str(tmp_path), 64, 1), NAMES)
    (tmp_path / "s1.zarr.zip").write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"SSL4EO-S12 v1\.1 shard"):
        open_source(DataSource("ssl4eo", str(tmp_path), 32, 1), NAMES)


# --- augmentation and feeding ---


def test_augmented_crops_are_valid_and_vary():
    crop = scene(np.random.default_rng(0), 1, 32)[0]
    made = [augment.augmented(crop, np.random.default_rng(k), augment.Augment()) for k in range(40)]
    assert all(m.dtype == np.float32 and m.shape == crop.shape for m in made)
    assert min(m.min() for m in made) >= 1
    assert max(m.max() for m in made) <= 20000
    assert len({m.tobytes() for m in made}) == 40
    still = augment.Augment(0, 0, 0, 0, 0)
    symmetries = {augment.augmented(crop, np.random.default_rng(k), still).tobytes() for k in range(60)}
    assert len(symmetries) == 8


def test_turns_follow_the_weights():
    assert turns((1, 1)) == (0, 1)
    assert turns((3, 1)).count(0) == 3
    assert turns((2, 2)) == (0, 1, 0, 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_depend_on_seed_and_step_alone(folder, workers):
    recipe = load(write_recipe(folder, f"workers = {workers}"))

    def batches(first: int, count: int, seed: int = 0) -> list[np.ndarray]:
        with feeding(_checked(_seeded(recipe, seed), ""), lambda: open_sources(recipe, NAMES)) as feed:
            found = feed.batches(first)
            return [next(found).numpy() for _ in range(count)]

    whole = batches(0, 8)
    assert [b.shape[0] for b in whole[:2]] == [4, 2]
    for late, early in zip(batches(5, 3), whole[5:], strict=True):
        np.testing.assert_array_equal(late, early)
    assert not np.array_equal(batches(0, 1, seed=1)[0], whole[0])


def _seeded(recipe, seed: int):
    from dataclasses import replace

    return replace(recipe, seed=seed)


def test_errors_of_workers_reach_the_run(folder):
    recipe = load(write_recipe(folder))

    def broken():
        raise InputError("the disk is gone")

    with feeding(recipe, broken) as feed, pytest.raises(InputError, match="the disk is gone"):
        next(feed.batches(0))


# --- keeping apart ---


def test_training_on_a_validation_file_is_refused(folder):
    shutil.copy(folder / "val.npz", folder / "train" / "copy.npz")
    with pytest.raises(InputError, match="is trained on and is the validation file"):
        run(write_recipe(folder), out=folder / "out", progress=False, device="cpu")
    data_sources.check_apart([folder / "train" / "fields.npz"], [folder / "val.npz"])


# --- packs ---


def write_pack(folder: Path, dn: np.ndarray) -> None:
    folder.mkdir()
    encode = packed.jpegxl("encode")
    with zipfile.ZipFile(folder / "src.zip", "w") as zf:
        for k, plane in enumerate(packed.mosaics(dn, 2)):
            zf.writestr(f"place/{k:02d}.jxl", encode(plane, lossless=True))
    item = {"source": "src", "site": "place", "shape": list(dn.shape), "grid": 2}
    (folder / "index.json").write_text(json.dumps([item]))


def test_pack_folder_is_unpacked_once_into_the_cache(tmp_path):
    dn = scene(np.random.default_rng(0), 4, 32)
    write_pack(tmp_path / "pack", dn)
    [(name, array)], files = packed.packed_arrays(tmp_path / "pack")
    assert name == "src:place"
    np.testing.assert_array_equal(array, dn)
    assert [f.name for f in files] == ["src.zip"]
    [cached] = (tmp_path / "cache").rglob("*.npz")
    stamp = cached.stat().st_mtime_ns
    packed.packed_arrays(tmp_path / "pack")
    assert cached.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shape": [4, 12, 10**6, 10**6]}, "expected a list of packed stacks"),
        ({"site": "../../etc"}, "expected a list of packed stacks"),
        ({"shape": [4, 12, 64, 64]}, "not what index.json says"),
        ({"site": "elsewhere"}, "fetch it again"),
        ({"source": "gone"}, "missing, but index.json lists it"),
    ],
)
def test_wrong_index_is_a_clear_error(tmp_path, change, match):
    write_pack(tmp_path / "pack", scene(np.random.default_rng(0), 4, 32))
    index = tmp_path / "pack" / "index.json"
    [item] = json.loads(index.read_text())
    index.write_text(json.dumps([{**item, **change}]))
    with pytest.raises(InputError, match=match):
        packed.packed_arrays(tmp_path / "pack")
    assert not list(tmp_path.rglob("*.part"))


def test_packing_then_training_from_the_pack_alone(folder, monkeypatch):
    recipe = write_recipe(folder, "steps = 3")
    made = pack(recipe, folder / "small.zip", 1.0)
    assert made.bytes <= 2**20
    assert made.tiles == made.candidates > 4
    (folder / "train").rename(folder / "gone")
    (folder / "val.npz").rename(folder / "gone.npz")
    outcome = run(recipe, out=folder / "out", data=folder / "small.zip", progress=False, device="cpu")
    assert outcome.finished
    assert len(outcome.points) == 2


def test_a_finished_run_is_measured_elsewhere(folder):
    recipe = write_recipe(folder, "steps = 2", "real_bytes = false")
    pack(recipe, folder / "small.zip", 1.0)
    quiet = {"progress": False, "device": "cpu", "out": folder / "out"}
    away = run(recipe, data=folder / "small.zip", **quiet)
    assert away.points == ()
    home = run(write_recipe(folder, "steps = 2"), resume=True, other_recipe=True, **quiet)
    assert home.steps == 2
    assert len(home.points) == 2
    assert "| place | 100 |" in (home.weights / "card.md").read_text()


TRAIN_ALONE = """
import sys
from pathlib import Path

sys.modules.update(rasterio=None, zarr=None, xarray=None)
from eozip_lab.train import run

recipe, out, data = map(Path, sys.argv[1:])
print(run(recipe, out=out, data=data, progress=False, device="cpu").steps)
"""


def test_training_on_packs_needs_neither_rasterio_nor_zarr(folder):
    """What a machine with torch but no geospatial libraries has, from the first step to the weights."""
    recipe = write_recipe(folder, "steps = 2", "real_bytes = false")
    pack(recipe, folder / "small.zip", 1.0)
    command = [sys.executable, "-c", TRAIN_ALONE, str(recipe), str(folder / "out"), str(folder / "small.zip")]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "2"


def test_pack_holds_real_pixels_and_the_validation_places(folder):
    recipe = write_recipe(folder)
    pack(recipe, folder / "small.zip", 1.0)
    moved = packing.with_pack(load(recipe), folder / "small.zip")
    [stack] = validate.load_places(moved, NAMES)
    np.testing.assert_array_equal(stack.dn, np.load(folder / "val.npz")["stack"])
    named = dict(packed.packed_arrays(folder / "small.zip")[0])
    tiles = [tile for name, a in named.items() if name.startswith("fields:") for tile in a]
    whole = np.load(folder / "train" / "fields.npz")
    assert sum(tile[0].size for tile in tiles) == whole["a"][:, 0].size + whole["b"][:, 0].size
    assert any(np.array_equal(tile, whole["b"][0]) for tile in tiles)
    assert not any(name.startswith("validation") for name in named)


def test_pack_keeps_to_its_limit_and_takes_the_most_varied(folder, monkeypatch):
    monkeypatch.setattr(packing, "GROUP", 1)
    recipe = write_recipe(folder)
    everything = pack(recipe, folder / "all.zip", 1.0)
    part = pack(recipe, folder / "part.zip", 0.7 * everything.bytes / 2**20)
    assert 0 < part.tiles < everything.tiles
    assert part.bytes <= 0.7 * everything.bytes
    with pytest.raises(InputError, match="validation places alone"):
        pack(recipe, folder / "none.zip", 0.001)
    assert not (folder / "none.zip").exists()
    assert not list(folder.glob("*.part"))
    with pytest.raises(OutputError, match="exists already"):
        pack(recipe, folder / "all.zip")


def test_farthest_points_first():
    points = np.array([[0.0], [0.1], [0.2], [10.0], [5.5]])
    for seed in range(5):
        order = packing._most_varied(points, seed)
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert {3, 4} < set(order[:3])  # the three near each other count as one


def test_random_crops_of_scenes_are_packed_too(folder):
    (folder / "scenes").mkdir()
    write_tiff(folder / "scenes" / "a.tif", scene(np.random.default_rng(5), 1, 96)[0])
    text = (
        write_recipe(folder)
        .read_text()
        .replace('kind = "npz"\npath = "train"', 'kind = "geotiff"\npath = "scenes"')
    )
    recipe = folder / "scenes.toml"
    recipe.write_text(text.replace('only = ["f*"]\n', ""))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(packing, "_RANDOM_TILES", 6)
        made = pack(recipe, folder / "scenes.zip", 2.0)
    assert made.tiles == 12
    moved = packing.with_pack(load(recipe), folder / "scenes.zip")
    first, second = open_sources(moved, NAMES)
    assert isinstance(first, Stacks)
    assert {a.shape[2] for a in first.arrays} == {32}
    assert {a.shape[2] for a in second.arrays} == {64}
