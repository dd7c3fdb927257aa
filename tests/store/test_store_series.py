"""Series in stores: any number of dates, appended in groups of any sizes, and dates whose bytes are missing or damaged."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import eozip
from eozip import bitstream
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid.codec import joined, parted
from eozip.errors import FormatError
from eozip.raster import open_scene
from eozip.store import describe, verify_store
from eozip.store.pixels import open_pixels, read_pixels
from eozip.store.shards import pack_shard
from pyramidscenes import FLEXIBLE, SERIES, season
from rasterfiles import write_tif
from storefiles import NAMES, opened

CODECS = [SERIES, FLEXIBLE, "tec-elic-small", "lossless"]


def pixels_of(store: Path, *dates: int) -> np.ndarray:
    """Of some dates, each read alone; without any of all together."""
    found = describe(store)
    times, _, height, width = found.grid.shape
    parts = [slice(t, t + 1) for t in dates] or [slice(0, times)]
    return np.concatenate([read_pixels(found, t, slice(0, height), slice(0, width)) for t in parts])


@pytest.mark.parametrize(
    ("count", "codec"),
    [*((count, SERIES) for count in (1, 2, 5, 33, 400)), (17, FLEXIBLE), (100, "lossless")],
)
def test_so_many_dates_in_a_store(tmp_path, count, codec):
    dn = season((count, 2, 8, 9), {}, count)
    cube = xr.DataArray(dn, dims=("time", "band", "y", "x"))
    cube = cube.assign_coords(time=pd.date_range("2020-01-01", periods=count), band=["B02", "B03"])
    eozip.to_zarr(cube, tmp_path / "s.zarr", codec, note=lambda text: None)
    whole = pixels_of(tmp_path / "s.zarr")
    assert np.array_equal(whole, dn) if codec == "lossless" else eozip.psnr(dn, whole) > 40
    dates = sorted({0, count // 3, count // 2, count - 1})
    np.testing.assert_array_equal(pixels_of(tmp_path / "s.zarr", *dates), whole[dates])
    np.testing.assert_array_equal(opened(tmp_path / "s.zarr").reflectance[dates], whole[dates])


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.integers(1, 6),
    st.sampled_from(CODECS),
    st.sampled_from([{"quality": 50}, {"target_psnr": 42}, {"max_error": 30}]),
)
def test_appends_of_any_sizes_in_any_order(steps, gop, codec, asked):
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), Path(name) / "s.zarr"
        days = pd.date_range("2021-07-01", periods=sum(steps)).strftime("%Y%m%d")
        paths = [folder / f"t_{day}.tif" for day in days]
        for path, dn in zip(paths, season((len(paths), 2, 16, 24), {}, 3), strict=True):
            write_tif(path, dn, NAMES[:2])
        said = {} if codec == "lossless" else asked
        eozip.encode_store(paths[: steps[0]], store, codec, gop=gop, chunk=16, **said)
        for first, stop in pairwise(accumulate(steps)):
            before = pixels_of(store)
            eozip.append_store(store, paths[first:stop])
            np.testing.assert_array_equal(pixels_of(store)[:first], before)
        found, whole = describe(store), pixels_of(store)
        assert found.grid.shape[0] == sum(found.groups) == len(paths)
        assert max(found.groups) <= gop
        np.testing.assert_array_equal(pixels_of(store, *range(len(paths))), whole)
        np.testing.assert_array_equal(opened(store).reflectance, whole)
        report = verify_store(store, against=open_scene(paths))
        assert report.failures == []
        if "target_psnr" in said:
            assert found.facts["chunks_below_target"] == 0


# --- dates that are missing or damaged ---


def changed(store: Path, group: int, change) -> None:
    """Changes the one chunk of a group of dates."""
    with open_pixels(describe(store)) as pixels:
        grid = pixels.description.grid
        index = list(grid.shards())[group]
        shard = pixels.shard(index)
        ((position, start, stop),) = [(p, *shard.span(p)) for p in shard.positions()]
        blob = shard.read(start, stop)
    packed = pack_shard({position: change(blob)}, grid.per_shard)
    (store / f"reflectance/{grid.key(index)}").write_bytes(packed)


def without(date: int):
    """Takes a date's last bytes out of a chunk, whose sums are right all the same."""

    def change(blob: bytes) -> bytes:
        chunk = bitstream.unpack(blob)
        streams = parted(chunk.sections[-1], chunk.header.shape[0], "x")
        streams[date] = b""
        return bitstream.pack(replace(chunk, sections=(*chunk.sections[:-1], joined(streams))))

    return change


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Nine dates, three in a chunk; the second group came date by date."""
    folder = tmp_path_factory.mktemp("series")
    paths = [folder / f"t_2021070{day}.tif" for day in range(1, 10)]
    for path, dn in zip(paths, season((9, 12, 24, 25), {}, 1), strict=True):
        write_tif(path, dn, NAMES)
    eozip.encode_store(paths[:3], folder / "s.zarr", gop=3)
    for part in (paths[3:4], paths[4:5], paths[5:]):
        eozip.append_store(folder / "s.zarr", part)
    return folder / "s.zarr"


def needed_in(store: Path, group: int) -> list[list[int]]:
    """Dates of a chunk that each of its dates needs, itself included."""
    found = []

    def look(blob: bytes) -> bytes:
        chunk = bitstream.unpack(blob)
        coded = Encoded(tuple(chunk.sections), chunk.header.checks)
        order = registry.get(chunk.header.codec).reader(coded, chunk.header.shape, None)._order
        found.extend(list(order.needed([t])) for t in range(chunk.header.shape[0]))
        return blob

    changed(store, group, look)
    return found


@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize("date", [0, 1, 2])
def test_a_missing_date_is_named_and_those_without_it_are_read(series, tmp_path, group, date):
    store = tmp_path / "s.zarr"
    shutil.copytree(series, store)
    whole, needed = pixels_of(series), needed_in(series, group)
    changed(store, group, without(date))
    for t in range(9):
        if t // 3 == group and date in needed[t % 3]:
            with pytest.raises(
                FormatError, match=rf"shard c/{group}/0/0/0, dates {3 * group}:.*date {date}: "
            ):
                pixels_of(store, t)
        else:
            np.testing.assert_array_equal(pixels_of(store, t)[0], whole[t])
    failed = verify_store(store).failures
    assert len(failed) == 1
    assert f"date {date}: " in str(failed[0])


def test_a_group_of_damaged_bytes_leaves_the_others_readable(series, tmp_path):
    store = tmp_path / "s.zarr"
    shutil.copytree(series, store)
    whole = pixels_of(series)
    changed(store, 1, lambda blob: blob[:-30] + bytes(30))
    for t in (0, 1, 2, 6, 7, 8):
        np.testing.assert_array_equal(pixels_of(store, t)[0], whole[t])
    for t in (3, 4, 5):
        with pytest.raises(FormatError, match=r"shard c/1/0/0/0, dates 3:"):
            pixels_of(store, t)
    write_tif(tmp_path / "t_20210710.tif", season((1, 12, 24, 25), {}, 1)[0], NAMES)
    eozip.append_store(store, tmp_path / "t_20210710.tif")  # a group of its own: full ones are not read
    np.testing.assert_array_equal(pixels_of(store, 8, 9)[0], whole[8])
