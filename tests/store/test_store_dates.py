"""Reading some dates of a group decodes no more of its stream than they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eozip.codecs.pyramid import walk
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
