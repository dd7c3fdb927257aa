"""The simulator: the same scene in any window, made of what it says, and labelled as made up."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eozip import raster, sensors
from eozip.errors import InputError, OutputError
from eozip_lab.simulate import MAX_DATES, render, season, simulate

BANDS = sensors.get("s2-l2a").bands
B = {band.name: index for index, band in enumerate(BANDS)}
SIZE = 192
GOLDEN = 0x9B505250


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    return render(0, season(4, 0), range(SIZE), range(SIZE))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (range(64), range(SIZE)),
        (range(13, 77), range(31, 150)),
        (range(64, 65), range(64, 65)),
        (range(100, SIZE), range(3, 4)),
        (range(190, 192), range(187, 191)),
    ],
    ids=str,
)
def test_any_window_equals_the_same_part_of_the_whole(stack: np.ndarray, rows: range, columns: range) -> None:
    part = render(0, season(4, 0), rows, columns)
    whole = stack[:, :, rows.start : rows.stop, columns.start : columns.stop]
    np.testing.assert_array_equal(part, whole)


def test_pixels_are_the_same_on_every_machine(stack: np.ndarray) -> None:
    """A golden value: change it only with a note in CHANGELOG, since demos and figures rest on it."""
    assert zlib.crc32(np.ascontiguousarray(stack).astype("<u2").tobytes()) == GOLDEN


def test_seeds_give_different_worlds(stack: np.ndarray) -> None:
    other = render(1, season(4, 1), range(64), range(64))
    assert (other != stack[:, :, :64, :64]).mean() > 0.9


def test_adding_dates_leaves_the_land_where_it_is() -> None:
    first = season(1, 0)[0].date
    assert first == season(12, 0)[0].date == datetime(2025, 4, 15).date()


def test_dates_are_spread_over_a_year_on_the_satellites_rhythm() -> None:
    for count in (1, 4, 12, 73, MAX_DATES):
        days = [day.date for day in season(count, 3)]
        gaps = {(b - a).days for a, b in itertools.pairwise(days)}
        assert len(days) == count
        assert len(gaps) <= 1
        assert all(gap % 5 == 0 and gap > 0 for gap in gaps)


def test_every_season_of_four_has_a_clear_and_a_cloudy_date() -> None:
    for seed in range(20):
        covers = sorted(day.cover for day in season(4, seed))
        assert covers[0] == 0
        assert 0.1 < covers[-1] <= 0.6


def test_digital_numbers_look_like_surface_reflectance(stack: np.ndarray) -> None:
    clear = stack[[day.cover == 0 for day in season(4, 0)]]
    assert stack.dtype == np.uint16
    assert stack.min() >= 1
    assert clear.max() < 7000
    means = clear.mean(axis=(0, 2, 3))
    assert 150 < means[B["B02"]] < 1200
    assert means[B["B08"]] > 1.5 * means[B["B04"]]
    assert means[B["B11"]] > means[B["B12"]]


def test_fields_green_up_and_fall_bare() -> None:
    x = render(0, season(4, 0), range(300, 460), range(0, 160)).astype(np.float64)
    ndvi = (x[:, B["B08"]] - x[:, B["B04"]]) / (x[:, B["B08"]] + x[:, B["B04"]])
    spring, summer, _, winter = ndvi
    assert np.median(spring) > np.median(winter) + 0.1
    assert (spring > summer + 0.2).mean() > 0.1
    assert (summer > spring + 0.2).mean() > 0.1


def test_the_sun_stands_where_a_morning_orbit_sees_it() -> None:
    for day in season(73, 0):
        east, south, up = day.sun()
        assert math.hypot(east, south, up) == pytest.approx(1)
        assert 130 < math.degrees(math.atan2(east, -south)) < 165
    by_month = {day.date.month: math.degrees(math.asin(day.sun()[2])) for day in season(12, 0)}
    assert 54 < by_month[6] < 64
    assert 14 < by_month[12] < 22


def test_clouds_are_bright_and_throw_shadows_away_from_the_sun() -> None:
    cloudy = max(season(4, 0), key=lambda day: day.cover)
    window = (range(512), range(512))
    clouds = render(0, [cloudy], *window)[0].astype(np.float64)
    clear = render(0, [replace(cloudy, cover=0.0)], *window)[0].astype(np.float64)
    cloud = clouds[B["B02"]] > 3000
    shadow = ~cloud & (clouds[B["B08"]] < 0.6 * clear[B["B08"]])
    assert abs(cloud.mean() - cloudy.cover) < 0.2
    assert shadow.mean() > 0.02
    east, south, up = cloudy.sun()
    down, across = (round(cloudy.cloud_height / 10 * part / up) for part in (south, east))
    assert down > across > 0
    thrown = shadow[:-down, :-across]
    assert cloud[down:, across:][thrown].mean() > 0.9
    assert cloud[:-down, :-across][shadow[down:, across:]].mean() < 0.6


@pytest.mark.parametrize("name", ["B01", "B05", "B11", "B09", "B02", "B08"])
def test_coarse_bands_are_bilinear_from_their_own_grid(stack: np.ndarray, name: str) -> None:
    """Between two native centres a profile is a straight line, and lines meet in the native value."""
    native = BANDS[B[name]].native_resolution_m // 10
    factor = max(native, 2)
    x = stack[:, B[name]].astype(np.float64)
    starts = np.arange(factor // 2, SIZE - 2 * factor, factor)
    first, last = x[:, starts], x[:, starts + factor - 1]
    slope = (last - first) / (factor - 1)
    left, right = first - slope / 2, last + slope / 2
    gap = np.abs(right[:, :-1] - left[:, 1:])
    if native > 1:
        assert gap.max() <= 2.001  # what rounding to whole DN can do
    else:
        assert gap.mean() > 20


def test_files_are_labelled_georeferenced_and_equal_to_the_render(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    paths = simulate(tmp_path / "s", dates=2, size=530, seed=5, progress=lambda *c: calls.append(c))
    assert [p.name for p in paths] == ["sim_20250415.tif", "sim_20251012.tif"]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    scene = raster.open_scene(tmp_path / "s")
    assert scene.shape == (2, 12, 530, 530)
    assert scene.dates == (datetime(2025, 4, 15, 10, 15, 59), datetime(2025, 10, 12, 10, 15, 59))
    assert sensors.match_bands(scene.band_names) == (sensors.get("s2-l2a"), tuple(range(12)))
    assert scene.profile.nodata == 0
    assert scene.offset == 0
    for tags in scene.tags:
        assert tags[""]["simulated"] == "yes"
        assert tags[""]["eozip_simulator_seed"] == "5"
        assert "SIMULATED" in tags[""]["TIFFTAG_IMAGEDESCRIPTION"]
    assert scene.band_tags[9] == {"wavelength_nm": "945.1", "native_resolution_m": "60"}
    with rasterio.open(paths[0]) as src:
        assert src.crs.to_epsg() == 32633
        assert src.res == (10, 10)
    # Across the seam between two windows.
    got = raster.read_window(scene, slice(0, 2), slice(500, 530), slice(505, 525))
    np.testing.assert_array_equal(got, render(5, season(2, 5), range(500, 530), range(505, 525)))


def test_the_edge_of_the_swath_is_nodata_and_slanted(tmp_path: Path) -> None:
    simulate(tmp_path / "s", dates=2, size=100, seed=0, nodata_edge=True)
    pixels = raster.read_window(raster.open_scene(tmp_path / "s"), slice(None), slice(None), slice(None))
    empty = pixels == 0
    assert (empty.all(axis=1) == empty.any(axis=1)).all()
    assert 0.02 < empty.mean() < 0.3
    first, last = empty[0, 0, 0].sum(), empty[0, 0, -1].sum()
    assert last > first


@pytest.mark.parametrize(("dates", "size"), [(0, 8), (MAX_DATES + 1, 8), (1, 0), (1, 10981)])
def test_sizes_out_of_range_are_refused(tmp_path: Path, dates: int, size: int) -> None:
    with pytest.raises(InputError, match="expected 1 to"):
        simulate(tmp_path / "s", dates=dates, size=size)
    assert os.listdir(tmp_path) == []


def test_an_existing_folder_is_refused_unless_asked(tmp_path: Path) -> None:
    simulate(tmp_path / "s", dates=1, size=8)
    with pytest.raises(OutputError, match="exists already"):
        simulate(tmp_path / "s", dates=2, size=8)
    assert len(simulate(tmp_path / "s", dates=2, size=8, overwrite=True)) == 2
    assert len(os.listdir(tmp_path / "s")) == 2


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "s", dates=1, size=8, progress=stop)
    assert os.listdir(tmp_path) == []


MEMORY = """
import sys
from pathlib import Path
from eozip_lab.simulate import simulate
simulate(Path(sys.argv[1]) / "s", dates=1, size=int(sys.argv[2]))
# not ru_maxrss, which begins with what the process had that started this one
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: peak memory is not known")
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    peaks = []
    for size in ("1024", "4096"):
        command = [sys.executable, "-c", MEMORY, str(tmp_path), size]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        (tmp_path / "s").rename(tmp_path / size)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 300
    assert peaks[1] < 1000
