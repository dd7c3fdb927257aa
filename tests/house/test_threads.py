"""Threads: chunks beside each other with one each; several within a chunk only where it is alone and cores are idle."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from eozip import threads
from eozip.store import describe
from eozip.store.pixels import read_pixels
from storefiles import Coarse, coarse_codec, make_store, scene_pixels, write_dates


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch):
    """As on a machine with four idle cores, where nobody said how many threads there are to be."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # put back afterwards, whatever a test chooses
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "_idle", lambda cores: cores)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Threads that torch has while chunks are coded."""
    counts: list[int] = []
    encode, decode = Coarse.encode, Coarse.decode

    def count(function):
        def counted(*arguments):
            counts.append(torch.get_num_threads())
            return function(*arguments)

        return counted

    monkeypatch.setattr(Coarse, "encode", count(encode))
    monkeypatch.setattr(Coarse, "decode", count(decode))
    with coarse_codec():
        yield counts


def test_several_items_have_one_thread_each_and_keep_their_order():
    found = list(threads.each(lambda item: (item, torch.get_num_threads()), range(20), 20))
    assert found == [(item, 1) for item in range(20)]
    assert torch.get_num_threads() == 4


def test_items_are_coded_beside_each_other():
    meeting = threading.Barrier(4)
    list(threads.each(lambda item: meeting.wait(timeout=60), range(4), 4))


def test_a_single_item_has_all_threads():
    assert list(threads.each(lambda item: torch.get_num_threads(), [0], 1)) == [4]


def test_one_thread_asked_for_is_one_thread():
    threads.choose(1)
    here = threading.get_ident()
    assert list(threads.each(lambda item: threading.get_ident(), range(3), 3)) == [here] * 3


def test_items_are_taken_no_faster_than_they_are_coded():
    taken = []
    results = threads.each(lambda item: item, (taken.append(i) or i for i in range(100)), 100)
    next(results)
    assert len(taken) <= 6
    results.close()
    assert torch.get_num_threads() == 4


def test_an_error_of_one_item_ends_the_rest():
    def code(item):
        if item == 3:
            raise OSError("chunk 3")
        return item

    results = threads.each(code, range(1000), 1000)
    with pytest.raises(OSError, match="chunk 3"):
        list(results)
    assert torch.get_num_threads() == 4


def test_a_chunk_alone_leaves_busy_cores_to_others(monkeypatch):
    monkeypatch.setattr(threads, "_idle", lambda cores: 1)
    with threads.alone():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("how", ["choose", "environment"])
def test_a_number_that_somebody_chose_is_kept(monkeypatch, how):
    monkeypatch.setattr(threads, "_idle", lambda cores: 1)
    if how == "choose":
        threads.choose(3)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with threads.alone():
        assert torch.get_num_threads() == (3 if how == "choose" else 4)


@pytest.mark.parametrize(("running", "idle"), [(2, 4), (4, 2), (5, 1), (40, 1)])
def test_busy_cores_are_counted_without_our_own(monkeypatch, tmp_path, running, idle):
    monkeypatch.undo()
    (tmp_path / "loadavg").write_text(f"1.00 1.00 1.00 {running}/99 12345\n")
    monkeypatch.setattr(threads, "_LOAD", str(tmp_path / "loadavg"))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads, "_own_running", lambda: 2)
    assert threads._idle(4) == idle


def test_a_system_that_does_not_tell_has_idle_cores(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(threads, "_LOAD", str(tmp_path / "none"))
    assert threads._idle(4) == 4


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="only Linux lists threads there")
def test_our_own_threads_are_counted():
    assert threads._own_running() >= 1


def test_chunks_of_one_store_are_encoded_with_one_thread_each(tmp_path: Path, seen):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 4


def test_the_only_chunk_of_a_store_has_all_threads(tmp_path: Path, seen):
    make_store(write_dates(tmp_path)[:1], tmp_path / "s.zarr", Coarse.id, chunk=64)
    assert set(seen) == {4}


def test_windows_of_a_store_are_read_with_one_thread_a_chunk(tmp_path: Path, seen):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id)
    del seen[:]
    whole = read_pixels(describe(tmp_path / "s.zarr"), slice(0, 3), slice(0, 50), slice(0, 41))
    assert set(seen) == {1}
    np.testing.assert_array_equal(whole, xr.open_zarr(tmp_path / "s.zarr").reflectance.values)
    del seen[:]
    read_pixels(describe(tmp_path / "s.zarr"), slice(0, 1), slice(0, 4), slice(0, 4))
    assert seen == [4]


def test_a_chunk_that_xarray_reads_alone_has_all_threads(tmp_path: Path, seen, monkeypatch):
    # zarr's threads outlive tests, and each keeps the number that torch told it first
    number = [4]
    monkeypatch.setattr(torch, "set_num_threads", lambda n: number.__setitem__(0, n))
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id)
    del seen[:]
    _ = xr.open_zarr(tmp_path / "s.zarr", chunks=None).reflectance[0, :, :4, :4].values
    assert seen == [4]


def test_stores_are_the_same_bytes_whatever_the_threads(tmp_path: Path):
    paths = write_dates(tmp_path)
    with coarse_codec():
        make_store(paths, tmp_path / "many.zarr.zip", Coarse.id)
        threads.choose(1)
        make_store(paths, tmp_path / "one.zarr.zip", Coarse.id)
    assert (tmp_path / "many.zarr.zip").read_bytes() == (tmp_path / "one.zarr.zip").read_bytes()


def test_a_desk_gives_all_threads_to_a_chunk_that_is_alone():
    desk = threads.Desk(4)
    with desk.announced(), desk.turn(network=True):
        assert torch.get_num_threads() == 4
    with desk.announced(), desk.announced(), desk.turn(network=True):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


def test_nothing_was_lost_of_the_pixels(tmp_path: Path):
    paths = write_dates(tmp_path)
    make_store(paths, tmp_path / "s.zarr", "lossless")
    pixels = xr.open_zarr(tmp_path / "s.zarr").reflectance.values
    np.testing.assert_array_equal(pixels, np.stack([scene_pixels(seed) for seed in (1, 0, 2)]))
