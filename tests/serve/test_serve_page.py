"""The page of `eozip serve` in a real browser: tiles, slider, swipe, series, and who can use it."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import WEBGL, Page, chromium, find_browser
from eozip.serve import create_app, open_layers
from eozip.serve.run import start_app
from rasterfiles import write_tif
from storefiles import make_store, opened, scene_pixels, write_dates

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium found: install chromium, or set EOZIP_BROWSER to its path"
)
AXE = importlib.util.find_spec("axe_core_python")


@dataclass
class Shown:
    """The page and what it shows."""

    page: Page
    address: str
    store: Path

    def choose(self, name: str, text: str) -> None:
        """Chooses the option of a list whose text has `text`."""
        self.page.run(
            f"(() => {{ const list = document.getElementById('{name}');"
            f"list.value = [...list.options].find((o) => o.text.includes('{text}')).value;"
            "list.dispatchEvent(new Event('change')); })()"
        )

    def settle(self, side: str = "left") -> None:
        """Until the picture of a side is drawn."""
        drawn = f"document.getElementById('{side}-view').dataset.idle !== undefined"
        self.page.wait(f"document.body.ariaBusy === 'false' && {drawn}")
        self.page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the picture in the window."""
        found = self.page.run(
            "(() => { document.getElementById('stage').scrollIntoView();"
            "const b = document.getElementById('stage').getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom]; })()"
        )
        return tuple(round(value) for value in found)

    def picture(self) -> np.ndarray:
        """What is seen of the stage, [h, w, 3]."""
        box = self.box()
        image = Image.open(io.BytesIO(base64.b64decode(self.page.screenshot()))).convert("RGB")
        return np.asarray(image.crop(box)).astype(int)

    def set(self, name: str, value: object, event: str = "input") -> None:
        """Sets a field as a person would."""
        self.page.run(
            f"(() => {{ const field = document.getElementById('{name}'); field.value = '{value}';"
            f"field.dispatchEvent(new Event('{event}')); }})()"
        )

    def text(self, name: str) -> str:
        return self.page.run(f"document.getElementById('{name}').textContent")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("page")
    originals = write_dates(folder)
    make_store(originals, folder / "a.zarr", "tec-elic-small", quality=30)
    make_store(originals, folder / "b.zarr")
    write_tif(folder / "bare.tif", scene_pixels(0)[:3], crs=None, transform=None)
    make_store([folder / "bare.tif"], folder / "bare.zarr")
    names = [folder / name for name in ("a.zarr", "b.zarr", "bare.zarr")]
    running = start_app(create_app(open_layers(names, [str(path) for path in originals])))
    with chromium(str(BROWSER), folder / "profile", WEBGL) as page:
        page.open(running.address)
        page.wait("document.body.dataset.started === 'true'")
        yield Shown(page, running.address, folder / "a.zarr")
    running.stop()


@pytest.fixture
def fresh(shown: Shown) -> Iterator[Shown]:
    """The page as it begins; whatever a test does, the browser has nothing to complain about."""
    shown.page.errors.clear()
    shown.page.size(1200, 1000)
    shown.page.open(shown.address)
    shown.page.wait("document.body.dataset.started === 'true'")
    shown.settle()
    yield shown
    assert shown.page.errors == []


def coloured(picture: np.ndarray) -> int:
    """Pixels that are neither ground nor shades of it."""
    return int((np.abs(picture - np.array([139, 147, 155])).max(axis=2) > 12).sum())


def test_tiles_appear_on_the_map(fresh: Shown) -> None:
    assert fresh.page.run("document.body.dataset.view") == "map"
    assert coloured(fresh.picture()) > 20_000


def test_it_asks_nobody_but_its_server(fresh: Shown) -> None:
    assert fresh.page.requested
    others = [
        url for url in fresh.page.requested if not url.startswith((fresh.address, "data:", "blob:", "about:"))
    ]
    assert others == []


def test_the_slider_shows_another_date(fresh: Shown) -> None:
    before = fresh.picture()
    fresh.page.run("document.getElementById('date').focus()")
    fresh.page.run("delete document.getElementById('left-view').dataset.idle")
    fresh.page.press("ArrowRight")
    fresh.settle()
    assert "2021-07-15" in fresh.text("date-text")
    assert np.abs(fresh.picture() - before).max() > 20


def test_thumbnails_choose_a_date_and_tell_its_clouds(fresh: Shown) -> None:
    fresh.page.run("document.querySelectorAll('#thumbnails button')[2].click()")
    fresh.settle()
    assert fresh.page.run("document.getElementById('date').value") == "3"
    assert "bright" in fresh.text("thumbnails")
    fresh.page.wait(
        "[...document.querySelectorAll('#thumbnails img')].every((i) => i.complete && i.naturalWidth)"
    )


def test_swipe_moves_the_line_between_two_pictures(fresh: Shown) -> None:
    fresh.choose("right", "its error")
    fresh.settle("right")
    half = fresh.picture()
    fresh.set("swipe", 0)
    all_right = fresh.picture()
    fresh.set("swipe", 100)
    all_left = fresh.picture()
    middle, width = half.shape[0] // 2, half.shape[1]
    columns = slice(width // 2 - 60, width // 2 - 20), slice(width // 2 + 20, width // 2 + 60)
    assert np.abs(half[middle, columns[0]] - all_left[middle, columns[0]]).max() < 12
    assert np.abs(half[middle, columns[1]] - all_right[middle, columns[1]]).max() < 12
    assert np.abs(all_left[middle, columns[1]] - all_right[middle, columns[1]]).max() > 30


def test_stores_can_be_held_against_each_other_and_their_original(fresh: Shown) -> None:
    options = fresh.page.run("[...document.getElementById('right').options].map((o) => o.text)")
    assert options == ["nothing", "b", "its original", "its error"]
    fresh.choose("right", "its original")
    fresh.settle("right")
    assert any("/layers/3/tiles/" in url for url in fresh.page.requested)


def test_an_index_changes_the_picture(fresh: Shown) -> None:
    before = fresh.picture()
    fresh.choose("view", "NDVI")
    fresh.settle()
    assert "ndvi" in fresh.text("legend")
    assert np.abs(fresh.picture() - before).max() > 40


def test_a_click_draws_the_series_of_xarray_with_its_bound(fresh: Shown) -> None:
    fresh.choose("view", "NDVI")
    fresh.settle()
    left, top, right, bottom = fresh.box()
    fresh.page.click((left + right) / 2, (top + bottom) / 2 + 10)
    fresh.page.wait("document.getElementById('series').dataset.values !== undefined")
    row, column = (
        int(fresh.page.run(f"document.getElementById('{name}').value")) for name in ("row", "column")
    )
    values = json.loads(fresh.page.run("document.getElementById('series').dataset.values"))
    dn = opened(fresh.store).reflectance[:, :, row, column].values.astype(float)
    assert np.allclose(values, (dn[:, 7] - dn[:, 3]) / (dn[:, 7] + dn[:, 3]), atol=1e-5)
    assert "typical error" in fresh.text("series-text")
    assert fresh.page.run("document.querySelectorAll('#series polygon.band').length") == 1
    assert fresh.page.run("document.getElementById('csv').href").startswith(fresh.address)


def test_the_cursor_tells_the_bytes_of_its_chunk(fresh: Shown) -> None:
    left, top, right, bottom = fresh.box()
    fresh.page.move((left + right) / 2, (top + bottom) / 2)
    fresh.page.wait("document.getElementById('cursor').textContent.includes('bits per pixel')")
    assert "bytes" in fresh.text("cursor")


def test_a_pixel_can_be_chosen_without_a_mouse(fresh: Shown) -> None:
    fresh.set("row", 30)
    fresh.set("column", 20)
    fresh.page.run("document.getElementById('show-pixel').click()")
    fresh.page.wait("document.getElementById('series').dataset.values !== undefined")
    assert "row 30, column 20" in fresh.text("series-text")
    assert fresh.page.run("document.querySelectorAll('#table tbody tr').length") == 3


def test_a_histogram_is_drawn(fresh: Shown) -> None:
    fresh.page.wait("document.querySelectorAll('#histogram path').length > 5")
    assert "B04, B03, B02" in fresh.text("histogram-text")


def test_a_store_without_a_place_is_a_plain_picture(fresh: Shown) -> None:
    fresh.choose("left", "bare")
    fresh.page.wait("document.body.dataset.view === 'plain'")
    fresh.settle()
    assert fresh.page.run("document.querySelector('#left-view img').naturalHeight") == 50
    left, top, right, bottom = fresh.box()
    fresh.page.click((left + right) / 2, (top + bottom) / 2)
    fresh.page.wait("document.getElementById('series').dataset.values !== undefined")
    assert fresh.text("series-text").startswith("B04 at row")


def test_a_formula_that_does_not_parse_is_said(shown: Shown) -> None:
    shown.page.open(shown.address)
    shown.page.wait("document.body.dataset.started === 'true'")
    shown.choose("view", "own formula")
    shown.set("formula", "nir +", "change")
    shown.page.wait("document.getElementById('fault').textContent.includes('expected arithmetic')")


def test_it_fits_a_phone(fresh: Shown) -> None:
    fresh.page.size(360, 740)
    fresh.page.open(fresh.address)
    fresh.page.wait("document.body.dataset.started === 'true'")
    fresh.settle()
    assert fresh.page.run("window.innerWidth") == 360
    assert fresh.page.run("document.documentElement.scrollWidth") <= 360
    assert coloured(fresh.picture()) > 5_000


def test_every_control_is_reached_by_the_keyboard(fresh: Shown) -> None:
    fresh.choose("right", "its error")
    fresh.settle("right")
    seen = set()
    for _ in range(30):
        fresh.page.press("Tab")
        seen.add(fresh.page.run("document.activeElement.id"))
    assert {
        "left",
        "right",
        "view",
        "low",
        "high",
        "auto",
        "swipe",
        "date",
        "row",
        "column",
        "show-pixel",
    } <= seen


@pytest.mark.skipif(AXE is None, reason="no axe found: pip install axe-core-python")
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_nothing(fresh: Shown, width: int) -> None:
    fresh.page.size(width, 900)
    fresh.choose("right", "its error")
    fresh.settle("right")
    fresh.set("row", 30)
    fresh.set("column", 20)
    fresh.page.run("document.getElementById('show-pixel').click()")
    fresh.page.wait("document.getElementById('series').dataset.values !== undefined")
    script = (Path(AXE.origin).parent / "axe.min.js").read_text()
    fresh.page.run(f"{{ {script} }}; 0")
    found = fresh.page.run(
        "axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))"
    )
    assert found == []
