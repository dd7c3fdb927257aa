"""Reading some dates of a group decodes no more of its stream than they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eozip.codecs.pyramid import walk
from eozip.store import open_source, windows
from eozip.store.description import describe
from eozip.store.pixels import read_pixels
from storefiles import make_store, write_dates

DATES = [f"2021-0{month}-01T10:00:00" for month in range(1, 9)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dates")
    make_store(write_dates(folder, dates=DATES), folder / "s.zarr", "tec-tt-small", quality=40, gop=8)
    return folder / "s.zarr"


@pytest.mark.parametrize("date", [0, 7, 4])
def test_one_date_is_what_the_whole_has_and_needs_few(
    store: Path, date: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = describe(store)
    rows, columns = slice(0, found.grid.shape[2]), slice(0, found.grid.shape[3])
    whole = read_pixels(found, slice(0, len(DATES)), rows, columns)
    walked: dict[int, set[int]] = {}  # of each chunk, which has an order of its own
    walks: list[walk.Walk] = []
    ladder = walk.Walk._ladder

    def noting(self: walk.Walk, k: int, dates: list[int], *others: object) -> object:
        walks.append(self)
        walked.setdefault(id(self), set()).update(dates)
        return ladder(self, k, dates, *others)

    monkeypatch.setattr(walk.Walk, "_ladder", noting)
    one = read_pixels(found, slice(date, date + 1), rows, columns)
    assert walked
    for needed in walked.values():
        assert date in needed
        assert len(needed) <= 2 + 3 < len(DATES)  # the order of time in chunks of few pixels; else fewer
    assert np.array_equal(one[0], whole[date])


def test_a_window_of_one_date_decodes_few_and_of_others_all_of_them_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = describe(store)
    size = [slice(0, side) for side in found.grid.shape[2:]]
    whole = read_pixels(found, slice(0, len(DATES)), *size)
    asked: list[object] = []
    decode = windows.api.decode
    monkeypatch.setattr(
        windows.api, "decode", lambda *a, dates=None, **k: asked.append(dates) or decode(*a, dates=dates, **k)
    )
    bands = range(found.grid.shape[1])
    with open_source(store) as source:
        for date in (5, 5, 2, 7, 5):
            assert np.array_equal(source.pixels([date], bands, *size)[0], whole[date])
    chunks = len(asked) // 2
    assert asked == [[5]] * chunks + [None] * chunks
    asked.clear()
    with open_source(store) as source:
        several = source.pixels([6, 1, 6], bands, *size)
        most = source.pixels([7, 0, 1, 2, 3], bands, *size)
    assert np.array_equal(several, whole[[6, 1, 6]])
    assert np.array_equal(most, whole[[7, 0, 1, 2, 3]])
    assert asked == [[1, 6]] * chunks + [None] * chunks
