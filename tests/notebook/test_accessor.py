"""`ds.eozip`: there where it is needed, and what it draws."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import xarray as xr

import eozip
import eozip.accessor
from eozip.errors import InputError
from eozip.notebook import Card, show
from storefiles import make_store, opened, scene_pixels, write_dates

SRC = str(Path(__file__).parents[2] / "src")


def _python(code: str) -> str:
    env = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accessor")
    make_store(write_dates(folder), folder / "a.zarr")
    return folder / "a.zarr"


def test_a_store_that_is_opened_by_xarray_alone_has_the_accessor(store: Path) -> None:
    said = _python(f"import xarray; ds = xarray.open_zarr({str(store)!r}); print(type(ds.eozip).__name__)")
    assert said.strip() == "EozipAccessor"


def test_a_store_has_the_accessor_whatever_was_imported_first(store: Path) -> None:
    said = _python(
        f"import eozip, eozip.store, xarray; print(type(xarray.open_zarr({str(store)!r}).eozip).__name__)"
    )
    assert said.strip() == "EozipAccessor"


def test_importing_eozip_after_xarray_gives_any_dataset_the_accessor() -> None:
    said = _python("import xarray, eozip; print(type(xarray.Dataset().eozip).__name__)")
    assert said.strip() == "EozipAccessor"


def test_rgb_draws_red_green_and_blue_of_the_date(store: Path) -> None:
    axes = opened(store).eozip.plot.rgb(time=1)
    assert axes.get_title() == "2021-07-15, B04 B03 B02"
    assert axes.images[0].get_array().shape == (50, 41, 3)


def test_nodata_is_white(store: Path) -> None:
    picture = opened(store).eozip.plot.rgb().images[0].get_array()
    assert np.all(picture[:10, :10] == 1)


@pytest.mark.parametrize(
    "wrong", [{"bands": ["B99", "B03", "B02"]}, {"bands": [0]}, {"time": 9}, {"time": "1999"}]
)
def test_what_is_not_there_is_named(store: Path, wrong: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        opened(store).eozip.plot.rgb(**wrong)


def test_a_dataset_without_pixels_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="band, y, x"):
        xr.Dataset({"a": ("x", [1])}).eozip.plot.rgb()


def test_a_store_is_a_card_with_picture_ratio_and_dates(store: Path) -> None:
    text = opened(store).eozip._repr_html_()
    assert "data:image/png;base64," in text
    assert "2021-07-01 to 2021-08-02" in text
    assert "times smaller" in text


def test_a_chunk_is_a_card() -> None:
    card = show(eozip.encode(scene_pixels(0), "lossless"))
    assert card.facts["codec"] == "lossless"
    assert card.picture is not None
    assert "<table>" in card._repr_html_()


def test_a_card_is_text_where_there_is_no_page() -> None:
    card = show(eozip.encode(scene_pixels(0), "lossless"))
    assert repr(card).startswith("chunk\n")
    assert all(text in repr(card) for text in card.facts.values())
    assert "times smaller" in repr(card)
    assert "PNG" not in repr(card)


def test_a_dataset_of_no_store_has_no_card_but_a_text(tmp_path: Path) -> None:
    plain = xr.Dataset({"a": ("x", [1])})
    assert plain.eozip._repr_html_() is None
    assert "no store" in repr(plain.eozip)
    plain.to_netcdf(tmp_path / "a.nc", engine="scipy")
    assert xr.open_dataset(tmp_path / "a.nc", engine="scipy").eozip._repr_html_() is None


def test_names_in_a_card_do_nothing_to_the_page() -> None:
    assert "<script>" not in Card("<script>", {"<script>": "<script>"})._repr_html_()


@pytest.mark.parametrize("wrong", [None, 7])
def test_what_is_no_store_has_no_card(wrong: object) -> None:
    with pytest.raises(InputError, match="expected a store"):
        show(wrong)


def test_explore_shows_the_page_in_a_frame(store: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    found = opened(store).eozip.explore()
    with urlopen(f"{found.address}/healthz", timeout=30) as answer:
        assert answer.status == 200
    assert f"src='{found.address}'" in found._repr_html_()
    found.stop()


def test_a_dataset_from_nowhere_cannot_be_explored() -> None:
    with pytest.raises(InputError, match="to_zarr"):
        xr.Dataset().eozip.explore()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"time": "2021-99-99"}, "time"),
        ({"time": 1.5}, "time"),
        ({"time": None}, "time"),
        ({"percentiles": (98, 2)}, "percentiles"),
        ({"percentiles": (0, 101)}, "percentiles"),
        ({"percentiles": 5}, "percentiles"),
    ],
)
def test_what_is_asked_wrongly_is_named(store: Path, asked: dict, named: str) -> None:
    with pytest.raises(InputError, match=f"^{named}"):
        xr.open_zarr(store).eozip.plot.rgb(**asked)


@pytest.mark.parametrize("axis", ["x", "y", "time", "band"])
def test_a_selection_of_nothing_has_no_picture(store: Path, axis: str) -> None:
    with pytest.raises(InputError, match=f"none along {axis}"):
        xr.open_zarr(store).isel({axis: slice(0, 0)}).eozip.plot.rgb()
