"""Stored levels: averages of what is decoded, read by plain Zarr, the same from every writer, and kept by appends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import eozip
from archivefiles import one_cluster
from eozip.errors import FormatError
from eozip.raster import open_scene
from eozip.store import describe, overviews, verify_store
from eozip.store.grid import block_means, plan
from eozip.store.levels import level_store
from eozip.store.windows import open_source
from rasterfiles import write_tif
from storefiles import NAMES, change_record, coarse_codec, scene_pixels

SIZE = (1100, 70)
SETTINGS = {"chunk": 64, "gop": 2, "quality": 40}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Levels down to few pixels."""
    monkeypatch.setattr(overviews, "_SMALLEST", 16)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    found = []
    for k, date in enumerate(("20210701", "20210706", "20210711")):
        found.append(folder / f"S2_T31TCJ_{date}.tif")
        write_tif(found[-1], scene_pixels(k, (12, *SIZE)), NAMES)
    return found


@pytest.fixture
def store(paths, tmp_path):
    with coarse_codec() as codec:
        eozip.encode_store(paths, tmp_path / "a.zarr", codec, overviews=True, **SETTINGS)
        yield tmp_path / "a.zarr"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_a_level_is_the_average_of_what_is_decoded(store):
    whole = zarr.open_array(store, path="reflectance", mode="r")[:]
    level = zarr.open_array(store, path="levels/16/reflectance", mode="r")[:]
    assert np.array_equal(level, block_means(whole, 16, 0))
    coarser = zarr.open_array(store, path="levels/64/reflectance", mode="r")[:]
    assert np.array_equal(coarser, block_means(level, 4, 0))


def test_xarray_opens_a_level_and_the_root_names_it(store):
    found = xr.open_zarr(store, group="levels/16", chunks=None)
    assert found.reflectance.shape == (3, 12, 69, 5)
    assert found.x_16.values[0] == 399960 + 80
    layout = zarr.open_group(store, mode="r").attrs["multiscales"]["layout"]
    assert [one["asset"] for one in layout] == [".", "levels/16", "levels/64"]


def test_virtual_levels_are_finer_and_stored_ones_passed_on(store):
    opened = zarr.open_group(level_store(store), mode="r")
    assets = [one["asset"] for one in opened.attrs["multiscales"]["layout"]]
    assert assets == [".", "levels/2", "levels/4", "levels/8", "levels/16", "levels/32", "levels/64"]
    stored = zarr.open_array(store, path="levels/16/reflectance", mode="r")[:]
    assert np.array_equal(opened["levels/16/reflectance"][:], stored)


@pytest.mark.parametrize("reduce", [16, 32, 64, 128])
def test_windows_are_made_from_a_stored_level(store, reduce):
    finest = 64 if reduce % 64 == 0 else 16
    level = zarr.open_array(store, path=f"levels/{finest}/reflectance", mode="r")[:]
    with open_source(store) as source:
        size = (slice(0, -(-side // reduce)) for side in SIZE)
        got = source.pixels([1, 2], [3, 0], *size, reduce)
        assert not source._heads
    assert np.array_equal(got, block_means(level, reduce // finest, 0)[1:, [3, 0]])


def test_an_archive_has_the_levels_of_encode(store, paths, tmp_path):
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch):
        codec = describe(store).codec.codec
        report = eozip.archive([str(p) for p in paths], tmp_path / "out", codec, **SETTINGS)
        assert report.ok, report.failed
    got, want = tree(tmp_path / "out" / "31TCJ.zarr"), tree(store)
    assert got.keys() == want.keys()
    assert all(got[key] == want[key] for key in got if not key.endswith(".json"))
    assert any(key.startswith("levels/64/reflectance/c/") for key in got)


@pytest.mark.parametrize("how", ["append", "archive"])
def test_later_dates_get_levels_too(store, paths, tmp_path, how):
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch):
        codec = describe(store).codec.codec
        grown = tmp_path / "out" / "31TCJ.zarr"
        if how == "append":
            grown.parent.mkdir()
            eozip.encode_store(paths[:1], grown, codec, overviews=True, **SETTINGS)
            eozip.append_store(grown, paths[1:])
        else:
            for count in (1, 3):
                eozip.archive([str(p) for p in paths[:count]], tmp_path / "out", codec, **SETTINGS)
    for factor in (16, 64):
        got, want = (
            zarr.open_array(one, path=f"levels/{factor}/reflectance", mode="r")[:] for one in (grown, store)
        )
        assert np.array_equal(got, want)
    assert verify_store(grown, against=open_scene(paths)).ok


def test_arrays_of_dask_get_levels_on_a_cluster(store, paths, tmp_path):
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch):
        data = xr.open_zarr(store).reflectance.chunk({"time": 2, "band": 12, "y": 512, "x": 128})
        data.attrs |= {"crs": "EPSG:32633", "nodata": 0}
        eozip.to_zarr(data, tmp_path / "b.zarr", "lossless", chunk=64, gop=2, overviews=True)
    got, want = (
        zarr.open_array(p, path="levels/16/reflectance", mode="r")[:] for p in (tmp_path / "b.zarr", store)
    )
    assert np.array_equal(got, want)


def test_a_damaged_level_is_named(store):
    key = next((store / "levels" / "16").rglob("c/*/*/*/*"))
    data = bytearray(key.read_bytes())
    data[len(data) // 2] ^= 1
    key.write_bytes(bytes(data))
    with open_source(store) as source, pytest.raises(FormatError, match="stored level"):
        source.pixels([0], [0], slice(0, 69), slice(0, 5), 16)
    assert any("stored level" in line for line in verify_store(store).failures)


def test_small_scenes_and_chunks_that_do_not_suit_get_none(monkeypatch):
    monkeypatch.undo()
    assert overviews.levels_for(plan((1, 12, 512, 512))) == ()
    assert overviews.levels_for(plan((1, 12, 5000, 5000), chunk=100)) == ()
    assert [one.factor for one in overviews.levels_for(plan((1, 12, 10980, 10980)))] == [16, 64]


def test_a_record_of_levels_that_cannot_be_is_refused(store):
    found = describe(store)
    with pytest.raises(FormatError, match="levels: expected"):
        overviews.levels_of({**found.facts, "levels": [7]}, found.grid)


@pytest.mark.parametrize("levels", [5, "16", {"16": 1}, [1.5], [[16]], True])
def test_a_strangers_record_of_levels_is_refused_by_name(store, levels):
    change_record(store, lambda record: record["eozip"].update(levels=levels))
    with pytest.raises(FormatError, match="levels"):
        describe(store)


def test_the_server_reads_stored_levels(store):
    layers = pytest.importorskip("eozip.serve.layers", reason="needs the packages of eozip[serve]")
    layer = layers.StoreLayer(store, "a", layers.ArrayCache(1 << 20))
    level = zarr.open_array(store, path="levels/16/reflectance", mode="r")[1]
    assert {16, 64} <= set(layer.reductions())
    assert np.array_equal(layer.read(1, slice(0, 1100), slice(0, 70), 16), level)
    assert np.array_equal(layer.read(1, slice(160, 480), slice(0, 70), 32), block_means(level, 2, 0)[:, 5:15])
