"""The report page: its numbers against report.json, its words, its pictures, and all of it in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from browser import Page, chromium, find_browser
from eozip.cli import cli
from eozip.errors import InputError
from eozip_lab.evaluate.html_report import crops, plots, sentences, tables
from eozip_lab.evaluate.html_report.data import load_report
from eozip_lab.evaluate.html_report.page import write_report
from eozip_lab.evaluate.html_report.sentences import (
    beginnings,
    bound_verdicts,
    place_losses,
    verdict,
    verdicts,
)
from eozip_lab.simulate import simulate
from reportfiles import BANDS, BASELINES, DATES, METHODS, PLACES, SIDE, rate, write_made_up_report

SEA = PLACES[1]


class Cells(HTMLParser):
    """What a page shows: text by JSON pointer, addresses it names, and all of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.text = ""
        self._open: str | None = None
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._open, self._silent = found.get("data-at"), tag in ("script", "style")
        self.addresses += [found[key] or "" for key in ("src", "href") if key in found]

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data
        if self._open is not None:
            self.numbers.append((self._open, data))
            self._open = None


def value_at(report: Any, pointer: str) -> Any:
    """RFC 6901, on its own: what the page says must lie there."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if report is None:
            return None
        report = report[int(key)] if isinstance(report, list) else report.get(key)
    return report


def assert_shown(report: Any, cells: list[tuple[str, str]]) -> None:
    """Each text is its value, within half of its last digit."""
    for pointer, text in cells:
        value = value_at(report, pointer)
        if value is None:
            assert text == "-", pointer
        else:
            digits = len(text.partition(".")[2])
            assert float(text) == pytest.approx(value, abs=0.5001 * 10**-digits), pointer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    write_made_up_report(made)
    assert write_report(made) == made / "report.html"
    assert {path.name for path in (made / "figures").iterdir()} == {
        "rd.svg",
        "bits.svg",
        "speed.svg",
        "bands.svg",
    }
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def cells(folder: Path) -> Cells:
    found = Cells()
    found.feed((folder / "report.html").read_text())
    return found


# --- numbers ---


def test_every_number_is_the_one_in_the_json(cells: Cells, data: Any) -> None:
    assert len(cells.numbers) > 800
    assert_shown(data, cells.numbers)


def test_a_wrong_number_would_be_noticed(cells: Cells, data: Any) -> None:
    other = json.loads(json.dumps(data))
    other["summary"]["rates_at_psnr"]["tec-elic-small"]["40"]["mean"] += 0.001
    with pytest.raises(AssertionError):
        assert_shown(other, cells.numbers)


def test_every_place_and_method_is_in_the_tables(cells: Cells, data: Any) -> None:
    shown = {pointer for pointer, _ in cells.numbers}
    sea = SEA.replace("~", "~0").replace("/", "~1")
    for method in (*METHODS, *BASELINES):
        for db in ("36", "40", "44", "48"):
            at = f"/summary/rates_at_psnr/{method}/{db}"
            assert {f"{at}/mean", f"{at}/places/hill", f"{at}/places/{sea}"} <= shown
        for place in ("hill", sea):
            at = f"/summary/at_psnr/40/{method}/{place}"
            assert {f"{at}/ndvi_error", f"{at}/band_psnr/11", f"{at}/group_psnr/60"} <= shown
            assert f"{at}/ms_ssim" not in shown, "null everywhere: no column"
    for i, _ in enumerate(data["summary"]["pairs"]):
        assert {f"/summary/pairs/{i}/ratio_at_psnr/40/low", f"/summary/pairs/{i}/bd_rate/mean"} <= shown
        assert f"/summary/pairs/{i}/bd_rate/by_place/hill/share" in shown
    assert {f"/points/{i}/bytes" for i in range(len(data["points"]))} <= shown


# --- words ---


def test_a_baseline_that_wins_is_named(cells: Cells) -> None:
    """On "sea" klt+jpeg2000 needs 0.055 against 0.06; jpeg2000 is faster; both go on."""
    expected = [
        f"{SEA}, 40 dB: the baseline klt+jpeg2000 (0.0550 bpppb) wins, against tec-elic-small (0.0600 bpppb).",
        "At 40 dB a baseline wins in encoding speed, MPx per CPU second on 2 of 2 places, most clearly jpeg2000 on "
        "hill: 5 against 0.4",
        "Above 46.0 dB, the most that a codec of eozip reaches on every place, only baselines go on: "
        "klt+jpeg2000 (50.0 dB), jpeg2000 (50.0 dB).",
        "At 48 dB the baseline klt+jpeg2000 (0.4286 bpppb) wins: no codec of eozip reaches it on every place.",
    ]
    for sentence in expected:
        assert sentence in cells.text
    assert "hill, 40 dB: the baseline" not in cells.text


def test_gains_come_with_their_interval(cells: Cells) -> None:
    assert (
        "At 40 dB tec-elic-small (0.0550 bpppb) needs 19 % fewer bits than the best baseline, "
        "klt+jpeg2000 (0.0675 bpppb)." in cells.text
    )
    assert (
        "needs 0.826 of the bits of klt+jpeg2000 (95 % interval 0.625 to 1.091, 2 of 2 places); "
        "neither is shown to be better." in cells.text
    )
    assert re.search(
        r"of the bits of jpeg2000 \(95 % interval 0\.200 to 0\.200, 2 of 2 places\)\.", cells.text
    )


def test_few_places_are_not_passed_off_as_many(cells: Cells, folder: Path) -> None:
    assert "Intervals over 2 places say little" in cells.text
    report = load_report(folder)
    report.data["places"].extend(report.data["places"] * 2)
    assert sentences.few_places(report) == []


def test_what_is_missing_is_said(cells: Cells) -> None:
    assert "av1 was left out: PyAV has no encoder" in cells.text
    assert "jpeg2000 at 99 on hill failed: InputError: too <fine>" in cells.text


def table(**rates: float | None) -> dict[str, Any]:
    return {name: {"40": {"mean": rate, "places": {"p": rate}}} for name, rate in rates.items()}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"a": 0.1, "b": 0.2}, "At 40 dB a (0.1000 bpppb) needs 50 % fewer bits than the best baseline, b (0.2000 bpppb)."),
        ({"a": 0.2, "b": 0.19}, "the baseline b (0.1900 bpppb) wins and needs 5.0 % fewer bits than the best of eozip, a"),
        ({"a": 0.2, "b": 0.2}, "need the same bits"),
        ({"a": None, "b": 0.2}, "the baseline b (0.2000 bpppb) wins: no codec"),
        ({"a": 0.2, "b": None}, "stands alone"),
        ({"a": None, "b": None}, "reached by no contender"),
    ],
)  # fmt: skip
def test_verdicts(rates: dict[str, float | None], expected: str) -> None:
    assert expected in verdict(table(**rates), ["a"], "40")
    lost = rates["b"] is not None and (rates["a"] is None or rates["b"] < rates["a"])
    assert bool(place_losses(table(**rates), ["a"])) == lost


# --- the page ---


def test_promised_errors_have_their_winner() -> None:
    def row(**means: float | None) -> dict[str, Any]:
        return {bound[1:]: {"mean": mean, "places": {}} for bound, mean in means.items()}

    bounded = {"ours": row(_0=5.0, _16=2.0, _99=0.1), "theirs": row(_0=6.0, _16=1.0, _128=0.1)}
    assert bound_verdicts(bounded, ["ours"]) == [
        "With every pixel exact ours (5.0000 bpppb) needs 17 % fewer bits than the best baseline, theirs (6.0000 bpppb).",
        "With no error over 16 DN the baseline theirs (1.0000 bpppb) wins and needs 50 % fewer bits than the best of "
        "eozip, ours (2.0000 bpppb).",
    ]


def test_the_page_needs_nothing_from_elsewhere(cells: Cells, folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert len(cells.addresses) >= 14
    assert all(address.startswith(("data:image/", "#")) for address in cells.addresses)
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|<link", text)
    assert "default-src 'none'" in text
    assert text.count("</script>") == 2, "a name must not end a script"
    assert SEA in cells.text


def test_the_same_numbers_give_the_same_plots(folder: Path) -> None:
    first, again = (plots._bits_plot(load_report(folder)) for _ in range(2))
    assert first == again


def test_a_report_that_cannot_be_read_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `eozip evaluate` first"):
        write_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        write_report(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": "other"}')
    with pytest.raises(InputError, match="'eozip-evaluate/1', got 'other'"):
        write_report(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": "eozip-evaluate/1", "points": []}')
    with pytest.raises(InputError, match="no provenance"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def without(whole: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """A report of one place with a point each of some methods, no pairs and no crops."""
    points = {p["method"]: p for p in whole["points"] if p["place"] == "hill" and p["method"] in methods}
    rates = {name: whole["summary"]["rates_at_psnr"][name] for name in methods}
    summary = {**whole["summary"], "rates_at_psnr": rates, "pairs": [], "at_psnr": {"40": {}}}
    small = {**whole, "places": whole["places"][:1], "points": list(points.values()), "summary": summary}
    return {**small, "methods": whole["methods"][:4], "failures": [], "crops": {"levels": [], "files": []}}


@pytest.mark.parametrize("methods", [["tec-elic-small"], ["jpeg2000"], []])
def test_reports_with_next_to_nothing_in_them(tmp_path: Path, methods: list[str]) -> None:
    small = without(write_made_up_report(tmp_path), methods)
    (tmp_path / "report.json").write_text(json.dumps(small))
    text = write_report(tmp_path).read_text()
    assert "No crops were stored." in text
    assert "Nothing that was asked for." in text
    assert f"{len(methods)} method{'' if len(methods) == 1 else 's'} on 1 place" in text
    assert "<svg" not in text, "pictures keep their ids to themselves"


@pytest.mark.slow
def test_evaluate_ends_with_the_page(tmp_path: Path) -> None:
    simulate(tmp_path / "sim", dates=1, size=32)
    asked = ["--codecs", "tec-fp-small", "--baselines", "none", "--qualities", "20,90", "--crops", "16"]
    asked += ["--size", "32", "--json", "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "sim"), *asked])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    found = Cells()
    found.feed(Path(said["page"]).read_text())
    assert_shown(json.loads(Path(said["report"]).read_text()), found.numbers)
    assert "1 method on 1 place" in found.text


# --- pictures ---


def crop(folder: Path, data: Any, place: str, method: str, level: int | None = None) -> np.ndarray:
    """Pixels of a stored crop."""
    wanted = (place, method, level)
    (file,) = [f["file"] for f in data["crops"]["files"] if (f["place"], f["method"], f["level"]) == wanted]
    return np.load(folder / file)["dn"]


def stretched(original: np.ndarray, frame: np.ndarray, band: str) -> np.ndarray:
    """8-bit picture of one band, by hand: 1st to 99th percentile of the original, visible bands together."""
    together = ["B02", "B03", "B04"] if band in ("B02", "B03", "B04") else [band]
    low, high = np.percentile(original[:, [BANDS.index(b) for b in together]], (1, 99))
    return np.rint(255 * np.clip((frame[BANDS.index(band)] - low) / (high - low), 0, 1))


def test_combinations_show_the_bands_they_name(folder: Path, data: Any) -> None:
    original = crop(folder, data, "hill", "original")
    planes = crops._planes_of(original, BANDS)
    assert list(planes.combinations) == [
        "true colour (B04, B03, B02)",
        "false colour (B08, B04, B03)",
        "SWIR (B12, B8A, B04)",
    ]
    decoded = crop(folder, data, "hill", "jpeg2000", 1)
    shown = crops.pictures(decoded[1], planes)
    for name, sources in planes.combinations.items():
        for band, (picture, channel) in zip(re.findall(r"B\w\w", name), sources):
            expected = stretched(original, decoded[1], band)
            assert np.abs(shown[picture][..., channel] - expected).max() <= 1, (name, band)


def test_bands_of_no_combination_are_shown_under_their_names() -> None:
    dn = np.arange(2 * 16, dtype=np.uint16).reshape(1, 2, 4, 4)
    planes = crops._planes_of(dn, ["VV", "VH"])
    assert planes.combinations == {"bands VV, VH": [(0, 0), (0, 1), (0, 1)]}
    (picture,) = crops.pictures(dn[0], planes)
    assert picture[..., 2].max() == 0
    flat = crops._planes_of(np.full((1, 1, 4, 4), 7, np.uint16), ["x"])
    assert flat.combinations == {"bands x": [(0, 0), (0, 0), (0, 0)]}


def test_error_maps_are_means_over_bands() -> None:
    dn = np.full((1, 2, 3, 3), 60_000, np.uint16)
    dn_hat = dn.copy()
    dn_hat[0, 1, 2, 0] = 59_000
    found = crops._error_map(dn, dn_hat)
    assert found[0, 2, 0] == 500
    assert found.sum() == 500


def test_places_beyond_the_budget_are_named(folder: Path) -> None:
    report = load_report(folder)
    whole = crops.viewer_data(report)
    assert [p["name"] for p in whole["places"]] == list(PLACES)
    assert whole["left_out"] == []
    assert [len(p["levels"]) for p in whole["places"]] == [2, 2]
    little = crops.viewer_data(report, 10)
    assert [p["name"] for p in little["places"]] == ["hill"]
    assert little["left_out"] == [SEA]


def test_dates_that_do_not_fit_are_left_out_before_places_are(folder: Path) -> None:
    report = load_report(folder)
    whole = crops.viewer_data(report)["places"]
    thinned = crops.viewer_data(report, sum(place["bytes"] for place in whole) * 2 // 3)
    assert [p["name"] for p in thinned["places"]] == list(PLACES)
    assert [len(p["dates"]) for p in thinned["places"]] == [1, 1]
    for place in thinned["places"]:
        assert {len(e["frames"]) for level in place["levels"] for e in level["entries"]} == {1}


def test_of_many_baselines_the_best_are_shown(folder: Path) -> None:
    report = load_report(folder)
    file = next(f for f in report.data["crops"]["files"] if f["kind"] == "baseline")
    rivals = [{**file, "psnr": 30.0 + k} for k in range(9)]
    assert [f["psnr"] for f in crops._shown(report, rivals)] == [34.0, 35.0, 36.0, 37.0, 38.0]


def test_the_page_stays_below_three_megabytes(tmp_path: Path) -> None:
    """Crops of noise, which no picture format makes smaller, and many points."""
    side = 160
    data = write_made_up_report(tmp_path)
    rng = np.random.default_rng(0)
    for file in data["crops"]["files"]:
        dn = rng.integers(0, 10_000, (DATES, len(BANDS), side, side)).astype(np.uint16)
        np.savez(tmp_path / file["file"], dn=dn, window=np.array([0, 0, side, side]))
    data["points"] *= 700 // len(data["points"]) + 1
    (tmp_path / "report.json").write_text(json.dumps(data))
    page = write_report(tmp_path)
    assert page.stat().st_size < 3_000_000
    assert b"data:image/webp" in page.read_bytes()


def test_a_report_passed_on_without_its_crops_has_a_page(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    shutil.rmtree(tmp_path / "crops")
    done = CliRunner().invoke(cli, ["evaluate", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "No crops were stored." in (tmp_path / "report.html").read_text()


def test_without_data_and_without_a_report_nothing_is_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["evaluate", "--out", str(tmp_path / "x")])
    assert done.exit_code != 0
    assert "run `eozip evaluate` first" in done.output
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("wrong", ["../outside.npz", "crops/absent.npz", "report.json"])
def test_a_crop_that_cannot_be_read_is_a_named_error(tmp_path: Path, wrong: str) -> None:
    inside = tmp_path / "report"
    data = write_made_up_report(inside)
    np.savez(tmp_path / "outside.npz", dn=np.zeros(1), window=np.zeros(4))
    data["crops"]["files"][3]["file"] = wrong
    (inside / "report.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=re.escape(Path(wrong).name)):
        write_report(inside)
    assert not (inside / "report.html").exists()


def test_less_error_for_many_times_the_bits_is_no_win(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    report = load_report(tmp_path)
    assert not [text for text in sentences.metric_losses(report) if "NDVI" in text]
    frugal(report.data, "jpeg2000", 1.05)
    (found,) = [text for text in sentences.metric_losses(report) if "NDVI" in text]
    assert "on 2 of 2 places" in found
    assert "with 5.0 % more bits" in found


def frugal(data: dict, method: str, ratio: float) -> None:
    """Lets a baseline need about the bits of the codec at 40 dB."""
    places = data["summary"]["rates_at_psnr"][method]["40"]["places"]
    for place, bits in data["summary"]["rates_at_psnr"]["tec-elic-small"]["40"]["places"].items():
        places[place] = ratio * bits


def test_a_codec_that_was_not_measured_so_low_loses_nothing() -> None:
    rates = {
        "ours": {"36": {"mean": None, "places": {"a": None}}, "40": {"mean": 0.1, "places": {"a": 0.1}}},
        "av1": {"36": {"mean": 0.2, "places": {"a": 0.2}}, "40": {"mean": 0.3, "places": {"a": 0.3}}},
    }
    points = [
        {"method": name, "place": "a", "psnr": psnr, "bpppb": rate}
        for name, psnr, rate in (("ours", 38.0, 0.08), ("ours", 44.0, 0.2), ("av1", 30.0, 0.1))
    ]
    begins = beginnings(points)
    assert begins == {"ours": (38.0, 0.08), "av1": (30.0, 0.1)}
    low, high = verdicts(rates, ["ours"], begins)
    assert "the coarsest setting of ours reaches 38.0 dB or more" in low
    assert "fewer bits than the best baseline needs, av1 (0.2000 bpppb)" in low
    assert "needs 67 % fewer bits" in high
    assert place_losses(rates, ["ours"], begins) == []


def test_a_table_of_ratios_has_no_columns_without_numbers(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    report = load_report(tmp_path)
    for pair in report.data["summary"]["pairs"]:
        for db, found in pair["ratio_at_psnr"].items():
            found |= {"low": None, "high": None} if db == "40" else {"ratio": None, "low": None, "high": None}
    table = tables.ratio_table(report)
    assert "ratio at 40 dB" in table
    assert "ratio at 44 dB" not in table
    assert "interval" not in table


def test_places_that_were_not_reached_hide_no_loss(tmp_path: Path) -> None:
    write_made_up_report(tmp_path)
    report = load_report(tmp_path)
    frugal(report.data, "jpeg2000", 1.0)
    report.data["summary"]["at_psnr"]["40"]["jpeg2000"]["hill"] = None
    (found,) = [text for text in sentences.metric_losses(report) if "NDVI" in text]
    assert f"on 1 of 2 places, most clearly jpeg2000 on {SEA}: 0.01 against 0.02" in found


def test_a_place_without_decoded_crops_is_not_offered(folder: Path) -> None:
    report = load_report(folder)
    report.data["crops"]["files"] = [
        f for f in report.data["crops"]["files"] if f["place"] == "hill" or f["level"] is None
    ]
    assert [p["name"] for p in crops.viewer_data(report)["places"]] == ["hill"]


# --- in a browser ---

needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium found: install chromium, or set EOZIP_BROWSER to its path"
)
DOUBLE = "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(true))))"


@pytest.fixture(scope="module")
def tab(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(str(find_browser()), tmp_path_factory.mktemp("browser") / "profile") as found:
        found.open(folder / "report.html")
        settled(found, "")
        yield found
        assert found.errors == []


def settled(tab: Page, text: str) -> None:
    """Until the viewer shows what the controls say, `text` among it."""
    tab.wait(f"(document.body.dataset.shown ?? '-').includes({json.dumps(text)})")
    tab.run(DOUBLE)


def choose(tab: Page, control: str, text: str) -> None:
    """Picks an option by its text, as a person would."""
    tab.run(
        f"""(() => {{
        const select = document.getElementById("{control}");
        select.selectedIndex = [...select.options].findIndex((o) => o.text === {json.dumps(text)});
        delete document.body.dataset.shown;
        select.dispatchEvent(new Event("change"));
        }})()"""
    )
    settled(tab, text)


def slide(tab: Page, value: float) -> str:
    """Sets the slider; what the page says it shows."""
    tab.run(
        f"""(() => {{
        const slider = document.getElementById("slider");
        slider.value = "{value}";
        slider.dispatchEvent(new Event("input"));
        }})()"""
    )
    return tab.run("document.getElementById('shown').textContent")


def top_canvas(tab: Page, share: float) -> int:
    """Which of the three pictures the browser has on top, at a share of the width and the middle of the height."""
    return tab.run(
        f"""(() => {{
        const stage = document.getElementById("stage");
        stage.scrollIntoView();
        const box = stage.getBoundingClientRect();
        const hit = document.elementFromPoint(box.left + {share} * box.width, box.top + 100);
        return [...stage.querySelectorAll("canvas")].indexOf(hit);
        }})()"""
    )


def pixels(tab: Page, number: int, among: str = "#stage canvas") -> np.ndarray:
    """[h, w, 3] of a picture: one of the viewer's three, or of others."""
    script = f"""(() => {{
        const canvas = document.querySelectorAll("{among}")[{number}];
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        }})()"""
    return np.array(tab.run(script)).reshape(SIDE, SIDE, 4)[..., :3]


@needs_browser
def test_in_a_browser_the_page_opens_from_disk_and_its_numbers_match(tab: Page, data: Any) -> None:
    script = "[...document.querySelectorAll('[data-at]')].map((e) => [e.dataset.at, e.textContent])"
    found = [tuple(pair) for pair in tab.run(script)]
    assert len(found) > 800
    assert_shown(data, found)
    loaded = "[...document.images].map((i) => i.complete && i.naturalWidth)"
    assert len(tab.run(loaded)) == 4
    assert all(width > 300 for width in tab.run(loaded))
    files = [url for url in tab.requested if not url.startswith(("data:", "blob:"))]
    assert [url.rpartition("/")[2] for url in files] == ["report.html"]


@needs_browser
def test_in_a_browser_the_slider_moves(tab: Page, data: Any) -> None:
    (near,) = [
        f
        for f in data["crops"]["files"]
        if (f["place"], f["method"], f["level"]) == ("hill", "tec-elic-small", 1)
    ]
    assert slide(tab, 0) == "original"
    assert [top_canvas(tab, share) for share in (0.1, 0.9)] == [0, 0]
    said = slide(tab, 25)
    assert said == (
        f"left: tec-elic-small: {near['bytes']:,} bytes, {near['bpppb']:.4f} bpppb, {near['psnr']:.2f} dB | right: original"
    )
    assert [top_canvas(tab, share) for share in (0.1, 0.45, 0.55, 0.9)] == [1, 1, 0, 0]
    assert slide(tab, 50).startswith("tec-elic-small: ")
    assert [top_canvas(tab, share) for share in (0.1, 0.9)] == [1, 1]
    assert re.match(r"left: klt\+jpeg2000: .* \| right: tec-elic-small: ", slide(tab, 75))
    assert [top_canvas(tab, share) for share in (0.1, 0.45, 0.55, 0.9)] == [2, 2, 1, 1]
    assert slide(tab, 100).startswith("klt+jpeg2000: ")
    slide(tab, 25)
    tab.run("document.getElementById('slider').focus()")
    tab.press("ArrowRight")
    assert tab.run("Number(document.getElementById('slider').value)") == 25.5
    left, top, width = tab.run(
        "(() => { const b = document.getElementById('stage').getBoundingClientRect(); return [b.left, b.top, b.width]; })()"
    )
    tab.drag((left + width / 2, top + 50), (left + width / 5, top + 60))
    assert tab.run("Number(document.getElementById('slider').value)") == pytest.approx(10, abs=0.5)
    assert [top_canvas(tab, share) for share in (0.15, 0.25)] == [1, 0]


@needs_browser
def test_in_a_browser_places_dates_bands_and_methods_switch(tab: Page, folder: Path, data: Any) -> None:
    choose(tab, "place", SEA)
    choose(tab, "date", f"date {DATES}")
    choose(tab, "combination", "SWIR (B12, B8A, B04)")
    choose(tab, "level", "bytes of tec-elic-small near 36 dB")
    choose(tab, "right", "jpeg2000")
    original = crop(folder, data, SEA, "original")
    stacks = [original, *(crop(folder, data, SEA, m, 0) for m in ("tec-elic-small", "jpeg2000"))]
    for canvas, stack in enumerate(stacks):
        expected = np.stack([stretched(original, stack[1], band) for band in ("B12", "B8A", "B04")], axis=2)
        assert np.abs(pixels(tab, canvas) - expected).max() <= 1
    methods = [*METHODS, *BASELINES]
    errors = [np.abs(crop(folder, data, SEA, m, 0).astype(float) - original).mean(axis=1) for m in methods]
    brightest = np.median([np.percentile(error, 99) for error in errors])
    shares = [pixels(tab, 2 + 2 * n, "#grid canvas")[..., 0] for n in range(len(methods))]
    colours = crops._error_colours()
    for error, shown in zip(errors, shares):
        expected = np.array(colours)[np.rint(255 * np.clip(error[1] / brightest, 0, 1)).astype(int), 0]
        assert np.abs(shown - expected).max() <= 3, "neighbouring colours are at most three apart"
    captions = tab.run("[...document.querySelectorAll('#grid figcaption')].map((c) => c.textContent)")
    assert [text.partition(":")[0] for text in captions] == ["original", *METHODS, *BASELINES]
    stored = [f for f in data["crops"]["files"] if (f["place"], f["level"]) == (SEA, 0)]
    assert [re.search(r"([\d,]+) bytes", text)[1] for text in captions[1:]] == [
        f"{f['bytes']:,}" for f in stored
    ]
    assert tab.run("document.querySelectorAll('#grid canvas').length") == 1 + 2 * len(stored)
    choose(tab, "place", "hill")


def test_the_made_up_report_is_what_it_says() -> None:
    """The numbers that the sentences above are checked against."""
    assert rate("klt+jpeg2000", SEA, 40.0) < rate("tec-elic-small", SEA, 40.0)
    assert rate("klt+jpeg2000", "hill", 40.0) > rate("tec-elic-small", "hill", 40.0)
