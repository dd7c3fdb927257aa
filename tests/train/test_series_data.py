"""Series of dates that tec-tt and flextec are trained on: real ones, augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from eozip.errors import InputError
from eozip_lab.train import ssl4eo
from eozip_lab.train.augment import DN_MAX, DN_MIN, Augment
from eozip_lab.train.data import Draw
from eozip_lab.train.data_sources import open_source, open_sources
from eozip_lab.train.loader import feeding
from eozip_lab.train.recipe import DataSource, load
from eozip_lab.train.series import (
    _chosen_dates as chosen_dates,
)
from eozip_lab.train.series import (
    _smoothed,
    augmented_series,
    open_series,
    twelve_bands,
)
from fields import scene
from test_train_data import NAMES, crops, write_shard
from trainfiles import scene as stack_of
from trainfiles import write_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def source(folder: Path, **more) -> DataSource:
    keys = {"kind": "series", "path": str(folder / "train"), "crop": 32, "batch": 2, "dates": 3}
    return DataSource(**keys | more)


def first_crops(opened, count: int) -> list[np.ndarray]:
    crops = opened.crops(Draw(1, 2), np.random.default_rng(0))
    return [next(crops) for _ in range(count)]


def test_series_are_crops_of_one_place_in_order_of_time(folder):
    with np.load(folder / "train" / "fields.npz") as stored:
        stack = stored["a"]
    opened = open_series(source(folder), 12)
    assert opened.facts["kind"] == "series"
    assert opened.facts["dates"] == 3
    assert [p.name for p in opened.files()] == ["fields.npz", "water.npz"]
    for crop in first_crops(opened, 4):
        # only one array has three dates, so all of it is there
        corners = np.argwhere((stack[0, 0] == crop[0, 0, 0, 0]) & (stack[2, 5] == crop[2, 5, 0, 0]))
        assert any(np.array_equal(stack[:, :, i : i + 32, j : j + 32], crop) for i, j in corners)


def test_arrays_without_60_m_bands_are_taken_too(folder):
    np.savez(folder / "train" / "ten.npz", stack=stack_of(np.random.default_rng(4), 3, 96, bands=10))
    opened = open_source(source(folder), [f"B{k}" for k in range(12)])
    assert {a.shape[1] for a in opened.stacks.arrays} == {10, 12}
    assert opened.stacks.chances.sum() == pytest.approx(1)
    for crop in first_crops(opened, 12):
        assert crop.shape == (3, 12, 32, 32)
        assert crop.min() >= DN_MIN
        assert crop.max() <= DN_MAX


def test_too_few_dates_are_refused(folder):
    with pytest.raises(InputError, match="10, H, W"):
        open_series(source(folder, dates=4), 12)
    assert open_series(source(folder, dates=2), 12).dates == 2


def test_chosen_dates_rise_and_stay_within_reach():
    rng = np.random.default_rng(0)
    drawn = np.array([chosen_dates(30, 4, rng) for _ in range(500)])
    assert (np.diff(drawn) > 0).all()
    assert drawn.min() == 0
    assert drawn.max() == 29
    assert (drawn[:, -1] - drawn[:, 0]).max() == 11  # three times as far apart as they could be
    assert np.array_equal(chosen_dates(3, 3, rng), [0, 1, 2])


def test_bands_of_60_m_are_made_of_their_neighbours():
    stack = np.random.default_rng(0).integers(1000, 3000, (2, 10, 24, 24)).astype(np.uint16)
    stack[:, :, :, 20:] = 0
    whole = twelve_bands(stack)
    assert whole.shape == (2, 12, 24, 24)
    assert whole.dtype == np.uint16
    assert np.array_equal(np.delete(whole, (0, 9), 1), stack)
    assert (whole[..., 20:] == 0).all()  # nodata stays nodata
    mean = stack[:, 7, 9:15, 9:15].mean((1, 2))
    assert whole[:, 9, 12, 12] == pytest.approx(mean, abs=1)
    assert (whole[..., :20] > 0).all()
    assert twelve_bands(whole) is whole


def test_smoothing_keeps_a_constant():
    band = np.full((1, 16, 16), 1000, np.uint16)
    assert np.array_equal(_smoothed(band, 0.5), band // 2)


def test_augmentation_turns_all_dates_alike():
    crop = np.repeat(scene(1, 24, 24), 3, 0)
    plain = Augment(brightness=0.0, band=0.0, bright_share=0.0, cloud_share=0.0)
    for seed in range(8):
        turned = augmented_series(crop, np.random.default_rng(seed), plain)
        assert np.array_equal(turned[0], turned[1])
        assert np.array_equal(turned[0], turned[2])
        assert np.array_equal(np.sort(turned[0].ravel()), np.sort(crop[0].ravel()))
    clouds = [
        augmented_series(crop, np.random.default_rng(s), replace(plain, cloud_share=0.5)) for s in range(8)
    ]
    # brighter than the others, date by date
    covered = np.array([series.mean((1, 2, 3)) > crop.mean() + 100 for series in clouds])
    assert 0 < covered.sum() < covered.size
    assert (covered.any(1) & ~covered.all(1)).any()


# --- seasons of SSL4EO-S12 v1.1 ---


def shards(folder: Path, **more) -> DataSource:
    return source(folder, kind="ssl4eo-series", path=str(folder), **more)


def test_ssl4eo_series_are_seasons_of_one_place_in_their_order(tmp_path):
    bands = write_shard(tmp_path / "a.zarr.zip", samples=5)
    opened = open_source(shards(tmp_path, offset=50, steps_per_shard=1), NAMES)
    assert opened.facts["dates"] == 3
    windows = np.lib.stride_tricks.sliding_window_view(bands[:, :, 0], (32, 32), axis=(2, 3))
    drawn = set()
    for step in range(6):
        found = crops(opened, step, 4)
        assert found.shape == (4, 3, 12, 32, 32)
        places, seasons = [], []
        for series in found + 50:
            at = [np.argwhere((windows == date[0]).all((4, 5)))[0] for date in series]
            assert len({(sample, i, j) for sample, _, i, j in at}) == 1
            places.append(at[0][0])
            seasons.append(tuple(int(season) for _, season, *_ in at))
            np.testing.assert_array_equal(
                series, bands[places[-1], list(seasons[-1]), :, at[0][2] :, at[0][3] :][..., :32, :32]
            )
        assert len(set(places)) > 1
        assert len(set(seasons)) == 1  # a step reads as few chunks as it has dates
        assert list(seasons[0]) == sorted(set(seasons[0]))
        drawn |= set(seasons)
    assert len(drawn) > 1
    opened.close()


def counted_reads(monkeypatch) -> list:
    """What is read from shards from now on, chunk by chunk."""
    read, plain = [], ssl4eo._Blocks._fill
    monkeypatch.setattr(ssl4eo._Blocks, "_fill", lambda *args: (read.append(args[1]), plain(*args))[1])
    return read


def test_ssl4eo_series_read_each_chunk_of_a_turn_once(tmp_path, monkeypatch):
    for k in range(3):
        write_shard(tmp_path / f"{k}.zarr.zip", samples=4)
    read = counted_reads(monkeypatch)
    opened = open_source(shards(tmp_path, dates=4, steps_per_shard=4), NAMES)
    first = [crops(opened, step, 3) for step in range(4)]
    assert len(read) == len(set(read)) == 4  # four seasons of one shard
    np.testing.assert_array_equal(first[2], crops(opened, 2, 3))
    opened.close()


def test_threads_have_chunks_in_common(tmp_path, monkeypatch):
    for k in range(3):
        write_shard(tmp_path / f"{k}.zarr.zip", samples=4)
    read = counted_reads(monkeypatch)
    recipe = load("tec-tt-ssl4eo")
    data = shards(tmp_path, dates=4, steps_per_shard=4)
    both = []
    for workers in (1, 4):
        chosen = replace(recipe, data=(data,), workers=workers)
        with feeding(chosen, lambda chosen=chosen: open_sources(chosen, NAMES)) as feed:
            found = feed.batches(0)
            both.append([next(found).numpy() for _ in range(8)])
        # no chunk of a shard is read twice, though later steps may have been prepared too
        assert len(read) == len(set(read)) <= 4 * 3
        read.clear()
    np.testing.assert_array_equal(*both)


def test_a_chunk_that_cannot_be_read_fails_in_every_thread():
    blocks = ssl4eo._Blocks()

    def broken():
        raise OSError("the disk is gone")

    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            blocks.get((Path("x"), 0, 0), broken)
    assert blocks.get((Path("x"), 0, 0), lambda: np.ones(3)).sum() == 3
    assert blocks.nbytes == 24


def test_shards_with_too_few_seasons_are_refused(tmp_path):
    write_shard(tmp_path / "a.zarr.zip", samples=2)
    with pytest.raises(InputError, match="at least 5 dates"):
        open_source(shards(tmp_path, dates=5), NAMES)


def test_series_without_a_measurement_in_one_season_are_not_drawn(tmp_path):
    """Nodata is zero in every band; one season without it is enough to leave the crop out."""
    bands = write_shard(tmp_path / "a.zarr.zip", samples=2, size=32)
    store = zarr.storage.ZipStore(tmp_path / "b.zarr.zip", mode="w")
    group = zarr.open_group(store, mode="w", zarr_format=2)
    bands[0, 1, :, 5, 5] = 0
    array = group.create_array("bands", shape=bands.shape, dtype="int16", chunks=(2, 1, *bands.shape[2:]))
    array[:] = bands
    store.close()
    opened = open_source(shards(tmp_path, only=("b",), dates=4), NAMES)
    for series in crops(opened, 0, 6):
        np.testing.assert_array_equal(series, bands[1])
    opened.close()
