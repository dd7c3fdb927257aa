"""Dates that join those of a store's short last group: cheap, in any order, and old pixels stay to the bit."""

from __future__ import annotations

import json
import os
import shutil
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import eozip
from archivefiles import one_cluster, write_items
from eozip.cli import cli
from eozip.errors import EozipError
from eozip.raster import open_scene
from eozip.raster.masks import open_mask, parse_mask
from eozip.store import append_store, container, decode_store, describe, verify_store
from eozip.store.pixels import open_pixels, read_dropped, read_pixels
from objectstore import s3_server
from productstores import a_product, pixels, store_product
from pyramidscenes import season
from rasterfiles import everything, write_tif
from storefiles import NAMES, make_store, opened

SERIES = "tec-tt-small"
DAYS = [f"202107{day:02}" for day in range(1, 10)]
SHARD = "reflectance/c/0/0/0/0"


def dates(folder: Path, count: int, size=(24, 40)) -> list[Path]:
    """Dates that tell of each other, with some nodata and a value out of range."""
    folder.mkdir(exist_ok=True)
    dn = season((count, 12, *size), {}, 2)
    dn[:, :, : size[0] // 5, : size[1] // 4] = 0
    dn[0, 0, -1, -1] = 30_000
    paths = [folder / f"tile_{day}.tif" for day in DAYS[:count]]
    for path, own in zip(paths, dn, strict=True):
        write_tif(path, own, NAMES)
    return paths


def made(paths, out: Path, **options):
    return make_store(paths, out, SERIES, **{"quality": 50, "gop": 4, "chunk": None, **options})


def pixels_of(store: Path) -> np.ndarray:
    """By plain zarr."""
    return opened(store).reflectance.values


def streams_in(store: Path | str) -> list[list[int]]:
    """Dates of each stream, chunk by chunk."""
    with open_pixels(describe(store)) as found:
        return [
            [len(stream.dates) for stream in shard.streams(position)]
            for index in found.description.grid.shards()
            if (shard := found.shard(index)) is not None
            for position in shard.positions()
        ]


def run(*arguments) -> str:
    """What a command says on stdout."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def snapshot(store: Path) -> dict[str, bytes]:
    if store.is_file():
        return {"": store.read_bytes()}
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("steps", "ending"),
    [((1, 1, 1, 1), ".zarr.zip"), *((steps, ".zarr") for steps in ((1, 3), (3, 1), (2, 2), (3, 4, 2)))],
)
def test_any_order_of_appends(tmp_path, steps, ending):
    store, paths = tmp_path / f"s{ending}", dates(tmp_path / "in", sum(steps), (24, 48))
    made(paths[: steps[0]], store, chunk=16)
    for first, stop in pairwise(accumulate(steps)):
        before = pixels_of(store)
        append_store(store, open_scene(paths[first:stop]))
        np.testing.assert_array_equal(pixels_of(store)[:first], before)
    after, found = pixels_of(store), describe(store)
    assert sum(found.groups) == sum(steps)
    assert max(map(len, streams_in(store))) == 1
    np.testing.assert_array_equal(xr.open_dataset(store, engine="eozip").reflectance, after)
    for t in range(len(after)):
        one = read_pixels(found, slice(t, t + 1), slice(3, 20), slice(10, 40))
        np.testing.assert_array_equal(one[0], after[t, :, 3:20, 10:40])
    report = verify_store(store, against=open_scene(paths))
    assert report.failures == []
    assert report.psnr == pytest.approx(found.facts["psnr"], abs=1e-6)
    np.testing.assert_allclose(report.date_psnr, found.facts["date_psnr"], atol=1e-9)
    assert min(found.facts["date_bits"]) > 0


def test_many_appends_cost_little_more_than_one(tmp_path):
    paths = dates(tmp_path / "in", 5, (64, 64))[1:]  # a clear date first

    def chunks(name: str, *more, groups: int = 1) -> int:
        made(paths[: 5 - groups - len(more)] if more else paths, tmp_path / name)
        for one in more:
            append_store(tmp_path / name, open_scene(one))
        return (tmp_path / name / SHARD).stat().st_size

    whole, single = chunks("a.zarr"), chunks("b.zarr", *paths[1:])
    assert single < 1.1 * whole
    assert sum(made([path], tmp_path / f"{path.stem}.zarr").bytes > 0 for path in paths) == 4
    apart = sum((tmp_path / f"{path.stem}.zarr" / SHARD).stat().st_size for path in paths)
    assert single < 0.8 * apart


def test_a_kill_at_any_rename_leaves_the_old_dates_readable(tmp_path, monkeypatch):
    base, paths = tmp_path / "base.zarr", dates(tmp_path / "in", 6)
    made(paths[:2], base)
    before = pixels_of(base)
    shutil.copytree(base, tmp_path / "whole.zarr")
    append_store(tmp_path / "whole.zarr", open_scene(paths[2:]))
    expected = snapshot(tmp_path / "whole.zarr")
    replace, steps = os.replace, 0
    while True:
        store, left = tmp_path / f"cut{steps}.zarr", [steps]
        shutil.copytree(base, store)

        def dying(source, target, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(source, target)

        monkeypatch.setattr(container.os, "replace", dying)
        try:
            append_store(store, open_scene(paths[2:]))
        except KeyboardInterrupt:
            monkeypatch.setattr(container.os, "replace", replace)
        else:
            break
        np.testing.assert_array_equal(pixels_of(store), before)
        np.testing.assert_array_equal(xr.open_dataset(store, engine="eozip").reflectance, before)
        found = describe(store)
        np.testing.assert_array_equal(
            read_pixels(found, slice(1, 2), slice(0, 24), slice(0, 40))[0], before[1]
        )
        assert read_dropped(found).shape[0] == 2
        coarse = xr.open_dataset(store, engine="eozip", resolution=40).reflectance
        assert coarse.shape == (2, 12, 6, 10)
        assert np.isfinite(coarse.values).all()
        decode_store(store, tmp_path / f"back{steps}")
        assert verify_store(store, against=open_scene(paths[:2])).failures == []
        append_store(store, open_scene(paths[2:]))
        assert snapshot(store) == expected
        steps += 1
    assert steps >= 6


def test_dates_left_by_a_kill_make_room_for_others(tmp_path):
    """The old stream holds a date that the store does not show, and what comes now cannot join it."""
    store, paths = tmp_path / "s.zarr", dates(tmp_path / "in", 3)
    made(paths[:1], store)
    before, old = pixels_of(store), snapshot(store)
    append_store(store, open_scene(paths[1:2]))
    for key in set(old) - {SHARD}:
        (store / key).write_bytes(old[key])
    assert describe(store).grid.shape[0] == 1
    append_store(store, open_scene(paths[2:]))
    np.testing.assert_array_equal(pixels_of(store)[0], before[0])
    assert streams_in(store) == [[2]]
    plain = tmp_path / "plain.zarr"
    made(paths[:1], plain)
    append_store(plain, open_scene(paths[2:]))
    assert (plain / SHARD).read_bytes() == (store / SHARD).read_bytes()


@pytest.mark.parametrize("at", [30, 400, -40])
def test_a_damaged_old_stream_is_named_and_nothing_is_written(tmp_path, at):
    store, paths = tmp_path / "s.zarr", dates(tmp_path / "in", 3)
    made(paths[:2], store)
    data = bytearray((store / SHARD).read_bytes())
    data[at] ^= 4
    (store / SHARD).write_bytes(data)
    before, names = snapshot(store), sorted(tmp_path.iterdir())
    with pytest.raises(EozipError, match=r"shard c/0/0/0/0"):
        append_store(store, open_scene(paths[2:]))
    assert snapshot(store) == before
    assert sorted(tmp_path.iterdir()) == names


def test_fewer_dates_than_the_store_shows_are_named(tmp_path):
    store, paths = tmp_path / "s.zarr", dates(tmp_path / "in", 3)
    made(paths[:1], store)
    shard = (store / SHARD).read_bytes()
    append_store(store, open_scene(paths[1:2]))
    (store / SHARD).write_bytes(shard)
    before = snapshot(store)
    with pytest.raises(EozipError, match="expected streams of 2 dates, got 1"):
        append_store(store, open_scene(paths[2:]))
    assert snapshot(store) == before


def test_places_of_nothing_break_no_series(tmp_path):
    """A chunk without any data at one date, as beside a swath."""
    store, files = tmp_path / "s.zarr", []
    for number in range(4):
        dn = season((4, 12, 32, 64), {}, 3)[number]
        dn[..., :32] *= number != 1
        dn[..., 32:] *= number > 1
        files.append(tmp_path / f"tile_{DAYS[number]}.tif")
        write_tif(files[-1], dn, NAMES)
    made(files[:1], store, chunk=32)
    for path in files[1:]:
        append_store(store, open_scene(path))
    assert streams_in(store) == [[4], [2, 2]]
    report = verify_store(store, against=open_scene(files))
    assert report.failures == []
    zeros = np.stack([everything(path)["pixels"] for path in files]) == 0
    np.testing.assert_array_equal(pixels_of(store) == 0, zeros)


def test_native_grids_and_offsets(tmp_path):
    """Dates of another offset follow in a stream of their own; those after them join that one."""
    store, parts = tmp_path / "s.zarr", []
    for k, offset in enumerate((0, 0, 1000, 1000)):
        parts.append(a_product(tmp_path / f"in{k}", [DAYS[k]], offsets=(offset,)))
    store_product(parts[0], store, SERIES, quality=50)
    for part in parts[1:]:
        before = pixels_of(store)
        append_store(store, part)
        np.testing.assert_array_equal(pixels_of(store)[: len(before)], before)
    assert {tuple(one) for one in streams_in(store)} == {(2, 2)}
    assert verify_store(store).failures == []
    got = pixels_of(store)
    assert np.abs(got[3, 1:4].astype(int) - pixels(10, 0, offset=1000)[:3]).mean() < 60


def test_masks_and_places(tmp_path):
    store, paths = tmp_path / "s.zarr", dates(tmp_path / "in", 4, (48, 64))
    made(paths[:1], store)
    mask = np.zeros((1, 48, 64), np.uint8)
    mask[:, 8:40, 16:56] = 1
    write_tif(tmp_path / "mask.tif", mask, ("M",))
    with open_mask(parse_mask(str(tmp_path / "mask.tif")), (1, 48, 64)) as drop:
        append_store(store, open_scene(paths[1:2]), drop=drop)
    append_store(store, open_scene(paths[2:]))
    assert streams_in(store) == [[4]]
    hidden = read_dropped(describe(store))
    assert hidden[1, 8:40, 16:56].all()
    assert hidden.sum() == 32 * 40
    assert describe(store).facts["date_dropped"] == [0, 32 * 40, 0, 0]
    assert verify_store(store, against=open_scene(paths)).failures == []


def test_an_object_store_gets_the_same_bytes(tmp_path):
    paths = dates(tmp_path / "in", 3)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as server:
        for where in (tmp_path / "a.zarr", f"{server.url}/a.zarr"):
            made(paths[:1], where)
            for path in paths[1:]:
                eozip.append_store(where, [path])
        assert streams_in(f"{server.url}/a.zarr") == [[3]]
        here, there = (describe(where) for where in (tmp_path / "a.zarr", f"{server.url}/a.zarr"))
        window = slice(0, 3), slice(0, 24), slice(0, 40)
        np.testing.assert_array_equal(read_pixels(here, *window), read_pixels(there, *window))


def test_archives_let_dates_join(tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    asked = {"codec": SERIES, "quality": 50, "gop": 4}
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch):
        for path in paths:
            assert eozip.archive([str(path)], tmp_path / "out", **asked).ok
    (store,) = (tmp_path / "out").glob("*.zarr")
    assert {tuple(one) for one in streams_in(store)} == {(3,)}
    assert verify_store(store, against=open_scene(paths)).failures == []


@pytest.mark.parametrize("ending", [".zarr", ".zarr.zip"])
def test_what_is_open_reads_on_after_an_append(tmp_path, ending):
    store, paths = tmp_path / f"s{ending}", dates(tmp_path / "in", 5)
    made(paths[:2], store, chunk=16)
    before = pixels_of(store)
    with xr.open_dataset(store, engine="eozip", cache=False) as opened_before:
        np.testing.assert_array_equal(opened_before.reflectance[0, :, :10, :10], before[0, :, :10, :10])
        append_store(store, open_scene(paths[2:]))
        np.testing.assert_array_equal(opened_before.reflectance[1], before[1])
        np.testing.assert_array_equal(opened_before.reflectance, before)


def test_dates_of_many_bits_join_where_that_is_smaller(tmp_path):
    rng, store = np.random.default_rng(0), tmp_path / "s.zarr"
    place = rng.normal(9000, 2500, (12, 16, 40))
    paths = [tmp_path / f"tile_{day}.tif" for day in DAYS[:3]]
    for path in paths:
        write_tif(path, (place + rng.normal(0, 700, place.shape)).clip(1, 19_000).astype(np.uint16), NAMES)
    made(paths[:1], store, quality=99)
    append_store(store, open_scene(paths[1:]))
    assert sum(describe(store).facts["date_bits"][1:]) > 4 * 2 * place.size
    assert streams_in(store) == [[3]]
    assert verify_store(store, against=open_scene(paths)).failures == []


def test_under_a_target_dates_join_where_the_quality_of_those_before_reaches_it(tmp_path):
    store, first = tmp_path / "s.zarr", season((1, 12, 48, 64), {}, 2)[0]
    noise = np.random.default_rng(0).normal(0, 300, first.shape)
    paths = [tmp_path / f"tile_{day}.tif" for day in DAYS[:3]]
    for path, dn in zip(paths, (first, first + 5, first + noise), strict=True):
        write_tif(path, dn.clip(1, 9000).astype(np.uint16), NAMES)
    made(paths[:1], store, quality=None, target_psnr=38)
    for path in paths[1:]:
        before = pixels_of(store)
        append_store(store, open_scene(path))
        np.testing.assert_array_equal(pixels_of(store)[: len(before)], before)
    assert streams_in(store) == [[2, 1]]
    found = describe(store).facts
    assert min(found["date_psnr"]) >= 38
    assert found["chunks_below_target"] == 0
    assert verify_store(store, against=open_scene(paths)).failures == []


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"target_psnr": 40}, "the quality of those misses the target PSNR, or takes more bytes"),
        ({"max_error": 60}, "a largest error corrects each group by itself"),
        ({"purposes": "psnr>=40"}, "purposes give each group a quality of its own"),
        ({"codec": "tec-elic-small"}, "dates cannot join those of tec-elic-small-any-v1"),
        ({"codec": "lossless"}, "dates cannot join those of lossless"),
    ],
)
def test_an_append_says_why_dates_stay_apart(tmp_path, asked, why):
    store, paths = tmp_path / "s.zarr", dates(tmp_path / "in", 2)
    noise = np.random.default_rng(0).integers(1, 9000, (12, 24, 40)).astype(np.uint16)  # as hard as can be
    write_tif(paths[1], noise, NAMES)
    eozip.encode_store(paths[0], store, **asked)
    said = run("append", store, paths[1])
    assert f"  coded without knowledge of the dates before them: {why}" in said.splitlines()


def test_an_append_says_how_many_chunks_were_joined(tmp_path):
    store, paths = tmp_path / "s.zarr", dates(tmp_path / "in", 7, (24, 48))
    made(paths[:1], store, chunk=16)
    told = [json.loads(run("append", store, path, "--json")) for path in paths[1:6]]
    counts = [(one["joined"], one["apart"], one["why_apart"]) for one in told]
    joined = (counts[0][0], 0, None)
    assert counts == [joined] * 3 + [(0, 0, None), joined]
    assert joined[0] >= 3
    assert "knowledge" not in run("append", store, paths[6])


def test_a_store_that_begins_with_one_date_lets_others_join_it(tmp_path):
    paths, shards = dates(tmp_path / "in", 3), []
    for codec, streams in ((None, [[3]]), ("tec-elic-small", [[1, 1, 1]])):
        store = tmp_path / f"{codec}.zarr"
        eozip.encode_store(paths[0], store, codec, quality=50)
        shards.append((store / SHARD).stat().st_size)
        for path in paths[1:]:
            eozip.append_store(store, path)
        assert streams_in(store) == streams
        assert verify_store(store, against=open_scene(paths)).failures == []
    assert shards[0] == shards[1]
