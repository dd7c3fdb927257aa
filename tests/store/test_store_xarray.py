"""What xarray and zarr do to a store, and what eozip makes of it: nothing that it needs is lost, nothing comes worse."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from eozip.cli import cli
from eozip.errors import FormatError, InputError
from eozip.raster import open_scene
from eozip.store import append_store, decode_store, describe, repair_store, verify_store
from eozip.store.levels import level_store
from eozip.store.xarray_backend import EozipBackendEntrypoint
from productstores import a_product, store_product
from rasterfiles import everything, write_tif
from storefiles import ENDINGS, NAMES, Coarse, coarse_codec, listed, make_store, opened, scene_pixels

DAYS = [f"202107{day:02}" for day in range(1, 13)]


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec(), warnings.catch_warnings(action="ignore"):
        yield


def dates(folder: Path, start: int, stop: int) -> list[Path]:
    paths = [folder / f"tile_{day}.tif" for day in DAYS[start:stop]]
    for number, path in enumerate(paths, start=start):
        write_tif(path, scene_pixels(number, (12, 16, 24)), NAMES)
    return paths


def a_store(folder: Path, count: int, **options) -> Path:
    store = folder / "s.zarr"
    make_store(dates(folder, 0, count), store, Coarse.id, quality=50, **{"gop": 4, **options})
    return store


def decoded(store: Path, out: Path) -> np.ndarray:
    done = decode_store(store, out, overwrite=True)
    names = [out] if out.suffix == ".tif" else [out / name for name in done.files]
    return np.stack([everything(name)["pixels"] for name in names])


def try_to_append(store: Path, count: int, start: int = 20, ds: xr.Dataset | None = None) -> None:
    """As a user of xarray does it, with dates behind the store's."""
    ds = opened(store).load() if ds is None else ds
    ds = ds.isel(time=slice(0, count)).drop_vars(["spatial_ref", "x", "y", "band"])
    days = np.datetime64("2021-07-01", "s") + np.arange(start, start + count).astype("timedelta64[D]")
    ds.assign_coords(time=days).to_zarr(store, append_dim="time")


def refused_appends(store: Path, tries: int) -> None:
    """Single dates into a group that is not full; xarray opens the store for the later ones, or cannot any more."""
    ds = opened(store).load()
    for number in range(tries):
        with pytest.raises(ValueError):
            try_to_append(store, 1, 20 + number, ds)


# --- appends by xarray ---


@pytest.mark.parametrize(("have", "tries"), [(3, 1), (5, 3)])
def test_a_refused_append_leaves_what_eozip_recorded(tmp_path, have, tries):
    store = a_store(tmp_path, have)
    before = decoded(store, tmp_path / "before")
    refused_appends(store, tries)
    assert describe(store).grid.shape[0] == have
    np.testing.assert_array_equal(decoded(store, tmp_path / "after"), before)
    report = verify_store(store)
    assert len(report.failures) == 1
    assert "eozip append" in report.failures[0]
    text = CliRunner().invoke(cli, ["info", str(store)]).output
    assert "unrecorded_dates" in text


@pytest.mark.parametrize("by", ["repair", "append"])
def test_a_refused_append_is_mended(tmp_path, by):
    store, same = a_store(tmp_path, 5), tmp_path / "same.zarr"
    make_store(dates(tmp_path, 0, 5), same, Coarse.id, quality=50, gop=4)
    refused_appends(store, 2)
    if by == "repair":
        done = repair_store(store)
        assert done.taken == 0
        assert 1 <= done.cut <= 2
        assert repair_store(store).keys == ()
    else:
        append_store(store, open_scene(dates(tmp_path, 5, 8)))
        append_store(same, open_scene(dates(tmp_path, 5, 8)))
    assert verify_store(store).failures == []
    xr.testing.assert_identical(opened(store).load(), opened(same).load())
    with warnings.catch_warnings(action="error"):
        assert xr.open_zarr(store, consolidated=True).time.size == (5 if by == "repair" else 8)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_good_store_needs_no_repair(tmp_path, ending):
    store = tmp_path / f"s{ending}"
    make_store(dates(tmp_path, 0, 3), store, Coarse.id, quality=50, gop=2)
    assert repair_store(store).keys == ()
    append_store(store, open_scene(dates(tmp_path, 3, 6)))
    assert repair_store(store).keys == ()


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_damaged_record_comes_back_from_its_copy(tmp_path, text):
    store = a_store(tmp_path, 2)
    own = store / "eozip" / "zarr.json"
    before = json.loads(own.read_text())
    own.unlink()
    if text is not None:
        own.write_text(text)
    assert describe(store).grid.shape[0] == 2
    assert repair_store(store).keys == ("eozip/zarr.json",)
    assert json.loads(own.read_text()) == before


def test_repair_by_the_command_line(tmp_path):
    store = a_store(tmp_path, 3)
    with pytest.raises(ValueError):
        try_to_append(store, 1)
    runner = CliRunner()
    assert runner.invoke(cli, ["verify", str(store)]).exit_code == 3
    result = runner.invoke(cli, ["verify", str(store), "--repair"])
    assert result.exit_code == 0
    assert "1 date without pixels cut off" in result.output
    again = json.loads(runner.invoke(cli, ["verify", str(store), "--repair", "--json"]).stdout)
    assert again["repaired"] == {"keys": [], "taken": 0, "cut": 0}


def test_pixels_behind_a_gap_are_not_written_over_unasked(tmp_path):
    """The first try is refused within the last group; the second begins a chunk, which xarray may write."""
    store = a_store(tmp_path, 3)
    refused_appends(store, 1)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    for name in ("time", "reflectance"):
        group[name].resize((5, *group[name].shape[1:]))
    group["reflectance"][4] = scene_pixels(4, (12, 16, 24))
    with pytest.raises(InputError, match="cuts them off"):
        append_store(store, open_scene(dates(tmp_path, 3, 4)))
    done = repair_store(store)
    assert (done.taken, done.cut) == (0, 2)
    append_store(store, open_scene(dates(tmp_path, 3, 6)))
    assert verify_store(store).failures == []
    assert opened(store).time.size == 6


def test_an_append_of_a_whole_group_is_kept(tmp_path):
    store = a_store(tmp_path, 4)
    first = decoded(store, tmp_path / "first")
    try_to_append(store, 4)
    shown = opened(store).reflectance.values
    assert shown.shape[0] == 8
    np.testing.assert_array_equal(decoded(store, tmp_path / "four"), first)
    with pytest.raises(InputError, match="--repair"):
        append_store(store, open_scene(dates(tmp_path, 4, 5)))
    assert repair_store(store).taken == 4
    assert verify_store(store).failures == []
    np.testing.assert_array_equal(decoded(store, tmp_path / "eight"), shown)
    np.testing.assert_array_equal(opened(store).reflectance.values, shown)
    write_tif(tmp_path / "tile_20210901.tif", scene_pixels(9, (12, 16, 24)), NAMES)
    append_store(store, open_scene(tmp_path / "tile_20210901.tif"))
    assert verify_store(store).failures == []
    assert describe(store).grid.shape[0] == 9
    assert listed(tmp_path / "eight")[4:] == [f"tile_{day}.tif" for day in DAYS[:4]]


# --- other variables, attributes ---


def test_another_variable_costs_eozip_nothing(tmp_path):
    store = a_store(tmp_path, 3)
    before = decoded(store, tmp_path / "before")
    ds = opened(store)
    index = (ds.reflectance.isel(band=0) / 1e4).drop_encoding().rename("index").drop_vars("band")
    index.to_dataset().to_zarr(store, mode="a")
    assert "eozip" not in opened(store).attrs
    np.testing.assert_array_equal(decoded(store, tmp_path / "after"), before)
    assert verify_store(store).failures == []
    assert describe(store).facts["codec"] == Coarse.id


@pytest.mark.parametrize("where", ["", "reflectance", "spatial_ref"])
def test_attributes_may_be_replaced(tmp_path, where):
    store = a_store(tmp_path, 1)
    before = everything_of(store, tmp_path / "before.tif")
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    (group[where] if where else group).attrs.put({"mine": 1})
    assert everything_of(store, tmp_path / "after.tif") == before
    append_store(store, open_scene(dates(tmp_path, 1, 2)))
    node = zarr.open_group(store, mode="r", use_consolidated=False)
    assert (node[where] if where else node).attrs["mine"] == 1


def everything_of(store: Path, out: Path) -> dict:
    decode_store(store, out)
    return everything(out)


def test_attributes_are_what_netcdf_can_hold(tmp_path):
    ds = xr.open_dataset(a_store(tmp_path, 2), engine=EozipBackendEntrypoint)
    for attributes in (ds.attrs, *(variable.attrs for variable in ds.variables.values())):
        for name, value in attributes.items():
            assert isinstance(value, (str, int, float)), name
    assert json.loads(ds.attrs["eozip"])["codec"] == Coarse.id
    pytest.importorskip("scipy")
    small = ds.isel(band=slice(0, 2), x=slice(0, 5)).drop_vars(
        ["band", "radiometric_offset"], errors="ignore"
    )
    small.astype({"reflectance": np.float32}).to_netcdf(tmp_path / "a.nc", engine="scipy")


@pytest.mark.parametrize("kind", ["plain", "product", "levels"])
def test_the_geozarr_validator_has_nothing_to_say(tmp_path, kind):
    toolkit = pytest.importorskip("geozarr_toolkit")
    if kind == "product":
        store_product(a_product(tmp_path / "in"), tmp_path / "s.zarr", "lossless")
    else:
        a_store(tmp_path, 1)
    path = tmp_path / "s.zarr"
    root = zarr.open_group(level_store(path) if kind == "levels" else path, mode="r")
    groups = [root, *(member for _, member in root.members(max_depth=None) if isinstance(member, zarr.Group))]
    found = [toolkit.validate_group(group) for group in groups if "zarr_conventions" in group.attrs]
    assert set(found[0]) >= {"spatial", "proj"} | ({"multiscales"} if kind != "plain" else set())
    assert not [errors for one in found for errors in one.values() if errors]


def test_no_array_gives_bands_a_long_name(tmp_path):
    """rioxarray would write it as the name of every band."""
    assert "long_name" not in opened(a_store(tmp_path, 1)).reflectance.attrs


# --- what a file may ask of its reader ---


def test_a_budget_in_a_file_is_refused(tmp_path):
    store = a_store(tmp_path, 1)
    for budget in (1, {"sections": 1, "reader": "0" * 16}):
        for key in ("zarr.json", "reflectance/zarr.json"):
            document = json.loads((store / key).read_text())
            array = document
            if key == "zarr.json":
                array = document["consolidated_metadata"]["metadata"]["reflectance"]
            array["codecs"][0]["configuration"]["codecs"][0]["configuration"]["budget"] = budget
            (store / key).write_text(json.dumps(document))
        with pytest.raises(FormatError, match="budget"):
            opened(store)
        with pytest.raises(FormatError, match="budget"):
            describe(store)


# --- copies ---


def a_real_codec(folder: Path, side: int = 48, codec: str = "tec-fp-small", **options) -> Path:
    """A store of a network's codec, three dates."""
    store = folder / "r.zarr"
    paths = [folder / f"tile_{day}.tif" for day in DAYS[:3]]
    for number, path in enumerate(paths):
        write_tif(path, scene_pixels(number, (12, side, side + 8)), NAMES)
    make_store(paths, store, codec, quality=40, **{"gop": 3, "chunk": 24, **options})
    return store


OTHERS = {
    "fewer bands": lambda ds: ds.sel(band=["B04", "B03", "B02"]),
    "one band": lambda ds: ds.isel(band=[3]),
    "reversed": lambda ds: ds.isel(band=slice(None, None, -1)),
    "shuffled, later dates": lambda ds: ds.isel(band=[1, 0, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11], time=[1, 2]),
    "reversed, cut": lambda ds: ds.isel(band=slice(None, None, -1), x=slice(5, 40), y=slice(3, 30)),
    "time, y, x, band": lambda ds: ds.transpose("time", "y", "x", "band"),
    "band, time, y, x": lambda ds: ds.transpose("band", "time", "y", "x"),
    "time, y, band, x": lambda ds: ds.transpose("time", "y", "band", "x"),
    "band, y, x, time": lambda ds: ds.transpose("band", "y", "x", "time"),
    "one band twelve times": lambda ds: ds.isel(band=[3] * 12),
    "one band twice": lambda ds: ds.isel(band=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("is_lazy", [False, True])
def test_copies_with_other_bands_or_axes_are_refused(tmp_path, name, is_lazy):
    ds = opened(a_real_codec(tmp_path))
    ds = ds if is_lazy else ds.load()
    ds = OTHERS[name](ds)
    if is_lazy:  # xarray refuses chunks of dask that are not zarr's
        ds = ds.chunk(-1)
    with pytest.raises(InputError, match="drop_encoding"):
        ds.to_zarr(tmp_path / "copy.zarr")
    ds.drop_encoding().to_zarr(tmp_path / "plain.zarr")
    xr.testing.assert_equal(opened(tmp_path / "plain.zarr").load(), ds.load())


_IN_ANOTHER_PROCESS = """
import pickle, sys
import eozip
for name in sys.argv[1:]:
    try:
        pickle.load(open(name, "rb")).to_zarr(name + ".zarr")
        print("written")
    except eozip.errors.InputError as error:
        print(error)
"""


def test_copies_in_another_process_are_refused_as_well(tmp_path):
    store = a_real_codec(tmp_path, codec="tec-elic-small")  # which needs no torch
    loaded, lazy = opened(store).load(), opened(store).chunk(-1)
    copies = [make(ds) for make in OTHERS.values() for ds in (loaded, lazy)]
    names = [str(tmp_path / str(number)) for number in range(len(copies) + 1)]
    for name, ds in zip(names, [*copies, loaded], strict=True):
        Path(name).write_bytes(pickle.dumps(ds))
    done = subprocess.run(
        [sys.executable, "-c", _IN_ANOTHER_PROCESS, *names], capture_output=True, text=True, check=True
    )
    *refused, kept = done.stdout.splitlines()
    assert kept == "written"
    assert len(refused) == len(copies)
    assert all("drop_encoding" in said for said in refused), refused


def test_stores_of_one_configuration_do_not_stand_in_each_others_way(tmp_path):
    whole, lame = scene_pixels(1, (12, 48, 56)), scene_pixels(2, (12, 48, 56))
    lame[4] = 0  # a band without any data
    for name, pixels in (("whole", whole), ("lame", lame)):
        write_tif(tmp_path / f"{name}.tif", pixels, NAMES, nodata=0)
        make_store([tmp_path / f"{name}.tif"], tmp_path / f"{name}.zarr", "tec-elic-small", quality=40)
    opened(tmp_path / "whole.zarr").load()
    opened(tmp_path / "lame.zarr").load().to_zarr(tmp_path / "copy.zarr")


def test_a_codec_that_is_handed_on_by_zarr_refuses_fewer_bands(tmp_path):
    source = zarr.open_group(a_real_codec(tmp_path), mode="r")["reflectance"]
    pixels = source[...]
    copy = zarr.create_array(
        tmp_path / "copy.zarr",
        shape=(3, 3, *source.shape[2:]),
        chunks=(3, 3, 24, 24),
        dtype="uint16",
        serializer=source.serializer,
        compressors=None,
        fill_value=0,
    )
    with pytest.raises(InputError, match="drop_encoding"):
        copy[...] = pixels[:, :3]


@pytest.mark.parametrize(
    "same",
    [
        lambda ds: ds,
        lambda ds: ds.isel(time=[2, 1]),
        lambda ds: ds.isel(x=slice(3, 40), y=slice(10, 31)),
        lambda ds: ds.sortby("time"),
    ],
)
def test_copies_with_all_bands_in_place_still_work(tmp_path, same):
    ds = same(opened(a_real_codec(tmp_path)).load())
    ds.to_zarr(tmp_path / "copy.zarr")
    copy = opened(tmp_path / "copy.zarr").load()
    assert float(np.abs(copy.reflectance.astype(int) - ds.reflectance.astype(int)).mean()) < 60


def test_exact_copies_of_any_bands_work(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store, "lossless", gop=2)
    ds = opened(store).load().isel(band=[3, 1])
    ds.to_zarr(tmp_path / "copy.zarr")
    xr.testing.assert_equal(opened(tmp_path / "copy.zarr").load(), ds)


def test_other_pixels_may_be_written_over_those_that_were_read(tmp_path):
    store = a_real_codec(tmp_path, chunk=None)
    array = zarr.open_group(store, mode="r+", use_consolidated=False)["reflectance"]
    before = array[...]
    array[...] = np.ascontiguousarray(before[:, :, ::-1])
    assert np.abs(array[...].astype(int) - before[:, :, ::-1]).mean() < 30
