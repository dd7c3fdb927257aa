"""`eozip serve` with dates that are unknown or there twice: originals lie beside the dates that they were encoded to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from eozip.errors import InputError
from eozip.raster import open_scene
from eozip.serve import create_app, open_layers
from eozip.serve.run import start_app
from eozip.store import append_store
from rasterfiles import write_tif
from storefiles import NAMES, make_store, scene_pixels
from test_serve import fetch


def undated(folder: Path, letters: str = "abc") -> list[str]:
    """Files that tell no date, each with pixels of its own."""
    for letter in letters:
        write_tif(folder / f"{letter}.tif", scene_pixels(ord(letter)), NAMES)
    return [str(folder / f"{letter}.tif") for letter in letters]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("undated")
    make_store(undated(made), made / "s.zarr", chunk=64)
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    running = start_app(create_app(open_layers([folder / "s.zarr"], undated(folder))))
    yield running.address
    running.stop()


def errors(address: str, date: int) -> tuple[int, dict]:
    status, body, _ = fetch(f"{address}/layers/0/histogram.json", date=date, error=1, bands="B04,B03,B02")
    return status, json.loads(body)


@pytest.mark.parametrize("date", [1, 2, 3])
def test_undated_originals_are_compared_by_their_places(address: str, date: int) -> None:
    status, found = errors(address, date)
    assert status == 200, found
    counts = np.array(found["counts"][0])
    assert np.count_nonzero(counts) == 1, "every pixel of an exact store has one error, 0"


def test_the_error_of_an_exact_store_of_undated_files_is_one_value(address: str) -> None:
    _, body, _ = fetch(f"{address}/layers/0/stretch.json", error=1, bands="B04,B03,B02")
    assert json.loads(body)["high"] < 0.001


def test_dates_that_are_not_known_are_not_listed(address: str) -> None:
    _, found = errors(address, 9)
    assert "position from 1 to 3, got" in str(found)
    assert "unknown" not in str(found)


@pytest.mark.parametrize("letters", ["a", "ab", "abcd"])
def test_another_number_of_undated_originals_is_refused(folder: Path, tmp_path: Path, letters: str) -> None:
    with pytest.raises(InputError, match=f"as many dates as s has, 3, .*got {len(letters)}"):
        open_layers([folder / "s.zarr"], undated(tmp_path, letters))


def test_undated_originals_of_a_part_of_a_dated_store_are_refused(tmp_path: Path) -> None:
    for t in range(3):
        write_tif(tmp_path / f"t_2021070{t + 1}.tif", scene_pixels(t), NAMES)
    make_store(sorted(tmp_path.glob("t_*.tif")), tmp_path / "s.zarr", chunk=64)
    with pytest.raises(InputError, match="as many dates as s has, 3"):
        open_layers([tmp_path / "s.zarr"], undated(tmp_path, "ab"))
    known = str(tmp_path / "t_20210703.tif")
    layers = open_layers([tmp_path / "s.zarr"], [known])
    assert layers.originals[0].pairs(layers.stores[0].facts.dates) == {2: 0}


def test_originals_of_other_dates_are_refused(tmp_path: Path) -> None:
    for t in range(4):
        write_tif(tmp_path / f"t_2021070{t + 1}.tif", scene_pixels(t), NAMES)
    paths = [str(path) for path in sorted(tmp_path.glob("t_*.tif"))]
    for name, own in (("s", paths[:2]), ("z", paths[2:])):
        make_store(own, tmp_path / f"{name}.zarr", chunk=64)
    asked = r"dates that s has, 2 from 2021-07-01\S* to 2021-07-02\S*, got none of them, 2 from 2021-07-03"
    with pytest.raises(InputError, match=asked):
        open_layers([tmp_path / "s.zarr"], paths[2:])
    assert list(open_layers([tmp_path / "s.zarr", tmp_path / "z.zarr"], paths[2:]).originals) == [1]


def test_appended_undated_dates_have_no_original(tmp_path: Path) -> None:
    make_store(undated(tmp_path), tmp_path / "s.zarr", chunk=64)
    layers = open_layers([tmp_path / "s.zarr"], undated(tmp_path))
    append_store(tmp_path / "s.zarr", open_scene(undated(tmp_path, "d")))
    layers.stores[0].refresh()
    assert layers.stores[0].facts.shape[0] == 4
    assert layers.originals[0].pairs(layers.stores[0].facts.dates) == {0: 0, 1: 1, 2: 2}


def test_dates_that_are_there_twice_are_told_apart_by_their_places(folder: Path) -> None:
    layers = open_layers([folder / "s.zarr"], undated(folder))
    original = layers.originals[0]
    original._own = ("2021-07-01", "2021-07-01", "2021-07-02")
    assert original.pairs(original._own) == {0: 0, 1: 1, 2: 2}
    original._own = ("2021-07-02", None, "2021-07-01")
    assert original.pairs(("2021-07-01", None, "2021-07-02")) == {0: 2, 1: 1, 2: 0}
