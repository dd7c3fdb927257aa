"""Dates appended to a store: old ones as before, new ones as if alone, and nothing lost when it is cut off."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from click.testing import CliRunner

import eozip
from eozip.cli import cli
from eozip.codecs import registry
from eozip.errors import FormatError, InputError, OutputError, WeightsError
from eozip.raster import open_scene
from eozip.store import (
    append_store,
    container,
    decode_store,
    describe,
    encode_store,
    make_request,
    verify_store,
)
from eozip.store.pixels import open_pixels, read_pixels
from eozip.store.shards import HEAD
from rasterfiles import everything, write_tif
from storefiles import (
    ENDINGS,
    NAMES,
    Coarse,
    change_record,
    coarse_codec,
    listed,
    make_store,
    opened,
    scene_pixels,
)

DAYS = [f"202107{day:02}" for day in range(1, 13)]


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


def date_file(folder: Path, number: int, dn: np.ndarray | None = None, **options) -> Path:
    """The GeoTIFF of one day; pixels differ from day to day."""
    path = folder / f"tile_{DAYS[number]}.tif"
    dn = scene_pixels(number, (12, 24, 40)) if dn is None else dn
    write_tif(path, dn, options.pop("names", NAMES), tags={"SEEN": path.stem}, **options)
    return path


def dates(folder: Path, start: int, stop: int) -> list[Path]:
    return [date_file(folder, number) for number in range(start, stop)]


def grow(store: Path, paths, **options):
    return append_store(store, open_scene(paths), **options)


def pixels_of(store: Path) -> np.ndarray:
    """By plain zarr."""
    return opened(store).reflectance.values


# --- the property ---


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("steps", [(1, 2, 4), (3, 8)])
def test_old_dates_stay_and_new_ones_decode_as_if_encoded_alone(tmp_path, ending, steps):
    store = tmp_path / f"s{ending}"
    make_store(dates(tmp_path, 0, steps[0]), store, Coarse.id, quality=50, gop=3)
    groups = list(describe(store).groups)
    for first, stop in pairwise(steps):
        before, streams = pixels_of(store), streams_of(store)
        summary = grow(store, dates(tmp_path, first, stop))
        after = pixels_of(store)
        np.testing.assert_array_equal(after[:first], before)
        assert streams_of(store)[: len(streams)] == streams
        start = first
        for count in summary.groups:
            alone = tmp_path / f"alone{start}{ending}"
            make_store(dates(tmp_path, start, start + count), alone, Coarse.id, quality=50, gop=3)
            np.testing.assert_array_equal(after[start : start + count], pixels_of(alone))
            start += count
        assert start == stop
        groups += summary.groups
    assert describe(store).groups == tuple(groups)
    assert max(groups) <= 3
    sources = [tmp_path / f"tile_{day}.tif" for day in DAYS[: steps[-1]]]
    report = verify_store(store, against=open_scene(sources))
    assert report.failures == []
    assert report.psnr == pytest.approx(describe(store).facts["psnr"], abs=1e-6)
    np.testing.assert_allclose(report.date_psnr, describe(store).facts["date_psnr"], atol=1e-9)


def streams_of(store: Path) -> list[bytes]:
    """Bytes of every stream in the order of dates, then places."""
    with open_pixels(describe(store)) as pixels:
        found = []
        for index in pixels.description.grid.shards():
            shard = pixels.shard(index)
            for position in shard.positions():
                for piece in shard.pieces(position):
                    found.append((index[0], position, piece.dates.start, piece.data))
    return [data for *_, data in sorted(found, key=lambda one: (one[0], one[2], one[1]))]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_appended_store_is_a_whole_one(tmp_path, ending):
    store = tmp_path / f"s{ending}"
    make_store(dates(tmp_path, 0, 3), store, Coarse.id, quality=50)
    grow(store, dates(tmp_path, 3, 6))
    ds = opened(store)
    assert ds.reflectance.shape == (6, 12, 24, 40)
    assert list(ds.time.dt.strftime("%Y%m%d").values) == DAYS[:6]
    np.testing.assert_array_equal(ds.reflectance[3:].values == 0, (pixels_in(tmp_path, 3, 6) == 0))
    decode_store(store, tmp_path / "back")
    assert listed(tmp_path / "back") == [f"tile_{day}.tif" for day in DAYS[:6]]
    for day in DAYS[:6]:
        source, back = (
            everything(tmp_path / f"tile_{day}.tif"),
            everything(tmp_path / "back" / f"tile_{day}.tif"),
        )
        assert {**source, "pixels": 0} == {**back, "pixels": 0}
    assert listed(tmp_path) == sorted([*(f"tile_{day}.tif" for day in DAYS[:6]), "back", store.name])
    if ending == ".zarr.zip":
        names = zipfile.ZipFile(store).namelist()
        assert len(names) == len(set(names))


def pixels_in(folder: Path, start: int, stop: int) -> np.ndarray:
    return np.stack([everything(folder / f"tile_{day}.tif")["pixels"] for day in DAYS[start:stop]])


def test_unconsolidated_readers_see_the_new_dates_too(tmp_path):
    make_store(dates(tmp_path, 0, 2), tmp_path / "s.zarr")
    grow(tmp_path / "s.zarr", dates(tmp_path, 2, 5))
    group = zarr.open_group(tmp_path / "s.zarr", mode="r", use_consolidated=False)
    np.testing.assert_array_equal(group["reflectance"][:], pixels_in(tmp_path, 0, 5))
    assert group["time"].shape == (5,)


@pytest.mark.parametrize("nodata", [0, None])
def test_empty_places_within_one_group(tmp_path, nodata):
    store = tmp_path / "s.zarr"
    files = []
    for number in range(6):
        dn = scene_pixels(number, (12, 16, 32))
        dn[..., :16] *= number in (1, 3, 4, 5)
        dn[..., 16:] *= number in (0, 3, 4, 5)
        files.append(date_file(tmp_path, number, dn, nodata=nodata))
    make_store([files[0]], store, gop=3)
    assert describe(store).grid.chunk[0] == 3
    for path in files[1:]:
        grow(store, path)
    assert describe(store).groups == (1,) * 6
    np.testing.assert_array_equal(pixels_of(store), pixels_in(tmp_path, 0, 6))
    report = verify_store(store, against=open_scene(files))
    assert report.failures == []
    assert describe(store).facts["chunks"] == report.chunks == 4
    for t in range(6):
        one = read_pixels(describe(store), slice(t, t + 1), slice(0, 16), slice(0, 32))
        np.testing.assert_array_equal(one, pixels_in(tmp_path, t, t + 1))


def test_a_store_whose_times_lie_in_short_chunks(tmp_path):
    """As eozip wrote them before there was an append."""
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    attributes, values = dict(group["time"].attrs), group["time"][:]
    shutil.rmtree(store / "time")
    array = group.create_array(
        "time", shape=(2,), chunks=(2,), dtype="i8", dimension_names=["time"], attributes=attributes
    )
    array[:] = values
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)
    for first, stop in ((2, 3), (3, 7)):
        grow(store, dates(tmp_path, first, stop))
        assert list(opened(store).time.dt.strftime("%Y%m%d").values) == DAYS[:stop]


def test_a_short_group_grows_without_its_neighbours_being_touched(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 5), store, Coarse.id, quality=50, gop=4)
    before = snapshot(store)
    times = {key: (store / key).stat().st_mtime_ns for key in before}
    summary = grow(store, dates(tmp_path, 5, 10))
    assert summary.groups == [3, 2]
    changed = {key for key, at in times.items() if (store / key).stat().st_mtime_ns != at}
    documents = {"zarr.json", "eozip/zarr.json", "reflectance/zarr.json", "time/zarr.json", "time/c/0"}
    assert changed == {"reflectance/c/1/0/0/0", *documents}
    assert set(snapshot(store)) - set(before) == {"reflectance/c/2/0/0/0"}


def test_a_bound_on_the_error_holds_for_new_dates(tmp_path):
    store, files = tmp_path / "s.zarr", dates(tmp_path, 0, 5)
    scene = open_scene(files[:2])
    wanted = make_request(scene, Coarse.id, quality=30, max_error=9)
    encode_store(scene, store, wanted.codec, order=wanted.order, facts=wanted.facts, chunk=None, gop=3)
    counted = ("chunks_with_residual_layer", "chunks_without_network")
    first = sum(describe(store).facts[name] for name in counted)
    grow(store, files[2:])
    assert first == 1
    assert sum(describe(store).facts[name] for name in counted) == 3
    assert np.abs(pixels_of(store).astype(int) - pixels_in(tmp_path, 0, 5)).max() <= 9
    assert verify_store(store, against=open_scene(files)).failures == []
    with pytest.raises(InputError, match="max_error: expected 9"):
        grow(store, date_file(tmp_path, 5), asked={"max_error": 8})


# --- what is refused ---


def test_dates_that_are_not_later_are_refused(tmp_path):
    store = tmp_path / "s.zarr"
    files = dates(tmp_path, 0, 4)
    make_store(files[1:3], store)
    before = snapshot(store)
    for wrong in (files[:1], files[2:3], [files[1], files[3]]):
        with pytest.raises(
            InputError, match=r"expected dates after the store's last, 2021-07-03.*got 2021-07-0"
        ):
            grow(store, wrong)
    write_tif(tmp_path / "undated.tif", scene_pixels(0, (12, 24, 40)), NAMES)
    with pytest.raises(InputError, match="neither its file name nor its tags tell"):
        grow(store, tmp_path / "undated.tif")
    assert snapshot(store) == before


def snapshot(store: Path) -> dict[str, bytes]:
    if store.is_file():
        return {"": store.read_bytes()}
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"transform": rasterio.transform.Affine(10, 0, 399970, 0, -10, 5300040)}, "transform"),
        ({"crs": "EPSG:32634"}, "crs"),
        ({"nodata": 7}, "nodata"),
        ({"dn": scene_pixels(3, (12, 24, 41))}, "width"),
        ({"dn": scene_pixels(3, (12, 25, 40))}, "height"),
        ({"dn": scene_pixels(3, (12, 24, 40), "int16")}, "dtype"),
        ({"dn": scene_pixels(3, (11, 24, 40)), "names": NAMES[:11]}, "band_names"),
    ],
)
def test_another_grid_is_refused_by_name(tmp_path, options, field):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store)
    before = snapshot(store)
    with pytest.raises(InputError, match=rf"{field}: expected .* got"):
        grow(store, date_file(tmp_path, 3, **options))
    assert snapshot(store) == before


@pytest.mark.parametrize(
    "asked", [{"codec": "lossless"}, {"quality": 60}, {"target_psnr": 40.0}, {"nodata": 5}, {"offset": 1000}]
)
def test_another_encoding_is_refused_by_name(tmp_path, asked):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store, Coarse.id, quality=50)
    with pytest.raises(InputError, match=rf"{next(iter(asked))}: expected .* got"):
        grow(store, dates(tmp_path, 2, 3), asked=asked)
    same = {"codec": Coarse.id, "quality": 50, "nodata": 0, "offset": 0, "target_psnr": None}
    assert grow(store, dates(tmp_path, 2, 3), asked=same).shape[0] == 3


def test_other_weights_are_refused(tmp_path, monkeypatch):
    make_store(dates(tmp_path, 0, 2), tmp_path / "s.zarr", Coarse.id, quality=50)
    registry.REGISTRY.add(Coarse.id, Coarse)
    monkeypatch.setattr(Coarse, "weights_hash", b"others!!")
    with pytest.raises(WeightsError, match=b"coarse!!".hex()):
        grow(tmp_path / "s.zarr", dates(tmp_path, 2, 3))


def test_bands_in_another_order_find_their_places(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store)
    dn = scene_pixels(2, (12, 24, 40))
    grow(store, date_file(tmp_path, 2, dn[::-1], names=NAMES[::-1]))
    np.testing.assert_array_equal(pixels_of(store)[2], dn)


def test_a_source_with_its_bands_reversed(tmp_path):
    store = tmp_path / "s.zarr"
    files = [date_file(tmp_path, t, scene_pixels(t, (12, 24, 40))[::-1], names=NAMES[::-1]) for t in range(3)]
    make_store(files[:2], store)
    grow(store, files[2])
    np.testing.assert_array_equal(pixels_of(store), [scene_pixels(t, (12, 24, 40)) for t in range(3)])
    decode_store(store, tmp_path / "b.tif", dates=[3])
    assert everything(tmp_path / "b.tif") == everything(files[2])


def test_dates_that_nobody_knows_count_on(tmp_path):
    for name in "abc":
        write_tif(tmp_path / f"{name}.tif", scene_pixels(ord(name), (12, 24, 40)), NAMES)
    store = tmp_path / "s.zarr"
    make_store([tmp_path / "a.tif", tmp_path / "b.tif"], store)
    grow(store, tmp_path / "c.tif")
    assert opened(store).time.values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(pixels_of(store)[2], scene_pixels(ord("c"), (12, 24, 40)))


def test_another_array_along_time_is_refused(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store)
    zarr.open_group(store).create_array("clouds", shape=(2,), dtype="u1", dimension_names=["time"])
    with pytest.raises(FormatError, match="clouds"):
        grow(store, dates(tmp_path, 2, 3))


def test_no_store_and_old_stores_are_named(tmp_path):
    files = dates(tmp_path, 0, 3)
    with pytest.raises(FormatError, match="neither"):
        grow(tmp_path / "none.zarr", files)
    make_store(files[:2], tmp_path / "s.zarr")
    change_record(tmp_path / "s.zarr", lambda record: record["eozip"].pop("valid_pixels"))
    with pytest.raises(FormatError, match="valid_pixels"):
        grow(tmp_path / "s.zarr", files[2:])


def test_damaged_coordinates_are_named_or_made_good(tmp_path):
    make_store(dates(tmp_path, 0, 2), tmp_path / "s.zarr")
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "t.zarr")
    (tmp_path / "s.zarr/time/zarr.json").write_text("{")
    with pytest.raises(FormatError, match=r"time/zarr\.json.*JSON"):
        grow(tmp_path / "s.zarr", dates(tmp_path, 2, 3))
    (tmp_path / "t.zarr/time/c/0").unlink()
    grow(tmp_path / "t.zarr", dates(tmp_path, 2, 3))
    assert list(opened(tmp_path / "t.zarr").time.dt.strftime("%Y%m%d").values) == DAYS[:3]


# --- cut off ---


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing cleans up behind it."""


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupt_leaves_the_store_as_it_was(tmp_path, ending):
    store = tmp_path / f"s{ending}"
    make_store(dates(tmp_path, 0, 3), store, Coarse.id, quality=50)
    before = snapshot(store)
    files = dates(tmp_path, 3, 6)
    names = listed(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(store, files, progress=interrupt)
    assert snapshot(store) == before
    assert listed(tmp_path) == names


def test_a_kill_at_any_rename_leaves_the_old_dates_readable(tmp_path, monkeypatch):
    """Every state between the first and the last rename, opened by each kind of reader, then appended to again."""
    base = tmp_path / "base.zarr"
    old, new = dates(tmp_path, 0, 3), dates(tmp_path, 3, 6)
    make_store(old, base, Coarse.id, quality=50, chunk=None)
    before = pixels_of(base)
    shutil.copytree(base, tmp_path / "whole.zarr")
    grow(tmp_path / "whole.zarr", new)
    after = pixels_of(tmp_path / "whole.zarr")
    replace, steps = os.replace, 0
    while True:
        store = tmp_path / f"cut{steps}.zarr"
        shutil.copytree(base, store)
        left = [steps]

        def dying(source, target, left=left):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            replace(source, target)

        monkeypatch.setattr(container.os, "replace", dying)
        try:
            grow(store, new)
        except Killed:
            monkeypatch.setattr(container.os, "replace", replace)
            np.testing.assert_array_equal(pixels_of(store), before)
            decode_store(store, tmp_path / f"back{steps}")
            assert len(listed(tmp_path / f"back{steps}")) == 3
            assert verify_store(store, against=open_scene(old)).failures == []
            grow(store, new)
            np.testing.assert_array_equal(pixels_of(store), after)
            assert verify_store(store, against=open_scene(old + new)).failures == []
            steps += 1
        else:
            break
    assert steps >= 6  # shards, the coordinate, three documents


def test_two_at_once_do_not_lose_dates(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 2), store)
    first, second = dates(tmp_path, 2, 3), dates(tmp_path, 3, 4)

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(OutputError, match="another eozip"):
            grow(store, second)

    grow(store, first, progress=meanwhile)
    assert [date[:10] for date in describe(store).dates] == ["2021-07-01", "2021-07-02", "2021-07-03"]
    np.testing.assert_array_equal(pixels_of(store)[2], pixels_in(tmp_path, 2, 3)[0])


# --- reading, costs ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_date_reads_its_group_alone(tmp_path, ending):
    store = tmp_path / f"s{ending}"
    make_store(dates(tmp_path, 0, 5), store, Coarse.id, quality=100, gop=4, chunk=None)
    grow(store, dates(tmp_path, 5, 7))
    description = describe(store)
    assert description.groups == (4, 1, 2)
    for date, group in ((1, (0, 4)), (4, (4, 5)), (5, (5, 7)), (6, (5, 7))):
        with open_pixels(description) as pixels:
            strips = list(pixels.strips([date]))
            read = pixels.files.bytes_read
        (stream,) = group_streams(description, group)
        index = 16 + 4
        header_before = HEAD if group == (5, 7) else 0
        assert len(stream) > 4 * HEAD
        assert read == len(stream) + index + header_before
        assert all(strip.times[0] <= date < strip.times[1] for strip in strips)
        whole = read_pixels(description, slice(*group), slice(0, 24), slice(0, 40))
        np.testing.assert_array_equal(strips[0].pixels[date - strips[0].times[0]], whole[date - group[0]])


def group_streams(description, group: tuple[int, int]) -> list[bytes]:
    with open_pixels(description) as pixels:
        found = []
        for index in pixels.description.grid.shards():
            shard = pixels.shard(index)
            for position in shard.positions():
                for piece in shard.pieces(position):
                    first = index[0] * description.grid.chunk[0]
                    if (first + piece.dates.start, first + piece.dates.stop) == group:
                        found.append(piece.data)
    return found


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_the_command(tmp_path):
    store = tmp_path / "s.zarr.zip"
    files = dates(tmp_path, 0, 4)
    run("encode", files[0], files[1], store, "--codec", "coarse", "--quality", 50, "--gop", 2)
    text = run("append", store, files[2], files[3], "--quality", 50, "--codec", "coarse").stdout
    assert "2 dates more, in groups of 2; now 4" in text
    info = json.loads(run("info", store, "--json").stdout)
    assert info["groups"] == [2, 2]
    assert len(info["date_psnr"]) == len(info["date_bits"]) == 4
    assert "2021-07-04" in run("info", store).stdout
    report = run("verify", store, *(f"--against={path}" for path in files)).stdout
    assert "  2021-07-03  " in report
    assert "quality" in run("append", store, date_file(tmp_path, 4), "--quality", 60, code=1).stderr
    assert "after the store's last" in run("append", store, files[3], code=1).stderr
    run("append", tmp_path / "none.zarr", files[3], code=1)
    run("append", store, code=2)


def test_dates_of_a_group_that_the_codec_tells_apart_cost_what_their_streams_take(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 3), store, "tec-tt-small", quality=50, gop=3)
    bits = describe(store).facts["date_bits"]
    assert min(bits) > 0
    assert sum(bits) == pytest.approx(
        sum(8 * len(data) for data in group_streams(describe(store), (0, 3))), abs=1
    )  # each is rounded
    said = run("info", store).stdout
    assert re.search(r"^groups: +1 group of 3 dates$", said, re.MULTILINE)
    assert "T00:00:00" not in said
    assert "unknown" not in said


def test_a_codec_that_tells_no_dates_apart_says_so_once(tmp_path):
    make_store(dates(tmp_path, 0, 3), tmp_path / "s.zarr", Coarse.id, quality=50, gop=2)
    said = run("info", tmp_path / "s.zarr").stdout
    assert said.count("does not tell dates of a group apart") == 1


def test_bits_by_date(tmp_path):
    """Groups of one date are known exactly; those of several only if the codec tells."""
    store = tmp_path / "s.zarr"
    make_store(dates(tmp_path, 0, 3), store, Coarse.id, quality=50, gop=2)
    grow(store, dates(tmp_path, 3, 5))
    bits = describe(store).facts["date_bits"]
    assert bits[:2] == [None, None]
    for t in (2, 3, 4):
        streams = group_streams(describe(store), (t, t + 1))
        assert bits[t] == sum(8 * len(data) for data in streams)
    assert eozip.inspect(streams[0]).header.shape[0] == 1
